//! Limit of wrong credentials per client address. Correct ones are never held back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Number of wrong attempts that are allowed at once.
const BURST: u32 = 10;
/// Time after which another wrong attempt is allowed.
const REFILL: Duration = Duration::from_secs(6);
/// Maximum number of addresses that are remembered; the one that failed longest ago is forgotten first.
const MAX_CLIENTS: usize = 10_000;

/// Clients that sent wrong credentials recently.
#[derive(Debug, Default)]
pub struct Throttle {
    clients: BTreeMap<ClientAddress, Bucket>,
}

/// Address that stands for a client: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAddress(IpAddr);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Time at which the bucket is full again.
    full: Instant,
}

impl Throttle {
    /// Records a wrong attempt. Returns the time that the client has to wait, if it has failed too often.
    pub fn fail(&mut self, from: IpAddr, now: Instant) -> Option<Duration> {
        let client = ClientAddress::from(from);
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            self.forget(now);
        }
        let bucket = self.clients.entry(client).or_insert(Bucket { full: now });
        let lacking = bucket.full.max(now) - now;
        let wait = lacking.saturating_sub(REFILL * (BURST - 1));
        if !wait.is_zero() {
            return Some(wait);
        }
        bucket.full = now + lacking + REFILL;
        None
    }

    fn forget(&mut self, now: Instant) {
        self.clients.retain(|_, bucket| bucket.full > now);
        if self.clients.len() >= MAX_CLIENTS
            && let Some(first) = self
                .clients
                .iter()
                .min_by_key(|(_, bucket)| bucket.full)
                .map(|(client, _)| *client)
        {
            self.clients.remove(&first);
        }
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_often_waits_and_others_do_not() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..BURST {
            assert_eq!(throttle.fail(one, now), None);
        }
        assert_eq!(throttle.fail(one, now), Some(REFILL));
        assert_eq!(throttle.fail(other, now), None);
        assert_eq!(throttle.fail(one, now + REFILL), None);
        assert_eq!(throttle.fail(one, now + REFILL), Some(REFILL));
        for _ in 0..BURST {
            assert_eq!(throttle.fail(one, now + REFILL * (BURST + 1)), None);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..BURST {
            assert_eq!(throttle.fail(format!("2001:db8::{host:x}").parse().unwrap(), now), None);
        }
        assert!(throttle.fail("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert_eq!(throttle.fail("2001:db8:0:1::".parse().unwrap(), now), None);
    }

    #[test]
    fn addresses_are_forgotten_and_memory_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let address = |at: u32| IpAddr::from(std::net::Ipv4Addr::from(at));
        for at in 0..=u32::try_from(MAX_CLIENTS).unwrap() {
            throttle.fail(address(at), now + Duration::from_micros(at.into()));
        }
        assert_eq!(throttle.clients.len(), MAX_CLIENTS);
        assert!(
            !throttle.clients.contains_key(&ClientAddress::from(address(0))),
            "the one that failed longest ago"
        );
    }
}
