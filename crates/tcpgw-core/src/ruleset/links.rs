//! The gateway's links, as far as the rules depend on them: their names, and the gateway address that backends behind
//! each of them see.
//!
//! `masquerade` chooses an address for each flow, and the kernel deletes such flows when the link goes down or the
//! address is removed (`net/netfilter/nf_nat_masquerade.c`). A flow that gets the same address by `snat` stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::scope::Family;

/// Links by name, except loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<String, Link>);

/// A network link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether the link is administratively up.
    pub up: bool,
    /// IPv4 address that masquerading would choose on the link, if it does not depend on the backend.
    pub source_v4: Option<Ipv4Addr>,
    /// IPv6 address that masquerading would choose on the link, if it does not depend on the backend.
    pub source_v6: Option<Ipv6Addr>,
}

/// An address of a link that new flows may use: of global scope, neither secondary nor temporary, not deprecated, and
/// not tentative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix_len: u8,
}

impl Links {
    /// Adds a link.
    pub fn insert(&mut self, name: String, link: Link) {
        self.0.insert(name, link);
    }

    /// Returns the names of the links.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the links that have a source address of this family, with the address.
    pub fn sources(&self, family: Family) -> impl Iterator<Item = (&str, IpAddr)> {
        self.0.iter().filter_map(move |(name, link)| {
            let source = match family {
                Family::V4 => link.source_v4.map(IpAddr::V4),
                Family::V6 => link.source_v6.map(IpAddr::V6),
            };
            Some((name.as_str(), source?))
        })
    }

    /// Returns whether flows may now leave by another link or from another address than before: a link with addresses
    /// was switched on or off, was added or removed, or its addresses changed.
    pub fn leads_elsewhere(&self, before: &Self) -> bool {
        let of = |links: &Self| {
            let mut links = links.0.clone();
            links.retain(|_, link| link.source_v4.is_some() || link.source_v6.is_some());
            links
        };
        of(self) != of(before)
    }
}

impl FromIterator<String> for Links {
    /// Creates links without addresses.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().map(|name| (name, Link::default())).collect())
    }
}

impl<const N: usize> From<[String; N]> for Links {
    fn from(names: [String; N]) -> Self {
        names.into_iter().collect()
    }
}

impl Link {
    /// Creates a link with these addresses.
    pub fn new(up: bool, addresses: &[LinkAddress]) -> Self {
        let only = |family| only_source(addresses.iter().filter(move |of| Family::of(of.address) == family));
        Self {
            up,
            source_v4: match only(Family::V4) {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            },
            source_v6: match only(Family::V6) {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            },
        }
    }
}

/// Returns the address that masquerading chooses, if it does not depend on the backend. Masquerading prefers the
/// address whose network contains the next hop (`inet_select_addr`, `net/ipv4/devinet.c`; RFC 6724 for IPv6), so an
/// address with a host prefix counts only if the link has no other. With several networks the choice depends on the
/// backend, and is left to masquerading.
fn only_source<'a>(addresses: impl Iterator<Item = &'a LinkAddress> + Clone) -> Option<IpAddr> {
    let is_host = |of: &&LinkAddress| of.prefix_len >= if of.address.is_ipv4() { 32 } else { 128 };
    let single = |mut addresses: Vec<IpAddr>| {
        addresses.sort_unstable();
        addresses.dedup();
        <[IpAddr; 1]>::try_from(addresses)
    };
    let networks = addresses.clone().filter(|of| !is_host(of)).map(|of| of.address);
    match single(networks.collect()) {
        Ok([address]) => Some(address),
        Err(several) if !several.is_empty() => None,
        Err(_) => single(addresses.map(|of| of.address).collect())
            .ok()
            .map(|[address]| address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(addresses: &[&str]) -> Link {
        let address = |text: &&str| {
            let (address, prefix_len) = text.split_once('/').unwrap();
            LinkAddress {
                address: address.parse().unwrap(),
                prefix_len: prefix_len.parse().unwrap(),
            }
        };
        Link::new(true, &addresses.iter().map(address).collect::<Vec<_>>())
    }

    #[test]
    fn a_source_is_chosen_where_there_is_no_choice() {
        for (addresses, v4, v6) in [
            (&[][..], None, None),
            (&["10.2.0.1/24"], Some("10.2.0.1"), None),
            (&["10.2.0.1/24", "10.2.0.254/32"], Some("10.2.0.1"), None),
            (&["10.2.0.254/32"], Some("10.2.0.254"), None),
            (&["10.2.0.253/32", "10.2.0.254/32"], None, None),
            (&["10.2.0.1/24", "10.3.0.1/24"], None, None),
            (&["10.2.0.1/24", "10.2.0.2/24"], None, None),
            (&["10.2.0.1/24", "fd00:2::1/64"], Some("10.2.0.1"), Some("fd00:2::1")),
            (&["fd00:2::1/64", "2001:db8::1/64"], None, None),
            (&["fd00:2::1/64", "fd00:2::2/128"], None, Some("fd00:2::1")),
        ] {
            let link = link(addresses);
            assert_eq!(link.source_v4, v4.map(|text| text.parse().unwrap()), "{addresses:?}");
            assert_eq!(link.source_v6, v6.map(|text| text.parse().unwrap()), "{addresses:?}");
        }
    }

    #[test]
    fn links_without_addresses_lead_nowhere() {
        let with = |name: &str, link| {
            let mut links: Links = ["veth1".to_owned()].into();
            links.insert(name.into(), link);
            links
        };
        let bridge = link(&["10.2.0.1/24"]);
        let before = with("br0", bridge);
        let mut more = before.clone();
        more.insert("veth2".into(), Link::default());
        assert!(!more.leads_elsewhere(&before));
        for after in [
            with("br7", bridge),
            with("br0", Link { up: false, ..bridge }),
            with("br0", link(&["10.2.0.2/24"])),
            with("br0", link(&[])),
        ] {
            assert!(after.leads_elsewhere(&before), "{after:?}");
        }
    }
}
