use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(10);

fn kind(name: &str) -> TypeName {
    TypeName::new(name).unwrap()
}

fn formation(pairs: &[(&str, u32)]) -> Formation {
    pairs.iter().map(|(name, number)| (kind(name), *number)).collect()
}

/// Returns a supervisor with these numbers of `tcp` and `web`, which are numbered in that order, and its time.
fn running(tcp: u32, web: u32) -> (Supervisor, Instant) {
    let (mut supervisor, now) = (Supervisor::new(GRACE), Instant::now());
    let actions = supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", tcp), ("web", web)])), now);
    let started = actions
        .iter()
        .filter(|action| matches!(action, Action::Start(_)))
        .count();
    assert_eq!(u32::try_from(started).unwrap(), tcp + web);
    (supervisor, now)
}

fn balance(number: u64, targets: &[InstanceId], at_once: bool) -> Action {
    Action::Balance {
        number,
        targets: targets.to_vec(),
        at_once,
    }
}

fn without_words(actions: Vec<Action>) -> Vec<Action> {
    actions
        .into_iter()
        .filter(|action| !matches!(action, Action::Say(..)))
        .collect()
}

#[test]
fn connections_go_to_instances_of_tcp() {
    let mut supervisor = Supervisor::new(GRACE);
    let actions = supervisor.take(
        SupervisorEvent::Scale(formation(&[("tcp", 2), ("web", 1)])),
        Instant::now(),
    );
    assert_eq!(
        actions,
        [
            Action::Start(1),
            Action::Start(2),
            Action::Start(3),
            balance(1, &[1, 2], false)
        ]
    );
    let names: Vec<String> = supervisor.instances().map(|(_, one)| one.name()).collect();
    assert_eq!(names, ["tcp.1", "tcp.2", "web.1"]);
}

#[test]
fn one_that_crashes_leaves_at_once_and_is_started_again_later_each_time() {
    let (mut supervisor, start) = running(2, 0);
    let mut now = start;
    for (round, pause) in [1_u64, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        let actions = without_words(supervisor.take(SupervisorEvent::Ended(1), now));
        let number = 2 + 2 * u64::try_from(round).unwrap();
        assert_eq!(actions, [balance(number, &[2], true)]);
        let pause = Duration::from_secs(pause);
        assert_eq!(supervisor.next_time(), Some(now + pause));
        let early = pause.saturating_sub(Duration::from_millis(1));
        assert_eq!(supervisor.tick(now + early), []);
        now += pause;
        assert_eq!(
            supervisor.tick(now),
            [Action::StartAgain(1), balance(number + 1, &[1, 2], false)]
        );
    }
    assert_eq!(supervisor.get(1).unwrap().ends, 7);
    now += WELL;
    supervisor.take(SupervisorEvent::Ended(1), now);
    assert_eq!(supervisor.next_time(), Some(now + FIRST_PAUSE), "it had run well");
}

#[test]
fn a_restart_ends_the_old_ones_when_the_new_ones_serve() {
    let (mut supervisor, now) = running(2, 1);
    let actions = supervisor.take(SupervisorEvent::Restart(vec![kind("tcp"), kind("web")]), now);
    assert_eq!(
        actions,
        [
            Action::Start(4),
            Action::Start(5),
            Action::Start(6),
            Action::Terminate(3),
            Action::Replace(vec![4, 5]),
        ]
    );
    assert!(supervisor.is_restarting());
    assert_eq!(
        supervisor.take(SupervisorEvent::Restart(vec![kind("tcp")]), now),
        [],
        "one at a time"
    );
    assert_eq!(
        supervisor.take(SupervisorEvent::Switched, now),
        [Action::Terminate(1), Action::Terminate(2)]
    );
    assert_eq!(supervisor.take(SupervisorEvent::Ended(1), now), []);
    let late = without_words(supervisor.tick(now + GRACE));
    assert_eq!(late, [Action::Remove(1), Action::Kill(2), Action::Kill(3)]);
    assert_eq!(supervisor.take(SupervisorEvent::Ended(2), now + GRACE), []);
    assert_eq!(supervisor.tick(now + GRACE + LINGER), [Action::Remove(2)]);
    let left: Vec<InstanceId> = supervisor.instances().map(|(id, _)| id).collect();
    assert_eq!(left, [3, 4, 5, 6], "one that was killed stays until it has ended");
}

#[test]
fn a_restart_that_fails_leaves_the_old_ones_alone() {
    for crash in [false, true] {
        let (mut supervisor, now) = running(1, 0);
        supervisor.take(SupervisorEvent::Restart(vec![kind("tcp")]), now);
        let actions = if crash {
            without_words(supervisor.take(SupervisorEvent::Ended(2), now))
        } else {
            supervisor.take(SupervisorEvent::NotSwitched, now)
        };
        let expected = if crash {
            vec![Action::Abandon, Action::Remove(2), balance(2, &[1], false)]
        } else {
            vec![Action::Terminate(2), balance(2, &[1], false)]
        };
        assert_eq!(actions, expected);
        assert_eq!(supervisor.take(SupervisorEvent::Switched, now), [], "too late");
    }
}

#[test]
fn who_is_scaled_away_ends_when_the_gateway_knows() {
    let (mut supervisor, now) = running(3, 2);
    let actions = supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1), ("web", 1)])), now);
    assert_eq!(actions, [Action::Terminate(5), balance(2, &[1], false)]);
    assert_eq!(supervisor.take(SupervisorEvent::Balanced(1), now), [], "of before");
    assert_eq!(
        supervisor.take(SupervisorEvent::Balanced(2), now),
        [Action::Terminate(2), Action::Terminate(3)]
    );
}

/// An instance that is scaled away keeps its connections until the gateway has confirmed, even for an hour.
#[test]
fn who_is_scaled_away_serves_on_beside_a_gateway_that_says_nothing() {
    let (mut supervisor, start) = running(2, 0);
    let now = start + Duration::from_secs(3600);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), start);
    assert_eq!(supervisor.tick(now), []);
    assert_eq!(supervisor.draining().collect::<Vec<_>>(), ["tcp.2"]);
    assert_eq!(
        supervisor.take(SupervisorEvent::Balanced(2), now),
        [Action::Terminate(2)]
    );
    assert_eq!(supervisor.draining().count(), 0);

    // Scaled again before: what the gateway is told last counts.
    let (mut supervisor, now) = running(3, 0);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 2)])), now);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), now);
    assert_eq!(supervisor.draining().collect::<Vec<_>>(), ["tcp.2", "tcp.3"]);
    let actions = supervisor.take(SupervisorEvent::Balanced(3), now);
    assert_eq!(actions, [Action::Terminate(2), Action::Terminate(3)]);

    // A restart replaces all that had connections.
    let (mut supervisor, now) = running(2, 0);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), now);
    supervisor.take(SupervisorEvent::Restart(vec![kind("tcp")]), now);
    assert_eq!(
        supervisor.take(SupervisorEvent::Switched, now),
        [Action::Terminate(1), Action::Terminate(2)]
    );
    let (mut supervisor, now) = running(2, 0);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), now);
    assert_eq!(
        supervisor.take(SupervisorEvent::Stop, now),
        [Action::Terminate(1), Action::Terminate(2)]
    );
}

#[test]
fn an_instance_is_served_when_the_gateway_has_confirmed_the_latest_set() {
    let (mut supervisor, now) = running(1, 0);
    supervisor.take(SupervisorEvent::Balanced(1), now);
    assert!(supervisor.is_served(1));
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 2)])), now);
    supervisor.take(SupervisorEvent::Balanced(1), now);
    assert!(!supervisor.is_served(2), "of before");
    supervisor.take(SupervisorEvent::Balanced(2), now);
    assert!(supervisor.is_served(1) && supervisor.is_served(2));

    supervisor.take(SupervisorEvent::Restart(vec![kind("tcp")]), now);
    assert!(!supervisor.is_served(3) && !supervisor.is_served(4), "not switched to");
    supervisor.take(SupervisorEvent::Switched, now);
    assert!(supervisor.is_served(3) && supervisor.is_served(4));
    assert!(!supervisor.is_served(1));
}

#[test]
fn an_index_that_is_free_is_used_again() {
    let (mut supervisor, now) = running(2, 0);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), now);
    supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 3)])), now);
    let names: Vec<String> = supervisor
        .instances()
        .filter(|(_, one)| one.is_wanted())
        .map(|(_, one)| one.name())
        .collect();
    assert_eq!(names, ["tcp.1", "tcp.2", "tcp.3"]);
}

#[test]
fn stop_ends_all_and_kill_ends_the_rest_at_once() {
    let (mut supervisor, now) = running(2, 1);
    supervisor.take(SupervisorEvent::Ended(2), now);
    assert_eq!(
        supervisor.take(SupervisorEvent::Stop, now),
        [Action::Terminate(1), Action::Remove(2), Action::Terminate(3)]
    );
    assert_eq!(supervisor.take(SupervisorEvent::Ended(1), now), [Action::Remove(1)]);
    assert!(!supervisor.is_over());
    assert_eq!(supervisor.take(SupervisorEvent::Kill, now), [Action::Kill(3)]);
    assert_eq!(supervisor.take(SupervisorEvent::Kill, now), []);
    assert_eq!(supervisor.take(SupervisorEvent::Ended(3), now), [Action::Remove(3)]);
    assert!(supervisor.is_over());
    assert_eq!(
        supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 1)])), now),
        []
    );
}

#[derive(Debug, Clone)]
enum Move {
    End(usize),
    Restart(bool),
    Scale(u32, u32),
    Balanced,
    Switched,
    NotSwitched,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0..8_usize).prop_map(Move::End),
        any::<bool>().prop_map(Move::Restart),
        (0..4_u32, 0..3_u32).prop_map(|(tcp, web)| Move::Scale(tcp, web)),
        Just(Move::Balanced),
        Just(Move::Switched),
        Just(Move::NotSwitched),
        (0..12_000_u64).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 0..60)
}

/// Model of the effects of actions: processes that run, and those that have a network.
#[derive(Default)]
struct World {
    processes: BTreeSet<InstanceId>,
    networks: BTreeSet<InstanceId>,
}

impl World {
    fn does(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Start(id) => {
                    assert!(self.networks.insert(*id), "{id} starts once");
                    self.processes.insert(*id);
                }
                Action::StartAgain(id) => {
                    assert!(self.networks.contains(id), "{id} has its network");
                    assert!(self.processes.insert(*id), "{id} does not run twice");
                }
                Action::Terminate(id) | Action::Kill(id) => assert!(self.processes.contains(id), "{id} runs"),
                Action::Remove(id) => {
                    assert!(!self.processes.contains(id), "{id} has ended");
                    assert!(self.networks.remove(id), "{id} goes once");
                }
                Action::Balance { targets, .. } | Action::Replace(targets) => {
                    assert!(targets.iter().all(|id| self.processes.contains(id)), "they run");
                }
                Action::Abandon | Action::Say(..) => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_left(moves in moves()) {
        let mut supervisor = Supervisor::new(GRACE);
        let mut now = Instant::now();
        let mut world = World::default();
        world.does(&supervisor.take(SupervisorEvent::Scale(formation(&[("tcp", 2), ("web", 1)])), now));
        for one in moves {
            let input = match one {
                Move::End(at) => {
                    let Some(id) = world.processes.iter().copied().nth(at) else { continue };
                    world.processes.remove(&id);
                    SupervisorEvent::Ended(id)
                }
                Move::Restart(tcp) => SupervisorEvent::Restart(vec![kind(if tcp { "tcp" } else { "web" })]),
                Move::Scale(tcp, web) => SupervisorEvent::Scale(formation(&[("tcp", tcp), ("web", web)])),
                Move::Balanced => SupervisorEvent::Balanced(supervisor.number),
                Move::Switched => SupervisorEvent::Switched,
                Move::NotSwitched => SupervisorEvent::NotSwitched,
                Move::Wait(time) => {
                    now += Duration::from_millis(time);
                    world.does(&supervisor.tick(now));
                    continue;
                }
            };
            let actions = supervisor.take(input, now);
            world.does(&actions);
        }
        world.does(&supervisor.take(SupervisorEvent::Stop, now));
        now += GRACE;
        world.does(&supervisor.tick(now));
        for id in std::mem::take(&mut world.processes) {
            world.does(&supervisor.take(SupervisorEvent::Ended(id), now));
        }
        prop_assert!(supervisor.is_over());
        prop_assert!(world.networks.is_empty());
    }
}
