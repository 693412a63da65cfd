//! Journal of the changes since the record was written. Each change is appended before it is made, so that a process
//! that is killed leaves no services in the kernel whose names, owners and drains are not known.
//!
//! The cost of an entry depends on the change alone. The record, whose cost depends on all services, follows later and
//! ends the journal. A journal belongs to the record whose checksum it contains, and is not valid for another one.
//!
//! The kernel could store this itself, in the user data of elements and with the transaction; but that has 256 bytes
//! (`NFT_USERDATA_MAXLEN` in `include/uapi/linux/netfilter/nf_tables.h`), labels alone may be longer, and a drain whose
//! end changes would be a transaction. An entry names the generation on top of which its transaction is sent instead:
//! the kernel refuses a transaction for another one, so an entry was not made as long as the generation is still that
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use super::entry::{JournalEntry, ServiceEntry};
use super::{ApplyNote, Deadline, RecordHead, RecordedPause};
use tcpgw_core::owner::AllDetails;
use tcpgw_core::summary::{ServiceSummary, Summary};

const MAGIC: &[u8; 8] = b"tcpgw-j1";

/// Length of what stands before the entries: the magic, and the checksum of the record.
const HEADER: usize = MAGIC.len() + size_of::<u32>();

/// The largest journal, in bytes. The record is written long before.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// Contents of a record about services.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// The services that the record describes.
    pub summary: &'a Summary,
    /// Owners of the services.
    pub details: &'a AllDetails,
    /// Ends of drains.
    pub deadlines: &'a [Deadline],
    /// Services whose new connections are held back.
    pub pauses: &'a [RecordedPause],
}

impl RecordView<'_> {
    fn entries(&self) -> BTreeMap<&str, ServiceEntry> {
        let mut entries = BTreeMap::new();
        for service in &self.summary.services {
            let Some(name) = service.name.as_deref() else { continue };
            let entry = ServiceEntry {
                name: name.into(),
                summary: Some(service.clone()),
                details: self.details.get(name).cloned().unwrap_or_default(),
                deadlines: Vec::new(),
                pause: None,
            };
            entries.insert(name, entry);
        }
        for deadline in self.deadlines {
            if let Some(entry) = entries.get_mut(&*deadline.service) {
                entry.deadlines.push(deadline.clone());
            }
        }
        for pause in self.pauses {
            if let Some(entry) = entries.get_mut(&*pause.service) {
                entry.pause = Some(pause.clone());
            }
        }
        entries
    }

    /// Returns the entries that lead from this to `new`, service by service.
    pub fn difference(&self, new: &RecordView<'_>) -> Vec<ServiceEntry> {
        let (old, new) = (self.entries(), new.entries());
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let gone = gone.map(|name| ServiceEntry::gone(name));
        let gone: Vec<ServiceEntry> = gone.collect();
        let put = new.into_iter().filter(|(name, entry)| old.get(name) != Some(entry));
        gone.into_iter().chain(put.map(|(_, entry)| entry)).collect()
    }
}

impl RecordHead {
    /// Returns the record with the changes of its journal, in a kernel of that generation: without those that were not made.
    #[must_use]
    pub fn at(mut self, generation: u32) -> Self {
        let entries = std::mem::take(&mut self.changes).into_iter();
        let mut entries = entries.filter(|entry| entry.awaits != Some(generation)).peekable();
        if entries.peek().is_none() {
            return self;
        }
        let mut replay = Replay::new(&mut self);
        for entry in entries {
            replay.make(entry);
        }
        replay.end(self)
    }
}

/// The changes of a journal, being made.
struct Replay {
    services: BTreeMap<Box<str>, ServiceSummary>,
    unnamed: Vec<ServiceSummary>,
    left: Vec<ServiceSummary>,
    details: AllDetails,
    deadlines: BTreeMap<Box<str>, Vec<Deadline>>,
    pauses: BTreeMap<Box<str>, RecordedPause>,
    applied: Option<ApplyNote>,
}

impl Replay {
    fn new(head: &mut RecordHead) -> Self {
        let mut replay = Self {
            services: BTreeMap::new(),
            unnamed: Vec::new(),
            left: std::mem::take(&mut head.left.services),
            details: head.details.take().unwrap_or_default(),
            deadlines: BTreeMap::new(),
            pauses: BTreeMap::new(),
            applied: head.applied.take(),
        };
        for service in std::mem::take(&mut head.summary.services) {
            match service.name.clone() {
                Some(name) => drop(replay.services.insert(name, service)),
                None => replay.unnamed.push(service),
            }
        }
        for deadline in std::mem::take(&mut head.deadlines) {
            let of = replay.deadlines.entry(deadline.service.clone()).or_default();
            of.push(deadline);
        }
        let pauses = std::mem::take(&mut head.pauses).into_iter();
        replay.pauses = pauses.map(|pause| (pause.service.clone(), pause)).collect();
        replay
    }

    fn make(&mut self, entry: JournalEntry) {
        self.applied = entry.applied.or(self.applied.take());
        for service in entry.services {
            let name = service.name;
            self.details.remove(&name);
            self.deadlines.remove(&name);
            self.pauses.remove(&name);
            let old = self.services.remove(&name);
            let is_there = |old: &ServiceSummary| {
                service
                    .summary
                    .as_ref()
                    .is_some_and(|new| new.listen_key() == old.listen_key())
            };
            self.left.extend(old.filter(|old| !is_there(old)));
            let Some(mut summary) = service.summary else { continue };
            // Whatever its parts say: it is one service.
            summary.name = Some(name.clone());
            if !service.details.is_default() {
                self.details.insert(name.clone(), service.details);
            }
            let deadlines = service.deadlines.into_iter().map(|deadline| Deadline {
                service: name.clone(),
                ..deadline
            });
            let deadlines: Vec<Deadline> = deadlines.collect();
            if !deadlines.is_empty() {
                self.deadlines.insert(name.clone(), deadlines);
            }
            let pause = service.pause.map(|pause| RecordedPause {
                service: name.clone(),
                ..pause
            });
            self.pauses.extend(pause.map(|pause| (name.clone(), pause)));
            self.services.insert(name, summary);
        }
    }

    fn end(self, head: RecordHead) -> RecordHead {
        let mut services: Vec<ServiceSummary> = self.services.into_values().chain(self.unnamed).collect();
        services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
        let listen_keys: BTreeSet<(u16, &BTreeSet<IpAddr>)> = services.iter().map(ServiceSummary::listen_key).collect();
        // The last service at an address is the one to keep.
        let mut left: BTreeMap<(u16, BTreeSet<IpAddr>), ServiceSummary> = BTreeMap::new();
        for service in self.left {
            if !listen_keys.contains(&service.listen_key()) {
                left.insert((service.port, service.addresses.clone()), service);
            }
        }
        RecordHead {
            summary: Summary { services },
            left: Summary {
                services: left.into_values().collect(),
            },
            details: Some(self.details),
            deadlines: self.deadlines.into_values().flatten().collect(),
            pauses: self.pauses.into_values().collect(),
            applied: self.applied,
            ..head
        }
    }
}

/// Returns the first bytes of a journal that belongs to the record with that checksum.
pub fn header(record: u32) -> Vec<u8> {
    [MAGIC.as_slice(), &record.to_le_bytes()].concat()
}

/// Returns an entry in the form in which it is appended: its length, its checksum, its text.
///
/// # Errors
///
/// Fails with [`std::io::ErrorKind::Other`] when its text has 4 GiB or more.
pub fn frame(entry: &JournalEntry) -> std::io::Result<Vec<u8>> {
    let text = serde_json::to_vec(entry).map_err(std::io::Error::other)?;
    let length = u32::try_from(text.len()).map_err(std::io::Error::other)?;
    let checksum = crc32fast::hash(&text);
    Ok([&length.to_le_bytes(), &checksum.to_le_bytes(), text.as_slice()].concat())
}

/// Reads the journal of the record with that checksum: its entries up to the first that is not whole, and the length of what is.
/// `None` if it is none, or another record's.
pub fn read(bytes: &[u8], record: u32) -> Option<(Vec<JournalEntry>, usize)> {
    let mut rest = bytes.strip_prefix(header(record).as_slice())?;
    let mut entries = Vec::new();
    let mut length = HEADER;
    while let Some((entry, after)) = first(rest) {
        length += rest.len() - after.len();
        entries.push(entry);
        rest = after;
    }
    Some((entries, length))
}

fn first(bytes: &[u8]) -> Option<(JournalEntry, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    let is_whole = crc32fast::hash(text) == u32::from_le_bytes(*checksum);
    let entry = is_whole.then(|| serde_json::from_slice(text).ok())??;
    Some((entry, after))
}
