//! The daemon's log, written by a thread of its own, so that logging never waits for a reader of the log.
//!
//! A pipe, a terminal or a journal that is not read takes nothing more once it is full. The loop would hang there, and with it
//! the API, the probes and the service manager's watchdog. Here lines wait in a queue of bounded size instead; lines that do
//! not fit are dropped and counted, and the number is logged when the log is read again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::locked::locked;

/// Bytes of lines that may wait.
const MOST_BYTES: usize = 1 << 20;
/// Pause between two tries to write when the log takes nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Queue of lines for the thread that writes them. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct LogQueue {
    shared: Arc<SharedQueue>,
}

#[derive(Debug, Default)]
struct SharedQueue {
    waiting: Mutex<WaitingLines>,
    /// Something has come, or has been written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WaitingLines {
    lines: VecDeque<Vec<u8>>,
    /// Total size of these lines.
    bytes: usize,
    /// Whether the thread writes a line that it has taken out.
    is_writing: bool,
    /// Number of dropped lines since the last report.
    lost: u64,
}

impl SharedQueue {
    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
        locked(&self.waiting)
    }
}

impl LogQueue {
    /// Starts the log on standard error. `tell` is called with the number of dropped lines, after all waiting lines have been
    /// written; it may log.
    ///
    /// # Errors
    /// Fails when standard error is closed, or no thread can be started.
    pub(super) fn start(tell: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        // Not by way of `io::stderr`, whose lock the thread would hold while it waits.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::start_to(out, tell)
    }

    fn start_to(out: impl Write + Send + 'static, tell: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(SharedQueue::default());
        let log = Self {
            shared: Arc::clone(&shared),
        };
        // The thread is never joined: it may hang as long as the log is not read, and ends with the process.
        thread::Builder::new()
            .name("log".into())
            .spawn(move || shared.write_all(out, tell))?;
        Ok(log)
    }

    /// Waits until all lines have been written, for this time at most. Returns whether they have been.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        let mut waiting = self.shared.waiting();
        while waiting.is_writing || !waiting.lines.is_empty() {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return false;
            }
            let changed = self.shared.changed.wait_timeout(waiting, remaining);
            waiting = changed.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Write for LogQueue {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.shared.waiting();
        if waiting.bytes + line.len() > MOST_BYTES {
            waiting.lost += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_vec());
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SharedQueue {
    fn write_all(&self, mut out: impl Write, tell: impl Fn(u64)) {
        loop {
            let line = self.next(&tell);
            // An error cannot be logged, since that would fail in the same way.
            let _ = write(&mut out, &line);
            self.waiting().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn next(&self, tell: &impl Fn(u64)) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return line;
            }
            let lost = std::mem::take(&mut waiting.lost);
            if lost > 0 {
                drop(waiting);
                tell(lost);
                waiting = self.waiting();
                continue;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes a whole line. Another process may have made the file non-blocking.
fn write(out: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn who_logs_waits_for_nobody_and_is_told_what_was_lost() {
        const LINES: usize = 50_000;
        let (reader, writer) = io::pipe().unwrap();
        let (lost, told) = mpsc::channel();
        let mut log = LogQueue::start_to(writer, move |lines| lost.send(lines).unwrap()).unwrap();
        // 100 bytes each: more than the pipe and the queue take together.
        for number in 0..LINES {
            log.write_all(format!("{number:099}\n").as_bytes()).unwrap();
        }
        assert!(!LogQueue::flush(&log, Duration::from_millis(50)), "nobody reads");
        assert!(log.shared.waiting().bytes <= MOST_BYTES);
        assert!(told.try_recv().is_err());

        let reading = thread::spawn(move || {
            let lines = BufReader::new(reader)
                .lines()
                .map(|line| line.unwrap().parse().unwrap());
            lines.take_while(|number| *number != LINES).collect::<Vec<usize>>()
        });
        let lost = told.recv_timeout(LONG).unwrap();
        assert!(LogQueue::flush(&log, LONG));
        log.write_all(format!("{LINES:099}\n").as_bytes()).unwrap();
        let read = reading.join().unwrap();
        assert_eq!(
            read,
            (0..read.len()).collect::<Vec<_>>(),
            "those that came first, in order"
        );
        assert_eq!(u64::try_from(LINES - read.len()).unwrap(), lost);
        assert!(read.len() > MOST_BYTES / 100 - 1);
        assert!(told.try_recv().is_err(), "once");
    }

    #[test]
    fn a_log_that_takes_nothing_is_an_error_of_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut log = LogQueue::start_to(writer, |_| {}).unwrap();
        for _ in 0..1000 {
            log.write_all(b"line\n").unwrap();
        }
        assert!(LogQueue::flush(&log, LONG));
    }
}
