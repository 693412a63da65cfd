//! Services that are held back: the reasons, and how they are served meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::obstacles::Obstacles;
use crate::control::claimed::Claimed;
use crate::control::name::Name;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use crate::store::last_services::KeptService;
use tcpgw_core::model::{Endpoint, Service};
use tcpgw_core::problem::{Problem, ProblemKind};

/// The services that are held back.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    services: BTreeMap<Name, HeldService>,
    /// Whether the services found at the start have been judged.
    pub(super) has_judged: bool,
    /// Whether kept services have given way once to all that others claim.
    pub(super) gave_way: bool,
    /// Whether they are judged when the examination under way has ended.
    pub(super) awaits_examination: bool,
    /// Services that the last process of this boot served, and whose table another process removed before this one
    /// began.
    pub(super) former: Vec<Arc<Service>>,
    /// Services as the daemon before this one served them, or as it was to serve them; until the first judgement.
    pub(super) served_last: BTreeMap<Name, Arc<Service>>,
    /// Services as they were served before the machine booted, while a change of them was held back; until the first
    /// judgement.
    pub(super) before: BTreeMap<Name, Arc<Service>>,
}

#[derive(Debug, Default)]
pub(super) struct HeldService {
    pub(super) why: Vec<Obstacle>,
    /// The service as it is served meanwhile, if it was served before it was held back.
    pub(super) kept: Option<Arc<Service>>,
    /// The service as it was served before a boot or a teardown, when this has not been found possible since.
    pub(super) before: Option<Arc<Service>>,
}

impl HeldBack {
    /// Returns whether no service is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Returns whether the services have not been judged yet and an examination is under way: the kernel is not
    /// changed before it has ended.
    pub(super) fn awaits_first_judgement(&self) -> bool {
        !self.has_judged && self.awaits_examination
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&HeldService> {
        self.services.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut HeldService> {
        self.services.get_mut(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Returns the reasons why a service is held back.
    pub(super) fn reasons(&self, name: &str) -> Vec<String> {
        let why = self.services.get(name).map(|held| &held.why);
        why.into_iter().flatten().map(Obstacle::reason).collect()
    }

    /// Returns the services that are served as they were before.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|held| held.kept.as_ref())
    }

    /// Returns held-back services as they are served, or were served before the machine booted.
    pub(super) fn to_remember(&self) -> impl Iterator<Item = KeptService> {
        let of_held = self.services.values().filter_map(|held| {
            let service = held.kept.as_ref().or(held.before.as_ref())?;
            Some((service, held.kept.is_none()))
        });
        let unjudged = self.before.values().map(|service| (service, true));
        of_held.chain(unjudged).map(|(service, is_unserved)| KeptService {
            service: Arc::clone(service),
            is_unserved,
        })
    }

    /// Marks kept services as not served after a teardown; they are judged again when services are.
    pub(super) fn keep_nothing(&mut self) {
        for held in self.services.values_mut() {
            held.before = held.kept.take().or_else(|| held.before.take());
        }
    }

    /// Returns the former services that have the name of this one, or its port and addresses.
    pub(super) fn former(&self, service: &Service) -> impl Iterator<Item = &Arc<Service>> {
        let is_it = move |former: &&Arc<Service>| {
            former.name == service.name || former.port == service.port && former.listen == service.listen
        };
        self.former.iter().filter(is_it)
    }

    /// Returns the services that are or may be held back, as they were served before a boot or a teardown.
    pub(super) fn before(&self) -> impl Iterator<Item = &Arc<Service>> {
        let of_held = self.services.values().filter_map(|held| held.before.as_ref());
        of_held.chain(self.before.values())
    }

    /// Adds a service that is not served yet, for the next judgement.
    pub(super) fn add(&mut self, name: &Name) {
        self.services.insert(name.clone(), HeldService::default());
    }

    pub(super) fn insert(&mut self, name: &Name, held: HeldService) {
        self.services.insert(name.clone(), held);
    }

    /// Removes a service. Returns whether it was held back.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.services.remove(name).is_some()
    }

    /// Returns whether a port has to be examined again soon.
    pub(super) fn waits_for_port(&self) -> bool {
        let mut held = self.services.values();
        held.any(|held| held.waits_for_port() || held.before.is_some())
    }

    /// Reduces kept services by what others claim. Returns the changed ones, as they are served now.
    pub(super) fn give_way(&mut self, claimed: &Claimed<'_>) -> Vec<(Name, Option<Arc<Service>>)> {
        let mut changed = Vec::new();
        for (name, held) in &mut self.services {
            held.before = held.before.take().and_then(|before| left(claimed, before));
            let Some(kept) = held.kept.take() else { continue };
            let before = Arc::clone(&kept);
            held.kept = left(claimed, kept);
            if held.kept.as_ref() != Some(&before) {
                changed.push((name.clone(), held.kept.clone()));
            }
        }
        changed
    }
}

/// Returns the part of a service that others do not claim.
pub(super) fn left(claimed: &Claimed<'_>, service: Arc<Service>) -> Option<Arc<Service>> {
    let rest = claimed.leave(&service, true).rest(&service)?;
    Some(if rest == *service { service } else { Arc::new(rest) })
}

impl HeldService {
    pub(super) fn waits_for_port(&self) -> bool {
        self.why.iter().any(|obstacle| obstacle.kind == ObstacleKind::PortTaken)
    }

    /// Applies a new definition to the kept service, except for its addresses and backends, for which it may be held
    /// back: a limit, a denied network or a timeout changes at once. `is_shared`: whether another service has the
    /// endpoint, too.
    pub(super) fn follow(&mut self, defined: &Service, is_shared: impl Fn(Endpoint) -> bool) {
        let Some(kept) = self.kept.take() else { return };
        let has = |endpoint| defined.backends.iter().any(|backend| backend.endpoint == endpoint);
        // All services of an endpoint must agree on the settings of the endpoint, as it is served.
        let mut endpoints = kept.backends.iter().map(|backend| backend.endpoint);
        let is_own = endpoints.all(|endpoint| has(endpoint) && !is_shared(endpoint));
        let terms = if is_own { defined } else { &*kept };
        self.kept = Some(Arc::new(Service {
            port: kept.port,
            listen: kept.listen.clone(),
            backends: kept.backends.clone(),
            source: kept.source,
            source_addresses: kept.source_addresses.clone(),
            limit: terms.limit,
            health: terms.health.clone(),
            ..defined.clone()
        }));
    }

    pub(super) fn problem(&self, service: &Service, cures: &[String]) -> Problem {
        let why: Vec<String> = self.why.iter().map(Obstacle::reason).collect();
        let meanwhile = match (&self.kept, &self.before) {
            (Some(kept), _) if kept.backends.is_empty() => "is served without backends",
            (Some(_), _) => "is served without this",
            (None, Some(_)) => "is not served, and cannot be served as it was before either",
            (None, None) => "is not served",
        };
        let why: Vec<&str> = why.iter().chain(cures).map(String::as_str).collect();
        let message = format!(
            "service \"{}\" :{} is held back and {meanwhile}: {}",
            service.name,
            service.port,
            why.join("; ")
        );
        Problem::new(ProblemKind::HeldBack, message)
    }
}

/// Returns the name under which the earlier form of a service is judged next to its desired form. No service can have
/// this name.
pub(super) fn name_before(name: &str) -> Name {
    format!("{name} (before)").into()
}

/// Returns whether the earlier form of a service may be served, by the obstacles found.
pub(super) fn is_possible_before(name: &str, found: &Obstacles) -> bool {
    let of_size = |obstacle: &Obstacle| obstacle.kind == ObstacleKind::FencedSize;
    let is_one_too_many = found.get(name).into_iter().flatten().any(of_size);
    !is_one_too_many && found.get(&name_before(name)).is_none_or(Vec::is_empty)
}
