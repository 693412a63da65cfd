//! The journal of the record: what has changed since it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use tcpgw::record::journal::{JournalEntry, frame, header, read};
use tcpgw::record::{Record, RecordHead};
use tcpgw_core::diff::ChangeCounts;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::summary::Summary;

use super::sample::sample;

/// The checksum of the record that a journal is beside.
const RECORD: u32 = 7;
/// The generation of the kernel that the first change was sent on top of, unless its text says otherwise.
const GENERATION: u32 = 7;
/// Length of the shortest text of a service in an entry: `{"n":"","s":null}`.
const SHORTEST: usize = 17;

/// Number of entries that are cut and damaged.
const MOST_CUT: usize = 16;

/// Checks a journal of any bytes: it is refused, or its complete entries come first. A journal whose entries are the lines of
/// these bytes, each with its length and checksum, gives the entries before the first line that is no entry; cut or damaged
/// anywhere, it gives those before that place. Whatever the entries say, they can be replayed onto a record.
pub fn check(bytes: &[u8]) {
    check_read(bytes, bytes);
    check_read(&[header(RECORD).as_slice(), bytes].concat(), bytes);
    let texts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut journal = header(RECORD);
    let mut ends = vec![journal.len()];
    for text in &texts {
        journal.extend(u32::try_from(text.len()).expect("inputs are short").to_le_bytes());
        journal.extend(crc32fast::hash(text).to_le_bytes());
        journal.extend(*text);
        ends.push(journal.len());
    }
    let parsed = texts.iter().map_while(|text| serde_json::from_slice(text).ok());
    let entries: Vec<JournalEntry> = parsed.collect();
    let all = Some((entries.clone(), ends[entries.len()]));
    assert_eq!(read(&journal, RECORD), all);
    assert_eq!(read(&journal, RECORD + 1), None, "it is another record's");
    check_cuts(&journal, &ends, &entries);
    let written: Vec<u8> = entries
        .iter()
        .flat_map(|entry| frame(entry).expect("a frame"))
        .collect();
    let written = [header(RECORD), written].concat();
    assert_eq!(read(&written, RECORD), Some((entries.clone(), written.len())));
    check_replay(&entries);
}

/// Checks that reading only the complete part of any bytes gives the same entries, and no more than the bytes have room for.
fn check_read(journal: &[u8], bytes: &[u8]) {
    let Some((entries, length)) = read(journal, RECORD) else {
        return;
    };
    assert!(length <= journal.len());
    let services: usize = entries.iter().map(|entry| entry.services.len()).sum();
    assert!(services * SHORTEST <= bytes.len(), "{services} services");
    assert_eq!(read(&journal[..length], RECORD), Some((entries, length)));
}

/// Checks cuts at a few places of the first entries. Cuts at all places would take time with the square of the length.
fn check_cuts(journal: &[u8], ends: &[usize], entries: &[JournalEntry]) {
    for (at, window) in ends.windows(2).enumerate().take(MOST_CUT) {
        let (begin, end) = (window[0], window[1]);
        let before = Some((entries[..at.min(entries.len())].to_vec(), ends[at.min(entries.len())]));
        for place in [begin, begin + 1, begin + 5, begin.midpoint(end), end - 1] {
            if place >= end {
                continue;
            }
            assert_eq!(read(&journal[..place], RECORD), before, "cut at {place}");
            let mut damaged = journal.to_vec();
            damaged[place] ^= 1;
            // The length may be right for another text, but the checksum is not.
            assert_eq!(read(&damaged, RECORD), before, "damaged at {place}");
        }
    }
}

fn check_replay(entries: &[JournalEntry]) {
    let head = RecordHead {
        changes: entries.to_vec(),
        ..head()
    };
    let is_made = |entry: &&JournalEntry| entry.awaits != Some(GENERATION);
    let last: BTreeMap<&str, bool> = entries
        .iter()
        .filter(is_made)
        .flat_map(|entry| &entry.services)
        .map(|service| (&*service.name, service.summary.is_some()))
        .collect();
    let after = head.at(GENERATION);
    let names: Vec<&str> = after
        .summary
        .services
        .iter()
        .filter_map(|of| of.name.as_deref())
        .collect();
    let known: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(known.len(), names.len(), "a name twice: {names:?}");
    for (name, is_there) in last {
        assert_eq!(known.contains(name), is_there, "{name}");
    }
    let of_known = |name: &str| known.contains(name);
    assert!(after.deadlines.iter().all(|deadline| of_known(&deadline.service)));
    assert!(after.pauses.iter().all(|pause| of_known(&pause.service)));
    assert!(after.left.services.iter().all(|left| {
        after
            .summary
            .services
            .iter()
            .all(|of| of.listen_key() != left.listen_key())
    }));
    let record = Record {
        head: after,
        ruleset: Ruleset::default(),
    };
    let written = record.encode().expect("a record can be written");
    let read = Record::decode(&written).expect("a record can be read");
    assert_eq!(read.head.summary, record.head.summary);
    assert_eq!(
        (&read.head.details, &read.head.deadlines),
        (&record.head.details, &record.head.deadlines)
    );
    let (was, wanted): (&Summary, &Summary) = (&record.head.summary, &sample().summary);
    black_box(&(ChangeCounts::between(was, wanted), ChangeCounts::between(wanted, was)));
    black_box(&Summary::of_kernel(&sample().ruleset, was));
}

/// Returns a record of the sample.
fn head() -> RecordHead {
    RecordHead {
        program: "1".into(),
        boot: "2".into(),
        namespace: 3,
        generation: GENERATION,
        table: 4,
        room: "0".into(),
        mark: String::new(),
        swept: true,
        applied: None,
        deadlines: Vec::new(),
        pauses: Vec::new(),
        details: Some([].into()),
        timeouts: tcpgw_core::ruleset::timeouts::KernelTimeouts::default(),
        summary: sample().summary.clone(),
        is_hint: false,
        changes: Vec::new(),
        left: Summary::default(),
    }
}
