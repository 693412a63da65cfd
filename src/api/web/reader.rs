//! Reads what metrics show, once for all who ask at the same time.
//!
//! A reading is shown for a second at least, and for so long that reading takes a tenth of one processor at most. Its text lives as
//! long as somebody is being sent it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::kernel_reader::KernelReader;
use crate::api::limits::Times;
use crate::api::loop_request;
use crate::api::settings::ApiSettings;
use crate::control::request::{DaemonRequest, MetricsView};
use crate::date::since_1970;
use crate::locked::locked;
use crate::metrics::{KeptCounters, MetricsFormat, MetricsScope, OwnFile, OwnMetrics, Reading, TotalsSample, encode};
use crate::observe;
use crate::traffic::totals::{TotalsAge, TotalsSource};

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
    kernel: KernelReader,
    totals: Option<TotalsSource>,
    /// File of the daemon's own counters.
    file: OwnFile,
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
            kernel: KernelReader::new(settings.open),
            totals: settings.totals,
            file,
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
        let view = loop_request::send(&self.requests, &self.times, self.times.answer, DaemonRequest::Metrics).await;
        let view = match view {
            Ok(view) => Arc::new(view),
            Err(error) => {
                self.state().flight = None;
                return Err(error.to_string());
            }
        };
        let (totals, (reading, cost)) = tokio::join!(self.read_totals(), self.read_kernel(Arc::clone(&view)));
        let kept = self.keep(view.own.clone()).await;
        let earlier = {
            let state = self.state();
            state.last.as_ref().and_then(|shown| shown.reading.totals.clone())
        };
        let mark = view.parts.services.mark;
        let complete = kept.map(|KeptCounters { own, reads }| Reading {
            own,
            reads,
            mark,
            totals: totals.map(|totals| totals.after(earlier.as_ref())),
            ..reading
        });
        // Many backends take milliseconds.
        let complete = tokio::task::spawn_blocking(|| complete.map(Reading::with_limits_reached)).await;
        let mut state = self.state();
        state.flight = None;
        let reading = complete.map_err(|_| "the thread that looks for limits has died".to_owned())??;
        let reading = Arc::new(reading);
        let shown = ShownReading {
            reading: Arc::clone(&reading),
            until: begun + cost.saturating_mul(REST).clamp(INTERVAL, MOST_REST),
            texts: BTreeMap::new(),
        };
        let former = state.last.replace(shown);
        drop(state);
        // Many services take milliseconds, which the main loop on this thread has not.
        tokio::task::spawn_blocking(move || drop((view, former)));
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

    /// Returns the totals, which do not depend on the other values of the kernel; `None`: nobody counts them.
    async fn read_totals(&self) -> Option<TotalsSample> {
        let totals = self.totals.clone()?;
        let read = tokio::task::spawn_blocking(move || {
            let counts_bytes = observe::noted().traffic == Some(true);
            totals(TotalsAge::Shown)
                .map(|totals| TotalsSample::new(totals, counts_bytes).dated(Instant::now(), since_1970()))
        });
        read.await.unwrap_or_default()
    }

    /// Returns a reading without totals, and the processor time that it took. If the kernel cannot be read, or not in time, its values
    /// are those that were read last, if that was not long ago.
    async fn read_kernel(&self, view: Arc<MetricsView>) -> (Reading, Duration) {
        let begun = Instant::now();
        self.file.read_begins();
        let outcome = self.kernel.read(&view, self.times.kernel).await;
        self.file.read_ended(begun.elapsed(), outcome.is_err());
        match outcome {
            Ok((reading, cost)) => (reading, cost),
            Err(error) => {
                tracing::debug!(error, "failed to read the kernel for metrics");
                let last = self.state().last.as_ref().map(|shown| Arc::clone(&shown.reading));
                let kernel = self.kernel.clone();
                let unread = tokio::task::spawn_blocking(move || kernel.unread(&view, last.as_deref(), Instant::now()));
                (unread.await.unwrap_or_default(), Duration::ZERO)
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
        let rendered = |shown: &mut ShownReading| shown.texts.get(&key).and_then(Weak::upgrade);
        if let Some(text) = self.state().last.as_mut().filter(is_of).and_then(rendered) {
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
        locked(&self.state)
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
