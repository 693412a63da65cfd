//! What a state or a ruleset comes to, service by service: small enough to keep beside the kernel, and all that words,
//! flows and counts of changes need.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::model::{
    BackendState, Balance, Endpoint, Limit, LimitDirection, Listen, Refusal, Service, SourceMode, State,
};
use crate::plan::has_slots;
use crate::ruleset::Ruleset;
use crate::ruleset::cap::Cap;
use crate::ruleset::name::{Family, ListenScope, Scope, SetName, SlotChoice, SpreadRule};
use crate::ruleset::rows::{Limits, Rows, read_address, read_endpoint, read_port};
use crate::ruleset::spec::SetSpec;
use crate::ruleset::stmt::SOURCE_SLOTS;

/// All services, sorted by port and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// By where they listen.
    pub services: Vec<ServiceSummary>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Its name; not known where only the kernel was asked.
    #[serde(rename = "n")]
    pub name: Option<Box<str>>,
    /// Its public port.
    #[serde(rename = "p")]
    pub port: u16,
    /// Where it listens; empty for every local address.
    #[serde(rename = "a")]
    pub addresses: BTreeSet<IpAddr>,
    /// Backends that get new connections, with their weights.
    #[serde(rename = "b")]
    pub active: BTreeMap<SocketAddr, u16>,
    /// Backends that get none.
    #[serde(rename = "d")]
    pub draining: BTreeSet<SocketAddr>,
    /// Everything else.
    #[serde(rename = "s")]
    pub settings: Settings,
}

/// What a service does besides having backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How new connections are spread; not known of a service without slots when only the kernel was asked.
    #[serde(rename = "b")]
    pub balance: Option<u8>,
    /// Packets/s, burst, MTU, and whether the directions share a bucket.
    #[serde(rename = "l")]
    pub limit: Option<(u32, u32, u32, bool)>,
    /// Flows that it may have at once, of each address family.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
    /// Flows at once and handshakes per second of each client.
    #[serde(rename = "c", default)]
    pub client: (Option<u32>, Option<u32>),
    /// Seconds that a silent flow lives, if they are its own; the kernel tells it only of a service with slots.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<NonZeroU32>,
    /// Late packets get a reset.
    #[serde(rename = "r")]
    pub retire_reset: bool,
    /// SYNs get a reset while there is no backend; the kernel tells it only of a service without one, in some family.
    #[serde(rename = "e")]
    pub empty_reset: Option<bool>,
    /// Backends see their clients.
    #[serde(rename = "v")]
    pub preserve: bool,
    /// The gateway's addresses that backends see; empty where they are masqueraded. The kernel tells only those of families
    /// that have backends.
    #[serde(rename = "z", default)]
    pub source_addresses: BTreeSet<IpAddr>,
    /// Networks that may connect.
    #[serde(rename = "y")]
    pub allow: Option<Vec<Box<str>>>,
    /// Networks that may not.
    #[serde(rename = "x")]
    pub deny: Vec<Box<str>>,
}

/// What a flow is to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowVerdict {
    /// Its backend is active.
    Active,
    /// Its backend is draining.
    Draining,
    /// Its service has no such backend: it is to be flushed.
    Stale,
}

fn socket(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port.get())
}

/// The number that stands for a balance in the record. 0 was written for `random` while that meant what is `client-hash` now.
pub fn balance_code(balance: Balance) -> u8 {
    match balance {
        Balance::ClientHash => 0,
        Balance::SourceHash => 1,
        Balance::RoundRobin => 2,
        Balance::Random => 3,
    }
}

/// The word that stands for a balance in a state file.
pub fn balance_name(code: Option<u8>) -> &'static str {
    match code {
        Some(0) => "client-hash",
        Some(1) => "source-hash",
        Some(2) => "round-robin",
        Some(3) => "random",
        _ => "unknown",
    }
}

impl From<&State> for Summary {
    fn from(state: &State) -> Self {
        state.services.iter().map(AsRef::as_ref).collect()
    }
}

impl<'a> FromIterator<&'a Service> for Summary {
    fn from_iter<I: IntoIterator<Item = &'a Service>>(services: I) -> Self {
        let mut services: Vec<_> = services.into_iter().map(ServiceSummary::from).collect();
        services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
        Self { services }
    }
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
            settings: Settings {
                balance: Some(balance_code(service.balance)),
                limit: service.limit.as_ref().map(limit_numbers),
                max_flows: service.max_flows,
                client: (service.client.flows, service.client.handshakes_per_second),
                idle_timeout: service.idle_seconds(),
                retire_reset: service.on_retire == Refusal::Reset,
                empty_reset: Some(service.on_empty == Refusal::Reset),
                preserve: service.source == SourceMode::Preserve,
                source_addresses: service.source_addresses.clone(),
                allow: service.access.allow.as_deref().map(texts),
                deny: texts(&service.access.deny),
            },
        }
    }
}

fn limit_numbers(limit: &Limit) -> (u32, u32, u32, bool) {
    (
        limit.pps,
        limit.burst,
        limit.mtu,
        limit.direction == LimitDirection::Shared,
    )
}

impl ServiceSummary {
    /// Where it listens, as it sorts.
    pub fn listen_key(&self) -> (u16, &BTreeSet<IpAddr>) {
        (self.port, &self.addresses)
    }

    /// Whether both listen on one address at least.
    fn meets(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.addresses, &other.addresses);
        self.port == other.port && (ours.is_empty() || theirs.is_empty() || !ours.is_disjoint(theirs))
    }

    /// All its backends.
    pub fn backends(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.active.keys().chain(&self.draining).copied()
    }

    /// Takes in what was found of it at another address.
    fn merge(&mut self, other: Self) {
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

    /// Whether it listens on an address of that family.
    pub fn listens_in(&self, family: Family) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|address| Family::of(*address) == family)
    }

    fn active_in(&self, family: Family) -> Option<SocketAddr> {
        let mut backends = self.active.keys();
        backends.find(|backend| Family::of(backend.ip()) == family).copied()
    }

    /// Source addresses of a family that has no backends are in no set.
    fn learn_sources(&mut self, known: &Settings) {
        let unseen = |address: &&IpAddr| self.active_in(Family::of(**address)).is_none();
        let learned: Vec<IpAddr> = known.source_addresses.iter().filter(unseen).copied().collect();
        self.settings.source_addresses.extend(learned);
    }

    /// Networks of clients of a family that it does not listen in are in no set.
    fn learn_networks(&mut self, known: &Settings) {
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

    fn listens(&self, public: SocketAddr) -> bool {
        self.port == public.port() && (self.addresses.is_empty() || self.addresses.contains(&public.ip()))
    }
}

impl fmt::Display for ServiceSummary {
    /// `my-app :20003`, as words for people begin.
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

impl Summary {
    /// What a flow from `public` to `backend` is.
    pub fn standing(&self, public: SocketAddr, backend: SocketAddr) -> FlowVerdict {
        match self.service_at(public) {
            Some(service) if service.active.contains_key(&backend) => FlowVerdict::Active,
            Some(service) if service.draining.contains(&backend) => FlowVerdict::Draining,
            _ => FlowVerdict::Stale,
        }
    }

    /// Whether there is a service where this one listens.
    pub fn has_listen_key(&self, service: &Service) -> bool {
        let nowhere = BTreeSet::new();
        let addresses = match &service.listen {
            Listen::Everywhere => &nowhere,
            Listen::At(addresses) => addresses,
        };
        let listen_key = (service.port.get(), addresses);
        self.services
            .binary_search_by(|known| known.listen_key().cmp(&listen_key))
            .is_ok()
    }

    /// The service that a backend belongs to.
    pub fn service_of(&self, backend: SocketAddr) -> Option<&ServiceSummary> {
        self.services
            .iter()
            .find(|service| service.backends().any(|of| of == backend))
    }

    /// The service that listens there.
    pub fn service_at(&self, public: SocketAddr) -> Option<&ServiceSummary> {
        self.position_at(public).map(|at| &self.services[at])
    }

    /// Which one that is.
    pub fn position_at(&self, public: SocketAddr) -> Option<usize> {
        let from = self.services.partition_point(|service| service.port < public.port());
        self.services[from..]
            .iter()
            .take_while(|service| service.port == public.port())
            .position(|s| s.listens(public))
            .map(|at| from + at)
    }

    /// Takes along what another one knows of services that this one does not: neither their names, nor who is where they
    /// listen.
    pub fn complete_from(&mut self, other: &Self) {
        let names: BTreeSet<Option<&str>> = self.services.iter().map(|service| service.name.as_deref()).collect();
        let is_new = |service: &&ServiceSummary| {
            let from = self.services.partition_point(|known| known.port < service.port);
            let mut there = self.services[from..]
                .iter()
                .take_while(|known| known.port == service.port);
            !names.contains(&service.name.as_deref()) && !there.any(|known| known.meets(service))
        };
        let new: Vec<ServiceSummary> = other.services.iter().filter(is_new).cloned().collect();
        self.services.extend(new);
        self.services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
    }

    /// Takes along the services of another one that listen where none of this one does, whatever their names are.
    pub fn complete_by_listen_keys(&mut self, other: &Self) {
        let is_new = |service: &&ServiceSummary| {
            let from = self.services.partition_point(|known| known.port < service.port);
            let there = self.services[from..].iter();
            let mut there = there.take_while(|known| known.port == service.port);
            !there.any(|known| known.meets(service))
        };
        let new: Vec<ServiceSummary> = other.services.iter().filter(is_new).cloned().collect();
        self.services.extend(new);
        self.services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
    }

    /// Takes their names from services that listen where one of `left` did, if another service has the same name.
    pub fn name_once(&mut self, left: &Self) {
        let of_left = |service: &ServiceSummary| left.has_listen_key_of(service);
        let names = self.services.iter().filter(|service| !of_left(service));
        let names: BTreeSet<Box<str>> = names.filter_map(|service| service.name.clone()).collect();
        for service in self.services.iter_mut().filter(|service| of_left(service)) {
            service.name.take_if(|name| names.contains(name));
        }
    }

    fn has_listen_key_of(&self, service: &ServiceSummary) -> bool {
        let listen_key = service.listen_key();
        self.services
            .binary_search_by(|known| known.listen_key().cmp(&listen_key))
            .is_ok()
    }

    /// What can be known of the services from the kernel: no names, and no draining backends, since nothing there ties
    /// them to a service. Those, and which listen keys are one service, are taken from `guide`, the best other knowledge.
    pub fn of_kernel(ruleset: &Ruleset, guide: &Self) -> Self {
        let mut listen_keys: ListenKeys = BTreeMap::new();
        for scope in Scope::ALL {
            for row in ruleset.rows(SetName::Services(scope)).into_iter().flat_map(Rows::iter) {
                if let Some(listen_key) = read_listen_key(scope, row) {
                    listen_keys.insert(listen_key, bare_service(ruleset, scope, row, listen_key));
                }
            }
        }
        for listen_scope in ListenScope::ALL {
            read_slots(ruleset, listen_scope, &mut listen_keys);
            read_access(ruleset, listen_scope, &mut listen_keys);
            read_caps(ruleset, listen_scope, &mut listen_keys);
        }
        for service in listen_keys.values_mut() {
            if let Some(backend) = service.active.keys().next().copied() {
                read_backend(ruleset, backend, &mut service.settings);
            }
            for family in Family::BOTH {
                if let Some(backend) = service.active_in(family) {
                    read_sources(ruleset, backend, &mut service.settings);
                }
            }
        }
        let mut summary = Self { services: Vec::new() };
        let mut at: BTreeMap<(u16, BTreeSet<IpAddr>), usize> = BTreeMap::new();
        for ((port, address), service) in listen_keys {
            let known = address.and_then(|address| guide.service_at(SocketAddr::new(address, port)));
            let key = (
                port,
                known.map_or_else(|| service.addresses.clone(), |known| known.addresses.clone()),
            );
            if let Some(at) = at.get(&key) {
                summary.services[*at].merge(service);
            } else {
                at.insert(key, summary.services.len());
                summary.services.push(service);
            }
        }
        summary.learn_from(guide, ruleset);
        summary.services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
        summary
    }

    fn learn_from(&mut self, guide: &Self, ruleset: &Ruleset) {
        let active: BTreeSet<SocketAddr> = self.services.iter().flat_map(|s| s.active.keys().copied()).collect();
        for service in &mut self.services {
            let Ok(at) = guide
                .services
                .binary_search_by(|known| known.listen_key().cmp(&service.listen_key()))
            else {
                continue;
            };
            let known = &guide.services[at];
            service.name.clone_from(&known.name);
            service.settings.empty_reset = service.settings.empty_reset.or(known.settings.empty_reset);
            if service.active.is_empty() {
                service.settings.balance = known.settings.balance;
                service.settings.idle_timeout = known.settings.idle_timeout;
                service.settings.limit = known.settings.limit;
                service.settings.preserve = known.settings.preserve;
            }
            service.learn_networks(&known.settings);
            service.learn_sources(&known.settings);
            for backend in known.backends() {
                // One that is active in another service may drain here, but only a record can tell.
                let has_slots = service.listens_in(Family::of(backend.ip())) && !known.draining.contains(&backend);
                if has_slots && active.contains(&backend) || service.active.contains_key(&backend) {
                    continue;
                }
                // One that no listen key leads to has no slots, active or not.
                let weight = known
                    .active
                    .get(&backend)
                    .filter(|_| !service.listens_in(Family::of(backend.ip())));
                match weight {
                    _ if !is_limited(ruleset, backend) => {}
                    Some(weight) => drop(service.active.insert(backend, *weight)),
                    None => drop(service.draining.insert(backend)),
                }
            }
            if service.active.keys().eq(known.active.keys()) {
                service.active.clone_from(&known.active);
            }
        }
    }
}

/// Whether the kernel knows a backend, limited or not.
fn is_limited(ruleset: &Ruleset, backend: SocketAddr) -> bool {
    let family = Family::of(backend.ip());
    backend_key(backend).is_some_and(|key| {
        [SetName::Limited(family), SetName::Unlimited(family)]
            .iter()
            .any(|set| ruleset.rows(*set).is_some_and(|rows| rows.contains(&key)))
    })
}

fn backend_key(backend: SocketAddr) -> Option<Vec<u8>> {
    let port = std::num::NonZeroU16::new(backend.port())?;
    let (bytes, len) = crate::ruleset::rows::endpoint_bytes(Endpoint {
        address: backend.ip(),
        port,
    });
    Some(bytes[..len].to_vec())
}

/// What was read so far, by port and address.
type ListenKeys = BTreeMap<(u16, Option<IpAddr>), ServiceSummary>;

fn read_listen_key(scope: Scope, key: &[u8]) -> Option<(u16, Option<IpAddr>)> {
    match scope {
        Scope::Any => Some((read_port(key.get(4..)?)?.get(), None)),
        Scope::At(family) => {
            let port = read_port(key.get(family.address_len()..)?)?.get();
            Some((port, Some(read_address(family, key)?)))
        }
    }
}

fn bare_service(ruleset: &Ruleset, scope: Scope, key: &[u8], (port, address): (u16, Option<IpAddr>)) -> ServiceSummary {
    let is_in = |set| ruleset.rows(set).is_some_and(|rows| rows.contains(key));
    let without_slots = || {
        let reaches = scope.reaches().into_iter();
        reaches.filter(|listen_scope| !has_slots(ruleset, *listen_scope, key))
    };
    let resets = without_slots().any(|listen_scope| is_in(SetName::EmptyReset(listen_scope)));
    let empty_reset = without_slots().next().map(|_| resets);
    ServiceSummary {
        name: None,
        port,
        addresses: address.into_iter().collect(),
        active: BTreeMap::new(),
        draining: BTreeSet::new(),
        settings: Settings {
            balance: None,
            limit: None,
            max_flows: None,
            client: (None, None),
            idle_timeout: None,
            retire_reset: is_in(SetName::RetireReset(scope)),
            empty_reset,
            preserve: false,
            source_addresses: BTreeSet::new(),
            allow: is_in(SetName::AllowOnly(scope)).then(Vec::new),
            deny: Vec::new(),
        },
    }
}

fn listening_key(listen_scope: ListenScope, key: &[u8]) -> Option<(u16, Option<IpAddr>)> {
    match listen_scope {
        ListenScope::Any(_) => Some((read_port(key)?.get(), None)),
        ListenScope::At(family) => read_listen_key(Scope::At(family), key),
    }
}

fn read_slots(ruleset: &Ruleset, listen_scope: ListenScope, services: &mut ListenKeys) {
    let name = SetName::Slots(listen_scope);
    let (Some(rows), key_len) = (ruleset.rows(name), SetSpec::of(name).key_len()) else {
        return;
    };
    for row in rows {
        let (key, data) = row.split_at(key_len);
        let service = listening_key(listen_scope, key).and_then(|listen_key| services.get_mut(&listen_key));
        if let (Some(service), Some(endpoint)) = (service, read_endpoint(listen_scope.family(), data)) {
            *service.active.entry(socket(endpoint)).or_default() += 1;
        }
    }
    let mut spread = |set: SetName, balance: Option<Balance>, idle: Option<NonZeroU32>| {
        for row in ruleset.rows(set).into_iter().flat_map(|rows| rows.iter()) {
            let service =
                read_listen_key(listen_scope.scope(), row).and_then(|listen_key| services.get_mut(&listen_key));
            if let Some(service) = service {
                let settings = &mut service.settings;
                settings.balance = balance.map(balance_code).or(settings.balance);
                settings.idle_timeout = idle.or(settings.idle_timeout);
            }
        }
    };
    for rule in ruleset.widths(listen_scope) {
        let balance = match rule {
            SpreadRule::Cap(_) => continue,
            SpreadRule::Idle(_) => None,
            SpreadRule::Slots(width) => Some(match width.choice {
                SlotChoice::ClientHash => Balance::ClientHash,
                SlotChoice::Random => Balance::Random,
            }),
        };
        spread(SetName::Spread(listen_scope, rule), balance, rule.idle());
    }
    spread(SetName::Hashed(listen_scope), Some(Balance::SourceHash), None);
    for ((of, key), chain) in ruleset.turns() {
        let service = read_listen_key(listen_scope.scope(), key).and_then(|listen_key| services.get_mut(&listen_key));
        if let (true, Some(service)) = (*of == listen_scope, service) {
            service.settings.balance = Some(balance_code(Balance::RoundRobin));
            // Its chain is the one place in the kernel that has a name.
            service.name = Some(chain.service.clone());
        }
    }
}

fn read_caps(ruleset: &Ruleset, listen_scope: ListenScope, services: &mut ListenKeys) {
    for rule in ruleset.widths(listen_scope) {
        let SpreadRule::Cap(cap) = rule else { continue };
        for row in ruleset.rows(SetName::Spread(listen_scope, rule)).into_iter().flatten() {
            let Some(service) =
                read_listen_key(listen_scope.scope(), row).and_then(|listen_key| services.get_mut(&listen_key))
            else {
                continue;
            };
            match cap {
                Cap::ClientFlows(flows) => service.settings.client.0 = Some(flows),
                Cap::ClientHandshakes(rate) => service.settings.client.1 = Some(rate),
                Cap::Flows(cap) => service.settings.max_flows = Some(cap.flows),
            }
        }
    }
}

fn read_access(ruleset: &Ruleset, listen_scope: ListenScope, services: &mut ListenKeys) {
    for (set, allowed) in [
        (SetName::Allowed(listen_scope), true),
        (SetName::Denied(listen_scope), false),
    ] {
        for row in ruleset.rows(set).into_iter().flat_map(|rows| rows.iter()) {
            let text = crate::ruleset::text::network(set, row);
            let service = listening_key(listen_scope, row).and_then(|listen_key| services.get_mut(&listen_key));
            if let (Some(service), Some(text)) = (service, text) {
                match (allowed, &mut service.settings.allow) {
                    (true, Some(allow)) => allow.push(text.into()),
                    (true, None) => {}
                    (false, _) => service.settings.deny.push(text.into()),
                }
            }
        }
    }
}

fn read_sources(ruleset: &Ruleset, backend: SocketAddr, settings: &mut Settings) {
    let family = Family::of(backend.ip());
    let (Some(rows), Some(key)) = (ruleset.rows(SetName::Sources(family)), backend_key(backend)) else {
        return;
    };
    for slot in 0..u32::from(SOURCE_SLOTS) {
        let identity = [key.as_slice(), &slot.to_ne_bytes()].concat();
        let data = rows.find(&identity).and_then(|row| row.get(identity.len()..));
        settings
            .source_addresses
            .extend(data.and_then(|data| read_address(family, data)));
    }
}

fn read_backend(ruleset: &Ruleset, backend: SocketAddr, settings: &mut Settings) {
    let (family, Some(key)) = (Family::of(backend.ip()), backend_key(backend)) else {
        return;
    };
    settings.preserve = ruleset
        .rows(SetName::Preserved(family))
        .is_some_and(|rows| rows.contains(&key));
    for (set, shared) in [(SetName::LimitTo(family), false), (SetName::LimitBoth(family), true)] {
        let row = ruleset
            .rows(set)
            .and_then(|rows| rows.find(&key))
            .and_then(|row| row[key.len()..].try_into().ok());
        if let Some(limits) = row.map(Limits::from_bytes) {
            let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let mtu = limits.byte_rate / limits.packet_rate.max(1);
            settings.limit = Some((number(limits.packet_rate), limits.packet_burst, number(mtu), shared));
        }
    }
}
