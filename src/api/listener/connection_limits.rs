//! Slots for accepted connections, and slots to serve them: a limited number in all, and a share for each client.
//!
//! A connection that was accepted has a connection slot. That costs a descriptor and little memory, so that there are many. A connection
//! that has sent something is served when a serving slot is free, clients that have few of them first. Connections for which there is
//! no connection slot stay in the kernel's backlog, unless a client that has more slots of either kind holds one with a connection
//! that asks nothing: that one is closed. A client that has its share has such a connection of its own closed for a new one.

mod taken;
mod waiting;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use self::taken::{Admission, Eviction, Silent, UsedSlots};
use crate::api::descriptors::MOST_ACCEPTED;
use crate::locked::locked;
use crate::throttle::ClientAddress;

/// Connections that are served at once.
const MOST_SERVED: usize = 256;
/// Maximum number of these connections per client.
const MOST_SERVED_OF_CLIENT: usize = 128;
/// A client that has its share of connection slots may delay others as long as it got an answer within this time. After that its further
/// connections are closed, so that they do not keep others in the backlog.
const PROGRESS: Duration = Duration::from_secs(1);
/// Time like [`PROGRESS`], where the limit of open files leaves so few connection slots that a well-behaved client needs all of its
/// share. Longer than an answered connection without a further request is kept: after that, connection slots of such a client are free again.
const PROGRESS_OF_FEW: Duration = Duration::from_secs(12);
/// Time without a request after which a connection may be closed for one of a client that has fewer.
const SILENCE: Duration = Duration::from_secs(1);
/// Time like [`SILENCE`] for a connection of the same client. A platform may open connections before it sends, through a slow network.
const OWN_SILENCE: Duration = Duration::from_secs(2);
/// Time like [`OWN_SILENCE`] where several users share an address. A request that is sent at once has come by then.
const OWN_SILENCE_OF_SHARED: Duration = Duration::from_millis(100);

/// Limits of a listener's connection slots and serving slots, of all clients together.
#[derive(Debug)]
pub(in crate::api) struct ConnectionLimits {
    slots: usize,
    slot_share: usize,
    patience: Duration,
    silence: Duration,
    /// Time without a request after which a connection may be closed for another one of the same client.
    own_silence: Duration,
    /// Whether a client with its share of connection slots, which is being answered, is waited for until one of its silent connections may be closed.
    waits_for_own_silence: bool,
    taken: Mutex<UsedSlots>,
    left: Notify,
}

/// A client that wants a connection slot.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct ListenerClient {
    client: ClientAddress,
    is_proxy: bool,
}

/// Slot of an accepted connection, free again when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct ConnectionSlot {
    all: Arc<ConnectionLimits>,
    client: ClientAddress,
    number: u64,
    /// Signal that the connection is to be closed.
    evicted: Arc<Notify>,
}

/// Slot of a connection that is served, free again when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct ServingSlot {
    all: Arc<ConnectionLimits>,
    client: ClientAddress,
    number: u64,
}

/// A request for a serving slot. A serving slot that was given and not taken is free again.
struct SlotRequest<'s> {
    slot: &'s ConnectionSlot,
    given: oneshot::Receiver<()>,
}

impl ListenerClient {
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

impl ConnectionLimits {
    /// Creates limits with this number of connection slots.
    pub(in crate::api) fn new(slots: usize) -> Self {
        Self {
            slots,
            // A client that has its share leaves a quarter to others.
            slot_share: (slots - slots / 4).max(1),
            patience: if slots < MOST_ACCEPTED {
                PROGRESS_OF_FEW
            } else {
                PROGRESS
            },
            silence: SILENCE,
            own_silence: OWN_SILENCE,
            waits_for_own_silence: true,
            taken: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Returns the limits, where connections that ask nothing make room sooner for others of their client: several users share its
    /// address. A platform, in contrast, may open many connections before it sends.
    pub(in crate::api) fn of_shared_addresses(self) -> Self {
        Self {
            own_silence: OWN_SILENCE_OF_SHARED,
            waits_for_own_silence: false,
            ..self
        }
    }

    fn taken(&self) -> MutexGuard<'_, UsedSlots> {
        locked(&self.taken)
    }

    /// Waits for a connection slot. `None`: the client has its share, and nothing happens there.
    pub(in crate::api) async fn slot(self: &Arc<Self>, from: ListenerClient) -> Option<ConnectionSlot> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Connections that leave from here on are noticed.
            left.as_mut().enable();
            match self.admit(from, Instant::now()) {
                Admission::ConnectionSlot(number, evicted) => {
                    return Some(ConnectionSlot {
                        all: Arc::clone(self),
                        client: from.client,
                        number,
                        evicted,
                    });
                }
                Admission::Stalled => return None,
                Admission::Full => left.await,
                Admission::Until(until) => drop(timeout_at(until, left).await),
            }
        }
    }

    fn admit(&self, from: ListenerClient, now: Instant) -> Admission {
        let ListenerClient { client, is_proxy } = from;
        let mut taken = self.taken();
        let own = taken.slots_of(client);
        // Until then something may change for a client that is being answered.
        let until = taken.progress_of(client).map(|progress| progress + self.patience);
        let waits_for_own = |taken: &mut UsedSlots| {
            match (taken.evict_own_slot(client, now, self.own_silence), until) {
                (Eviction::Told, _) => Admission::Full,
                // Others are not to wait for a client whose connections have all just begun.
                (Eviction::Later(_), _) if !self.waits_for_own_silence => Admission::Stalled,
                (Eviction::Later(at), Some(until)) if until > now => Admission::Until(until.min(at)),
                (_, Some(until)) if until > now => Admission::Until(until),
                _ => Admission::Stalled,
            }
        };
        if taken.slots() < self.slots {
            let share = if is_proxy { self.slots } else { self.slot_share };
            if own >= share {
                return waits_for_own(&mut taken);
            }
            let most_serving_slots = if is_proxy { MOST_SERVED } else { MOST_SERVED_OF_CLIENT };
            let (number, evicted) = taken.sit(client, most_serving_slots, now);
            return Admission::ConnectionSlot(number, evicted);
        }
        if is_proxy {
            return Admission::Full;
        }
        match taken.evict_slot(client, now, self.silence) {
            Eviction::Later(at) => Admission::Until(at),
            // The clients with most connections keep others in the backlog.
            Eviction::Nobody if own > 0 && taken.is_among_largest(own) => waits_for_own(&mut taken),
            Eviction::Told | Eviction::Nobody => Admission::Full,
        }
    }
}

impl ConnectionSlot {
    /// Waits for a serving slot, for this time at most.
    pub(in crate::api) async fn serving_slot(&self, patience: Duration) -> Option<ServingSlot> {
        let end = Instant::now() + patience;
        let (give, given) = oneshot::channel();
        {
            let mut taken = self.all.taken();
            taken.wait_for_serving_slot(self.client, self.number, give);
            taken.give_serving_slots(MOST_SERVED, Instant::now());
        }
        let mut waiting = SlotRequest { slot: self, given };
        loop {
            if waiting.given.try_recv().is_ok() {
                return Some(self.new_serving_slot());
            }
            let now = Instant::now();
            if now >= end {
                return None;
            }
            let until = match self.evict_serving_slot(now) {
                Eviction::Later(at) => at.min(end),
                Eviction::Told | Eviction::Nobody => end.min(now + self.all.silence),
            };
            if let Ok(Ok(())) = timeout_at(until, &mut waiting.given).await {
                return Some(self.new_serving_slot());
            }
        }
    }

    /// Tells a silent connection to leave its serving slot, one of another client or, if the client has its share, of its own.
    fn evict_serving_slot(&self, now: Instant) -> Eviction {
        let mut taken = self.all.taken();
        let evicted = taken.evict_serving_slot(self.client, now, self.all.silence, MOST_SERVED);
        match evicted {
            Eviction::Nobody => taken.evict_own_serving_slot(self.client, now, self.all.own_silence),
            evicted => evicted,
        }
    }

    fn new_serving_slot(&self) -> ServingSlot {
        ServingSlot {
            all: Arc::clone(&self.all),
            client: self.client,
            number: self.number,
        }
    }

    /// Waits until the connection is to be closed for another one.
    pub(in crate::api) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Records a request of a client that has the right to make it: the connection is not closed for others.
    pub(in crate::api) fn note_request(&self) {
        self.all.taken().speaks(self.client, self.number);
    }

    /// Records an answer to a client that has not shown such a right: from now on the connection counts as silent again.
    pub(in crate::api) fn is_silent_again(&self) {
        let silent = Silent::since(Instant::now(), &self.evicted);
        self.all.taken().is_silent(self.client, self.number, silent);
    }

    /// Returns whether other clients wait for a serving slot, or soon will.
    pub(in crate::api) fn is_crowded(&self) -> bool {
        self.all.taken().is_crowded(self.client, MOST_SERVED)
    }

    /// Records that the client, with the right credentials, got an answer.
    pub(in crate::api) fn answered(&self) {
        self.all.taken().progressed(self.client, Instant::now());
    }
}

impl Drop for SlotRequest<'_> {
    fn drop(&mut self) {
        self.given.close();
        // The serving slot was given, and not taken.
        if self.given.try_recv().is_ok() {
            drop(self.slot.new_serving_slot());
        }
    }
}

impl Drop for ServingSlot {
    fn drop(&mut self) {
        let mut taken = self.all.taken();
        taken.leave_serving_slot(self.client, self.number);
        taken.give_serving_slots(MOST_SERVED, Instant::now());
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.all.taken().leave(self.client, self.number);
        self.all.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
