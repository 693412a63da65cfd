//! The thread that reads connections, traffic and drops of those apps whose pages are open.
//!
//! However many pages are open, there is one pass at a time, and a pause after each: at most a small part of one processor is
//! used. A page shows the last reading, and waits for the first one a moment only. Without open pages there is no thread.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::addon::id::ResourceId;
use crate::api::OpenKernel;
use crate::locked::locked;
use crate::observe::{self, ObserveError};
use crate::view::app::{AppReading, AppSample, AppSubject, EarlierSample};
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::Kernel;
use tcpgw_kernel::conntrack::{Flow, Selection};

/// Time from one pass to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a pass, as a multiple of its processor time: the thread uses at most 5 % of one processor.
const REST: u32 = 20;
/// Time for which an app is read after its page was shown last.
const WATCHED: Duration = Duration::from_secs(20);
/// Number of apps that are read at once; beyond, the one whose page was shown longest ago is dropped.
const MOST: usize = 256;
/// Flows whose counters are kept from one pass for the next, of all apps: 32 bytes each.
const SAMPLES: usize = 200_000;

/// Last reading of an app, or the reason why there is none.
#[derive(Debug)]
pub(super) struct LastReading {
    /// Time of the reading.
    pub(super) at: Instant,
    /// Whether conntrack counts packets and bytes; `None`: that is not known.
    pub(super) counts_traffic: Option<bool>,
    /// The reading, or the error.
    pub(super) reading: Result<AppReading, String>,
}

/// Handle of the thread for handlers of requests.
pub(super) struct TrafficObserver(Arc<SharedObserver>);

struct SharedObserver {
    open: OpenKernel,
    state: Mutex<ObserverState>,
    /// An app has come, or all is over.
    called: Condvar,
    /// A pass is over.
    seen: Notify,
}

#[derive(Default)]
struct ObserverState {
    apps: BTreeMap<ResourceId, WatchedApp>,
    is_running: bool,
    is_over: bool,
}

struct WatchedApp {
    subject: Arc<AppSubject>,
    mark: FlowMark,
    last_shown: Instant,
    /// Whether the app has not been read yet in its present state.
    is_awaited: bool,
    seen: Option<Arc<LastReading>>,
    earlier: Option<EarlierSample>,
}

/// Data for reading one app in a pass.
struct Task {
    id: ResourceId,
    subject: Arc<AppSubject>,
    mark: FlowMark,
    earlier: Option<EarlierSample>,
}

impl TrafficObserver {
    pub(super) fn new(open: OpenKernel) -> Self {
        Self(Arc::new(SharedObserver {
            open,
            state: Mutex::default(),
            called: Condvar::new(),
            seen: Notify::new(),
        }))
    }

    /// Returns the last reading of an app, which is read from now on; waits for the first one for a limited time. `None`: there
    /// is none yet.
    pub(super) async fn reading(
        &self,
        id: ResourceId,
        subject: AppSubject,
        mark: FlowMark,
        patience: Duration,
    ) -> Option<Arc<LastReading>> {
        if let Err(error) = self.watch(id, subject, mark, Instant::now()) {
            tracing::warn!(%error, "failed to start the thread that reads apps' traffic");
            return None;
        }
        let fresh = async {
            loop {
                let over = self.0.seen.notified();
                tokio::pin!(over);
                // From here on no pass is missed.
                over.as_mut().enable();
                let app = self
                    .0
                    .lock()
                    .apps
                    .get(&id)
                    .map(|app| (app.is_awaited, app.seen.clone()));
                match app {
                    Some((false, Some(seen))) => return Some(seen),
                    // The app was removed to make room for others.
                    None => return None,
                    Some(_) => over.await,
                }
            }
        };
        match timeout(patience, fresh).await {
            Ok(seen) => seen,
            Err(_) => self.0.lock().apps.get(&id)?.seen.clone(),
        }
    }

    fn watch(&self, id: ResourceId, subject: AppSubject, mark: FlowMark, now: Instant) -> std::io::Result<()> {
        let mut state = self.0.lock();
        state.watch(id, subject, mark, now);
        if !state.is_running {
            let shared = Arc::clone(&self.0);
            thread::Builder::new()
                .name("traffic".into())
                .spawn(move || read_all(&shared))?;
            state.is_running = true;
        }
        drop(state);
        self.0.called.notify_one();
        Ok(())
    }
}

impl Drop for TrafficObserver {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.called.notify_one();
    }
}

impl SharedObserver {
    fn lock(&self) -> MutexGuard<'_, ObserverState> {
        locked(&self.state)
    }
}

impl WatchedApp {
    /// Takes the rest of the previous sample, for the sample that begins now.
    fn take(&mut self) -> Option<EarlierSample> {
        self.is_awaited = false;
        self.earlier.take()
    }
}

impl ObserverState {
    fn watch(&mut self, id: ResourceId, subject: AppSubject, mark: FlowMark, now: Instant) {
        if let Some(app) = self.apps.get_mut(&id) {
            app.last_shown = now;
            app.mark = mark;
            if *app.subject != subject {
                app.subject = Arc::new(subject);
                app.is_awaited = true;
            }
            return;
        }
        if self.apps.len() >= MOST {
            let oldest = self
                .apps
                .iter()
                .min_by_key(|(_, app)| app.last_shown)
                .map(|(id, _)| *id);
            self.apps.retain(|id, _| Some(*id) != oldest);
        }
        let app = WatchedApp {
            subject: Arc::new(subject),
            mark,
            last_shown: now,
            is_awaited: true,
            seen: None,
            earlier: None,
        };
        self.apps.insert(id, app);
    }

    /// Returns whether an app waits for a reading: it is new, or has other containers.
    fn is_awaited(&self) -> bool {
        self.apps.values().any(|app| app.is_awaited)
    }

    /// Returns the apps to read, and forgets apps whose pages were closed.
    fn tasks(&mut self, now: Instant) -> Vec<Task> {
        self.apps
            .retain(|_, app| now.saturating_duration_since(app.last_shown) < WATCHED);
        let apps = self.apps.iter_mut();
        apps.map(|(id, app)| Task {
            id: *id,
            subject: Arc::clone(&app.subject),
            mark: app.mark,
            earlier: app.take(),
        })
        .collect()
    }

    fn took(&mut self, id: ResourceId, seen: LastReading, earlier: Option<EarlierSample>) {
        if let Some(app) = self.apps.get_mut(&id) {
            app.seen = Some(Arc::new(seen));
            app.earlier = earlier;
        }
    }
}

/// Runs the thread. It ends when no page is open any more, or the server has ended.
fn read_all(shared: &SharedObserver) {
    let mut rested = Instant::now();
    let mut next = rested;
    loop {
        let mut state = shared.lock();
        loop {
            if state.is_over {
                state.is_running = false;
                return;
            }
            let due = if state.is_awaited() { rested } else { next };
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            let waited = shared.called.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let begun = Instant::now();
        let tasks = state.tasks(begun);
        if tasks.is_empty() {
            state.is_running = false;
            return;
        }
        drop(state);
        let before = cpu_time();
        let counts_traffic = observe::noted().traffic;
        let read = pass(&shared.open, tasks, counts_traffic == Some(true), SAMPLES);
        let took = cpu_time().saturating_sub(before);
        let mut state = shared.lock();
        for (id, read) in read {
            let (reading, earlier) = match read {
                Ok((reading, earlier)) => (Ok(reading), Some(earlier)),
                Err(error) => (Err(error), None),
            };
            let seen = LastReading {
                at: begun,
                counts_traffic,
                reading,
            };
            state.took(id, seen, earlier);
        }
        drop(state);
        shared.seen.notify_waiters();
        rested = Instant::now() + took.saturating_mul(REST);
        next = rested.max(begun + INTERVAL);
    }
}

/// Returns the processor time that this thread has used, in the kernel and outside.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

type Read = Result<(AppReading, EarlierSample), String>;

/// Reads these apps, all flows in one go.
fn pass(open: &OpenKernel, mut tasks: Vec<Task>, counts_traffic: bool, mut room: usize) -> Vec<(ResourceId, Read)> {
    let earlier: Vec<_> = tasks.iter_mut().map(|task| task.earlier.take()).collect();
    let mut kernel = match open() {
        Ok(kernel) => kernel,
        Err(error) => return all_failed(&tasks, &error),
    };
    let now = kernel.now();
    let mut samples: BTreeMap<u16, AppSample<'_>> = BTreeMap::new();
    for (task, earlier) in tasks.iter().zip(earlier) {
        let sample = AppSample::begin(&task.subject, earlier, counts_traffic, now);
        samples.insert(task.subject.port().get(), sample);
    }
    let listed = list_flows(&mut *kernel, &tasks, |flow| {
        if let Some(sample) = samples.get_mut(&flow.public.port()) {
            sample.note(flow, &mut room);
        }
    });
    if let Err(error) = listed {
        return all_failed(&tasks, &error);
    }
    let read = tasks.iter().map(|task| {
        let counters = kernel.counters(&task.subject.counters());
        let sample = samples.remove(&task.subject.port().get());
        let read = match (sample, counters) {
            (Some(sample), Ok(counters)) => Ok(sample.end(counters)),
            (_, Err(error)) => Err(error.to_string()),
            // Two apps with one port: the other one is about to be removed.
            (None, Ok(_)) => Err("its port is another app's".to_owned()),
        };
        (task.id, read)
    });
    read.collect()
}

fn all_failed(tasks: &[Task], error: &ObserveError) -> Vec<(ResourceId, Read)> {
    let failed = |task: &Task| (task.id, Err(error.to_string()));
    tasks.iter().map(failed).collect()
}

/// Lists the flows of these apps, and others if that costs less than a selection by the kernel.
fn list_flows(kernel: &mut dyn Kernel, tasks: &[Task], mut each: impl FnMut(&Flow)) -> Result<(), ObserveError> {
    let Some(first) = tasks.first() else {
        return Ok(());
    };
    let port = (tasks.len() == 1).then(|| first.subject.port().get());
    let selection = Selection {
        public_port: port,
        ..Selection::default()
    };
    kernel.select(first.mark, &selection, &mut |flow| {
        each(flow);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use tcpgw_kernel::fake::Fake;

    fn subject(port: u16) -> AppSubject {
        AppSubject::new(NonZeroU16::new(port).unwrap(), [])
    }

    fn id(number: u64) -> ResourceId {
        ResourceId::from_random(number)
    }

    #[tokio::test]
    async fn an_open_page_is_read_again_and_again() {
        let passes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passes);
        let observer = TrafficObserver::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Fake::default()))
        }));
        let mark = FlowMark::default();
        let patience = Duration::from_secs(30);
        let seen = observer.reading(id(1), subject(2001), mark, patience).await.unwrap();
        assert!(seen.reading.is_ok());
        // The next page shows what was seen, at once.
        let again = observer
            .reading(id(1), subject(2001), mark, Duration::ZERO)
            .await
            .unwrap();
        assert!(again.at >= seen.at);
        // Another app does not wait for the next turn.
        let other = observer.reading(id(2), subject(2002), mark, patience).await.unwrap();
        assert!(other.reading.is_ok());
        assert!(passes.load(Ordering::Relaxed) >= 2);
    }

    #[tokio::test]
    async fn who_cannot_read_says_why() {
        let refuse: OpenKernel = Arc::new(|| Err(ObserveError::Write(std::io::Error::other("no socket"))));
        let observer = TrafficObserver::new(refuse);
        let seen = observer
            .reading(id(1), subject(2001), FlowMark::default(), Duration::from_secs(30))
            .await
            .unwrap();
        assert!(matches!(&seen.reading, Err(why) if why.contains("no socket")));
    }

    #[test]
    fn a_closed_page_is_forgotten_and_there_are_so_many_at_most() {
        let (mut state, now) = (ObserverState::default(), Instant::now());
        for number in 0..300_u16 {
            let at = now + Duration::from_millis(number.into());
            state.watch(id(number.into()), subject(2000 + number), FlowMark::default(), at);
        }
        assert_eq!(state.apps.len(), MOST);
        assert!(!state.apps.contains_key(&id(0)) && state.apps.contains_key(&id(299)));
        assert!(state.is_awaited());
        assert_eq!(state.tasks(now + WATCHED).len(), MOST);
        state.watch(id(299), subject(2299), FlowMark::default(), now + WATCHED);
        let tasks = state.tasks(now + WATCHED + Duration::from_secs(1));
        assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [id(299)]);
    }
}
