//! The addresses of an app's network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Allocator of the addresses of an app's network. An address is used again as late as possible, since neighbours and flows
/// remember its last owner.
#[derive(Debug)]
pub struct Addresses {
    network: Ipv4Net,
    last: u32,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Returns the addresses of a network except the gateway's. The first one depends on `seed`, so that the next run of an
    /// app, after one that was killed, takes other addresses than those that the gateway may remember.
    pub fn new(network: Ipv4Net, seed: u32) -> Self {
        let hosts = hosts_of(network);
        Self {
            network,
            last: 1 + seed % hosts.max(1),
            used: BTreeSet::new(),
        }
    }

    /// Returns a free address, which is taken from then on.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        let hosts = hosts_of(self.network);
        for _ in 0..hosts {
            self.last = if self.last >= hosts { 2 } else { self.last + 1 };
            let address = Ipv4Addr::from(u32::from(self.network.network()) + self.last);
            if self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// Makes an address free again.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

/// Returns the number of the last host address of a network.
fn hosts_of(network: Ipv4Net) -> u32 {
    u32::from(network.broadcast()) - u32::from(network.network()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_again_as_late_as_possible() {
        let mut addresses = Addresses::new("10.213.7.0/24".parse().unwrap(), 0);
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 213, 7, 2));
        addresses.give_back(first);
        let rest: Vec<Ipv4Addr> = (0..252).map(|_| addresses.take().unwrap()).collect();
        assert!(!rest.contains(&first));
        assert_eq!(rest.last(), Some(&Ipv4Addr::new(10, 213, 7, 254)));
        assert_eq!(addresses.take(), Some(first));
        assert_eq!(addresses.take(), None);
        for seed in [1, 252, 253, 254, u32::MAX] {
            let mut addresses = Addresses::new("10.213.7.0/24".parse().unwrap(), seed);
            let all: BTreeSet<Ipv4Addr> = std::iter::from_fn(|| addresses.take()).collect();
            assert_eq!(all.len(), 253, "{seed}");
            assert!(!all.contains(&Ipv4Addr::new(10, 213, 7, 1)));
        }
    }
}
