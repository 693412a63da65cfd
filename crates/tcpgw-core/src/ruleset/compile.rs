//! Compilation of the desired state to a ruleset.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Ruleset;
use super::cap::{Cap, FlowCap};
use super::key::{TCP, address_bytes};
use super::links::Links;
use super::name::{Family, ListenScope, RoundRobinChain, Scope, SetName, SlotChoice, SpreadRule, Width};
use super::rows::{Limits, Rows, endpoint_bytes, port_bytes};
use super::slots::{self, Share};
use super::spec::{LIMITS_LEN, SetSpec};
use super::stmt::SOURCE_SLOTS;
use crate::model::{
    Backend, BackendState, Balance, Endpoint, Limit, LimitDirection, Listen, PacketRefusal, Service, SourceMode, State,
};

/// Returns what the kernel should hold for a state. `links` are the links by which backends may be reached, and on
/// which a client could be on the same link as its backend.
pub fn compile(state: &State, links: &Links) -> Ruleset {
    compile_services(state.services.iter().map(AsRef::as_ref).collect(), links)
}

/// Returns what the kernel should hold for some services.
pub fn compile_services(mut services: Vec<&Service>, links: &Links) -> Ruleset {
    let mut builder = Builder {
        deciding: deciding(&services),
        ..Builder::default()
    };
    // In the order of keys, so that little is left to sort.
    services.sort_by_key(|service| service.port);
    for service in &services {
        builder.service(service);
    }
    let preserves = services.iter().any(|service| service.source == SourceMode::Preserve);
    builder.links(links, preserves);
    builder.finish()
}

/// Returns, for each endpoint in several services, the name of the service whose limit and source mode apply. The
/// services agree (see [`crate::model::State::new`]) except while an endpoint moves from one to another: then a service
/// in which it is active decides, and of several the one with the highest limit, so that no client gets less than it
/// was promised.
fn deciding<'s>(services: &[&'s Service]) -> BTreeMap<Endpoint, &'s str> {
    let backends = services.iter().flat_map(|service| {
        let drains = |backend: &Backend| backend.state == BackendState::Draining;
        let backends = service.backends.iter();
        let pps = service.limit.as_ref().map_or(u32::MAX, |limit| limit.pps);
        backends.map(move |backend| (backend.endpoint, drains(backend), Reverse(pps), &*service.name))
    });
    let mut all: Vec<(Endpoint, bool, Reverse<u32>, &str)> = backends.collect();
    all.sort_unstable();
    let shared = all.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1);
    shared
        .filter_map(|same| same.first())
        .map(|(endpoint, .., name)| (*endpoint, *name))
        .collect()
}

impl Ruleset {
    /// Returns the part that depends on the links. `preserves`: whether some service preserves its clients' addresses.
    pub fn of_links(links: &Links, preserves: bool) -> Self {
        let mut builder = Builder::default();
        builder.links(links, preserves);
        builder.finish()
    }
}

/// Returns the limits of an element for a limit of a service.
pub fn limits(limit: &Limit) -> Limits {
    Limits {
        packet_rate: limit.pps.into(),
        packet_burst: limit.burst,
        byte_rate: limit.bytes_per_second(),
        byte_burst: limit.byte_burst(),
    }
}

/// The buckets of a limit in the form of rows.
struct Buckets {
    all: [u8; LIMITS_LEN],
    handshakes: [u8; LIMITS_LEN],
    direction: LimitDirection,
}

impl Buckets {
    fn of(limit: &Limit) -> Self {
        Self {
            all: limits(limit).to_bytes(),
            handshakes: limits(&limit.handshakes()).to_bytes(),
            direction: limit.direction,
        }
    }
}

#[derive(Default)]
struct Builder<'s> {
    /// Result of [`deciding`].
    deciding: BTreeMap<Endpoint, &'s str>,
    sets: BTreeMap<SetName, Rows>,
    round_robin_services: BTreeMap<(ListenScope, Box<[u8]>), RoundRobinChain>,
}

/// A public address of a service in the form of keys.
struct ListenKeyBytes {
    scope: Scope,
    listening: Vec<u8>,
    service: Vec<u8>,
}

impl ListenKeyBytes {
    fn all(service: &Service) -> Vec<Self> {
        let port = port_bytes(service.port);
        let at = |address: &IpAddr| {
            let listening = [address_bytes(*address).as_slice(), &port].concat();
            Self {
                scope: Scope::At(Family::of(*address)),
                service: listening.clone(),
                listening,
            }
        };
        match &service.listen {
            Listen::Everywhere => {
                vec![Self {
                    scope: Scope::Any,
                    listening: port.to_vec(),
                    service: [TCP, port].concat(),
                }]
            }
            Listen::At(addresses) => addresses.iter().map(at).collect(),
        }
    }
}

impl Builder<'_> {
    fn links(&mut self, links: &Links, preserves: bool) {
        for link in links.names().filter(|_| preserves) {
            let name = interface_bytes(link);
            self.push(SetName::SameLink, &[&name, &name]);
        }
        for family in Family::BOTH {
            for (link, source) in links.sources(family) {
                self.push(
                    SetName::LinkSources(family),
                    &[&interface_bytes(link), &address_bytes(source)],
                );
            }
        }
    }

    fn push(&mut self, name: SetName, parts: &[&[u8]]) {
        self.sets
            .entry(name)
            .or_insert_with(|| Rows::new(&SetSpec::of(name)))
            .push(parts);
    }

    fn finish(mut self) -> Ruleset {
        for rows in self.sets.values_mut() {
            rows.sort();
        }
        Ruleset::new(self.sets, self.round_robin_services)
    }

    fn service(&mut self, service: &Service) {
        for listen_key in ListenKeyBytes::all(service) {
            self.listen_key(service, &listen_key);
        }
        let buckets = service.limit.as_ref().map(Buckets::of);
        for backend in &service.backends {
            let decides = self
                .deciding
                .get(&backend.endpoint)
                .is_none_or(|name| *name == &*service.name);
            if decides {
                self.backend(service, backend, buckets.as_ref());
            }
        }
    }

    fn listen_key(&mut self, service: &Service, listen_key: &ListenKeyBytes) {
        let scope = listen_key.scope;
        let restricted = service.access.allow.is_some() || !service.access.deny.is_empty();
        for (wanted, set) in [
            (true, SetName::Services(scope)),
            (restricted, SetName::Restricted(scope)),
            (service.access.allow.is_some(), SetName::AllowOnly(scope)),
            (service.on_retire == PacketRefusal::Reset, SetName::RetireReset(scope)),
        ] {
            if wanted {
                self.push(set, &[&listen_key.service]);
            }
        }
        for listen_scope in scope.reaches() {
            self.access(
                listen_key,
                listen_scope,
                SetName::Allowed(listen_scope),
                service.access.allow.as_deref().unwrap_or_default(),
            );
            self.access(
                listen_key,
                listen_scope,
                SetName::Denied(listen_scope),
                &service.access.deny,
            );
            self.caps(service, listen_key, listen_scope);
            self.slots(service, listen_key, listen_scope);
        }
    }

    fn caps(&mut self, service: &Service, listen_key: &ListenKeyBytes, listen_scope: ListenScope) {
        let address = match &service.listen {
            Listen::Everywhere => None,
            Listen::At(addresses) => addresses.first().copied(),
        };
        let flows = service.max_flows.map(|flows| FlowCap {
            flows,
            port: service.port.get(),
            address,
        });
        let caps = [
            service.client.handshakes_per_second.map(Cap::ClientHandshakes),
            service.client.flows.map(Cap::ClientFlows),
            flows.map(Cap::Flows),
        ];
        for cap in caps.into_iter().flatten() {
            self.push(
                SetName::Spread(listen_scope, SpreadRule::Cap(cap)),
                &[&listen_key.service],
            );
        }
    }

    fn access(&mut self, listen_key: &ListenKeyBytes, listen_scope: ListenScope, set: SetName, networks: &[IpNet]) {
        let key = &listen_key.listening;
        for network in networks {
            match (listen_scope.family(), network) {
                (Family::V4, IpNet::V4(net)) => {
                    self.push(set, &[key, &net.network().octets(), key, &net.broadcast().octets()]);
                }
                (Family::V6, IpNet::V6(net)) => {
                    self.push(set, &[key, &net.network().octets(), key, &net.broadcast().octets()]);
                }
                _ => {}
            }
        }
    }

    fn slots(&mut self, service: &Service, listen_key: &ListenKeyBytes, listen_scope: ListenScope) {
        let active = |backend: &&Backend| {
            backend.state == BackendState::Active && Family::of(backend.endpoint.address) == listen_scope.family()
        };
        let shares: Vec<Share> = service
            .backends
            .iter()
            .filter(active)
            .map(|b| (b.endpoint, b.weight))
            .collect();
        if shares.is_empty() {
            if service.on_empty == PacketRefusal::Reset {
                self.push(SetName::EmptyReset(listen_scope), &[&listen_key.service]);
            }
            return;
        }
        let slots = match service.balance {
            Balance::ClientHash | Balance::Random => slots::spread(&shares),
            Balance::SourceHash => slots::source_hash(&shares),
            Balance::RoundRobin => slots::round_robin(&shares),
        };
        let width = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        if let Some(rule) = spread_rule(service, width) {
            self.push(SetName::Spread(listen_scope, rule), &[&listen_key.service]);
        }
        match service.balance {
            Balance::ClientHash | Balance::Random => {}
            Balance::SourceHash => self.push(SetName::Hashed(listen_scope), &[&listen_key.service]),
            Balance::RoundRobin => {
                let chain = RoundRobinChain {
                    listen_scope,
                    width,
                    service: service.name.clone(),
                };
                self.round_robin_services
                    .insert((listen_scope, listen_key.service.clone().into()), chain);
            }
        }
        for (number, endpoint) in (0_u32..).zip(&slots) {
            let (bytes, len) = endpoint_bytes(*endpoint);
            // numgen and jhash store their number in the machine's byte order.
            self.push(
                SetName::Slots(listen_scope),
                &[&listen_key.listening, &number.to_ne_bytes(), &bytes[..len]],
            );
        }
    }

    /// Adds an address for every slot, so that any number of addresses can be used.
    fn sources(&mut self, service: &Service, family: Family, backend: &[u8]) {
        let addresses = service.source_addresses.iter();
        let own: Vec<&IpAddr> = addresses.filter(|address| Family::of(**address) == family).collect();
        for (slot, address) in (0..u32::from(SOURCE_SLOTS)).zip(own.into_iter().cycle()) {
            let data = address_bytes(*address);
            self.push(SetName::Sources(family), &[backend, &slot.to_ne_bytes(), &data]);
        }
    }

    fn backend(&mut self, service: &Service, backend: &Backend, buckets: Option<&Buckets>) {
        let family = Family::of(backend.endpoint.address);
        let (bytes, len) = endpoint_bytes(backend.endpoint);
        let key = &bytes[..len];
        match service.source {
            SourceMode::Preserve => self.push(SetName::Preserved(family), &[key]),
            SourceMode::Masquerade => self.sources(service, family, key),
        }
        let Some(buckets) = buckets else {
            self.push(SetName::Unlimited(family), &[key]);
            return;
        };
        self.push(SetName::Limited(family), &[key]);
        let (all, handshakes): (&[SetName], &[SetName]) = match buckets.direction {
            LimitDirection::Each => (
                &[SetName::LimitTo(family), SetName::LimitFrom(family)],
                &[SetName::HandshakesTo(family), SetName::HandshakesFrom(family)],
            ),
            LimitDirection::Shared => (&[SetName::LimitBoth(family)], &[SetName::HandshakesBoth(family)]),
        };
        for set in all {
            self.push(*set, &[key, &buckets.all]);
        }
        for set in handshakes {
            self.push(*set, &[key, &buckets.handshakes]);
        }
    }
}

/// Returns the rule of the `spread` chain for a service with this number of slots, if it needs one.
fn spread_rule(service: &Service, slots: u16) -> Option<SpreadRule> {
    let idle = service.idle_seconds();
    let by = |choice| SpreadRule::Slots(Width { choice, slots, idle });
    match service.balance {
        Balance::ClientHash => Some(by(SlotChoice::ClientHash)),
        Balance::Random => Some(by(SlotChoice::Random)),
        Balance::SourceHash | Balance::RoundRobin => idle.map(SpreadRule::Idle),
    }
}

/// Returns the name of an interface as a key field.
pub fn interface_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse_service;

    fn service(name: &str, port: u16, pps: Option<u32>, state: &str) -> Service {
        let limit = pps.map_or(String::new(), |pps| format!(r#""limit": {{"pps": {pps}}}, "#));
        let backend = format!(r#"{{"address": "10.2.0.11", "port": 3000, "state": "{state}"}}"#);
        let text = format!(r#"{{"name": "{name}", "port": {port}, {limit}"backends": [{backend}]}}"#);
        parse_service(text.as_bytes()).unwrap()
    }

    /// Moves an endpoint from one service to another one with another limit.
    #[test]
    fn where_an_endpoint_moves_no_client_gets_less_than_it_was_promised() {
        let links: Links = ["eth0".to_owned()].into();
        let limits = |services: &[&Service]| {
            let ruleset = compile_services(services.to_vec(), &links);
            [SetName::LimitTo(Family::V4), SetName::Unlimited(Family::V4)].map(|name| ruleset.rows(name).cloned())
        };
        for (one, other) in [("a", "b"), ("b", "a")] {
            let low = service(one, 2001, Some(100), "active");
            let high = service(other, 2002, Some(500), "active");
            let unlimited = service(other, 2002, None, "active");
            let leaving = service(other, 2002, Some(500), "draining");
            assert_eq!(limits(&[&low, &high]), limits(&[&high]));
            assert_eq!(limits(&[&low, &unlimited]), limits(&[&unlimited]));
            assert_eq!(
                limits(&[&low, &leaving]),
                limits(&[&low]),
                "one in which it is active decides"
            );
        }
    }
}
