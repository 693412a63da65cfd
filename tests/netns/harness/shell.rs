//! Commands in a host.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Net, wait_until};

pub(crate) const TCPGW: &str = env!("CARGO_BIN_EXE_tcpgw");

/// Longest time that a command of a test may take, on an emulated machine, too.
const LONGEST: Duration = Duration::from_secs(600);

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) command: String,
    /// The exit code; a signal is 128 and its number, as in a shell.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ran {
    /// Asserts success and gives what was printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.exits(0).stdout
    }

    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\n{}{}exit {}",
            self.command, self.stdout, self.stderr, self.status
        )
    }
}

/// A running command. It is killed when the value is dropped.
pub(crate) struct Running {
    child: Child,
    command: String,
    since: Instant,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("failed to signal a child");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("failed to look after a child").is_some()
    }

    /// Waits for its end, which must come within [`LONGEST`]. Its output must be small enough for a pipe to hold.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ran {
        assert!(
            wait_until(LONGEST, || self.ended()),
            "it does not end: {}",
            self.command
        );
        let mut output = [String::new(), String::new()];
        if let Some(mut stdout) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut output[0]).expect("failed to read a child's output");
        }
        if let Some(mut stderr) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut output[1]).expect("failed to read a child's output");
        }
        let status = self.child.wait().expect("failed to wait for a child");
        let [stdout, stderr] = output.map(String::into_bytes);
        ran(
            std::mem::take(&mut self.command),
            Output { status, stdout, stderr },
            self.since.elapsed(),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Net {
    /// Returns a command that runs in `host`, for uses that the methods below do not cover.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, host: &str, argv: &[A]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).args(argv);
        command.envs(self.environment()).env("NO_COLOR", "1");
        command
    }

    /// Runs a program in `host`.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, host: &str, argv: &[A]) -> Ran {
        self.run_with(host, argv, "")
    }

    /// Runs a program in `host` which reads `input`.
    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, host: &str, argv: &[A], input: &str) -> Ran {
        // A command that hangs ends with 124, or 137.
        let mut command = bounded(&self.command(host, argv));
        let since = Instant::now();
        let mut child = piped(&mut command)
            .stdin(Stdio::piped())
            .spawn()
            .expect("failed to run a command");
        let mut stdin = child.stdin.take().expect("a pipe was asked for");
        let output = std::thread::scope(|scope| {
            // A program that does not read all of its input is not at fault.
            scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
            child.wait_with_output().expect("failed to wait for a command")
        });
        ran(words(host, argv), output, since.elapsed())
    }

    /// Runs a line of shell in `host`.
    pub(crate) fn sh(&self, host: &str, line: &str) -> Ran {
        self.run(host, &["sh", "-c", line])
    }

    /// Starts a program in `host` and leaves it running.
    pub(crate) fn spawn<A: AsRef<OsStr>>(&self, host: &str, argv: &[A]) -> Running {
        let mut command = self.command(host, argv);
        let child = piped(&mut command)
            .stdin(Stdio::null())
            .spawn()
            .expect("failed to run a command");
        Running {
            child,
            command: words(host, argv),
            since: Instant::now(),
        }
    }

    /// Loads a ruleset into `host`.
    #[track_caller]
    pub(crate) fn nft(&self, host: &str, ruleset: &str) {
        self.run_with(host, &["nft", "-f", "-"], ruleset).ok();
    }

    /// Runs tcpgw in the gateway.
    pub(crate) fn tcpgw(&self, args: &[&str]) -> Ran {
        self.run("gateway", &[&[TCPGW], args].concat())
    }

    /// Applies this state, and asserts that it worked.
    #[track_caller]
    pub(crate) fn apply(&self, state: impl fmt::Display) -> Ran {
        self.apply_with(&[], state).exits(0)
    }

    /// Applies this state with some more arguments.
    pub(crate) fn apply_with(&self, args: &[&str], state: impl fmt::Display) -> Ran {
        let file = self.state_file("state.json", state);
        self.tcpgw(&[&["apply"], args, &[file.as_str()]].concat())
    }

    /// Writes a state file and gives its path.
    pub(crate) fn state_file(&self, name: &str, state: impl fmt::Display) -> String {
        let file = self.file(name);
        fs::write(&file, state.to_string()).expect("failed to write a state file");
        file.into_os_string().into_string().expect("temporary paths are text")
    }

    /// Waits until a port of a host has a listener.
    pub(crate) fn wait_for_listener(&self, host: &str, port: u16, timeout: Duration) -> bool {
        wait_until(timeout, || self.listens(host, port))
    }

    /// Makes a container's link small, on the container's side and in the gateway's routes to it.
    pub(crate) fn set_mtu(&self, host: &str, mtu: u32) {
        self.sh(host, &format!("ip link set eth0 mtu {mtu}")).ok();
        self.narrow_path(host, mtu);
    }

    /// Makes only the gateway know that the way to a container is narrow, so that peers must learn it from ICMP.
    pub(crate) fn narrow_path(&self, host: &str, mtu: u32) {
        for address in super::plan::addresses(host) {
            self.sh("gateway", &format!("ip route replace {address} dev br0 mtu {mtu}"))
                .ok();
        }
    }

    /// Makes a host swallow all that reaches it, as a machine that died.
    pub(crate) fn mute(&self, host: &str) {
        self.nft(
            host,
            "table netdev mute { chain swallow { type filter hook ingress device eth0 priority 0; policy drop; }; }",
        );
    }

    /// Wakes a muted host.
    pub(crate) fn unmute(&self, host: &str) {
        self.nft(host, "delete table netdev mute");
    }

    fn listens(&self, host: &str, port: u16) -> bool {
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/thread-self/net/{table}"));
        let listeners = self.within(host, || tables.map(fs::read_to_string));
        // proc_pid_net(5): the second word is the address, the fourth the state, 0A is LISTEN.
        let wanted = format!(":{port:04X}");
        listeners.iter().flatten().flat_map(|table| table.lines()).any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1).is_some_and(|local| local.ends_with(&wanted)) && words.get(3) == Some(&"0A")
        })
    }
}

fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg("--kill-after=10").arg(LONGEST.as_secs().to_string());
    bounded.arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

fn piped(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped())
}

fn words<A: AsRef<OsStr>>(host: &str, argv: &[A]) -> String {
    let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    format!("{host}: {}", words.join(" "))
}

fn ran(command: String, output: Output, took: Duration) -> Ran {
    let status = output
        .status
        .code()
        .or_else(|| Some(128 + output.status.signal()?))
        .expect("an ended process");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        command,
        status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        took,
    }
}
