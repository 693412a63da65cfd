//! Terminals of processes that end badly. The processes are this test program, which runs one of its tests.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::inputs::listen_to_signals;
use super::terminal::TopTerminal;

const END: &str = "TCPGW_TEST_TERMINAL";
/// Sequences that begin and end the use of the other screen (xterm, `1049`).
const BEGIN: &str = "\u{1b}[?1049h";
const BACK: &str = "\u{1b}[?1049l";
const PATIENCE: Duration = Duration::from_secs(60);

/// A process in a terminal of its own.
struct InTerminal {
    child: Child,
    slave: OwnedFd,
    screen: std::fs::File,
}

impl InTerminal {
    fn start(end: &str) -> Self {
        const SIZE: Winsize = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&SIZE, None).unwrap();
        let file = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "cli::top::terminal_tests::a_process_ends_badly",
            "--nocapture",
        ]);
        command.env(END, end).env("RUST_BACKTRACE", "0");
        command.stdin(file()).stdout(file()).stderr(file());
        Self {
            child: command.spawn().unwrap(),
            slave,
            screen: master.into(),
        }
    }

    /// Reads until the text has come, and returns all that was read.
    fn reads(&mut self, text: &str) -> String {
        let (begin, mut read) = (Instant::now(), Vec::new());
        while begin.elapsed() < PATIENCE {
            let mut file = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            poll(&mut file, PollTimeout::from(100_u16)).unwrap();
            if file[0].any() == Some(true) {
                let mut piece = [0; 4096];
                let length = self.screen.read(&mut piece).unwrap();
                read.extend_from_slice(&piece[..length]);
            }
            let so_far = String::from_utf8_lossy(&read);
            if so_far.contains(text) {
                return so_far.into_owned();
            }
        }
        panic!("{text:?} has not come: {:?}", String::from_utf8_lossy(&read));
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    fn code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing unless it is run by one of the tests below.
#[test]
fn a_process_ends_badly() {
    let Ok(end) = env::var(END) else { return };
    let (sender, events) = sync_channel(1);
    listen_to_signals(sender).unwrap();
    let _terminal = TopTerminal::take(true).unwrap();
    assert_ne!(end, "panic", "this is the panic of the test");
    // Nobody reads this after a while.
    let mut out = io::stdout();
    while out.write_all(&[b'x'; 4096]).is_ok() {}
    drop(events);
}

#[test]
fn a_panic_is_reported_on_the_screen_of_the_shell() {
    let mut process = InTerminal::start("panic");
    let read = process.reads("test result");
    let place = |text| read.find(text).unwrap_or_else(|| panic!("{text:?}: {read:?}"));
    assert!(
        place(BEGIN) < place(BACK) && place(BACK) < place("this is the panic of the test"),
        "{read:?}"
    );
    process.code();
    assert!(!process.is_raw());
}

#[test]
fn a_terminal_that_takes_no_output_does_not_keep_the_command() {
    let mut process = InTerminal::start("stall");
    process.reads("xxx");
    assert!(process.is_raw());
    let pid = i32::try_from(process.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(process.code(), Some(143));
    assert!(!process.is_raw());
}
