//! What tcpgw put into the kernel last, kept in the run directory. Reading the table back takes longer than writing it,
//! so the next run trusts this record while nobody else has committed. With its [`journal`] it tells at any time what the kernel
//! cannot: names, owners, drains, pauses.
//!
//! A record that is missing, torn or outdated costs time, and that knowledge, and nothing else.

pub mod journal;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use self::journal::{Entry, Kept, ServiceEntry};
use crate::run_file;
use tcpgw_core::owner::AllDetails;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::{ListenScope, RoundRobinChain, SetName};
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Identity;

const MAGIC: &[u8; 8] = b"tcpgw-r1";

/// The largest record that is read, in bytes: several times what 100,000 backends need.
const MOST_BYTES: u64 = 256 << 20;

/// The largest note of a teardown that is read, in bytes: more than 10,000 pauses need.
const MOST_BYTES_TORN: u64 = 4 << 20;

/// What was put into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is known of it besides its elements.
    pub head: Head,
    /// The elements.
    pub ruleset: Ruleset,
}

/// The part of a record that is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The versions of the program and of its rules.
    pub program: String,
    /// The kernel's name for this boot.
    pub boot: String,
    /// The cookie of the network namespace.
    pub namespace: u64,
    /// The generation after the last transaction.
    pub generation: u32,
    /// The table's number.
    pub table: u64,
    /// The room of its sets, as text.
    pub room: String,
    /// The flow mark, as text.
    pub mark: String,
    /// Whether the flows were swept after it.
    pub swept: bool,
    /// Who wrote it, and when; `None` in a record of an earlier build.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// Until when backends drain. Only a daemon knows.
    #[serde(default)]
    pub deadlines: Vec<Deadline>,
    /// Services whose new connections are held back. Only a daemon knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// Whose the services are, and what only their providers know; `None` in a record of an earlier build.
    #[serde(default)]
    pub details: Option<AllDetails>,
    /// What the objects with timeouts follow.
    #[serde(default)]
    pub timeouts: KernelTimeouts,
    /// The services.
    pub summary: Summary,
    /// Whether another user wrote it: it names services, and says nothing of what the kernel holds.
    #[serde(skip)]
    pub is_hint: bool,
    /// The journal: what was to be changed since. [`Head::at`] puts it into the rest.
    #[serde(skip)]
    pub changes: Vec<Entry>,
    /// Services that were served before such a change, and no longer there after it. The kernel may hold them still.
    #[serde(skip)]
    pub left: Summary,
}

/// A teardown that nothing has ended yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Seconds since 1970.
    pub at: u64,
    /// The user who did it.
    pub uid: u32,
    /// The kernel's name for that boot: a machine that boots serves again.
    pub boot: String,
    /// Services whose new connections were held back: they still are when they are served again, for what is left of the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
}

/// An apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Seconds since 1970, at its begin.
    pub at: u64,
    /// Where the state came from: a file, or `-` for standard input.
    pub origin: String,
    /// When what is written beside this was so, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    #[serde(default)]
    pub known: Duration,
    /// The daemon's store at that time; `None` in what an earlier build wrote, or who knows no store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreRevision>,
}

/// How far a store had got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRevision {
    /// Where it is. What is not UTF-8 in its path is replaced.
    pub path: String,
    /// Its revision.
    pub revision: u64,
}

impl StoreRevision {
    /// Of the store at that path.
    pub fn new(path: &Path, revision: u64) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            revision,
        }
    }
}

/// The end of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The service, as the summary beside it calls it.
    pub service: Box<str>,
    /// The backend.
    pub backend: SocketAddr,
    /// When its flows are flushed, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`), which nobody can
    /// set. A record of another boot is not read.
    pub until: Duration,
    /// How long the whole drain may take.
    pub time: Duration,
}

impl Deadline {
    /// What is left of it at that time, since the machine's start: never more than the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The service.
    pub service: Box<str>,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// The user who ordered it.
    pub uid: u32,
    /// When it ends, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    pub until: Duration,
    /// How long all of it was to last.
    pub time: Duration,
}

impl Pause {
    /// What is left of it at that time, since the machine's start: never more than the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}

impl Record {
    /// As it is written.
    ///
    /// # Errors
    /// None that could be met: a head is text and numbers.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(encode(Vec::new(), &self.head, &self.ruleset)?.0)
    }

    /// Reads a record; `None` if it is not whole, or not as it was written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = checked(bytes)?;
        let head: Head = serde_json::from_slice(take(&mut rest)?).ok()?;
        let mut sets = BTreeMap::new();
        loop {
            let name = take(&mut rest)?;
            if name.is_empty() {
                break;
            }
            let name = SetName::parse(std::str::from_utf8(name).ok()?)?;
            sets.insert(name, Rows::from_packed(&SetSpec::of(name), take(&mut rest)?.to_vec())?);
        }
        let mut turns = BTreeMap::new();
        loop {
            let listen_scope = take(&mut rest)?;
            if listen_scope.is_empty() {
                break;
            }
            let listen_scope = ListenScope::ALL
                .into_iter()
                .find(|known| known.to_string().as_bytes() == listen_scope)?;
            let key = take(&mut rest)?.into();
            turns.insert(
                (listen_scope, key),
                RoundRobinChain::parse(std::str::from_utf8(take(&mut rest)?).ok()?)?,
            );
        }
        rest.is_empty().then(|| Self {
            ruleset: Ruleset::new(sets, turns).with_timeouts(head.timeouts),
            head,
        })
    }
}

impl Head {
    /// Whether the kernel is as it was left.
    pub fn holds(&self, identity: Identity) -> bool {
        !self.is_hint && self.generation == identity.generation && Some(self.table) == identity.table
    }
}

/// Where the record of a network namespace is. One process writes there at a time.
#[derive(Debug, Clone)]
pub struct RecordFile {
    path: PathBuf,
    /// The checksum of the record that is there, as far as this process knows.
    checksum: Cell<Option<u32>>,
    /// The length of the journal, once this process has made sure of it.
    length: Cell<Option<u64>>,
    /// Why the record or its journal could not be written the last time.
    unwritten: RefCell<Option<String>>,
    /// Why the note of a teardown could not be written, or removed, the last time.
    unnoted: RefCell<Option<String>>,
}

impl RecordFile {
    /// In that directory, of that network namespace.
    pub fn new(directory: &Path, namespace: u64) -> Self {
        Self {
            path: directory.join(format!("netns-{namespace}.state")),
            checksum: Cell::new(None),
            length: Cell::new(None),
            unwritten: RefCell::new(None),
            unnoted: RefCell::new(None),
        }
    }

    /// Returns the file that could not be written the last time, and why: what the next process has to know is not there. `None`: all
    /// of it is there.
    pub fn trouble(&self) -> Option<String> {
        self.unnoted
            .borrow()
            .clone()
            .or_else(|| self.unwritten.borrow().clone())
    }

    /// Returns the last record, if there is one that is whole. What another user wrote, the daemon's to root, is a hint.
    pub fn load(&self) -> Option<Record> {
        let content = self.read()?;
        let mut record = Record::decode(&content.bytes);
        if let Some(record) = &mut record {
            self.complete(&mut record.head, &content);
        } else {
            tracing::debug!(path = %tcpgw_core::escape::path(&self.path), "the record cannot be read; the kernel is read instead");
        }
        record
    }

    /// Returns the text of the last record, without the elements: that is all one needs who only looks.
    pub fn load_head(&self) -> Option<Head> {
        let content = self.read()?;
        let mut head: Head = serde_json::from_slice(take(&mut checked(&content.bytes)?)?).ok()?;
        self.complete(&mut head, &content);
        Some(head)
    }

    /// Returns the highest revision of the store at that path that the record of that boot knows, the changes of its journal with it,
    /// whether they were made or not: the store had them first. 0 if it knows none.
    pub fn store_revision(&self, boot: &str, store: &Path) -> u64 {
        let Some(head) = self.load_head().filter(|head| head.boot == boot && !head.is_hint) else {
            return 0;
        };
        let path = store.to_string_lossy();
        let applied = head.changes.iter().filter_map(|entry| entry.applied.as_ref());
        let stores = applied
            .chain(&head.applied)
            .filter_map(|applied| applied.store.as_ref());
        let revisions = stores.filter(|store| store.path == path).map(|store| store.revision);
        revisions.max().unwrap_or(0)
    }

    fn read(&self) -> Option<run_file::Content> {
        self.checksum.set(None);
        self.length.set(None);
        read(&self.path, MOST_BYTES)
    }

    /// Adds what the journal says to a record that was read from there.
    fn complete(&self, head: &mut Head, record: &run_file::Content) {
        let checksum = record.bytes.last_chunk().map(|checksum| u32::from_le_bytes(*checksum));
        self.checksum.set(checksum);
        head.is_hint = !record.trusted;
        let Some(content) = read(&self.journal(), journal::MOST_BYTES) else {
            return;
        };
        if let Some((changes, _)) = checksum.and_then(|checksum| journal::read(&content.bytes, checksum)) {
            head.is_hint |= !content.trusted;
            head.changes = changes;
        }
    }

    /// Writes one, whole or not at all. It ends the journal.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, head: &Head, ruleset: &Ruleset) -> io::Result<()> {
        let saved = self.try_save(head, ruleset);
        note_failure(&self.unwritten, &self.path, &saved);
        saved
    }

    fn try_save(&self, head: &Head, ruleset: &Ruleset) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let saved = write(&temporary, head, ruleset).and_then(|checksum| {
            fs::rename(&temporary, &self.path)?;
            Ok(checksum)
        });
        match saved {
            Ok(checksum) => {
                self.checksum.set(Some(checksum));
                self.length.set(None);
                // Beside this record it is nothing, whether it can be removed or not.
                let _ = fs::remove_file(self.journal());
                Ok(())
            }
            Err(error) => {
                // Where it is full, what is left of it would keep it full.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// Appends a change to the journal of the record that was read or written last.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such record, [`io::ErrorKind::FileTooLarge`] when the journal is full, and those
    /// of the file system. The journal is then as it was, and takes no entry until a record is written: what knows of a change knows of
    /// those before it.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let appended = self.try_append(entry);
        if appended.is_err() {
            self.checksum.set(None);
        }
        note_failure(&self.unwritten, &self.journal(), &appended);
        appended
    }

    fn try_append(&self, entry: &Entry) -> io::Result<()> {
        let frame = journal::frame(entry)?;
        let no_record = || io::Error::new(io::ErrorKind::NotFound, "there is no record to append to");
        let checksum = self.checksum.get().ok_or_else(no_record)?;
        let length = match self.length.take() {
            Some(length) => length,
            None => self.begin_journal(checksum)?,
        };
        if length + frame.len() as u64 > journal::MOST_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the journal of the record is full",
            ));
        }
        let mut file = run_file::open_to_append(&self.journal())?;
        let written = if file.metadata()?.len() == length {
            file.write_all(&frame)
        } else {
            Err(io::Error::other(
                "somebody else has written to the journal of the record",
            ))
        };
        if written.is_err() {
            // What is left of an entry is no entry; the next one would follow it.
            let _ = file.set_len(length);
        }
        written?;
        self.length.set(Some(length + frame.len() as u64));
        Ok(())
    }

    /// Makes the journal this process' own, with the entries that are there and whole. Returns its length.
    fn begin_journal(&self, checksum: u32) -> io::Result<u64> {
        let there = read(&self.journal(), journal::MOST_BYTES);
        let there = there.map(|content| content.bytes).unwrap_or_default();
        let kept = journal::read(&there, checksum).map(|(_, length)| &there[..length]);
        let header = journal::header(checksum);
        let kept = kept.unwrap_or(&header);
        let temporary = self.path.with_extension("journal.new");
        let made = run_file::create(&temporary).and_then(|mut file| file.write_all(kept));
        let made = made.and_then(|()| fs::rename(&temporary, self.journal()));
        if made.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        made.map(|()| kept.len() as u64)
    }

    fn journal(&self) -> PathBuf {
        self.path.with_extension("journal")
    }

    /// The teardown that nothing has ended yet, if there is one.
    pub fn load_torn_down(&self) -> Option<TornDown> {
        let content = run_file::read(&self.torn_down(), MOST_BYTES_TORN).ok()?;
        serde_json::from_slice(&content.bytes).ok()
    }

    /// Keeps who tore the gateway down.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save_torn_down(&self, torn: &TornDown) -> io::Result<()> {
        let temporary = self.path.with_extension("torn-down.new");
        let bytes = serde_json::to_vec(torn).map_err(io::Error::other)?;
        let saved = run_file::create(&temporary).and_then(|mut file| file.write_all(&bytes));
        let saved = saved.and_then(|()| fs::rename(&temporary, self.torn_down()));
        if saved.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        note_failure(&self.unnoted, &self.torn_down(), &saved);
        saved
    }

    /// Forgets the teardown.
    ///
    /// # Errors
    /// Those of the file system, but not that there is none.
    pub fn forget_torn_down(&self) -> io::Result<()> {
        let forgotten = match fs::remove_file(self.torn_down()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        note_failure(&self.unnoted, &self.torn_down(), &forgotten);
        forgotten
    }

    fn torn_down(&self) -> PathBuf {
        self.path.with_extension("torn-down")
    }

    /// Forgets it.
    ///
    /// # Errors
    /// Those of the file system, but not that there is none.
    pub fn remove(&self) -> io::Result<()> {
        self.checksum.set(None);
        self.length.set(None);
        // There is nothing to be written any more.
        self.unwritten.replace(None);
        for path in [&self.path, &self.journal()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Keeps why that file could not be written, or that it could.
fn note_failure(kept: &RefCell<Option<String>>, path: &Path, written: &io::Result<()>) {
    let failure = written.as_ref().err();
    kept.replace(failure.map(|error| format!("{}: {error}", tcpgw_core::escape::path(path))));
}

fn read(path: &Path, most: u64) -> Option<run_file::Content> {
    match run_file::read(path, most) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "{}: {error}; the kernel will be read instead",
                tcpgw_core::escape::path(path)
            );
            None
        }
    }
}

/// No fsync: a record that a crash of the machine tears is of another boot anyway. Returns its checksum.
fn write(path: &Path, head: &Head, ruleset: &Ruleset) -> io::Result<u32> {
    let file = BufWriter::with_capacity(1 << 16, run_file::create(path)?);
    Ok(encode(file, head, ruleset)?.1)
}

/// Returns the time since the machine's start (`CLOCK_BOOTTIME`). Zero if the kernel does not say, which none has done since Linux
/// 2.6.39: drains have all their time again then.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.map_or(Duration::ZERO, Duration::from)
}

/// The kernel's name for this boot (`/proc/sys/kernel/random/boot_id`).
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// A writer that ends with the checksum of all that was written.
struct Checked<W: Write> {
    file: W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<W: Write> Checked<W> {
    fn finish(self) -> io::Result<(W, u32)> {
        let Self { mut file, checksum } = self;
        let checksum = checksum.finalize();
        file.write_all(&checksum.to_le_bytes())?;
        file.flush()?;
        Ok((file, checksum))
    }
}

fn encode<W: Write>(file: W, head: &Head, ruleset: &Ruleset) -> io::Result<(W, u32)> {
    let mut checked = Checked {
        file,
        checksum: crc32fast::Hasher::new(),
    };
    encode_content(&mut checked, head, ruleset)?;
    checked.finish()
}

fn encode_content(out: &mut impl Write, head: &Head, ruleset: &Ruleset) -> io::Result<()> {
    out.write_all(MAGIC)?;
    put(out, &serde_json::to_vec(head).map_err(io::Error::other)?)?;
    for (name, rows) in ruleset.sets() {
        put(out, name.to_string().as_bytes())?;
        put(out, rows.packed())?;
    }
    put(out, b"")?;
    for ((listen_scope, key), chain) in ruleset.turns() {
        put(out, listen_scope.to_string().as_bytes())?;
        put(out, key)?;
        put(out, chain.to_string().as_bytes())?;
    }
    put(out, b"")
}

fn put(out: &mut impl Write, part: &[u8]) -> io::Result<()> {
    out.write_all(&(part.len() as u64).to_le_bytes())?;
    out.write_all(part)
}

/// What follows the magic, of a file that is not torn; whoever may write here may write to the kernel.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, checksum) = bytes.split_last_chunk()?;
    let whole = crc32fast::hash(content) == u32::from_le_bytes(*checksum);
    content.strip_prefix(MAGIC).filter(|_| whole)
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::ruleset::compile::compile;

    fn head() -> Head {
        Head {
            program: "1".into(),
            boot: boot_id(),
            namespace: 7,
            generation: 3,
            table: 9,
            room: "0".into(),
            mark: String::new(),
            timeouts: KernelTimeouts::default(),
            swept: true,
            applied: Some(Applied {
                at: 5,
                origin: "-".into(),
                known: Duration::from_secs(6),
                store: Some(StoreRevision::new(Path::new("/s.db"), 4)),
            }),
            deadlines: vec![Deadline {
                service: "a".into(),
                backend: "10.2.0.1:80".parse().unwrap(),
                until: Duration::from_millis(7001),
                time: Duration::from_secs(30),
            }],
            pauses: vec![Pause {
                service: "a".into(),
                since: 6,
                uid: 7,
                until: Duration::from_secs(8),
                time: Duration::from_secs(9),
            }],
            details: Some([("a".into(), tcpgw_core::owner::Details::default())].into()),
            summary: Summary::default(),
            is_hint: false,
            changes: Vec::new(),
            left: Summary::default(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let text = br#"{"version":1,"services":[
            {"name":"a","port":2000,"balance":"round-robin","backends":["10.0.0.1:1","[fd00::1]:1"],"limit":{"pps":5}},
            {"name":"b","port":2001,"backends":["10.0.0.2:1"],"deny":["192.0.2.0/24"]}]}"#;
        let state = tcpgw_core::model::parse(text).unwrap();
        let record = Record {
            head: Head {
                summary: Summary::from(&state),
                ..head()
            },
            ruleset: compile(&state, &["eth0".to_owned()].into()),
        };
        let directory = tempfile::tempdir().unwrap();
        let store = RecordFile::new(directory.path(), 7);
        assert_eq!(store.load(), None);
        store.save(&record.head, &record.ruleset).unwrap();
        assert_eq!(store.load_head().as_ref(), Some(&record.head));
        assert_eq!(store.load(), Some(record));
        store.remove().unwrap();
        assert_eq!(store.load(), None);
    }

    #[test]
    fn no_drain_has_more_than_its_time() {
        let seconds = Duration::from_secs;
        for (until, boot, left) in [
            (100, 90, 10),
            (100, 70, 30),
            (100, 60, 30),
            (100, 100, 0),
            (100, 200, 0),
        ] {
            let deadline = Deadline {
                service: "a".into(),
                backend: "10.2.0.1:80".parse().unwrap(),
                until: seconds(until),
                time: seconds(30),
            };
            assert_eq!(deadline.left(seconds(boot)), seconds(left), "{until} {boot}");
        }
    }

    #[test]
    fn a_torn_record_is_none() {
        let record = Record {
            head: head(),
            ruleset: Ruleset::default(),
        };
        let bytes = record.encode().unwrap();
        assert!(Record::decode(&bytes).is_some());
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_none());
        }
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(Record::decode(&torn).is_none());
        }
    }
}
