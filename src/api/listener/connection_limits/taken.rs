//! Connection slots, serving slots and silent connections of all clients. Pure except for its notifications; `now` is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::waiting::WaitingConnections;
use crate::throttle::ClientAddress;

/// Connection slots and serving slots of all clients.
#[derive(Debug, Default)]
pub(super) struct UsedSlots {
    slots: usize,
    serving_slots: usize,
    /// Connection slots that were given so far.
    numbers: u64,
    clients: BTreeMap<ClientAddress, ClientShare>,
}

/// Connection slots and serving slots of one client.
#[derive(Debug)]
struct ClientShare {
    slots: usize,
    serving_slots: usize,
    most_serving_slots: usize,
    /// Time at which the client came, or was answered last.
    progress: Instant,
    /// Connections that ask nothing, by the numbers of their connection slots.
    silent: BTreeMap<u64, Silent>,
    /// Connections that wait for a serving slot.
    waiting: WaitingConnections,
}

/// A connection that asks nothing: no whole request has come.
#[derive(Debug)]
pub(super) struct Silent {
    since: Instant,
    /// Whether something has come, and the connection waits for a serving slot: what it asks is not known yet.
    is_waiting: bool,
    /// Time since which the connection has a serving slot; `None`: it has none.
    serving_since: Option<Instant>,
    evicted: Arc<Notify>,
}

/// Decision about a client that wants a connection slot.
pub(super) enum Admission {
    /// A connection slot with that number, and the signal that tells its connection to leave.
    ConnectionSlot(u64, Arc<Notify>),
    /// All are taken.
    Full,
    /// The client has to wait, as before or because it has its share: until this time something may change.
    Until(Instant),
    /// The client has its share, and nothing happens there.
    Stalled,
}

/// Result of an attempt to close a connection that asks nothing in favour of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
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
    /// Connection slots: accepted connections.
    Connections,
    /// Serving slots: connections that are served.
    Serving,
}

impl Scarce {
    /// Returns the number of them that a client has.
    fn size(self, share: &ClientShare) -> usize {
        match self {
            Self::Connections => share.slots,
            Self::Serving => share.serving_slots,
        }
    }

    /// Returns the time since which a silent connection has one; `None`: it has none.
    fn since(self, silent: &Silent) -> Option<Instant> {
        match self {
            Self::Connections => Some(silent.since),
            Self::Serving => silent.serving_since,
        }
    }

    /// Returns the time like [`Self::since`] for a decision in favour of the same client. A request that waits for a serving slot may be as good as
    /// the one that it would make room for.
    fn since_for_own(self, silent: &Silent) -> Option<Instant> {
        match self {
            Self::Connections if silent.is_waiting => None,
            Self::Connections => Some(silent.serving_since.unwrap_or(silent.since)),
            Self::Serving => silent.serving_since,
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
    pub(super) fn since(since: Instant, evicted: &Arc<Notify>) -> Self {
        Self {
            since,
            is_waiting: false,
            serving_since: None,
            evicted: Arc::clone(evicted),
        }
    }
}

impl UsedSlots {
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn slots_of(&self, client: ClientAddress) -> usize {
        self.clients.get(&client).map_or(0, |share| share.slots)
    }

    /// Returns the time at which a client that has connection slots came, or was answered last.
    pub(super) fn progress_of(&self, client: ClientAddress) -> Option<Instant> {
        self.clients.get(&client).map(|share| share.progress)
    }

    /// Returns whether no client has more than one connection slot more than this number.
    pub(super) fn is_among_largest(&self, slots: usize) -> bool {
        self.clients.values().all(|share| share.slots <= slots + 1)
    }

    /// Gives a connection slot. Returns its number, and the signal that tells its connection to leave.
    pub(super) fn sit(&mut self, client: ClientAddress, most_serving_slots: usize, now: Instant) -> (u64, Arc<Notify>) {
        self.numbers += 1;
        self.slots += 1;
        let evicted = Arc::new(Notify::new());
        let share = self.clients.entry(client).or_insert_with(|| ClientShare {
            slots: 0,
            serving_slots: 0,
            most_serving_slots,
            progress: now,
            silent: BTreeMap::new(),
            waiting: WaitingConnections::default(),
        });
        share.slots += 1;
        share.silent.insert(self.numbers, Silent::since(now, &evicted));
        (self.numbers, evicted)
    }

    pub(super) fn leave(&mut self, client: ClientAddress, number: u64) {
        self.slots = self.slots.saturating_sub(1);
        if let Some(share) = self.clients.get_mut(&client) {
            share.slots = share.slots.saturating_sub(1);
            share.silent.remove(&number);
            if share.slots == 0 {
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

    /// Notes that a connection with a serving slot asks nothing again.
    pub(super) fn is_silent(&mut self, client: ClientAddress, number: u64, silent: Silent) {
        if let Some(share) = self.clients.get_mut(&client) {
            let serving_since = Some(silent.since);
            share.silent.insert(
                number,
                Silent {
                    serving_since,
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

    /// Returns whether a client waits for a serving slot, or soon will.
    pub(super) fn is_crowded(&self, client: ClientAddress, serving_slots: usize) -> bool {
        let own = self.clients.get(&client);
        self.serving_slots >= serving_slots || own.is_some_and(|share| share.serving_slots >= share.most_serving_slots)
    }

    pub(super) fn wait_for_serving_slot(&mut self, client: ClientAddress, number: u64, give: oneshot::Sender<()>) {
        if let Some(share) = self.clients.get_mut(&client) {
            share.waiting.add(number, give);
            if let Some(silent) = share.silent.get_mut(&number) {
                silent.is_waiting = true;
            }
        }
    }

    /// Gives the free ones of this many serving slots: first to clients that have few.
    pub(super) fn give_serving_slots(&mut self, serving_slots: usize, now: Instant) {
        while self.serving_slots < serving_slots {
            let mut waiting = self.clients.values_mut();
            let waiting = waiting
                .by_ref()
                .filter(|share| share.serving_slots < share.most_serving_slots && !share.waiting.is_empty());
            let Some(share) = waiting.min_by_key(|share| share.serving_slots) else {
                return;
            };
            let Some((number, give)) = share.waiting.next() else {
                return;
            };
            // A connection that has gone does not need the serving slot.
            if give.send(()).is_ok() {
                self.serving_slots += 1;
                share.serving_slots += 1;
                if let Some(silent) = share.silent.get_mut(&number) {
                    (silent.is_waiting, silent.serving_since) = (false, Some(now));
                }
            }
        }
    }

    pub(super) fn leave_serving_slot(&mut self, client: ClientAddress, number: u64) {
        self.serving_slots = self.serving_slots.saturating_sub(1);
        if let Some(share) = self.clients.get_mut(&client) {
            share.serving_slots = share.serving_slots.saturating_sub(1);
            if let Some(silent) = share.silent.get_mut(&number) {
                silent.serving_since = None;
            }
        }
    }

    /// Tells the connection to leave that has asked nothing for longest, of the client that has most connection slots, if it has more than this
    /// client will have, and that connection was silent for so long.
    pub(super) fn evict_slot(&mut self, client: ClientAddress, now: Instant, silence: Duration) -> Eviction {
        let own = self.slots_of(client);
        self.evict(client, now, silence, Scarce::Connections, own)
    }

    /// Tells a silent connection to leave its serving slot as [`Self::evict_slot`] does for a connection slot, if all serving slots are
    /// taken.
    pub(super) fn evict_serving_slot(
        &mut self,
        client: ClientAddress,
        now: Instant,
        silence: Duration,
        serving_slots: usize,
    ) -> Eviction {
        let own = self.clients.get(&client);
        if self.serving_slots < serving_slots
            || own.is_some_and(|share| share.serving_slots >= share.most_serving_slots)
        {
            return Eviction::Nobody;
        }
        let own = own.map_or(0, |share| share.serving_slots);
        self.evict(client, now, silence, Scarce::Serving, own)
    }

    /// Tells the connection of this client to leave that has asked nothing for longest, if it was silent for so long: in favour of
    /// another connection slot of the same client.
    pub(super) fn evict_own_slot(&mut self, client: ClientAddress, now: Instant, silence: Duration) -> Eviction {
        self.evict_own(client, now, silence, Scarce::Connections)
    }

    /// Tells a silent connection of this client to leave its serving slot as [`Self::evict_own_slot`] does for a connection slot. Clients that have
    /// less than their share of serving slots wait as others do.
    pub(super) fn evict_own_serving_slot(
        &mut self,
        client: ClientAddress,
        now: Instant,
        silence: Duration,
    ) -> Eviction {
        let own = self.clients.get(&client);
        if own.is_none_or(|share| share.serving_slots < share.most_serving_slots) {
            return Eviction::Nobody;
        }
        self.evict_own(client, now, silence, Scarce::Serving)
    }

    fn evict_own(&mut self, client: ClientAddress, now: Instant, silence: Duration, scarce: Scarce) -> Eviction {
        let Some(share) = self.clients.get_mut(&client) else {
            return Eviction::Nobody;
        };
        let Some((begin, number)) = share.longest_silent(|silent| scarce.since_for_own(silent)) else {
            return Eviction::Nobody;
        };
        if now.saturating_duration_since(begin) < silence {
            return Eviction::Later(begin + silence);
        }
        if let Some(silent) = share.silent.remove(&number) {
            silent.evicted.notify_one();
        }
        if matches!(scarce, Scarce::Serving) {
            share.waiting.is_left_a_serving_slot();
        }
        Eviction::Told
    }

    /// Tells a silent connection to leave, in favour of a client that has `own` of the scarce resource.
    fn evict(
        &mut self,
        client: ClientAddress,
        now: Instant,
        silence: Duration,
        scarce: Scarce,
        own: usize,
    ) -> Eviction {
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
            return later.map_or(Eviction::Nobody, Eviction::Later);
        };
        let share = self.clients.get_mut(&of);
        if let Some(silent) = share.and_then(|share| share.silent.remove(&number)) {
            silent.evicted.notify_one();
        }
        Eviction::Told
    }

    #[cfg(test)]
    pub(super) fn is_empty_of_serving_slots(&self) -> bool {
        self.serving_slots == 0
    }

    /// Returns the number of clients with connection slots or serving slots.
    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }
}
