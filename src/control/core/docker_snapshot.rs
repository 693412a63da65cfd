//! Services of Docker's containers at one time, and the ports that earlier containers keep.
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::name::Name;
use crate::provider::docker::TrackedContainers;
use tcpgw_core::container::{ContainerBackend, ContainerProblem, EarlierServices, claims_of, services_after};
use tcpgw_core::model::{Endpoint, Fences, State};

/// Time for which a service keeps its port whose containers were all removed: its next ones may be created anew.
const GRACE: Duration = Duration::from_secs(10);

/// The services of all containers at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct DockerSnapshot {
    /// The services, each valid beside the others. Unchanged services are shared with the last snapshot.
    pub(super) state: Arc<State>,
    /// Containers that cannot have what their labels ask for.
    pub(super) problems: Vec<ContainerProblem>,
    /// The container that each backend is.
    pub(super) backends: BTreeMap<Endpoint, ContainerBackend>,
    /// Name of a container of each service, for messages.
    pub(super) examples: BTreeMap<Box<str>, Box<str>>,
    /// Ids of all containers with labels that have a process, whether they are backends or not.
    pub(super) running: BTreeSet<Box<str>>,
    /// Services with a container whose health check has no result yet.
    pub(super) unchecked: BTreeSet<Box<str>>,
    /// Whether it is believed without services.
    pub(super) is_certain: bool,
}

impl DockerSnapshot {
    /// Returns the services of these containers. Services that `last` has, too, are shared with it.
    pub(super) fn new(
        tracked: &TrackedContainers,
        fences: &Fences,
        earlier: &EarlierServices,
        last: Option<&Self>,
    ) -> Self {
        let found = services_after(&tracked.containers, fences, earlier);
        let mut state = State::from_valid(found.services.into_iter().map(Arc::new).collect());
        if let Some(last) = last {
            state.share(&last.state);
        }
        Self {
            state: Arc::new(state),
            problems: found.problems,
            backends: found.backends,
            examples: found.examples,
            running: found.running,
            unchecked: found.unchecked,
            is_certain: tracked.is_certain,
        }
    }
}

/// Ports that services of containers keep against containers of other services.
#[derive(Debug, Default)]
pub(super) struct PortHolders {
    holders: BTreeMap<NonZeroU16, PortHolder>,
}

#[derive(Debug)]
struct PortHolder {
    name: Name,
    /// Time since which none of its containers is there.
    gone: Option<Instant>,
}

impl PortHolders {
    /// Takes over what is served, and what containers there are.
    pub(super) fn update(&mut self, served: &State, tracked: &TrackedContainers, now: Instant) {
        for service in &served.services {
            let name = service.name.clone();
            self.holders.insert(service.port, PortHolder { name, gone: None });
        }
        let claims = claims_of(&tracked.containers);
        self.holders.retain(|port, holder| {
            let has_moved = served.get(&holder.name).is_some_and(|service| service.port != *port);
            if claims.contains(&(*port, holder.name.clone())) {
                holder.gone = None;
            } else {
                holder.gone.get_or_insert(now);
            }
            !has_moved && holder.gone.is_none_or(|gone| now < gone + GRACE)
        });
    }

    /// Returns the next time at which a port becomes free.
    pub(super) fn due(&self) -> Option<Instant> {
        let gone = self.holders.values().filter_map(|holder| holder.gone);
        gone.min().map(|gone| gone + GRACE)
    }

    /// Returns the names of the holders.
    pub(super) fn names(&self) -> BTreeMap<NonZeroU16, Name> {
        let holders = self.holders.iter();
        holders.map(|(port, holder)| (*port, holder.name.clone())).collect()
    }
}
