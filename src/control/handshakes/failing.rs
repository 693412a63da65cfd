//! Clients of one service that no backend answers, and whether others were served meanwhile.
//!
//! A client that fails while others are served (one that a backend bans, for example) does not show an outage, also
//! when it tries again. A client that begins to fail after the last client was served may be the first one of an
//! outage. If several proved to be banned already (a whole network, or scanners), an unknown client shows an outage
//! only after a time in which others would have been served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum number of clients that are remembered. Of more, those that began to fail last are, since they show an
/// outage.
pub(super) const MOST_FAILING: usize = 64;
/// Time for which a served client shows that clients that have failed since before are exceptions.
pub(super) const SERVED_COUNTS: Duration = Duration::from_secs(60);
/// Time for which a client that failed while others were served, and was not served itself, counts as banned.
const BAN_COUNTS: Duration = Duration::from_secs(15 * 60);
/// Number of false alarms within [`BAN_COUNTS`] after which more are expected. A false alarm: clients began to fail,
/// and another was served next.
const OFTEN: usize = 3;
/// Maximum number of remembered times between served clients.
const MOST_GAPS: usize = 15;
/// Index of the time that counts, of the longest first: one or two longer ones may be outages.
const LONG_GAP: usize = 2;
/// Number of such times for which no client must have been served, where false alarms are frequent.
const GAPS: u32 = 3;
/// Maximum of that time; less than [`SERVED_COUNTS`].
const MOST_PATIENCE: Duration = Duration::from_secs(45);
/// Maximum number of remembered clients that were served last.
const MOST_SERVED: usize = 64;

/// Clients that no backend answers.
#[derive(Debug, Default)]
pub(super) struct Failing {
    clients: BTreeMap<IpAddr, FailingClient>,
    /// Clients that were served last.
    served: BTreeMap<IpAddr, ClientService>,
    /// Time at which the first client began to fail that was not known as failing when a client was served last.
    unserved_since: Option<Instant>,
    /// Times of the last false alarms.
    false_alarms: VecDeque<Instant>,
    /// Time at which any client was served last.
    last_served: Option<Instant>,
    /// Last times between served clients.
    gaps: VecDeque<Duration>,
}

/// A client that fails.
#[derive(Debug)]
struct FailingClient {
    /// Begin of the first of its handshakes that was not answered, after it was last served itself.
    since: Instant,
    /// Last observation at which one was overdue.
    last: Instant,
    /// Whether others were served after it began to fail.
    is_banned: bool,
}

/// A client that was served.
#[derive(Debug)]
struct ClientService {
    last: Instant,
    /// Number of times that it had failed before. An address may stand for several clients, some of which are banned.
    after_failing: usize,
}

impl Failing {
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.clients.len().max(self.served.len())
    }

    /// Adds an overdue handshake that no backend answered.
    pub(super) fn note(&mut self, client: IpAddr, begin: Instant, now: Instant) {
        let served = self.served.get(&client);
        if served.is_some_and(|served| begin <= served.last) {
            return;
        }
        if self.last_served.is_none_or(|served| served < begin)
            && !self.clients.get(&client).is_some_and(|known| known.is_banned)
        {
            let since = self.unserved_since.get_or_insert(begin);
            *since = begin.min(*since);
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
        let new = FailingClient {
            since: begin,
            last: now,
            is_banned: false,
        };
        self.clients.insert(client, new);
    }

    /// Notes that a client was served at some time after `at`, which resets its failures.
    pub(super) fn served(&mut self, client: IpAddr, at: Instant) {
        let has_failed = self.clients.get(&client).is_some_and(|known| known.since <= at);
        if has_failed {
            self.clients.remove(&client);
        }
        if self.served.len() >= MOST_SERVED && !self.served.contains_key(&client) {
            let oldest = self.served.iter().min_by_key(|(_, served)| served.last);
            let oldest = oldest.map(|(client, _)| *client);
            oldest.and_then(|oldest| self.served.remove(&oldest));
        }
        let new = ClientService {
            last: at,
            after_failing: 0,
        };
        let served = self.served.entry(client).or_insert(new);
        served.last = at.max(served.last);
        served.after_failing += usize::from(has_failed);
    }

    /// Notes the time at which any client of the service was served last, as far as is known.
    pub(super) fn any_served(&mut self, at: Instant) {
        if self.last_served.is_some_and(|last| last >= at) {
            return;
        }
        if let Some(last) = self.last_served.replace(at) {
            self.gaps.truncate(MOST_GAPS - 1);
            self.gaps.push_front(at.saturating_duration_since(last));
        }
        for client in self.clients.values_mut() {
            client.is_banned |= client.since <= at;
        }
        if self.unserved_since.take_if(|since| *since <= at).is_some() {
            self.false_alarms.truncate(OFTEN - 1);
            self.false_alarms.push_front(at);
        }
    }

    /// Returns whether a client fails and nothing shows that others are served.
    pub(super) fn is_any_unserved(&self) -> bool {
        self.clients.values().any(|client| self.is_unserved(client))
    }

    /// Returns whether the failures show an outage: a client fails that was served before, or enough time has passed
    /// for others to be served.
    pub(super) fn is_outage(&self, now: Instant) -> bool {
        let since = self.unserved_since.or(self.last_served);
        let is_long = since.is_none_or(|since| now.saturating_duration_since(since) >= self.patience(now));
        self.clients.iter().any(|(address, client)| {
            let served = self.served.get(address);
            let is_known = served.is_some_and(|served| served.after_failing < OFTEN);
            self.is_unserved(client) && (is_known || is_long)
        })
    }

    /// Returns the time for which no client must have been served before a client that was never served shows an
    /// outage.
    fn patience(&self, now: Instant) -> Duration {
        let first = self.false_alarms.get(OFTEN - 1);
        if first.is_none_or(|at| now.saturating_duration_since(*at) >= BAN_COUNTS) {
            return Duration::ZERO;
        }
        let mut gaps: Vec<Duration> = self.gaps.iter().copied().collect();
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        let long = gaps.get(LONG_GAP).copied().unwrap_or_default();
        (long * GAPS).min(MOST_PATIENCE)
    }

    /// Forgets clients that have not failed for some time, except those that show an outage; banned ones are kept
    /// longer.
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
            .retain(|_, served| now.saturating_duration_since(served.last) < BAN_COUNTS);
    }

    fn is_unserved(&self, client: &FailingClient) -> bool {
        self.last_served.is_none_or(|served| {
            served < client.since || client.last.saturating_duration_since(served) >= SERVED_COUNTS
        })
    }
}
