//! Whether a change is accepted: by the rules of a state, by its size, by the owners of its services, by the gateway.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::surroundings::{Obstacles, by_service, refuse};
use super::{Core, Phase, Provider};
use crate::control::membership::Name;
use crate::control::obstacle::Obstacle;
use crate::control::request::{ApplyOptions, Refused};
use crate::view::problems::some_of;
use tcpgw_core::diff::count;
use tcpgw_core::model::{Balance, Edits, Problem, Problems, Service, State};

/// What the gateway itself says to a state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vetted {
    /// What keeps services of it from being served here now.
    pub obstacles: Vec<Obstacle>,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
}

/// What was accepted.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What is odd about it.
    pub(super) warnings: Vec<String>,
    /// What keeps services of it from being served here now; they are to be held back.
    pub(super) obstacles: Obstacles,
}

/// What a provider has, and would have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProviderSize {
    /// Which.
    pub(super) provider: Provider,
    /// How many services it has.
    pub(super) before: usize,
    /// How many it would have.
    pub(super) after: usize,
}

/// Why there is no [`Vetted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unvetted {
    /// The look goes on. Whoever asked asks again when it has ended, which [`Core::look_ended`] is told.
    Pending,
    /// It failed, in words.
    Failed(String),
}

/// Looks at a state as the gateway does: the edge's part of judging it. The function tells which services are there already.
pub type Vet<'a> = dyn FnMut(&State, &dyn Fn(&Service) -> bool) -> Result<Vetted, Unvetted> + 'a;

/// Why something was not accepted.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// The gateway is being looked at: nothing is decided, and it is judged again.
    Pending,
    /// It is refused.
    Refused(Refused),
}

impl From<Refused> for Unjudged {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Core {
    /// Whether a provider may want that beside what others want. By themselves the services have been found valid when they
    /// were read. Only what is edited is looked at.
    pub(super) fn judge(
        &self,
        edits: &Edits,
        standing: ProviderSize,
        options: ApplyOptions,
        vet: &mut Vet<'_>,
    ) -> Result<Judged, Unjudged> {
        self.judge_books(edits, standing.provider)?;
        let ProviderSize { before, after, .. } = standing;
        if after == 0 && before > 0 && !options.allow_empty {
            return Err(Unjudged::Refused(Refused::Refused(match standing.provider {
                Provider::File => self.empty_file(before),
                Provider::Api => self.empty_apply(),
            })));
        }
        let edited = State {
            services: edits.put.clone(),
        };
        // At the start the first judgement decides, when it is known what is served.
        let is_known = |service: &Service| options.take_over || !self.held_back.has_judged || self.is_known(service);
        let vetted = vet(&edited, &is_known).map_err(|unvetted| match unvetted {
            Unvetted::Pending => Unjudged::Pending,
            Unvetted::Failed(why) => Unjudged::Refused(Refused::Failed(why)),
        })?;
        let found = by_service(vetted.obstacles);
        let services = edited.services.iter();
        let obstacles = services.flat_map(|service| self.new_obstacles(service, found.get(&service.name)));
        let obstacles: Vec<Obstacle> = obstacles.collect();
        let warnings = tcpgw_core::model::warnings(&edited).into_iter().chain(vetted.warnings);
        if !options.hold_back {
            refuse(&obstacles)?;
        }
        Ok(Judged {
            warnings: warnings
                .map(|warning| warning.to_string())
                .chain(self.warn_of_displacements(edits))
                .collect(),
            obstacles: by_service(obstacles),
        })
    }

    /// Why a state file without services is refused.
    pub(super) fn empty_file(&self, before: usize) -> String {
        let (are, all) = if before == 1 {
            ("is", "it shall go")
        } else {
            ("are", "they shall go")
        };
        format!(
            "{} has no services, and {} of it {are} served: if {all}, set `allow_empty = true` under [daemon] in {} and reload the \
             daemon (SIGHUP); `tcpgw export --provider file` prints what is served, and `tcpgw apply` changes only what came in through the API",
            self.origin,
            count(before, "service"),
            self.config.path()
        )
    }

    /// Why a state without services is not taken through the API.
    fn empty_apply(&self) -> String {
        let names: Vec<&str> = self.api.stored().map(|stored| &*stored.service.name).collect();
        format!(
            "the state has no services; --allow-empty removes all that came in through the API: {} ({})",
            count(names.len(), "service"),
            some_of(&names)
        )
    }

    /// The part of [`Self::judge`] that is known without asking the system.
    pub(super) fn judge_books(&self, edits: &Edits, provider: Provider) -> Result<(), Refused> {
        let all = &self.with_orphans(edits);
        let sizes = self.config.fences_sizes().then(|| self.sizes_with(all));
        let sizes = sizes.map(|(services, backends)| self.config.check_sizes(services, backends));
        let fences = edits.put.iter().flat_map(|service| self.config.check_service(service));
        let problems: Problems = sizes.into_iter().flatten().chain(fences).collect();
        problems.into_result().map_err(Refused::Invalid)?;
        let names = edits.put.iter().map(|service| &service.name);
        let of_others = names.filter_map(|name| self.owner_problem(name, provider));
        let problems: Problems = of_others.collect();
        problems.into_result().map_err(Refused::Invalid)?;
        let has_turns = edits.put.iter().any(|service| service.balance == Balance::RoundRobin);
        // The membership is all that is desired, while it is in use; the number of chains is known to those who count them.
        if self.phase == Phase::Running && !has_turns {
            // What is kept of those that are held back gives way.
            let held = self.held_back.names().filter(|name| !all.touches(name));
            let held: Vec<&Name> = held.collect();
            let beside_kept;
            let beside = if held.is_empty() {
                all
            } else {
                let mut gone = all.gone.clone();
                gone.extend(held.iter().copied().cloned());
                gone.sort_unstable();
                beside_kept = Edits {
                    put: all.put.clone(),
                    gone,
                };
                &beside_kept
            };
            self.membership
                .clashes(beside)
                .into_result()
                .map_err(Refused::Invalid)?;
            // A suspended service is desired without its backends, and is to have them again.
            let suspended = self.addon.suspended_names().filter(|name| !all.touches(name));
            // The membership knows their ports: only edits with backends can clash with what it lacks.
            let has_backends = all.put.iter().any(|service| !service.backends.is_empty());
            let other: BTreeMap<&str, &Arc<Service>> = suspended
                .filter(|_| has_backends)
                .map(|name| &**name)
                .chain(held.iter().map(|name| &***name))
                .filter_map(|name| Some((name, self.said_of(name)?)))
                .collect();
            if other.is_empty() {
                return Ok(());
            }
            let all = other.into_values().chain(&edits.put).cloned();
            return State::new(all).map(|_| ()).map_err(Refused::Invalid);
        }
        let untouched = self.said().filter(|service| !all.touches(&service.name));
        let all = untouched.chain(&all.put).cloned();
        State::new(all).map(|_| ()).map_err(Refused::Invalid)
    }

    /// What its provider says of a service.
    fn said_of(&self, name: &str) -> Option<&Arc<Service>> {
        let of_file = self.file.as_ref().and_then(|file| file.get(name));
        let of_api = || self.api.get(name).map(|stored| &stored.service);
        let orphan = || self.orphans.get(name).map(|orphan| &orphan.service);
        of_file.or_else(of_api).or_else(orphan)
    }

    fn sizes_with(&self, edits: &Edits) -> (usize, usize) {
        let untouched = self.said().filter(|service| !edits.touches(&service.name));
        let all = untouched.chain(&edits.put);
        all.fold((0, 0), |(services, backends), service| {
            (services + 1, backends + service.backends.len())
        })
    }

    /// Whether a service of that name is another provider's.
    pub(super) fn judge_owner(&self, name: &str, provider: Provider) -> Result<(), Refused> {
        self.owner_problem(name, provider)
            .map_or(Ok(()), |problem| Err(Refused::Invalid([problem].into_iter().collect())))
    }

    fn owner_problem(&self, name: &str, provider: Provider) -> Option<Problem> {
        let in_file = self.file.as_ref().is_some_and(|file| file.get(name).is_some());
        let whose = match provider {
            Provider::Api if in_file => format!("it is defined in {}: change it there", self.origin),
            Provider::File if self.api.get(name).is_some() => {
                format!(
                    "it came in through the API: rename it in the file, or remove it there with `tcpgw service rm {name}`, and the \
                     file takes it over"
                )
            }
            _ => return None,
        };
        Some(Problem {
            place: format!("service \"{name}\""),
            message: format!("belongs to another provider: {whose}"),
        })
    }
}
