//! Conflicts between services over names, ports on the same address, and endpoints with different settings; and the
//! part of a service that remains beside others.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::membership::overlap;
use tcpgw_core::model::shared::Terms;
use tcpgw_core::model::{BackendState, Endpoint, Service};
use tcpgw_core::words::first_and_more;

/// Claims of some services, which do not conflict with each other.
#[derive(Debug, Default)]
pub(crate) struct Claimed<'s> {
    names: BTreeMap<&'s str, &'s Service>,
    ports: BTreeMap<NonZeroU16, Vec<&'s Service>>,
    endpoints: BTreeMap<Endpoint, Sharing>,
    terms: Vec<(&'s Service, Terms)>,
}

/// Services that have an endpoint. They agree on its settings, so that one of them is compared.
#[derive(Debug)]
struct Sharing {
    first: usize,
    /// The first service in which the endpoint is active, so that its settings apply.
    binding: Option<usize>,
}

/// The part of a service that remains beside others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Left<'s> {
    /// The whole service.
    Whole,
    /// The whole service, with unknown settings taken from a service that has one of its endpoints, too.
    Completed(Service),
    /// The service without some endpoints, which this other service has with different settings.
    Part(Service, &'s Service),
    /// The service is displaced: this one has its name, or listens where it does.
    Nothing(&'s Service),
}

impl<'s> Claimed<'s> {
    /// Collects the claims of these services.
    pub(crate) fn by(services: impl IntoIterator<Item = &'s Arc<Service>>) -> Self {
        let mut claimed = Self::default();
        for service in services {
            claimed.names.insert(&service.name, service);
            claimed.ports.entry(service.port).or_default().push(service);
            let at = claimed.terms.len();
            for backend in &service.backends {
                let sharing = claimed.endpoints.entry(backend.endpoint).or_insert(Sharing {
                    first: at,
                    binding: None,
                });
                if backend.state == BackendState::Active {
                    sharing.binding.get_or_insert(at);
                }
            }
            claimed.terms.push((service, Terms::of(service)));
        }
        claimed
    }

    /// Returns the part of a service that remains. An endpoint remains if the services that have it agree on its
    /// settings. `is_whole`: the service is as its provider defined it; otherwise its `health`, which is in no rule,
    /// is unknown.
    pub(crate) fn leave(&self, service: &Service, is_whole: bool) -> Left<'s> {
        if let Some(other) = self.where_is(service) {
            return Left::Nothing(other);
        }
        let completed = if is_whole { None } else { self.completed(service) };
        let own = completed.as_ref().unwrap_or(service);
        let terms = Terms::of(own);
        let lost: BTreeMap<Endpoint, &Service> = own
            .backends
            .iter()
            .filter_map(|backend| Some((backend.endpoint, self.differing(&terms, backend.endpoint)?)))
            .collect();
        let Some(other) = lost.values().next().copied() else {
            return completed.map_or(Left::Whole, Left::Completed);
        };
        let mut rest = own.clone();
        rest.backends.retain(|backend| !lost.contains_key(&backend.endpoint));
        Left::Part(rest, other)
    }

    /// Returns the service that has this one's name, or listens where it does.
    fn where_is(&self, service: &Service) -> Option<&'s Service> {
        let mut there = self.ports.get(&service.port).into_iter().flatten();
        let same = self.names.get(&*service.name);
        same.or_else(|| there.find(|other| overlap(&other.listen, &service.listen)))
            .copied()
    }

    /// Returns a service that has the endpoint with other settings than these.
    fn differing(&self, terms: &Terms, endpoint: Endpoint) -> Option<&'s Service> {
        let (service, others) = self.terms.get(self.endpoints.get(&endpoint)?.binding?)?;
        terms.differences(others, endpoint).map(|_| *service)
    }

    /// Returns the service with the probe settings of another one that has one of its endpoints, if they differ.
    pub(crate) fn completed(&self, service: &Service) -> Option<Service> {
        let mut backends = service.backends.iter();
        let sharing = backends.find_map(|backend| self.endpoints.get(&backend.endpoint))?;
        let (other, _) = self.terms.get(sharing.first)?;
        (other.health != service.health).then(|| Service {
            health: other.health.clone(),
            ..service.clone()
        })
    }
}

impl Left<'_> {
    /// Returns the remaining service, which may have lost all its backends; `None`: nothing remains.
    pub(crate) fn rest(self, service: &Service) -> Option<Service> {
        match self {
            Left::Whole => Some(service.clone()),
            Left::Completed(rest) | Left::Part(rest, _) => Some(rest),
            Left::Nothing(_) => None,
        }
    }

    /// Returns the remaining service; `None`: nothing remains, or it has lost all its backends to others.
    pub(crate) fn reached(self, service: &Service) -> Option<Service> {
        let loses = matches!(self, Left::Part(..));
        self.rest(service).filter(|rest| !(loses && rest.backends.is_empty()))
    }
}

/// Returns the parts of found services that remain beside the desired ones `others`. Each found service comes with
/// whether it is as its provider defined it. A service that has lost all its backends is left out. Found services have
/// the names of a record, which may be outdated.
pub(crate) fn beside<'s, 'f>(
    found: impl IntoIterator<Item = (&'f Service, bool)>,
    others: impl IntoIterator<Item = &'s Arc<Service>>,
) -> Vec<Service> {
    let claimed = Claimed::by(others);
    let found = found.into_iter();
    found
        .filter_map(|(service, is_whole)| claimed.leave(service, is_whole).reached(service))
        .collect()
}

/// Returns a text about what an orphan loses; `None`: nothing, or its name is defined again.
pub(crate) fn displacement(orphan: &Service, left: &Left<'_>) -> Option<String> {
    const MOST: usize = 5;
    let is = format!(
        "service \"{}\" :{}, which no provider defines any more,",
        orphan.name, orphan.port
    );
    match left {
        Left::Whole | Left::Completed(_) => None,
        Left::Nothing(by) if by.name == orphan.name => None,
        Left::Nothing(by) => Some(format!("{is} ends: service \"{}\" listens there now", by.name)),
        Left::Part(rest, by) => {
            let stays = |endpoint| rest.backends.iter().any(|backend| backend.endpoint == endpoint);
            let lost = orphan.backends.iter().map(|backend| backend.endpoint);
            let lost = first_and_more(lost.filter(|at| !stays(*at)), MOST);
            let (what, by) = if rest.backends.is_empty() {
                ("ends", &by.name)
            } else {
                ("loses backends", &by.name)
            };
            Some(format!(
                "{is} {what}: service \"{by}\" has {lost}, too, and does not agree on limit, source, source_addresses and health"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(text: &str) -> Vec<Arc<Service>> {
        let text = format!(r#"{{"version": 1, "services": [{text}]}}"#);
        tcpgw_core::model::parse(text.as_bytes()).unwrap().services
    }

    fn left(found: &[Arc<Service>], others: &[Arc<Service>], is_whole: bool) -> Vec<Service> {
        beside(found.iter().map(|service| (&**service, is_whole)), others)
    }

    /// Tests services that a record which is older than the store knows by other names.
    #[test]
    fn what_others_define_by_name_or_port_is_not_left() {
        let found = services(
            r#"{"name": "unnamed", "port": 2001, "backends": ["10.2.0.11:80"]},
               {"name": "moved", "port": 2002, "backends": ["10.2.0.12:80"]},
               {"name": "files", "port": 2003, "backends": ["10.2.0.11:80", "10.2.0.13:80", "10.2.0.14:80"]}"#,
        );
        let wanted = services(
            r#"{"name": "web", "port": 2001, "backends": ["10.2.0.11:80"]},
               {"name": "moved", "port": 2004, "backends": ["10.2.0.12:80", "10.2.0.14:80"]}"#,
        );
        let files: Vec<Service> = found
            .iter()
            .filter(|of| &*of.name == "files")
            .map(|of| Service::clone(of))
            .collect();
        assert_eq!(left(&found, &wanted, true), files, "endpoints are shared");
        let all: Vec<Service> = found.iter().map(|service| Service::clone(service)).collect();
        assert_eq!(left(&found, &[], true), all);
    }

    #[test]
    fn an_endpoint_that_cannot_be_shared_is_another_ones() {
        let found = services(
            r#"{"name": "both", "port": 2001, "backends": ["10.2.0.11:80", "10.2.0.12:80"]},
               {"name": "empty", "port": 2002, "backends": []},
               {"name": "one", "port": 2003, "backends": ["10.2.0.11:80"]}"#,
        );
        let wanted = services(
            r#"{"name": "web", "port": 2004, "limit": {"pps": 7}, "backends": ["10.2.0.11:80"]},
               {"name": "drains", "port": 2005, "limit": {"pps": 9},
                "backends": [{"address": "10.2.0.12", "port": 80, "state": "draining"}]}"#,
        );
        let rest = left(&found, &wanted, true);
        let listed: Vec<(&str, usize)> = rest.iter().map(|of| (&*of.name, of.backends.len())).collect();
        assert_eq!(listed, [("both", 1), ("empty", 0)]);
        let claimed = Claimed::by(&wanted);
        let Left::Part(_, other) = claimed.leave(&found[0], true) else {
            panic!("it loses one");
        };
        assert_eq!(&*other.name, "web");
    }

    /// Tests probe settings, which are in no rule.
    #[test]
    fn probes_that_are_not_known_are_those_of_who_shares_the_endpoint() {
        let found = services(r#"{"name": "found", "port": 2001, "backends": ["10.2.0.11:80"]}"#);
        let wanted = services(r#"{"name": "web", "port": 2004, "health": {"fall": 9}, "backends": ["10.2.0.11:80"]}"#);
        assert_eq!(left(&found, &wanted, true), []);
        let completed = Service {
            health: wanted[0].health.clone(),
            ..Service::clone(&found[0])
        };
        assert_eq!(left(&found, &wanted, false), [completed]);
    }
}
