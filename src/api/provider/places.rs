//! Places for connections: so many in all, a share for each client, and a queue for those who come while there is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::addon::throttle::Client;

/// Connections that are served at once.
const CONNECTIONS: usize = 256;
/// Those of them that one client may have.
const SHARE: usize = 128;
/// Connections that wait for a place.
const QUEUE: usize = 64;

/// The places that are taken.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<BTreeMap<Client, usize>>,
    left: Notify,
    queue: Arc<Semaphore>,
}

/// Who wants a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    client: Client,
    share: usize,
}

/// A place for one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Client,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    places: Arc<Places>,
    visitor: Visitor,
    _permit: OwnedSemaphorePermit,
}

impl Visitor {
    /// Returns the client at that address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self {
            client: address.into(),
            share: SHARE,
        }
    }

    /// Returns the proxy, which brings all clients.
    pub(super) fn proxy() -> Self {
        Self {
            client: IpAddr::from([0; 4]).into(),
            share: CONNECTIONS,
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            taken: Mutex::default(),
            left: Notify::new(),
            queue: Arc::new(Semaphore::new(QUEUE)),
        }
    }
}

impl Places {
    /// Returns a place; `None`: there is none now.
    pub(super) fn enter(self: &Arc<Self>, visitor: Visitor) -> Option<Place> {
        let Visitor { client, share } = visitor;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&client).copied().unwrap_or(0);
        if all >= CONNECTIONS || own >= share {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Place {
            places: Arc::clone(self),
            client,
        })
    }

    /// Returns a place in the queue; `None`: that is full, too.
    pub(super) fn queue(self: &Arc<Self>, visitor: Visitor) -> Option<Queued> {
        let permit = Arc::clone(&self.queue).try_acquire_owned().ok()?;
        Some(Queued {
            places: Arc::clone(self),
            visitor,
            _permit: permit,
        })
    }
}

impl Queued {
    /// Waits so long for a place.
    pub(super) async fn place(self, patience: Duration) -> Option<Place> {
        let place = async {
            loop {
                let left = self.places.left.notified();
                tokio::pin!(left);
                // From here on nobody who leaves is missed.
                left.as_mut().enable();
                if let Some(place) = self.places.enter(self.visitor) {
                    return place;
                }
                left.await;
            }
        };
        timeout(patience, place).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
        drop(taken);
        self.places.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_places_for_others() {
        let places = Arc::new(Places::default());
        let one: Vec<Place> = (0..300)
            .map_while(|_| places.enter(Visitor::at([192, 0, 2, 1].into())))
            .collect();
        assert_eq!(one.len(), SHARE);
        assert!(places.enter(Visitor::at([192, 0, 2, 2].into())).is_some());
        drop(one);
        assert!(
            places.taken.lock().unwrap().is_empty(),
            "nothing is kept of who has left"
        );
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let (places, visitor) = (Arc::new(Places::default()), Visitor::at([192, 0, 2, 1].into()));
        let mut all: Vec<Place> = (0..SHARE).map_while(|_| places.enter(visitor)).collect();
        let queued: Vec<Queued> = (0..200).map_while(|_| places.queue(visitor)).collect();
        assert_eq!(queued.len(), QUEUE);
        let mut queued = queued.into_iter();
        let [first, second] = [queued.next(), queued.next()].map(Option::unwrap);
        assert!(first.place(Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn(second.place(Duration::from_secs(10)));
        tokio::task::yield_now().await;
        drop(all.pop());
        assert!(waiting.await.unwrap().is_some());
        assert!(places.queue(visitor).is_some(), "those who waited left the queue");
    }
}
