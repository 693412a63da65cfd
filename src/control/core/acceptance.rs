//! Acceptance of changes: by the rules of a state, by sizes, by the owners of services, and by the gateway.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::obstacles::{Obstacles, by_service, refuse};
use super::{Core, DaemonPhase, Provider};
use crate::control::name::Name;
use crate::control::obstacle::Obstacle;
use crate::control::request::{ApplyOptions, Refused};
use crate::view::problems::some_of;
use tcpgw_core::model::{Balance, Edits, InputProblem, InputProblems, Service, State};
use tcpgw_core::words::count;

/// Result of the check of a state against the gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayFindings {
    /// Obstacles that prevent its services from being served here now.
    pub obstacles: Vec<Obstacle>,
    /// Warnings about it.
    pub warnings: Vec<InputProblem>,
}

/// An accepted change.
#[derive(Debug, Default)]
pub(super) struct AcceptedChange {
    /// Warnings about it.
    pub(super) warnings: Vec<String>,
    /// Obstacles that prevent services of it from being served here now; these services are to be held back.
    pub(super) obstacles: Obstacles,
}

/// Number of services of a provider before and after a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProviderSize {
    /// Provider of the services.
    pub(super) provider: Provider,
    /// Number of services before.
    pub(super) before: usize,
    /// Number of services after.
    pub(super) after: usize,
}

/// Reason why there is no [`GatewayFindings`] result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayCheckError {
    /// The examination of the gateway is under way. The caller repeats the check when [`Core::examination_ended`] was called.
    Pending,
    /// The examination failed, with this error.
    Failed(String),
}

/// Checks a state against the gateway; this is the part of judging that needs the system. The function argument tells
/// which services exist already.
pub type GatewayCheck<'a> =
    dyn FnMut(&State, &dyn Fn(&Service) -> bool) -> Result<GatewayFindings, GatewayCheckError> + 'a;

/// Reason why a change was not accepted.
#[derive(Debug)]
pub(super) enum JudgementError {
    /// The gateway is being examined: the change is not decided, and is judged again.
    Pending,
    /// The change is refused.
    Refused(Refused),
}

impl From<Refused> for JudgementError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Core {
    /// Checks edits of a provider against the other services, sizes, owners and the gateway. Each service has been
    /// validated by itself when it was parsed. Only edited services are checked.
    pub(super) fn judge(
        &self,
        edits: &Edits,
        size: ProviderSize,
        options: ApplyOptions,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<AcceptedChange, JudgementError> {
        match size.provider {
            Provider::File | Provider::Docker => self.judge_books(edits, size.provider)?,
            Provider::Api => self.judge_change(edits, options.hold_back)?,
        }
        let ProviderSize { before, after, .. } = size;
        if after == 0 && before > 0 && !options.allow_empty {
            return Err(JudgementError::Refused(Refused::Refused(match size.provider {
                Provider::File => self.empty_file(before),
                Provider::Api | Provider::Docker => self.empty_apply(),
            })));
        }
        let edited = State {
            services: edits.put.clone(),
        };
        let (mut found, warnings) = self.examined(&edited, options.take_over, vet)?;
        if size.provider == Provider::Api && options.hold_back {
            self.add_fences_of_held(edits, &mut found);
        }
        let services = edited.services.iter();
        let obstacles = services.flat_map(|service| self.new_obstacles(service, found.get(&service.name)));
        let obstacles: Vec<Obstacle> = obstacles.collect();
        let warnings = tcpgw_core::model::warnings(&edited).into_iter().chain(warnings);
        if !options.hold_back {
            refuse(&obstacles)?;
        }
        Ok(AcceptedChange {
            warnings: warnings
                .map(|warning| warning.to_string())
                .chain(self.warn_of_displacements(edits))
                .collect(),
            obstacles: by_service(obstacles),
        })
    }

    /// Returns the obstacles that services have on this gateway, and warnings.
    pub(super) fn examined(
        &self,
        edited: &State,
        takes_over: bool,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<(Obstacles, Vec<InputProblem>), JudgementError> {
        // At the start the first judgement decides, when it is known which services are served.
        let is_known = |service: &Service| takes_over || !self.held_back.has_judged || self.is_known(service);
        let vetted = vet(edited, &is_known).map_err(|unvetted| match unvetted {
            GatewayCheckError::Pending => JudgementError::Pending,
            GatewayCheckError::Failed(why) => JudgementError::Refused(Refused::Failed(why)),
        })?;
        let mut found = by_service(vetted.obstacles);
        self.add_own_listeners(&edited.services, &mut found);
        Ok((found, vetted.warnings))
    }

    /// Returns the error for a state file without services.
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

    /// Returns the error for a state without services from the API.
    fn empty_apply(&self) -> String {
        let names: Vec<&str> = self.api.stored().map(|stored| &*stored.service.name).collect();
        format!(
            "the state has no services; --allow-empty removes all that came in through the API: {} ({})",
            count(names.len(), "service"),
            some_of(&names)
        )
    }

    /// Checks services by what is known without asking the system: the fences, and all other services.
    pub(super) fn judge_books(&self, edits: &Edits, provider: Provider) -> Result<(), Refused> {
        if provider == Provider::Docker {
            // Containers that are served stay within fences that were drawn narrower.
            self.judge_added(edits, false, provider)?;
            return self.judge_beside_others(edits, provider);
        }
        let sizes = self
            .config
            .fences_sizes()
            .then(|| self.sizes_with(&self.with_orphans(edits)));
        let sizes = sizes.map(|(services, backends)| self.config.check_sizes(services, backends));
        let fences = edits.put.iter().flat_map(|service| self.config.check_service(service));
        let problems: InputProblems = sizes.into_iter().flatten().chain(fences).collect();
        problems.into_result().map_err(Refused::Invalid)?;
        self.judge_beside_others(edits, provider)
    }

    /// Checks the same for a change from the API, see [`Self::judge_added`].
    pub(super) fn judge_change(&self, edits: &Edits, holds_back: bool) -> Result<(), Refused> {
        self.judge_added(edits, holds_back, Provider::Api)?;
        self.judge_beside_others(edits, Provider::Api)
    }

    fn judge_beside_others(&self, edits: &Edits, provider: Provider) -> Result<(), Refused> {
        let all = &self.with_orphans(edits);
        let names = edits.put.iter().map(|service| &service.name);
        let of_others = names.filter_map(|name| self.owner_problem(name, provider));
        let problems: InputProblems = of_others.collect();
        problems.into_result().map_err(Refused::Invalid)?;
        let has_round_robin = edits.put.iter().any(|service| service.balance == Balance::RoundRobin);
        // While the daemon runs, the membership has all desired services. It does not count the chains of round robin.
        if self.phase == DaemonPhase::Running && !has_round_robin {
            // Kept services that are held back give way.
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
            // A suspended service is desired without its backends, and gets them again later.
            let suspended = self.addon.suspended_names().filter(|name| !all.touches(name));
            // The membership knows their ports: only edits with backends can conflict with the missing backends.
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
        let untouched = self.defined().filter(|service| !all.touches(&service.name));
        let all = untouched.chain(&all.put).cloned();
        State::new(all).map(|_| ()).map_err(Refused::Invalid)
    }

    /// Returns a service as its provider defines it.
    fn said_of(&self, name: &str) -> Option<&Arc<Service>> {
        let of_file = self.file.as_ref().and_then(|file| file.get(name));
        let of_docker = || self.docker.get(name);
        let of_api = || self.api.get(name).map(|stored| &stored.service);
        let orphan = || self.orphans.get(name).map(|orphan| &orphan.service);
        of_file.or_else(of_docker).or_else(of_api).or_else(orphan)
    }

    pub(super) fn sizes_with(&self, edits: &Edits) -> (usize, usize) {
        let untouched = self.defined().filter(|service| !edits.touches(&service.name));
        let all = untouched.chain(&edits.put);
        all.fold((0, 0), |(services, backends), service| {
            (services + 1, backends + service.backends.len())
        })
    }

    /// Fails when another provider defines a service of that name.
    pub(super) fn judge_owner(&self, name: &str, provider: Provider) -> Result<(), Refused> {
        self.owner_problem(name, provider)
            .map_or(Ok(()), |problem| Err(Refused::Invalid([problem].into_iter().collect())))
    }

    fn owner_problem(&self, name: &str, provider: Provider) -> Option<InputProblem> {
        let in_file = self.file.as_ref().is_some_and(|file| file.get(name).is_some());
        let whose = match provider {
            Provider::Api | Provider::Docker if in_file => {
                format!("it is defined in {}: change it there", self.origin)
            }
            Provider::File | Provider::Api if self.docker.get(name).is_some() => {
                format!(
                    "it is defined by labels of Docker's containers{}: change their labels, or remove the containers",
                    self.docker.example(name)
                )
            }
            Provider::Docker if self.api.get(name).is_some() => {
                format!(
                    "it came in through the API: set another name in the label tcpgw.service, or remove it there with `tcpgw service rm {name}`"
                )
            }
            Provider::File if self.api.get(name).is_some() => {
                format!(
                    "it came in through the API: rename it in the file, or remove it there with `tcpgw service rm {name}`, and the \
                     file takes it over"
                )
            }
            _ => return None,
        };
        Some(InputProblem {
            place: format!("service \"{name}\""),
            message: format!("belongs to another provider: {whose}"),
        })
    }
}
