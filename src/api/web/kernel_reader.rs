//! Reads from the kernel what metrics show of it, one read at a time.
//!
//! A read that takes too long goes on: what it returns in the end is shown if the next one fails, too.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::api::kernel_queries::OpenKernel;
use crate::control::request::MetricsView;
use crate::date::since_1970;
use crate::locked::locked;
use crate::metrics::{KernelRead, Reading};
use crate::observe::{self, ObserveError, StatusQuery, StatusSources};
use crate::view::facts::StatusFacts;
use crate::view::snapshot::Snapshot;

/// Longest time for which values of the kernel are shown while it cannot be read.
const MOST_AGE: Duration = Duration::from_secs(120);

/// Reader of the kernel. Clones share its place and what it has read.
#[derive(Clone)]
pub(super) struct KernelReader {
    open: OpenKernel,
    /// One read at a time, also of those that nobody waits for any more.
    place: Arc<Semaphore>,
    /// Reading that came too late.
    late: Arc<Mutex<Option<Reading>>>,
}

/// A reading, and the processor time that it took, or the reason why there is none.
type ReadOutcome = Result<(Reading, Duration), String>;

impl KernelReader {
    pub(super) fn new(open: OpenKernel) -> Self {
        Self {
            open,
            place: Arc::new(Semaphore::new(1)),
            late: Arc::default(),
        }
    }

    /// Returns a reading without totals.
    ///
    /// # Errors
    /// Fails with a message when the kernel cannot be read, or not in this time.
    pub(super) async fn read(&self, view: &Arc<MetricsView>, patience: Duration) -> ReadOutcome {
        // The one before may hang in the kernel.
        let place = Arc::clone(&self.place).try_acquire_owned();
        let place = place.map_err(|_| "the last read has not ended".to_owned())?;
        let (open, view, late) = (Arc::clone(&self.open), Arc::clone(view), Arc::clone(&self.late));
        let (sender, receiver) = oneshot::channel::<ReadOutcome>();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let before = processor_time();
            let reading = with_kernel(&open, &view).map_err(|error| error.to_string());
            let outcome = reading.map(|reading| (reading, processor_time().saturating_sub(before)));
            if let Err(Ok((reading, _))) = sender.send(outcome) {
                *locked(&late) = Some(reading);
            }
        });
        match timeout(patience, receiver).await {
            Ok(Ok(outcome)) => {
                if outcome.is_ok() {
                    // An earlier one that was late is of no use any more.
                    drop(locked(&self.late).take());
                }
                outcome
            }
            Ok(Err(_)) => Err("the thread that reads the kernel has died".to_owned()),
            Err(_) => Err("the kernel has not answered in time".to_owned()),
        }
    }

    /// Returns a reading without a read of the kernel. It has the flows of the last reading, or of one that came later, if these are
    /// not older than [`MOST_AGE`].
    pub(super) fn unread(&self, view: &MetricsView, last: Option<&Reading>, now: Instant) -> Reading {
        let tell = |facts: &StatusFacts<'_>| Reading::new(facts, None, &view.plans, view.own.clone());
        let snapshot = view.parts.assemble();
        let reading = observe::unread(sources(&snapshot), tell);
        let late = locked(&self.late);
        let known = late.as_ref().into_iter().chain(last);
        let known = known.filter_map(|of| Some((of.kernel?.read.ended, of)));
        let newest = known.max_by_key(|(ended, _)| *ended);
        match newest.filter(|(ended, _)| now.saturating_duration_since(*ended) <= MOST_AGE) {
            Some((_, known)) => reading.with_kernel_of(known, now),
            None => reading,
        }
    }
}

fn with_kernel(open: &OpenKernel, view: &MetricsView) -> Result<Reading, ObserveError> {
    let (mut kernel, snapshot) = (open()?, view.parts.assemble());
    let query = StatusQuery {
        flows_only: true,
        ..StatusQuery::default()
    };
    let tell = |facts: &StatusFacts<'_>| {
        let read = KernelRead {
            ended: Instant::now(),
            at: since_1970(),
            conntrack: observe::conntrack_entries(),
        };
        Reading::new(facts, Some(read), &view.plans, view.own.clone())
    };
    observe::facts(&mut *kernel, sources(&snapshot), &query, tell)
}

fn sources(snapshot: &Snapshot) -> StatusSources<'_> {
    StatusSources {
        services: &snapshot.services,
        daemon: Some(snapshot),
        found: &[],
        noted: observe::noted(),
    }
}

/// Returns the processor time of this thread.
pub(super) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::snapshot_parts::WantedService;
    use tcpgw_core::model::{FlowMark, State};
    use tcpgw_kernel::Kernel;
    use tcpgw_kernel::fake::{Fake, Syn};

    const PATIENCE: Duration = Duration::from_millis(50);

    fn view() -> Arc<MetricsView> {
        let text = r#"{"version": 1, "services": [{"name": "a", "port": 2001, "backends": ["10.0.0.1:3000", "10.0.0.2:3000"]}]}"#;
        let state: State = tcpgw_core::model::parse(text.as_bytes()).unwrap();
        let mut view = MetricsView::default();
        view.parts.wanted = state.services.into_iter().map(WantedService::from).collect();
        Arc::new(view)
    }

    /// Opens a kernel with a flow to the first backend, if `opens` says how long that takes.
    fn reader(opens: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> KernelReader {
        KernelReader::new(Arc::new(move || -> Result<Box<dyn Kernel>, ObserveError> {
            let takes = opens().ok_or(ObserveError::Gone)?;
            std::thread::sleep(takes);
            let syn = Syn {
                client: "192.0.2.1:40000".parse().unwrap(),
                public: "203.0.113.1:2001".parse().unwrap(),
            };
            let mut fake = Fake::default();
            fake.flows = vec![syn.flow("10.0.0.1:3000".parse().unwrap(), FlowMark::default(), 1)];
            Ok(Box::new(fake))
        }))
    }

    fn flows(reading: &Reading) -> Option<(u64, Vec<u64>)> {
        let service = &reading.services[0];
        let of_backends = service.backends.iter().map(|backend| backend.flows).collect();
        reading.kernel.map(|_| (service.flows.total(), of_backends))
    }

    #[tokio::test]
    async fn flows_that_were_read_last_are_shown_for_a_while_when_a_read_fails() {
        let reader_that_works = reader(|| Some(Duration::ZERO));
        let (last, _) = reader_that_works.read(&view(), Duration::from_secs(60)).await.unwrap();
        assert_eq!(flows(&last), Some((1, vec![1, 0])));
        let broken = reader(|| None);
        broken.read(&view(), PATIENCE).await.unwrap_err();
        let ended = last.kernel.unwrap().read.ended;
        let after = |age| broken.unread(&view(), Some(&last), ended + age);
        assert_eq!(flows(&after(MOST_AGE)), Some((1, vec![1, 0])));
        let shown = after(MOST_AGE).kernel.unwrap();
        assert_eq!((shown.read, shown.age), (last.kernel.unwrap().read, Some(MOST_AGE)));
        assert_eq!(
            flows(&after(MOST_AGE + Duration::from_secs(1))),
            None,
            "they are too old"
        );
        assert_eq!(flows(&broken.unread(&view(), None, ended)), None, "nothing was read");
    }

    #[tokio::test]
    async fn a_read_that_comes_too_late_is_shown_if_the_next_one_fails() {
        let slow = reader(|| Some(PATIENCE * 10));
        let error = slow.read(&view(), PATIENCE).await.unwrap_err();
        assert!(error.contains("in time"), "{error}");
        let error = slow.read(&view(), PATIENCE).await.unwrap_err();
        assert!(error.contains("not ended"), "{error}");
        assert_eq!(flows(&slow.unread(&view(), None, Instant::now())), None);
        let _place = slow.place.acquire().await.unwrap();
        assert_eq!(
            flows(&slow.unread(&view(), None, Instant::now())),
            Some((1, vec![1, 0]))
        );
    }
}
