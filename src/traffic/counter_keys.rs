//! Keys of the kernel's counters that belong to one service.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use super::drop_sets::{sets_of_backends, sets_of_services};
use super::names::NamedService;
use tcpgw_core::model::Endpoint;
use tcpgw_core::ruleset::key::TCP;
use tcpgw_core::ruleset::name::{Family, ListenScope, Scope, SetName};
use tcpgw_core::ruleset::rows::{endpoint_bytes, port_bytes};

/// Returns the sets and keys that count connections and drops of a service. `had`: backends that it has lost.
pub fn counter_keys(service: &NamedService, had: impl Iterator<Item = SocketAddr>) -> Vec<(SetName, Box<[u8]>)> {
    let Some(port) = NonZeroU16::new(service.port) else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    let at: Vec<Endpoint> = service
        .addresses
        .iter()
        .map(|address| Endpoint {
            address: *address,
            port,
        })
        .collect();
    let any = [TCP, port_bytes(port)].concat();
    if at.is_empty() {
        keys.extend(sets_of_services(Scope::Any).map(|set| (set, any.as_slice().into())));
    }
    for place in &at {
        let scope = Scope::At(Family::of(place.address));
        let (key, len) = endpoint_bytes(*place);
        keys.extend(sets_of_services(scope).map(|set| (set, key[..len].into())));
    }
    let backends: BTreeSet<SocketAddr> = service.backends.iter().copied().chain(had).collect();
    for backend in backends
        .into_iter()
        .filter_map(|backend| Endpoint::try_from(backend).ok())
    {
        let family = Family::of(backend.address);
        let (key, len) = endpoint_bytes(backend);
        let backend = &key[..len];
        keys.extend(sets_of_backends(family).map(|set| (set, backend.into())));
        if at.is_empty() {
            let set = SetName::Connections(ListenScope::Any(family));
            keys.push((set, [&port_bytes(port), backend].concat().into()));
        }
        for place in at.iter().filter(|place| Family::of(place.address) == family) {
            let (key, len) = endpoint_bytes(*place);
            let set = SetName::Connections(ListenScope::At(family));
            keys.push((set, [&key[..len], backend].concat().into()));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::traffic::{LastCounts, Ledger, NamesChange};
    use tcpgw_kernel::Counted;

    #[test]
    fn the_keys_are_all_that_count_for_a_service() {
        let (four, six, lost) = ("10.2.0.1:3000", "[fd00::1]:3000", "10.2.0.9:3000");
        for addresses in [
            &[][..],
            &["203.0.113.1"],
            &["203.0.113.1", "203.0.113.2", "2001:db8::1"],
        ] {
            let addresses: BTreeSet<IpAddr> = addresses.iter().map(|of| of.parse().unwrap()).collect();
            let service = NamedService {
                name: "a".into(),
                port: 2000,
                addresses: addresses.clone(),
                backends: [four, six].iter().map(|of| of.parse().unwrap()).collect(),
            };
            let mut ledger = Ledger::new();
            ledger.know(NamesChange::all([service.clone()]));
            ledger.counters(Some(1), Vec::new());
            let keys = counter_keys(&service, std::iter::once(lost.parse().unwrap()));
            let counted = keys.into_iter().map(|(set, key)| {
                let counted = Counted {
                    key,
                    packets: 1,
                    bytes: 60,
                };
                (set, counted)
            });
            ledger.last_counters(LastCounts {
                table: Some(1),
                counted: counted.collect(),
            });
            let totals = ledger.totals();
            let of = |backend: &str| {
                totals
                    .backend("a", backend.parse().unwrap())
                    .copied()
                    .unwrap_or_default()
            };
            let places = |is_meant: fn(&IpAddr) -> bool| match addresses.len() {
                0 => 1,
                _ => addresses.iter().filter(|address| is_meant(address)).count() as u64,
            };
            assert_eq!(
                totals.service("a").unwrap().drops,
                [places(|_| true); 6],
                "{addresses:?}"
            );
            for (backend, is_of_family) in [(four, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (six, IpAddr::is_ipv6)] {
                assert_eq!(
                    (of(backend).connections, of(backend).drops),
                    (places(is_of_family), [1; 6])
                );
            }
            assert_eq!(
                (of(lost).connections, of(lost).drops),
                (places(IpAddr::is_ipv4), [0; 6])
            );
        }
    }
}
