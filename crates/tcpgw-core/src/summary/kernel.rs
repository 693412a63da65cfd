//! Reading of the services' summary from the sets of the table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use super::Summary;
use crate::model::{Balance, Endpoint};
use crate::plan::has_slots;
use crate::ruleset::Ruleset;
use crate::ruleset::cap::Cap;
use crate::ruleset::name::{Family, ListenScope, Scope, SetName, SlotChoice, SpreadRule};
use crate::ruleset::rows::{Limits, Rows, read_address, read_endpoint, read_port};
use crate::ruleset::spec::SetSpec;
use crate::ruleset::stmt::SOURCE_SLOTS;
use crate::summary::service::{ServiceSettings, ServiceSummary, balance_code, socket};

impl Summary {
    /// Returns what the kernel tells about the services. Names, draining backends, and which listen keys belong to one
    /// service are not in the kernel: they are taken from `guide`, another summary that knows them.
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
                // A backend that is active in another service may drain here, but only a record tells that.
                let has_slots = service.listens_in(Family::of(backend.ip())) && !known.draining.contains(&backend);
                if has_slots && active.contains(&backend) || service.active.contains_key(&backend) {
                    continue;
                }
                // A backend that no listen key leads to has no slots, active or not.
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

/// Returns whether the kernel has a backend in a set of limited or unlimited ones.
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

/// Services read so far, by port and address.
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
        settings: ServiceSettings {
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
    for ((of, key), chain) in ruleset.round_robin_services() {
        let service = read_listen_key(listen_scope.scope(), key).and_then(|listen_key| services.get_mut(&listen_key));
        if let (true, Some(service)) = (*of == listen_scope, service) {
            service.settings.balance = Some(balance_code(Balance::RoundRobin));
            // Only its chain has a name in the kernel.
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

fn read_sources(ruleset: &Ruleset, backend: SocketAddr, settings: &mut ServiceSettings) {
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

fn read_backend(ruleset: &Ruleset, backend: SocketAddr, settings: &mut ServiceSettings) {
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
