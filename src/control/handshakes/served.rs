//! Clients that were served a short time ago: those of them that fail are no forged ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::MOST_SERVICES;

/// Time for which a client is remembered after it was last seen with a completed handshake.
const SERVED_COUNTS: Duration = Duration::from_secs(60);
/// Maximum number of clients of one service. Of more, those that were seen last are remembered.
pub(super) const MOST_SERVED: usize = 512;
/// Maximum number of clients of all services together; some of each service are remembered in any case.
const MOST_OF_ALL: usize = 50_000;
/// Number of clients of a service that are remembered in any case.
const SOME: usize = 8;

/// Clients of all services of one address family.
#[derive(Debug, Default)]
pub(super) struct ServedClients {
    services: BTreeMap<Box<str>, ServedByAddress>,
    count: usize,
}

/// Clients of one service, by address and by the last time at which they were seen.
#[derive(Debug, Default)]
struct ServedByAddress {
    seen: BTreeMap<IpAddr, Instant>,
    order: BTreeSet<(Instant, IpAddr)>,
}

impl ServedClients {
    /// Notes that a client has a completed handshake at an observation.
    pub(super) fn note(&mut self, service: &str, client: IpAddr, now: Instant) {
        if !self.services.contains_key(service) {
            if self.services.len() >= MOST_SERVICES {
                return;
            }
            self.services.insert(service.into(), ServedByAddress::default());
        }
        let Some(of) = self.services.get_mut(service) else {
            return;
        };
        if let Some(seen) = of.seen.get_mut(&client) {
            if *seen < now {
                of.order.remove(&(*seen, client));
                of.order.insert((now, client));
                *seen = now;
            }
            return;
        }
        let has_room = of.seen.len() < SOME || of.seen.len() < MOST_SERVED && self.count < MOST_OF_ALL;
        if !has_room {
            let Some((at, oldest)) = of.order.first().copied().filter(|(at, _)| *at < now) else {
                return;
            };
            of.order.remove(&(at, oldest));
            of.seen.remove(&oldest);
            self.count -= 1;
        }
        of.seen.insert(client, now);
        of.order.insert((now, client));
        self.count += 1;
    }

    pub(super) fn contains(&self, service: &str, client: IpAddr) -> bool {
        let of = self.services.get(service);
        of.is_some_and(|of| of.seen.contains_key(&client))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Forgets all services except those for which `is_there` returns true.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.services.retain(|name, _| is_there(name));
        self.recount();
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.services.retain(|_, of| {
            while let Some((at, client)) = of.order.first().copied()
                && now.saturating_duration_since(at) >= SERVED_COUNTS
            {
                of.order.pop_first();
                of.seen.remove(&client);
            }
            !of.seen.is_empty()
        });
        self.recount();
    }

    fn recount(&mut self) {
        self.count = self.services.values().map(|of| of.seen.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_last_ones_are_remembered_for_a_minute() {
        let (mut served, start) = (ServedClients::default(), Instant::now());
        let address = |number: u32| IpAddr::V4(number.into());
        let most = u32::try_from(MOST_SERVED).unwrap();
        for number in 0..2 * most {
            served.note(
                "a",
                address(number),
                start + Duration::from_secs((number / most).into()),
            );
        }
        assert_eq!(served.count, MOST_SERVED);
        assert!(!served.contains("a", address(0)) && served.contains("a", address(most)));
        assert!(!served.contains("b", address(most)));
        served.note("b", address(1), start + Duration::from_secs(2));
        served.forget_old(start + Duration::from_secs(61));
        assert_eq!(served.count, 1);
        served.retain(|name| name == "a");
        assert!(served.is_empty());
    }
}
