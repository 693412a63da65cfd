//! A daemon in the gateway, with a state file, a run directory, a socket and a store of its own.
//!
//! The daemon serves processes of its network namespace only, and the process of these tests is in none of theirs: a relay there
//! passes on what is asked.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::client::PATIENCE;
use super::shell::{Ran, Running, TCPGW};
use super::{Net, wait_until};

const RELAY: &str = "TCPGW_TEST_RELAY";
/// The state file that a daemon follows if none is named.
const INSTALLED_STATE: &str = "/etc/tcpgw/state.json";

/// A daemon that can be killed and started again. It is killed when the value is dropped.
pub(crate) struct Daemon<'n> {
    net: &'n Net,
    options: Vec<String>,
    variables: Vec<(&'static str, String)>,
    store: PathBuf,
    /// True when the daemon is started with a state file.
    with_state: bool,
    child: Option<Child>,
    relay: Child,
}

/// Response of the API.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Asserts success and gives what was said.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

impl Net {
    /// Starts a daemon that follows the state file, with these further options. When this function returns, the daemon has
    /// examined the kernel.
    #[track_caller]
    pub(crate) fn daemon(&self, options: &[&str]) -> Daemon<'_> {
        self.daemon_storing(self.file("store.db"), options)
    }

    /// Starts such a daemon with its store at `store`.
    #[track_caller]
    pub(crate) fn daemon_storing(&self, store: PathBuf, options: &[&str]) -> Daemon<'_> {
        self.daemon_of(store, options, &[])
    }

    /// Starts a daemon with these variables in its environment.
    #[track_caller]
    pub(crate) fn daemon_within(&self, variables: &[(&'static str, String)]) -> Daemon<'_> {
        self.daemon_of(self.file("store.db"), &[], variables)
    }

    #[track_caller]
    fn daemon_of(&self, store: PathBuf, options: &[&str], variables: &[(&'static str, String)]) -> Daemon<'_> {
        let mut daemon = Daemon {
            net: self,
            options: options.iter().map(ToString::to_string).collect(),
            variables: variables.to_vec(),
            store,
            with_state: true,
            child: None,
            relay: self.relay("gateway", "relay.sock"),
        };
        daemon.start();
        daemon
    }

    /// Starts a daemon without a state file, unless its options name one.
    #[track_caller]
    pub(crate) fn daemon_without_state(&self, options: &[&str]) -> Daemon<'_> {
        assert!(
            !Path::new(INSTALLED_STATE).exists(),
            "{INSTALLED_STATE} exists: a daemon of this test would serve it"
        );
        let mut daemon = Daemon {
            net: self,
            options: options.iter().map(ToString::to_string).collect(),
            variables: Vec::new(),
            store: self.file("store.db"),
            with_state: false,
            child: None,
            relay: self.relay("gateway", "relay.sock"),
        };
        daemon.start();
        daemon
    }

    /// Applies a state without a daemon, whose store is where the daemon was told.
    pub(crate) fn apply_alone(&self, state: &Value) -> Ran {
        self.apply_alone_with(state, "")
    }

    /// Applies a state without a daemon and with further options, with the daemon's store.
    pub(crate) fn apply_alone_with(&self, state: &Value, options: &str) -> Ran {
        let file = self.state_file("alone.json", state);
        let line = format!("exec {TCPGW} apply --socket none {options} '{file}'");
        self.sh("gateway", &line)
    }

    /// Returns the path of the daemon's state file.
    pub(crate) fn wanted(&self) -> PathBuf {
        self.file("wanted.json")
    }

    /// Puts a state in the place of the daemon's state file, whole at any moment.
    pub(crate) fn want(&self, state: impl Display) {
        let new = self.file("wanted.json.new");
        fs::write(&new, state.to_string()).expect("failed to write a state file");
        fs::rename(new, self.wanted()).expect("failed to replace a state file");
    }

    /// Returns the path of the daemon's API socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.file("tcpgw.sock")
    }

    /// Returns a command that sends requests to the daemon.
    fn asking(&self, words: &[&str]) -> Vec<String> {
        let socket = self.socket().to_string_lossy().into_owned();
        let mut argv = vec![TCPGW.to_owned(), "--socket".to_owned(), socket];
        argv.extend(words.iter().map(ToString::to_string));
        argv
    }

    /// Runs a command that asks the daemon.
    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        self.run("gateway", &self.asking(args))
    }

    /// Starts one and leaves it running.
    pub(crate) fn begin(&self, args: &[&str]) -> Running {
        self.spawn("gateway", &self.asking(args))
    }

    /// Runs a command with `-o json` and returns the JSON that it prints.
    #[track_caller]
    pub(crate) fn told(&self, args: &[&str]) -> Value {
        let printed = self.cli(&[args, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error}: {printed}"))
    }

    /// Starts a process in that host which forwards connections to its own socket to the daemon.
    pub(crate) fn relay(&self, host: &str, name: &str) -> Child {
        let at = self.file(name);
        // An earlier daemon's relay has left its socket.
        let _ = fs::remove_file(&at);
        let this = env::current_exe().expect("the tests have a file");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(this);
        command.args(["--exact", "harness::daemon::a_relay_passes_on", "--nocapture"]);
        command.env(RELAY, &at).env("TCPGW_SOCKET", self.socket());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let relay = command.spawn().expect("failed to run a relay");
        // Between bind and listen the socket's file exists, and there is no listener yet.
        assert!(wait_until(PATIENCE, || UnixStream::connect(&at).is_ok()), "no relay");
        relay
    }

    /// Asks the daemon by a relay.
    pub(crate) fn ask_by(&self, relay: &str, request: &[u8]) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(self.file(relay))?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read(&answer).ok_or_else(|| io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// Returns an HTTP request.
pub(crate) fn request(method: &str, target: &str, body: &str) -> Vec<u8> {
    request_with(method, target, "", body)
}

/// Returns an HTTP request with more headers, each with its end of line.
pub(crate) fn request_with(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: tcpgw\r\nconnection: close\r\n{headers}");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

impl Daemon<'_> {
    /// Starts it again.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.launch();
        assert!(
            wait_until(PATIENCE, || !self.events_of("started").is_empty()),
            "it does not start"
        );
    }

    /// Starts the daemon without waiting for it.
    pub(crate) fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log());
        self.launch_logging(log.expect("failed to make a log"));
    }

    /// Starts the daemon without waiting for it, with this destination of its log.
    pub(crate) fn launch_logging(&mut self, log: impl Into<Stdio>) {
        assert!(self.child.is_none(), "it runs");
        let [state, socket] = [self.net.wanted(), self.net.socket()];
        // As systemd has it, which knows the process before it runs.
        let with_pid = ["sh", "-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh", TCPGW, "daemon"];
        let words = if self.variables.is_empty() {
            &with_pid[4..]
        } else {
            &with_pid
        };
        let mut command = self.net.command("gateway", words);
        if self.with_state {
            command.arg("--state").arg(state);
        }
        command.arg("--socket").arg(socket);
        command.arg("--store").arg(&self.store).args(&self.options);
        command.envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log);
        self.child = Some(command.spawn().expect("failed to run a daemon"));
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("failed to signal a daemon");
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.ended(), 128 + Signal::SIGKILL as i32);
    }

    /// Ends it as a service manager does.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.ended(), 0);
    }

    /// Waits for its end, and gives its exit code; a signal is 128 and its number.
    pub(crate) fn ended(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = child.wait().expect("failed to wait for a daemon");
        status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Returns the log of all processes of this daemon so far.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.net.file("daemon.log")
    }

    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        self.net.ask_by("relay.sock", &request(method, target, body))
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Value {
        self.ask("GET", target, "").expect("an answer").ok()
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, body: impl Display) -> Answer {
        self.ask("POST", target, &body.to_string()).expect("an answer")
    }

    /// Returns true when the kernel has the whole desired state, `healthy` backends are healthy, and no backend is draining.
    pub(crate) fn is_settled(&self, healthy: u64) -> bool {
        // The daemon may not listen yet.
        let Ok(answer) = self.ask("GET", "/v1/daemon", "") else {
            return false;
        };
        let daemon = answer.ok();
        daemon["in_sync"] == true && daemon["health"]["healthy"] == healthy && daemon["drains"] == Value::Array(vec![])
    }

    /// Waits until so many backends are healthy, the kernel has the whole desired state, and no backend is draining.
    #[track_caller]
    pub(crate) fn settles(&self, healthy: u64) {
        let settled = wait_until(PATIENCE * 2, || self.is_settled(healthy));
        assert!(settled, "{:#}", self.get("/v1/daemon"));
    }

    /// Returns the events that the present process still has.
    pub(crate) fn events(&self) -> Vec<Value> {
        let Ok(answer) = self.ask("GET", "/v1/events?follow=false", "") else {
            return Vec::new();
        };
        answer.ok()["events"].as_array().cloned().unwrap_or_default()
    }

    /// Returns the events of one kind.
    pub(crate) fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["event"] == kind);
        events
    }

    /// Returns the number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.events().last().and_then(number).unwrap_or(0)
    }

    /// Waits for an event after that one with these fields.
    #[track_caller]
    pub(crate) fn hears(&self, after: u64, fields: &Value) -> Value {
        let fields = fields.as_object().expect("fields are an object");
        let is_it =
            |event: &Value| number(event) > Some(after) && fields.iter().all(|(name, value)| event[name] == *value);
        let mut heard = None;
        wait_until(PATIENCE * 2, || {
            heard = self.events().into_iter().find(is_it);
            heard.is_some()
        });
        heard.unwrap_or_else(|| panic!("no {fields:?} after {after}: {:#?}", self.events()))
    }
}

/// Returns the number of an event among its daemon's events, counted from 1: the last part of its id.
pub(crate) fn number(event: &Value) -> Option<u64> {
    event["id"].as_str()?.rsplit('-').next()?.parse().ok()
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(self.relay.kill());
        drop(self.relay.wait());
        if thread::panicking() {
            let log = self.logged();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(60);
            eprintln!("the daemon's last words:\n{}", lines[last..].join("\n"));
        }
    }
}

/// Status and body of an answer.
fn read(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { joined(body)? } else { body.to_owned() };
    Some(Answer { status, body })
}

fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..length)?);
        chunks = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// Process that [`Net::relay`] starts; run as a test it does nothing.
#[test]
fn a_relay_passes_on() {
    let (Some(at), Some(to)) = (env::var_os(RELAY), env::var_os("TCPGW_SOCKET")) else {
        return;
    };
    // The process ends with the one that started it.
    thread::spawn(|| {
        drop(io::stdin().read(&mut [0]));
        process::exit(0);
    });
    let at = Path::new(&at);
    let listener = UnixListener::bind(at).expect("a socket");
    for client in listener.incoming() {
        let (client, to) = (client.expect("a client"), PathBuf::from(&to));
        thread::spawn(move || pass_on(&client, &to));
    }
}

fn pass_on(client: &UnixStream, to: &Path) {
    let Ok(daemon) = UnixStream::connect(to) else { return };
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(io::copy(&mut { client }, &mut { &daemon }));
            drop(daemon.shutdown(Shutdown::Both));
        });
        drop(io::copy(&mut { &daemon }, &mut { client }));
        drop(client.shutdown(Shutdown::Both));
    });
}

/// Runs `work` and returns its result with the time that it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed())
}
