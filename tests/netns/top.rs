//! `tcpgw top` in a real terminal, which tmux provides.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};

/// A terminal with a shell in the gateway. It is closed when the value is dropped.
struct Terminal<'n> {
    net: &'n Net,
}

impl<'n> Terminal<'n> {
    /// Opens a terminal of this size.
    #[track_caller]
    fn open(net: &'n Net, columns: u16, lines: u16) -> Self {
        let terminal = Self { net };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &lines,
            "env",
            "PS1=ready> ",
            "TERM=screen-256color",
            "sh",
            "-i",
        ]);
        terminal.shows("ready>");
        terminal
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.net.file("tmux");
        let socket = socket.to_string_lossy();
        self.net
            .run("gateway", &[&["tmux", "-u", "-S", &socket], args].concat())
            .ok()
    }

    /// Types text, without a line end.
    #[track_caller]
    fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys by their names in tmux.
    #[track_caller]
    fn presses(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen contains all of these texts.
    #[track_caller]
    fn shows_all(&self, texts: &[&str]) {
        let mut screen = String::new();
        let all = wait_until(PATIENCE, || {
            screen = self.screen();
            texts.iter().all(|text| screen.contains(text))
        });
        assert!(all, "{texts:?} are not shown:\n{screen}");
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        self.shows_all(&[text]);
    }

    #[track_caller]
    fn hides(&self, text: &str) {
        let mut screen = String::new();
        let hidden = wait_until(PATIENCE, || {
            screen = self.screen();
            !screen.contains(text)
        });
        assert!(hidden, "{text} is still shown:\n{screen}");
    }

    /// Begins to show the live view, and waits for the first values. The mode of the terminal is kept for later.
    #[track_caller]
    fn begins(&self, options: &str) {
        let socket = self.net.socket();
        let [before, after] = ["before", "after"].map(|name| self.net.file(name).to_string_lossy().into_owned());
        let _ = fs::remove_file(&after);
        let line = format!(
            "clear; stty -g >{before}; {TCPGW} --socket {} top --interval 200ms {options}; echo ended=$?; stty -g >{after}",
            socket.to_string_lossy()
        );
        self.types(&line);
        self.presses(&["Enter"]);
        self.shows_all(&["SERVICE", "q: quit"]);
        assert_eq!(self.alternate(), "1");
    }

    /// Continues the live view that was stopped.
    #[track_caller]
    fn continues(&self) {
        let after = self.net.file("after");
        let _ = fs::remove_file(&after);
        self.types(&format!(
            "clear; fg; echo ended=$?; stty -g >{}",
            after.to_string_lossy()
        ));
        self.presses(&["Enter"]);
        self.shows_all(&["SERVICE", "q: quit"]);
        assert_eq!(self.alternate(), "1");
    }

    /// Returns whether the screen is not that of the shell: `1` or `0`.
    #[track_caller]
    fn alternate(&self) -> String {
        self.tmux(&["display-message", "-p", "#{alternate_on}"])
            .trim()
            .to_owned()
    }

    /// Waits for the end with this exit code, and checks that the terminal is as it was before.
    #[track_caller]
    fn has_ended(&self, code: u8) {
        self.shows(&format!("ended={code}"));
        assert_eq!((self.alternate().as_str(), self.cursor().as_str()), ("0", "1"));
        let after = self.net.file("after");
        let read = || fs::read_to_string(&after).unwrap_or_default();
        assert!(
            wait_until(PATIENCE, || read().ends_with('\n')),
            "the mode of the terminal is not known"
        );
        let before = fs::read_to_string(self.net.file("before")).expect("the mode of the terminal before");
        assert_eq!(read(), before, "the mode of the terminal has changed");
    }

    /// Returns whether the cursor is shown: `1` or `0`.
    fn cursor(&self) -> String {
        self.tmux(&["display-message", "-p", "#{cursor_flag}"])
            .trim()
            .to_owned()
    }

    /// Returns the process of the live view.
    #[track_caller]
    fn process(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().to_owned();
        let children =
            fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("children of the shell");
        let process = children.split_whitespace().next().expect("a child");
        Pid::from_raw(process.parse().expect("a process id"))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let socket = self.net.file("tmux");
        let socket = socket.to_string_lossy();
        self.net.run("gateway", &["tmux", "-S", &socket, "kill-server"]);
    }
}

/// Two services of the API, `web` with two backends and `mail` with one.
#[track_caller]
fn add_services(net: &Net) {
    for args in [
        &[
            "web",
            "--port",
            "2001",
            "--pps",
            "1000",
            "--backend",
            "10.2.0.11:3000",
            "--backend",
            "10.2.0.12:3000",
        ][..],
        &["mail", "--port", "2002", "--backend", "10.2.0.13:3000"],
    ] {
        net.cli(&[&["service", "add"], args].concat()).ok();
        net.cli(&["wait", args[0], "--for", "healthy"]).ok();
    }
}

fn public() -> SocketAddr {
    at(PUBLIC[0], 2001)
}

/// Sets a flag when it is dropped, also where a test panics.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while a connection to the service carries traffic. Returns the result, and the client's address.
fn with_traffic<T>(net: &Net, work: impl FnOnce(SocketAddr) -> T) -> T {
    let mut conn = net.connect("client", public()).expect("a connection");
    conn.greeting().expect("a greeting");
    let (client, is_over) = (conn.local(), AtomicBool::new(false));
    thread::scope(|scope| {
        let over = OnDrop(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && conn.echo(&[7; 500]).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let done = work(client);
        drop(over);
        done
    })
}

#[test]
fn services_are_looked_at_and_changed_in_a_terminal() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    add_services(&net);
    let terminal = Terminal::open(&net, 100, 30);
    with_traffic(&net, |client| {
        terminal.begins("");
        // The one with traffic is first.
        terminal.shows_all(&["ok: 2 services, 3 backends", "by traffic"]);
        let is_first = || {
            let screen = terminal.screen();
            let place = |name| screen.find(name).unwrap_or(usize::MAX);
            let line = screen
                .lines()
                .find(|line| line.starts_with("web :2001"))
                .unwrap_or_default()
                .to_owned();
            let packets = line
                .split_whitespace()
                .nth(6)
                .and_then(|packets| packets.parse::<f64>().ok());
            place("web :2001") < place("mail :2002") && packets.is_some_and(|packets| packets > 20.0)
        };
        assert!(wait_until(PATIENCE, is_first), "{}", terminal.screen());
        terminal.types("sss");
        terminal.shows("by flows");
        terminal.types("/mail");
        terminal.presses(&["Enter"]);
        terminal.shows("1 shown");
        terminal.hides("2/2");
        terminal.presses(&["Escape"]);
        terminal.shows("2/2");
        // The page of the service, and its flows.
        terminal.presses(&["Home"]);
        terminal.presses(&["Enter"]);
        terminal.shows_all(&[
            "web :2001: up, 2 of 2 backends up",
            "10.2.0.11:3000",
            "10.2.0.12:3000",
            "limit │",
        ]);
        terminal.types("f");
        terminal.shows_all(&["1 flow", &client.to_string(), "ESTABLISHED"]);
        terminal.presses(&["Escape"]);
        terminal.shows("BACKEND");
    });
    // Nothing changes without a yes.
    terminal.types("p");
    terminal.shows_all(&["Pause web for 30s?", "New connections are dropped"]);
    terminal.types("n");
    terminal.shows("nothing was changed");
    let is_paused = || net.told(&["service", "show", "web"])["paused"] != Value::Null;
    assert!(!is_paused());
    terminal.types("py");
    terminal.shows_all(&["web: new connections are dropped for 30s", "web :2001: paused"]);
    terminal.types("ry");
    terminal.shows_all(&["web: new connections are accepted again", "web :2001: up"]);
    terminal.presses(&["Down"]);
    terminal.types("dy");
    terminal.shows_all(&["10.2.0.11:3000 is draining", "1 of 1 backend up"]);
    assert_eq!(
        net.spread("client", public(), 10).into_keys().collect::<Vec<_>>(),
        ["b2"]
    );
    // A daemon that goes away and comes back.
    daemon.kill();
    terminal.shows_all(&["OLD VALUES, no answer for", "web :2001"]);
    daemon.start();
    terminal.hides("OLD VALUES");
    terminal.types("q");
    terminal.has_ended(0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    let _daemon = net.daemon(&[]);
    let terminal = Terminal::open(&net, 80, 24);
    terminal.begins("");
    // Other sizes.
    for (columns, lines, texts) in [
        ("40", "10", ["SERVICE", "web :2001"]),
        ("30", "10", ["the terminal is too small", "needed: 40 x 8"]),
        ("120", "40", ["HISTORY", "web :2001"]),
    ] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", lines]);
        terminal.shows_all(&texts);
    }
    // Suspended by a key and by a signal, and continued. The shell's status of a stopped command is 128 + SIGSTOP.
    for by_key in [true, false] {
        if by_key {
            terminal.presses(&["C-z"]);
        } else {
            kill(terminal.process(), Signal::SIGTSTP).expect("it runs");
        }
        terminal.has_ended(147);
        terminal.continues();
    }
    terminal.presses(&["C-c"]);
    terminal.has_ended(0);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        terminal.begins("");
        kill(terminal.process(), signal).expect("it runs");
        terminal.has_ended(code);
    }
}

#[test]
fn without_a_terminal_samples_are_printed() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    net.want(state([]));
    let no_daemon = net.cli(&["top", "--once"]).exits(1);
    assert!(no_daemon.stderr.contains("daemon"), "{no_daemon}");
    let _daemon = net.daemon(&[]);
    add_services(&net);
    let refused = net.cli(&["top"]).exits(2);
    assert!(refused.stderr.contains("tcpgw top --once"), "{refused}");
    net.cli(&["top", "--once", "--interval", "1ms"]).exits(2);
    with_traffic(&net, |_| {
        let printed = || {
            net.cli(&["top", "--once", "--interval", "300ms", "--sort", "name"])
                .ok()
        };
        let is_well = || printed().starts_with("ok: 2 services, 3 backends, 1 flow");
        assert!(wait_until(PATIENCE, is_well), "{}", printed());
        let text = printed();
        let lines: Vec<&str> = text.lines().collect();
        let names: Vec<&str> = lines
            .iter()
            // Warnings name services, too.
            .filter(|line| line.contains(" :200") && !line.starts_with("warning:"))
            .copied()
            .collect();
        assert!(
            names[0].starts_with("mail :2002") && names[1].starts_with("web :2001"),
            "{text}"
        );
        // On a busy machine a sample may have no packet of the traffic.
        let mut told = Value::Null;
        let has_traffic = wait_until(PATIENCE, || {
            told = net.told(&["top", "--once", "--interval", "300ms"]);
            let first = &told["services"][0];
            let packets = first["rates"]["to"]["packets_per_second"].as_f64();
            let is_first = (&first["name"], &first["state"]) == (&json!("web"), &json!("up"));
            is_first && packets.is_some_and(|packets| packets > 10.0)
        });
        assert!(has_traffic, "{told:#}");
        assert_eq!(told["services"].as_array().map(Vec::len), Some(2));
        let filtered = net.told(&["top", "--once", "--interval", "300ms", "--filter", "mail"]);
        assert_eq!(filtered["services"].as_array().map(Vec::len), Some(1));
    });
}
