//! The desired state: what operators write, parsed and validated.
//!
//! Owns every rule about what a state may say. Knows nothing of nftables, conntrack, sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, TryFromIntError};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

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
pub mod shared;
pub mod word;
pub mod write;

pub use self::claims::{MAX_FLOW_CAPS, MAX_IDLE_TIMEOUTS, MAX_ROUND_ROBIN};
pub use self::fences::{Fences, PortRange};
pub use self::limit::warnings;
pub use self::mark::FlowMark;
pub use self::parse::{
    DRAIN_TIMEOUT, IDLE_TIMEOUTS, MAX_SOURCE_ADDRESSES, MAX_STATE_BYTES, VERSION, parse, parse_service,
    parse_service_named, patch_service,
};
pub use self::problem::{MAX_PROBLEMS, Problem, Problems};
pub use self::word::Word;

/// Everything the gateway should do: its services, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The services, sorted by name, names unique. Shared, not copied: there may be ten thousand of them.
    pub services: Vec<Arc<Service>>,
}

impl State {
    /// Puts services together that are valid one by one; the problems are those between them.
    pub fn new(services: impl IntoIterator<Item = impl Into<Arc<Service>>>) -> Result<Self, Problems> {
        let state = Self::from_valid(services.into_iter().map(Into::into).collect());
        let mut problems = Problems::default();
        claims::Claims::of(&state).check(&mut problems);
        problems.into_result()?;
        Ok(state)
    }

    /// Services that have been found valid together, or as a part of what was.
    pub fn from_valid(mut services: Vec<Arc<Service>>) -> Self {
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        services.shrink_to_fit();
        Self { services }
    }

    /// A service by its name.
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        let at = self.services.binary_search_by(|service| (*service.name).cmp(name));
        at.ok().and_then(|at| self.services.get(at))
    }

    /// The same, but a service that is in `other`, too, is held once by both: comparing the two is cheap from then on.
    pub fn share(&mut self, other: &Self) {
        let mut others = other.services.iter().peekable();
        for service in &mut self.services {
            while others.next_if(|other| other.name < service.name).is_some() {}
            if let Some(other) = others.next_if(|other| *other == service) {
                *service = Arc::clone(other);
            }
        }
    }

    /// What has to be edited to make this out of `old`.
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

/// What is to be changed of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Services that are new, or other than before; sorted by name.
    pub put: Vec<Arc<Service>>,
    /// Names of services that are not there any more; sorted.
    pub gone: Vec<Box<str>>,
}

impl Edits {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }

    /// Whether it is about a service of that name.
    pub fn touches(&self, name: &str) -> bool {
        let put = self.put.binary_search_by(|service| (*service.name).cmp(name));
        put.is_ok() || self.gone.binary_search_by(|gone| (**gone).cmp(name)).is_ok()
    }
}

/// One public TCP port and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique, 1 to 63 of `a-z 0-9 - _ .`, starting with a letter or digit.
    pub name: Box<str>,
    /// The public port.
    pub port: NonZeroU16,
    /// Where it listens.
    pub listen: Listen,
    /// Sorted by endpoint, each endpoint once.
    pub backends: Vec<Backend>,
    /// How new connections are spread.
    pub balance: Balance,
    /// What each backend may send and receive.
    pub limit: Option<Limit>,
    /// Flows that it may have at once, of each address family.
    pub max_flows: Option<u32>,
    /// What each client may have and begin.
    pub client: ClientCaps,
    /// How long conntrack keeps a connection on which nothing is sent, established or half-closed, in whole seconds. `None`: the
    /// configuration's value, or else the kernel's.
    pub idle_timeout: Option<Duration>,
    /// What a late packet of a flushed flow gets.
    pub on_retire: Refusal,
    /// What a SYN gets while there is no active backend of its family.
    pub on_empty: Refusal,
    /// Whose address a backend sees.
    pub source: SourceMode,
    /// The gateway's addresses that backends see, if more than the one that masquerading would choose: at most
    /// [`MAX_SOURCE_ADDRESSES`] of each family. Backends of a family that has none here are masqueraded.
    pub source_addresses: BTreeSet<IpAddr>,
    /// Which clients may connect.
    pub access: Access,
    /// How long a draining backend's flows may live.
    pub drain_timeout: Duration,
    /// The handshake probe.
    pub health: Health,
    /// Free strings for the platform's own use.
    pub labels: BTreeMap<String, String>,
}

impl Service {
    /// Returns `idle_timeout` in seconds.
    pub fn idle_seconds(&self) -> Option<NonZeroU32> {
        let seconds = self.idle_timeout?.as_secs();
        NonZeroU32::new(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

/// The local addresses that a service listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Every local address but loopback, both families.
    Everywhere,
    /// These addresses only; never empty.
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

    /// # Errors
    /// That the port is 0.
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

/// One container endpoint of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its share of new connections, 1 to 256.
    pub weight: NonZeroU16,
    /// Whether it gets new connections.
    pub state: BackendState,
}

impl Backend {
    /// One that gets new connections, like any other.
    pub fn active(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: NonZeroU16::MIN,
            state: BackendState::Active,
        }
    }
}

/// Whether a backend gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// It does.
    Active,
    /// It does not, but its flows, limits and counters go on.
    Draining,
}

/// How new connections are spread over the active backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    /// By a hash of the client's address and port, by weight.
    ClientHash,
    /// At random, by weight.
    Random,
    /// By a hash of the client's address.
    SourceHash,
    /// In turn.
    RoundRobin,
}

/// What each backend of a service may send and receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// Packets per second, 1 to 1,000,000.
    pub pps: u32,
    /// Packets that may come at once after a pause; at least 1.
    pub burst: u32,
    /// One bucket for each direction, or one for both.
    pub direction: LimitDirection,
    /// Bytes that a packet stands for in the byte bucket, 68 to 65,535.
    pub mtu: u32,
}

/// What each client of a service may have and begin. A client is an address of IPv4 or a network of 64 bits of IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientCaps {
    /// Flows at once.
    pub flows: Option<u32>,
    /// New connections per second.
    pub handshakes_per_second: Option<u32>,
}

/// Whether the two directions share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitDirection {
    /// To and from the backend have a bucket each.
    Each,
    /// To and from the backend share one.
    Shared,
}

/// How a packet is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// In silence.
    Drop,
    /// With a TCP reset.
    Reset,
}

/// Whose address a backend sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceMode {
    /// The gateway's internal address.
    Masquerade,
    /// The client's; the backend must route back through the gateway.
    Preserve,
}

/// Which clients may open connections. Networks are aggregated: none lies in another, neighbours are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// When present, nobody else may; never an empty list.
    pub allow: Option<Vec<IpNet>>,
    /// These may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

/// The handshake probe of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Pause between probes; `None`: 2 s until healthy, then 10 s.
    pub interval: Option<Duration>,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// Successes in a row until a backend is healthy.
    pub rise: NonZeroU16,
    /// Failures in a row until it is not.
    pub fall: NonZeroU16,
}
