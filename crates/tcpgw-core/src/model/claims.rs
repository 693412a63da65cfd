//! Rules across services: names must be unique, ports unique on each address, the numbers of some features bounded, and
//! services that share an endpoint must agree on its settings.
//!
//! Collects what each service claims while it is read, and compares the claims at the end by sorting: the cost is that
//! of a sort, whatever the services contain.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use super::problem::InputProblems;
use super::shared::{Terms, disagreement};
use super::{Balance, ClientCaps, Endpoint, Listen, Service, State};
use std::sync::Arc;

/// Largest number of round-robin services: each needs a chain in the kernel.
pub const MAX_ROUND_ROBIN: usize = 256;

/// Largest number of services with `max_flows`, and largest number of different values of `client.flows` and of
/// `client.handshakes_per_second`: each costs a rule that every new connection passes.
pub const MAX_FLOW_CAPS: usize = 64;

/// Largest number of different values of `idle_timeout`: each needs an object in the kernel for each address family,
/// and rules that new connections pass.
pub const MAX_IDLE_TIMEOUTS: usize = 16;

/// Form in which messages name services: by index in a file, by name when there is no file, not at all when there is
/// only one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Naming {
    #[default]
    ByIndex,
    ByName,
    Alone,
}

#[derive(Debug, Default)]
pub(crate) struct Claims {
    naming: Naming,
    /// Names by index, ascending, of the services that have one.
    names: Vec<(usize, Box<str>)>,
    /// Ports. A service on every address has one row with `None`, another has one row for each address.
    ports: Vec<(NonZeroU16, usize, Option<IpAddr>)>,
    endpoints: Vec<EndpointClaim>,
    /// Terms by index, of the services that could be read completely.
    terms: BTreeMap<usize, Terms>,
    round_robin: Vec<usize>,
    flow_caps: Vec<usize>,
    client_flows: BTreeMap<u32, usize>,
    client_handshakes: BTreeMap<u32, usize>,
    idle_timeouts: BTreeMap<Duration, usize>,
}

impl Claims {
    /// Returns the claims of services that were not read from a file.
    pub(crate) fn of(state: &State) -> Self {
        let mut claims = Self {
            naming: Naming::ByName,
            ..Self::default()
        };
        for (index, service) in state.services.iter().enumerate() {
            let mut claim = claims.service(index);
            claim.name(&service.name);
            claim.port(service.port, &service.listen);
            claim.balance(service.balance);
            if service.max_flows.is_some() {
                claim.flow_cap();
            }
            claim.client(service.client);
            claim.idle_timeout(service.idle_timeout);
            for (position, backend) in service.backends.iter().enumerate() {
                claim.endpoint(position, backend.endpoint);
            }
            claim.terms(service);
        }
        claims
    }

    /// Returns empty claims for a service by itself.
    pub(crate) fn of_one() -> Self {
        Self {
            naming: Naming::Alone,
            ..Self::default()
        }
    }

    /// Returns the claims of the service with this index, to be filled. Fields that could not be read claim nothing.
    pub(crate) fn service(&mut self, index: usize) -> Claim<'_> {
        Claim { index, claims: self }
    }

    /// Reports every clash at the later of the two places, naming the earlier one.
    pub(crate) fn check(mut self, problems: &mut InputProblems) {
        self.check_names(problems);
        self.check_ports(problems);
        self.check_endpoints(problems);
        self.check_caps(problems);
        self.check_idle_timeouts(problems);
        if let Some(first_over) = self.round_robin.get(MAX_ROUND_ROBIN) {
            let count = self.round_robin.len();
            problems.add(
                &self.place(*first_over, "balance"),
                format_args!("{count} services are round-robin; at most {MAX_ROUND_ROBIN} are accepted"),
            );
        }
    }

    fn check_caps(&self, problems: &mut InputProblems) {
        if let Some(first_over) = self.flow_caps.get(MAX_FLOW_CAPS) {
            let count = self.flow_caps.len();
            problems.add(
                &self.place(*first_over, "max_flows"),
                format_args!("{count} services have max_flows; at most {MAX_FLOW_CAPS} are accepted"),
            );
        }
        for (field, numbers) in [
            ("client.flows", &self.client_flows),
            ("client.handshakes_per_second", &self.client_handshakes),
        ] {
            if let Some(last) = numbers.values().max().filter(|_| numbers.len() > MAX_FLOW_CAPS) {
                problems.add(
                    &self.place(*last, field),
                    format_args!(
                        "services have {} different numbers; at most {MAX_FLOW_CAPS} are accepted",
                        numbers.len()
                    ),
                );
            }
        }
    }

    fn check_idle_timeouts(&self, problems: &mut InputProblems) {
        let count = self.idle_timeouts.len();
        if let Some(last) = self.idle_timeouts.values().max().filter(|_| count > MAX_IDLE_TIMEOUTS) {
            problems.add(
                &self.place(*last, "idle_timeout"),
                format_args!("services have {count} different values; at most {MAX_IDLE_TIMEOUTS} are accepted"),
            );
        }
    }

    fn check_names(&self, problems: &mut InputProblems) {
        let mut firsts: Vec<(&str, usize)> = self.names.iter().map(|(index, name)| (&**name, *index)).collect();
        firsts.sort_unstable();
        let mut clashes = clashes(&firsts, |row| row.0);
        clashes.sort_unstable_by_key(|(_, later)| later.1);
        for ((name, first), (_, later)) in clashes {
            let place = self.place(later, "name");
            match self.naming {
                Naming::ByIndex | Naming::Alone => {
                    problems.add(
                        &place,
                        format_args!("\"{name}\" is already the name of services[{first}]"),
                    );
                }
                Naming::ByName => problems.add(&place, "is the name of another service too"),
            }
        }
    }

    fn check_ports(&mut self, problems: &mut InputProblems) {
        self.ports.sort_unstable();
        let mut found: Vec<(usize, usize, NonZeroU16, Option<IpAddr>)> = Vec::new();
        for rows in self.ports.chunk_by(|a, b| a.0 == b.0).filter(|rows| rows.len() > 1) {
            port_clashes(rows, &mut found);
        }
        found.sort_unstable_by_key(|clash| clash.0);
        for (later, first, port, address) in found {
            let site = self.site(first);
            let place = self.place(later, "port");
            match address {
                Some(address) => problems.add(&place, format_args!("{port} on {address} is already taken by {site}")),
                None => problems.add(&place, format_args!("{port} is already taken by {site}")),
            }
        }
    }

    fn check_endpoints(&mut self, problems: &mut InputProblems) {
        self.endpoints.sort_unstable();
        let mut found: Vec<(&EndpointClaim, &EndpointClaim, Option<String>)> = Vec::new();
        for rows in self.endpoints.chunk_by(|a, b| a.0 == b.0).filter(|rows| rows.len() > 1) {
            self.endpoint_clashes(rows, &mut found);
        }
        found.sort_unstable_by_key(|(_, later, _)| (later.1, later.2));
        for ((endpoint, first, first_position), (_, later, position), differing) in found {
            let (place, earlier) = match self.naming {
                Naming::ByIndex => (
                    format!("backends[{position}]"),
                    format!("backends[{first_position}] of {}", self.site(*first)),
                ),
                Naming::Alone => (format!("backends[{position}]"), format!("backends[{first_position}]")),
                Naming::ByName => ("backends".to_owned(), format!("a backend of {}", self.site(*first))),
            };
            let message = match differing {
                None => format!("{endpoint} is already {earlier}"),
                Some(differing) => disagreement(*endpoint, &earlier, &differing),
            };
            problems.add(&self.place(*later, &place), message);
        }
    }

    /// Finds the clashes in the rows of one endpoint: those that occur twice in one service, and those whose service
    /// disagrees with the first one that has terms for the endpoint.
    fn endpoint_clashes<'r>(
        &self,
        rows: &'r [EndpointClaim],
        found: &mut Vec<(&'r EndpointClaim, &'r EndpointClaim, Option<String>)>,
    ) {
        for (first, later) in rows.iter().zip(rows.iter().skip(1)) {
            if first.1 == later.1 {
                found.push((first, later, None));
            }
        }
        let terms = |row: &EndpointClaim| self.terms.get(&row.1).filter(|terms| terms.bind(row.0));
        let Some((first, firsts)) = rows.iter().find_map(|row| Some((row, terms(row)?))) else {
            return;
        };
        for later in rows.iter().filter(|row| row.1 != first.1) {
            let differing = terms(later).and_then(|later| firsts.differences(later, first.0));
            found.extend(differing.map(|differing| (first, later, Some(differing))));
        }
    }

    fn place(&self, index: usize, field: &str) -> String {
        match self.naming {
            Naming::ByIndex => format!("services[{index}].{field}"),
            Naming::ByName => format!("{}, {field}", self.site(index)),
            Naming::Alone => field.to_owned(),
        }
    }

    fn site(&self, index: usize) -> String {
        let found = self.names.binary_search_by_key(&index, |(index, _)| *index);
        let name = found.ok().and_then(|at| self.names.get(at)).map(|(_, name)| name);
        match (self.naming, name) {
            (Naming::ByName, Some(name)) => format!("service \"{name}\""),
            (_, Some(name)) => format!("services[{index}] (\"{name}\")"),
            (_, None) => format!("services[{index}]"),
        }
    }
}

/// An endpoint, the index of the service that has it, and its position in the service's list.
type EndpointClaim = (Endpoint, usize, usize);

/// Claims of one service.
#[derive(Debug)]
pub(crate) struct Claim<'c> {
    index: usize,
    claims: &'c mut Claims,
}

impl Claim<'_> {
    pub(crate) fn name(&mut self, name: &str) {
        self.claims.names.push((self.index, name.into()));
    }

    pub(crate) fn port(&mut self, port: NonZeroU16, listen: &Listen) {
        let (index, ports) = (self.index, &mut self.claims.ports);
        match listen {
            Listen::Everywhere => ports.push((port, index, None)),
            Listen::At(addresses) => ports.extend(addresses.iter().map(|address| (port, index, Some(*address)))),
        }
    }

    pub(crate) fn balance(&mut self, balance: Balance) {
        if balance == Balance::RoundRobin {
            self.claims.round_robin.push(self.index);
        }
    }

    pub(crate) fn flow_cap(&mut self) {
        self.claims.flow_caps.push(self.index);
    }

    pub(crate) fn client(&mut self, caps: ClientCaps) {
        if let Some(flows) = caps.flows {
            self.claims.client_flows.entry(flows).or_insert(self.index);
        }
        if let Some(rate) = caps.handshakes_per_second {
            self.claims.client_handshakes.entry(rate).or_insert(self.index);
        }
    }

    pub(crate) fn idle_timeout(&mut self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.claims.idle_timeouts.entry(timeout).or_insert(self.index);
        }
    }

    /// Adds a backend, with its position in the list.
    pub(crate) fn endpoint(&mut self, position: usize, endpoint: Endpoint) {
        self.claims.endpoints.push((endpoint, self.index, position));
    }

    /// Adds the settings of its backends, once the whole service was read.
    pub(crate) fn terms(&mut self, service: &Service) {
        if !service.backends.is_empty() {
            self.claims.terms.insert(self.index, Terms::of(service));
        }
    }
}

/// Returns the rows whose key is that of an earlier row, each with the first row of that key. `rows` must be sorted by
/// key.
fn clashes<T: Copy, K: PartialEq>(rows: &[T], key: impl Fn(&T) -> K) -> Vec<(T, T)> {
    rows.chunk_by(|a, b| key(a) == key(b))
        .filter_map(|same| same.split_first())
        .flat_map(|(first, later)| later.iter().map(|row| (*first, *row)))
        .collect()
}

/// Adds the first clash of each service with an earlier one. `rows` are those of one port, sorted by service.
fn port_clashes(
    rows: &[(NonZeroU16, usize, Option<IpAddr>)],
    found: &mut Vec<(usize, usize, NonZeroU16, Option<IpAddr>)>,
) {
    let mut everywhere = None;
    let mut any = None;
    let mut taken = BTreeMap::new();
    for service in rows.chunk_by(|a, b| a.1 == b.1) {
        let clash = service.iter().find_map(|(port, index, address)| {
            let earlier = match address {
                None => any.map(|first| (first, None)),
                Some(address) => everywhere
                    .map(|first| (first, None))
                    .or_else(|| taken.get(address).map(|first| (*first, Some(*address)))),
            };
            earlier.map(|(first, address)| (*index, first, *port, address))
        });
        found.extend(clash);
        for (_, index, address) in service {
            any.get_or_insert(*index);
            match address {
                None => *everywhere.get_or_insert(*index),
                Some(address) => *taken.entry(*address).or_insert(*index),
            };
        }
    }
}

impl State {
    /// Creates a state from services that are valid one by one.
    ///
    /// # Errors
    ///
    /// Fails with the conflicts between the services.
    pub fn new(services: impl IntoIterator<Item = impl Into<Arc<Service>>>) -> Result<Self, InputProblems> {
        let state = Self::from_valid(services.into_iter().map(Into::into).collect());
        let mut problems = InputProblems::default();
        Claims::of(&state).check(&mut problems);
        problems.into_result()?;
        Ok(state)
    }
}
