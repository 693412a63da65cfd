//! Lists and events in every order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::provider::docker::TrackedContainers;
use crate::provider::docker::tracker::{
    EngineEvent, EngineEventKind, ListedContainer, StopSettings, Tracker, TrackerWork,
};
use tcpgw_core::container::{Container, ContainerHealth, RunState};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn listed(id: &str, state: RunState) -> ListedContainer {
    ListedContainer {
        container: Container {
            id: id.into(),
            name: id.into(),
            labels: [("tcpgw.port".to_owned(), "2001".to_owned())].into(),
            exposed: [80.try_into().unwrap()].into(),
            networks: Vec::new(),
            state,
            health: ContainerHealth::Unchecked,
            created: 0,
            is_stopping: false,
            start: 0,
        },
        stop: StopSettings {
            signal: 10,
            timeout: Duration::from_secs(10),
        },
    }
}

fn event(id: &str, kind: EngineEventKind) -> EngineEvent {
    EngineEvent {
        container: Some(id.into()),
        kind,
    }
}

/// Returns a tracker that has been connected and has had this list.
fn following(list: &[ListedContainer], t: Instant) -> Tracker {
    let mut tracker = Tracker::new(t);
    assert_eq!(tracker.due(), None);
    tracker.connected(t);
    assert_eq!(tracker.take(t), Some(TrackerWork::List));
    tracker.listed(list.to_vec(), t, t + ms(2));
    snapshot(&mut tracker, t + ms(2));
    tracker
}

/// Returns the snapshot that is due.
#[track_caller]
fn snapshot(tracker: &mut Tracker, now: Instant) -> TrackedContainers {
    match tracker.take(now) {
        Some(TrackerWork::Snapshot(containers)) => containers,
        other => panic!("{other:?}"),
    }
}

/// Returns the state and whether it was told to stop, of the first container in the snapshot that is due.
#[track_caller]
fn first(tracker: &mut Tracker, now: Instant) -> (RunState, bool) {
    let containers = snapshot(tracker, now).containers;
    (containers[0].state, containers[0].is_stopping)
}

#[test]
fn a_container_that_is_told_to_stop_is_told_before_the_next_list() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Kill(15)), t + ms(100));
    assert!(tracker.due().unwrap() <= t + ms(110));
    assert_eq!(first(&mut tracker, t + ms(110)), (RunState::Running, true));
    assert_eq!(tracker.take(t + ms(150)), None, "the list waits for more events");
    assert_eq!(tracker.take(t + ms(200)), Some(TrackerWork::List));
    // It still runs, and is still told to stop.
    tracker.listed(vec![listed("a", RunState::Running)], t + ms(200), t + ms(202));
    assert_eq!(first(&mut tracker, t + ms(202)), (RunState::Running, true));
    tracker.event(&event("a", EngineEventKind::Die), t + ms(400));
    assert_eq!(first(&mut tracker, t + ms(410)), (RunState::Down, true));
}

#[test]
fn signals_that_do_not_end_a_container_change_nothing() {
    let t = Instant::now();
    for (signal, is_stopping) in [
        (1, false),
        (12, false),
        (28, false),
        (10, true),
        (9, true),
        (15, true),
        (2, true),
    ] {
        let mut tracker = following(&[listed("a", RunState::Running)], t);
        tracker.event(&event("a", EngineEventKind::Kill(signal)), t + ms(100));
        assert_eq!(
            first(&mut tracker, t + ms(110)),
            (RunState::Running, is_stopping),
            "{signal}"
        );
    }
}

/// A program may catch SIGTERM and run on.
#[test]
fn a_container_that_survives_comes_back() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Kill(15)), t);
    let mut now = t;
    let mut stopping = 0;
    while now < t + Duration::from_secs(120) {
        match tracker.take(now) {
            Some(TrackerWork::List) => tracker.listed(vec![listed("a", RunState::Running)], now, now),
            Some(TrackerWork::Snapshot(told)) => {
                let is_early = now < t + Duration::from_secs(70);
                assert_eq!(told.containers[0].is_stopping, is_early, "{:?}", now - t);
                stopping += u32::from(told.containers[0].is_stopping);
            }
            None => now = tracker.due().unwrap(),
        }
    }
    assert!((1..10).contains(&stopping), "{stopping}");
}

#[test]
fn a_list_that_is_older_than_an_event_does_not_take_it_back() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Other), t + ms(100));
    assert_eq!(tracker.take(t + ms(200)), Some(TrackerWork::List));
    // While the list is on its way, the container ends.
    tracker.event(&event("a", EngineEventKind::Kill(9)), t + ms(201));
    tracker.event(&event("a", EngineEventKind::Die), t + ms(202));
    tracker.listed(vec![listed("a", RunState::Running)], t + ms(200), t + ms(205));
    assert_eq!(first(&mut tracker, t + ms(206)).0, RunState::Down);
    // Nor does one that was asked for just after it: engines tell of the end before their lists do.
    assert_eq!(tracker.take(t + ms(320)), Some(TrackerWork::List));
    tracker.listed(vec![listed("a", RunState::Running)], t + ms(320), t + ms(321));
    assert_eq!(first(&mut tracker, t + ms(322)).0, RunState::Down);
    // One that contradicts the event for long is right: another event was lost.
    let mut now = t + ms(322);
    let back = loop {
        match tracker.take(now) {
            Some(TrackerWork::List) => tracker.listed(vec![listed("a", RunState::Running)], now, now),
            Some(TrackerWork::Snapshot(told)) if told.containers[0].state == RunState::Running => break now,
            Some(TrackerWork::Snapshot(_)) => {}
            None => now = tracker.due().unwrap(),
        }
    };
    assert!(back - t > Duration::from_secs(10), "{:?}", back - t);
}

/// The list that comes next after a start may be older than it.
#[test]
fn events_are_confirmed_by_later_lists() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Down)], t);
    tracker.event(&event("a", EngineEventKind::Start), t);
    let (mut now, mut lists) = (t, Vec::new());
    while now < t + Duration::from_secs(50) {
        match tracker.take(now) {
            Some(TrackerWork::List) => {
                lists.push((now - t).as_millis());
                tracker.listed(vec![listed("a", RunState::Down)], now, now);
            }
            Some(TrackerWork::Snapshot(_)) => {}
            None => now = tracker.due().unwrap(),
        }
    }
    assert_eq!(lists, [100, 1000, 5000]);
}

#[test]
fn each_start_has_another_number() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Kill(15)), t + ms(1));
    tracker.event(&event("a", EngineEventKind::Die), t + ms(2));
    tracker.event(&event("a", EngineEventKind::Start), t + ms(3));
    let containers = snapshot(&mut tracker, t + ms(60)).containers;
    assert_eq!(
        (containers[0].start, containers[0].is_stopping, containers[0].state),
        (1, false, RunState::Running)
    );
}

#[test]
fn a_pause_is_told_at_once_and_its_end_by_a_list() {
    let t = Instant::now();
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Pause), t + ms(10));
    assert_eq!(first(&mut tracker, t + ms(20)).0, RunState::Paused);
    tracker.event(&event("a", EngineEventKind::Unpause), t + ms(30));
    assert_eq!(tracker.take(t + ms(130)), Some(TrackerWork::List));
    tracker.listed(vec![listed("a", RunState::Running)], t + ms(130), t + ms(131));
    assert_eq!(first(&mut tracker, t + ms(131)).0, RunState::Running);
}

#[test]
fn bursts_are_one_list_and_one_snapshot() {
    let t = Instant::now();
    let ids: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let list: Vec<ListedContainer> = ids.iter().map(|id| listed(id, RunState::Running)).collect();
    let mut tracker = following(&list, t);
    let (mut snapshots, mut lists, mut now) = (0, 0, t + ms(10));
    for id in &ids {
        tracker.event(&event(id, EngineEventKind::Kill(15)), now);
        now += Duration::from_micros(500);
        while let Some(work) = tracker.take(now) {
            match work {
                TrackerWork::List => {
                    lists += 1;
                    tracker.listed(list.clone(), now, now + ms(20));
                }
                TrackerWork::Snapshot(_) => snapshots += 1,
            }
        }
    }
    // 500 ms of events.
    assert!(lists <= 1 && (5..=15).contains(&snapshots), "{lists} {snapshots}");
}

/// An engine that is asked again as soon as it has answered would do nothing else.
#[test]
fn a_slow_engine_rests_between_lists() {
    let t = Instant::now();
    let mut tracker = following(&[], t);
    tracker.event(&event("a", EngineEventKind::Other), t + ms(10));
    assert_eq!(tracker.take(t + ms(110)), Some(TrackerWork::List));
    tracker.event(&event("a", EngineEventKind::Other), t + ms(500));
    tracker.listed(vec![], t + ms(110), t + ms(1110));
    snapshot(&mut tracker, t + ms(1110));
    assert_eq!(tracker.due(), Some(t + ms(3110)));
}

#[test]
fn an_engine_that_names_no_container_is_believed_after_a_minute() {
    let t = Instant::now();
    let mut tracker = Tracker::new(t);
    tracker.connected(t);
    let (mut now, mut lists) = (t, 0);
    let certain = loop {
        match tracker.take(now) {
            Some(TrackerWork::List) => {
                lists += 1;
                tracker.listed(vec![], now, now);
            }
            Some(TrackerWork::Snapshot(told)) if told.is_certain => break now,
            Some(TrackerWork::Snapshot(_)) => {}
            None => now = tracker.due().unwrap(),
        }
    };
    assert_eq!(certain, t + Duration::from_secs(60));
    assert!(lists <= 14, "{lists}");
    // One that has named some is believed at once when they are gone.
    let mut tracker = following(&[listed("a", RunState::Running)], t);
    tracker.event(&event("a", EngineEventKind::Other), t + ms(10));
    assert_eq!(tracker.take(t + ms(110)), Some(TrackerWork::List));
    tracker.listed(vec![], t + ms(110), t + ms(110));
    assert!(snapshot(&mut tracker, t + ms(110)).is_certain);
    // But not after it was away.
    tracker.disconnected();
    assert_eq!(tracker.due(), None);
    tracker.connected(t + ms(200));
    assert_eq!(tracker.take(t + ms(200)), Some(TrackerWork::List));
    tracker.listed(vec![], t + ms(200), t + ms(200));
    assert!(!snapshot(&mut tracker, t + ms(200)).is_certain);
}

/// Change of a container at an engine.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Start,
    Kill(u32),
    End,
    Pause,
    Unpause,
    Remove,
}

fn deed() -> impl Strategy<Value = (u8, Deed)> {
    let deed = prop::sample::select(vec![
        Deed::Start,
        Deed::Start,
        Deed::Kill(15),
        Deed::Kill(1),
        Deed::End,
        Deed::Pause,
        Deed::Unpause,
        Deed::Remove,
    ]);
    (0..3_u8, deed)
}

/// An engine: containers with their states.
#[derive(Debug, Default, Clone)]
struct Model {
    containers: BTreeMap<String, (RunState, bool)>,
}

impl Model {
    /// Carries out the step, and returns the events that the engine tells.
    fn perform(&mut self, id: &str, deed: Deed) -> Vec<EngineEvent> {
        let state = self.containers.get(id).map(|of| of.0);
        let (new, kinds) = match (deed, state) {
            (Deed::Start, None | Some(RunState::Down)) => ((RunState::Running, false), vec![EngineEventKind::Start]),
            (Deed::Kill(signal), Some(RunState::Running)) => {
                let is_told = self.containers[id].1 || signal == 15;
                ((RunState::Running, is_told), vec![EngineEventKind::Kill(signal)])
            }
            (Deed::End, Some(RunState::Running)) => ((RunState::Down, false), vec![EngineEventKind::Die]),
            (Deed::Pause, Some(RunState::Running)) => {
                ((RunState::Paused, self.containers[id].1), vec![EngineEventKind::Pause])
            }
            (Deed::Unpause, Some(RunState::Paused)) => (
                (RunState::Running, self.containers[id].1),
                vec![EngineEventKind::Unpause],
            ),
            (Deed::Remove, Some(_)) => {
                self.containers.remove(id);
                return [EngineEventKind::Die, EngineEventKind::Other]
                    .map(|kind| event(id, kind))
                    .into();
            }
            _ => return Vec::new(),
        };
        self.containers.insert(id.to_owned(), new);
        kinds.into_iter().map(|kind| event(id, kind)).collect()
    }

    fn list(&self) -> Vec<ListedContainer> {
        self.containers
            .iter()
            .map(|(id, (state, _))| listed(id, *state))
            .collect()
    }
}

proptest! {
    /// Events arrive some time after they happened, lists take a while and are old, and a connection breaks now and then. Whoever was told to
    /// stop never counts as one that was not, from its event on until it ends; and in the end the tracker knows what the engine has.
    #[test]
    fn the_end_is_what_the_engine_has(
        deeds in prop::collection::vec((deed(), 0..300_u64, any::<bool>()), 1..40),
        late in 0..40_u64,
        took in 0..120_u64,
        stale in 0..800_u64,
        broken in prop::option::of(0..40_usize),
    ) {
        let t = Instant::now();
        let (mut engine, mut tracker, mut now) = (Model::default(), Tracker::new(t), t);
        tracker.connected(t);
        // Events under way, lists under way with what the engine had, and what is known from events.
        let mut coming: Vec<(Instant, EngineEvent)> = Vec::new();
        let mut asked: Option<(Instant, Vec<ListedContainer>)> = None;
        // What the engine's lists have had, since when.
        let mut lists: Vec<(Instant, Vec<ListedContainer>)> = vec![(t, engine.list())];
        let mut told: BTreeMap<String, bool> = BTreeMap::new();
        let mut last: Option<TrackedContainers> = None;
        let mut deeds = deeds.into_iter().enumerate();
        let mut next_deed = Some(t);
        let end = t + Duration::from_secs(50);
        while now < end {
            let arrived = coming.iter().take_while(|(at, _)| *at <= now).count();
            for (_, event) in coming.drain(..arrived) {
                let id = event.container.clone().unwrap().to_string();
                match event.kind {
                    EngineEventKind::Kill(15) => drop(told.insert(id, true)),
                    EngineEventKind::Die | EngineEventKind::Start => drop(told.insert(id, false)),
                    _ => {}
                }
                tracker.event(&event, now);
            }
            if let Some((began, list)) = asked.take_if(|(began, _)| *began + ms(took) <= now) {
                tracker.listed(list, began, now);
            }
            if next_deed.is_some_and(|at| at <= now) {
                next_deed = deeds.next().map(|(number, ((id, deed), pause, _))| {
                    let events = engine.perform(&id.to_string(), deed);
                    lists.push((now + ms(stale), engine.list()));
                    coming.extend(events.into_iter().map(|event| (now + ms(late), event)));
                    if broken == Some(number) {
                        // Events that are under way are lost: the overlap brings them again, here at once.
                        for (_, event) in coming.drain(..) {
                            tracker.event(&event, now);
                        }
                        told.clear();
                        asked = None;
                        tracker.disconnected();
                        tracker.connected(now);
                    }
                    now + ms(pause)
                });
            }
            while let Some(work) = tracker.take(now) {
                match work {
                    TrackerWork::List => {
                        let present = lists.iter().rfind(|(since, _)| *since <= now).unwrap();
                        asked = Some((now, present.1.clone()));
                    }
                    TrackerWork::Snapshot(containers) => {
                        for container in &containers.containers {
                            let is_told = told.get(&*container.id) == Some(&true);
                            prop_assert!(!is_told || container.is_stopping || container.state == RunState::Down, "{:?}", container);
                        }
                        last = Some(containers);
                    }
                }
            }
            now += ms(5);
        }
        let has: BTreeMap<String, (RunState, bool)> = last.map(|last| last.containers).unwrap_or_default().into_iter()
            .map(|of| (of.id.to_string(), (of.state, of.is_stopping && of.state != RunState::Down)))
            .collect();
        prop_assert_eq!(has, engine.containers);
    }
}
