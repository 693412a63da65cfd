//! The summary of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::model::{
    BackendState, Balance, Endpoint, Limit, LimitDirection, Listen, PacketRefusal, Service, SourceMode,
};
use crate::ruleset::name::Family;

/// The summary of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Name; `None` if the summary was read from the kernel alone.
    #[serde(rename = "n")]
    pub name: Option<Box<str>>,
    /// Public port of the service.
    #[serde(rename = "p")]
    pub port: u16,
    /// Addresses that the service listens on; empty for all local ones.
    #[serde(rename = "a")]
    pub addresses: BTreeSet<IpAddr>,
    /// Backends that get new connections, with their weights.
    #[serde(rename = "b")]
    pub active: BTreeMap<SocketAddr, u16>,
    /// Backends that get no new connections.
    #[serde(rename = "d")]
    pub draining: BTreeSet<SocketAddr>,
    /// Settings apart from the backends.
    #[serde(rename = "s")]
    pub settings: ServiceSettings,
}

impl From<&Service> for ServiceSummary {
    fn from(service: &Service) -> Self {
        let texts = |networks: &[ipnet::IpNet]| networks.iter().map(|net| net.to_string().into()).collect();
        let of = |state| service.backends.iter().filter(move |backend| backend.state == state);
        Self {
            name: Some(service.name.clone()),
            port: service.port.get(),
            addresses: match &service.listen {
                Listen::Everywhere => BTreeSet::new(),
                Listen::At(addresses) => addresses.clone(),
            },
            active: of(BackendState::Active)
                .map(|b| (socket(b.endpoint), b.weight.get()))
                .collect(),
            draining: of(BackendState::Draining).map(|b| socket(b.endpoint)).collect(),
            settings: ServiceSettings {
                balance: Some(balance_code(service.balance)),
                limit: service.limit.as_ref().map(limit_numbers),
                max_flows: service.max_flows,
                client: (service.client.flows, service.client.handshakes_per_second),
                idle_timeout: service.idle_seconds(),
                retire_reset: service.on_retire == PacketRefusal::Reset,
                empty_reset: Some(service.on_empty == PacketRefusal::Reset),
                preserve: service.source == SourceMode::Preserve,
                source_addresses: service.source_addresses.clone(),
                allow: service.access.allow.as_deref().map(texts),
                deny: texts(&service.access.deny),
            },
        }
    }
}

impl ServiceSummary {
    /// Returns the port and addresses by which services are sorted.
    pub fn listen_key(&self) -> (u16, &BTreeSet<IpAddr>) {
        (self.port, &self.addresses)
    }

    /// Returns whether both services listen on a common address and port.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.addresses, &other.addresses);
        self.port == other.port && (ours.is_empty() || theirs.is_empty() || !ours.is_disjoint(theirs))
    }

    /// Returns all backends, the active ones first.
    pub fn backends(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.active.keys().chain(&self.draining).copied()
    }

    /// Adds what was read of the service at another address.
    pub(super) fn merge(&mut self, other: Self) {
        if self.active.is_empty() {
            self.settings.balance = other.settings.balance;
            self.settings.idle_timeout = other.settings.idle_timeout;
            self.settings.limit = other.settings.limit;
            self.settings.preserve = other.settings.preserve;
        }
        self.settings.empty_reset = self.settings.empty_reset.or(other.settings.empty_reset);
        self.settings.max_flows = self.settings.max_flows.or(other.settings.max_flows);
        let (ours, theirs) = (self.settings.client, other.settings.client);
        self.settings.client = (ours.0.or(theirs.0), ours.1.or(theirs.1));
        self.settings.source_addresses.extend(other.settings.source_addresses);
        self.addresses.extend(other.addresses);
        self.active.extend(other.active);
        let merge = |ours: &mut Vec<Box<str>>, theirs: Vec<Box<str>>| {
            let new: Vec<_> = theirs.into_iter().filter(|text| !ours.contains(text)).collect();
            ours.extend(new);
        };
        if let (Some(ours), Some(theirs)) = (&mut self.settings.allow, other.settings.allow) {
            merge(ours, theirs);
        }
        merge(&mut self.settings.deny, other.settings.deny);
    }

    /// Returns whether the service listens on an address of this family.
    pub fn listens_in(&self, family: Family) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|address| Family::of(*address) == family)
    }

    pub(super) fn active_in(&self, family: Family) -> Option<SocketAddr> {
        let mut backends = self.active.keys();
        backends.find(|backend| Family::of(backend.ip()) == family).copied()
    }

    /// Adds known source addresses of families without backends, which are in no set.
    pub(super) fn learn_sources(&mut self, known: &ServiceSettings) {
        let unseen = |address: &&IpAddr| self.active_in(Family::of(**address)).is_none();
        let learned: Vec<IpAddr> = known.source_addresses.iter().filter(unseen).copied().collect();
        self.settings.source_addresses.extend(learned);
    }

    /// Adds known networks of families in which the service does not listen, which are in no set.
    pub(super) fn learn_networks(&mut self, known: &ServiceSettings) {
        let unseen = Family::BOTH.map(|family| !self.listens_in(family));
        let learn = |ours: &mut Vec<Box<str>>, theirs: &[Box<str>]| {
            let is_unseen = |text: &str| unseen[usize::from(text.contains(':'))];
            ours.extend(theirs.iter().filter(|text| is_unseen(text)).cloned());
            ours.sort_by_key(|text| text.contains(':'));
        };
        if let (Some(ours), Some(theirs)) = (&mut self.settings.allow, &known.allow) {
            learn(ours, theirs);
        }
        learn(&mut self.settings.deny, &known.deny);
    }

    pub(super) fn listens(&self, public: SocketAddr) -> bool {
        self.port == public.port() && (self.addresses.is_empty() || self.addresses.contains(&public.ip()))
    }
}

impl fmt::Display for ServiceSummary {
    /// Writes name, port and addresses, such as `my-app :20003`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name.as_deref().unwrap_or("(unnamed)"))?;
        if self.addresses.is_empty() {
            return write!(f, ":{}", self.port);
        }
        for (at, address) in self.addresses.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}", SocketAddr::new(*address, self.port))?;
        }
        Ok(())
    }
}

/// Settings of a service apart from its backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// Code of the balance, see [`balance_code`]; `None` if it was read from the kernel alone and the service has no
    /// slots.
    #[serde(rename = "b")]
    pub balance: Option<u8>,
    /// Limit: packets per second, burst in packets, MTU in bytes, and whether the directions share a bucket.
    #[serde(rename = "l")]
    pub limit: Option<(u32, u32, u32, bool)>,
    /// Largest number of concurrent flows in each address family.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
    /// Largest number of concurrent flows, and of handshakes per second, of each client.
    #[serde(rename = "c", default)]
    pub client: (Option<u32>, Option<u32>),
    /// Idle timeout in seconds, if the service has its own; the kernel contains it only for a service with slots.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<NonZeroU32>,
    /// Whether late packets are answered with a reset.
    #[serde(rename = "r")]
    pub retire_reset: bool,
    /// Whether SYNs are answered with a reset while there is no backend; the kernel contains it only for a service that
    /// has none in one family or both.
    #[serde(rename = "e")]
    pub empty_reset: Option<bool>,
    /// Whether backends see their clients' addresses.
    #[serde(rename = "v")]
    pub preserve: bool,
    /// Gateway addresses that backends see; empty if they are masqueraded. The kernel contains only those of families
    /// that have backends.
    #[serde(rename = "z", default)]
    pub source_addresses: BTreeSet<IpAddr>,
    /// Networks that may connect; `None`: all.
    #[serde(rename = "y")]
    pub allow: Option<Vec<Box<str>>>,
    /// Networks that may not connect.
    #[serde(rename = "x")]
    pub deny: Vec<Box<str>>,
}

pub(super) fn socket(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port.get())
}

fn limit_numbers(limit: &Limit) -> (u32, u32, u32, bool) {
    (
        limit.pps,
        limit.burst,
        limit.mtu,
        limit.direction == LimitDirection::Shared,
    )
}

/// Returns the code of a balance in the record. 0 was written for `random` while that meant the present `client-hash`.
pub fn balance_code(balance: Balance) -> u8 {
    match balance {
        Balance::ClientHash => 0,
        Balance::SourceHash => 1,
        Balance::RoundRobin => 2,
        Balance::Random => 3,
    }
}

/// Returns the name of a balance in a state file, by its code.
pub fn balance_name(code: Option<u8>) -> &'static str {
    match code {
        Some(0) => "client-hash",
        Some(1) => "source-hash",
        Some(2) => "round-robin",
        Some(3) => "random",
        _ => "unknown",
    }
}
