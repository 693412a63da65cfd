//! Which backends live: whom to probe, and when, and what the answers mean. No clock and no socket: [`crate::probe`]
//! has those.
//!
//! An `interval` is from one probe's start to that of the next, up to a tenth more or less; it is rounded up to 20 ms,
//! and to `timeout` where there was no answer: an endpoint has one probe at a time.
//!
//! What it costs does not grow with the number of endpoints but by its logarithm: [`Health::due`], [`Health::report`]
//! and [`Health::upsert`] look at nothing but what they are about.

mod machine;
mod schedule;
mod spread;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

pub use self::machine::{ProbeOutcome, State, SystemError, UNKNOWN};
use self::machine::{Silence, Streaks};
use self::schedule::{Class, Schedule};
use crate::model;

/// Probes at a time, unless it is said otherwise. Dead endpoints hold one for as long as their `timeout`, so this many
/// divided by that is how many of them can be asked in a second.
pub const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// The least pause after the gateway itself could not probe.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);
/// Far enough for any clock: intervals are validated to be shorter.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// An endpoint to be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub params: model::Health,
    /// Whether it was in the balance before anybody could have asked. Only looked at when the endpoint is new here.
    pub presumed: bool,
}

/// A probe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its number, for [`Health::report`]; never used twice.
    pub id: u64,
    /// Whom to ask.
    pub endpoint: SocketAddr,
    /// How long the handshake may take.
    pub timeout: Duration,
    /// Number of this probe among those of its endpoint; wraps around.
    pub round: u32,
    /// Which of the gateway's addresses it comes from, if that is there; else the one that routing chooses.
    pub source: Option<IpAddr>,
}

/// A change of what is thought of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthChange {
    /// Whose.
    pub endpoint: SocketAddr,
    /// What it was.
    pub from: State,
    /// What it is. Equal to `from` where only `dead` has changed, or somebody waited for an answer ([`Health::probe_now`]).
    pub to: State,
    /// Whether it is known to be dead: see [`View::dead`].
    pub dead: bool,
    /// What the last probe came to.
    pub reason: ProbeOutcome,
}

impl HealthChange {
    /// Whether the endpoint enters or leaves the balance.
    pub const fn moves(&self) -> bool {
        self.from.in_balance() != self.to.in_balance()
    }
}

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What is thought of it.
    pub state: State,
    /// Whether it gets new connections.
    pub in_balance: bool,
    /// Whether it ever was in the balance: healthy, or presumed to be.
    pub ever_healthy: bool,
    /// Whether it is known to be dead: `fall` probes in a row got no answer, or two in a row "unreachable" from the
    /// network. An endpoint that refuses is not: a program that shuts down in good order closes its listener first.
    pub dead: bool,
    /// How its last probe ended, of those that say something about it.
    pub last: Option<ProbeOutcome>,
    /// When the last probe that was answered was sent.
    pub answered: Option<Instant>,
    /// When it last left the balance because its probes failed.
    pub failed: Option<Instant>,
    /// Number of probes that were sent to it, answered or not.
    pub sent: u32,
    /// Since when its state has this name.
    pub since: Instant,
}

/// How probes have ended since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// Answered.
    pub accepted: u64,
    /// Refused, timed out, unreachable.
    pub failed: u64,
    /// Not sent, or given up, for want of something on the gateway.
    pub local: u64,
    /// What was wanting the last time.
    pub last_local: Option<SystemError>,
}

/// All endpoints that are probed.
#[derive(Debug)]
pub struct Health {
    endpoints: BTreeMap<SocketAddr, Endpoint>,
    schedule: Schedule,
    flights: BTreeMap<u64, Flight>,
    next_id: u64,
    cancelled: Vec<u64>,
    counts: HealthCounts,
}

#[derive(Debug)]
struct Endpoint {
    params: model::Health,
    state: State,
    silence: Silence,
    ever_healthy: bool,
    last: Option<ProbeOutcome>,
    answered: Option<Instant>,
    failed: Option<Instant>,
    /// Somebody waits for the answer to a probe that is not sent yet.
    awaited: bool,
    since: Instant,
    round: u32,
    waits: Waits,
}

#[derive(Debug, Clone, Copy)]
enum Waits {
    /// For its turn.
    Until(Instant, Class),
    /// For the answer to that probe, and then whether it goes on at once.
    Answer(u64, bool),
}

#[derive(Debug)]
struct Flight {
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
    /// Nobody yet, and at most that many probes at a time.
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

    /// Probe these and nobody else. Those that were there keep what is known of them.
    pub fn set(&mut self, targets: impl IntoIterator<Item = (SocketAddr, Target)>, now: Instant) {
        let targets: BTreeMap<SocketAddr, Target> = targets.into_iter().collect();
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

    /// Probe this one, too, or in another way. A new one is probed at once, before all routine; one that is presumed to
    /// be healthy, somewhen within its interval.
    pub fn upsert(&mut self, endpoint: SocketAddr, target: Target, now: Instant) {
        let Some(known) = self.endpoints.get_mut(&endpoint) else {
            self.insert(endpoint, target, now);
            return;
        };
        if known.params == target.params {
            return;
        }
        known.params = target.params;
        if let Waits::Until(at, class) = known.waits {
            let pause = spread::jittered(spread::interval(&known.params, known.state), endpoint, known.round);
            let sooner = at.min(after(now, pause));
            self.schedule.cancel(class, at, endpoint);
            self.schedule.add(class, sooner, endpoint);
            known.waits = Waits::Until(sooner, class);
        }
    }

    fn insert(&mut self, endpoint: SocketAddr, target: Target, now: Instant) {
        let (state, at, class) = if target.presumed {
            let state = State::Presumed { failed: 0 };
            let pause = spread::phase(spread::interval(&target.params, state), endpoint);
            (state, after(now, pause), Class::In)
        } else {
            (State::Unknown { failed: 0 }, now, Class::First)
        };
        self.schedule.add(class, at, endpoint);
        let known = Endpoint {
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

    /// Probe it no more, and forget it. Says whether it was there. A probe that is on its way is among
    /// [`Self::take_cancelled`], and its report will be ignored.
    pub fn remove(&mut self, endpoint: SocketAddr) -> bool {
        let Some(known) = self.endpoints.remove(&endpoint) else {
            return false;
        };
        match known.waits {
            Waits::Until(at, class) => self.schedule.cancel(class, at, endpoint),
            Waits::Answer(id, _) => {
                if let Some(flight) = self.flights.remove(&id) {
                    self.schedule.land(flight.class);
                    self.cancelled.push(id);
                }
            }
        }
        true
    }

    /// Probe it at once, before all routine; if a probe is on its way, as soon as that ends. The first answer from then on
    /// is a [`HealthChange`], whatever the state was. Says whether it is there.
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

    /// The probes to send now: each must be reported, or was cancelled. To be called again at [`Self::next_at`], after
    /// reports, and after endpoints were added.
    pub fn due(&mut self, now: Instant) -> Vec<Probe> {
        let mut probes = Vec::new();
        self.schedule.open(now);
        while let Some((class, endpoint)) = self.schedule.pop(now) {
            let Some(known) = self.endpoints.get_mut(&endpoint) else {
                self.schedule.land(class);
                continue;
            };
            let id = self.next_id;
            self.next_id += 1;
            known.waits = Waits::Answer(id, false);
            known.round = known.round.wrapping_add(1);
            let round = known.round;
            let flight = Flight {
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
            });
        }
        probes
    }

    /// When [`Self::due`] will have something, if nothing happens before; it may be past. `None` while nobody is there,
    /// or as many probes are on their way as may be.
    pub fn next_at(&self) -> Option<Instant> {
        self.schedule.next_at()
    }

    /// Takes note of how a probe ended, and says what that changes. Ignored where the endpoint has left since, even if
    /// it came back.
    pub fn report(&mut self, id: u64, outcome: ProbeOutcome, now: Instant) -> Option<HealthChange> {
        let flight = self.flights.remove(&id)?;
        self.schedule.land(flight.class);
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

    /// What is known of an endpoint.
    pub fn get(&self, endpoint: SocketAddr) -> Option<View> {
        self.endpoints.get(&endpoint).map(Endpoint::view)
    }

    /// What is known of all, by endpoint.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, View)> {
        self.endpoints.iter().map(|(endpoint, known)| (*endpoint, known.view()))
    }

    /// Probes of endpoints that left, since this was last asked: they need not be waited for.
    pub fn take_cancelled(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cancelled)
    }

    /// Probes on their way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// How probes have ended.
    pub const fn counts(&self) -> HealthCounts {
        self.counts
    }
}

impl Endpoint {
    /// `tells`: whether it is a change for somebody even if nothing is otherwise.
    fn learn(
        &mut self,
        endpoint: SocketAddr,
        flight: &Flight,
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
        flight: &Flight,
        outcome: ProbeOutcome,
        change: Option<&HealthChange>,
        now: Instant,
    ) -> (Instant, Class) {
        let interval = spread::interval(&self.params, self.state);
        let class = match self.last {
            None if !self.state.in_balance() => Class::First,
            _ if self.state.in_balance() => Class::In,
            _ => Class::Out,
        };
        if matches!(outcome, ProbeOutcome::Local(_)) {
            // An interval may be an hour: who is new, or waited for, would have no chance for so long.
            let is_urgent = self.awaited || class == Class::First;
            let pause = if is_urgent {
                LOCAL_PAUSE
            } else {
                interval.max(LOCAL_PAUSE)
            };
            return (after(now, spread::jittered(pause, endpoint, self.round)), class);
        }
        let has_entered = self.state.in_balance() && change.is_some_and(HealthChange::moves);
        let pause = if has_entered {
            spread::phase(interval, endpoint)
        } else {
            spread::jittered(interval, endpoint, self.round)
        };
        (after(flight.started, pause).max(now), class)
    }

    fn view(&self) -> View {
        View {
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
            ProbeOutcome::Refused | ProbeOutcome::TimedOut | ProbeOutcome::Unreachable(_) => self.failed += 1,
            ProbeOutcome::Local(error) => {
                self.local += 1;
                self.last_local = Some(error);
            }
        }
    }
}

/// The longest time from when an endpoint stops answering until it leaves the balance, as long as its probes need not wait
/// for those of others: the window in which endpoints leave that stopped answering at the same time.
pub fn longest_fall(params: &model::Health) -> Duration {
    spread::longest_fall(params)
}

fn after(now: Instant, pause: Duration) -> Instant {
    now + pause.min(LONGEST)
}

#[cfg(test)]
#[path = "health/tests.rs"]
mod tests;
