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
/// So often must clients have begun to fail with others served next, within [`BAN_COUNTS`], for more of them to be expected.
const OFTEN: usize = 3;
/// Times between clients that were served, of which the long ones are known.
const MOST_GAPS: usize = 15;
/// The place of the one that counts, of the longest first: one or two of them may be outages.
const LONG_GAP: usize = 2;
/// Where clients often begin to fail, nobody must have been served for so many times that time.
const GAPS: u32 = 3;
/// Longest time for which others must not be served there; less than [`SERVED_COUNTS`].
const MOST_PATIENCE: Duration = Duration::from_secs(45);
/// Clients that were served last, which are remembered.
const MOST_SERVED: usize = 64;

/// Clients that no backend answers.
#[derive(Debug, Default)]
pub(super) struct Failing {
    clients: BTreeMap<IpAddr, Client>,
    /// Clients that were served last.
    served: BTreeMap<IpAddr, Served>,
    /// When the first of those began to fail that were not known as failing when a client was served last.
    unserved_since: Option<Instant>,
    /// The last times at which a client was served next.
    false_alarms: VecDeque<Instant>,
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

/// A client that was served.
#[derive(Debug)]
struct Served {
    last: Instant,
    /// How often it had failed before. An address may stand for several clients, some of which are banned.
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

    /// Notes an overdue handshake that no backend answered.
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
        let new = Client {
            since: begin,
            last: now,
            is_banned: false,
        };
        self.clients.insert(client, new);
    }

    /// Notes that a client was served at some time after `at`: what is known of it begins anew.
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
        let new = Served {
            last: at,
            after_failing: 0,
        };
        let served = self.served.entry(client).or_insert(new);
        served.last = at.max(served.last);
        served.after_failing += usize::from(has_failed);
    }

    /// Notes when any client of the service was served last, as far as is known.
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

    /// Whether a client fails though nothing says that others are served.
    pub(super) fn is_any_unserved(&self) -> bool {
        self.clients.values().any(|client| self.is_unserved(client))
    }

    /// Whether that is to be believed: it is a client that was served before, or enough time has passed for others to come.
    pub(super) fn is_outage(&self, now: Instant) -> bool {
        let since = self.unserved_since.or(self.last_served);
        let is_long = since.is_none_or(|since| now.saturating_duration_since(since) >= self.patience(now));
        self.clients.iter().any(|(address, client)| {
            let served = self.served.get(address);
            let is_known = served.is_some_and(|served| served.after_failing < OFTEN);
            self.is_unserved(client) && (is_known || is_long)
        })
    }

    /// How long nobody must have been served for one to be believed that was never.
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
            .retain(|_, served| now.saturating_duration_since(served.last) < BAN_COUNTS);
    }

    fn is_unserved(&self, client: &Client) -> bool {
        self.last_served.is_none_or(|served| {
            served < client.since || client.last.saturating_duration_since(served) >= SERVED_COUNTS
        })
    }
}
