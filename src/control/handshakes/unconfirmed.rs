//! Clients of one service that do not confirm handshakes which a backend has answered.
//!
//! Either the answers do not reach them, or somebody forges their SYNs. A client that is not served comes again, from another port;
//! of forged ones few do, unless they are made so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::ENOUGH_CLIENTS;

/// A client that failed longer ago is not counted.
const CLIENT_COUNTS: Duration = Duration::from_secs(60);
/// Clients that are remembered. Of more, those that came first are.
const MOST_CLIENTS: usize = 512;
/// Handshakes that begin so far apart are two attempts. Looks are apart by a second.
const COMES_AGAIN: Duration = Duration::from_millis(1500);

/// Clients, by address.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(BTreeMap<IpAddr, Client>);

/// One client.
#[derive(Debug)]
struct Client {
    /// When the first and the last of its handshakes began.
    first: Instant,
    last: Instant,
    /// The last look at which one was overdue.
    seen: Instant,
}

impl Unconfirmed {
    /// Notes an overdue handshake.
    pub(super) fn note(&mut self, client: IpAddr, begin: Instant, now: Instant) {
        if let Some(known) = self.0.get_mut(&client) {
            known.first = known.first.min(begin);
            known.last = known.last.max(begin);
            known.seen = now;
        } else if self.0.len() < MOST_CLIENTS {
            let new = Client {
                first: begin,
                last: begin,
                seen: now,
            };
            self.0.insert(client, new);
        }
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.0
            .retain(|_, client| now.saturating_duration_since(client.seen) < CLIENT_COUNTS);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many clients there are, and how many of them came again; no more than [`ENOUGH_CLIENTS`] are counted.
    pub(super) fn counts(&self) -> [usize; 2] {
        let again = self
            .0
            .values()
            .filter(|client| client.last.saturating_duration_since(client.first) >= COMES_AGAIN);
        [self.0.len().min(ENOUGH_CLIENTS), again.take(ENOUGH_CLIENTS).count()]
    }
}
