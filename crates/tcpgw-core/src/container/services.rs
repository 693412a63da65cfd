//! The services of containers, and the containers that cannot have what their labels ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::choice::endpoints;
use super::labels::{self, Labelled, is_addressed};
use super::value::{Container, RunState, ShownName};
use crate::model::{Backend, BackendState, Endpoint, Fences, MAX_ACTIVE, Service};

/// Services of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerServices {
    /// The services, sorted by name. Names, ports and addresses of backends are unique.
    pub services: Vec<Service>,
    /// Containers that cannot have what their labels ask for.
    pub problems: Vec<ContainerProblem>,
    /// The container that each backend is.
    pub backends: BTreeMap<Endpoint, ContainerBackend>,
    /// Name of a container of each service, for messages.
    pub examples: BTreeMap<Box<str>, Box<str>>,
    /// Ids of all containers with labels that have a process, whether they are backends or not.
    pub running: BTreeSet<Box<str>>,
    /// Services with a container whose health check has no result yet.
    pub unchecked: BTreeSet<Box<str>>,
}

/// A container as a backend: another one has another id, and one that was started again another start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerBackend {
    /// Id of the container.
    pub id: Box<str>,
    /// Number of its start.
    pub start: u64,
}

/// A container that cannot have what its labels ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProblem {
    /// Name of the service that it asks for, if the name is valid.
    pub service: Option<Box<str>>,
    /// Public port of that service, if it has valid labels.
    pub port: Option<NonZeroU16>,
    /// Description with the container's name: one line, without control characters.
    pub message: String,
}

/// Services of earlier containers, which keep what they have got.
#[derive(Debug, Clone, Default)]
pub struct EarlierServices {
    /// Services that are served, by name: their ports and backends may be outside of the fences.
    pub served: BTreeMap<Box<str>, Arc<Service>>,
    /// Names of the services that keep ports against containers of other services.
    pub holders: BTreeMap<NonZeroU16, Box<str>>,
}

impl EarlierServices {
    fn has_port(&self, name: &str, port: NonZeroU16) -> bool {
        self.served.get(name).is_some_and(|service| service.port == port)
    }

    fn has_backend(&self, name: &str, endpoint: Endpoint) -> bool {
        let served = self.served.get(name);
        served.is_some_and(|service| service.backends.iter().any(|backend| backend.endpoint == endpoint))
    }
}

/// Returns the ports that containers ask for, whether they run or not, with the names of the services that they ask for them.
pub fn claims_of(containers: &[Container]) -> BTreeSet<(NonZeroU16, Box<str>)> {
    let asking = containers.iter().filter(|container| is_addressed(container));
    let claims = asking.filter_map(|container| {
        let port = labels::label(container, "port")?.parse().ok()?;
        Some((port, labels::service_name(container).into()))
    });
    claims.collect()
}

/// Returns the services of containers without earlier ones.
pub fn services_of(containers: &[Container], fences: &Fences) -> ContainerServices {
    services_after(containers, fences, &EarlierServices::default())
}

/// Returns the services of containers. The order of the containers does not matter: of those that contradict each other the first
/// stays, by the time of their creation and then by their ids. A container that runs comes before one that was told to stop or does
/// not run. A port stays with the service that holds it.
pub fn services_after(containers: &[Container], fences: &Fences, earlier: &EarlierServices) -> ContainerServices {
    let mut order: Vec<&Container> = containers.iter().filter(|container| is_addressed(container)).collect();
    order.sort_by_key(|container| (container.rank(), container.created, &container.id));
    let mut gathered = Gathered {
        fences,
        earlier,
        claimants: order
            .iter()
            .rev()
            .filter_map(|container| claimant(container, earlier))
            .collect(),
        ids: BTreeSet::new(),
        groups: BTreeMap::new(),
        ports: BTreeMap::new(),
        addresses: BTreeMap::new(),
        backends: BTreeMap::new(),
        unchecked: BTreeSet::new(),
        problems: Vec::new(),
    };
    let runs = order.iter().filter(|container| container.state != RunState::Down);
    let running = runs.map(|container| container.id.clone()).collect();
    for container in order {
        gathered.add(container);
    }
    let first = |group: &ContainerGroup<'_>| (group.service.name.clone(), group.first.name.clone());
    ContainerServices {
        examples: gathered.groups.values().map(first).collect(),
        services: gathered.groups.into_values().map(ContainerGroup::finish).collect(),
        problems: gathered.problems,
        backends: gathered.backends,
        running,
        unchecked: gathered.unchecked,
    }
}

/// A service with the container that defines it.
struct ContainerGroup<'c> {
    first: &'c Container,
    service: Service,
}

impl ContainerGroup<'_> {
    fn finish(mut self) -> Service {
        self.service.backends.sort_unstable();
        self.service
    }
}

struct Gathered<'c> {
    fences: &'c Fences,
    earlier: &'c EarlierServices,
    /// A container of each service that holds a port, by the port.
    claimants: BTreeMap<NonZeroU16, &'c Container>,
    ids: BTreeSet<&'c str>,
    groups: BTreeMap<Box<str>, ContainerGroup<'c>>,
    ports: BTreeMap<NonZeroU16, Box<str>>,
    addresses: BTreeMap<IpAddr, &'c Container>,
    backends: BTreeMap<Endpoint, ContainerBackend>,
    unchecked: BTreeSet<Box<str>>,
    problems: Vec<ContainerProblem>,
}

impl<'c> Gathered<'c> {
    fn add(&mut self, container: &'c Container) {
        if !self.ids.insert(&container.id) {
            return;
        }
        let Labelled { service, target } = match labels::read(container) {
            Ok(labelled) => labelled,
            // The labels of a container that ends need not be mended.
            Err(_) if container.rank() > 0 => return,
            Err(wrong) => {
                let name = labels::service_name(container);
                let name = crate::model::is_service_name(&name).then(|| name.into());
                return self.problem(container, (name, None), &wrong.join("; "));
            }
        };
        let of = (Some(service.name.clone()), Some(service.port));
        if let Err(why) = self.join(container, service) {
            if container.rank() == 0 {
                self.problem(container, of, &why);
            }
            return;
        }
        let name = of.0.clone().unwrap_or_default();
        let Some(state) = container.backend_state() else {
            if container.is_unchecked() {
                self.unchecked.insert(name);
            }
            return;
        };
        let joined = endpoints(container, target).and_then(|endpoints| self.serve(container, &name, &endpoints, state));
        if let Err(why) = joined {
            self.problem(container, of, &why);
        }
    }

    /// Adds a container to the service of its labels, or makes this service.
    fn join(&mut self, container: &'c Container, service: Service) -> Result<(), String> {
        if !self.fences.allow_port(service.port) && !self.earlier.has_port(&service.name, service.port) {
            return Err(format!(
                "tcpgw.port: {} is outside of the fences (fences.ports)",
                service.port
            ));
        }
        if let Some(group) = self.groups.get(&service.name) {
            return if group.service
                == (Service {
                    backends: group.service.backends.clone(),
                    ..service
                }) {
                Ok(())
            } else {
                Err(contradiction(container, group.first))
            };
        }
        if let Some(holder) = self.earlier.holders.get(&service.port)
            && *holder != service.name
        {
            let of = match self.claimants.get(&service.port) {
                Some(claimant) => format!(
                    "which has served it before, and which container {} is of: as long as it exists, whether it runs or not, the port stays there",
                    ShownName(&claimant.name)
                ),
                None => {
                    "whose last container was removed a moment ago: the port stays there for some seconds".to_owned()
                }
            };
            return Err(format!(
                "tcpgw.port: {} is the port of service \"{holder}\", {of}",
                service.port
            ));
        }
        if let Some(other) = self.ports.get(&service.port).and_then(|name| self.groups.get(name)) {
            return Err(format!(
                "tcpgw.port: {} is the port of service \"{}\", by the labels of container {}",
                service.port,
                other.service.name,
                ShownName(&other.first.name)
            ));
        }
        self.ports.insert(service.port, service.name.clone());
        let first = container;
        self.groups
            .insert(service.name.clone(), ContainerGroup { first, service });
        Ok(())
    }

    /// Adds the endpoints of a container to its service.
    fn serve(
        &mut self,
        container: &'c Container,
        name: &str,
        endpoints: &[Endpoint],
        state: BackendState,
    ) -> Result<(), String> {
        for endpoint in endpoints {
            let mut networks = self.fences.backends.iter().flatten();
            let is_outside =
                self.fences.backends.is_some() && !networks.any(|network| network.contains(&endpoint.address));
            if is_outside && !self.earlier.has_backend(name, *endpoint) {
                return Err(format!(
                    "its address {} is outside of the fences (fences.backends)",
                    endpoint.address
                ));
            }
            if let Some(other) = self.addresses.get(&endpoint.address) {
                let other = ShownName(&other.name);
                return Err(format!(
                    "its address {} is that of container {other}, too",
                    endpoint.address
                ));
            }
        }
        let Some(group) = self.groups.get_mut(name) else {
            return Ok(());
        };
        let is_active = |backend: &&Backend| backend.state == BackendState::Active;
        let active = group.service.backends.iter().filter(is_active).count();
        if state == BackendState::Active && active + endpoints.len() > MAX_ACTIVE {
            return Err(format!(
                "service \"{name}\" has {active} active backends already; at most {MAX_ACTIVE} are accepted"
            ));
        }
        for endpoint in endpoints {
            self.addresses.insert(endpoint.address, container);
            let (id, start) = (container.id.clone(), container.start);
            self.backends.insert(*endpoint, ContainerBackend { id, start });
            group.service.backends.push(Backend {
                state,
                ..Backend::active(*endpoint)
            });
        }
        Ok(())
    }

    fn problem(&mut self, container: &Container, of: (Option<Box<str>>, Option<NonZeroU16>), why: &str) {
        let (service, port) = of;
        self.problems.push(ContainerProblem {
            service,
            port,
            message: format!("container {}: {why}", ShownName(&container.name)),
        });
    }
}

/// Returns a container with the port that its service holds.
fn claimant<'c>(container: &'c Container, earlier: &EarlierServices) -> Option<(NonZeroU16, &'c Container)> {
    let port = labels::label(container, "port")?.parse().ok()?;
    let holder = earlier.holders.get(&port)?;
    (**holder == *labels::service_name(container)).then_some((port, container))
}

/// Returns a text about two containers that define the same service differently.
fn contradiction(container: &Container, first: &Container) -> String {
    let of_service = labels::LABELS
        .iter()
        .filter(|name| !["service", "target", "network"].contains(name));
    let differing: Vec<String> = of_service
        .filter_map(|name| {
            let (ours, theirs) = (labels::label(container, name), labels::label(first, name));
            (ours != theirs).then(|| {
                let [ours, theirs] = [ours, theirs]
                    .map(|value| value.map_or("not set".to_owned(), |value| ShownName(value).to_string()));
                format!("tcpgw.{name} is {ours} here and {theirs} there")
            })
        })
        .collect();
    format!(
        "its labels contradict those of container {}, which is of service \"{}\", too, and was created before: {}; give both the same \
         labels, or one of them another tcpgw.service",
        ShownName(&first.name),
        labels::service_name(first),
        differing.join(", ")
    )
}
