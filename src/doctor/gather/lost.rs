//! Addresses on which clients had connections, and which the gateway has lost.
//!
//! The kernel does not remember a removed address: it is found by comparing two readings, and by the remaining
//! connections of clients. Whether the removal was intended is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::facts::Fact;
use super::memory::{KeptMemory, Moment};
use crate::doctor::checks::forwarding::is_link_local;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::route::LocalAddresses;

/// Time for which a lost address is reported: it may have been moved for good, or to another gateway.
const TOLD: Duration = Duration::from_secs(3600);
/// Maximum number of addresses that are reported.
const MOST: usize = 1000;
/// Pause until connections are counted again, as a multiple of the duration of the last count.
const PAUSE: u32 = 50;

/// Memory of earlier readings.
#[derive(Debug)]
pub(super) struct AddressMemory {
    before: LocalAddresses,
    lost: BTreeMap<IpAddr, Lost>,
    /// Time before which connections are not counted again.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Lost {
    connections: u64,
    since: Instant,
}

impl AddressMemory {
    /// Creates an empty memory.
    pub(super) const fn new() -> Self {
        Self {
            before: LocalAddresses {
                addresses: BTreeSet::new(),
                networks: Vec::new(),
            },
            lost: BTreeMap::new(),
            not_before: None,
        }
    }

    /// Returns what an earlier process has kept.
    pub(super) fn restored(kept: &KeptMemory, moment: Moment) -> Self {
        let lost = kept.lost_addresses.iter().take(MOST);
        let lost = lost.filter_map(|(address, connections, since)| {
            let lost = Lost {
                connections: *connections,
                since: moment.instant(*since)?,
            };
            Some((*address, lost))
        });
        Self {
            before: LocalAddresses {
                addresses: kept.addresses.iter().copied().collect(),
                networks: kept
                    .networks
                    .iter()
                    .filter_map(|network| network.parse().ok())
                    .collect(),
            },
            lost: lost.collect(),
            not_before: None,
        }
    }

    /// Adds the addresses that the next process continues with.
    pub(super) fn keep(&self, kept: &mut KeptMemory, moment: Moment) {
        kept.addresses = self.before.addresses.iter().copied().take(MOST).collect();
        kept.networks = self
            .before
            .networks
            .iter()
            .map(ToString::to_string)
            .take(MOST)
            .collect();
        let lost = self.lost.iter();
        let lost = lost.map(|(address, lost)| (*address, lost.connections, moment.kept(lost.since)));
        kept.lost_addresses = lost.collect();
    }

    /// Returns the addresses that were there before and are not among `local`.
    pub(super) fn missing(&self, local: &LocalAddresses) -> Vec<IpAddr> {
        let known = self.before.addresses.iter().chain(self.lost.keys());
        known.filter(|address| !local.contains(address)).copied().collect()
    }

    /// Compares with the present addresses. `count` is called only if an address is gone; it passes the public address
    /// of each connection of a client.
    pub(super) fn compare(
        &mut self,
        local: &LocalAddresses,
        now: Instant,
        count: impl FnOnce(&mut dyn FnMut(IpAddr)) -> Fact<()>,
    ) {
        self.lost
            .retain(|address, lost| !local.contains(address) && now.saturating_duration_since(lost.since) < TOLD);
        let matters = |address: &&IpAddr| !address.is_loopback() && !is_link_local(**address);
        let mut addresses = self.before.addresses.iter().filter(matters);
        let mut networks = self.before.networks.iter();
        let has_gone = addresses.any(|address| !local.contains(address))
            || networks.any(|network| !local.networks.contains(network));
        if has_gone {
            if self.not_before.is_some_and(|at| now < at) {
                return;
            }
            let begun = Instant::now();
            let mut found: BTreeMap<IpAddr, u64> = BTreeMap::new();
            let counted = count(&mut |address| {
                let is_lost = self.before.contains(&address) && !local.contains(&address);
                if is_lost && (found.len() < MOST || found.contains_key(&address)) {
                    *found.entry(address).or_default() += 1;
                }
            });
            self.not_before = now.checked_add(begun.elapsed().saturating_mul(PAUSE));
            if let Err(error) = counted {
                tracing::warn!(error, "failed to count connections to addresses that are gone");
                return;
            }
            for (address, connections) in found {
                let since = now;
                self.lost.insert(address, Lost { connections, since });
            }
        }
        self.before = local.clone();
    }

    /// Returns the lost addresses, with the number of connections of clients when each was lost.
    pub(super) fn lost(&self) -> BTreeMap<IpAddr, u64> {
        let lost = self.lost.iter();
        lost.map(|(address, lost)| (*address, lost.connections)).collect()
    }
}

/// Memory of the families in which the gateway had an address for clients.
#[derive(Debug)]
pub(super) struct FamilyMemory {
    last_seen: BTreeMap<Family, Instant>,
}

impl FamilyMemory {
    /// Creates an empty memory.
    pub(super) const fn new() -> Self {
        Self {
            last_seen: BTreeMap::new(),
        }
    }

    /// Returns what an earlier process has kept.
    pub(super) fn restored(kept: &KeptMemory, moment: Moment) -> Self {
        let seen = kept.families.iter().filter_map(|(number, at)| {
            let family = Family::BOTH.into_iter().find(|family| number_of(*family) == *number)?;
            Some((family, moment.instant(*at)?))
        });
        Self {
            last_seen: seen.collect(),
        }
    }

    /// Adds the families that the next process continues with.
    pub(super) fn keep(&self, kept: &mut KeptMemory, moment: Moment) {
        let seen = self.last_seen.iter();
        kept.families = seen
            .map(|(family, at)| (number_of(*family), moment.kept(*at)))
            .collect();
    }

    /// Takes the families with an address, if they could be read. Returns those that had one in the last hour and have
    /// none.
    pub(super) fn lost(&mut self, there: Option<BTreeSet<Family>>, now: Instant) -> BTreeSet<Family> {
        let Some(there) = there else { return BTreeSet::new() };
        self.last_seen.extend(there.iter().map(|family| (*family, now)));
        self.last_seen
            .retain(|_, seen| now.saturating_duration_since(*seen) < TOLD);
        let known = self.last_seen.keys().copied();
        known.filter(|family| !there.contains(family)).collect()
    }
}

const fn number_of(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn local(addresses: &[&str]) -> LocalAddresses {
        addresses.iter().map(|address| ip(address)).collect()
    }

    fn connections(to: &[&str]) -> impl FnOnce(&mut dyn FnMut(IpAddr)) -> Fact<()> {
        let to: Vec<IpAddr> = to.iter().map(|address| ip(address)).collect();
        move |each| {
            to.into_iter().for_each(each);
            Ok(())
        }
    }

    fn nobody_counts(_: &mut dyn FnMut(IpAddr)) -> Fact<()> {
        panic!("no address has gone")
    }

    #[test]
    fn an_address_that_clients_used_is_lost_until_it_is_back() {
        let (both, one) = (
            local(&["203.0.113.1", "203.0.113.2", "fe80::1", "127.0.0.1"]),
            local(&["203.0.113.1"]),
        );
        let mut memory = AddressMemory::new();
        let now = Instant::now();
        memory.compare(&both, now, nobody_counts);
        memory.compare(&both, now, nobody_counts);
        let to = ["203.0.113.2", "203.0.113.1", "203.0.113.2", "192.0.2.9", "fe80::1"];
        memory.compare(&one, now + TOLD / 2, connections(&to));
        assert_eq!(
            memory.lost(),
            BTreeMap::from([(ip("203.0.113.2"), 2), (ip("fe80::1"), 1)])
        );
        assert_eq!(memory.missing(&one), [ip("203.0.113.2"), ip("fe80::1")]);
        memory.compare(&both, now + TOLD / 2, nobody_counts);
        assert_eq!(memory.lost(), BTreeMap::new());
    }

    #[test]
    fn what_is_lost_is_known_to_the_next_process() {
        let now = Instant::now();
        let moment = Moment::at(now);
        let mut memory = AddressMemory::new();
        memory.compare(&local(&["203.0.113.1", "203.0.113.2"]), now, nobody_counts);
        memory.compare(&local(&["203.0.113.1"]), now, connections(&["203.0.113.2"]));
        let mut families = FamilyMemory::new();
        families.lost(Some(Family::BOTH.into()), now);
        let mut kept = KeptMemory::default();
        memory.keep(&mut kept, moment);
        families.keep(&mut kept, moment);
        let mut next = AddressMemory::restored(&kept, moment);
        assert_eq!(next.lost(), memory.lost());
        // An address that goes while no process runs is lost, too.
        next.compare(&local(&[]), now, connections(&["203.0.113.1"]));
        assert_eq!(next.lost().len(), 2);
        let mut next = FamilyMemory::restored(&kept, moment);
        assert_eq!(next.lost(Some([Family::V4].into()), now), [Family::V6].into());
        assert_eq!(next.lost(Some([Family::V4].into()), now + TOLD), [].into());
    }

    #[test]
    fn a_family_whose_last_address_is_gone_is_lost_for_an_hour() {
        let mut memory = FamilyMemory::new();
        let now = Instant::now();
        let (v4, both) = ([Family::V4].into(), Family::BOTH.into());
        assert_eq!(memory.lost(Some(v4), now), [].into(), "it never had the other");
        assert_eq!(memory.lost(Some(both), now), [].into());
        assert_eq!(
            memory.lost(Some([Family::V4].into()), now + TOLD / 2),
            [Family::V6].into()
        );
        assert_eq!(memory.lost(None, now + TOLD / 2), [].into());
        assert_eq!(memory.lost(Some([Family::V4].into()), now + TOLD), [].into());
    }

    #[test]
    fn what_nobody_used_and_what_went_long_ago_is_not_told() {
        let mut memory = AddressMemory::new();
        let mut now = Instant::now();
        memory.compare(&local(&["203.0.113.1", "203.0.113.2"]), now, nobody_counts);
        now += TOLD;
        memory.compare(&local(&["203.0.113.1"]), now, connections(&["203.0.113.1"]));
        assert_eq!(memory.lost(), BTreeMap::new());
        now += TOLD;
        memory.compare(&local(&[]), now, connections(&["203.0.113.1"]));
        assert_eq!(memory.lost().len(), 1);
        now += TOLD / 2;
        memory.compare(&local(&[]), now, nobody_counts);
        assert_eq!(memory.lost().len(), 1);
        now += TOLD / 2;
        memory.compare(&local(&[]), now, nobody_counts);
        assert_eq!(memory.lost(), BTreeMap::new());
    }

    #[test]
    fn a_count_that_failed_is_made_again() {
        let mut memory = AddressMemory::new();
        let mut now = Instant::now();
        memory.compare(&local(&["203.0.113.1"]), now, nobody_counts);
        memory.compare(&local(&[]), now, |_| Err("no buffer space".into()));
        assert_eq!(memory.lost(), BTreeMap::new());
        now += TOLD;
        memory.compare(&local(&[]), now, connections(&["203.0.113.1"]));
        assert_eq!(memory.lost().len(), 1);
    }

    #[test]
    fn an_address_of_a_network_that_is_gone_is_lost() {
        let mut memory = AddressMemory::new();
        let now = Instant::now();
        let network = LocalAddresses {
            networks: vec!["10.9.0.0/24".parse().unwrap()],
            ..LocalAddresses::default()
        };
        memory.compare(&network, now, nobody_counts);
        memory.compare(&local(&[]), now, connections(&["10.9.0.7"]));
        assert_eq!(memory.lost(), BTreeMap::from([(ip("10.9.0.7"), 1)]));
    }
}
