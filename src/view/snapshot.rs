//! State of a daemon and its services at one moment, for display.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::ServicesView;
use crate::addon::ServiceState;
use crate::addon::id::PlatformId;
use tcpgw_core::problem::Problem;

/// State that the main loop knows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The services, as they are in the kernel.
    pub services: ServicesView,
    /// Results of probes.
    pub health: BTreeMap<SocketAddr, HealthView>,
    /// Backends that were added to a service while another one has them, and have not answered since, regardless of
    /// `health`.
    pub unproven: BTreeSet<(Box<str>, SocketAddr)>,
    /// Draining backends.
    pub drains: Vec<DrainView>,
    /// State of the daemon itself.
    pub daemon: DaemonView,
    /// Removed services that are still in the kernel while their backends drain.
    pub leaving: BTreeSet<Box<str>>,
    /// Number of handshakes that no backend answered in time, by service; services without any are left out.
    pub unanswered: BTreeMap<Box<str>, u64>,
    /// Provider of each service, by name.
    pub providers: BTreeMap<Box<str>, &'static str>,
    /// States of the services of the add-on's resources, by name.
    pub addon: BTreeMap<Box<str>, ServiceState>,
    /// Apps of those services that belong, or belonged, to the add-on.
    pub apps: BTreeMap<Box<str>, PlatformId>,
}

/// Result of the probes of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthView {
    /// State: `unknown` (no answer yet), `healthy`, `failing` (gets connections, but the last probe failed),
    /// `unhealthy`, `rising` (answers again, but not yet `rise` times), or `presumed` (found in the kernel at the
    /// start, not probed yet).
    pub state: &'static str,
    /// Reason why the last probe failed, if it did: `refused`, `timed out`, `unreachable`.
    pub reason: Option<String>,
    /// Time of the last change of `state`, in seconds since the Unix epoch.
    pub since: u64,
}

/// A draining backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainView {
    /// Name of the service.
    pub service: Option<String>,
    /// Public port of the service.
    pub port: u16,
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Number of its flows at the last count; `None` before the first.
    pub flows: Option<u64>,
    /// Seconds until they are deleted; `None`: there is no deadline yet.
    pub seconds_left: Option<u64>,
    /// Reason why it is still there: `replacement` (no other backend is healthy yet, it still gets new connections),
    /// or `flows` (until they end or the deadline passes).
    pub waits_for: &'static str,
}

/// State of the daemon itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DaemonView {
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: &'static str,
    /// Cookie of its network namespace.
    pub namespace: u64,
    /// Time of its start, in seconds since the Unix epoch.
    pub started: u64,
    /// Whether the kernel holds the desired state.
    pub in_sync: bool,
    /// Problems that are known without a list of flows, the worst first.
    #[serde(serialize_with = "tcpgw_core::problem::serialize_few")]
    pub problems: Vec<Problem>,
    /// Reason why changes through the API are refused; `None`: they are accepted.
    pub store: Option<String>,
    /// Whether the table is owned by this process, so that other programs cannot change it.
    pub owns_table: bool,
    /// Whether the gateway is torn down: nothing is served until `tcpgw resume` or `tcpgw apply`.
    pub torn_down: bool,
}
