//! Places of processes, and the clients that wait for them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::up::control::UpAnswer;
use crate::up::process::Process;

/// Maximum time that `tcpgw up scale` waits until the gateway has fewer processes.
pub(super) const SCALE: Duration = Duration::from_secs(5);

/// Resources of an instance that the supervisor does not know.
pub(super) struct InstancePlace {
    pub(super) address: Ipv4Addr,
    /// Open file that keeps the network namespace.
    pub(super) namespace: Option<File>,
    pub(super) process: Option<Process>,
    pub(super) pid: Option<i32>,
}

/// Client that waits for the end of a restart.
pub(super) struct RestartClient {
    pub(super) answers: SyncSender<UpAnswer>,
}

/// Client that waits until the gateway has fewer instances.
pub(super) struct ScaleClient {
    pub(super) answers: SyncSender<UpAnswer>,
    /// Time at which the client is told that the gateway has not confirmed.
    pub(super) until: Instant,
}

/// A process of `tcpgw up run`, which is a child of that command.
pub(super) struct OneOff {
    pub(super) address: Ipv4Addr,
    /// The number of its link, once it has one.
    pub(super) link: Option<u32>,
}
