//! The thread that tells hooks of events.
//!
//! Nothing waits for it: events come by a channel of bounded length, and wait in a queue of bounded length for each hook. What is
//! lost is counted, logged, and a problem.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::hook_delivery::{HookEndpoint, HookProcesses};
use super::hook_events::{UnhealthyBackends, is_chosen};
use super::runtime::runtime;
use crate::control::event_tap::TappedEvents;
use crate::control::events::{Event, EventContent};
use crate::hooks::queue::{ATTEMPTS, DeliveryOutcome, HookQueue};
use crate::hooks::settings::HookSettings;
use crate::locked::locked;
use crate::secrets::Owners;
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::words::count;

/// Largest number of programs that run at once, of all hooks together.
const PROCESSES: usize = 4;
/// Time for deliveries when the daemon ends.
const GRACE: Duration = Duration::from_secs(2);
/// Time for the threads that kill programs when the daemon ends.
const LAST_PROCESSES: Duration = Duration::from_secs(1);
/// Longest pause between two looks at the queues.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Attempts of an event after which its hook is a problem before the event is lost.
const TOLD_AFTER: usize = 3;

/// Problem of the hooks, in words.
type HooksTrouble = Arc<Mutex<Option<String>>>;

/// Handle of the thread.
#[derive(Debug)]
pub(super) struct HooksThread {
    settings: watch::Sender<Vec<HookSettings>>,
    trouble: HooksTrouble,
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl HooksThread {
    /// Starts the thread. Hooks are told the events that come after this.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start(hooks: Vec<HookSettings>, events: TappedEvents<Event>) -> io::Result<Self> {
        let runtime = runtime()?;
        let (settings, changed) = watch::channel(hooks);
        let (end, ended) = oneshot::channel();
        let trouble = HooksTrouble::default();
        let mut dispatcher = Dispatcher {
            hooks: Vec::new(),
            next_id: 0,
            running: JoinSet::new(),
            ending: BTreeMap::new(),
            places: Arc::new(Semaphore::new(PROCESSES)),
            unhealthy: UnhealthyBackends::default(),
            trouble: Arc::clone(&trouble),
        };
        let thread = thread::Builder::new().name("hooks".into()).spawn(move || {
            runtime.block_on(dispatcher.serve(events, changed, ended));
            // Programs that still run are killed at once.
            runtime.shutdown_timeout(LAST_PROCESSES);
        })?;
        Ok(Self {
            settings,
            trouble,
            end,
            thread,
        })
    }

    /// Puts other hooks into effect. Events that wait for a hook whose name stays are kept.
    pub(super) fn configure(&self, hooks: &[HookSettings]) {
        self.settings.send_replace(hooks.to_vec());
    }

    /// Returns the problem of the hooks, if they have one.
    pub(super) fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// Ends the thread: what can be delivered within [`GRACE`] is, and the rest is logged.
    pub(super) fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that delivers events to hooks has died: hooks get no events until the daemon is restarted"
            );
        }
    }
}

/// A hook, and the events that it is still to be told.
struct ConfiguredHook {
    id: u64,
    settings: HookSettings,
    queue: HookQueue<Arc<Event>>,
    /// The hook with its files; `None`: they are read before the next delivery.
    endpoint: Option<Arc<HookEndpoint>>,
    /// Reason why the files of the hook cannot be used.
    unusable: Option<String>,
    /// Reason of the last failure, if the last attempt failed.
    failure: Option<String>,
    /// Whether its program is to be killed: the hook is removed, or the daemon ends.
    stop: Arc<AtomicBool>,
}

/// A delivery that has ended: the id of its hook, and the result.
type DeliveryEnd = (u64, Result<(), String>);

struct Dispatcher {
    hooks: Vec<ConfiguredHook>,
    next_id: u64,
    running: JoinSet<DeliveryEnd>,
    /// Removed hooks whose last delivery has not ended yet: their names by their ids.
    ending: BTreeMap<u64, String>,
    /// Places for programs that run at once.
    places: Arc<Semaphore>,
    unhealthy: UnhealthyBackends,
    trouble: HooksTrouble,
}

impl Dispatcher {
    async fn serve(
        &mut self,
        mut tapped: TappedEvents<Event>,
        mut changed: watch::Receiver<Vec<HookSettings>>,
        mut end: oneshot::Receiver<()>,
    ) {
        /// Events that are sorted at once.
        const AT_ONCE: usize = 1024;
        let mut events = Vec::with_capacity(AT_ONCE);
        let first = changed.borrow_and_update().clone();
        self.configure(first);
        loop {
            let now = Instant::now();
            self.begin_deliveries(now);
            self.tell_trouble(now);
            let wake = self.wakes_at(now);
            tokio::select! {
                biased;
                _ = &mut end => break,
                Ok(()) = changed.changed() => {
                    let hooks = changed.borrow_and_update().clone();
                    self.configure(hooks);
                }
                Some(ended) = self.running.join_next(), if !self.running.is_empty() => self.ended(ended, Instant::now()),
                received = tapped.events.recv_many(&mut events, AT_ONCE) => {
                    let now = Instant::now();
                    self.miss(tapped.take_missed(), now);
                    for event in events.drain(..) {
                        self.offer(&event, now);
                    }
                    if received == 0 {
                        break;
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
        let now = Instant::now();
        while let Ok(event) = tapped.events.try_recv() {
            self.offer(&event, now);
        }
        self.miss(tapped.take_missed(), now);
        self.finish().await;
    }

    fn configure(&mut self, wanted: Vec<HookSettings>) {
        let mut old = std::mem::take(&mut self.hooks);
        for settings in wanted {
            let same = old.iter().position(|hook| hook.settings.name == settings.name);
            let mut hook = if let Some(at) = same {
                ConfiguredHook {
                    settings,
                    // The files are read again.
                    endpoint: None,
                    ..old.swap_remove(at)
                }
            } else {
                self.next_id += 1;
                ConfiguredHook {
                    id: self.next_id,
                    settings,
                    queue: HookQueue::default(),
                    endpoint: None,
                    unusable: None,
                    failure: None,
                    stop: Arc::default(),
                }
            };
            if let Err(why) = hook.prepare() {
                tracing::warn!("{why}");
            }
            self.hooks.push(hook);
        }
        for hook in old.iter().filter(|hook| hook.queue.left() > 0) {
            let (name, events) = (&hook.settings.name, hook.queue.left());
            tracing::warn!(
                hook = name,
                events,
                "a hook is not configured any more: its last events are not delivered"
            );
        }
        for hook in old.into_iter().filter(|hook| hook.queue.is_under_way()) {
            hook.stop.store(true, Ordering::Relaxed);
            self.ending.insert(hook.id, hook.settings.name);
        }
    }

    /// Adds an event to the queues of those hooks that are told such ones.
    fn offer(&mut self, event: &Arc<Event>, now: Instant) {
        let is_about_hooks = match &event.what {
            EventContent::Problem(problem) => problem.kind == ProblemKind::Hooks,
            EventContent::ProblemEnded(problem) => problem.kind == ProblemKind::Hooks,
            _ => false,
        };
        let is_recovery = self.unhealthy.is_recovery(&event.what);
        for hook in &mut self.hooks {
            let is_wanted = hook
                .settings
                .on
                .iter()
                .any(|chosen| is_chosen(*chosen, &event.what, is_recovery));
            // What cannot be delivered would be about what could not be delivered, without end.
            let is_about_itself = is_about_hooks && (hook.queue.is_losing(now) || hook.failure.is_some());
            if !is_wanted || is_about_itself {
                continue;
            }
            if let Some(lost) = hook.queue.offer(Arc::clone(event), now) {
                let name = &hook.settings.name;
                tracing::warn!(hook = name, event = %lost.id, "an event for a hook is lost: too many wait for it");
            }
        }
    }

    /// Counts events that did not get here: any of them may have been for any hook.
    fn miss(&mut self, events: u64, now: Instant) {
        if events == 0 || self.hooks.is_empty() {
            return;
        }
        tracing::warn!(
            events,
            "events were lost before it was known which hooks they were for: they came too fast"
        );
        for hook in &mut self.hooks {
            hook.queue.lose(events, now);
        }
    }

    fn begin_deliveries(&mut self, now: Instant) {
        for hook in self.hooks.iter_mut().filter(|hook| !waits(&self.ending, hook)) {
            let Some((event, attempt)) = hook.queue.begin(now) else {
                continue;
            };
            let endpoint = hook.prepare();
            let processes = HookProcesses {
                places: Arc::clone(&self.places),
                stop: Arc::clone(&hook.stop),
            };
            let id = hook.id;
            self.running.spawn(async move {
                let delivered = match endpoint {
                    Ok(endpoint) => endpoint.deliver(event, attempt, processes).await,
                    Err(why) => Err(why),
                };
                (id, delivered)
            });
        }
    }

    fn ended(&mut self, ended: Result<DeliveryEnd, tokio::task::JoinError>, now: Instant) {
        let (id, delivered) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                if self.running.is_empty() {
                    self.ending.clear();
                }
                return tracing::error!(%error, "the delivery of an event to a hook has crashed: this is a bug in tcpgw, please report it");
            }
        };
        // The hook may have been removed in the meantime.
        self.ending.remove(&id);
        if let Some(hook) = self.hooks.iter_mut().find(|hook| hook.id == id) {
            hook.ended(delivered, now);
        }
    }

    fn wakes_at(&self, now: Instant) -> Instant {
        let hooks = self.hooks.iter().filter(|hook| !waits(&self.ending, hook));
        let due = hooks.filter_map(|hook| hook.queue.begins_at(now));
        due.min().unwrap_or(now + LONGEST_PAUSE).min(now + LONGEST_PAUSE)
    }

    fn tell_trouble(&self, now: Instant) {
        let troubles: Vec<String> = self.hooks.iter().filter_map(|hook| hook.trouble(now)).collect();
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        *locked(&self.trouble) = trouble;
    }

    /// Delivers what can be delivered soon, and logs the rest.
    async fn finish(&mut self) {
        let deadline = tokio::time::Instant::now() + GRACE;
        loop {
            self.begin_deliveries(Instant::now());
            match timeout_at(deadline, self.running.join_next()).await {
                Ok(Some(ended)) => self.ended(ended, Instant::now()),
                Ok(None) | Err(_) => break,
            }
        }
        for hook in &self.hooks {
            hook.stop.store(true, Ordering::Relaxed);
        }
        self.running.abort_all();
        for hook in self.hooks.iter().filter(|hook| hook.queue.left() > 0) {
            let (name, events) = (&hook.settings.name, hook.queue.left());
            tracing::warn!(
                hook = name,
                events,
                "the daemon ends: events for a hook are not delivered"
            );
        }
    }
}

/// Returns whether a delivery of an earlier hook of the same name has not ended yet: a hook is told one event at a time.
fn waits(ending: &BTreeMap<u64, String>, hook: &ConfiguredHook) -> bool {
    ending.values().any(|name| *name == hook.settings.name)
}

impl ConfiguredHook {
    /// Returns the hook with its files, which are read if they have not been.
    fn prepare(&mut self) -> Result<Arc<HookEndpoint>, String> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(Arc::clone(endpoint));
        }
        let loaded = HookEndpoint::load(&self.settings, &Owners::of_daemon());
        let loaded = loaded.map(Arc::new).map_err(|error| error.to_string());
        self.endpoint = loaded.as_ref().ok().cloned();
        self.unusable = loaded.as_ref().err().cloned();
        loaded
    }

    /// Takes the result of an attempt.
    fn ended(&mut self, delivered: Result<(), String>, now: Instant) {
        let name = &self.settings.name;
        let attempts = self.queue.attempts();
        let fate = self.queue.ended(delivered.is_ok(), now);
        let Err(why) = delivered else {
            if self.failure.take().is_some() {
                tracing::info!(hook = name, "a hook accepts events again");
            }
            return;
        };
        if let DeliveryOutcome::Again(at) = fate {
            let seconds = at.saturating_duration_since(now).as_secs();
            tracing::warn!(
                hook = name,
                attempts,
                "failed to deliver an event to a hook: {why}; next attempt in {seconds} s"
            );
        } else {
            tracing::warn!(hook = name, attempts, "an event for a hook is lost: {why}");
        }
        self.failure = Some(why);
        // A key or certificates may have been replaced.
        self.endpoint = None;
    }

    /// Returns what is wrong with the hook, if anything is.
    fn trouble(&self, now: Instant) -> Option<String> {
        let (name, lost) = (&self.settings.name, self.queue.lost());
        if let Some(why) = &self.unusable {
            return Some(format!("{why}; events that wait for it: {}", self.queue.left()));
        }
        let cause = || self.failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        if self.queue.is_losing(now) {
            return Some(format!(
                "hook {name} has lost {} since it was configured, the last one within 10 minutes{}",
                count(lost, "event"),
                cause()
            ));
        }
        let is_failing = self.failure.is_some() && self.queue.attempts() >= TOLD_AFTER;
        is_failing.then(|| {
            format!(
                "hook {name} accepts no events, of which {} wait{}; each is lost after {ATTEMPTS} attempts",
                self.queue.left(),
                cause()
            )
        })
    }
}
