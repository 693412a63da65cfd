//! The checks, by subject.

pub(super) mod apps;
mod bridge;
mod conntrack;
mod ct_mark;
mod direct;
mod firewall;
pub(super) mod forwarding;
mod hop_limit;
mod ipsec;
mod kernel;
mod let_pass;
mod marks;
mod nat;
mod no_address;
mod offload;
mod other_links;
mod ports;
mod reuse;
mod reverse_path;
mod samples;
mod table;
mod ways;
mod ways_of_probes;

use std::fmt::Display;

use super::facts::{CheapFacts, Facts};
use super::finding::Diagnosis;
use tcpgw_core::diff::count;

/// Checks that need no more than [`CheapFacts`], so that a daemon can repeat them; they find what keeps clients from
/// being served. To add a check, add it here or to [`COSTLY`], and its findings to [`super::FINDINGS`] and to the
/// table in the manual. A finding of this list that is more than a note needs a kind of problem, too (see
/// [`super::KINDS`]).
pub(super) const CHEAP: &[fn(&CheapFacts, &mut Diagnosis)] = &[
    forwarding::check,
    firewall::check,
    apps::check,
    nat::check,
    ct_mark::check,
    marks::check,
    hop_limit::check,
    ipsec::check,
    conntrack::unmarked,
    ways::routes,
    ways::answers,
    ways::elsewhere,
    ways_of_probes::check,
    reverse_path::check,
    conntrack::fill,
    ports::addresses,
    ports::lost_addresses,
    no_address::check,
    no_address::carrier,
    reuse::source_addresses,
    direct::check,
];

/// The other checks.
pub(super) const COSTLY: &[fn(&Facts, &mut Diagnosis)] = &[
    table::check,
    kernel::check,
    ways::check,
    bridge::check,
    conntrack::check,
    ports::check,
    reuse::check,
    offload::check,
];

/// Maximum number of items that a message names.
const SHOWN: usize = 5;

/// Returns a list for people: `a, b, c and 7 more`.
fn some<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let text = items
        .by_ref()
        .take(SHOWN)
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Returns the name of an interface's setting for `sysctl`, where a dot in the interface's name is written as a slash
/// (`sysctl(8)`).
fn sysctl(family: &str, link: &str, setting: &str) -> String {
    quoted(&format!("net.{family}.conf.{}.{setting}", link.replace('.', "/")))
}

/// Returns a word for a command line, quoted if a shell would not take it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./@:,=+".contains(letter);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns ports as ranges.
fn ranges(ports: &std::collections::BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, to)) if to.checked_add(1) == Some(*port) => *to = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    ranges
}

fn range_list(ranges: &[(u16, u16)], separator: &str) -> String {
    let text = |(from, to): &(u16, u16)| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(separator)
}
