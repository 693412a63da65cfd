//! Seats for connections, and places to serve them: so many in all, and a share for each client.
//!
//! A connection that was accepted has a seat. That costs a descriptor and little memory, so that there are many. Whoever has sent
//! something is served when a place is free. Those for whom there is no seat stay in the kernel's backlog.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::addon::throttle::Client;

/// Connections that are served at once.
const PLACES: usize = 256;
/// Those of them that one client may have.
const PLACE_SHARE: usize = 128;
/// Connections that are accepted at once, as far as the limit of open files allows.
pub(crate) const SEATS: usize = 2048;
/// The part of all descriptors that connections may have: one in so many.
const DESCRIPTORS_PER_SEAT: u64 = 4;
/// A client that has its share of seats is waited for as long as it got an answer within this time. After that its further
/// connections are closed, so that they do not keep others in the backlog.
const PROGRESS: Duration = Duration::from_secs(1);
/// The same where the limit of open files leaves so few seats that whoever means well needs all of its share.
const PROGRESS_OF_FEW: Duration = Duration::from_secs(10);

/// All seats and places.
#[derive(Debug)]
pub(super) struct Places {
    seats: usize,
    seat_share: usize,
    patience: Duration,
    taken: Mutex<Taken>,
    left: Notify,
    /// Those to be served at once.
    served: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: usize,
    clients: BTreeMap<Client, Share>,
}

/// What one client has.
#[derive(Debug)]
struct Share {
    seats: usize,
    places: Arc<Semaphore>,
    /// When it came, or was answered last.
    progress: Instant,
}

/// Who wants a seat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    client: Client,
    is_proxy: bool,
}

/// A seat for one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    all: Arc<Places>,
    client: Client,
    places: Arc<Semaphore>,
}

/// A place for one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// What somebody who wants a seat gets.
enum Admission {
    Seat(Seat),
    /// All are taken.
    Full,
    /// The client has its share, and is being answered: until then something may change.
    ShareUntil(Instant),
    /// The client has its share, and nothing happens there.
    Stalled,
}

impl Visitor {
    /// Returns the client at that address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self {
            client: address.into(),
            is_proxy: false,
        }
    }

    /// Returns the proxy, which brings all clients.
    pub(super) fn proxy() -> Self {
        Self {
            client: IpAddr::from([0; 4]).into(),
            is_proxy: true,
        }
    }
}

/// Returns how many connections may be open at once where so many files may.
pub(crate) fn seats_within(files: u64) -> usize {
    let part = usize::try_from(files / DESCRIPTORS_PER_SEAT).unwrap_or(usize::MAX);
    part.clamp(1, SEATS)
}

impl Places {
    /// Returns as many as the limit of open files allows.
    pub(super) fn within(files: u64) -> Self {
        let seats = seats_within(files);
        Self {
            seats,
            // One client leaves a quarter to others.
            seat_share: (seats - seats / 4).max(1),
            patience: if seats < SEATS { PROGRESS_OF_FEW } else { PROGRESS },
            taken: Mutex::default(),
            left: Notify::new(),
            served: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// Waits for a seat. `None`: the client has its share, and nothing happens there.
    pub(super) async fn seat(self: &Arc<Self>, visitor: Visitor) -> Option<Seat> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // From here on nobody who leaves is missed.
            left.as_mut().enable();
            match self.admit(visitor, Instant::now()) {
                Admission::Seat(seat) => return Some(seat),
                Admission::Stalled => return None,
                Admission::Full => left.await,
                Admission::ShareUntil(until) => drop(timeout_at(until, left).await),
            }
        }
    }

    fn admit(self: &Arc<Self>, visitor: Visitor, now: Instant) -> Admission {
        let share = if visitor.is_proxy { self.seats } else { self.seat_share };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.seats >= self.seats {
            return Admission::Full;
        }
        let own = taken.clients.entry(visitor.client).or_insert_with(|| Share {
            seats: 0,
            places: Arc::new(Semaphore::new(if visitor.is_proxy { PLACES } else { PLACE_SHARE })),
            progress: now,
        });
        if own.seats >= share {
            let until = own.progress + self.patience;
            return if until > now {
                Admission::ShareUntil(until)
            } else {
                Admission::Stalled
            };
        }
        own.seats += 1;
        let places = Arc::clone(&own.places);
        taken.seats += 1;
        Admission::Seat(Seat {
            all: Arc::clone(self),
            client: visitor.client,
            places,
        })
    }
}

impl Seat {
    /// Waits so long for a place.
    pub(super) async fn place(&self, patience: Duration) -> Option<Place> {
        let place = async {
            // The client's own first: what waits for that keeps nobody else waiting.
            let own = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all.served).acquire_owned().await.ok()?;
            Some(Place {
                _own: own,
                _of_all: of_all,
            })
        };
        timeout(patience, place).await.ok().flatten()
    }

    /// Whether others wait for a place, or soon will.
    pub(super) fn is_crowded(&self) -> bool {
        self.places.available_permits() == 0 || self.all.served.available_permits() == 0
    }

    /// Notes that the client, with the right credentials, got an answer.
    pub(super) fn answered(&self) {
        let mut taken = self.all.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = taken.clients.get_mut(&self.client) {
            share.progress = Instant::now();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.seats = taken.seats.saturating_sub(1);
        if let Some(share) = taken.clients.get_mut(&self.client) {
            share.seats = share.seats.saturating_sub(1);
            if share.seats == 0 {
                taken.clients.remove(&self.client);
            }
        }
        drop(taken);
        self.all.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    fn visitor(last: u8) -> Visitor {
        Visitor::at([192, 0, 2, last].into())
    }

    #[test]
    fn seats_are_within_the_limit_of_open_files() {
        assert_eq!(seats_within(0), 1);
        assert_eq!(seats_within(40), 10);
        assert_eq!(seats_within(1024), 256);
        assert_eq!(seats_within(u64::MAX), SEATS);
    }

    fn places(files: u64, patience: Duration) -> Arc<Places> {
        let places = Places::within(files);
        Arc::new(Places { patience, ..places })
    }

    async fn taken(places: &Arc<Places>, visitor: Visitor, count: usize) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..count {
            seats.push(places.seat(visitor).await.unwrap());
        }
        seats
    }

    /// A client that has its share and is not answered is closed, and others come in.
    #[tokio::test]
    async fn one_client_leaves_seats_for_others() {
        let places = places(400, SHORT);
        let one = taken(&places, visitor(1), 75).await;
        assert!(places.seat(visitor(1)).await.is_none());
        assert!(
            matches!(places.admit(visitor(1), Instant::now()), Admission::Stalled),
            "it is waited for once"
        );
        assert!(places.seat(visitor(2)).await.is_some());
        one[0].answered();
        assert!(matches!(
            places.admit(visitor(1), Instant::now()),
            Admission::ShareUntil(_)
        ));
        drop(one);
        let taken = places.taken.lock().unwrap();
        assert!(
            taken.clients.is_empty() && taken.seats == 0,
            "nothing is kept of who has left"
        );
    }

    /// A client that has its share and is being answered is waited for, as are all when there is no seat at all.
    #[tokio::test]
    async fn who_is_answered_is_waited_for() {
        let places = places(16, LONG);
        let mut seats = taken(&places, visitor(1), 3).await;
        let (last, all) = (seats.pop(), Arc::clone(&places));
        let waiting = tokio::spawn(async move { all.seat(visitor(1)).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(last);
        seats.extend(waiting.await.unwrap());
        seats.extend(places.seat(visitor(2)).await);
        assert_eq!(seats.len(), 4);
        let (last, all) = (seats.pop(), Arc::clone(&places));
        let waiting = tokio::spawn(async move { all.seat(visitor(3)).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(last);
        assert!(waiting.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn one_client_leaves_places_for_others() {
        let places = places(u64::MAX, SHORT);
        let seats = taken(&places, visitor(1), PLACE_SHARE + 1).await;
        let mut taken = Vec::new();
        for seat in &seats[..PLACE_SHARE] {
            assert!(!seat.is_crowded());
            taken.push(seat.place(LONG).await.unwrap());
        }
        assert!(seats[0].is_crowded());
        assert!(seats[PLACE_SHARE].place(SHORT).await.is_none());
        let other = places.seat(visitor(2)).await.unwrap();
        assert!(other.place(LONG).await.is_some());
        drop(taken.pop());
        assert!(seats[PLACE_SHARE].place(LONG).await.is_some());
    }
}
