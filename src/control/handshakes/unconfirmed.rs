//! Clients that do not confirm handshakes which a backend has answered.
//!
//! Either the answers do not reach them, or their SYNs are forged. A real client that is not served tries again, from
//! another port; few forged ones do, unless they are made to. A client with connections that were completed is no forged
//! one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::served::ServedClients;
use super::{ENOUGH_CLIENTS, MOST_SERVICES};

/// Time after which a client that failed is not counted any more.
const CLIENT_COUNTS: Duration = Duration::from_secs(60);
/// Maximum number of clients of one service that are remembered: so many that were never served, and so many others. The first to
/// come are remembered, later ones are not.
const MOST_CLIENTS: usize = 512;
/// Maximum number of such clients of all services together; three of each service are remembered in any case.
const MOST_OF_ALL: usize = 50_000;
/// Time between two handshakes of a client that makes them two attempts. Observations are one second apart.
const COMES_AGAIN: Duration = Duration::from_millis(1500);

/// Number of clients that had been served, or of attempts of one, which show that clients are not served.
const ENOUGH_KNOWN: usize = 2;

/// Clients of all services of one address family.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    services: BTreeMap<Box<str>, Clients>,
    /// Number of clients that were never served, and of others.
    counts: [usize; 2],
    served: ServedClients,
}

/// Clients of one service.
#[derive(Debug, Default)]
struct Clients {
    by_address: BTreeMap<IpAddr, UnconfirmedClient>,
    /// Number of clients that were never served, and of others.
    counts: [usize; 2],
}

/// A client that did not confirm a handshake.
#[derive(Debug)]
struct UnconfirmedClient {
    /// Begin of the first and the last of its handshakes.
    first: Instant,
    last: Instant,
    /// Begin of the first one after which nobody was served, as far as is known.
    unserved_since: Instant,
    /// Last observation at which one was overdue.
    seen: Instant,
    /// Whether a handshake of it was completed at some time.
    is_known: bool,
}

impl Unconfirmed {
    /// Adds an overdue handshake. Those that were served have room of their own, which forged addresses cannot take.
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
        if let Some(known) = clients.by_address.get_mut(&client) {
            known.first = known.first.min(begin);
            known.last = known.last.max(begin);
            known.seen = now;
            return;
        }
        let is_known = self.served.contains(service, client);
        let of_service = &mut clients.counts[usize::from(is_known)];
        let of_all = &mut self.counts[usize::from(is_known)];
        if *of_service < ENOUGH_CLIENTS || *of_service < MOST_CLIENTS && *of_all < MOST_OF_ALL {
            let new = UnconfirmedClient {
                first: begin,
                last: begin,
                unserved_since: begin,
                seen: now,
                is_known,
            };
            clients.by_address.insert(client, new);
            *of_service += 1;
            *of_all += 1;
        }
    }

    /// Notes that a client has a completed handshake, of any time, at an observation.
    pub(super) fn completed(&mut self, service: &str, client: IpAddr, now: Instant) {
        self.served.note(service, client, now);
        let Some(clients) = self.services.get_mut(service) else {
            return;
        };
        let known = clients.by_address.get_mut(&client);
        if let Some(known) = known.filter(|client| !client.is_known) {
            known.is_known = true;
            for [unknown, known] in [&mut clients.counts, &mut self.counts] {
                *unknown -= 1;
                *known += 1;
            }
        }
    }

    /// Returns whether clients that had been served fail, and nobody is served: two of them since a client of the service
    /// was served last, or one that tried again. Others may be forged.
    pub(super) fn are_known_lost(&mut self, service: &str, last_served: Option<Instant>) -> bool {
        let Some(clients) = self.services.get_mut(service) else {
            return false;
        };
        let is_after = |begin: Instant| last_served.is_none_or(|served| begin > served);
        let mut number = 0;
        for client in clients.by_address.values_mut() {
            if !is_after(client.unserved_since) {
                client.unserved_since = client.last;
            }
            if client.is_known && is_after(client.last) {
                number += 1;
                let comes_again = client.last.saturating_duration_since(client.unserved_since) >= COMES_AGAIN;
                number += usize::from(comes_again);
            }
        }
        number >= ENOUGH_KNOWN
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.served.is_empty()
    }

    /// Forgets all services except those for which `is_there` returns true.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.services.retain(|name, _| is_there(name));
        self.recount();
        self.served.retain(is_there);
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.services.retain(|_, clients| {
            let is_counted = |client: &UnconfirmedClient| now.saturating_duration_since(client.seen) < CLIENT_COUNTS;
            clients.by_address.retain(|_, client| is_counted(client));
            let known = clients.by_address.values().filter(|client| client.is_known).count();
            clients.counts = [clients.by_address.len() - known, known];
            !clients.by_address.is_empty()
        });
        self.recount();
        self.served.forget_old(now);
    }

    fn recount(&mut self) {
        let of_services = self.services.values().map(|clients| clients.counts);
        self.counts = of_services.fold([0; 2], |[a, b], [unknown, known]| [a + unknown, b + known]);
    }

    /// Returns the number of clients of a service, and of those that tried again; each is at most [`ENOUGH_CLIENTS`].
    pub(super) fn counts(&self, service: &str) -> [usize; 2] {
        let Some(clients) = self.services.get(service).map(|clients| &clients.by_address) else {
            return [0; 2];
        };
        let again = clients
            .values()
            .filter(|client| client.last.saturating_duration_since(client.first) >= COMES_AGAIN);
        [clients.len().min(ENOUGH_CLIENTS), again.take(ENOUGH_CLIENTS).count()]
    }
}
