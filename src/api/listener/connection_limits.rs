//! Seats for connections, and places to serve them: a limited number in all, and a share for each client.
//!
//! A connection that was accepted has a seat. That costs a descriptor and little memory, so that there are many. A connection
//! that has sent something is served when a place is free, clients that have few places first. Connections for which there is
//! no seat stay in the kernel's backlog, unless a client that has more seats, or places, holds one with a connection that asks
//! nothing: that one is closed. A client that has its share has such a connection of its own closed for a new one.

mod taken;
mod waiting;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use self::taken::{Admission, Displaced, Silent, TakenPlaces};
use crate::api::descriptors::SEATS;
use crate::locked::locked;
use crate::throttle::ClientAddress;

/// Connections that are served at once.
const PLACES: usize = 256;
/// Maximum number of these connections per client.
const PLACE_SHARE: usize = 128;
/// A client that has its share of seats may delay others as long as it got an answer within this time. After that its further
/// connections are closed, so that they do not keep others in the backlog.
const PROGRESS: Duration = Duration::from_secs(1);
/// Time like [`PROGRESS`], where the limit of open files leaves so few seats that a well-behaved client needs all of its share. Longer than an
/// answered connection without a further request is kept: after that, seats of such a client are free again.
const PROGRESS_OF_FEW: Duration = Duration::from_secs(12);
/// Time without a request after which a connection may be closed for one of a client that has fewer.
const SILENCE: Duration = Duration::from_secs(1);
/// Time like [`SILENCE`] for a connection of the same client. A platform may open connections before it sends, through a slow network.
const OWN_SILENCE: Duration = Duration::from_secs(2);
/// Time like [`OWN_SILENCE`] where several users share an address. A request that is sent at once has come by then.
const OWN_SILENCE_OF_SHARED: Duration = Duration::from_millis(100);

/// The seats and places of a listener, of all clients together.
#[derive(Debug)]
pub(in crate::api) struct ConnectionPlaces {
    seats: usize,
    seat_share: usize,
    patience: Duration,
    silence: Duration,
    /// Time without a request after which a connection may be closed for another one of the same client.
    own_silence: Duration,
    /// Whether a client with its share of seats, which is being answered, is waited for until one of its silent connections may be closed.
    waits_for_own_silence: bool,
    taken: Mutex<TakenPlaces>,
    left: Notify,
}

/// A client that wants a seat.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Visitor {
    client: ClientAddress,
    is_proxy: bool,
}

/// A seat for one connection, free again when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct Seat {
    all: Arc<ConnectionPlaces>,
    client: ClientAddress,
    number: u64,
    /// Signal that the connection is to be closed.
    displaced: Arc<Notify>,
}

/// A place for one connection, free again when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct ConnectionPlace {
    all: Arc<ConnectionPlaces>,
    client: ClientAddress,
    number: u64,
}

/// A request for a place. A place that was given and not taken is free again.
struct PlaceRequest<'s> {
    seat: &'s Seat,
    given: oneshot::Receiver<()>,
}

impl Visitor {
    /// Returns the client at that address.
    pub(in crate::api) fn at(address: IpAddr) -> Self {
        Self {
            client: address.into(),
            is_proxy: false,
        }
    }

    /// Returns the proxy, which brings all clients.
    pub(in crate::api) fn proxy() -> Self {
        Self {
            client: IpAddr::from([0; 4]).into(),
            is_proxy: true,
        }
    }
}

impl ConnectionPlaces {
    /// Creates places with this number of seats.
    pub(in crate::api) fn new(seats: usize) -> Self {
        Self {
            seats,
            // A client that has its share leaves a quarter to others.
            seat_share: (seats - seats / 4).max(1),
            patience: if seats < SEATS { PROGRESS_OF_FEW } else { PROGRESS },
            silence: SILENCE,
            own_silence: OWN_SILENCE,
            waits_for_own_silence: true,
            taken: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Returns the places, where connections that ask nothing make room sooner for others of their client: several users share its
    /// address. A platform, in contrast, may open many connections before it sends.
    pub(in crate::api) fn of_shared_addresses(self) -> Self {
        Self {
            own_silence: OWN_SILENCE_OF_SHARED,
            waits_for_own_silence: false,
            ..self
        }
    }

    fn taken(&self) -> MutexGuard<'_, TakenPlaces> {
        locked(&self.taken)
    }

    /// Waits for a seat. `None`: the client has its share, and nothing happens there.
    pub(in crate::api) async fn seat(self: &Arc<Self>, visitor: Visitor) -> Option<Seat> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Connections that leave from here on are noticed.
            left.as_mut().enable();
            match self.admit(visitor, Instant::now()) {
                Admission::Seat(number, displaced) => {
                    return Some(Seat {
                        all: Arc::clone(self),
                        client: visitor.client,
                        number,
                        displaced,
                    });
                }
                Admission::Stalled => return None,
                Admission::Full => left.await,
                Admission::Until(until) => drop(timeout_at(until, left).await),
            }
        }
    }

    fn admit(&self, visitor: Visitor, now: Instant) -> Admission {
        let Visitor { client, is_proxy } = visitor;
        let mut taken = self.taken();
        let own = taken.seats_of(client);
        // Until then something may change for a client that is being answered.
        let until = taken.progress_of(client).map(|progress| progress + self.patience);
        let waits_for_own = |taken: &mut TakenPlaces| {
            match (taken.displace_own_seat(client, now, self.own_silence), until) {
                (Displaced::Told, _) => Admission::Full,
                // Others are not to wait for a client whose connections have all just begun.
                (Displaced::Later(_), _) if !self.waits_for_own_silence => Admission::Stalled,
                (Displaced::Later(at), Some(until)) if until > now => Admission::Until(until.min(at)),
                (_, Some(until)) if until > now => Admission::Until(until),
                _ => Admission::Stalled,
            }
        };
        if taken.seats() < self.seats {
            let share = if is_proxy { self.seats } else { self.seat_share };
            if own >= share {
                return waits_for_own(&mut taken);
            }
            let most_places = if is_proxy { PLACES } else { PLACE_SHARE };
            let (number, displaced) = taken.sit(client, most_places, now);
            return Admission::Seat(number, displaced);
        }
        if is_proxy {
            return Admission::Full;
        }
        match taken.displace_seat(client, now, self.silence) {
            Displaced::Later(at) => Admission::Until(at),
            // The clients with most connections keep others in the backlog.
            Displaced::Nobody if own > 0 && taken.is_among_largest(own) => waits_for_own(&mut taken),
            Displaced::Told | Displaced::Nobody => Admission::Full,
        }
    }
}

impl Seat {
    /// Waits for a place, for this time at most.
    pub(in crate::api) async fn place(&self, patience: Duration) -> Option<ConnectionPlace> {
        let end = Instant::now() + patience;
        let (give, given) = oneshot::channel();
        {
            let mut taken = self.all.taken();
            taken.wait_for_place(self.client, self.number, give);
            taken.give_places(PLACES, Instant::now());
        }
        let mut waiting = PlaceRequest { seat: self, given };
        loop {
            if waiting.given.try_recv().is_ok() {
                return Some(self.new_place());
            }
            let now = Instant::now();
            if now >= end {
                return None;
            }
            let until = match self.displace_place(now) {
                Displaced::Later(at) => at.min(end),
                Displaced::Told | Displaced::Nobody => end.min(now + self.all.silence),
            };
            if let Ok(Ok(())) = timeout_at(until, &mut waiting.given).await {
                return Some(self.new_place());
            }
        }
    }

    /// Tells a silent connection to leave its place, one of another client or, if the client has its share, of its own.
    fn displace_place(&self, now: Instant) -> Displaced {
        let mut taken = self.all.taken();
        let displaced = taken.displace_place(self.client, now, self.all.silence, PLACES);
        match displaced {
            Displaced::Nobody => taken.displace_own_place(self.client, now, self.all.own_silence),
            displaced => displaced,
        }
    }

    fn new_place(&self) -> ConnectionPlace {
        ConnectionPlace {
            all: Arc::clone(&self.all),
            client: self.client,
            number: self.number,
        }
    }

    /// Waits until the connection is to be closed for another one.
    pub(in crate::api) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// Records a request of a client that has the right to make it: the connection is not closed for others.
    pub(in crate::api) fn asked(&self) {
        self.all.taken().speaks(self.client, self.number);
    }

    /// Records an answer to a client that has not shown such a right: from now on the connection counts as silent again.
    pub(in crate::api) fn is_silent_again(&self) {
        let silent = Silent::since(Instant::now(), &self.displaced);
        self.all.taken().is_silent(self.client, self.number, silent);
    }

    /// Returns whether other clients wait for a place, or soon will.
    pub(in crate::api) fn is_crowded(&self) -> bool {
        self.all.taken().is_crowded(self.client, PLACES)
    }

    /// Records that the client, with the right credentials, got an answer.
    pub(in crate::api) fn answered(&self) {
        self.all.taken().progressed(self.client, Instant::now());
    }
}

impl Drop for PlaceRequest<'_> {
    fn drop(&mut self) {
        self.given.close();
        // The place was given, and not taken.
        if self.given.try_recv().is_ok() {
            drop(self.seat.new_place());
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut taken = self.all.taken();
        taken.leave_place(self.client, self.number);
        taken.give_places(PLACES, Instant::now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.taken().leave(self.client, self.number);
        self.all.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
