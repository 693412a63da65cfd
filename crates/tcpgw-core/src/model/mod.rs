//! The desired state as operators write it: parsing and validation.
//!
//! Owns every rule about the contents of a state. Knows nothing of nftables, conntrack, sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, TryFromIntError};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

mod access;
pub mod address;
mod claims;
pub mod duration;
mod fences;
mod json;
pub mod limit;
pub mod mark;
pub mod network;
mod parse;
mod problem;
mod question;
pub mod shared;
mod warnings;
pub mod word;
pub mod write;

pub use self::claims::{MAX_FLOW_CAPS, MAX_IDLE_TIMEOUTS, MAX_ROUND_ROBIN};
pub use self::fences::{Fences, PortRange};
pub use self::mark::FlowMark;
pub use self::parse::{
    DRAIN_TIMEOUT, IDLE_TIMEOUTS, MAX_ACTIVE, MAX_SOURCE_ADDRESSES, MAX_STATE_BYTES, VERSION, is_service_name, parse,
    parse_service, parse_service_named, patch_service,
};
pub use self::problem::{InputProblem, InputProblems, MAX_PROBLEMS};
pub use self::question::{ByteEncoding, ExpectedStatus, HttpQuestion, ProbeExchange, ProbeQuestion};
pub use self::warnings::warnings;
pub use self::word::Word;

/// Desired state of the gateway: its services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The services, sorted by name; names are unique. Shared, not copied: there may be ten thousand of them.
    pub services: Vec<Arc<Service>>,
}

impl State {
    /// Creates a state from services that are already known to be valid together.
    pub fn from_valid(mut services: Vec<Arc<Service>>) -> Self {
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        services.shrink_to_fit();
        Self { services }
    }

    /// Returns the service of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        let at = self.services.binary_search_by(|service| (*service.name).cmp(name));
        at.ok().and_then(|at| self.services.get(at))
    }

    /// Makes both states share services that are equal in both, so that comparing the two is cheap from then on.
    pub fn share(&mut self, other: &Self) {
        let mut others = other.services.iter().peekable();
        for service in &mut self.services {
            while others.next_if(|other| other.name < service.name).is_some() {}
            if let Some(other) = others.next_if(|other| *other == service) {
                *service = Arc::clone(other);
            }
        }
    }

    /// Returns the edits that turn `old` into this state.
    pub fn edits_from(&self, old: &Self) -> Edits {
        let (mut olds, mut edits) = (old.services.iter().peekable(), Edits::default());
        for service in &self.services {
            if let Some(same) = olds.next_if(|old| Arc::ptr_eq(old, service)) {
                debug_assert_eq!(same, service);
                continue;
            }
            while let Some(before) = olds.next_if(|old| old.name < service.name) {
                edits.gone.push(before.name.clone());
            }
            let before = olds.next_if(|old| old.name == service.name);
            if before != Some(service) {
                edits.put.push(Arc::clone(service));
            }
        }
        edits.gone.extend(olds.map(|old| old.name.clone()));
        edits
    }
}

/// Services to write and to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Services that are new or changed; sorted by name.
    pub put: Vec<Arc<Service>>,
    /// Names of services that are removed; sorted.
    pub gone: Vec<Box<str>>,
}

impl Edits {
    /// Returns whether there is no edit.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }

    /// Returns whether a service of this name is written or removed.
    pub fn touches(&self, name: &str) -> bool {
        let put = self.put.binary_search_by(|service| (*service.name).cmp(name));
        put.is_ok() || self.gone.binary_search_by(|gone| (**gone).cmp(name)).is_ok()
    }
}

/// A public TCP port and the backends that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique name: 1 to 63 of `a-z 0-9 - _ .`, starting with a letter or digit.
    pub name: Box<str>,
    /// Public port of the service.
    pub port: NonZeroU16,
    /// Addresses that the service listens on.
    pub listen: Listen,
    /// Backends, sorted by endpoint, each endpoint once.
    pub backends: Vec<Backend>,
    /// Rule by which new connections are distributed to the backends.
    pub balance: Balance,
    /// Rate limit of each backend.
    pub limit: Option<Limit>,
    /// Largest number of concurrent flows of the service, for each address family.
    pub max_flows: Option<u32>,
    /// Limits of each client.
    pub client: ClientCaps,
    /// Time after which conntrack drops a connection without traffic, established or half-closed, in whole seconds.
    /// `None`: the configuration's value, or else the kernel's.
    pub idle_timeout: Option<Duration>,
    /// Answer to late packets of a flushed flow.
    pub on_retire: PacketRefusal,
    /// Answer to a SYN while there is no active backend of its family.
    pub on_empty: PacketRefusal,
    /// Source address that a backend sees.
    pub source: SourceMode,
    /// Gateway addresses that backends see, instead of the one that masquerading would choose; at most
    /// [`MAX_SOURCE_ADDRESSES`] of each family. Backends of a family that has none here are masqueraded.
    pub source_addresses: BTreeSet<IpAddr>,
    /// Clients that may connect.
    pub access: Access,
    /// Longest time for which flows of a draining backend may continue.
    pub drain_timeout: Duration,
    /// Settings of the probes.
    pub health: HealthSettings,
    /// Labels: strings that tcpgw does not interpret.
    pub labels: BTreeMap<String, String>,
}

impl Service {
    /// Returns `idle_timeout` in seconds.
    pub fn idle_seconds(&self) -> Option<NonZeroU32> {
        let seconds = self.idle_timeout?.as_secs();
        NonZeroU32::new(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Returns whether it has a backend that is to get new connections.
    pub fn has_active_backend(&self) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| backend.state == BackendState::Active)
    }
}

/// The local addresses that a service listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// All local addresses except loopback, of both families.
    Everywhere,
    /// Only these addresses; never empty.
    At(BTreeSet<IpAddr>),
}

/// An address and a TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: NonZeroU16,
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address, endpoint.port.get())
    }
}

impl TryFrom<SocketAddr> for Endpoint {
    type Error = TryFromIntError;

    /// Converts an address with its port.
    ///
    /// # Errors
    ///
    /// Fails when the port is 0.
    fn try_from(at: SocketAddr) -> Result<Self, Self::Error> {
        Ok(Self {
            address: at.ip(),
            port: at.port().try_into()?,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(a) => write!(f, "{a}:{}", self.port),
            IpAddr::V6(a) => write!(f, "[{a}]:{}", self.port),
        }
    }
}

/// A backend (a container's endpoint) of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Address and port of the backend.
    pub endpoint: Endpoint,
    /// Relative share of new connections, 1 to 256.
    pub weight: NonZeroU16,
    /// Whether the backend gets new connections.
    pub state: BackendState,
}

impl Backend {
    /// Creates a backend of weight 1 that gets new connections.
    pub fn active(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: NonZeroU16::MIN,
            state: BackendState::Active,
        }
    }
}

/// State of a backend, which decides whether it gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// The backend gets new connections.
    Active,
    /// The backend gets no new connections; its flows, limits and counters continue.
    Draining,
}

/// Rule by which new connections are distributed over the active backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    /// Hash of the client's address and port, by weight.
    ClientHash,
    /// Random choice, by weight.
    Random,
    /// Hash of the client's address.
    SourceHash,
    /// Backends one after the other.
    RoundRobin,
}

/// Rate limit of each backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// Rate in packets per second, 1 to 1,000,000.
    pub pps: u32,
    /// Number of packets that may pass at once after a pause; at least 1.
    pub burst: u32,
    /// Whether the directions have one bucket each or share one.
    pub direction: LimitDirection,
    /// Size in bytes that a packet is counted as in the byte bucket, 68 to 65,535.
    pub mtu: u32,
}

/// Limits of each client of a service. A client is an IPv4 address or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientCaps {
    /// Largest number of concurrent flows.
    pub flows: Option<u32>,
    /// Largest number of new connections per second.
    pub handshakes_per_second: Option<u32>,
}

/// Assignment of buckets to the two directions of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitDirection {
    /// Packets to and from the backend have a bucket each.
    Each,
    /// Packets to and from the backend share one bucket.
    Shared,
}

/// Way in which a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PacketRefusal {
    /// The packet is dropped.
    Drop,
    /// The packet is answered with a TCP reset.
    Reset,
}

/// Source address that a backend sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceMode {
    /// An address of the gateway.
    Masquerade,
    /// The client's address; the backend must route its answers through the gateway.
    Preserve,
}

/// Clients that may open connections. Networks are aggregated: none contains another, neighbours are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// If present, only these clients may connect; never empty.
    pub allow: Option<Vec<IpNet>>,
    /// These clients may not connect, even if `allow` contains them.
    pub deny: Vec<IpNet>,
}

/// Settings of a daemon's probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// Time between the starts of two probes; `None`: 2 s until the backend is healthy, then 10 s.
    pub interval: Option<Duration>,
    /// Time within which the handshake, and the question, must be answered.
    pub timeout: Duration,
    /// Number of successes in a row until a backend is healthy.
    pub rise: NonZeroU16,
    /// Number of failures in a row until a backend is unhealthy.
    pub fall: NonZeroU16,
    /// Question after the handshake; `None`: the handshake is enough.
    pub question: Option<Arc<ProbeQuestion>>,
}
