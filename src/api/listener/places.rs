//! Seats for connections, and places to serve them: a limited number in all, and a share for each client.
//!
//! A connection that was accepted has a seat. That costs a descriptor and little memory, so that there are many. A connection
//! that has sent something is served when a place is free, clients that have few places first. Connections for which there is
//! no seat stay in the kernel's backlog, unless a client that has more seats, or places, holds one with a connection that asks
//! nothing: that one is closed.

mod taken;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use self::taken::{Admission, Displaced, Silent, TakenPlaces};
use crate::throttle::ClientAddress;

/// Connections that are served at once.
const PLACES: usize = 256;
/// Maximum number of these connections per client.
const PLACE_SHARE: usize = 128;
/// Connections that are accepted at once, as far as the limit of open files allows.
pub(crate) const SEATS: usize = 2048;
/// Descriptors of the process per seat: the part of them that connections may have.
const DESCRIPTORS_PER_SEAT: u64 = 4;
/// Descriptors that the daemon has open at most while it has work: about 27 that stay, and netlink sockets, journals and new
/// files of a change. They are left to it where the limit of open files is low.
pub(in crate::api) const DESCRIPTORS_OF_WORK: u64 = 40;
/// A client that has its share of seats is waited for as long as it got an answer within this time. After that its further
/// connections are closed, so that they do not keep others in the backlog.
const PROGRESS: Duration = Duration::from_secs(1);
/// Time like [`PROGRESS`], where the limit of open files leaves so few seats that a well-behaved client needs all of its share. Longer than an
/// answered connection without a further request is kept: after that, seats of such a client are free again.
const PROGRESS_OF_FEW: Duration = Duration::from_secs(12);
/// Time without a request after which a connection may be closed for one of a client that has fewer.
const SILENCE: Duration = Duration::from_secs(1);
/// Time like [`SILENCE`] for a connection of the same client. A request that is sent at once has come by then.
const OWN_SILENCE: Duration = Duration::from_millis(100);

/// The seats and places of a listener, of all clients together.
#[derive(Debug)]
pub(in crate::api) struct ConnectionPlaces {
    seats: usize,
    seat_share: usize,
    patience: Duration,
    silence: Duration,
    /// Time without a request after which a connection may be closed for another one of the same client; `None`: it is not.
    own_silence: Option<Duration>,
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

/// Returns the number of seats for this limit of open files.
pub(crate) fn seats_within(files: u64) -> usize {
    let part = (files / DESCRIPTORS_PER_SEAT).min(files.saturating_sub(DESCRIPTORS_OF_WORK) / 2);
    usize::try_from(part).unwrap_or(usize::MAX).clamp(1, SEATS)
}

impl ConnectionPlaces {
    /// Creates the seats and places that a limit of open files allows.
    pub(in crate::api) fn within(files: u64) -> Self {
        let seats = seats_within(files);
        Self {
            seats,
            // A client that has its share leaves a quarter to others.
            seat_share: (seats - seats / 4).max(1),
            patience: if seats < SEATS { PROGRESS_OF_FEW } else { PROGRESS },
            silence: SILENCE,
            own_silence: None,
            taken: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Returns the places, where a client that has its share gets more in exchange for its own connections that ask nothing: several
    /// users share its address. A platform, in contrast, may open many connections before it sends.
    pub(in crate::api) fn of_shared_addresses(self) -> Self {
        Self {
            own_silence: Some(OWN_SILENCE),
            ..self
        }
    }

    fn taken(&self) -> MutexGuard<'_, TakenPlaces> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
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
            let own_silence = self
                .own_silence
                .map(|silence| taken.displace_own_seat(client, now, silence));
            match (own_silence, until) {
                (Some(Displaced::Told), _) => Admission::Full,
                // Others are not to wait for a client whose connections have all just begun.
                (Some(Displaced::Later(_)), _) => Admission::Stalled,
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
        match (displaced, self.all.own_silence) {
            (Displaced::Nobody, Some(silence)) => taken.displace_own_place(self.client, now, silence),
            (displaced, _) => displaced,
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
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    fn visitor(last: u8) -> Visitor {
        Visitor::at([192, 0, 2, last].into())
    }

    #[test]
    fn seats_are_within_the_limit_of_open_files() {
        assert_eq!(seats_within(0), 1);
        assert_eq!(seats_within(40), 1);
        assert_eq!(seats_within(48), 4);
        assert_eq!(seats_within(80), 20);
        assert_eq!(seats_within(1024), 256);
        assert_eq!(seats_within(u64::MAX), SEATS);
    }

    fn places(files: u64, patience: Duration) -> Arc<ConnectionPlaces> {
        let places = ConnectionPlaces::within(files);
        Arc::new(ConnectionPlaces { patience, ..places })
    }

    async fn taken(places: &Arc<ConnectionPlaces>, visitor: Visitor, count: usize) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..count {
            seats.push(places.seat(visitor).await.unwrap());
        }
        seats
    }

    /// A client that has its share and gets no answers has further connections closed, and other clients come in.
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
        assert!(matches!(places.admit(visitor(1), Instant::now()), Admission::Until(_)));
        drop(one);
        let taken = places.taken();
        assert_eq!(
            (taken.clients(), taken.seats()),
            (0, 0),
            "nothing is kept of who has left"
        );
    }

    /// A client that has its share and gets answers is waited for, like all clients when no seat is left.
    #[tokio::test]
    async fn who_is_answered_is_waited_for() {
        let places = places(48, LONG);
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

    /// Clients that hold all seats and places with connections that ask nothing, some after their first bytes, do not keep
    /// others out.
    #[tokio::test]
    async fn nobody_waits_for_those_that_ask_nothing() {
        for holders in [2_u8, 3, 40] {
            let places = ConnectionPlaces::within(u64::MAX);
            let places = Arc::new(ConnectionPlaces {
                silence: SHORT,
                patience: SHORT,
                ..places
            });
            let each = SEATS / usize::from(holders);
            let mut connections = Vec::new();
            for holder in 0..holders {
                let all = Arc::clone(&places);
                for _ in 0..if holder == 0 {
                    SEATS - each * (usize::from(holders) - 1)
                } else {
                    each
                } {
                    let seat = all.seat(visitor(holder)).await.unwrap();
                    connections.push(tokio::spawn(async move {
                        tokio::select! {
                            () = seat.displaced() => {}
                            () = async {
                                let _place = seat.place(LONG).await;
                                std::future::pending::<()>().await;
                            } => {}
                        }
                    }));
                }
            }
            while !places.taken().is_crowded(visitor(200).client, PLACES) {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(SHORT * 2).await;
            for newcomer in 100..110 {
                let begin = Instant::now();
                let seat = timeout(LONG, places.seat(visitor(newcomer))).await.unwrap().unwrap();
                let place = timeout(LONG, seat.place(LONG)).await.unwrap();
                assert!(place.is_some(), "{holders}");
                assert!(begin.elapsed() < LONG / 4, "{holders}: it waits for the others");
                // Further connections of the holders do not keep others waiting.
                assert!(timeout(LONG, places.seat(visitor(0))).await.is_ok());
                connections.push(tokio::spawn(async move { drop((place, seat)) }));
            }
            for connection in connections {
                connection.abort();
            }
        }
    }

    #[tokio::test]
    async fn who_asks_or_has_just_come_is_not_displaced() {
        let places = places(48, LONG);
        let seats = taken(&places, visitor(1), 3).await;
        let other = places.seat(visitor(2)).await.unwrap();
        let now = Instant::now();
        let admit = |after| places.admit(visitor(3), now + after);
        assert!(
            matches!(admit(Duration::ZERO), Admission::Until(_)),
            "all have just come"
        );
        seats.iter().for_each(Seat::asked);
        assert!(matches!(admit(SILENCE * 2), Admission::Full), "all are asking");
        seats[1].is_silent_again();
        assert!(matches!(admit(SILENCE * 2), Admission::Full));
        timeout(LONG, seats[1].displaced()).await.expect("it is told to leave");
        assert!(timeout(SHORT, seats[0].displaced()).await.is_err());
        // A client that has no more than the newcomer is left alone.
        assert!(timeout(SHORT, other.displaced()).await.is_err());
    }

    /// Where several users share an address, connections that ask nothing make room for others from there, the longest silent one first.
    #[tokio::test]
    async fn silent_connections_make_room_for_others_of_their_address() {
        let places = ConnectionPlaces::within(1024).of_shared_addresses();
        let places = Arc::new(ConnectionPlaces {
            own_silence: Some(SHORT),
            ..places
        });
        let share = places.seat_share;
        let seats = taken(&places, visitor(1), share).await;
        // The first two are being answered.
        seats[..2].iter().for_each(Seat::asked);
        tokio::time::sleep(SHORT * 2).await;
        let (told, all) = (seats[2].displaced(), Arc::clone(&places));
        let waiting = tokio::spawn(async move { all.seat(visitor(1)).await });
        timeout(LONG, told).await.expect("it is told to leave");
        for other in [0, 1, 3] {
            assert!(timeout(SHORT, seats[other].displaced()).await.is_err(), "{other}");
        }
        let mut seats = seats;
        drop(seats.remove(2));
        let newcomer = timeout(LONG, waiting).await.unwrap().unwrap().expect("a seat");
        // All that ask nothing have sent their first bytes, and hold all places of their address.
        newcomer.asked();
        let mut held = Vec::new();
        for seat in &seats[2..2 + PLACE_SHARE] {
            held.push(seat.place(LONG).await.unwrap());
        }
        tokio::time::sleep(SHORT * 2).await;
        let place = newcomer.place(LONG);
        tokio::pin!(place);
        assert!(timeout(SHORT, &mut place).await.is_err());
        timeout(LONG, seats[2].displaced()).await.expect("it is told to leave");
        drop(held.remove(0));
        assert!(timeout(LONG, place).await.unwrap().is_some());
        // Where all are being answered, none makes room.
        seats.iter().for_each(Seat::asked);
        assert!(matches!(
            places.admit(visitor(1), Instant::now() + LONG),
            Admission::Stalled
        ));
    }

    /// A place that is given to a connection that does not wait any more is free again.
    #[tokio::test]
    async fn places_are_not_lost() {
        let places = places(u64::MAX, SHORT);
        let seats = taken(&places, visitor(1), PLACE_SHARE + 2).await;
        for _ in 0..3 {
            let mut held = Vec::new();
            for seat in &seats[..PLACE_SHARE] {
                held.push(seat.place(LONG).await.unwrap());
            }
            let waits = seats[PLACE_SHARE].place(LONG);
            tokio::pin!(waits);
            assert!(timeout(SHORT, &mut waits).await.is_err());
            drop(held);
        }
        assert!(!seats[0].is_crowded());
        assert!(places.taken().is_empty_of_places());
    }
}
