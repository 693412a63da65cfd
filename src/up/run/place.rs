//! Resources of processes: addresses, network namespaces and links.

use std::fs::File;
use std::net::Ipv4Addr;

use crate::up::process::Process;

/// Resources of an instance that the supervisor does not know.
pub(super) struct InstancePlace {
    pub(super) address: Ipv4Addr,
    /// Open file that keeps the network namespace.
    pub(super) namespace: Option<File>,
    pub(super) process: Option<Process>,
    pub(super) pid: Option<i32>,
}

/// A process of `tcpgw up run`, which is a child of that command.
pub(super) struct OneOff {
    pub(super) address: Ipv4Addr,
    /// The number of its link, once it has one.
    pub(super) link: Option<u32>,
}
