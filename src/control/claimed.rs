//! What services claim that others may have had: names, ports on the same address, endpoints on other terms; and what is left
//! of a service beside them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::membership::overlap;
use tcpgw_core::model::shared::Terms;
use tcpgw_core::model::{BackendState, Endpoint, Service};

/// What some services claim. They are valid together.
#[derive(Debug, Default)]
pub(crate) struct Claimed<'s> {
    names: BTreeMap<&'s str, &'s Service>,
    ports: BTreeMap<NonZeroU16, Vec<&'s Service>>,
    endpoints: BTreeMap<Endpoint, Sharing>,
    terms: Vec<(&'s Service, Terms)>,
}

/// Of the services that have an endpoint, those that are asked about it. They agree, so that one speaks for all.
#[derive(Debug)]
struct Sharing {
    first: usize,
    /// The first that says something about it: in which it does not drain.
    binding: Option<usize>,
}

/// What is left of a service beside others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Left<'s> {
    /// All of it.
    Whole,
    /// It is changed: what is not known of it is taken over from a service that has an endpoint of it, too.
    Completed(Service),
    /// What remains without some endpoints, which this service has on other terms.
    Part(Service, &'s Service),
    /// Nothing: this service has its name, or listens where it does.
    Nothing(&'s Service),
}

impl<'s> Claimed<'s> {
    /// Of these.
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

    /// Returns what is left of a service. An endpoint stays if it can be shared: if those who have it say the same of it.
    /// `is_whole`: it is as its provider wanted it; else nothing is known of its `health`, which no rule tells.
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

    /// The service that has this one's name, or listens where it does.
    fn where_is(&self, service: &Service) -> Option<&'s Service> {
        let mut there = self.ports.get(&service.port).into_iter().flatten();
        let same = self.names.get(&*service.name);
        same.or_else(|| there.find(|other| overlap(&other.listen, &service.listen)))
            .copied()
    }

    /// A service that has the endpoint on other terms than these.
    fn differing(&self, terms: &Terms, endpoint: Endpoint) -> Option<&'s Service> {
        let (service, others) = self.terms.get(self.endpoints.get(&endpoint)?.binding?)?;
        terms.differences(others, endpoint).map(|_| *service)
    }

    /// Returns the service with the probes of one that has an endpoint of it, if they differ.
    pub(crate) fn completed(&self, service: &Service) -> Option<Service> {
        let mut backends = service.backends.iter();
        let sharing = backends.find_map(|backend| self.endpoints.get(&backend.endpoint))?;
        let (other, _) = self.terms.get(sharing.first)?;
        (other.health != service.health).then(|| Service {
            health: other.health,
            ..service.clone()
        })
    }
}

impl Left<'_> {
    /// Returns the service as it is left, which may have lost all its backends; `None`: nothing is left of it.
    pub(crate) fn rest(self, service: &Service) -> Option<Service> {
        match self {
            Left::Whole => Some(service.clone()),
            Left::Completed(rest) | Left::Part(rest, _) => Some(rest),
            Left::Nothing(_) => None,
        }
    }

    /// The same without a service that has lost all its backends to others.
    pub(crate) fn reached(self, service: &Service) -> Option<Service> {
        let loses = matches!(self, Left::Part(..));
        self.rest(service).filter(|rest| !(loses && rest.backends.is_empty()))
    }
}

/// What is left of services that were found beside those that others want: each with whether it is as its provider wanted
/// it. A service that has lost all its backends to others is not left. What was found is called as a record says, which may
/// be older than what others want.
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

/// Returns what is taken from an orphan, in words; `None`: nothing, or its name is defined anew.
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
            let lost: Vec<String> = lost.filter(|at| !stays(*at)).map(|at| at.to_string()).collect();
            let (what, by) = if rest.backends.is_empty() {
                ("ends", &by.name)
            } else {
                ("loses backends", &by.name)
            };
            let more = match lost.len().saturating_sub(MOST) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let lost = lost
                .iter()
                .take(MOST)
                .map(AsRef::as_ref)
                .collect::<Vec<&str>>()
                .join(", ");
            Some(format!(
                "{is} {what}: service \"{by}\" has {lost}{more}, too, and does not agree on limit, source, source_addresses and health"
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

    /// A record that is older than the store does not know their names.
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
        let told: Vec<(&str, usize)> = rest.iter().map(|of| (&*of.name, of.backends.len())).collect();
        assert_eq!(told, [("both", 1), ("empty", 0)]);
        let claimed = Claimed::by(&wanted);
        let Left::Part(_, other) = claimed.leave(&found[0], true) else {
            panic!("it loses one");
        };
        assert_eq!(&*other.name, "web");
    }

    /// No rule tells how a backend is probed.
    #[test]
    fn probes_that_are_not_known_are_those_of_who_shares_the_endpoint() {
        let found = services(r#"{"name": "found", "port": 2001, "backends": ["10.2.0.11:80"]}"#);
        let wanted = services(r#"{"name": "web", "port": 2004, "health": {"fall": 9}, "backends": ["10.2.0.11:80"]}"#);
        assert_eq!(left(&found, &wanted, true), []);
        let completed = Service {
            health: wanted[0].health,
            ..Service::clone(&found[0])
        };
        assert_eq!(left(&found, &wanted, false), [completed]);
    }
}
