//! Cache of values that take long to read: each is read once for all who ask at the same time, and shown for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::kernel_reader::processor_time;
use crate::locked::locked;

/// Number of values that are kept.
const MOST: usize = 256;
/// Time for which a value is shown, as a multiple of the processor time that reading it took.
const REST: u32 = 10;
/// Longest time for which a value is shown.
const MOST_REST: Duration = Duration::from_secs(30);

/// Cache of values by key.
pub(super) struct CachedReads<K, T> {
    /// Shortest time for which a value is shown.
    least: Duration,
    /// Time that a request waits for a value.
    patience: Duration,
    /// Place of the reader: one value is read at a time, even if nobody waits for it any more.
    place: Arc<Semaphore>,
    looks: Mutex<BTreeMap<K, watch::Receiver<Option<CachedRead<T>>>>>,
}

/// A value, and the time until which it is shown.
struct CachedRead<T> {
    value: Result<Arc<T>, String>,
    until: Instant,
}

impl<K: Ord + Clone, T: Send + Sync + 'static> CachedReads<K, T> {
    /// Creates an empty cache. `least` is the shortest time for which a value is shown, `patience` the time that a
    /// request waits.
    pub(super) fn new(least: Duration, patience: Duration) -> Self {
        Self {
            least,
            patience,
            place: Arc::new(Semaphore::new(1)),
            looks: Mutex::default(),
        }
    }

    /// Returns the value of a key: the last one while it is shown, else a new one, which `read` returns on a thread of its own.
    ///
    /// # Errors
    /// Fails with the message of `read`, or when it takes too long or too much else is being read.
    pub(super) async fn look(
        &self,
        key: K,
        now: Instant,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<Arc<T>, String> {
        let mut flight = self.flight(key, now, read)?;
        let ended = timeout(self.patience, flight.wait_for(Option::is_some)).await;
        let Ok(ended) = ended else {
            return Err("it has not been read in time".into());
        };
        let value = ended.ok().and_then(|look| look.as_ref().map(|look| look.value.clone()));
        value.unwrap_or_else(|| Err("the thread that reads it has died".into()))
    }

    fn flight(
        &self,
        key: K,
        now: Instant,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<watch::Receiver<Option<CachedRead<T>>>, String> {
        let mut looks = locked(&self.looks);
        // One that died has neither a value nor a sender.
        looks.retain(|_, flight| match &*flight.borrow() {
            Some(look) => now < look.until,
            None => flight.has_changed().is_ok(),
        });
        if let Some(flight) = looks.get(&key) {
            return Ok(flight.clone());
        }
        if looks.len() >= MOST {
            return Err("too many others are being read".into());
        }
        let (sender, receiver) = watch::channel(None);
        let (place, least) = (Arc::clone(&self.place), self.least);
        tokio::spawn(async move {
            let Ok(place) = place.acquire_owned().await else { return };
            tokio::task::spawn_blocking(move || {
                let _place = place;
                let before = processor_time();
                let value = read().map(Arc::new);
                let cost = processor_time().saturating_sub(before);
                let until = Instant::now() + cost.saturating_mul(REST).min(MOST_REST).max(least);
                sender.send_replace(Some(CachedRead { value, until }));
            });
        });
        looks.insert(key, receiver.clone());
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_value_is_read_once_while_it_is_shown() {
        let looks = CachedReads::new(Duration::from_secs(60), Duration::from_secs(60));
        let reads = Arc::<AtomicUsize>::default();
        let look = |key: &'static str, now| {
            let reads = Arc::clone(&reads);
            looks.look(key, now, move || {
                reads.fetch_add(1, Ordering::SeqCst);
                Ok(key.to_owned())
            })
        };
        let now = Instant::now();
        let found = futures_util::future::join_all((0..20).map(|_| look("a", now))).await;
        assert!(
            found
                .iter()
                .all(|found| found.as_ref().is_ok_and(|found| **found == "a"))
        );
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert_eq!(*look("b", now).await.unwrap(), "b");
        look("a", now + Duration::from_secs(120)).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 3);
        assert_eq!(
            looks.looks.lock().unwrap().len(),
            1,
            "what is not shown any more is not kept"
        );
    }

    #[tokio::test]
    async fn what_fails_or_hangs_says_so_and_is_tried_again() {
        let looks = CachedReads::<_, ()>::new(Duration::ZERO, Duration::from_millis(100));
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let hangs = looks.look(1, Instant::now(), move || {
            let _ = waits.recv();
            Ok(())
        });
        assert!(hangs.await.unwrap_err().contains("in time"));
        // The others wait for it, and none is begun beside it.
        let other = looks.look(2, Instant::now(), || Err("no socket".into())).await;
        assert!(other.unwrap_err().contains("in time"));
        drop(go);
        let later = || Instant::now() + Duration::from_secs(60);
        loop {
            let failed = looks.look(2, later(), || Err("no socket".into())).await.unwrap_err();
            if failed == "no socket" {
                break;
            }
            assert!(failed.contains("in time"), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_read_that_dies_is_tried_again() {
        let looks = CachedReads::<_, ()>::new(Duration::from_secs(60), Duration::from_secs(60));
        let died = looks.look(1, Instant::now(), || panic!("for the test")).await;
        assert!(died.unwrap_err().contains("died"));
        looks.look(1, Instant::now(), || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn so_many_are_kept() {
        let looks = CachedReads::new(Duration::from_secs(60), Duration::from_secs(60));
        let now = Instant::now();
        for key in 0..MOST {
            looks.look(key, now, || Ok(())).await.unwrap();
        }
        assert!(looks.look(MOST, now, || Ok(())).await.unwrap_err().contains("too many"));
        looks.look(0, now, || Ok(())).await.unwrap();
    }
}
