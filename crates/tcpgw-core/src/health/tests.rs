use std::collections::BTreeSet;
use std::num::NonZeroU16;

use proptest::prelude::*;

use super::machine::tests::{NO_DESCRIPTOR, UNREACHABLE_HOST};
use super::*;

const DEAD: ProbeOutcome = ProbeOutcome::Unreachable(UNREACHABLE_HOST);

fn endpoint(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, 1], n))
}

fn target() -> ProbeTarget {
    ProbeTarget {
        params: model::HealthSettings::default(),
        presumed: false,
    }
}

fn presumed() -> ProbeTarget {
    ProbeTarget {
        presumed: true,
        ..target()
    }
}

fn ids(probes: &[Probe]) -> Vec<u64> {
    probes.iter().map(|probe| probe.id).collect()
}

fn whom(probes: &[Probe]) -> Vec<u16> {
    probes.iter().map(|probe| probe.endpoint.port()).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn at_most(n: usize) -> Health {
    Health::new(NonZeroUsize::new(n).expect("not none"))
}

/// Health, a clock, and endpoints that answer with a given outcome after a given time.
struct World {
    health: Health,
    now: Instant,
    coming: BTreeSet<(Instant, u64, u16)>,
    answers: fn(u16, Duration) -> (ProbeOutcome, Duration),
    start: Instant,
    /// Time and endpoint (port) of each probe.
    sent: Vec<(Duration, u16)>,
    changes: Vec<(Duration, HealthChange)>,
    wakeups: usize,
}

impl World {
    fn new(health: Health, answers: fn(u16, Duration) -> (ProbeOutcome, Duration)) -> Self {
        let now = Instant::now();
        Self {
            health,
            now,
            coming: BTreeSet::new(),
            answers,
            start: now,
            sent: Vec::new(),
            changes: Vec::new(),
            wakeups: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.wakeups += 1;
            let since = self.now - self.start;
            for probe in self.health.due(self.now) {
                let port = probe.endpoint.port();
                let (outcome, pause) = (self.answers)(port, since);
                let pause = if outcome == ProbeOutcome::TimedOut {
                    probe.timeout
                } else {
                    pause
                };
                self.sent.push((since, port));
                self.coming.insert((self.now + pause, probe.id, port));
            }
            let answer = self.coming.first().map(|(at, ..)| *at);
            let next = [answer, self.health.next_at()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next < end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            while let Some((at, id, port)) = self.coming.first().copied()
                && at <= self.now
            {
                self.coming.pop_first();
                let outcome = (self.answers)(port, self.now - self.start).0;
                let change = self.health.report(id, outcome, self.now);
                self.changes
                    .extend(change.map(|change| (self.now - self.start, change)));
            }
        }
    }

    fn sent_in(&self, from: f64, to: f64) -> usize {
        let within = seconds(from)..seconds(to);
        self.sent.iter().filter(|(at, _)| within.contains(at)).count()
    }
}

fn good(_: u16, _: Duration) -> (ProbeOutcome, Duration) {
    (ProbeOutcome::Accepted, Duration::from_micros(300))
}

#[test]
fn a_new_endpoint_is_probed_at_once_and_enters_with_its_first_answer() {
    let (mut health, now) = (Health::default(), Instant::now());
    assert_eq!(health.next_at(), None);
    health.upsert(endpoint(1), target(), now);
    assert_eq!(health.next_at(), Some(now));
    let before = health.get(endpoint(1)).expect("it is known");
    assert!(!before.in_balance && !before.ever_healthy && before.last.is_none());
    let probes = health.due(now);
    assert_eq!((whom(&probes), probes[0].timeout), (vec![1], seconds(2.0)));
    assert_eq!(health.due(now), []);
    let change = health
        .report(probes[0].id, ProbeOutcome::Accepted, now)
        .expect("a change");
    assert!(change.moves() && !change.dead);
    assert_eq!((change.from.name(), change.to.name()), ("unknown", "healthy"));
    let view = health.get(endpoint(1)).expect("it is known");
    assert!(view.in_balance && view.ever_healthy && view.last == Some(ProbeOutcome::Accepted));
}

#[test]
fn it_leaves_after_three_failures_and_comes_back() {
    let mut world = World::new(Health::default(), |_, at| {
        let fails = (seconds(30.0)..seconds(60.0)).contains(&at);
        let outcome = if fails {
            ProbeOutcome::Refused
        } else {
            ProbeOutcome::Accepted
        };
        (outcome, Duration::from_micros(100))
    });
    world.health.upsert(endpoint(1), target(), world.now);
    world.run(seconds(100.0));
    let names: Vec<_> = world.changes.iter().map(|(_, change)| change.to.name()).collect();
    assert_eq!(names, ["healthy", "failing", "unhealthy", "healthy"]);
    let times: Vec<_> = world.changes.iter().map(|(at, _)| at.as_secs_f64()).collect();
    // At most one calm interval and a tenth; then two eager ones; and back within one.
    assert!((30.0..41.1).contains(&times[1]), "{times:?}");
    assert!((3.6..4.5).contains(&(times[2] - times[1])), "{times:?}");
    assert!((60.0..62.3).contains(&times[3]), "{times:?}");
    assert!(world.changes.iter().all(|(_, change)| !change.dead));
}

#[test]
fn what_is_presumed_stays_until_it_fails_three_times() {
    let mut world = World::new(Health::default(), |port, _| {
        let outcome = if port == 1 {
            ProbeOutcome::TimedOut
        } else {
            ProbeOutcome::Accepted
        };
        (outcome, Duration::from_micros(100))
    });
    world.health.set([1, 2].map(|n| (endpoint(n), presumed())), world.now);
    let views = [1, 2].map(|n| world.health.get(endpoint(n)).expect("it is known"));
    assert!(views.iter().all(|view| view.in_balance && view.ever_healthy));
    world.run(seconds(20.0));
    let mut names: Vec<_> = world
        .changes
        .iter()
        .map(|(_, change)| (change.endpoint.port(), change.to.name(), change.moves(), change.dead))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [(1, "unhealthy", true, true), (2, "healthy", false, false)]);
}

#[test]
fn death_is_told_where_no_state_changes() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    health.upsert(endpoint(1), target(), now);
    let mut collected = Vec::new();
    for outcome in [
        ProbeOutcome::Refused,
        DEAD,
        DEAD,
        DEAD,
        ProbeOutcome::Refused,
        ProbeOutcome::Accepted,
    ] {
        now += seconds(3.0);
        let probe = health.due(now).remove(0);
        let change = health.report(probe.id, outcome, now);
        collected.push(change.map(|change| (change.to.name(), change.dead)));
    }
    let expected = [
        None,
        None,
        Some(("unhealthy", true)),
        None,
        Some(("unhealthy", false)),
        Some(("healthy", false)),
    ];
    assert_eq!(collected, expected);
}

#[test]
fn our_own_troubles_say_nothing_about_a_backend() {
    let (mut health, now) = (Health::default(), Instant::now());
    health.set([(endpoint(1), target()), (endpoint(2), presumed())], now);
    let mut now = now + seconds(10.1);
    let lack = ProbeOutcome::Local(NO_DESCRIPTOR);
    for _ in 0..5 {
        let probes = health.due(now);
        assert_eq!(probes.len(), 2);
        for id in ids(&probes) {
            assert_eq!(health.report(id, lack, now), None);
        }
        assert!(health.next_at() >= Some(now + seconds(0.9)));
        now += seconds(11.1);
    }
    assert_eq!(health.get(endpoint(1)).map(|view| view.state.name()), Some("unknown"));
    assert_eq!(health.get(endpoint(2)).map(|view| view.state.name()), Some("presumed"));
    let counts = health.counts();
    assert_eq!(
        (counts.local, counts.failed, counts.last_local),
        (10, 0, Some(NO_DESCRIPTOR))
    );
}

/// Checks that the pause is not a whole interval, which may be an hour.
#[test]
fn who_is_new_or_waited_for_is_asked_again_soon_after_our_own_trouble() {
    let lack = ProbeOutcome::Local(NO_DESCRIPTOR);
    let mut hourly = target();
    hourly.params.interval = Some(seconds(3600.0));
    let (mut health, now) = (Health::default(), Instant::now());
    health.upsert(endpoint(1), hourly, now);
    let fails = |health: &mut Health, now: Instant| {
        let id = health.due(now)[0].id;
        assert_eq!(health.report(id, lack, now), None);
        let next = health.next_at().expect("it is asked again") - now;
        assert!((seconds(0.9)..=seconds(1.1)).contains(&next), "{next:?}");
        now + next
    };
    let now = fails(&mut health, now);
    let now = fails(&mut health, now);
    let id = health.due(now)[0].id;
    assert!(health.report(id, ProbeOutcome::Accepted, now).is_some());
    // A caller waits for it.
    assert!(health.probe_now(endpoint(1), now));
    let now = fails(&mut health, now);
    let id = health.due(now)[0].id;
    assert!(health.report(id, ProbeOutcome::Accepted, now).is_some());
    assert!(health.next_at() > Some(now + seconds(1000.0)), "nobody waits any more");
}

#[test]
fn a_report_of_one_that_left_is_ignored_even_if_it_came_back() {
    let (mut health, now) = (Health::default(), Instant::now());
    health.upsert(endpoint(1), target(), now);
    let late = health.due(now)[0].id;
    assert!(health.remove(endpoint(1)) && !health.remove(endpoint(1)));
    assert_eq!((health.take_cancelled(), health.in_flight()), (vec![late], 0));
    health.upsert(endpoint(1), target(), now);
    assert_eq!(health.report(late, ProbeOutcome::Accepted, now), None);
    assert_eq!(health.get(endpoint(1)).map(|view| view.in_balance), Some(false));
    let probe = health.due(now).remove(0);
    assert!(health.report(probe.id, ProbeOutcome::Accepted, now).is_some());
    assert_eq!(health.report(probe.id, ProbeOutcome::Accepted, now), None);
    assert!(health.take_cancelled().is_empty());
}

#[test]
fn a_new_set_keeps_what_is_known() {
    let (mut health, now) = (Health::default(), Instant::now());
    health.set([1, 2].map(|n| (endpoint(n), target())), now);
    for probe in health.due(now) {
        health.report(probe.id, ProbeOutcome::Accepted, now);
    }
    health.set([2, 3].map(|n| (endpoint(n), target())), now);
    let known: Vec<_> = health
        .iter()
        .map(|(endpoint, view)| (endpoint.port(), view.in_balance))
        .collect();
    assert_eq!(known, [(2, true), (3, false)]);
    assert_eq!(whom(&health.due(now)), [3]);
}

#[test]
fn new_and_wanted_ones_go_first_within_the_bound() {
    let (mut health, now) = (at_most(8), Instant::now());
    health.set((1..=20).map(|n| (endpoint(n), presumed())), now);
    let now = now + seconds(10.1);
    health.set((1..=30).map(|n| (endpoint(n), presumed())), now);
    for n in 31..=34 {
        health.upsert(endpoint(n), target(), now);
    }
    assert!(health.probe_now(endpoint(7), now) && !health.probe_now(endpoint(99), now));
    let mut probed = whom(&health.due(now));
    assert_eq!((probed.len(), health.in_flight(), health.next_at()), (8, 8, None));
    probed[..5].sort_unstable();
    assert_eq!(probed[..5], [7, 31, 32, 33, 34]);
}

#[test]
fn one_that_is_wanted_while_it_is_asked_is_asked_again() {
    let (mut health, now) = (Health::default(), Instant::now());
    health.upsert(endpoint(1), target(), now);
    let probe = health.due(now).remove(0);
    assert!(health.probe_now(endpoint(1), now));
    assert_eq!(health.due(now), []);
    health.report(probe.id, ProbeOutcome::Refused, now);
    assert_eq!(whom(&health.due(now)), [1]);
}

/// Checks that the answer to a probe that was sent before does not count.
#[test]
fn the_answer_that_somebody_waits_for_is_a_change() {
    let (mut health, start) = (Health::default(), Instant::now());
    let mut now = start;
    let mut ask = |health: &mut Health, outcome, again: bool| {
        now += seconds(30.0);
        let probe = health.due(now).remove(0);
        if again {
            health.probe_now(endpoint(1), now);
        }
        health
            .report(probe.id, outcome, now)
            .map(|change| (change.from, change.to))
    };
    health.upsert(endpoint(1), target(), start);
    assert!(ask(&mut health, ProbeOutcome::Accepted, false).is_some());
    assert_eq!(ask(&mut health, ProbeOutcome::Accepted, false), None);
    assert_eq!(ask(&mut health, ProbeOutcome::Accepted, true), None);
    assert_eq!(
        ask(&mut health, ProbeOutcome::Accepted, false),
        Some((EndpointState::Healthy, EndpointState::Healthy))
    );
    let view = health.get(endpoint(1)).expect("it is known");
    assert_eq!(view.answered, Some(start + seconds(120.0)));
    assert_eq!(ask(&mut health, ProbeOutcome::Accepted, false), None);
    health.probe_now(endpoint(1), start);
    assert!(
        ask(&mut health, ProbeOutcome::Refused, false).is_some(),
        "it begins to fail"
    );
    assert!(ask(&mut health, ProbeOutcome::Accepted, false).is_some());
    assert_eq!(ask(&mut health, ProbeOutcome::Accepted, false), None);
}

/// Tries endpoints that are silent or refuse, from any moment on, with several settings.
#[test]
fn nobody_stays_longer_than_the_longest_fall() {
    for (interval, timeout, fall) in [(None, 2.0, 3), (None, 5.0, 3), (Some(0.5), 2.0, 1), (Some(5.0), 1.0, 5)] {
        for answers in [
            (|_, at| {
                if at < seconds(60.0) {
                    good(0, at)
                } else {
                    (ProbeOutcome::TimedOut, Duration::ZERO)
                }
            }) as fn(_, _) -> _,
            |_, at| {
                if at < seconds(60.0) {
                    good(0, at)
                } else {
                    (ProbeOutcome::Refused, Duration::ZERO)
                }
            },
        ] {
            let mut world = World::new(Health::default(), answers);
            let params = model::HealthSettings {
                interval: interval.map(seconds),
                timeout: seconds(timeout),
                fall: NonZeroU16::new(fall).expect("not none"),
                ..model::HealthSettings::default()
            };
            let start = world.now;
            let target = ProbeTarget {
                params: params.clone(),
                presumed: false,
            };
            world
                .health
                .set((1..=100).map(|n| (endpoint(n), target.clone())), start);
            world.run(seconds(60.0) + longest_fall(&params));
            assert!(
                world
                    .health
                    .iter()
                    .all(|(_, view)| !view.in_balance && view.failed.is_some())
            );
        }
    }
}

#[test]
fn a_shorter_interval_holds_from_now_on() {
    let (mut health, now) = (Health::default(), Instant::now());
    health.upsert(endpoint(1), presumed(), now);
    let mut eager = presumed();
    eager.params.interval = Some(seconds(0.1));
    health.upsert(endpoint(1), eager, now);
    assert!(health.next_at().is_some_and(|at| at <= now + seconds(0.11)));
}

/// Thousands of endpoints that are added at once, their steady state, and the number of wake-ups.
#[test]
fn forty_thousand_are_spread() {
    for first in [target(), presumed()] {
        let mut world = World::new(Health::default(), good);
        let start = world.now;
        world
            .health
            .set((1..=40_000).map(|n| (endpoint(n), first.clone())), start);
        world.run(seconds(65.0));
        assert!(
            world
                .health
                .iter()
                .all(|(_, view)| view.state == EndpointState::Healthy)
        );
        if !first.presumed {
            assert_eq!(world.sent_in(0.0, 1.0) / 40_000, 1, "new ones are asked at once");
        }
        let from = if first.presumed { 0 } else { 2 };
        for second in (from..65).map(f64::from) {
            let sent = world.sent_in(second, second + 1.0);
            assert!((3750..=4250).contains(&sent), "{sent} in second {second}");
        }
        let routine = world.sent_in(2.0, 65.0);
        assert!((63 * 3800..=63 * 4200).contains(&routine), "{routine}");
        let until = |n: u16| {
            world
                .sent
                .partition_point(|(at, _)| *at < seconds(f64::from(n) / 100.0))
        };
        let most = (200..6500).map(|n| until(n + 1) - until(n)).max();
        assert!(most.is_some_and(|most| most < 200), "{most:?} within 10 ms");
    }
}

/// Lets a quarter of all endpoints die: the others are probed as before, and new ones are not delayed.
#[test]
fn the_dead_do_not_keep_the_living_waiting() {
    let mut world = World::new(at_most(128), |port, at| {
        let dies = port % 4 == 0 && at > seconds(20.0);
        let outcome = if dies {
            ProbeOutcome::TimedOut
        } else {
            ProbeOutcome::Accepted
        };
        (outcome, Duration::from_micros(300))
    });
    let start = world.now;
    world.health.set((1..=10_000).map(|n| (endpoint(n), presumed())), start);
    world.run(seconds(200.0));
    let is_in = |n: u16| world.health.get(endpoint(n)).is_some_and(|view| view.in_balance);
    assert!((1..=10_000).all(|n| is_in(n) == (n % 4 != 0)));
    assert!(world.health.get(endpoint(4)).is_some_and(|view| view.dead));
    let before = world.sent.len();
    world.health.upsert(endpoint(50_001), target(), world.now);
    world.run(seconds(20.0));
    let (asked, _) = world.sent[before..]
        .iter()
        .find(|(_, port)| *port == 50_001)
        .expect("it was asked");
    assert!(*asked < seconds(200.1), "{asked:?}");
    let living = world.sent[before..].iter().filter(|(_, port)| port % 4 != 0).count();
    assert!((14_000..=16_000).contains(&living), "{living} in 20 s");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Upsert(u16, bool),
    Remove(u16),
    Now(u16),
    Due,
    Report(usize, u8),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..12_u16, any::<bool>()).prop_map(|(n, presumed)| Step::Upsert(n, presumed)),
        (1..12_u16).prop_map(Step::Remove),
        (1..12_u16).prop_map(Step::Now),
        Just(Step::Due),
        Just(Step::Due),
        (any::<usize>(), 0..5_u8).prop_map(|(which, outcome)| Step::Report(which, outcome)),
        (any::<usize>(), 0..5_u8).prop_map(|(which, outcome)| Step::Report(which, outcome)),
        (0..3000_u16).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Runs operations in any order: at most one probe for each endpoint, never more in flight than allowed, and each
    /// endpoint is probed again.
    #[test]
    fn nobody_is_forgotten(steps in prop::collection::vec(step(), 0..120), max in 1..6_usize) {
        let outcomes = [ProbeOutcome::Accepted, ProbeOutcome::Refused, ProbeOutcome::TimedOut, DEAD, ProbeOutcome::Local(NO_DESCRIPTOR)];
        let (mut health, mut now) = (at_most(max), Instant::now());
        let mut known: BTreeSet<u16> = BTreeSet::new();
        let mut flying: BTreeMap<u16, u64> = BTreeMap::new();
        let mut rise_fall = target();
        rise_fall.params.rise = NonZeroU16::new(2).expect("two");
        for step in steps {
            match step {
                Step::Upsert(n, presumed) => {
                    health.upsert(endpoint(n), ProbeTarget { presumed, ..rise_fall.clone() }, now);
                    known.insert(n);
                }
                Step::Remove(n) => {
                    prop_assert_eq!(health.remove(endpoint(n)), known.remove(&n));
                    let cancelled: Vec<u64> = flying.remove(&n).into_iter().collect();
                    prop_assert_eq!(health.take_cancelled(), cancelled);
                }
                Step::Now(n) => prop_assert_eq!(health.probe_now(endpoint(n), now), known.contains(&n)),
                Step::Due => for probe in health.due(now) {
                    prop_assert!(flying.insert(probe.endpoint.port(), probe.id).is_none());
                },
                Step::Report(which, outcome) => {
                    let of = flying.iter().nth(which % flying.len().max(1)).map(|(n, id)| (*n, *id));
                    if let Some((n, id)) = of {
                        flying.remove(&n);
                        let before = health.get(endpoint(n)).map(|view| view.in_balance);
                        let change = health.report(id, outcomes[usize::from(outcome)], now);
                        let after = health.get(endpoint(n)).map(|view| view.in_balance);
                        prop_assert_eq!(change.is_some_and(|change| change.moves()), before != after);
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis.into()),
            }
            prop_assert_eq!(health.in_flight(), flying.len());
            prop_assert!(flying.len() <= max);
        }
        // Every endpoint is probed.
        let mut probed = BTreeSet::new();
        for _ in 0..200 {
            for (_, id) in std::mem::take(&mut flying) {
                health.report(id, ProbeOutcome::Accepted, now);
            }
            now = health.next_at().unwrap_or(now).max(now);
            for probe in health.due(now) {
                probed.insert(probe.endpoint.port());
                flying.insert(probe.endpoint.port(), probe.id);
            }
        }
        prop_assert_eq!(probed, known);
    }
}
