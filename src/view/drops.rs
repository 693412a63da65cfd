//! Packets that the rules dropped or reset, by reason, from the counters that the rules update.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flow_rates::per_second;
use super::tally::BackendIndex;
use crate::traffic::drop_sets::{CounterOwner, REASONS, counter_of, sets_of_backends, sets_of_services};
use tcpgw_core::model::Endpoint;
use tcpgw_core::ruleset::key::TCP;
use tcpgw_core::ruleset::name::{Family, Scope, SetName};
use tcpgw_core::ruleset::rows::{endpoint_bytes, port_bytes, read_address, read_endpoint, read_port};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Counted;

/// Packets that were dropped for one reason, since the service or backend is in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Number of packets; merged ones (GRO) count once.
    pub packets: u64,
    /// Number of bytes, including IP headers.
    pub bytes: u64,
    /// Rate between two samples; `None`: there was one sample only.
    pub packets_per_second: Option<f64>,
}

impl Dropped {
    /// Returns the sum. It has no rate if one of both has none.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let rates = self.packets_per_second.zip(other.packets_per_second);
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            packets_per_second: rates.map(|(one, other)| one + other),
        }
    }
}

/// Drops of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceDrops {
    /// SYNs refused by `allow` or `deny`.
    pub refused: Dropped,
    /// SYNs that found no active backend.
    pub no_backend: Dropped,
    /// SYNs of clients that had their maximum of flows or handshakes (`client`).
    pub over_client: Dropped,
    /// SYNs while the service had its maximum of flows (`max_flows`).
    pub over_flows: Dropped,
    /// Packets other than SYN that belong to no tracked flow; they are reset if `on_retire` says so.
    pub stale: Dropped,
    /// Packets that conntrack calls INVALID.
    pub invalid: Dropped,
}

/// Drops of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendDrops {
    /// Packets to the backend over the limit.
    pub over_limit_to: Dropped,
    /// Packets from the backend over the limit.
    pub over_limit_from: Dropped,
    /// Packets from the backend that conntrack calls INVALID.
    pub invalid_from: Dropped,
    /// Packets of deleted flows from the backend (`preserve`); they are reset.
    pub stale_from: Dropped,
    /// SYNs that the backend refused because it still held their source port; they were repeated.
    pub port_reused: Dropped,
    /// Packets from outside to the backend that did not come through a service (`protect_backends`).
    pub direct: Dropped,
}

impl ServiceDrops {
    fn by_reason(drops: impl Fn(usize) -> Dropped) -> Self {
        Self {
            refused: drops(0),
            no_backend: drops(1),
            stale: drops(2),
            invalid: drops(3),
            over_client: drops(4),
            over_flows: drops(5),
        }
    }

    /// Returns the drops by the values of [`service_counters`]. `earlier`: values of an earlier sample, and the time
    /// since then.
    pub fn counted(counted: &[Counted], earlier: Option<(&[Counted], Duration)>) -> Self {
        Self::by_reason(|reason| dropped_under_key(counted, earlier, reason))
    }

    /// Returns each reason as text.
    pub fn reasons(&self) -> [(&'static str, Dropped); REASONS] {
        [
            ("refused by allow or deny", self.refused),
            ("no backend", self.no_backend),
            ("of no flow", self.stale),
            ("invalid", self.invalid),
            ("over the client's caps", self.over_client),
            ("over max_flows", self.over_flows),
        ]
    }
}

impl BackendDrops {
    fn by_reason(drops: impl Fn(usize) -> Dropped) -> Self {
        Self {
            over_limit_to: drops(0),
            over_limit_from: drops(1),
            invalid_from: drops(2),
            stale_from: drops(3),
            port_reused: drops(4),
            direct: drops(5),
        }
    }

    /// Returns the sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            over_limit_to: self.over_limit_to.and(other.over_limit_to),
            over_limit_from: self.over_limit_from.and(other.over_limit_from),
            invalid_from: self.invalid_from.and(other.invalid_from),
            stale_from: self.stale_from.and(other.stale_from),
            port_reused: self.port_reused.and(other.port_reused),
            direct: self.direct.and(other.direct),
        }
    }

    /// Returns the drops by the values of [`backend_counters`]. `earlier`: values of an earlier sample, and the time
    /// since then.
    pub fn counted(counted: &[Counted], earlier: Option<(&[Counted], Duration)>) -> Self {
        Self::by_reason(|reason| dropped_under_key(counted, earlier, reason))
    }

    /// Returns each reason as text.
    pub fn reasons(&self) -> [(&'static str, Dropped); REASONS] {
        [
            ("over the limit to it", self.over_limit_to),
            ("over the limit from it", self.over_limit_from),
            ("invalid from it", self.invalid_from),
            ("of flushed flows from it", self.stale_from),
            ("from ports that it still held", self.port_reused),
            ("past its services", self.direct),
        ]
    }
}

/// Returns the number of SYNs that were dropped because their service had its `max_flows`, of each service with this
/// cap, by name. `counted`: reads a set.
///
/// # Errors
/// Fails with the first error of `counted`.
pub fn over_flows<E>(
    summary: &Summary,
    mut counted: impl FnMut(SetName) -> Result<Vec<Counted>, E>,
) -> Result<BTreeMap<Box<str>, u64>, E> {
    let name_of = |at: usize| {
        let service = &summary.services[at];
        service
            .settings
            .max_flows
            .and(service.name.as_deref())
            .map(<Box<str>>::from)
    };
    let capped = (0..summary.services.len()).filter_map(name_of);
    let mut found: BTreeMap<Box<str>, u64> = capped.map(|name| (name, 0)).collect();
    if found.is_empty() {
        return Ok(found);
    }
    for scope in Scope::ALL {
        for Counted { key, packets, .. } in counted(SetName::OverFlows(scope))? {
            if let Some(name) = service(scope, &key, summary).and_then(name_of) {
                *found.entry(name).or_default() += packets;
            }
        }
    }
    Ok(found)
}

/// Returns the counters of a service that listens on every address: see [`ServiceDrops::counted`].
pub fn service_counters(port: NonZeroU16) -> [(SetName, Box<[u8]>); REASONS] {
    let key = [TCP, port_bytes(port)].concat();
    sets_of_services(Scope::Any).map(|set| (set, key.as_slice().into()))
}

/// Returns the counters of a backend: see [`BackendDrops::counted`].
pub fn backend_counters(backend: Endpoint) -> [(SetName, Box<[u8]>); REASONS] {
    let (key, len) = endpoint_bytes(backend);
    sets_of_backends(Family::of(backend.address)).map(|set| (set, key[..len].into()))
}

fn dropped_under_key(now: &[Counted], then: Option<(&[Counted], Duration)>, reason: usize) -> Dropped {
    let count = |of: &[Counted]| of.get(reason).map_or((0, 0), |of| (of.packets, of.bytes));
    let (packets, bytes) = count(now);
    Dropped {
        packets,
        bytes,
        packets_per_second: then.map(|(then, time)| per_second(packets.saturating_sub(count(then).0), time)),
    }
}

/// Number of packets and bytes for each reason; a service and a backend have six each.
type ByReason = [(u64, u64); REASONS];

/// A sample of the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropCounts {
    /// Drops of services by position in the summary; most have none.
    services: BTreeMap<usize, ByReason>,
    /// Drops of backends by place.
    backends: BTreeMap<usize, ByReason>,
    /// Number of packets counted for removed services and backends.
    pub others: u64,
}

impl DropCounts {
    /// Adds the counters of a set.
    pub fn add(&mut self, set: SetName, counted: &[Counted], summary: &Summary, places: &BackendIndex) {
        let Some((reason, of)) = counter_of(set) else { return };
        for Counted { key, packets, bytes } in counted {
            let add = |sums: &mut ByReason| {
                let sum = &mut sums[reason];
                *sum = (sum.0 + packets, sum.1 + bytes);
            };
            let mut is_known = false;
            match of {
                CounterOwner::Service(scope) => {
                    if let Some(at) = service(scope, key, summary) {
                        add(self.services.entry(at).or_default());
                        is_known = true;
                    }
                }
                // A counter belongs to the endpoint: each service that has it shows it.
                CounterOwner::Backend(family) => {
                    let endpoint = read_endpoint(family, key).map(SocketAddr::from);
                    for at in endpoint.into_iter().flat_map(|endpoint| places.of_backend(endpoint)) {
                        add(self.backends.entry(at).or_default());
                        is_known = true;
                    }
                }
            }
            if !is_known {
                self.others += packets;
            }
        }
    }

    /// Returns the drops of a service by its position. `earlier`: an earlier sample, and the time since then.
    pub fn of_service(&self, at: usize, earlier: Option<(&Self, Duration)>) -> ServiceDrops {
        ServiceDrops::by_reason(|reason| {
            dropped(
                &self.services,
                earlier.map(|(then, time)| (&then.services, time)),
                at,
                reason,
            )
        })
    }

    /// Returns the drops of a backend by its place. `earlier`: an earlier sample, and the time since then.
    pub fn of_backend(&self, at: usize, earlier: Option<(&Self, Duration)>) -> BackendDrops {
        BackendDrops::by_reason(|reason| {
            dropped(
                &self.backends,
                earlier.map(|(then, time)| (&then.backends, time)),
                at,
                reason,
            )
        })
    }
}

fn dropped(
    now: &BTreeMap<usize, ByReason>,
    then: Option<(&BTreeMap<usize, ByReason>, Duration)>,
    at: usize,
    reason: usize,
) -> Dropped {
    let count = |of: &BTreeMap<usize, ByReason>| of.get(&at).map_or((0, 0), |by| by[reason]);
    let (packets, bytes) = count(now);
    Dropped {
        packets,
        bytes,
        // A new table begins with new counters.
        packets_per_second: then.map(|(then, time)| per_second(packets.saturating_sub(count(then).0), time)),
    }
}

/// Returns the position of the service that has this service key.
pub(super) fn service(scope: Scope, key: &[u8], summary: &Summary) -> Option<usize> {
    match scope {
        Scope::Any => {
            let port = read_port(key.get(4..)?)?.get();
            let from = summary.services.partition_point(|service| service.port < port);
            let service = summary.services.get(from)?;
            // A service without addresses is the only one on its port.
            (service.port == port && service.addresses.is_empty()).then_some(from)
        }
        Scope::At(family) => {
            let port = read_port(key.get(family.address_len()..)?)?.get();
            summary.position_at(SocketAddr::new(read_address(family, key)?, port))
        }
    }
}
