//! The file of the run directory that keeps what the repeated checks remember of earlier readings, so that a problem whose
//! evidence the kernel does not have any more is still told after a restart of the daemon.
//!
//! It is written when something new is remembered, and once a minute for the times. A file of another boot, or one that was
//! written long ago, is not read.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::record::{boot_id, since_boot};
use crate::run_file;

/// Maximum size of the file.
const MOST_BYTES: u64 = 1 << 20;
/// Format of the file. A file of another format is not read.
const VERSION: u32 = 2;
/// Age from which on a file is not read.
const TOO_OLD: Duration = Duration::from_secs(3600);
/// Pause between writes that only bring times up to date.
const PAUSE: Duration = Duration::from_secs(60);

/// A time, in milliseconds since the machine's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct KeptTime(u64);

/// The memory of the checks, as it is kept in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMemory {
    /// The gateway's own addresses and networks at the last reading.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) networks: Vec<String>,
    /// Addresses that are lost, with the number of clients' connections and the time.
    pub(super) lost_addresses: Vec<(IpAddr, u64, KeptTime)>,
    /// Families (4 or 6) in which there was an address for clients, and when that was seen last.
    pub(super) families: Vec<(u8, KeptTime)>,
    /// Clients that were served.
    pub(super) clients: Vec<KeptClient>,
    /// Clients whose packets would be lost, where they connected to, since when, and whether that is probably intended.
    pub(super) lost_clients: Vec<(IpAddr, SocketAddr, KeptTime, bool)>,
    /// Time at which a file was found missing or damaged, so that what was remembered before is not known.
    #[serde(default)]
    pub(super) lost_file: Option<KeptTime>,
}

/// A client that was served, with the times of its last connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptClient {
    pub(super) client: SocketAddr,
    pub(super) public: SocketAddr,
    pub(super) backend: SocketAddr,
    pub(super) begun: KeptTime,
    pub(super) last: KeptTime,
}

/// The part of a file of any version that tells whether it is one of this boot.
#[derive(Deserialize)]
struct MemoryHead {
    version: u32,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct MemoryDocument {
    version: u32,
    boot: String,
    written: KeptTime,
    memory: KeptMemory,
}

/// Two clocks at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    now: Instant,
    since_boot: Duration,
}

impl Moment {
    /// Reads the time since the machine's start for an instant that has just been read.
    pub(super) fn at(now: Instant) -> Self {
        Self {
            now,
            since_boot: since_boot(),
        }
    }

    /// Returns a time for the file.
    pub(super) fn kept(self, at: Instant) -> KeptTime {
        let ago = self.now.saturating_duration_since(at);
        let millis = self.since_boot.saturating_sub(ago).as_millis();
        KeptTime(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Returns a time of the file; `None` if this process's clock cannot express it.
    pub(super) fn instant(self, kept: KeptTime) -> Option<Instant> {
        self.now.checked_sub(self.ago(kept))
    }

    fn ago(self, kept: KeptTime) -> Duration {
        self.since_boot.saturating_sub(Duration::from_millis(kept.0))
    }
}

/// The file of a network namespace.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    boot: String,
    /// The contents that were written last, without their times, and the time of that.
    written: Option<(KeptMemory, Instant)>,
    fails: bool,
}

impl MemoryFile {
    /// Returns the file of a network namespace in the run directory.
    pub fn new(run_dir: &Path, namespace: u64) -> Self {
        Self::of_boot(run_dir, namespace, boot_id())
    }

    fn of_boot(run_dir: &Path, namespace: u64, boot: String) -> Self {
        Self {
            path: run_dir.join(format!("netns-{namespace}.memory")),
            boot,
            written: None,
            fails: false,
        }
    }

    /// Reads the file; `None` if it is of another boot, too old, or not to be trusted.
    ///
    /// # Errors
    /// Fails with the words for people when there is no file, or one that is damaged or of another version.
    pub(super) fn load(&self, moment: Moment) -> Result<Option<KeptMemory>, String> {
        let failed = |what: &dyn Display| format!("{} {what}", tcpgw_core::escape::path(&self.path));
        let content = match run_file::read(&self.path, MOST_BYTES) {
            Ok(content) if !content.trusted => return Ok(None),
            Ok(content) => content,
            // The daemon of another user writes the file.
            Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(failed(&"is missing")),
            Err(error) if error.raw_os_error().is_none() => return Err(failed(&error)),
            Err(error) => return Err(failed(&format_args!("cannot be read ({error})"))),
        };
        let is_damaged = |_| failed(&"is damaged");
        let head: MemoryHead = serde_json::from_slice(&content.bytes).map_err(is_damaged)?;
        if head.boot != self.boot {
            return Ok(None);
        }
        if head.version != VERSION {
            return Err(failed(&"was written by another version of tcpgw"));
        }
        let document: MemoryDocument = serde_json::from_slice(&content.bytes).map_err(is_damaged)?;
        Ok(Some(document.memory).filter(|_| moment.ago(document.written) < TOO_OLD))
    }

    /// Returns the words for a file that was missing or damaged at an earlier time.
    pub(super) fn was_lost(&self) -> String {
        format!("{} was missing or damaged", tcpgw_core::escape::path(&self.path))
    }

    /// Writes what is new, whole or not at all. What cannot be written is only lost by a restart.
    pub(super) fn keep(&mut self, memory: KeptMemory, moment: Moment) {
        let content = memory.without_times();
        let is_fresh = |(written, at): &(KeptMemory, Instant)| {
            *written == content && moment.now.saturating_duration_since(*at) < PAUSE
        };
        if self.written.as_ref().is_some_and(is_fresh) {
            return;
        }
        match self.write(memory, moment) {
            Ok(()) => self.fails = false,
            Err(error) if !self.fails => {
                self.fails = true;
                tracing::warn!(
                    "{}: {error}: after a restart, clients and addresses that were lost before are not known",
                    tcpgw_core::escape::path(&self.path)
                );
            }
            Err(_) => {}
        }
        self.written = Some((content, moment.now));
    }

    fn write(&self, memory: KeptMemory, moment: Moment) -> io::Result<()> {
        let document = MemoryDocument {
            version: VERSION,
            boot: self.boot.clone(),
            written: moment.kept(moment.now),
            memory,
        };
        let text = serde_json::to_vec(&document)?;
        run_file::replace(&self.path, &text)
    }
}

impl KeptMemory {
    /// Returns the same without what changes at each reading.
    fn without_times(&self) -> Self {
        let mut same = self.clone();
        let none = KeptTime::default();
        same.lost_file = same.lost_file.map(|_| none);
        same.lost_addresses.iter_mut().for_each(|(.., at)| *at = none);
        same.families.iter_mut().for_each(|(_, at)| *at = none);
        same.lost_clients.iter_mut().for_each(|(.., at, _)| *at = none);
        for client in &mut same.clients {
            (client.begun, client.last) = (none, none);
            // A client that goes on has a new port all the time.
            client.client.set_port(0);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::facts::Effort;
    use super::super::cheap::CheapReader;
    use super::*;

    fn memory(last: u64) -> KeptMemory {
        KeptMemory {
            families: vec![(6, KeptTime(last))],
            ..KeptMemory::default()
        }
    }

    #[test]
    fn a_memory_is_read_in_the_same_boot_for_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = MemoryFile::of_boot(directory.path(), 5, "a".into());
        let now = Moment {
            now: Instant::now(),
            since_boot: Duration::from_secs(10_000),
        };
        assert!(file.load(now).unwrap_err().ends_with("netns-5.memory is missing"));
        file.keep(memory(9_000), now);
        assert_eq!(file.load(now), Ok(Some(memory(9_000))));
        let later = |seconds| Moment {
            now: now.now + Duration::from_secs(seconds),
            since_boot: now.since_boot + Duration::from_secs(seconds),
        };
        // Only the times have changed.
        file.keep(memory(9_001), later(1));
        assert_eq!(file.load(later(1)), Ok(Some(memory(9_000))));
        file.keep(memory(9_002), later(61));
        assert_eq!(file.load(later(61)), Ok(Some(memory(9_002))));
        file.keep(KeptMemory::default(), later(62));
        assert_eq!(file.load(later(62)), Ok(Some(KeptMemory::default())));
        assert_eq!(file.load(later(62 + 3600)), Ok(None), "too old");
        let other = MemoryFile::of_boot(directory.path(), 5, "b".into());
        assert_eq!(other.load(now), Ok(None), "another boot");
        let path = directory.path().join("netns-5.memory");
        let text = fs::read_to_string(&path).unwrap();
        for (content, says) in [
            ("", "is damaged"),
            ("{", "is damaged"),
            (&text[..text.len() / 2], "is damaged"),
            (&text.replace("\"version\":2", "\"version\":3"), "another version"),
            (&text.replace("\"families\"", "\"other\""), "is damaged"),
        ] {
            fs::write(&path, content).unwrap();
            let error = file.load(later(62)).unwrap_err();
            assert!(error.contains("netns-5.memory ") && error.contains(says), "{error}");
        }
        fs::write(&path, text.replace("\"version\":2", "\"version\":3")).unwrap();
        assert_eq!(other.load(now), Ok(None), "another boot");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.load(now).unwrap_err().contains("is no regular file"));
    }

    /// A new gateway and one that has just booted have no file, and need none.
    #[test]
    fn a_lost_file_is_told_for_ten_minutes_if_a_daemon_has_run() {
        const MINUTE: Duration = Duration::from_secs(60);
        let directory = tempfile::tempdir().unwrap();
        let file = || MemoryFile::new(directory.path(), 5);
        let reader = |has_run: bool, now| CheapReader::new(Effort::Quick).kept_in(file(), || has_run, now);
        let now = Instant::now();
        assert_eq!(reader(false, now).lost_file(now), None);
        assert_eq!(reader(true, now).lost_file(now), None, "the first one has left a file");
        for damaged in [true, false] {
            let path = directory.path().join("netns-5.memory");
            if damaged {
                fs::write(path, "{").unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
            let problem = CheapReader::new(Effort::Quick)
                .recalling(&file(), || true, now)
                .lost_file(now);
            assert!(problem.is_some(), "a command tells it, and leaves the file as it is");
            let lost = reader(true, now);
            let words = if damaged { "is damaged" } else { "is missing" };
            assert!(lost.lost_file(now).unwrap().message.contains(words));
            assert!(lost.lost_file(now + MINUTE * 9).is_some());
            assert_eq!(lost.lost_file(now + MINUTE * 10), None);
            // The next daemon reports the loss for the rest of the time.
            let next = reader(false, now);
            let problem = next.lost_file(now + MINUTE * 9).unwrap();
            assert!(
                problem.message.contains("was missing or damaged"),
                "{}",
                problem.message
            );
            assert_eq!(next.lost_file(now + MINUTE * 11), None);
        }
    }

    #[test]
    fn times_survive_the_process() {
        let begun = Instant::now();
        let moment = |seconds| Moment {
            now: begun + Duration::from_secs(seconds),
            since_boot: Duration::from_secs(100 + seconds),
        };
        let kept = moment(50).kept(begun + Duration::from_secs(20));
        assert_eq!(kept, KeptTime(120_000));
        assert_eq!(moment(60).instant(kept), Some(begun + Duration::from_secs(20)));
    }
}
