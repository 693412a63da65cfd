//! Reads the kernel's counters: those of a host's interfaces, and those in tcpgw's sets.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;

use serde_json::Value;

use super::Net;
use super::plan::BACKENDS;

/// Counters of an interface since it was made. With offloads on a packet may stand for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let difference = |now: Traffic, then: Traffic| Traffic {
            packets: now.packets - then.packets,
            bytes: now.bytes - then.bytes,
        };
        Self {
            received: difference(self.received, earlier.received),
            sent: difference(self.sent, earlier.sent),
        }
    }
}

impl Net {
    /// Returns the table without its counters, and without the sets to which packets add elements for each connection.
    #[track_caller]
    pub(crate) fn rules(&self) -> String {
        let all = self.sh("gateway", "nft --stateless list table inet tcpgw").ok();
        let parts = all.split("\n\n").filter(|part| !part.starts_with("\tset connections_"));
        parts.collect::<Vec<_>>().join("\n\n")
    }

    /// Returns how often the client, or a backend that answered it, retransmitted its part of a handshake. A retransmission shows
    /// that a packet was lost, however slow the machine is.
    pub(crate) fn handshakes_again(&self) -> u64 {
        let hosts = BACKENDS.into_iter().chain(["client"]);
        hosts.map(|host| self.syns_again(host)).sum()
    }

    /// Returns how often a host retransmitted a SYN or a SYN-ACK.
    pub(crate) fn syns_again(&self, host: &str) -> u64 {
        let table = self.within(host, || fs::read_to_string("/proc/thread-self/net/netstat"));
        let table = table.expect("failed to read the counters");
        // A line of names, and a line of values.
        let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        let (_, value) = pairs
            .find(|(name, _)| *name == "TCPSynRetrans")
            .expect("such a counter");
        value.parse().expect("a counter is a number")
    }

    pub(crate) fn counters(&self, host: &str, interface: &str) -> Counters {
        let table = self.within(host, || fs::read_to_string("/proc/thread-self/net/dev"));
        let table = table.expect("failed to read the counters");
        let line = table
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("{host} has no interface {interface}"));
        let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse().expect("a counter")).collect();
        let traffic = |at: usize| Traffic {
            bytes: numbers[at],
            packets: numbers[at + 1],
        };
        Counters {
            received: traffic(0),
            sent: traffic(8),
        }
    }
}

impl Net {
    /// Reads a counting set of tcpgw's table: packets by key, such as `tcp . 80`.
    pub(crate) fn tally(&self, set: &str) -> BTreeMap<String, u64> {
        let listed = self
            .run("gateway", &["nft", "-j", "list", "set", "inet", "tcpgw", set])
            .ok();
        let listed: Value = serde_json::from_str(&listed).expect("nft prints JSON");
        let elements = listed["nftables"][1]["set"]["elem"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let read = |element: &Value| {
            let element = &element["elem"];
            let fields = element["val"]["concat"].as_array().expect("keys are concatenations");
            let words: Vec<String> = fields
                .iter()
                .map(|field| field.as_str().map_or_else(|| field.to_string(), Into::into))
                .collect();
            let packets = element["counter"]["packets"].as_u64();
            (words.join(" . "), packets.expect("its elements count"))
        };
        elements.iter().map(read).collect()
    }

    /// Returns the count of one key in such a set, or 0 when the key is absent.
    pub(crate) fn tallied(&self, set: &str, key: &str) -> u64 {
        self.tally(set).get(key).copied().unwrap_or_default()
    }
}

/// Returns a listing of a table without the connections that were counted.
pub(crate) fn without_connections(listing: &str) -> String {
    let uncounted = |block: &str| match block.split_once("\t\telements = ") {
        Some((set, elements)) if set.contains("\tset connections") => {
            let (_, after) = elements.split_once("\n\t}").expect("the end of a set");
            format!("{set}\t}}{after}")
        }
        _ => block.to_owned(),
    };
    let blocks: Vec<String> = listing.split("\n\n").map(uncounted).collect();
    blocks.join("\n\n")
}
