//! Clients that do not confirm handshakes which a backend has answered.
//!
//! Either the answers do not reach them, or somebody forges their SYNs. A client that is not served comes again, from another port;
//! of forged ones few do, unless they are made so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{ENOUGH_CLIENTS, MOST_SERVICES};

/// A client that failed longer ago is not counted.
const CLIENT_COUNTS: Duration = Duration::from_secs(60);
/// Clients that are remembered. Of more, those that came first are.
const MOST_CLIENTS: usize = 512;
/// The same of all services together; three of each are remembered beside.
const MOST_OF_ALL: usize = 50_000;
/// Handshakes that begin so far apart are two attempts. Looks are apart by a second.
const COMES_AGAIN: Duration = Duration::from_millis(1500);

/// Clients of all services of one address family.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    services: BTreeMap<Box<str>, Clients>,
    count: usize,
}

/// Clients of one service, by address.
type Clients = BTreeMap<IpAddr, Client>;

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
    pub(super) fn note(&mut self, service: &str, client: IpAddr, begin: Instant, now: Instant) {
        if !self.services.contains_key(service) {
            if self.services.len() >= MOST_SERVICES {
                return;
            }
            self.services.insert(service.into(), Clients::default());
        }
        let Some(clients) = self.services.get_mut(service) else {
            return;
        };
        if let Some(known) = clients.get_mut(&client) {
            known.first = known.first.min(begin);
            known.last = known.last.max(begin);
            known.seen = now;
        } else if clients.len() < ENOUGH_CLIENTS || clients.len() < MOST_CLIENTS && self.count < MOST_OF_ALL {
            let new = Client {
                first: begin,
                last: begin,
                seen: now,
            };
            clients.insert(client, new);
            self.count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Forgets all services but those that are there.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.services.retain(|name, _| is_there(name));
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.services.retain(|_, clients| {
            clients.retain(|_, client| now.saturating_duration_since(client.seen) < CLIENT_COUNTS);
            !clients.is_empty()
        });
        self.count = self.services.values().map(BTreeMap::len).sum();
    }

    /// Returns how many clients of a service there are, and how many of them came again; no more than [`ENOUGH_CLIENTS`] are counted.
    pub(super) fn counts(&self, service: &str) -> [usize; 2] {
        let Some(clients) = self.services.get(service) else {
            return [0; 2];
        };
        let again = clients
            .values()
            .filter(|client| client.last.saturating_duration_since(client.first) >= COMES_AGAIN);
        [clients.len().min(ENOUGH_CLIENTS), again.take(ENOUGH_CLIENTS).count()]
    }
}
