//! Problems known to the daemon: one list for all queries, and an event for each that begins or ends.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Core, DaemonPhase, Now};
use crate::addon::ServiceState;
use crate::control::events::EventContent;
use crate::control::request::PauseView;
use crate::date::utc_of;
use crate::record::{RecordedPause, author};
use crate::view::problems::{FamilyFacts, ServiceFacts, service_problem};
use crate::view::status::IN_BALANCE;
use tcpgw_core::drain::Drain;
use tcpgw_core::health::{EndpointState, longest_first_probes, most_first_probes};
use tcpgw_core::model::{BackendState, Endpoint, Listen, PacketRefusal, Service};
use tcpgw_core::problem::{Problem, ProblemKind, ProblemList, ProblemNews};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;

/// Minimum pause between two checks of all services, for each service; it keeps their share of the main loop's time
/// small.
const PAUSE_PER_SERVICE: Duration = Duration::from_micros(100);

/// Timing of the checks of services.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each changes for reasons of its own")]
pub(super) struct CheckTiming {
    /// Whether the kernel has been made equal to the desired state once.
    has_begun: bool,
    /// Whether a teardown was ended and the kernel does not hold the desired state yet.
    is_resuming: bool,
    is_up_to_date: bool,
    /// Whether a service has no healthy backend, so that its problem changes with probes that change no state.
    pub(super) awaits_probes: bool,
    not_before: Option<Instant>,
    /// Earliest time at which a new service has waited for its containers long enough.
    patience: Option<Instant>,
}

impl CheckTiming {
    /// Marks the check as outdated, after a change that affects problems of services.
    pub(super) fn outdate(&mut self) {
        self.is_up_to_date = false;
    }

    /// Returns the time at which [`Core::tell_problems`] has work.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let check = self.not_before.filter(|_| !self.is_up_to_date);
        let patience = self
            .patience
            .map(|at| self.not_before.map_or(at, |not_before| at.max(not_before)));
        check.into_iter().chain(patience).min()
    }

    /// Returns whether the kernel has been made equal to the desired state once.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn take_due(&mut self, services: usize, now: Instant) -> bool {
        self.is_up_to_date &= self.patience.is_none_or(|at| at > now);
        if self.is_up_to_date || self.not_before.is_some_and(|at| at > now) {
            return false;
        }
        self.is_up_to_date = true;
        let services = u32::try_from(services).unwrap_or(u32::MAX);
        self.not_before = Some(now + PAUSE_PER_SERVICE.saturating_mul(services));
        true
    }
}

impl Core {
    /// Returns the problems as they were last reported.
    pub fn problems(&self) -> &ProblemList {
        &self.problems
    }

    pub(super) fn report(&mut self, kind: ProblemKind, message: impl Into<String>) {
        self.problems.report(Problem::new(kind, message));
    }

    /// Reports a problem, and logs it where it was there with another cause: no event begins then.
    pub(super) fn report_cause(&mut self, kind: ProblemKind, message: String) {
        if self.problems.get(kind).is_some_and(|known| known.message != message) {
            tracing::warn!("{message}");
        }
        self.report(kind, message);
    }

    /// Updates the problems, and records an event for each that began or ended.
    pub(super) fn tell_problems(&mut self, now: Now) {
        self.judge_phase(now);
        self.judge_rejected_state();
        let is_over = |pause: &RecordedPause| pause.ends() <= now.unix.as_secs();
        if self.ended_pauses.iter().any(is_over) {
            self.ended_pauses.retain(|pause| !is_over(pause));
            self.judgement.outdate();
        }
        if self.judgement.take_due(self.membership.wanted().len(), now.instant) {
            self.judge_services(now.instant);
        }
        // During the start too little is known to report changes.
        if !self.judgement.has_begun {
            return;
        }
        for news in self.problems.news() {
            let what = match news {
                ProblemNews::Began(problem) => EventContent::Problem(self.with_apps(problem)),
                ProblemNews::Ended(problem) => EventContent::ProblemEnded(problem.into()),
            };
            self.note(what, now);
        }
    }

    /// Adds to a rejected state file that no service is served, when no earlier state is known.
    fn judge_rejected_state(&mut self) {
        const NOTHING: &str = "; no service is known from before, neither from the kernel nor from beside the store, so that none of the file is served";
        let is_nothing = self.has_looked() && self.file.is_none() && self.orphans.is_empty();
        let Some(problem) = self.problems.get(ProblemKind::RejectedState).filter(|_| is_nothing) else {
            return;
        };
        if !problem.message.ends_with(NOTHING) {
            let mut problem = problem.clone();
            problem.message.push_str(NOTHING);
            self.problems.report(problem);
        }
    }

    fn judge_phase(&mut self, now: Now) {
        self.judgement.has_begun |= self.phase == DaemonPhase::TornDown || self.holds();
        if self.judgement.has_begun {
            self.problems.resolve(ProblemKind::Starting);
        } else {
            let message = match self.phase {
                _ if self.problems.get(ProblemKind::KernelRefuses).is_some() => {
                    "the daemon cannot begin: see the other problems"
                }
                DaemonPhase::Waiting => "the daemon is starting: it waits for the state file",
                _ => "the daemon is starting: it compares the kernel with what is desired",
            };
            self.report(ProblemKind::Starting, message);
        }
        self.judge_orphans();
        self.judge_ports(now);
        self.judge_missed_addon();
        self.judgement.is_resuming |= self.phase == DaemonPhase::TornDown;
        self.judgement.is_resuming &= !(self.phase == DaemonPhase::Running && self.holds());
        if self.phase == DaemonPhase::TornDown {
            let by = self.torn.as_ref();
            let by = by.map(|torn| format!(" by uid {} at {} UTC", torn.uid, utc_of(torn.at)));
            let message = format!(
                "tcpgw was torn down{}: no service is served until `tcpgw resume`, or `tcpgw apply FILE` where the API defines the \
                 services",
                by.unwrap_or_default()
            );
            self.report(ProblemKind::TornDown, message);
        } else if self.judgement.is_resuming {
            let message =
                "the teardown is over, and the kernel does not have the services yet: no client is served until it has";
            self.report(ProblemKind::TornDown, message);
        } else {
            self.problems.resolve(ProblemKind::TornDown);
        }
    }

    fn judge_services(&mut self, now: Instant) {
        let paused = self.membership.paused();
        let paused = paused.filter_map(|(name, pause)| Some((self.membership.wanted().get(name)?, pause.view())));
        let ended = self.ended_pauses.iter();
        let ended = ended.filter_map(|pause| Some((self.membership.wanted().get(&pause.service)?, pause)));
        let ended = ended.map(|(service, pause)| ended_problem(service, pause));
        let paused = paused.map(|(service, pause)| paused_problem(service, pause));
        let paused: Vec<Problem> = paused.chain(ended).collect();
        self.problems.replace(&[ProblemKind::Paused], paused);
        let is_serving = self.phase == DaemonPhase::Running;
        let wanted = self.membership.wanted().values().filter(|_| is_serving);
        let found: Vec<Problem> = wanted
            .filter_map(|service| self.service_problem(service, now))
            .collect();
        self.judgement.patience = if is_serving { self.end_of_patience(now) } else { None };
        self.judgement.awaits_probes = found
            .iter()
            .any(|problem| problem.kind == ProblemKind::NoHealthyBackend);
        self.problems
            .replace(&[ProblemKind::NoActiveBackend, ProblemKind::NoHealthyBackend], found);
    }

    /// Returns the number of backends that drain, by definition or since they were removed.
    fn draining_of(&self, service: &Service) -> usize {
        let shall = service.backends.iter();
        let shall = shall.filter(|backend| backend.state == BackendState::Draining);
        let shall = shall.map(|backend| backend.endpoint);
        let leave = self.membership.draining_backends().of(&service.name);
        shall.chain(leave).collect::<BTreeSet<Endpoint>>().len()
    }

    fn service_problem(&self, service: &Service, now: Instant) -> Option<Problem> {
        if self.addon_state(&service.name).is_some_and(ServiceState::is_idle) {
            return None;
        }
        // Nobody can tell whether it waited for its first deploy; the problem of orphans names it.
        if self
            .orphans
            .get(&service.name)
            .is_some_and(|orphan| !orphan.service.has_active_backend())
        {
            return None;
        }
        let of_state = |state| service.backends.iter().filter(move |backend| backend.state == state);
        let families: Vec<FamilyFacts> = Family::BOTH
            .into_iter()
            .filter_map(|family| self.family_facts(service, family))
            .collect();
        if families.iter().all(|of| of.well > 0 || !of.is_expected) && families.iter().any(|of| of.well > 0) {
            return None;
        }
        let draining = self.draining_of(service);
        service_problem(&ServiceFacts {
            title: ServiceSummary::from(service).to_string(),
            name: Some(&service.name),
            port: service.port.get(),
            active: of_state(BackendState::Active).count(),
            draining,
            families,
            resets_when_empty: Some(service.on_empty == PacketRefusal::Reset),
            awaits: if draining == 0 {
                self.awaited_of(service, now)
            } else {
                None
            },
        })
    }

    /// Returns whether the first probes of a backend have not decided yet, of a service that has served nobody: fewer than make it
    /// unhealthy have failed. Those that could not be sent, since the gateway lacks an address or a socket, count, too.
    fn is_undecided(&self, service: &Service, endpoint: Endpoint) -> bool {
        let is_new = self.membership.unserved_since(&service.name).is_some();
        let Some(health) = self.health.get(endpoint.into()).filter(|_| is_new) else {
            return false;
        };
        let is_open = matches!(
            health.state,
            EndpointState::Unknown { .. } | EndpointState::Rising { .. }
        );
        let is_first = is_open && !health.ever_healthy && health.sent <= most_first_probes(&service.health);
        // The backend has answered for another service, and is probed again for this one.
        is_first || self.membership.is_unproven(&service.name, endpoint) && health.state == EndpointState::Healthy
    }

    /// Returns what a service of containers waits for that has served nobody and has no backend yet: the first result of a health
    /// check, which the engine bounds, or, for the time that first probes may take, the start of a container.
    fn awaited_of(&self, service: &Service, now: Instant) -> Option<&'static str> {
        let end = self.end_of_start(service)?;
        if self.docker.is_unchecked(&service.name) {
            return Some("the first health check of its containers");
        }
        (now < end).then_some("its containers to start")
    }

    /// Returns the time until which a service of containers that has served nobody may be without a running one.
    fn end_of_start(&self, service: &Service) -> Option<Instant> {
        let since = self.membership.unserved_since(&service.name)?;
        self.docker.get(&service.name)?;
        Some(since + longest_first_probes(&service.health))
    }

    /// Returns the next time at which a service has been without a running container for too long.
    fn end_of_patience(&self, now: Instant) -> Option<Instant> {
        let wanted = self.membership.wanted().values();
        let ends = wanted.filter_map(|service| self.end_of_start(service));
        ends.filter(|end| *end > now).min()
    }

    /// Returns the facts of a service for clients of a family, if it listens in this family.
    fn family_facts(&self, service: &Service, family: Family) -> Option<FamilyFacts> {
        let is_chosen = match &service.listen {
            Listen::Everywhere => None,
            Listen::At(addresses) => Some(addresses.iter().any(|address| Family::of(*address) == family)),
        };
        if is_chosen == Some(false) {
            return None;
        }
        let is_well = |endpoint: Endpoint| {
            let health = self.health.get(endpoint.into());
            let is_unproven = self.membership.is_unproven(&service.name, endpoint);
            !is_unproven && health.is_none_or(|health| IN_BALANCE.contains(&health.state.name()))
        };
        let backends = service.backends.iter();
        let backends = backends.filter(|backend| Family::of(backend.endpoint.address) == family);
        let active = backends.clone().filter(|backend| backend.state == BackendState::Active);
        let well = active.clone().filter(|backend| is_well(backend.endpoint)).count();
        let undecided = active
            .clone()
            .filter(|backend| self.is_undecided(service, backend.endpoint));
        let stand_in = || {
            let draining_backends = self.membership.draining_backends();
            let endpoints = draining_backends.of(&service.name).into_iter();
            let serving = endpoints.filter(|endpoint| {
                let leaving = draining_backends.get(&service.name, *endpoint);
                leaving.is_some_and(|leaving| leaving.drain == Drain::Serving)
            });
            let mut of_family = serving.filter(|endpoint| Family::of(endpoint.address) == family);
            of_family.find(|endpoint| is_well(*endpoint))
        };
        Some(FamilyFacts {
            family,
            is_expected: is_chosen == Some(true) || backends.clone().next().is_some(),
            active: active.count(),
            well,
            undecided: undecided.count(),
            stand_in: if well == 0 {
                stand_in().map(SocketAddr::from)
            } else {
                None
            },
        })
    }
}

fn ended_problem(service: &Service, pause: &RecordedPause) -> Problem {
    let message = format!(
        "{} was paused by {} since {} UTC, until {} UTC, and is not paused any more, because the record of it is gone, as after a boot: \
         its clients are let in; `tcpgw pause {}` pauses it again, and `tcpgw resume {}` ends this message",
        ServiceSummary::from(service),
        pause.author(),
        utc_of(pause.since),
        utc_of(pause.ends()),
        service.name,
        service.name
    );
    Problem::new(ProblemKind::Paused, message).of_service(&*service.name, service.port.get())
}

fn paused_problem(service: &Service, pause: PauseView) -> Problem {
    let message = format!(
        "{} is paused by {} since {} UTC, until {} UTC: clients that connect wait; `tcpgw resume {}` lets them in",
        ServiceSummary::from(service),
        author(pause.uid, pause.browser),
        utc_of(pause.since),
        utc_of(pause.until),
        service.name
    );
    Problem::new(ProblemKind::Paused, message).of_service(&*service.name, service.port.get())
}
