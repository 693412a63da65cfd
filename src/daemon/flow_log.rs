//! The thread that writes the flow log: a JSON line for each connection that has ended, into a file or to journald.
//!
//! Nothing waits for it. Records wait for it in a queue of bounded length; more are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::config::daemon::FlowLogTarget;
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
/// Mode of a new file: its group may read it, as that of other logs.
const MODE: u32 = 0o640;
/// Socket of journald (`sd_journal_send(3)`, "Native Journal Protocol").
const JOURNALD: &str = "/run/systemd/journal/socket";

/// State that the thread and its handle share.
#[derive(Debug, Default)]
struct Shared {
    /// Number of records that were dropped.
    lost: AtomicU64,
    /// Whether the file is to be opened again.
    reopen: AtomicBool,
    /// Reason why nothing can be written now.
    trouble: Mutex<Option<String>>,
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
            self.lost(1);
        }
    }

    /// Counts records that could not be made.
    pub(super) fn lost(&self, records: u64) {
        self.shared.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Has the file opened anew with the next record, after its name was given to another one.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Returns the number of records that were lost since the daemon began to write this log, and the reason why nothing can
    /// be written now.
    pub(super) fn state(&self) -> (u64, Option<String>) {
        let trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        (self.shared.lost.load(Ordering::Relaxed), trouble.clone())
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
            return self.lose(1);
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
        let written = match &mut self.output {
            // They are kept until the queue of the writer is full, and lost with it.
            LogOutput::Closed if self.lines.len() < BLOCK => return,
            LogOutput::Closed => Ok(false),
            LogOutput::File(file) => file.write_all(&self.lines).map(|()| true),
            LogOutput::Journald(socket) => send(socket, &self.lines),
        };
        match written {
            Ok(true) => {}
            Ok(false) => self.lose(self.count),
            Err(error) => {
                self.lose(self.count);
                self.output = LogOutput::Closed;
                self.fail(&error);
            }
        }
        self.lines.clear();
        self.count = 0;
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
                self.set_trouble(None);
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
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn lose(&self, records: u64) {
        self.shared.lost.fetch_add(records, Ordering::Relaxed);
    }
}

/// Opens a file to append to it, and creates it if it is missing. Anything but a regular file with one name is refused:
/// who may put a link or a FIFO there must not decide what root writes to, or make it wait.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ELOOP) => io::Error::new(error.kind(), "is a symbolic link, which is not followed"),
            Some(nix::libc::ENXIO) => io::Error::new(error.kind(), "is no regular file"),
            _ => error,
        })?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let refused = if kind.is_fifo() || !metadata.is_file() {
        Some("is no regular file")
    } else if metadata.nlink() > 1 {
        Some("has several names (hard links)")
    } else if metadata.mode() & 0o002 != 0 {
        Some("may be written by everybody: chmod o-w")
    } else {
        None
    };
    match refused {
        None => Ok(file),
        Some(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
    }
}

fn open_journald() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNALD)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sends one line. Returns whether journald had room for it.
fn send(socket: &UnixDatagram, line: &[u8]) -> io::Result<bool> {
    let mut message = b"PRIORITY=6\nSYSLOG_IDENTIFIER=tcpgw-flows\nMESSAGE=".to_vec();
    // The line ends with a line feed, and JSON contains no other.
    message.extend_from_slice(line);
    match socket.send(&message) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::traffic::flow_record::FlowEnd;

    fn record(n: u16) -> FlowRecord {
        FlowRecord {
            client: ([198, 51, 100, 1], n).into(),
            service: Some("web".into()),
            public: ([203, 0, 113, 1], 80).into(),
            backend: ([10, 2, 0, 1], 3000).into(),
            start: Some(1_700_000_000.25),
            seconds: Some(1.5),
            to_backend: None,
            from_backend: None,
            ended: FlowEnd::Closed,
        }
    }

    fn written(target: FlowLogTarget, records: impl FnOnce(&FlowLog)) -> (u64, Option<String>) {
        let (log, thread) = FlowLog::start(target).unwrap();
        records(&log);
        let watched = log.clone();
        let shared = Arc::clone(&watched.shared);
        drop((log, watched));
        thread.join().unwrap();
        let trouble = shared.trouble.lock().unwrap().clone();
        (shared.lost.load(Ordering::Relaxed), trouble)
    }

    #[test]
    fn lines_are_json_in_a_file_that_others_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.log");
        let told = written(FlowLogTarget::File(path.clone()), |log| {
            (0..3000).for_each(|n| log.add(record(n)));
        });
        assert_eq!(told, (0, None));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3000);
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"client":"198.51.100.1:0","service":"web","public":"203.0.113.1:80","backend":"10.2.0.1:3000","start":1700000000.25,"seconds":1.5,"to_backend":null,"from_backend":null,"ended":"closed"}"#
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777 & !0o640, 0, "{mode:o}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("flows.log"), directory.path().join("flows.log.1"));
        let told = written(FlowLogTarget::File(path.clone()), |log| {
            log.add(record(1));
            let begin = Instant::now();
            while std::fs::metadata(&path).map_or(0, |of| of.len()) == 0 {
                assert!(
                    begin.elapsed() < Duration::from_secs(30),
                    "it is written within a second"
                );
                thread::sleep(Duration::from_millis(20));
            }
            std::fs::rename(&path, &moved).unwrap();
            log.reopen();
            log.add(record(2));
        });
        assert_eq!(told, (0, None));
        for (path, client) in [(moved, "198.51.100.1:1"), (path, "198.51.100.1:2")] {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.lines().count() == 1 && text.contains(client), "{text}");
        }
    }

    #[test]
    fn what_is_no_file_of_its_own_is_refused_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.log");
        let many = |log: &FlowLog| (0..1000).for_each(|n| log.add(record(n)));
        let other = directory.path().join("other");
        std::fs::write(&other, "kept").unwrap();
        let tried = |expected: &str| {
            let (lost, trouble) = written(FlowLogTarget::File(path.clone()), many);
            assert!(lost > 0, "{expected}");
            assert!(
                trouble.as_ref().is_some_and(|why| why.contains(expected)),
                "{trouble:?}"
            );
        };
        std::os::unix::fs::symlink(&other, &path).unwrap();
        tried("symbolic link");
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&other, &path).unwrap();
        tried("several names");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        tried("no regular file");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        tried("directory");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    }

    #[test]
    fn records_that_nobody_can_take_are_counted() {
        let (records, _received) = sync_channel(1);
        let log = FlowLog {
            records,
            shared: Arc::default(),
        };
        (0..5).for_each(|n| log.add(record(n)));
        log.lost(2);
        assert_eq!(log.state(), (6, None));
    }
}
