//! Order of the NAT chains of other programs and of tcpgw among those of the same priority.
//!
//! A NAT chain that is registered later runs before earlier ones of its priority, and the first that translates a
//! connection decides (`nf_hook_entries_grow` in `net/netfilter/core.c`, `nf_nat_register_fn` in
//! `net/netfilter/nf_nat_core.c`). The kernel does not list this order: its list of hooks (`nfnetlink_hook`) has no
//! chains of type `nat`, and a chain's number says nothing about chains of other tables. So the transaction that
//! creates the table stores, in the user data of tcpgw's own NAT chain, which chains exist; all others are later. `nft`
//! neither prints nor restores that user data: a table that was loaded from a listing has none, and then the order is
//! not known.

use std::collections::BTreeSet;

use crate::firewall::{FirewallChain, FirewallHook, TableFamily};

/// Priority of tcpgw's NAT chains, which is that of nearly all programs.
pub const DSTNAT: i32 = -100;
/// Kind of tcpgw's user data. nft uses 0 for a comment, and ignores all others.
const KIND: u8 = 200;
/// User data ends at 256 bytes (`NFT_USERDATA_MAXLEN`), of which two are its kind and length.
const MOST_BYTES: usize = 254;
const COMPLETE: u8 = 1;
const LEGACY_4: u8 = 2;
const LEGACY_6: u8 = 4;
const FAMILIES: [(u8, TableFamily); 3] = [(1, TableFamily::Inet), (2, TableFamily::Ip), (10, TableFamily::Ip6)];

/// NAT chains of other programs, at the hook and the priority of tcpgw's, that existed when the table was created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OlderChains {
    /// Chains of nftables: family, number of the table, number of the chain in it.
    pub chains: BTreeSet<(TableFamily, u64, u64)>,
    /// Whether iptables-legacy had its table `nat`.
    pub legacy4: bool,
    /// Whether ip6tables-legacy had its table `nat`.
    pub legacy6: bool,
    /// Whether the list is complete: the kernel has room for some fifty chains.
    pub complete: bool,
}

impl OlderChains {
    /// Returns those of these chains that are NAT chains of other programs at tcpgw's hook and priority.
    pub fn among(chains: &[FirewallChain], legacy4: bool, legacy6: bool) -> Self {
        let at_our_place = |chain: &&FirewallChain| {
            let base = chain
                .base
                .filter(|base| base.nat && base.hook == FirewallHook::Prerouting);
            base.is_some_and(|base| base.priority == DSTNAT)
        };
        let chains = chains.iter().filter(at_our_place);
        Self {
            chains: chains
                .filter_map(|chain| Some((chain.table.family, chain.table.handle?, chain.handle?)))
                .collect(),
            legacy4,
            legacy6,
            complete: true,
        }
    }

    /// Returns whether a chain existed before tcpgw's; `None` if that is not known.
    pub fn has(&self, chain: &FirewallChain) -> Option<bool> {
        match (chain.table.legacy, chain.table.family) {
            (true, TableFamily::Ip6) => return Some(self.legacy6),
            (true, _) => return Some(self.legacy4),
            _ => {}
        }
        let found = self
            .chains
            .contains(&(chain.table.family, chain.table.handle?, chain.handle?));
        (found || self.complete).then_some(found)
    }

    /// Returns the chains as user data. Chains that do not fit are left out, and then the list is not
    /// [`OlderChains::complete`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![KIND, 0, 0];
        let mut complete = self.complete;
        for (family, table, chain) in &self.chains {
            let Some((number, _)) = FAMILIES.iter().find(|(_, of)| of == family) else {
                continue;
            };
            let mut entry = vec![*number];
            write_number(&mut entry, *table);
            write_number(&mut entry, *chain);
            if bytes.len() - 2 + entry.len() > MOST_BYTES {
                complete = false;
                break;
            }
            bytes.extend(entry);
        }
        for (flag, is_set) in [(COMPLETE, complete), (LEGACY_4, self.legacy4), (LEGACY_6, self.legacy6)] {
            bytes[2] |= if is_set { flag } else { 0 };
        }
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap_or(0);
        bytes
    }

    /// Reads user data of a chain; `None` if it is not what [`OlderChains::encode`] makes.
    pub(crate) fn decode(userdata: &[u8]) -> Option<Self> {
        let (&[kind, length, flags], mut rest) = userdata.split_first_chunk::<3>()?;
        if kind != KIND || usize::from(length) != userdata.len() - 2 {
            return None;
        }
        let mut chains = BTreeSet::new();
        while let Some((number, entry)) = rest.split_first() {
            let (_, family) = FAMILIES.iter().find(|(of, _)| of == number)?;
            rest = entry;
            chains.insert((*family, read_number(&mut rest)?, read_number(&mut rest)?));
        }
        Some(Self {
            chains,
            legacy4: flags & LEGACY_4 != 0,
            legacy6: flags & LEGACY_6 != 0,
            complete: flags & COMPLETE != 0,
        })
    }
}

/// Writes a number with seven bits in each byte, the lowest first; the highest bit tells that more follow.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn older(chains: impl IntoIterator<Item = (TableFamily, u64, u64)>) -> OlderChains {
        OlderChains {
            chains: chains.into_iter().collect(),
            complete: true,
            ..OlderChains::default()
        }
    }

    #[test]
    fn too_many_are_said_to_be_incomplete() {
        let all = older((0..1000).map(|chain| (TableFamily::Ip, 1 << 40, chain)));
        let bytes = all.encode();
        assert!(bytes.len() <= 256, "{}", bytes.len());
        let read = OlderChains::decode(&bytes).unwrap();
        assert!(!read.complete && !read.chains.is_empty());
        assert!(read.chains.is_subset(&all.chains));
    }

    #[test]
    fn a_comment_is_no_list() {
        assert_eq!(OlderChains::decode(&[0, 3, b'h', b'i', 0]), None);
        assert_eq!(OlderChains::decode(&[]), None);
        assert_eq!(OlderChains::decode(&older([]).encode()), Some(older([])));
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(
            chains in prop::collection::btree_set((0..3_usize, any::<u64>(), any::<u64>()), 0..10),
            legacy4: bool,
            legacy6: bool,
        ) {
            let chains = chains.into_iter().map(|(family, table, chain)| (FAMILIES[family].1, table, chain));
            let written = OlderChains { legacy4, legacy6, ..older(chains) };
            prop_assert_eq!(OlderChains::decode(&written.encode()), Some(written));
        }

        #[test]
        fn reading_is_total(bytes: Vec<u8>) {
            let _ = OlderChains::decode(&bytes);
        }
    }
}
