//! `tcpgw up`, with real processes in namespaces of their own.

mod begin;
mod daemons;
mod endings;
mod filtered;
mod foreman;
mod killed;
mod mqtt;
mod names;
mod serve;

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::shell::{Ran, TCPGW};
use crate::harness::{Net, wait_until};

/// Longest time to wait for any step of these tests; each takes much less.
const PATIENCE: Duration = Duration::from_secs(30);
/// Public address of the gateway.
const PUBLIC: [u8; 4] = [203, 0, 113, 1];

/// A server that tells each client its name, and ends at SIGTERM.
const SERVER: &str = r#"
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(os.environ["PORT"])))
server.listen(1024)
print("listening", flush=True)
while True:
    client, _ = server.accept()
    try:
        client.sendall((os.environ["PS"] + " " + os.environ.get("RELEASE", "") + "\n").encode())
    except OSError:
        pass
    client.close()
"#;
/// The command of such a server.
const TCP: &str = "exec /usr/bin/python3 server.py";

/// An app with its directory.
struct App<'n> {
    net: &'n Net,
    name: String,
    /// Running process of `tcpgw up`, if there is one.
    child: Option<Child>,
}

impl Net {
    /// Makes an app of that name, whose Procfile has these lines.
    fn app(&self, name: &str, procfile: &str) -> App<'_> {
        let app = App {
            net: self,
            name: name.to_owned(),
            child: None,
        };
        fs::create_dir(app.directory()).expect("failed to make a directory");
        app.write("Procfile", procfile);
        app.write("server.py", SERVER);
        app.write(".env", &format!("{}=1\n", app.marker()));
        app
    }
}

impl App<'_> {
    fn directory(&self) -> PathBuf {
        self.net.file(&self.name)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.directory().join(file), text).expect("failed to write a file of an app");
    }

    /// Returns a variable that only the app's processes have.
    fn marker(&self) -> String {
        format!("UP_{}_{}", self.net.prefix(), self.name).replace('-', "_")
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_in("gateway", args)
    }

    fn command_in(&self, host: &str, args: &[&str]) -> Command {
        let mut command = self.net.command(host, &[&[TCPGW, "up"], args].concat());
        command.current_dir(self.directory());
        command.env("TCPGW_SOCKET", self.net.socket());
        command.env_remove("PORT");
        command
    }

    /// Runs one of the other commands.
    fn cli(&self, args: &[&str]) -> Ran {
        let since = Instant::now();
        let output = self
            .command(args)
            .stdin(Stdio::null())
            .output()
            .expect("failed to run tcpgw up");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            command: format!("up {}", args.join(" ")),
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            took: since.elapsed(),
        }
    }

    /// Starts it, and does not wait for anything.
    fn launch(&mut self, args: &[&str]) {
        let command = self.command(args);
        self.launch_as(command);
    }

    fn launch_as(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("failed to make a log");
        command.stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log);
        self.child = Some(command.spawn().expect("failed to run tcpgw up"));
    }

    /// Starts it, and waits until so many processes get connections.
    #[track_caller]
    fn start(&mut self, args: &[&str], serving: usize) {
        self.launch(args);
        assert!(wait_until(PATIENCE, || self.serving() == serving), "{}", self.printed());
    }

    /// Returns how many of the app's `tcp` processes get connections, or 0 while the kernel does not have the whole desired
    /// state.
    fn serving(&self) -> usize {
        let Some(port) = self.port() else { return 0 };
        let status = self.net.cli(&["status", "-o", "json", "--interval", "0s"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        if status["daemon"]["in_sync"] != true {
            return 0;
        }
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let service = services.into_iter().find(|service| service["port"] == port);
        let backends = service.map(|service| service["backends"].as_array().cloned().unwrap_or_default());
        let is_serving = |backend: &&Value| {
            // A backend that is failing gets connections until enough of its probes have failed.
            ["healthy", "presumed", "failing"]
                .iter()
                .any(|health| backend["health"] == *health)
                && backend["state"] == "active"
        };
        backends.unwrap_or_default().iter().filter(is_serving).count()
    }

    /// Returns the app's public port, as it was printed last.
    fn port(&self) -> Option<u16> {
        let printed = self.printed();
        let url = printed
            .lines()
            .rev()
            .find_map(|line| line.split_once("TCP_URL=tcp://"))?
            .1;
        let (address, _) = url.split_once(',')?;
        address.rsplit_once(':')?.1.parse().ok()
    }

    fn log(&self) -> PathBuf {
        self.net.file(&format!("{}.log", self.name))
    }

    fn printed(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.log()).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until that is printed.
    #[track_caller]
    fn prints(&self, text: &str) {
        assert!(
            wait_until(PATIENCE, || self.printed().contains(text)),
            "no {text:?}: {}",
            self.printed()
        );
    }

    fn pid(&self) -> Pid {
        let id = self.child.as_ref().expect("it runs").id();
        Pid::from_raw(i32::try_from(id).expect("a process id fits"))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("failed to signal tcpgw up");
    }

    /// Waits for its end, and gives its exit code.
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("it runs");
        let has_ended = wait_until(PATIENCE, || child.try_wait().expect("failed to wait").is_some());
        assert!(has_ended, "it does not end: {}", self.printed());
        self.child
            .take()
            .expect("it was there")
            .wait()
            .expect("failed to wait")
            .code()
    }

    /// Ends it by a signal, in good order.
    #[track_caller]
    fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        assert_eq!(self.ended(), Some(0), "{}", self.printed());
    }

    /// Returns the processes of the app: those that have its variable.
    fn processes(&self) -> Vec<i32> {
        let marker = format!("{}=1", self.marker()).into_bytes();
        let has_it = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == marker)
        };
        let all = fs::read_dir("/proc").expect("there is /proc").flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(has_it).collect()
    }

    fn ps(&self) -> Vec<Value> {
        let printed = self.cli(&["ps", "-o", "json"]).ok();
        let value: Value = serde_json::from_str(&printed).expect("JSON");
        value["processes"].as_array().expect("a list").clone()
    }

    /// Returns the address of a process by its name.
    #[track_caller]
    fn address(&self, name: &str) -> SocketAddr {
        let all = self.ps();
        let one = all.iter().find(|one| one["name"] == name && one["state"] == "running");
        let address = one
            .and_then(|one| one["address"].as_str())
            .unwrap_or_else(|| panic!("no {name}: {all:?}"));
        address.parse().expect("an address")
    }

    /// Connects from outside, and returns what the server says.
    fn ask(&self) -> std::io::Result<String> {
        let port = self.port().expect("it was told");
        self.net.within("client", || hear(SocketAddr::from((PUBLIC, port))))
    }

    /// Connects from outside again and again until `done`.
    fn ask_until(&self, mut done: impl FnMut() -> bool + Send) -> Connects {
        let public = SocketAddr::from((PUBLIC, self.port().expect("it was told")));
        self.net.within("client", || {
            let mut connects = Connects::default();
            while !done() {
                let begin = Instant::now();
                connects.all += 1;
                match hear(public) {
                    Ok(name) => drop(connects.names.insert(name)),
                    Err(error) => connects.failed.push(error.to_string()),
                }
                connects.longest = connects.longest.max(begin.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            connects
        })
    }
}

/// Results of connections.
#[derive(Debug, Default)]
struct Connects {
    all: usize,
    failed: Vec<String>,
    longest: Duration,
    names: std::collections::BTreeSet<String>,
}

/// Connects to a server and returns the text that it sends.
fn hear(server: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(std::io::ErrorKind::UnexpectedEof.into()),
        text => Ok(text.to_owned()),
    }
}

impl Drop for App<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what {} printed:\n{}", self.name, self.printed());
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
            // Everything else ends with the namespaces of the test, except processes that are about to end.
            wait_until(PATIENCE, || self.processes().is_empty());
        }
    }
}

impl Net {
    /// Returns the process number of the daemon that a `tcpgw up` has started, as it is noted.
    fn daemon_of_up(&self) -> Option<i32> {
        let namespace = fs::read_dir(self.file("run")).ok()?.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json")
                .filter(|name| name.starts_with("up-"))
                .map(|_| entry.path())
        })?;
        let shared: Value = serde_json::from_slice(&fs::read(namespace).ok()?).ok()?;
        i32::try_from(shared["daemon"].as_i64()?).ok()
    }

    /// Returns the names of what `tcpgw up` has left in the gateway: links, tables and files.
    fn left_by_up(&self) -> Vec<String> {
        let links = self.sh("gateway", "ip -o link | cut -d: -f2").ok();
        let links = links.lines().map(str::trim).filter(|name| name.starts_with("tu"));
        let links = links.filter(|name| !name.is_empty() && name.contains('-') || name.starts_with("tcpup"));
        let mut left: Vec<String> = links.map(str::to_owned).collect();
        let tables = self.sh("gateway", "nft list tables").ok();
        left.extend(tables.lines().filter(|line| line.contains("tcp")).map(str::to_owned));
        let run = fs::read_dir(self.file("run")).into_iter().flatten().flatten();
        let names = run.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| name.starts_with("up-")));
        left.extend(self.file("store.db").exists().then(|| "the store".to_owned()));
        let lock = self.socket().with_extension("sock.lock");
        left.extend(lock.exists().then(|| "the lock of the socket".to_owned()));
        left
    }
}
