//! What the kernel counts on a host's interfaces.

use std::fs;
use std::ops::Sub;

use super::Net;

/// One interface's counters since it was made. With offloads on a packet may stand for many.
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
    /// How often a host's clients had to send a SYN again.
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
