//! Health of backends: which endpoints to probe, when, and what the outcomes mean. Has no clock and no socket: the
//! program's module `probe` has those.
//!
//! An `interval` is the time from the start of one probe to the start of the next, varied by up to a tenth. It is
//! rounded up to 20 ms, and to `timeout` where a probe got no answer, because an endpoint has one probe at a time.
//!
//! The cost of [`Health::due`], [`Health::report`] and [`Health::upsert`] grows with the logarithm of the number of
//! endpoints.

mod interval;
mod machine;
mod question;
mod schedule;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::machine::{AnswerFault, EndpointState, ProbeOutcome, SystemError, UNKNOWN};
use self::machine::{Silence, Streaks};
pub use self::question::MAX_ANSWER;
use self::schedule::{Class, Schedule};
use crate::model;

/// Default number of probes in flight. A dead endpoint occupies one for its whole `timeout`, so this number divided by
/// the timeout in seconds is how many dead endpoints can be probed per second.
pub const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Shortest pause after a probe that the gateway itself could not send.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that is added to a time, so that the sum cannot overflow. Validated intervals are shorter.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Settings of an endpoint that is to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Probe settings of the endpoint.
    pub params: model::HealthSettings,
    /// Whether the endpoint was in the balance before it could be probed. Used only when the endpoint is new.
    pub presumed: bool,
}

/// A probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Number of the probe, for [`Health::report`]; never used twice.
    pub id: u64,
    /// Address and port to probe.
    pub endpoint: SocketAddr,
    /// Time within which the handshake, and the question, must be answered.
    pub timeout: Duration,
    /// Number of this probe among those of its endpoint; wraps around.
    pub round: u32,
    /// Source address of the probe, if the gateway has it; otherwise routing chooses one.
    pub source: Option<IpAddr>,
    /// Question after the handshake; `None`: the handshake is enough.
    pub question: Option<Arc<model::ProbeQuestion>>,
}

/// Change of the state of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthChange {
    /// Endpoint whose state changed.
    pub endpoint: SocketAddr,
    /// State before the change.
    pub from: EndpointState,
    /// State after the change. Equal to `from` where only `dead` has changed, or where the outcome was requested by
    /// [`Health::probe_now`].
    pub to: EndpointState,
    /// Whether the endpoint is dead: see [`EndpointHealth::dead`].
    pub dead: bool,
    /// Outcome of the last probe.
    pub reason: ProbeOutcome,
}

impl HealthChange {
    /// Returns whether the endpoint enters or leaves the balance.
    pub const fn moves(&self) -> bool {
        self.from.in_balance() != self.to.in_balance()
    }
}

/// Known data about one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointHealth {
    /// State of the endpoint.
    pub state: EndpointState,
    /// Whether the endpoint gets new connections.
    pub in_balance: bool,
    /// Whether the endpoint was ever in the balance, as healthy or as presumed healthy.
    pub ever_healthy: bool,
    /// Whether the endpoint is known to be dead: `fall` probes in a row got no answer, or two in a row got
    /// "unreachable" from the network. An endpoint that refuses, or answers a question wrongly, is not dead: a program that shuts down in good order
    /// closes its listener first.
    pub dead: bool,
    /// Outcome of the last probe, without outcomes of kind [`ProbeOutcome::Local`].
    pub last: Option<ProbeOutcome>,
    /// Time at which the last answered probe was sent.
    pub answered: Option<Instant>,
    /// Time at which the endpoint last left the balance because its probes failed.
    pub failed: Option<Instant>,
    /// Number of probes that were sent to it, answered or not.
    pub sent: u32,
    /// Time since which the state has its present name.
    pub since: Instant,
}

/// Numbers of probes since the start, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// Number of probes that were answered, and rightly where they ask.
    pub accepted: u64,
    /// Number of probes that were refused, timed out, got a wrong answer or found the backend unreachable.
    pub failed: u64,
    /// Number of probes that were not sent or given up because the gateway lacked a resource.
    pub local: u64,
    /// Error of the last probe that the gateway itself could not send.
    pub last_local: Option<SystemError>,
}

/// The endpoints that are probed: their settings, states and next probes.
#[derive(Debug)]
pub struct Health {
    endpoints: BTreeMap<SocketAddr, ProbedEndpoint>,
    schedule: Schedule,
    flights: BTreeMap<u64, ProbeInFlight>,
    next_id: u64,
    cancelled: Vec<u64>,
    counts: HealthCounts,
}

#[derive(Debug)]
struct ProbedEndpoint {
    params: model::HealthSettings,
    state: EndpointState,
    silence: Silence,
    ever_healthy: bool,
    last: Option<ProbeOutcome>,
    answered: Option<Instant>,
    failed: Option<Instant>,
    /// Whether a caller of [`Health::probe_now`] waits for the outcome of a probe that is not sent yet.
    awaited: bool,
    since: Instant,
    round: u32,
    waits: Waits,
}

#[derive(Debug, Clone, Copy)]
enum Waits {
    /// Wait for the next probe, which is due at this time.
    Until(Instant, Class),
    /// Wait for the outcome of this probe. The flag tells whether the next probe follows at once.
    Answer(u64, bool),
}

#[derive(Debug)]
struct ProbeInFlight {
    endpoint: SocketAddr,
    class: Class,
    started: Instant,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(MAX_IN_FLIGHT)
    }
}

impl Health {
    /// Creates an empty set of endpoints. `max_in_flight` is the largest number of probes in flight.
    pub fn new(max_in_flight: NonZeroUsize) -> Self {
        Self {
            endpoints: BTreeMap::new(),
            schedule: Schedule::new(max_in_flight),
            flights: BTreeMap::new(),
            next_id: 1,
            cancelled: Vec::new(),
            counts: HealthCounts::default(),
        }
    }

    /// Replaces the set of probed endpoints. Endpoints that stay keep their state.
    pub fn set(&mut self, targets: impl IntoIterator<Item = (SocketAddr, ProbeTarget)>, now: Instant) {
        let targets: BTreeMap<SocketAddr, ProbeTarget> = targets.into_iter().collect();
        let gone: Vec<SocketAddr> = self
            .endpoints
            .keys()
            .filter(|endpoint| !targets.contains_key(endpoint))
            .copied()
            .collect();
        for endpoint in gone {
            self.remove(endpoint);
        }
        for (endpoint, target) in targets {
            self.upsert(endpoint, target, now);
        }
    }

    /// Adds an endpoint or changes its settings. A new one is probed at once, before all routine probes; one that is
    /// presumed to be healthy is probed within its interval.
    pub fn upsert(&mut self, endpoint: SocketAddr, target: ProbeTarget, now: Instant) {
        let Some(known) = self.endpoints.get_mut(&endpoint) else {
            self.insert(endpoint, target, now);
            return;
        };
        if known.params == target.params {
            return;
        }
        known.params = target.params;
        if let Waits::Until(at, class) = known.waits {
            let pause = interval::jittered(interval::mean(&known.params, known.state), endpoint, known.round);
            let sooner = at.min(after(now, pause));
            self.schedule.cancel(class, at, endpoint);
            self.schedule.add(class, sooner, endpoint);
            known.waits = Waits::Until(sooner, class);
        }
    }

    fn insert(&mut self, endpoint: SocketAddr, target: ProbeTarget, now: Instant) {
        let (state, at, class) = if target.presumed {
            let state = EndpointState::Presumed { failed: 0 };
            let pause = interval::phase(interval::mean(&target.params, state), endpoint);
            (state, after(now, pause), Class::In)
        } else {
            (EndpointState::Unknown { failed: 0 }, now, Class::First)
        };
        self.schedule.add(class, at, endpoint);
        let known = ProbedEndpoint {
            params: target.params,
            state,
            silence: Silence::default(),
            ever_healthy: target.presumed,
            last: None,
            answered: None,
            failed: None,
            awaited: false,
            since: now,
            round: 0,
            waits: Waits::Until(at, class),
        };
        self.endpoints.insert(endpoint, known);
    }

    /// Removes an endpoint and its state. Returns whether it existed. A probe of it that is in flight is added to
    /// [`Self::take_cancelled`], and its report is ignored.
    pub fn remove(&mut self, endpoint: SocketAddr) -> bool {
        let Some(known) = self.endpoints.remove(&endpoint) else {
            return false;
        };
        match known.waits {
            Waits::Until(at, class) => self.schedule.cancel(class, at, endpoint),
            Waits::Answer(id, _) => {
                if let Some(flight) = self.flights.remove(&id) {
                    self.schedule.end(flight.class);
                    self.cancelled.push(id);
                }
            }
        }
        true
    }

    /// Requests a probe of the endpoint at once, before all routine probes; if one is in flight, directly after it. The
    /// first accepted outcome of a probe that starts from then on is a [`HealthChange`], even if the state stays the
    /// same. Returns whether the endpoint exists.
    pub fn probe_now(&mut self, endpoint: SocketAddr, now: Instant) -> bool {
        let Some(known) = self.endpoints.get_mut(&endpoint) else {
            return false;
        };
        known.awaited = true;
        match &mut known.waits {
            Waits::Answer(_, again) => *again = true,
            Waits::Until(at, class) => {
                self.schedule.cancel(*class, *at, endpoint);
                (*at, *class) = (now, Class::First);
                self.schedule.add(*class, *at, endpoint);
            }
        }
        true
    }

    /// Returns the probes to send now. Each of them must be reported, unless it is cancelled. Call it again at
    /// [`Self::next_at`], after reports, and after endpoints were added.
    pub fn due(&mut self, now: Instant) -> Vec<Probe> {
        let mut probes = Vec::new();
        self.schedule.open(now);
        while let Some((class, endpoint)) = self.schedule.pop(now) {
            let Some(known) = self.endpoints.get_mut(&endpoint) else {
                self.schedule.end(class);
                continue;
            };
            let id = self.next_id;
            self.next_id += 1;
            known.waits = Waits::Answer(id, false);
            known.round = known.round.wrapping_add(1);
            let round = known.round;
            let flight = ProbeInFlight {
                endpoint,
                class,
                started: now,
            };
            self.flights.insert(id, flight);
            probes.push(Probe {
                id,
                endpoint,
                timeout: known.params.timeout,
                round,
                source: None,
                question: known.params.question.clone(),
            });
        }
        probes
    }

    /// Returns the time at which [`Self::due`] has probes if nothing else happens; it may be in the past. `None` while
    /// there is no endpoint, or while the largest number of probes is in flight.
    pub fn next_at(&self) -> Option<Instant> {
        self.schedule.next_at()
    }

    /// Records the outcome of a probe and returns the change of state that follows. Ignored if the endpoint was removed
    /// since, even if it was added again.
    pub fn report(&mut self, id: u64, outcome: ProbeOutcome, now: Instant) -> Option<HealthChange> {
        let flight = self.flights.remove(&id)?;
        self.schedule.end(flight.class);
        self.counts.note(outcome);
        let endpoint = flight.endpoint;
        let known = self.endpoints.get_mut(&endpoint)?;
        let Waits::Answer(_, again) = known.waits else {
            return None;
        };
        let answers = outcome == ProbeOutcome::Accepted && !again && known.awaited;
        known.awaited &= !answers;
        let change = known.learn(endpoint, &flight, outcome, answers, now);
        let (at, class) = if again {
            (now, Class::First)
        } else {
            known.next(endpoint, &flight, outcome, change.as_ref(), now)
        };
        self.schedule.add(class, at, endpoint);
        known.waits = Waits::Until(at, class);
        change
    }

    /// Returns what is known about an endpoint; `None` if it is not probed.
    pub fn get(&self, endpoint: SocketAddr) -> Option<EndpointHealth> {
        self.endpoints.get(&endpoint).map(ProbedEndpoint::view)
    }

    /// Returns what is known about all endpoints, sorted by endpoint.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, EndpointHealth)> {
        self.endpoints.iter().map(|(endpoint, known)| (*endpoint, known.view()))
    }

    /// Returns and forgets the probes in flight of endpoints that were removed: the caller need not wait for them.
    pub fn take_cancelled(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cancelled)
    }

    /// Returns the number of probes in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Returns the numbers of probes by outcome.
    pub const fn counts(&self) -> HealthCounts {
        self.counts
    }
}

impl ProbedEndpoint {
    /// Records the outcome of a probe. With `tells`, a change is returned even if the state stays the same.
    fn learn(
        &mut self,
        endpoint: SocketAddr,
        flight: &ProbeInFlight,
        outcome: ProbeOutcome,
        tells: bool,
        now: Instant,
    ) -> Option<HealthChange> {
        if matches!(outcome, ProbeOutcome::Local(_)) {
            return None;
        }
        let streaks = Streaks {
            rise: self.params.rise,
            fall: self.params.fall,
        };
        let (from, was_dead) = (self.state, self.silence.is_death(streaks.fall));
        self.state = from.after(outcome, streaks);
        self.silence = self.silence.after(outcome);
        self.ever_healthy |= self.state.in_balance();
        self.last = Some(outcome);
        if outcome == ProbeOutcome::Accepted {
            self.answered = Some(flight.started);
        }
        if from.in_balance() && !self.state.in_balance() {
            self.failed = Some(now);
        }
        let dead = self.silence.is_death(streaks.fall);
        let is_new = self.state.name() != from.name();
        if is_new {
            self.since = now;
        }
        (is_new || dead != was_dead || tells).then_some(HealthChange {
            endpoint,
            from,
            to: self.state,
            dead,
            reason: outcome,
        })
    }

    fn next(
        &self,
        endpoint: SocketAddr,
        flight: &ProbeInFlight,
        outcome: ProbeOutcome,
        change: Option<&HealthChange>,
        now: Instant,
    ) -> (Instant, Class) {
        let mean = interval::mean(&self.params, self.state);
        let class = match self.last {
            None if !self.state.in_balance() => Class::First,
            _ if self.state.in_balance() => Class::In,
            _ => Class::Out,
        };
        if matches!(outcome, ProbeOutcome::Local(_)) {
            // An interval may be an hour: an endpoint that is new, or whose probe was requested, must not wait that
            // long.
            let is_urgent = self.awaited || class == Class::First;
            let pause = if is_urgent { LOCAL_PAUSE } else { mean.max(LOCAL_PAUSE) };
            return (after(now, interval::jittered(pause, endpoint, self.round)), class);
        }
        let has_entered = self.state.in_balance() && change.is_some_and(HealthChange::moves);
        let pause = if has_entered {
            interval::phase(mean, endpoint)
        } else {
            interval::jittered(mean, endpoint, self.round)
        };
        (after(flight.started, pause).max(now), class)
    }

    fn view(&self) -> EndpointHealth {
        EndpointHealth {
            state: self.state,
            in_balance: self.state.in_balance(),
            ever_healthy: self.ever_healthy,
            dead: self.silence.is_death(self.params.fall),
            last: self.last,
            answered: self.answered,
            failed: self.failed,
            sent: self.round,
            since: self.since,
        }
    }
}

impl HealthCounts {
    const fn note(&mut self, outcome: ProbeOutcome) {
        match outcome {
            ProbeOutcome::Accepted => self.accepted += 1,
            ProbeOutcome::Refused | ProbeOutcome::TimedOut | ProbeOutcome::Unfit(_) | ProbeOutcome::Unreachable(_) => {
                self.failed += 1;
            }
            ProbeOutcome::Local(error) => {
                self.local += 1;
                self.last_local = Some(error);
            }
        }
    }
}

/// Returns the longest time from the moment when an endpoint stops answering until it leaves the balance, if its probes
/// need not wait for those of others. Endpoints that stopped answering at the same time leave within this time.
pub fn longest_fall(params: &model::HealthSettings) -> Duration {
    interval::longest_fall(params)
}

/// Returns the largest number of probes after which a new endpoint is healthy or unhealthy, if the gateway could send all of them.
pub fn most_first_probes(params: &model::HealthSettings) -> u32 {
    interval::most_first(params)
}

/// Returns the longest time that these probes take, if they need not wait for those of others: a day at most.
pub fn longest_first_probes(params: &model::HealthSettings) -> Duration {
    interval::longest_first(params).min(LONGEST)
}

fn after(now: Instant, pause: Duration) -> Instant {
    now + pause.min(LONGEST)
}

#[cfg(test)]
#[path = "health/tests.rs"]
mod tests;
