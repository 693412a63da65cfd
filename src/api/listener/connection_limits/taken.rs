//! Seats, places and silent connections of all clients. Pure except for its notifications; `now` is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::waiting::WaitingConnections;
use crate::throttle::ClientAddress;

/// Seats and places of all clients.
#[derive(Debug, Default)]
pub(super) struct TakenPlaces {
    seats: usize,
    places: usize,
    /// Seats that were given so far.
    numbers: u64,
    clients: BTreeMap<ClientAddress, ClientShare>,
}

/// Seats and places of one client.
#[derive(Debug)]
struct ClientShare {
    seats: usize,
    places: usize,
    most_places: usize,
    /// Time at which the client came, or was answered last.
    progress: Instant,
    /// Connections that ask nothing, by the numbers of their seats.
    silent: BTreeMap<u64, Silent>,
    /// Connections that wait for a place.
    waiting: WaitingConnections,
}

/// A connection that asks nothing: no whole request has come.
#[derive(Debug)]
pub(super) struct Silent {
    since: Instant,
    /// Whether something has come, and the connection waits for a place: what it asks is not known yet.
    is_waiting: bool,
    /// Time since which the connection has a place; `None`: it has none.
    in_place_since: Option<Instant>,
    displaced: Arc<Notify>,
}

/// Decision about a client that wants a seat.
pub(super) enum Admission {
    /// A seat with that number, and the signal that tells its connection to leave.
    Seat(u64, Arc<Notify>),
    /// All are taken.
    Full,
    /// The client has to wait, as before or because it has its share: until this time something may change.
    Until(Instant),
    /// The client has its share, and nothing happens there.
    Stalled,
}

/// Result of an attempt to close a connection that asks nothing in favour of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Displaced {
    /// A connection was told to leave.
    Told,
    /// A connection may be told to leave at that time.
    Later(Instant),
    /// No client has more and holds some with connections that ask nothing.
    Nobody,
}

/// Resource of connections, of which there is a limited number.
#[derive(Debug, Clone, Copy)]
enum Scarce {
    /// Seats: accepted connections.
    Seats,
    /// Places: connections that are served.
    Places,
}

impl Scarce {
    /// Returns the number of them that a client has.
    fn size(self, share: &ClientShare) -> usize {
        match self {
            Self::Seats => share.seats,
            Self::Places => share.places,
        }
    }

    /// Returns the time since which a silent connection has one; `None`: it has none.
    fn since(self, silent: &Silent) -> Option<Instant> {
        match self {
            Self::Seats => Some(silent.since),
            Self::Places => silent.in_place_since,
        }
    }

    /// Returns the time like [`Self::since`] for a decision in favour of the same client. A request that waits for a place may be as good as
    /// the one that it would make room for.
    fn since_for_own(self, silent: &Silent) -> Option<Instant> {
        match self {
            Self::Seats if silent.is_waiting => None,
            Self::Seats => Some(silent.in_place_since.unwrap_or(silent.since)),
            Self::Places => silent.in_place_since,
        }
    }
}

impl ClientShare {
    /// Returns the connection that has asked nothing for longest, and since when: the time that `since` gives.
    fn longest_silent(&self, since: impl Fn(&Silent) -> Option<Instant>) -> Option<(Instant, u64)> {
        let silent = self.silent.iter();
        silent
            .filter_map(|(number, silent)| Some((since(silent)?, *number)))
            .min()
    }
}

impl Silent {
    pub(super) fn since(since: Instant, displaced: &Arc<Notify>) -> Self {
        Self {
            since,
            is_waiting: false,
            in_place_since: None,
            displaced: Arc::clone(displaced),
        }
    }
}

impl TakenPlaces {
    pub(super) fn seats(&self) -> usize {
        self.seats
    }

    pub(super) fn seats_of(&self, client: ClientAddress) -> usize {
        self.clients.get(&client).map_or(0, |share| share.seats)
    }

    /// Returns the time at which a client that has seats came, or was answered last.
    pub(super) fn progress_of(&self, client: ClientAddress) -> Option<Instant> {
        self.clients.get(&client).map(|share| share.progress)
    }

    /// Returns whether no client has more than one seat more than this number.
    pub(super) fn is_among_largest(&self, seats: usize) -> bool {
        self.clients.values().all(|share| share.seats <= seats + 1)
    }

    /// Gives a seat. Returns its number, and the signal that tells its connection to leave.
    pub(super) fn sit(&mut self, client: ClientAddress, most_places: usize, now: Instant) -> (u64, Arc<Notify>) {
        self.numbers += 1;
        self.seats += 1;
        let displaced = Arc::new(Notify::new());
        let share = self.clients.entry(client).or_insert_with(|| ClientShare {
            seats: 0,
            places: 0,
            most_places,
            progress: now,
            silent: BTreeMap::new(),
            waiting: WaitingConnections::default(),
        });
        share.seats += 1;
        share.silent.insert(self.numbers, Silent::since(now, &displaced));
        (self.numbers, displaced)
    }

    pub(super) fn leave(&mut self, client: ClientAddress, number: u64) {
        self.seats = self.seats.saturating_sub(1);
        if let Some(share) = self.clients.get_mut(&client) {
            share.seats = share.seats.saturating_sub(1);
            share.silent.remove(&number);
            if share.seats == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Notes that a whole request has come.
    pub(super) fn speaks(&mut self, client: ClientAddress, number: u64) {
        if let Some(share) = self.clients.get_mut(&client) {
            share.silent.remove(&number);
        }
    }

    /// Notes that a connection with a place asks nothing again.
    pub(super) fn is_silent(&mut self, client: ClientAddress, number: u64, silent: Silent) {
        if let Some(share) = self.clients.get_mut(&client) {
            let in_place_since = Some(silent.since);
            share.silent.insert(
                number,
                Silent {
                    in_place_since,
                    ..silent
                },
            );
        }
    }

    pub(super) fn progressed(&mut self, client: ClientAddress, now: Instant) {
        if let Some(share) = self.clients.get_mut(&client) {
            share.progress = now;
        }
    }

    /// Returns whether a client waits for a place, or soon will.
    pub(super) fn is_crowded(&self, client: ClientAddress, places: usize) -> bool {
        let own = self.clients.get(&client);
        self.places >= places || own.is_some_and(|share| share.places >= share.most_places)
    }

    pub(super) fn wait_for_place(&mut self, client: ClientAddress, number: u64, give: oneshot::Sender<()>) {
        if let Some(share) = self.clients.get_mut(&client) {
            share.waiting.add(number, give);
            if let Some(silent) = share.silent.get_mut(&number) {
                silent.is_waiting = true;
            }
        }
    }

    /// Gives the free ones of this many places: first to clients that have few.
    pub(super) fn give_places(&mut self, places: usize, now: Instant) {
        while self.places < places {
            let mut waiting = self.clients.values_mut();
            let waiting = waiting
                .by_ref()
                .filter(|share| share.places < share.most_places && !share.waiting.is_empty());
            let Some(share) = waiting.min_by_key(|share| share.places) else {
                return;
            };
            let Some((number, give)) = share.waiting.next() else {
                return;
            };
            // A connection that has gone does not need the place.
            if give.send(()).is_ok() {
                self.places += 1;
                share.places += 1;
                if let Some(silent) = share.silent.get_mut(&number) {
                    (silent.is_waiting, silent.in_place_since) = (false, Some(now));
                }
            }
        }
    }

    pub(super) fn leave_place(&mut self, client: ClientAddress, number: u64) {
        self.places = self.places.saturating_sub(1);
        if let Some(share) = self.clients.get_mut(&client) {
            share.places = share.places.saturating_sub(1);
            if let Some(silent) = share.silent.get_mut(&number) {
                silent.in_place_since = None;
            }
        }
    }

    /// Tells the connection to leave that has asked nothing for longest, of the client that has most seats, if it has more than this
    /// client will have, and that connection was silent for so long.
    pub(super) fn displace_seat(&mut self, client: ClientAddress, now: Instant, silence: Duration) -> Displaced {
        let own = self.seats_of(client);
        self.displace(client, now, silence, Scarce::Seats, own)
    }

    /// Tells a silent connection to leave its place as [`Self::displace_seat`] does for a seat, if all places are
    /// taken.
    pub(super) fn displace_place(
        &mut self,
        client: ClientAddress,
        now: Instant,
        silence: Duration,
        places: usize,
    ) -> Displaced {
        let own = self.clients.get(&client);
        if self.places < places || own.is_some_and(|share| share.places >= share.most_places) {
            return Displaced::Nobody;
        }
        let own = own.map_or(0, |share| share.places);
        self.displace(client, now, silence, Scarce::Places, own)
    }

    /// Tells the connection of this client to leave that has asked nothing for longest, if it was silent for so long: in favour of
    /// another seat of the same client.
    pub(super) fn displace_own_seat(&mut self, client: ClientAddress, now: Instant, silence: Duration) -> Displaced {
        self.displace_own(client, now, silence, Scarce::Seats)
    }

    /// Tells a silent connection of this client to leave its place as [`Self::displace_own_seat`] does for a seat. Clients that have
    /// less than their share of places wait as others do.
    pub(super) fn displace_own_place(&mut self, client: ClientAddress, now: Instant, silence: Duration) -> Displaced {
        let own = self.clients.get(&client);
        if own.is_none_or(|share| share.places < share.most_places) {
            return Displaced::Nobody;
        }
        self.displace_own(client, now, silence, Scarce::Places)
    }

    fn displace_own(&mut self, client: ClientAddress, now: Instant, silence: Duration, scarce: Scarce) -> Displaced {
        let Some(share) = self.clients.get_mut(&client) else {
            return Displaced::Nobody;
        };
        let Some((begin, number)) = share.longest_silent(|silent| scarce.since_for_own(silent)) else {
            return Displaced::Nobody;
        };
        if now.saturating_duration_since(begin) < silence {
            return Displaced::Later(begin + silence);
        }
        if let Some(silent) = share.silent.remove(&number) {
            silent.displaced.notify_one();
        }
        if matches!(scarce, Scarce::Places) {
            share.waiting.is_left_a_place();
        }
        Displaced::Told
    }

    /// Tells a silent connection to leave, in favour of a client that has `own` of the scarce resource.
    fn displace(
        &mut self,
        client: ClientAddress,
        now: Instant,
        silence: Duration,
        scarce: Scarce,
        own: usize,
    ) -> Displaced {
        let mut later: Option<Instant> = None;
        let mut first: Option<(usize, ClientAddress, u64)> = None;
        for (of, share) in self
            .clients
            .iter()
            .filter(|(of, share)| **of != client && scarce.size(share) > own + 1)
        {
            let Some((begin, number)) = share.longest_silent(|silent| scarce.since(silent)) else {
                continue;
            };
            if now.saturating_duration_since(begin) < silence {
                later = Some(later.map_or(begin + silence, |later| later.min(begin + silence)));
            } else if first.is_none_or(|(most, ..)| scarce.size(share) > most) {
                first = Some((scarce.size(share), *of, number));
            }
        }
        let Some((_, of, number)) = first else {
            return later.map_or(Displaced::Nobody, Displaced::Later);
        };
        let share = self.clients.get_mut(&of);
        if let Some(silent) = share.and_then(|share| share.silent.remove(&number)) {
            silent.displaced.notify_one();
        }
        Displaced::Told
    }

    #[cfg(test)]
    pub(super) fn is_empty_of_places(&self) -> bool {
        self.places == 0
    }

    /// Returns the number of clients with seats or places.
    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }
}
