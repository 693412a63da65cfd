//! Timing of the observation of the gateway's surroundings, and the use of its results.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Core, DaemonPhase, Now};
use crate::control::observation::{Observation, ObservationRequest, StoreFile};
use crate::control::turned_away::TurnedAway;
use crate::control::unconfirmed::{CONFIRM_AFTER, UnconfirmedErrors};
use crate::doctor::{self, CheckSubject, FailingProbes};
use crate::store::FileId;
use tcpgw_core::escape;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::summary::Summary;

/// Interval between observations, unless `check_interval` is shorter.
const INTERVAL: Duration = Duration::from_secs(10);
/// Delay after a change of the surroundings, in which further changes are collected.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Minimum pause between two observations.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Time after which an observation is reported as stalled.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// Interval between observations of handshakes, if the last one was quick: an unanswered handshake is reported at most
/// this long after it is overdue.
const HANDSHAKES_INTERVAL: Duration = Duration::from_secs(1);

/// Problems that keep answers of backends from clients, or later packets of clients from backends.
const LOSE_ANSWERS: [ProblemKind; 8] = [
    ProblemKind::IpForwardOff,
    ProblemKind::Ipv6ForwardingOff,
    ProblemKind::PacketsDropped,
    ProblemKind::PacketsUntracked,
    ProblemKind::FlowMarkOverwritten,
    ProblemKind::FlowsUnmarked,
    ProblemKind::ReversePathFilter,
    ProblemKind::AnswersWithoutRoute,
];

/// Timing of observations.
#[derive(Debug)]
pub(super) struct Observing {
    next: Option<Instant>,
    /// Start of the observation under way.
    out_since: Option<Instant>,
    /// Whether something has changed since the observation under way began.
    is_outdated: bool,
    not_before: Instant,
    /// Time of the next observation of handshakes.
    handshakes_next: Option<Instant>,
    handshakes_not_before: Instant,
    /// Services to observe, for this revision of the desired services.
    services: Option<(u64, Arc<Summary>)>,
    /// Identity of the store's file when it was opened.
    pub(super) store_file: Option<FileId>,
    /// Number of handshakes that no backend answered in time, by service.
    unanswered: BTreeMap<Box<str>, u64>,
    turned_away: TurnedAway,
    unconfirmed: UnconfirmedErrors,
    /// Whether the operator knows that the memory of earlier observations is lost, as a reload shows.
    pub(super) is_memory_loss_known: bool,
}

impl Observing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: Some(now),
            out_since: None,
            is_outdated: false,
            not_before: now,
            handshakes_next: None,
            handshakes_not_before: now,
            services: None,
            store_file: None,
            unanswered: BTreeMap::new(),
            turned_away: TurnedAway::default(),
            unconfirmed: UnconfirmedErrors::default(),
            is_memory_loss_known: false,
        }
    }
}

impl Core {
    /// Schedules an observation after links, addresses, routes, rules or foreign tables changed, or may have.
    pub fn surroundings_changed(&mut self, now: Now) {
        let of = &mut self.observing;
        of.is_outdated = true;
        let soon = (now.instant + DEBOUNCE).max(of.not_before);
        of.next = Some(of.next.map_or(soon, |next| next.min(soon)));
    }

    /// Returns the time at which [`Self::next_observation`] has work.
    pub fn observes_at(&self) -> Option<Instant> {
        if !self.is_observing() {
            return None;
        }
        match self.observing.out_since {
            Some(_) if self.problems.get(ProblemKind::ChecksStalled).is_some() => None,
            Some(since) => Some(since + LONGEST),
            None => {
                let of = &self.observing;
                of.next.into_iter().chain(of.handshakes_next).min()
            }
        }
    }

    fn is_observing(&self) -> bool {
        self.phase == DaemonPhase::Running && self.judgement.has_begun()
    }

    /// Returns what to observe now; at most one observation is under way.
    pub fn next_observation(&mut self, now: Now) -> Option<ObservationRequest> {
        if self.observes_at().is_none_or(|at| at > now.instant) {
            return None;
        }
        if self.observing.out_since.is_some() {
            let message = format!(
                "the checks of routes, firewalls and conntrack have not ended for {} s, so that their results in `status` are old: restart the daemon, and please report this",
                LONGEST.as_secs()
            );
            self.report(ProblemKind::ChecksStalled, message);
            return None;
        }
        let handshakes = self.observing.handshakes_not_before <= now.instant;
        let surroundings = self.observing.next.is_some_and(|at| at <= now.instant);
        self.observing.out_since = Some(now.instant);
        if surroundings {
            self.observing.is_outdated = false;
            self.observing.next = None;
        }
        self.observing.handshakes_next = None;
        Some(ObservationRequest {
            subject: CheckSubject {
                services: self.observed_services(),
                mark: self.mark(),
                protect_backends: self.config.protect_backends,
                configured_to_protect: self.configured_to_protect,
                configuration: self.config.path().into(),
                is_probed: true,
                failing_probes: Arc::new(if surroundings {
                    self.failing_probes()
                } else {
                    FailingProbes::new()
                }),
            },
            store: self
                .observing
                .store_file
                .map(|file| (self.settings.store.clone(), file)),
            answering: Arc::new(if handshakes { self.answering() } else { BTreeSet::new() }),
            surroundings,
            handshakes,
        })
    }

    /// Returns the summary of the desired services, which is made once for each change of them.
    fn observed_services(&mut self) -> Arc<Summary> {
        let revision = self.membership.revision();
        if let Some((of, services)) = &self.observing.services
            && *of == revision
        {
            return Arc::clone(services);
        }
        let services: Summary = self.membership.wanted().values().map(AsRef::as_ref).collect();
        let services = Arc::new(services);
        self.observing.services = Some((revision, Arc::clone(&services)));
        services
    }

    /// Returns the backends whose last probe was answered, or that got connections before the daemon started and were
    /// not probed since.
    fn answering(&self) -> BTreeSet<SocketAddr> {
        let backends = self.membership.wanted().values().flat_map(|service| &service.backends);
        let backends = backends.map(|backend| SocketAddr::from(backend.endpoint));
        let is_answering = |at: &SocketAddr| {
            let health = self.health.get(*at);
            health.is_some_and(|health| matches!(health.state.name(), "healthy" | "presumed"))
        };
        backends.filter(is_answering).collect()
    }

    /// Returns the backends whose last probe failed, and those that are out of the balance because none could be sent.
    fn failing_probes(&self) -> FailingProbes {
        let backends = self.membership.wanted().values().flat_map(|service| &service.backends);
        let failing = backends.map(|backend| backend.endpoint).filter(|endpoint| {
            let health = self.health.get(SocketAddr::from(*endpoint));
            health.is_some_and(|health| match health.last {
                Some(outcome) => outcome != ProbeOutcome::Accepted,
                None => health.sent > 0 && !health.in_balance,
            })
        });
        let mut found = FailingProbes::new();
        for endpoint in failing {
            let service = self.membership.probed_for(endpoint);
            let sources = service.into_iter().flat_map(|service| &service.source_addresses);
            let of_family = sources.filter(|source| source.is_ipv4() == endpoint.address.is_ipv4());
            found.entry(endpoint.into()).or_default().extend(of_family.copied());
        }
        found
    }

    /// Takes the result of an observation.
    pub fn observed(&mut self, observation: Observation, now: Now) {
        let of = &mut self.observing;
        of.out_since = None;
        let interval = self.settings.check_interval;
        if observation.surroundings.is_some() {
            of.not_before = now.instant + LEAST_PAUSE;
            let next = interval.map(|interval| now.instant + interval.min(INTERVAL));
            of.next = match next {
                Some(next) if of.is_outdated => Some(next.min(of.not_before)),
                None if of.is_outdated => Some(of.not_before),
                next => next,
            };
        }
        if observation.handshakes.is_some() {
            of.handshakes_not_before = now.instant + observation.pause;
        }
        let soon = |interval: Duration| now.instant + interval.min(HANDSHAKES_INTERVAL);
        of.handshakes_next = interval.map(|interval| soon(interval).max(of.handshakes_not_before));
        self.problems.resolve(ProblemKind::ChecksStalled);
        if !self.is_observing() {
            return;
        }
        if let Some(surroundings) = observation.surroundings {
            let reported = self
                .problems
                .iter()
                .filter(|problem| doctor::KINDS.contains(&problem.kind));
            let (confirmed, is_open) = self.observing.unconfirmed.confirm(surroundings, reported);
            self.problems.replace(doctor::KINDS, confirmed);
            if is_open {
                let soon = now.instant + CONFIRM_AFTER;
                let next = &mut self.observing.next;
                *next = Some(next.map_or(soon, |next| next.min(soon)));
            }
            let lost = observation.lost_memory.filter(|_| !self.observing.is_memory_loss_known);
            if self.memory_lost != lost {
                self.memory_lost = lost;
                self.judge_record(now);
            }
        }
        match observation.store {
            Some(StoreFile::Same) => self.problems.resolve(ProblemKind::StoreMoved),
            Some(moved) => self.store_moved(moved),
            None => {}
        }
        if let Some(seen) = observation.handshakes {
            let port = |name: &str| Some(self.membership.wanted().get(name)?.port.get());
            let has_cause = self.problems.iter().any(|problem| LOSE_ANSWERS.contains(&problem.kind));
            self.problems
                .replace(&[ProblemKind::Unanswered], seen.problems(port, has_cause));
            self.observing.unanswered = seen.unanswered();
        }
        if let Some(counts) = observation.turned_away {
            self.observing.turned_away.observe(&counts, now.instant);
            let service = |name: &str| self.membership.wanted().get(name).map(|service| &**service);
            let problems = self.observing.turned_away.problems(service);
            self.problems.replace(&[ProblemKind::OverLimit], problems);
        }
    }

    /// Reports that the store's file was removed or replaced: data written to it are lost when the daemon ends.
    fn store_moved(&mut self, moved: StoreFile) {
        let path = escape::path(&self.settings.store);
        let what = match moved {
            StoreFile::Other => format!("another file is in the place of the store {path}"),
            StoreFile::Gone | StoreFile::Same => format!("the store {path} was removed"),
        };
        self.report(
            ProblemKind::StoreMoved,
            format!(
                "{what} while the daemon runs: what was and is ordered through the API is lost to the next daemon. Move the file back if it is \
                 still there; else save the services (`tcpgw export >state.json`), restart the daemon (`systemctl restart tcpgw`), and \
                 order them anew (`tcpgw apply state.json`)"
            ),
        );
    }

    /// Drops the results of observations when no service is served.
    pub(super) fn forget_observations(&mut self, now: Now) {
        self.problems.replace(doctor::KINDS, []);
        self.problems.resolve(ProblemKind::Unanswered);
        self.problems.resolve(ProblemKind::OverLimit);
        self.observing.unanswered.clear();
        self.observing.turned_away.clear();
        self.observing.unconfirmed.clear();
        self.observing.next = Some(now.instant);
    }

    /// Returns the number of handshakes that no backend answered in time, by service.
    pub(super) fn unanswered(&self) -> &BTreeMap<Box<str>, u64> {
        &self.observing.unanswered
    }
}
