//! What a daemon knows of itself and its services at one moment, as it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::ServicesView;
use crate::addon::ServiceState;
use crate::addon::id::PlatformId;
use tcpgw_core::problem::Problem;

/// What the loop knows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The services, as they are in the kernel.
    pub services: ServicesView,
    /// What probes found.
    pub health: BTreeMap<SocketAddr, HealthView>,
    /// Backends that have come to a service from others and have not answered since, whatever `health` says.
    pub unproven: BTreeSet<(Box<str>, SocketAddr)>,
    /// What leaves.
    pub drains: Vec<DrainView>,
    /// How the daemon itself is.
    pub daemon: DaemonView,
    /// Services that nobody wants any more, and that are still in the kernel while their backends drain.
    pub leaving: BTreeSet<Box<str>>,
    /// Handshakes of clients that no backend answered in time, by service; services without any are left out.
    pub unanswered: BTreeMap<Box<str>, u64>,
    /// Which provider a service belongs to, by its name.
    pub providers: BTreeMap<Box<str>, &'static str>,
    /// How the services of the add-on's resources are, by their names.
    pub addon: BTreeMap<Box<str>, ServiceState>,
    /// The apps of those of the services that are, or were, the add-on's.
    pub apps: BTreeMap<Box<str>, PlatformId>,
}

/// What probes found of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthView {
    /// `unknown` (no answer yet), `healthy`, `failing` (still in, but the last probe failed), `unhealthy`, `rising` (answers
    /// again, but not yet `rise` times), or `presumed` (found in the kernel at the start, not probed yet).
    pub state: &'static str,
    /// Why the last probe failed, if it did: `refused`, `timed out`, `unreachable`.
    pub reason: Option<String>,
    /// Seconds since 1970 of the last change of `state`.
    pub since: u64,
}

/// A backend that leaves a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainView {
    /// The service's name.
    pub service: Option<String>,
    /// Its public port.
    pub port: u16,
    /// The backend.
    pub backend: SocketAddr,
    /// Flows that are left, of the last count; `None` before the first.
    pub flows: Option<u64>,
    /// Seconds until they are flushed; `None` where there is no deadline yet.
    pub seconds_left: Option<u64>,
    /// Why it is still there: `replacement` (no other backend is healthy yet, it still gets new connections), `flows` (until
    /// they end or the deadline passes).
    pub waits_for: &'static str,
}

/// What is told of the daemon itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DaemonView {
    /// Its process number.
    pub pid: u32,
    /// Its version.
    pub version: &'static str,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// Seconds since 1970 when it started.
    pub started: u64,
    /// Whether the kernel holds what is desired.
    pub in_sync: bool,
    /// What is wrong, as far as it is known without looking at flows; the worst first.
    #[serde(serialize_with = "tcpgw_core::problem::serialize_few")]
    pub problems: Vec<Problem>,
    /// That of these which says why no change through the API is taken; `None`: changes are taken.
    pub store: Option<String>,
    /// Whether the table is owned by this process, so that nobody else can change it.
    pub owns_table: bool,
    /// Whether it was torn down: nothing is served until `tcpgw resume` or `tcpgw apply`.
    pub torn_down: bool,
}
