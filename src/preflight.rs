//! Checks of a state against the gateway itself, before anything is changed.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use crate::control::adopt;
use crate::control::claimed::Claimed;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use crate::control::own_listener::shares_address;
use crate::doctor::{self, FindingSeverity};
use crate::store::last_services::LastServices;
use tcpgw_core::model::{Backend, InputProblem, Listen, Service, SourceMode, State};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::listeners::{Listener, ListenersError, PATIENCE, listeners_on, processes_of};
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::{LocalAddresses, Routes};

/// Maximum number of routes that are looked up, in some microseconds each.
const MOST_ROUTES: usize = 1000;

/// Divisor of the conntrack table's size: a warning is given when less than this part of it is free.
const CROWDED: u64 = 10;

/// Returns the obstacles of a state: backends that are the gateway itself or no single host, and source addresses that
/// the gateway does not have.
///
/// # Errors
/// Fails when the kernel cannot be queried.
pub fn obstacles(routes: &mut Routes, state: &State) -> Result<Vec<Obstacle>, NetlinkError> {
    let local = local(routes, state)?;
    let mut obstacles: Vec<Obstacle> = own_backends(state, &local).collect();
    obstacles.extend(shared_backends(routes, state)?);
    obstacles.extend(foreign_sources(state, &local));
    Ok(obstacles)
}

/// Returns a state without the services that are held back, and the obstacles of these. A held-back service is kept as
/// it is served, or as it is in `before` if it is not served. Obstacles that apply to what is served already do not
/// count.
pub fn possible(
    state: &State,
    obstacles: impl Iterator<Item = Obstacle>,
    served: &Summary,
    before: &[Arc<Service>],
) -> (State, Vec<Obstacle>) {
    let adopted = adopt::adopt(served, None, &LastServices::default(), false).into_iter();
    let served: Vec<Service> = adopted.map(|adopted| adopted.serving).collect();
    let has_it = |obstacle: &Obstacle| {
        let mut same = served.iter().filter(|known| known.name == obstacle.service);
        same.any(|known| obstacle.is_in(known))
    };
    let held_back: Vec<Obstacle> = obstacles.filter(|obstacle| !has_it(obstacle)).collect();
    let names: BTreeSet<&str> = held_back.iter().map(|obstacle| &*obstacle.service).collect();
    let possible: Vec<Arc<Service>> = state
        .services
        .iter()
        .filter(|service| !names.contains(&*service.name))
        .cloned()
        .collect();
    let claimed = Claimed::by(&possible);
    let known = served.iter().filter(|known| names.contains(&*known.name));
    let remaining = known.filter_map(|known| claimed.leave(known, false).rest(known).map(Arc::new));
    let mut services: Vec<Arc<Service>> = possible.iter().cloned().chain(remaining).collect();
    let claimed = Claimed::by(&services);
    let before = before.iter().filter(|before| names.contains(&*before.name));
    let remaining = before.filter_map(|before| claimed.leave(before, true).rest(before).map(Arc::new));
    let remaining: Vec<Arc<Service>> = remaining.collect();
    services.extend(remaining);
    services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    (State { services }, held_back)
}

/// Returns warnings about parts of a state that may be intended and do not work yet: addresses that the gateway does
/// not have, forwarding that is off, backends without a route, a conntrack table without room.
///
/// # Errors
/// Fails when the kernel cannot be queried.
pub fn warnings(routes: &mut Routes, state: &State) -> Result<Vec<InputProblem>, NetlinkError> {
    let local = local(routes, state)?;
    let mut warnings: Vec<InputProblem> = missing_addresses(state, &local)
        .chain(forwarding(state))
        .chain(crowded())
        .collect();
    warnings.extend(unreachable(routes, state)?);
    Ok(warnings)
}

/// Returns the addresses in the table `local`, and those of the state that routing rules make local, too.
fn local(routes: &mut Routes, state: &State) -> Result<LocalAddresses, NetlinkError> {
    let mut local = routes.local_addresses()?;
    for service in &state.services {
        let chosen = match &service.listen {
            Listen::Everywhere => None,
            Listen::At(addresses) => Some(addresses),
        };
        let named = chosen.into_iter().flatten().chain(&service.source_addresses);
        routes.find_local(&mut local, named.copied())?;
    }
    let backends = state.services.iter().flat_map(|service| &service.backends);
    let addresses = backends.map(|backend| backend.endpoint.address).take(MOST_ROUTES);
    routes.find_local(&mut local, addresses)?;
    Ok(local)
}

fn own_backends<'a>(state: &'a State, local: &'a LocalAddresses) -> impl Iterator<Item = Obstacle> + 'a {
    state.services.iter().flat_map(move |service| {
        let own = service
            .backends
            .iter()
            .filter(|backend| local.contains(&backend.endpoint.address));
        own.map(|backend| {
            let message = "is one of the gateway's own addresses; a backend must be another host";
            no_other_host(service, backend, message)
        })
    })
}

/// Returns the backends with a broadcast or anycast address, which the state alone does not show, since it has no
/// network masks.
fn shared_backends(routes: &mut Routes, state: &State) -> Result<Vec<Obstacle>, NetlinkError> {
    let backends = state.services.iter();
    let backends = backends.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let mut obstacles = Vec::new();
    for (service, backend) in backends.take(MOST_ROUTES) {
        if routes.is_shared(backend.endpoint.address)? {
            let message =
                "is the broadcast or anycast address of a network that this gateway is in; a backend must be one host";
            obstacles.push(no_other_host(service, backend, message));
        }
    }
    Ok(obstacles)
}

fn no_other_host(service: &Service, backend: &Backend, message: &str) -> Obstacle {
    Obstacle {
        service: service.name.clone(),
        kind: ObstacleKind::OwnBackend(backend.endpoint),
        problem: InputProblem {
            place: format!("service \"{}\", backend {}", service.name, backend.endpoint),
            message: message.into(),
        },
    }
}

fn foreign_sources<'a>(state: &'a State, local: &'a LocalAddresses) -> impl Iterator<Item = Obstacle> + 'a {
    state.services.iter().flat_map(move |service| {
        let foreign = service
            .source_addresses
            .iter()
            .filter(|address| !local.contains(address));
        foreign.map(|address| Obstacle {
            service: service.name.clone(),
            kind: ObstacleKind::ForeignSource(*address),
            problem: InputProblem {
                place: format!("service \"{}\", source_addresses {address}", service.name),
                message: "is not an address of this gateway, so no answer would come back to it".into(),
            },
        })
    })
}

fn missing_addresses<'a>(state: &'a State, local: &'a LocalAddresses) -> impl Iterator<Item = InputProblem> + 'a {
    state.services.iter().flat_map(move |service| {
        let addresses = match &service.listen {
            Listen::Everywhere => None,
            Listen::At(addresses) => Some(addresses),
        };
        let missing = addresses
            .into_iter()
            .flatten()
            .filter(|address| !local.contains(address));
        missing.map(|address| InputProblem {
            place: format!("service \"{}\", address {address}", service.name),
            message: "is not an address of this gateway (yet): the service is not reached by it until it is".into(),
        })
    })
}

/// Returns backends of services with `preserve` without a route: such a backend answers its client through the
/// gateway.
fn unreachable(routes: &mut Routes, state: &State) -> Result<Vec<InputProblem>, NetlinkError> {
    let preserving = state
        .services
        .iter()
        .filter(|service| service.source == SourceMode::Preserve);
    let backends = preserving.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let mut problems = Vec::new();
    for (service, backend) in backends.take(MOST_ROUTES) {
        if routes.route_to(backend.endpoint.address)?.is_none() {
            problems.push(InputProblem {
                place: format!("service \"{}\", backend {}", service.name, backend.endpoint),
                message: "has no route from this gateway".into(),
            });
        }
    }
    Ok(problems)
}

/// Returns problems of interfaces by which clients and answers come in, and that do not forward.
fn forwarding(state: &State) -> impl Iterator<Item = InputProblem> + use<> {
    let found = doctor::examine_forwarding(Summary::from(state)).into_iter();
    found
        .filter(|finding| finding.severity <= FindingSeverity::Warning)
        .map(|finding| InputProblem {
            place: "forwarding".into(),
            message: match finding.fix {
                Some(fix) => format!("{}; run `{fix}`", finding.seen),
                None => finding.seen,
            },
        })
}

/// Returns a problem if the conntrack table has little room for new connections. The limit is the system's, and each
/// network namespace may have this number of flows (`__nf_conntrack_alloc`); 0 means no limit.
fn crowded() -> Option<InputProblem> {
    let read = |name| fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok();
    let number = |name| read(name)?.trim().parse::<u64>().ok();
    let (count, most) = (number("nf_conntrack_count")?, number("nf_conntrack_max")?);
    (most > 0 && count >= most - most / CROWDED).then(|| InputProblem {
        place: "net.netfilter.nf_conntrack_max".into(),
        message: format!(
            "is {most}, and conntrack has {count} entries: when its table is full, new connections are dropped; run `sysctl -w \
             net.netfilter.nf_conntrack_max={}`, outside of containers",
            most.saturating_mul(2)
        ),
    })
}

/// Returns new services on ports where a local program listens.
///
/// # Errors
/// Fails when the kernel cannot be queried.
pub fn taken_ports(state: &State, is_known: &dyn Fn(&Service) -> bool) -> Result<Vec<Obstacle>, ListenersError> {
    let new = state.services.iter().map(AsRef::as_ref);
    let new: Vec<&Service> = new.filter(|service| !is_known(service)).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let mut listening = listeners_on(&new.iter().map(|service| service.port.get()).collect())?;
    listening.sort_unstable_by_key(|listener| listener.addr.port());
    let taken: Vec<(&Service, &Listener)> = new.iter().flat_map(|service| taken(service, &listening)).collect();
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let inodes = taken.iter().map(|(_, listener)| listener.inode).collect();
    let processes = processes_of(&inodes, PATIENCE);
    let obstacles = taken.into_iter().map(|(service, listener)| {
        let process = processes
            .get(&listener.inode)
            .map_or("an unknown process", String::as_str);
        let message = format!(
            "port {} is in use: {process} listens on {}",
            service.port, listener.addr
        );
        Obstacle {
            service: service.name.clone(),
            kind: ObstacleKind::PortTaken,
            problem: InputProblem {
                place: format!("service \"{}\"", service.name),
                message,
            },
        }
    });
    Ok(obstacles.collect())
}

fn taken<'a>(service: &'a Service, listening: &'a [Listener]) -> impl Iterator<Item = (&'a Service, &'a Listener)> {
    let port = service.port.get();
    let from = listening.partition_point(|listener| listener.addr.port() < port);
    let there = listening[from..]
        .iter()
        .take_while(move |listener| listener.addr.port() == port);
    there
        .filter(|listener| shares_address(&service.listen, listener.addr.ip()))
        .map(move |listener| (service, listener))
}
