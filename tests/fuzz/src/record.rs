//! The record of what was put into the kernel last.

use std::hint::black_box;
use tcpgw::record::Record;
use tcpgw_core::diff::ChangeCounts;
use tcpgw_core::summary::Summary;

use super::sample::sample;
use super::table::check_ruleset;

/// Checks a record with any `content` and the right checksum: it is refused, or is written as it was read, and a plan leads from
/// it to a state.
pub fn check(content: &[u8]) {
    let checksum = crc32fast::hash(content).to_le_bytes();
    let Some(record) = Record::decode(&[content, &checksum].concat()) else {
        return;
    };
    let written = record.encode().expect("a record can be written");
    assert_eq!(Record::decode(&written).as_ref(), Some(&record));
    check_ruleset(&record.ruleset);
    let (was, wanted): (&Summary, &Summary) = (&record.head.summary, &sample().summary);
    black_box(&(ChangeCounts::between(was, wanted), ChangeCounts::between(wanted, was)));
    black_box(&Summary::of_kernel(&record.ruleset, was));
}
