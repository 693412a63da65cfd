//! A program that a hook runs: its start, its input and output, its end.
//!
//! It runs without a shell, in a process group of its own, without the daemon's variables, descriptors and capabilities. What it
//! leaves running in its group is killed with it. Blocks the thread that calls it.

use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};

use crate::hooks::settings::HookProgram;
use tcpgw_kernel::ffi::system::{clear_ambient_capabilities, close_files_on_exec};

/// Number of bytes of output that are kept.
const MOST_OUTPUT: usize = 4096;
/// Time between two looks whether the program has ended. Its input and output wake the thread at once.
const LOOK: Duration = Duration::from_millis(20);
/// Directories in which programs are found by the program.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of a program, besides `PATH`.
pub(super) type Variables = Vec<(&'static str, String)>;

/// Bounds of a program's time.
#[derive(Debug)]
pub(super) struct ProcessLimits {
    pub(super) timeout: Duration,
    /// Whether it is to be killed at once.
    pub(super) stop: Arc<AtomicBool>,
}

/// End of a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProcessEnd {
    /// Exit code or signal; `None`: it was killed, because its time was over.
    pub(super) status: Option<ExitStatus>,
    /// First bytes of its output, standard error included.
    pub(super) output: Vec<u8>,
}

impl ProcessEnd {
    /// Returns the reason in words why this is a failure; `None`: it is none.
    pub(super) fn failure(&self, timeout: Duration) -> Option<String> {
        match self.status {
            None => Some(format!(
                "it had not ended after {} s, and was killed",
                timeout.as_secs_f32()
            )),
            Some(status) => match (status.code(), status.signal()) {
                (Some(0), _) => None,
                (Some(code), _) => Some(format!("it ended with exit code {code}")),
                (None, signal) => Some(format!("it was ended by signal {}", signal.unwrap_or_default())),
            },
        }
    }
}

/// Runs a program with this input, until it ends or its time is over.
///
/// # Errors
/// Fails when it cannot be started.
pub(super) fn run(
    program: &HookProgram,
    variables: Variables,
    input: &[u8],
    limits: &ProcessLimits,
) -> io::Result<ProcessEnd> {
    let deadline = Instant::now() + limits.timeout;
    let (output, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // The program's end must not be one that fails instead of waiting.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(variables)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    clear_ambient_capabilities()?;
    close_files_on_exec()?;
    let mut child = command.spawn()?;
    // The command holds the ends of the pipe that belong to the program.
    drop(command);
    let group = ProcessGroup(Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()));
    let stdin = child.stdin.take();
    let mut exchange = Exchange {
        input,
        stdin: stdin.filter(|stdin| set_nonblocking(stdin).is_ok()),
        output: Some(output),
        kept: Vec::new(),
    };
    let has_ended = exchange.follow(&group, deadline, &limits.stop);
    // The group still has its number, as its first process is not waited for yet.
    group.kill();
    let status = child.wait()?;
    exchange.read();
    Ok(ProcessEnd {
        status: has_ended.then_some(status),
        output: exchange.kept,
    })
}

fn set_nonblocking(stdin: &ChildStdin) -> nix::Result<()> {
    fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

struct ProcessGroup(Pid);

impl ProcessGroup {
    /// Returns whether its first process has ended. That one keeps its number until it is waited for.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.0), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => false,
            Ok(_) | Err(_) => true,
        }
    }

    fn kill(&self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// Input that the program has not read yet, and output that it has written.
struct Exchange<'i> {
    input: &'i [u8],
    /// `None`: all is written, or the program reads no more.
    stdin: Option<ChildStdin>,
    /// `None`: nobody can write any more.
    output: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Exchange<'_> {
    /// Writes and reads until the program has ended, or until the deadline. Returns whether it has ended.
    fn follow(&mut self, group: &ProcessGroup, deadline: Instant, stop: &AtomicBool) -> bool {
        loop {
            self.write();
            self.read();
            if group.has_ended() {
                return true;
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() || stop.load(Ordering::Relaxed) {
                return false;
            }
            self.pause(remaining.min(LOOK));
        }
    }

    fn pause(&self, time: Duration) {
        let mut waited = Vec::new();
        if let Some(stdin) = &self.stdin {
            waited.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if let Some(output) = &self.output {
            waited.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        let time = u16::try_from(time.as_millis().max(1)).unwrap_or(u16::MAX);
        let _ = poll(&mut waited, PollTimeout::from(time));
    }

    fn write(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.input.is_empty() {
            match stdin.write(self.input) {
                Ok(written) => self.input = self.input.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It has ended, or reads no more.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn read(&mut self) {
        let Some(output) = self.output.take() else { return };
        let mut file = std::fs::File::from(output);
        let mut buffer = [0; 4096];
        // A program that writes without end is read once more when it is looked at again.
        for _ in 0..64 {
            match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let room = MOST_OUTPUT.saturating_sub(self.kept.len()).min(length);
                    self.kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        self.output = Some(file.into());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn sh(script: &str, input: &[u8], timeout: Duration) -> ProcessEnd {
        let program = HookProgram {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), "hook".into()],
        };
        run(
            &program,
            vec![("TCPGW_EVENT", "started".into())],
            input,
            &limits(timeout),
        )
        .unwrap()
    }

    fn limits(timeout: Duration) -> ProcessLimits {
        ProcessLimits {
            timeout,
            stop: Arc::default(),
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_gets_its_input_and_little_else() {
        let ended = sh("cat; env | sort; ls /proc/self/fd; pwd", b"{\"a\":1}\n", LONG);
        assert_eq!(ended.failure(LONG), None);
        let text = String::from_utf8(ended.output).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("{\"a\":1}"));
        let (variables, rest): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains('='));
        let of_shell = ["PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
        let others: Vec<&&str> = variables
            .iter()
            .filter(|line| !of_shell.iter().any(|known| line.starts_with(known)))
            .collect();
        assert_eq!(others, [&"TCPGW_EVENT=started"]);
        // Three streams, and the directory that ls reads.
        assert_eq!(rest, ["0", "1", "2", "3", "/"]);
    }

    #[test]
    fn one_that_does_not_read_or_writes_without_end_is_bounded() {
        let ended = sh("exit 3", &vec![b'x'; 1 << 20], LONG);
        assert_eq!(ended.failure(LONG).as_deref(), Some("it ended with exit code 3"));
        let ended = sh("yes | head -c 3000000; echo end >&2", b"", LONG);
        assert_eq!((ended.failure(LONG), ended.output.len()), (None, MOST_OUTPUT));
        let ended = sh("wc -c", &vec![b'x'; 1 << 20], LONG);
        assert_eq!(ended.output, b"1048576\n");
        let program = HookProgram {
            path: "/no/such/program".into(),
            arguments: Vec::new(),
        };
        run(&program, Vec::new(), b"", &limits(LONG)).unwrap_err();
    }

    #[test]
    fn its_time_over_it_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > '{}'; sleep 1000", pids.to_string_lossy());
        let timeout = Duration::from_millis(1500);
        let ended = sh(&script, b"", timeout);
        assert_eq!(ended.status, None);
        assert_eq!(
            ended.failure(timeout).as_deref(),
            Some("it had not ended after 1.5 s, and was killed")
        );
        let wait_for = |file: &Path| {
            let text = fs::read_to_string(file).unwrap();
            let is_there = |pid: &str| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
                line.is_ok_and(|line| line.contains("sleep"))
            };
            let begin = Instant::now();
            while text.split_whitespace().any(is_there) {
                assert!(begin.elapsed() < LONG, "a child lives on");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        wait_for(&pids);
        // So is what a program leaves behind when it ends by itself.
        let ended = sh(
            &format!("sleep 1000 & echo $! > '{}'", pids.to_string_lossy()),
            b"",
            LONG,
        );
        assert_eq!(ended.failure(LONG), None);
        wait_for(&pids);
    }

    #[test]
    fn it_is_killed_when_the_daemon_ends() {
        let limits = limits(LONG);
        limits.stop.store(true, Ordering::Relaxed);
        let program = HookProgram {
            path: "/bin/sleep".into(),
            arguments: vec!["1000".into()],
        };
        let ended = run(&program, Vec::new(), b"", &limits).unwrap();
        assert_eq!(ended.status, None);
    }
}
