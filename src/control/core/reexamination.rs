//! Services that are valid but cannot be served here now, because of ports that local programs use, addresses that the
//! gateway does not have, or backends that are the gateway itself. Each is held back by itself, and judged again when
//! the surroundings may have changed. A service that is served already stays served, with a problem.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::acceptance::{GatewayCheck, GatewayCheckError};
use super::held_back::{HeldService, is_possible_before, left, name_before};
use super::obstacles::{Obstacles, by_service};
use super::{Core, DaemonPhase, Now};
use crate::control::claimed::Claimed;
use crate::control::name::Name;
use crate::control::obstacle::not_examined;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use tcpgw_core::model::{Edits, Service, State};
use tcpgw_core::problem::{Problem, ProblemKind};

/// Interval between judgements while a port is in use: the kernel does not report when a program stops listening.
const LISTENERS: Duration = Duration::from_secs(5);
/// Interval between judgements where no check interval is set, or a longer one.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Problems that a judgement of the surroundings finds.
pub(super) const KINDS: [ProblemKind; 4] = [
    ProblemKind::HeldBack,
    ProblemKind::SourceAddressGone,
    ProblemKind::OwnBackend,
    ProblemKind::OutsideFences,
];

impl Core {
    /// Schedules a judgement after links, addresses or listeners changed, or may have.
    pub fn addresses_changed(&mut self, now: Now) {
        self.due.judge(now.instant);
    }

    /// Judges again when an examination of the gateway has ended for which the judgement waits.
    pub fn examination_ended(&mut self, now: Now) {
        if self.held_back.awaits_examination {
            self.addresses_changed(now);
        }
    }

    /// Schedules a judgement after edits whose `obstacles` are known. While nothing is held back and nothing lost, the
    /// other services, which may be 10,000, are not judged again.
    pub(super) fn edited(&mut self, obstacles: &Obstacles, now: Now) {
        let is_well = obstacles.is_empty()
            && self.held_back.has_judged
            && self.held_back.is_empty()
            && KINDS.iter().all(|kind| self.problems.get(*kind).is_none());
        if !is_well {
            self.addresses_changed(now);
        }
    }

    /// Returns whether [`Self::judge_surroundings`] has work.
    pub fn is_judgement_due(&self, now: Now) -> bool {
        self.phase == DaemonPhase::Running && self.due.is_judgement_due(now.instant)
    }

    /// Judges held-back services by the present state of the gateway, and at the start all that are not served
    /// already; finds served services that have lost what they need. `vet` need not return warnings.
    pub fn judge_surroundings(&mut self, vet: &mut GatewayCheck<'_>, now: Now) {
        self.due.judge_later();
        self.judge_refused();
        let candidates: BTreeSet<Name> = if self.held_back.has_judged {
            self.held_back.names().cloned().collect()
        } else {
            self.defined().map(|service| service.name.clone()).collect()
        };
        let all = State {
            services: self.defined().cloned().collect(),
        };
        let before = self.served_before();
        let is_new = |name: &Name| candidates.contains(name) || before.iter().any(|before| before.name == *name);
        let takes_over = self.settings.take_over;
        let is_known = |service: &Service| takes_over || !is_new(&service.name) || self.is_known(service);
        let vetted = vet(
            &State {
                services: all.services.iter().chain(&before).cloned().collect(),
            },
            &is_known,
        );
        self.held_back.awaits_examination = vetted == Err(GatewayCheckError::Pending);
        let (mut found, is_blind) = match vetted {
            Ok(vetted) => (by_service(vetted.obstacles), false),
            Err(GatewayCheckError::Pending) => return,
            Err(GatewayCheckError::Failed(error)) => {
                tracing::warn!(error, "failed to read addresses and listeners");
                if self.held_back.has_judged {
                    return self.examine_again(now);
                }
                (self.not_examined(&all, &error), true)
            }
        };
        self.add_fences(&all, &before, &mut found);
        self.add_own_listeners(&all.services, &mut found);
        let mut edits = Edits::default();
        for service in &all.services {
            let name = &service.name;
            if !candidates.contains(name) {
                continue;
            }
            let why = self.new_obstacles(service, found.get(name));
            if self.hold_back(service, why) {
                edits.put.push(Arc::clone(service));
            }
        }
        if !is_blind {
            self.serve_as_before(&all, &found, &mut edits);
        }
        edits.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.held_back.has_judged = true;
        self.held_back.former.clear();
        self.held_back.before.clear();
        self.held_back.served_last.clear();
        if !edits.is_empty() {
            self.wanted_instead("the gateway's addresses and listeners", &edits, now);
        }
        // Held-back services may have given way to others by these edits.
        self.lost_surroundings(&all, &found);
        if is_blind {
            return self.examine_again(now);
        }
        self.judge_later(now);
        self.rejected.again();
    }

    /// Returns services as they were served before a boot or a teardown, under names of their own.
    fn served_before(&self) -> Vec<Arc<Service>> {
        let named = self.held_back.before().map(|before| {
            Arc::new(Service {
                name: name_before(&before.name),
                ..Service::clone(before)
            })
        });
        named.collect()
    }

    /// Serves held-back services as before the machine booted, where this is possible now.
    fn serve_as_before(&mut self, all: &State, found: &Obstacles, edits: &mut Edits) {
        let held = all.services.iter().filter(|service| {
            let held = self.held_back.get(&service.name);
            held.is_some_and(|held| held.before.is_some()) && is_possible_before(&service.name, found)
        });
        let held: Vec<&Arc<Service>> = held.collect();
        for service in held {
            let before = self
                .held_back
                .get_mut(&service.name)
                .and_then(|held| held.before.take());
            let kept = before.and_then(|before| left(&Claimed::by(self.desired()), before));
            if let Some(held) = self.held_back.get_mut(&service.name) {
                held.kept = kept;
            }
            if !edits.put.iter().any(|put| put.name == service.name) {
                edits.put.push(Arc::clone(service));
            }
        }
    }

    /// Schedules a judgement after an examination failed.
    pub(super) fn examine_again(&mut self, now: Now) {
        self.due.judge_by(now.instant + LISTENERS);
    }

    /// Returns obstacles for all services after the first examination failed: those that are served stay, and no other
    /// is begun.
    fn not_examined(&self, all: &State, why: &str) -> Obstacles {
        let obstacles = all
            .services
            .iter()
            .filter_map(|service| not_examined(service, self.known_of(service), why));
        by_service(obstacles)
    }

    /// Schedules the next judgement. Changes are reported by the system, except those of listeners.
    fn judge_later(&mut self, now: Now) {
        let interval = self.settings.check_interval.unwrap_or(LONGEST).min(LONGEST);
        let pause = if self.held_back.waits_for_port() {
            LISTENERS
        } else {
            interval
        };
        self.due.judge(now.instant + pause);
    }

    /// Returns whether a service is served, or is about to be, where this one listens.
    pub(super) fn is_known(&self, service: &Service) -> bool {
        // The former service may be known with addresses that are a second out of date.
        let is_former = |former: &Arc<Service>| former.port == service.port;
        self.membership.serving_at(service).is_some()
            || self.held_back.former(service).any(is_former)
            || self.held_back.has_judged && self.membership.is_known(service)
    }

    /// Returns the obstacles that do not apply to what is served of the service already.
    pub(super) fn new_obstacles(&self, service: &Service, found: Option<&Vec<Obstacle>>) -> Vec<Obstacle> {
        let known: Vec<&Arc<Service>> = self.known_of(service).collect();
        let found = found.into_iter().flatten();
        let new = found.filter(|obstacle| !known.iter().any(|known| obstacle.is_in(known)));
        new.cloned().collect()
    }

    /// Returns the forms in which a service is served, is about to be, or was until the table was removed.
    fn known_of(&self, service: &Service) -> impl Iterator<Item = &Arc<Service>> {
        let there = self.membership.serving_at(service);
        let serving = self.membership.serving().get(&service.name).into_iter().chain(there);
        let wanted = self.membership.wanted().get(&service.name);
        let wanted = wanted.filter(|_| self.held_back.has_judged);
        // A suspended service gets its backends back.
        let suspended = self.api.get(&service.name).map(|stored| &stored.service);
        let is_kept = self.held_back.contains(&service.name);
        let suspended = suspended.filter(|_| !is_kept && self.addon.is_suspended(&service.name));
        serving
            .chain(wanted)
            .chain(suspended)
            .chain(self.held_back.former(service))
    }

    /// Holds a service back, or releases it if there is no reason. Returns whether its desired form changes.
    fn hold_back(&mut self, service: &Service, why: Vec<Obstacle>) -> bool {
        let name = &service.name;
        if why.is_empty() {
            return self.held_back.remove(name);
        }
        let before = self.held_back.before.remove(name);
        if let Some(held) = self.held_back.get_mut(name) {
            held.why = why;
            held.before = held.before.take().or(before).filter(|_| held.kept.is_none());
            return false;
        }
        // At the start everything was desired before it was judged.
        let kept = if self.held_back.has_judged {
            let wanted = self.membership.wanted().get(name).cloned();
            wanted.or_else(|| self.renamed(service))
        } else {
            let former = || {
                self.held_back
                    .former(service)
                    .find(|former| former.name == *name)
                    .cloned()
            };
            self.found(service).or_else(former)
        };
        let before = before.filter(|_| kept.is_none());
        self.held_back.insert(name, HeldService { why, kept, before });
        true
    }

    /// Returns a service as it was found at the start. A record that is older than the definition may know it by
    /// another name.
    fn found(&self, service: &Service) -> Option<Arc<Service>> {
        let found = self.membership.serving().get(&service.name).cloned();
        found.or_else(|| self.renamed(service))
    }

    /// Returns the service that is served where this one listens, if no provider defines its name any more.
    fn renamed(&self, service: &Service) -> Option<Arc<Service>> {
        let there = self.membership.serving_at(service)?;
        let is_another = self.defined().any(|defined| defined.name == there.name);
        (!is_another).then(|| {
            Arc::new(Service {
                name: service.name.clone(),
                ..Service::clone(there)
            })
        })
    }

    /// Returns the edits without what is held back. A held-back service follows its definition as far as it can, and
    /// gives way to what others claim.
    pub(super) fn possible(&mut self, edits: &Edits) -> Edits {
        let served = edits.put.iter().map(|service| Arc::clone(self.addon.served(service)));
        let edits = &Edits {
            put: served.collect(),
            gone: edits.gone.clone(),
        };
        for name in &edits.gone {
            self.held_back.remove(name);
        }
        if self.held_back.is_empty() {
            return edits.clone();
        }
        let (held, new): (Vec<_>, Vec<_>) = edits
            .put
            .iter()
            .cloned()
            .partition(|service| self.held_back.contains(&service.name));
        for service in &held {
            if let Some(held) = self.held_back.get_mut(&service.name) {
                let membership = &self.membership;
                held.follow(service, |endpoint| {
                    membership.services_of(endpoint).iter().any(|of| **of != service.name)
                });
            }
        }
        let changed = if std::mem::replace(&mut self.held_back.gave_way, true) {
            // A kept service fits to all that was there before.
            self.held_back.give_way(&Claimed::by(&new))
        } else {
            let others = self.defined().filter(|service| !self.held_back.contains(&service.name));
            let others: Vec<Arc<Service>> = others.map(|service| Arc::clone(self.addon.served(service))).collect();
            self.held_back.give_way(&Claimed::by(&others))
        };
        let of_held = held.iter().map(|service| {
            let kept = self.held_back.get(&service.name).and_then(|held| held.kept.clone());
            (service.name.clone(), kept)
        });
        let gone = edits.gone.iter().map(|name| (name.clone(), None));
        let mut put: BTreeMap<Name, Option<Arc<Service>>> = gone.chain(of_held).chain(changed).collect();
        for service in put.values_mut().flatten() {
            *service = Arc::clone(self.addon.served(service));
        }
        put.extend(new.into_iter().map(|service| (service.name.clone(), Some(service))));
        let mut possible = Edits::default();
        for (name, service) in put {
            match service {
                Some(service) => possible.put.push(service),
                None => possible.gone.push(name),
            }
        }
        possible
    }

    /// Updates the problems of held-back services and of served ones that lost what they need.
    fn lost_surroundings(&mut self, all: &State, found: &Obstacles) {
        let mut problems = Vec::new();
        for service in &all.services {
            let of = |problem: Problem| problem.of_service(&*service.name, service.port.get());
            if let Some(held) = self.held_back.get(&service.name) {
                let is_of_file = self.file.as_ref().is_some_and(|file| file.get(&service.name).is_some());
                let is_of_file = is_of_file || self.docker.get(&service.name).is_some();
                let take_over = held.waits_for_port().then(|| {
                    let how = if is_of_file {
                        format!("`take_over = true` under [daemon] in {}", self.config.path())
                    } else {
                        format!("`tcpgw service set {} --take-over`", service.name)
                    };
                    format!("{how} sends the port's new connections to the service")
                });
                let is_fenced = held.why.iter().any(|obstacle| obstacle.kind.is_fence());
                let fences = is_fenced.then(|| self.cure_of_fences(service));
                let cures: Vec<String> = take_over.into_iter().chain(fences).collect();
                problems.push(of(held.problem(service, &cures)));
                continue;
            }
            let lost = found.get(&service.name).into_iter().flatten();
            problems.extend(lost.filter_map(|obstacle| {
                let message = || {
                    format!(
                        "{}, which is served: {}",
                        obstacle.problem.place, obstacle.problem.message
                    )
                };
                match obstacle.kind {
                    // The listener is refused then, which is told of it.
                    ObstacleKind::PortTaken | ObstacleKind::OwnListener(_) | ObstacleKind::NotLookedAt => None,
                    ObstacleKind::FencedPort(_) | ObstacleKind::FencedBackend(_) | ObstacleKind::FencedSize => {
                        Some(of(self.outside_fences(service, obstacle)))
                    }
                    ObstacleKind::ForeignSource(_) => Some(of(Problem::new(ProblemKind::SourceAddressGone, message()))),
                    ObstacleKind::OwnBackend(at) => {
                        Some(of(Problem::new(ProblemKind::OwnBackend, message())).of_backend(at.into()))
                    }
                }
            }));
        }
        self.problems.replace(&KINDS, problems);
    }

    /// Returns the services as all providers define them, whether possible here or not.
    pub(super) fn defined(&self) -> impl Iterator<Item = &Arc<Service>> {
        let of_file = self.file.iter().flat_map(|file| &file.services);
        let orphans = self.orphans.iter().map(|orphan| &orphan.service);
        of_file
            .chain(self.docker.services())
            .chain(self.api.services())
            .chain(orphans)
    }

    /// Returns the services to serve: those of all providers without the held-back ones, and with their kept forms
    /// instead.
    pub(super) fn desired(&self) -> impl Iterator<Item = &Arc<Service>> {
        let possible = self.defined().filter(|service| !self.held_back.contains(&service.name));
        possible
            .map(|service| self.addon.served(service))
            .chain(self.held_back.kept().map(|kept| self.addon.served(kept)))
    }

    /// Holds back services that a provider defines and that have obstacles, and releases others.
    pub(super) fn decide(&mut self, edits: &Edits, mut obstacles: Obstacles) {
        for service in &edits.put {
            let why = obstacles.remove(&service.name).unwrap_or_default();
            self.hold_back(service, why);
        }
    }

    /// Adds held-back services that a state does not change to the edits, so that an order decides about them again.
    pub(super) fn add_held_back(&self, edits: &mut Edits, state: &State) {
        let held = state
            .services
            .iter()
            .filter(|service| self.held_back.contains(&service.name));
        let held: Vec<_> = held.filter(|service| !edits.touches(&service.name)).cloned().collect();
        edits.put.extend(held);
        edits.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
}
