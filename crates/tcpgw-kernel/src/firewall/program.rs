//! Execution of another program for data that only it can give: without a shell, with bounds for its time and its
//! output.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Number of bytes of a program's standard error that are kept.
const MOST_ERROR: usize = 4096;
/// Pause between two checks whether the program has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// Bounds for the time and the output of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) time: Duration,
    pub(super) bytes: usize,
}

/// Output of a program.
#[derive(Debug)]
pub(super) struct ProgramOutput {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    /// The beginning of what it wrote to standard error.
    pub(super) error: Vec<u8>,
}

/// Runs a program to its end, with an empty standard input. It is killed when it exceeds its bounds.
///
/// # Errors
///
/// Fails with [`io::ErrorKind::NotFound`] when the program does not exist, with [`io::ErrorKind::TimedOut`] and
/// [`io::ErrorKind::FileTooLarge`] when it was killed, and with errors of the system.
pub(super) fn run(program: &str, arguments: &[&str], bounds: Bounds) -> io::Result<ProgramOutput> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let outcome = follow(&mut child, bounds);
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn follow(child: &mut Child, bounds: Bounds) -> io::Result<ProgramOutput> {
    let end = Instant::now() + bounds.time;
    let mut streams = (
        Stream::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?)?,
        Stream::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?)?,
    );
    while !(streams.0.is_over && streams.1.is_over) {
        wait(&streams, end)?;
        streams.0.read()?;
        streams.1.read()?;
        streams.1.bytes.truncate(MOST_ERROR);
        if streams.0.bytes.len() > bounds.bytes {
            let message = format!("it prints more than {} bytes", bounds.bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(ProgramOutput {
                status,
                output: streams.0.bytes,
                error: streams.1.bytes,
            });
        }
        left(end)?;
        thread::sleep(PAUSE);
    }
}

/// Waits until there is something to read.
fn wait(streams: &(Stream<impl AsFd>, Stream<impl AsFd>), end: Instant) -> io::Result<()> {
    let mut ready = Vec::with_capacity(2);
    if !streams.0.is_over {
        ready.push(PollFd::new(streams.0.file.as_fd(), PollFlags::POLLIN));
    }
    if !streams.1.is_over {
        ready.push(PollFd::new(streams.1.file.as_fd(), PollFlags::POLLIN));
    }
    // Rounded up: a time of zero would be no wait.
    let time = left(end)? + PAUSE;
    let time = PollTimeout::try_from(time.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut ready, time) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let remaining = end.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end in time"));
    }
    Ok(remaining)
}

/// A pipe that is read without waiting.
struct Stream<F> {
    file: F,
    bytes: Vec<u8>,
    is_over: bool,
}

impl<F: Read + AsFd> Stream<F> {
    fn new(file: F) -> io::Result<Self> {
        fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            file,
            bytes: Vec::new(),
            is_over: false,
        })
    }

    fn read(&mut self) -> io::Result<()> {
        let mut piece = [0; 1 << 14];
        match self.file.read(&mut piece) {
            Ok(0) => self.is_over = true,
            Ok(count) => self.bytes.extend(piece.iter().take(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        time: Duration::from_secs(20),
        bytes: 100_000,
    };

    fn sh(line: &str, bounds: Bounds) -> io::Result<ProgramOutput> {
        run("sh", &["-c", line], bounds)
    }

    #[test]
    fn what_it_says_is_read_whole() {
        let printed = sh("printf %0100000d 0; printf %09000d 1 >&2; exit 3", BOUNDS).unwrap();
        assert_eq!((printed.status.code(), printed.output.len()), (Some(3), 100_000));
        assert_eq!(printed.error.len(), MOST_ERROR);
        let missing = run("there-is-no-such-program", &[], BOUNDS).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_goes_beyond_its_bounds_is_killed() {
        let begun = Instant::now();
        let short = Bounds {
            time: Duration::from_millis(100),
            ..BOUNDS
        };
        // Closes its output and continues; ends and leaves the pipe to another process; prints nothing.
        for line in ["exec sleep 60 >&- 2>&-", "sleep 2 & exit 0", "exec sleep 60"] {
            let error = sh(line, short).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{line}");
        }
        let error = sh("exec yes", BOUNDS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(begun.elapsed() < BOUNDS.time, "{:?}", begun.elapsed());
    }
}
