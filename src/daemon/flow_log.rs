//! The thread that writes the flow log: a JSON line for each connection that has ended, into a file or to journald.
//!
//! Nothing waits for it. Records wait for it in a queue of bounded length; more are dropped and counted. Lines that a full disk did
//! not take wait, too, up to a block.

mod missing;
mod output;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

pub(super) use self::missing::MissingLines;
use self::output::{JOURNALD, append, open_file, open_journald, send};
use crate::config::daemon::FlowLogTarget;
use crate::locked::locked;
use crate::traffic::flow_record::FlowRecord;
use tcpgw_core::escape;

/// Number of records that may wait.
const QUEUE: usize = 1 << 16;
/// Time for which written lines wait for more.
const FLUSH: Duration = Duration::from_secs(1);
/// Size of the lines that are written at once.
const BLOCK: usize = 64 << 10;
/// Pause between two attempts to open the file or to write to it.
const RETRY: Duration = Duration::from_secs(5);

/// State that the thread and its handle share.
#[derive(Debug, Default)]
struct Shared {
    missing: Mutex<MissingLines>,
    /// Whether the file is to be opened again.
    reopen: AtomicBool,
    /// Reason why nothing can be written now.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn missing(&self) -> MutexGuard<'_, MissingLines> {
        locked(&self.missing)
    }
}

/// Handle of the thread, for those who add records.
#[derive(Debug, Clone)]
pub(super) struct FlowLog {
    records: SyncSender<FlowRecord>,
    shared: Arc<Shared>,
}

impl FlowLog {
    /// Starts a thread that writes to `target`. It ends when all handles are dropped and all records are written.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start(target: FlowLogTarget) -> io::Result<(Self, thread::JoinHandle<()>)> {
        let (records, received) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let mut writer = LogWriter {
            target,
            shared: Arc::clone(&shared),
            output: LogOutput::Closed,
            lines: Vec::new(),
            count: 0,
            not_before: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("flow log".into())
            .spawn(move || writer.serve(&received))?;
        Ok((Self { records, shared }, thread))
    }

    /// Adds a record, unless too many wait.
    pub(super) fn add(&self, record: FlowRecord) {
        if self.records.try_send(record).is_err() {
            self.shared.missing().late += 1;
        }
    }

    /// Counts overruns of the kernel's queue of reports.
    pub(super) fn overrun(&self, times: u64) {
        self.shared.missing().unread += times;
    }

    /// Reopens the file at the next record, after log rotation has renamed it.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Returns what is missing since the daemon began to write this log, and the reason why nothing can be written now.
    pub(super) fn state(&self) -> (MissingLines, Option<String>) {
        let trouble = locked(&self.shared.trouble);
        (self.shared.missing().clone(), trouble.clone())
    }
}

#[derive(Debug)]
enum LogOutput {
    Closed,
    File(File),
    Journald(UnixDatagram),
}

struct LogWriter {
    target: FlowLogTarget,
    shared: Arc<Shared>,
    output: LogOutput,
    /// Lines that are not written yet, and their number.
    lines: Vec<u8>,
    count: u64,
    not_before: Instant,
}

impl LogWriter {
    fn serve(&mut self, records: &Receiver<FlowRecord>) {
        let mut flush_at = Instant::now() + FLUSH;
        // An error of the configuration shows at once.
        self.open();
        loop {
            let wait = flush_at.saturating_duration_since(Instant::now());
            match records.recv_timeout(wait) {
                Ok(record) => self.add(&record),
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    flush_at = Instant::now() + FLUSH;
                }
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
        }
    }

    fn add(&mut self, record: &FlowRecord) {
        let begin = self.lines.len();
        if serde_json::to_writer(&mut self.lines, record).is_err() {
            self.lines.truncate(begin);
            self.shared.missing().late += 1;
            return;
        }
        self.lines.push(b'\n');
        self.count += 1;
        let is_journald = matches!(self.target, FlowLogTarget::Journald);
        if is_journald || self.lines.len() >= BLOCK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.shared.reopen.swap(false, Ordering::Relaxed) {
            self.output = LogOutput::Closed;
            self.not_before = Instant::now();
        }
        if matches!(self.output, LogOutput::Closed) {
            self.open();
        }
        if self.lines.is_empty() {
            return;
        }
        let (written, result) = match &mut self.output {
            LogOutput::Closed if self.lines.len() < BLOCK => return,
            LogOutput::Closed => return self.give_up(),
            LogOutput::File(file) => append(file, &self.lines),
            LogOutput::Journald(socket) => send(socket, &self.lines),
        };
        self.forget(written);
        match result {
            Ok(()) => self.set_trouble(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.shared.missing().late += self.count;
                self.forget(self.lines.len());
            }
            // The other lines are kept for the next attempt.
            Err(error) => {
                self.output = LogOutput::Closed;
                self.fail(&error);
            }
        }
    }

    /// Removes lines of this length in all.
    fn forget(&mut self, length: usize) {
        let lines = self.lines.drain(..length).filter(|byte| *byte == b'\n').count();
        self.count -= u64::try_from(lines).unwrap_or_default();
    }

    /// Drops all lines, which nothing takes and which have become too many.
    fn give_up(&mut self) {
        let reason = locked(&self.shared.trouble).clone();
        let mut missing = self.shared.missing();
        missing.unwritten += self.count;
        missing.reason = reason.unwrap_or_default();
        drop(missing);
        self.forget(self.lines.len());
    }

    fn open(&mut self) {
        if Instant::now() < self.not_before {
            return;
        }
        let opened = match &self.target {
            FlowLogTarget::File(path) => open_file(path).map(LogOutput::File),
            FlowLogTarget::Journald => open_journald().map(LogOutput::Journald),
        };
        match opened {
            Ok(output) => {
                self.output = output;
                // Lines that wait show whether it can be written.
                if self.lines.is_empty() {
                    self.set_trouble(None);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.not_before = Instant::now() + RETRY;
        let place = match &self.target {
            FlowLogTarget::File(path) => escape::path(path),
            FlowLogTarget::Journald => JOURNALD.into(),
        };
        self.set_trouble(Some(format!("{place}: {error}")));
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *locked(&self.shared.trouble) = trouble;
    }
}

#[cfg(test)]
mod tests;
