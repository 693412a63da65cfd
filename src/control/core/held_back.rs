//! The services that are held back: why, and how they are served meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::surroundings::Obstacles;
use crate::control::claimed::Claimed;
use crate::control::membership::Name;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use crate::store::last::Kept;
use tcpgw_core::model::{Endpoint, Service};
use tcpgw_core::problem::{Kind, Problem};

/// The services that are held back.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    services: BTreeMap<Name, HeldService>,
    /// The services that were found at the start have been judged.
    pub(super) has_judged: bool,
    /// What is kept has given way to all that others claim once.
    pub(super) gave_way: bool,
    /// They are judged when the look that goes on has ended.
    pub(super) awaits_look: bool,
    /// Services that were served in this boot when the last process ended, and whose table somebody removed before this one began.
    pub(super) former: Vec<Arc<Service>>,
    /// Services as they were served until the machine booted, while a change of them was held back; until the first judgement.
    pub(super) before: BTreeMap<Name, Arc<Service>>,
}

#[derive(Debug, Default)]
pub(super) struct HeldService {
    pub(super) why: Vec<Obstacle>,
    /// As it is served meanwhile, if it was served before it was held back.
    pub(super) kept: Option<Arc<Service>>,
    /// As it was served before the machine booted or a teardown, where that has not been found possible since.
    pub(super) before: Option<Arc<Service>>,
}

impl HeldBack {
    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether nobody knows yet what is possible here, and a look goes on: nothing is told to the kernel before it has ended.
    pub(super) fn awaits_first_judgement(&self) -> bool {
        !self.has_judged && self.awaits_look
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

    /// Why a service is held back, in words.
    pub(super) fn reasons(&self, name: &str) -> Vec<String> {
        let why = self.services.get(name).map(|held| &held.why);
        why.into_iter().flatten().map(Obstacle::reason).collect()
    }

    /// The services that are served as they were before.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|held| held.kept.as_ref())
    }

    /// How services are served, or were before the machine booted, while what is desired of them is held back.
    pub(super) fn to_remember(&self) -> impl Iterator<Item = Kept> {
        let of_held = self.services.values().filter_map(|held| {
            let service = held.kept.as_ref().or(held.before.as_ref())?;
            Some((service, held.kept.is_none()))
        });
        let unjudged = self.before.values().map(|service| (service, true));
        of_held.chain(unjudged).map(|(service, is_unserved)| Kept {
            service: Arc::clone(service),
            is_unserved,
        })
    }

    /// Nothing is served any more: what was is judged again when services are.
    pub(super) fn keep_nothing(&mut self) {
        for held in self.services.values_mut() {
            held.before = held.kept.take().or_else(|| held.before.take());
        }
    }

    /// Returns the former services of that name, or that listened there.
    pub(super) fn former(&self, service: &Service) -> impl Iterator<Item = &Arc<Service>> {
        let is_it = move |former: &&Arc<Service>| {
            former.name == service.name || former.port == service.port && former.listen == service.listen
        };
        self.former.iter().filter(is_it)
    }

    /// How services were served before the machine booted or a teardown that are held back, or may be found to be.
    pub(super) fn before(&self) -> impl Iterator<Item = &Arc<Service>> {
        let of_held = self.services.values().filter_map(|held| held.before.as_ref());
        of_held.chain(self.before.values())
    }

    /// The next judgement decides of a service that is not served yet.
    pub(super) fn add(&mut self, name: &Name) {
        self.services.insert(name.clone(), HeldService::default());
    }

    pub(super) fn insert(&mut self, name: &Name, held: HeldService) {
        self.services.insert(name.clone(), held);
    }

    /// Returns whether it was held back.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.services.remove(name).is_some()
    }

    /// Whether a port is to be looked at again soon.
    pub(super) fn waits_for_port(&self) -> bool {
        let mut held = self.services.values();
        held.any(|held| held.waits_for_port() || held.before.is_some())
    }

    /// What is kept gives way to what others claim. Returns the services that change by that, as they are served now.
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

/// What is left of a service beside what others claim.
pub(super) fn left(claimed: &Claimed<'_>, service: Arc<Service>) -> Option<Arc<Service>> {
    let rest = claimed.leave(&service, true).rest(&service)?;
    Some(if rest == *service { service } else { Arc::new(rest) })
}

impl HeldService {
    pub(super) fn waits_for_port(&self) -> bool {
        self.why.iter().any(|obstacle| obstacle.kind == ObstacleKind::PortTaken)
    }

    /// What is served follows what is said of it, but for where it listens and whom it reaches, which it may be held back for:
    /// a limit, a network that is denied, a time is changed at once. `is_shared` tells of which endpoints another service has a say.
    pub(super) fn follow(&mut self, said: &Service, is_shared: impl Fn(Endpoint) -> bool) {
        let Some(kept) = self.kept.take() else { return };
        let has = |endpoint| said.backends.iter().any(|backend| backend.endpoint == endpoint);
        // On what belongs to an endpoint all must agree whose it is, as it is served.
        let mut endpoints = kept.backends.iter().map(|backend| backend.endpoint);
        let is_own = endpoints.all(|endpoint| has(endpoint) && !is_shared(endpoint));
        let terms = if is_own { said } else { &*kept };
        self.kept = Some(Arc::new(Service {
            port: kept.port,
            listen: kept.listen.clone(),
            backends: kept.backends.clone(),
            source: kept.source,
            source_addresses: kept.source_addresses.clone(),
            limit: terms.limit,
            health: terms.health,
            ..said.clone()
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
        Problem::new(Kind::HeldBack, message)
    }
}

/// The name by which a service as it was before is looked at, beside what is desired of it. No service has such a name.
pub(super) fn name_before(name: &str) -> Name {
    format!("{name} (before)").into()
}

/// Whether a service as it was before may be served, by what was found.
pub(super) fn is_possible_before(name: &str, found: &Obstacles) -> bool {
    let of_size = |obstacle: &Obstacle| obstacle.kind == ObstacleKind::FencedSize;
    let is_one_too_many = found.get(name).into_iter().flatten().any(of_size);
    !is_one_too_many && found.get(&name_before(name)).is_none_or(Vec::is_empty)
}
