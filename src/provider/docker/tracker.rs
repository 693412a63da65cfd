//! Containers as they are known from lists and from events, whichever is newer. It takes `now` and reads no clock.
//!
//! An event tells at once what a list confirms later: a container that is told to stop drains from its `kill` event on. A list
//! does not take an event back, even if it was asked for later: engines report that a container has ended before their lists do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::news::TrackedContainers;
use tcpgw_core::container::{Container, RunState, is_addressed};

/// Time without events after which containers are listed, and the longest time by which a burst delays that.
const LIST_QUIET: Duration = Duration::from_millis(100);
const LIST_BURST: Duration = Duration::from_secs(1);
/// The same for a snapshot of what events alone have told.
const SNAPSHOT_QUIET: Duration = Duration::from_millis(5);
const SNAPSHOT_BURST: Duration = Duration::from_millis(50);
/// Times after the last event at which containers are listed again, since lists may be older than events.
const CONFIRMATIONS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Time after which a list is believed that contradicts an event: another event was lost.
const STALE: Duration = Duration::from_secs(10);
/// Interval of lists without events, which may be lost.
const POLL: Duration = Duration::from_secs(60);
/// Interval of lists as long as none has named a container.
const EMPTY_POLL: Duration = Duration::from_secs(5);
/// Time after which an engine that names no container is believed.
const EMPTY: Duration = Duration::from_secs(60);
/// Least time for which a container that was told to stop and still runs gets no new connections.
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// Time that an engine takes to kill what has not stopped in time.
const KILL: Duration = Duration::from_secs(10);
/// Signals that end most programs, whatever their image names: SIGINT, SIGQUIT, SIGABRT, SIGKILL and SIGTERM (`signal(7)`).
const ENDING_SIGNALS: [u32; 5] = [2, 3, 6, 9, 15];

/// A container as a list has it, with what its configuration says about its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedContainer {
    pub(super) container: Container,
    pub(super) stop: StopSettings,
}

/// End of a container, by its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopSettings {
    /// Signal that tells it to stop.
    pub(super) signal: u32,
    /// Time after which it is killed.
    pub(super) timeout: Duration,
}

/// An event of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineEvent {
    /// Id of the container; `None`: the event may concern any.
    pub(super) container: Option<Box<str>>,
    pub(super) kind: EngineEventKind,
}

impl EngineEvent {
    /// Returns an event of which nothing is known.
    pub(super) fn of_any() -> Self {
        Self {
            container: None,
            kind: EngineEventKind::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineEventKind {
    /// The container was sent a signal.
    Kill(u32),
    /// Its first process has ended.
    Die,
    /// Its first process was started.
    Start,
    /// The container was frozen.
    Pause,
    /// The container goes on.
    Unpause,
    /// Something else has changed.
    Other,
}

/// Work that is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TrackerWork {
    /// Containers are to be listed, and [`Tracker::listed`] to be called.
    List,
    /// All containers as they are known now.
    Snapshot(TrackedContainers),
}

/// Events of a container that no list has confirmed.
#[derive(Debug, Default)]
struct Marks {
    /// Signals that it was sent.
    signals: BTreeSet<u32>,
    /// Time of the last of these signals.
    signalled: Option<Instant>,
    died: Option<Instant>,
    paused: Option<Instant>,
}

/// Time of the first and last event of a burst.
#[derive(Debug, Clone, Copy)]
struct EventBurst {
    first: Instant,
    last: Instant,
}

impl EventBurst {
    fn add(burst: &mut Option<Self>, now: Instant) {
        let first = burst.map_or(now, |burst| burst.first);
        *burst = Some(Self { first, last: now });
    }

    fn due(self, quiet: Duration, longest: Duration) -> Instant {
        (self.last + quiet).min(self.first + longest)
    }
}

/// The containers of one engine.
#[derive(Debug)]
pub(super) struct Tracker {
    /// `None`: no list has been received from the engine since it is connected.
    listed: Option<BTreeMap<Box<str>, ListedContainer>>,
    marks: BTreeMap<Box<str>, Marks>,
    /// Number of starts of each container that are known from events.
    starts: BTreeMap<Box<str>, u64>,
    connected: Option<Instant>,
    /// Whether a list has named a container with labels since the engine is connected.
    has_named: bool,
    is_listing: bool,
    poll: Instant,
    /// Earliest time of the next list: the engine does nothing else if each begins when the last has ended.
    rest: Instant,
    /// Time of the last event, and the number of confirmations since.
    last_event: Option<(Instant, usize)>,
    unlisted: Option<EventBurst>,
    untold: Option<EventBurst>,
}

impl Tracker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            listed: None,
            marks: BTreeMap::new(),
            starts: BTreeMap::new(),
            connected: None,
            has_named: false,
            is_listing: false,
            poll: now,
            rest: now,
            last_event: None,
            unlisted: None,
            untold: None,
        }
    }

    /// Begins to follow the engine: its events arrive from here on, and containers are listed at once.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
        self.listed = None;
        self.has_named = false;
        self.is_listing = false;
        (self.poll, self.rest) = (now, now);
        (self.unlisted, self.untold) = (None, None);
    }

    /// Notes that events do not arrive any more. Nothing is due until the engine is connected again.
    pub(super) fn disconnected(&mut self) {
        self.connected = None;
    }

    /// Takes an event that arrived `now`.
    pub(super) fn event(&mut self, event: &EngineEvent, now: Instant) {
        EventBurst::add(&mut self.unlisted, now);
        self.last_event = Some((now, 0));
        let Some(id) = &event.container else { return };
        match event.kind {
            EngineEventKind::Kill(signal) => {
                let marks = self.marks.entry(id.clone()).or_default();
                marks.signals.insert(signal);
                marks.signalled = Some(now);
            }
            EngineEventKind::Die => self.marks.entry(id.clone()).or_default().died = Some(now),
            EngineEventKind::Pause => self.marks.entry(id.clone()).or_default().paused = Some(now),
            EngineEventKind::Start => {
                self.marks.remove(id);
                *self.starts.entry(id.clone()).or_default() += 1;
                return;
            }
            EngineEventKind::Unpause => {
                if let Some(marks) = self.marks.get_mut(id) {
                    marks.paused = None;
                }
                return;
            }
            EngineEventKind::Other => return,
        }
        if self.listed.as_ref().is_some_and(|listed| listed.contains_key(id)) {
            EventBurst::add(&mut self.untold, now);
        }
    }

    /// Takes a list of all containers, which was asked for at `began`.
    pub(super) fn listed(&mut self, list: Vec<ListedContainer>, began: Instant, now: Instant) {
        self.is_listing = false;
        self.rest = now + now.saturating_duration_since(began).saturating_mul(2);
        self.has_named |= list.iter().any(|listed| is_addressed(&listed.container));
        self.poll = now + if self.is_certain(now) { POLL } else { EMPTY_POLL };
        let list: BTreeMap<Box<str>, ListedContainer> =
            list.into_iter().map(|of| (of.container.id.clone(), of)).collect();
        self.marks.retain(|id, marks| marks.outlast(list.get(id), began, now));
        let marks = &self.marks;
        self.starts
            .retain(|id, _| list.contains_key(id) || marks.contains_key(id));
        // Containers whose signal has not ended them are to get connections again.
        let ends = self.marks.iter().filter_map(|(id, marks)| marks.ends(list.get(id)?));
        self.poll = ends.min().map_or(self.poll, |end| self.poll.min(end.max(now)));
        self.listed = Some(list);
        self.untold = Some(EventBurst {
            first: began.checked_sub(SNAPSHOT_BURST).unwrap_or(began),
            last: now,
        });
    }

    /// Returns the time at which [`Self::take`] has work.
    pub(super) fn due(&self) -> Option<Instant> {
        self.connected?;
        let snapshot = self.listed.as_ref().and(self.untold);
        let snapshot = snapshot.map(|burst| burst.due(SNAPSHOT_QUIET, SNAPSHOT_BURST));
        let unlisted = self.unlisted.map(|burst| burst.due(LIST_QUIET, LIST_BURST));
        let lists = [Some(self.poll), unlisted, self.confirmation()];
        let list = lists.into_iter().flatten().min().map(|at| at.max(self.rest));
        snapshot.into_iter().chain(list.filter(|_| !self.is_listing)).min()
    }

    /// Returns the time of the next confirmation of the last events.
    fn confirmation(&self) -> Option<Instant> {
        let (at, confirmations) = self.last_event?;
        Some(at + *CONFIRMATIONS.get(confirmations)?)
    }

    /// Returns work that is due, and counts it as begun.
    pub(super) fn take(&mut self, now: Instant) -> Option<TrackerWork> {
        if self.due()? > now {
            return None;
        }
        let is_told = self
            .untold
            .is_none_or(|burst| burst.due(SNAPSHOT_QUIET, SNAPSHOT_BURST) > now);
        if let Some(listed) = self.listed.as_ref().filter(|_| !is_told) {
            let containers = listed.values().map(|listed| self.present(listed, now)).collect();
            let is_certain = self.is_certain(now);
            self.untold = None;
            return Some(TrackerWork::Snapshot(TrackedContainers { containers, is_certain }));
        }
        self.is_listing = true;
        self.unlisted = None;
        while self.confirmation().is_some_and(|at| at <= now) {
            self.last_event = self.last_event.map(|(at, confirmations)| (at, confirmations + 1));
        }
        Some(TrackerWork::List)
    }

    fn is_certain(&self, now: Instant) -> bool {
        self.has_named || self.connected.is_some_and(|connected| now >= connected + EMPTY)
    }

    /// Returns a container as lists and events together have it.
    fn present(&self, listed: &ListedContainer, now: Instant) -> Container {
        let mut container = listed.container.clone();
        container.start = self.starts.get(&container.id).copied().unwrap_or_default();
        let Some(marks) = self.marks.get(&container.id) else {
            return container;
        };
        container.is_stopping = marks.ends(listed).is_some_and(|end| now < end);
        if marks.died.is_some() {
            container.state = RunState::Down;
        } else if marks.paused.is_some() && container.state == RunState::Running {
            container.state = RunState::Paused;
        }
        container
    }
}

impl Marks {
    /// Returns the time until which a container counts as one that was told to stop; `None`: it was sent no signal that ends it.
    fn ends(&self, listed: &ListedContainer) -> Option<Instant> {
        let stop = &listed.stop;
        let mut signals = self.signals.iter();
        let is_told = signals.any(|signal| ENDING_SIGNALS.contains(signal) || *signal == stop.signal);
        // A time that nobody means must not be added to a clock.
        let patience = stop.timeout.clamp(LONGEST_STOP, Duration::from_secs(24 * 3600)) + KILL;
        self.signalled.filter(|_| is_told).map(|at| at + patience)
    }

    /// Drops what a list confirms that was asked for at `began`, and what is too old. Returns whether anything is left.
    fn outlast(&mut self, listed: Option<&ListedContainer>, began: Instant, now: Instant) -> bool {
        let is_stale = |at: Instant| now >= at + STALE;
        let state = listed.map_or(RunState::Down, |listed| listed.container.state);
        if let Some(died) = self.died {
            return !is_stale(died) && (state != RunState::Down || died >= began);
        }
        let is_frozen = |at: &Instant| !is_stale(*at) && (state == RunState::Running || *at >= began);
        self.paused = self.paused.filter(is_frozen);
        let is_over = match listed.filter(|_| state != RunState::Down) {
            Some(listed) => self.ends(listed).is_none_or(|end| end <= now),
            None => true,
        };
        if is_over && self.signalled.is_some_and(is_stale) {
            self.signals.clear();
            self.signalled = None;
        }
        self.signalled.is_some() || self.paused.is_some()
    }
}
