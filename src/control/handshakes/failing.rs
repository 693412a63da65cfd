//! Clients of one service that no backend answers, and whether others were served meanwhile.
//!
//! A client that fails while others are served (a backend bans it, say) is no proof that nobody is served, and goes on to be none when
//! it tries again. One that begins to fail after the last client was served may be the first one of an outage. Where several proved
//! to be banned already (a whole network, or scanners), the next one is believed later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients that are remembered. Where more fail, those that began last are: they tell of an outage.
pub(super) const MOST_FAILING: usize = 64;
/// A client that was served shows for so long that those which have failed since before it are not all.
pub(super) const SERVED_COUNTS: Duration = Duration::from_secs(60);

/// A client that failed while others were served, and was not served itself, is known as banned for so long.
const BAN_COUNTS: Duration = Duration::from_secs(15 * 60);
/// A client that was not served for so long after others were is banned, and not one of an outage that is over.
const COMES_AGAIN: Duration = Duration::from_secs(30);
/// So many clients that are banned show that more of them may come.
const MANY_BANNED: usize = 3;
/// Longest time for which others must not be served where many are banned; less than [`SERVED_COUNTS`].
const MOST_PATIENCE: Duration = Duration::from_secs(45);

/// Clients that no backend answers, by address.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeMap<IpAddr, Client>);

/// One client.
#[derive(Debug)]
struct Client {
    /// When the first of its handshakes began that was not answered, after it was last served itself.
    since: Instant,
    /// The last look at which one was overdue.
    last: Instant,
    /// When it was served itself.
    served: Option<Instant>,
    /// After which time others were served though it was not, and at which look that was known.
    outlasted: Option<(Duration, Instant)>,
}

impl Failing {
    pub(super) fn has(&self, client: IpAddr) -> bool {
        self.0.contains_key(&client)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Notes an overdue handshake that no backend answered.
    pub(super) fn note(&mut self, client: IpAddr, begin: Instant, now: Instant) {
        if let Some(known) = self.0.get_mut(&client) {
            known.note(begin, now);
            return;
        }
        if self.0.len() >= MOST_FAILING {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.since);
            let Some((&oldest, _)) = oldest.filter(|(_, known)| known.since < begin) else {
                return;
            };
            self.0.remove(&oldest);
        }
        let new = Client {
            since: begin,
            last: now,
            served: None,
            outlasted: None,
        };
        self.0.insert(client, new);
    }

    /// Notes that clients of these were served at some time after `at`.
    pub(super) fn served(&mut self, clients: &BTreeSet<IpAddr>, at: Instant) {
        for client in clients {
            if let Some(known) = self.0.get_mut(client) {
                known.served = Some(at);
                known.outlasted = None;
            }
        }
    }

    /// Whether a client fails though nothing says that others are served; `served`: when the last client of the service was.
    pub(super) fn is_any_unserved(&self, served: Option<Instant>, now: Instant) -> bool {
        let patience = self.patience(now);
        let is_believed = |client: &Client| now.saturating_duration_since(client.since) >= patience;
        let mut unserved = self.0.values().filter(|client| client.is_unserved(served));
        unserved.any(is_believed)
    }

    /// How long a client must have failed to be believed: twice the longest time after which others were served where that happened
    /// to many.
    fn patience(&self, now: Instant) -> Duration {
        let banned = self.0.values().filter_map(|client| client.outlasted);
        let banned = banned.filter(|(_, at)| now.saturating_duration_since(*at) >= COMES_AGAIN);
        let (mut count, mut longest) = (0, Duration::ZERO);
        for (time, _) in banned {
            count += 1;
            longest = longest.max(time);
        }
        if count < MANY_BANNED {
            return Duration::ZERO;
        }
        (longest * 2).min(MOST_PATIENCE)
    }

    /// Notes whom those outlasted that were served last, at `served`.
    pub(super) fn learn(&mut self, served: Option<Instant>, now: Instant) {
        let Some(served) = served else { return };
        for client in self.0.values_mut().filter(|client| client.outlasted.is_none()) {
            let is_served = client.served.is_some_and(|at| at >= client.since);
            if !is_served && client.since <= served {
                client.outlasted = Some((served.saturating_duration_since(client.since), now));
            }
        }
    }

    /// Forgets clients that have not failed for some time, but those that tell of an outage, and those that are banned for longer.
    pub(super) fn forget_old(&mut self, served: Option<Instant>, now: Instant) {
        self.0.retain(|_, client| {
            let counts = client.outlasted.map_or(SERVED_COUNTS, |_| BAN_COUNTS);
            client.is_unserved(served) || now.saturating_duration_since(client.last) < counts
        });
    }
}

impl Client {
    fn note(&mut self, begin: Instant, now: Instant) {
        if self.served.is_some_and(|served| begin <= served) {
            return;
        }
        let is_new = self.served.is_some_and(|served| self.since <= served);
        self.since = if is_new { begin } else { self.since.min(begin) };
        self.last = now;
    }

    fn is_unserved(&self, served: Option<Instant>) -> bool {
        served.is_none_or(|served| served < self.since || self.last.saturating_duration_since(served) >= SERVED_COUNTS)
    }
}
