//! Output of the commands. All output to a terminal goes through here, since it contains foreign text.

use std::io::{self, ErrorKind, StderrLock, StdoutLock, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tcpgw_core::escape::Screen;

use crate::locked::locked;

/// Total time that standard error may take nothing, before output to it is dropped.
const PATIENCE: Duration = Duration::from_secs(3);
/// A pipe that takes anything takes so many bytes at once, and so does a terminal whose reader is slow.
const PIECE: usize = 256;

/// Returns standard output, for text.
pub(super) fn stdout() -> Screen<StdoutLock<'static>> {
    Screen::text(io::stdout().lock())
}

/// Returns standard output, for JSON.
pub(super) fn json() -> Screen<StdoutLock<'static>> {
    Screen::json(io::stdout().lock())
}

/// Returns standard error, with foreign text escaped.
pub(super) fn stderr() -> Screen<StandardError> {
    Screen::text(terminal())
}

/// Returns standard error without escaping, for control sequences that move the cursor.
pub(super) fn terminal() -> StandardError {
    Bounded {
        out: io::stderr().lock(),
        patience: &STDERR,
    }
}

static STDERR: Patience = Patience::new(PATIENCE);

/// Standard error with a limit of waiting. A pipe that is not read takes nothing once it is full: a command that waits for it
/// ends neither at its deadline nor at Ctrl-C. So it waits for [`PATIENCE`] in all, and then drops output that does not fit.
pub(super) type StandardError = Bounded<'static, StderrLock<'static>>;

/// Remaining time to wait.
#[derive(Debug)]
pub(super) struct Patience(Mutex<Duration>);

impl Patience {
    const fn new(whole: Duration) -> Self {
        Self(Mutex::new(whole))
    }

    /// Waits until a file takes something, and says whether it does.
    fn wait(&self, out: BorrowedFd<'_>) -> bool {
        let mut left = locked(&self.0);
        loop {
            let begun = Instant::now();
            let mut file = [PollFd::new(out, PollFlags::POLLOUT)];
            let polled = poll(&mut file, PollTimeout::try_from(*left).unwrap_or(PollTimeout::ZERO));
            match polled {
                Ok(0) => {
                    *left = Duration::ZERO;
                    return false;
                }
                Err(Errno::EINTR) => *left = left.saturating_sub(begun.elapsed()),
                // Whatever is wrong with it, the write tells.
                Ok(_) | Err(_) => {
                    *left = left.saturating_sub(begun.elapsed());
                    return true;
                }
            }
        }
    }
}

/// A file that is written as long as it takes anything.
#[derive(Debug)]
pub(super) struct Bounded<'p, W> {
    out: W,
    patience: &'p Patience,
}

impl<W: Write + AsFd> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        loop {
            if !self.patience.wait(self.out.as_fd()) {
                return Ok(bytes.len());
            }
            match self.out.write(piece) {
                // Another one was faster.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_left_alone_and_written_again_when_it_is_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let patience = Patience::new(Duration::from_millis(100));
        let mut out = Bounded {
            out: writer,
            patience: &patience,
        };
        // More than a pipe takes.
        out.write_all(&vec![b'a'; 2 << 20]).unwrap();
        assert_eq!(*patience.0.lock().unwrap(), Duration::ZERO);
        out.write_all(b"lost").unwrap();
        let mut read = vec![0; 1 << 16];
        let begin = reader.read(&mut read).unwrap();
        out.write_all(b"seen\n").unwrap();
        drop(out);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"seen\n"), "{} and {}", begin, rest.len());
        assert!(!rest.windows(4).any(|part| part == b"lost"));
    }

    #[test]
    fn a_pipe_without_a_reader_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Bounded {
            out: writer,
            patience: &Patience::new(PATIENCE),
        };
        assert_eq!(out.write(b"a").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
