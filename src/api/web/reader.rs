//! Reads what metrics show, once for all who ask at the same time.
//!
//! A reading is shown for a second at least, and for so long that reading takes a tenth of one processor at most. Its text lives as
//! long as somebody is being sent it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::api::asking;
use crate::api::kernel_queries::OpenKernel;
use crate::api::limits::Times;
use crate::api::settings::ApiSettings;
use crate::control::request::{DaemonRequest, MetricsView};
use crate::metrics::{KeptCounters, MetricsFormat, MetricsScope, OwnFile, OwnMetrics, Reading, TotalsSample, encode};
use crate::observe::{self, ObserveError, StatusQuery, StatusSources};
use crate::traffic::totals::TotalsSource;
use crate::view::status::Status;

/// Shortest time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a reading is shown, as a multiple of the processor time that it took.
const REST: u32 = 10;
/// Longest time for which a reading is shown.
const MOST_REST: Duration = Duration::from_secs(15);
/// Time that the loop has to answer, and then the kernel: together less than Prometheus waits for (10 s).
const PATIENCE: Duration = Duration::from_secs(4);

/// Reader of all requests.
pub(super) struct MetricsReader {
    requests: mpsc::Sender<DaemonRequest>,
    times: Times,
    open: OpenKernel,
    totals: Option<TotalsSource>,
    /// File of the daemon's own counters.
    file: OwnFile,
    /// One read of the kernel at a time, also of those that were given up.
    place: Arc<Semaphore>,
    /// One text is written at a time.
    writing: Arc<AsyncMutex<()>>,
    state: Mutex<ReaderState>,
}

#[derive(Default)]
struct ReaderState {
    last: Option<ShownReading>,
    /// The reading under way; it has a value when it has ended.
    flight: Option<watch::Receiver<Option<ReadingResult>>>,
}

/// A reading, and the time until which it is shown.
struct ShownReading {
    reading: Arc<Reading>,
    until: Instant,
    texts: BTreeMap<(MetricsFormat, MetricsScope), Weak<String>>,
}

pub(super) type ReadingResult = Result<Arc<Reading>, String>;

/// Text that many answers share.
struct SharedText(Arc<String>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl MetricsReader {
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>, settings: ApiSettings, file: OwnFile) -> Self {
        Self {
            requests,
            times: patient(settings.times),
            open: settings.open,
            totals: settings.totals,
            file,
            place: Arc::new(Semaphore::new(1)),
            writing: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// Returns the metrics as text.
    ///
    /// # Errors
    /// Fails with a message when the daemon's loop does not answer.
    pub(super) async fn text(self: &Arc<Self>, format: MetricsFormat, scope: MetricsScope) -> Result<Bytes, String> {
        let reading = self.reading(Instant::now()).await?;
        let (shared, lock) = (Arc::clone(self), Arc::clone(&self.writing).lock_owned().await);
        // Many series take milliseconds.
        let text = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            shared.written(&reading, format, scope)
        });
        let text = text
            .await
            .map_err(|_| "the thread that writes metrics has died".to_owned())??;
        Ok(Bytes::from_owner(SharedText(text)))
    }

    /// Returns the last reading while it is shown, else a new one. Dropping the future ends nothing: others may wait for the same.
    pub(super) async fn reading(self: &Arc<Self>, now: Instant) -> ReadingResult {
        let mut flight = {
            let mut state = self.state();
            if let Some(shown) = state.last.as_ref().filter(|shown| now < shown.until) {
                return Ok(Arc::clone(&shown.reading));
            }
            let begin = || {
                let (sender, receiver) = watch::channel(None);
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    let outcome = shared.read().await;
                    sender.send_replace(Some(outcome));
                });
                receiver
            };
            state.flight.get_or_insert_with(begin).clone()
        };
        let ended = flight.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| {
            self.state().flight = None;
            Err("the task that reads metrics has died".into())
        })
    }

    /// Takes a reading, and keeps it.
    async fn read(&self) -> ReadingResult {
        let begun = Instant::now();
        let view = asking::ask(&self.requests, &self.times, self.times.answer, DaemonRequest::Metrics).await;
        let (view, (reading, cost)) = match view {
            Ok(view) => {
                let view = Arc::new(view);
                (Arc::clone(&view), self.read_with(view).await)
            }
            Err(error) => {
                self.state().flight = None;
                return Err(error.to_string());
            }
        };
        let kept = self.keep(view.own.clone()).await;
        let mut state = self.state();
        state.flight = None;
        let KeptCounters { own, reads } = kept?;
        let earlier = state.last.as_ref().and_then(|shown| shown.reading.totals.as_ref());
        let reading = Arc::new(Reading {
            own,
            reads,
            mark: view.snapshot.services.mark,
            totals: reading.totals.map(|totals| totals.after(earlier)),
            ..reading
        });
        state.last = Some(ShownReading {
            reading: Arc::clone(&reading),
            until: begun + cost.saturating_mul(REST).clamp(INTERVAL, MOST_REST),
            texts: BTreeMap::new(),
        });
        Ok(reading)
    }

    /// Writes the daemon's own counters before they are shown. Returns those that were written.
    async fn keep(&self, own: OwnMetrics) -> Result<KeptCounters, String> {
        let file = self.file.clone();
        let kept = tokio::task::spawn_blocking(move || file.keep(&own)).await;
        let (kept, saved) = kept.map_err(|_| "the thread that keeps counters has died".to_owned())?;
        if let Err(error) = saved {
            tracing::debug!(%error, "failed to keep the daemon's own counters: those that were written last are shown");
        }
        Ok(kept)
    }

    /// Returns a reading, and the processor time that it took.
    async fn read_with(&self, view: Arc<MetricsView>) -> (Reading, Duration) {
        let place = Arc::clone(&self.place).try_acquire_owned();
        let (open, totals) = (Arc::clone(&self.open), self.totals.clone());
        let (of_kernel, begun) = (Arc::clone(&view), Instant::now());
        self.file.read_begins();
        let read = async move {
            // The one before may hang in the kernel.
            let place = place.map_err(|_| "the last read has not ended".to_owned())?;
            let read = tokio::task::spawn_blocking(move || {
                let _place = place;
                let before = processor_time();
                let reading = with_kernel(&open, totals.as_ref(), &of_kernel).map_err(|error| error.to_string())?;
                Ok::<_, String>((reading, processor_time().saturating_sub(before)))
            });
            read.await
                .map_err(|_| "the thread that reads the kernel has died".to_owned())?
        };
        let outcome = timeout(self.times.kernel, read).await;
        let outcome = outcome.unwrap_or_else(|_| Err("the kernel has not answered in time".to_owned()));
        self.file.read_ended(begun.elapsed(), outcome.is_err());
        match outcome {
            Ok((reading, cost)) => (reading, cost),
            Err(error) => {
                tracing::debug!(error, "failed to read the kernel for metrics");
                let without = tokio::task::spawn_blocking(move || without_kernel(&view)).await;
                (without.unwrap_or_default(), Duration::ZERO)
            }
        }
    }

    /// Returns the text of a reading: that which others are being sent, if there is one.
    fn written(
        &self,
        reading: &Arc<Reading>,
        format: MetricsFormat,
        scope: MetricsScope,
    ) -> Result<Arc<String>, String> {
        let key = (format, scope);
        let is_of = |shown: &&mut ShownReading| Arc::ptr_eq(&shown.reading, reading);
        let shown = |shown: &mut ShownReading| shown.texts.get(&key).and_then(Weak::upgrade);
        if let Some(text) = self.state().last.as_mut().filter(is_of).and_then(shown) {
            return Ok(text);
        }
        let mut text = String::new();
        encode(&mut text, reading, format, scope).map_err(|_| "metrics could not be written".to_owned())?;
        let text = Arc::new(text);
        if let Some(shown) = self.state().last.as_mut().filter(is_of) {
            shown.texts.insert(key, Arc::downgrade(&text));
        }
        Ok(text)
    }

    fn state(&self) -> MutexGuard<'_, ReaderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the times, none longer than a reader waits.
pub(super) fn patient(times: Times) -> Times {
    Times {
        place: times.place.min(PATIENCE),
        answer: times.answer.min(PATIENCE),
        kernel: times.kernel.min(PATIENCE),
        ..times
    }
}

fn with_kernel(open: &OpenKernel, totals: Option<&TotalsSource>, view: &MetricsView) -> Result<Reading, ObserveError> {
    let mut kernel = open()?;
    let totals = totals.and_then(|totals| totals());
    let query = StatusQuery {
        totals: totals.clone(),
        ..StatusQuery::default()
    };
    let tell = |status: &Status<'_>| {
        let conntrack = observe::conntrack_entries();
        let counts_bytes = observe::noted().traffic == Some(true);
        Reading {
            totals: totals.map(|totals| TotalsSample::new(totals, counts_bytes)),
            ..Reading::new(status, true, conntrack, &view.plans, view.own.clone())
        }
    };
    observe::status(&mut *kernel, sources(view), &query, tell)
}

fn without_kernel(view: &MetricsView) -> Reading {
    let tell = |status: &Status<'_>| Reading::new(status, false, None, &view.plans, view.own.clone());
    observe::unread(sources(view), tell)
}

fn sources(view: &MetricsView) -> StatusSources<'_> {
    StatusSources {
        services: &view.snapshot.services,
        daemon: Some(&view.snapshot),
        found: &[],
        noted: observe::noted(),
    }
}

/// Returns the processor time of this thread.
pub(super) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
