//! Clients of one service that no backend answers, and whether others were served meanwhile.
//!
//! A client that fails while others are served (a backend bans it, say) is no proof that nobody is served, and goes on to be none when
//! it tries again. One that begins to fail after the last client was served may be the first one of an outage. Where several proved
//! to be banned already (a whole network, or scanners), one that is not known is believed only after a time in which others would
//! have been served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients that are remembered. Where more fail, those that began last are: they tell of an outage.
pub(super) const MOST_FAILING: usize = 64;
/// A client that was served shows for so long that those which have failed since before it are not all.
pub(super) const SERVED_COUNTS: Duration = Duration::from_secs(60);
/// A client that failed while others were served, and was not served itself, is known as banned for so long.
const BAN_COUNTS: Duration = Duration::from_secs(15 * 60);
/// So many clients that are banned show that more of them may come.
const MANY_BANNED: usize = 3;
/// Times between clients that were served, of which the usual one is known.
const MOST_GAPS: usize = 15;
/// Where many are banned, nobody must have been served for so many times the usual time between two that are.
const GAPS: u32 = 4;
/// Longest time for which others must not be served where many are banned; less than [`SERVED_COUNTS`].
const MOST_PATIENCE: Duration = Duration::from_secs(45);
/// Clients that were served last, which are remembered.
const MOST_SERVED: usize = 64;

/// Clients that no backend answers.
#[derive(Debug, Default)]
pub(super) struct Failing {
    clients: BTreeMap<IpAddr, Client>,
    /// Clients that were served, and when each was last.
    served: BTreeMap<IpAddr, Instant>,
    /// When any client was served last.
    last_served: Option<Instant>,
    /// The last times between clients that were served.
    gaps: VecDeque<Duration>,
}

/// One client.
#[derive(Debug)]
struct Client {
    /// When the first of its handshakes began that was not answered, after it was last served itself.
    since: Instant,
    /// The last look at which one was overdue.
    last: Instant,
    /// Whether others were served after it began to fail.
    is_banned: bool,
}

impl Failing {
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.clients.len().max(self.served.len())
    }

    /// Notes an overdue handshake that no backend answered.
    pub(super) fn note(&mut self, client: IpAddr, begin: Instant, now: Instant) {
        let served = self.served.get(&client);
        if served.is_some_and(|served| begin <= *served) {
            return;
        }
        if let Some(known) = self.clients.get_mut(&client) {
            known.since = known.since.min(begin);
            known.last = now;
            return;
        }
        if self.clients.len() >= MOST_FAILING {
            let oldest = self.clients.iter().min_by_key(|(_, known)| known.since);
            let Some((&oldest, _)) = oldest.filter(|(_, known)| known.since < begin) else {
                return;
            };
            self.clients.remove(&oldest);
        }
        let new = Client {
            since: begin,
            last: now,
            is_banned: false,
        };
        self.clients.insert(client, new);
    }

    /// Notes that a client was served at some time after `at`: what is known of it begins anew.
    pub(super) fn served(&mut self, client: IpAddr, at: Instant) {
        if self.clients.get(&client).is_some_and(|known| known.since <= at) {
            self.clients.remove(&client);
        }
        if self.served.len() >= MOST_SERVED && !self.served.contains_key(&client) {
            let oldest = self.served.iter().min_by_key(|(_, at)| **at).map(|(client, _)| *client);
            oldest.and_then(|oldest| self.served.remove(&oldest));
        }
        let last = self.served.entry(client).or_insert(at);
        *last = at.max(*last);
    }

    /// Notes when any client of the service was served last, as far as is known.
    pub(super) fn any_served(&mut self, at: Option<Instant>) {
        let Some(at) = at.filter(|at| self.last_served.is_none_or(|last| last < *at)) else {
            return;
        };
        if let Some(last) = self.last_served.replace(at) {
            self.gaps.truncate(MOST_GAPS - 1);
            self.gaps.push_front(at.saturating_duration_since(last));
        }
        for client in self.clients.values_mut() {
            client.is_banned |= client.since <= at;
        }
    }

    /// Whether a client fails though nothing says that others are served.
    pub(super) fn is_any_unserved(&self) -> bool {
        self.clients.values().any(|client| self.is_unserved(client))
    }

    /// Whether that is to be believed: it is a client that was served before, or too much time has passed for others to come.
    pub(super) fn is_outage(&self, now: Instant) -> bool {
        let patience = self.patience();
        self.clients.iter().any(|(address, client)| {
            let is_known = self.served.contains_key(address);
            let age = now.saturating_duration_since(client.since);
            self.is_unserved(client) && (is_known || age >= patience)
        })
    }

    /// How long a client that was never served must have failed to be believed.
    fn patience(&self) -> Duration {
        let banned = self.clients.values().filter(|client| client.is_banned).count();
        if banned < MANY_BANNED {
            return Duration::ZERO;
        }
        let mut gaps: Vec<Duration> = self.gaps.iter().copied().collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        (usual * GAPS).min(MOST_PATIENCE)
    }

    /// Forgets clients that have not failed for some time, but those that tell of an outage, and those that are banned for longer.
    pub(super) fn forget_old(&mut self, now: Instant) {
        let unserved: BTreeSet<IpAddr> = self
            .clients
            .iter()
            .filter(|(_, client)| self.is_unserved(client))
            .map(|(address, _)| *address)
            .collect();
        self.clients.retain(|address, client| {
            let counts = if client.is_banned { BAN_COUNTS } else { SERVED_COUNTS };
            unserved.contains(address) || now.saturating_duration_since(client.last) < counts
        });
        self.served
            .retain(|_, at| now.saturating_duration_since(*at) < BAN_COUNTS);
    }

    fn is_unserved(&self, client: &Client) -> bool {
        self.last_served.is_none_or(|served| {
            served < client.since || client.last.saturating_duration_since(served) >= SERVED_COUNTS
        })
    }
}
