//! Conversion of weights to slots: the number of slots of a service, and the backend in each.

use std::num::NonZeroU16;

use super::stmt::HASH_SLOTS;
use crate::model::Endpoint;

/// A backend's share of new connections.
pub type Share = (Endpoint, NonZeroU16);

/// Largest number of slots that has a rule of its own for every value; larger numbers are 128 or 256.
const EXACT_SLOTS: usize = 64;
const MOST_SLOTS: usize = 256;

/// Returns the slots of a service that is balanced at random or by a hash of the client's address and port: a number of
/// slots that the ruleset has a rule for, filled in proportion to the weights, if possible without the same backend
/// twice in a row.
pub fn spread(shares: &[Share]) -> Vec<Endpoint> {
    let exact = total(&reduced(shares));
    let width = match exact {
        0..=EXACT_SLOTS => exact,
        _ if 128 % exact == 0 => 128,
        _ => MOST_SLOTS,
    };
    interleave(shares, width)
}

/// Returns the slots of a round-robin service, in proportion to the weights; at most 256.
pub fn round_robin(shares: &[Share]) -> Vec<Endpoint> {
    interleave(shares, total(&reduced(shares)).min(MOST_SLOTS))
}

/// Returns the slots of a service that is balanced by source hash. Each slot prefers the backends in an order of its
/// own (rendezvous hashing), and each backend gets exactly its share of slots, so that the balance is exact and a
/// change of backends moves few slots.
pub fn source_hash(shares: &[Share]) -> Vec<Endpoint> {
    let mut left = apportion(shares, usize::from(HASH_SLOTS));
    (0..HASH_SLOTS)
        .filter_map(|slot| {
            let open = shares.iter().zip(&mut left).filter(|(_, left)| **left > 0);
            let (share, left) = open.max_by_key(|((endpoint, _), _)| (score(slot, *endpoint), *endpoint))?;
            *left -= 1;
            Some(share.0)
        })
        .collect()
}

fn reduced(shares: &[Share]) -> Vec<usize> {
    let divisor = shares
        .iter()
        .fold(0, |divisor, (_, weight)| gcd(divisor, usize::from(weight.get())));
    shares
        .iter()
        .map(|(_, weight)| usize::from(weight.get()) / divisor.max(1))
        .collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn total(weights: &[usize]) -> usize {
    weights.iter().sum()
}

/// Divides `slots` by weight, by the largest remainder. Each share gets a slot if there are as many slots as shares.
fn apportion(shares: &[Share], slots: usize) -> Vec<usize> {
    let weights = reduced(shares);
    let whole = total(&weights).max(1);
    let mut counts: Vec<usize> = weights.iter().map(|weight| (weight * slots / whole).max(1)).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse((weights[i] * slots) % whole));
    let mut given = total(&counts);
    for &i in order.iter().cycle().take(slots) {
        if given >= slots || counts.is_empty() {
            break;
        }
        counts[i] += 1;
        given += 1;
    }
    while given > slots {
        let Some(largest) = (0..counts.len()).max_by_key(|&i| counts[i]).filter(|&i| counts[i] > 1) else {
            break;
        };
        counts[largest] -= 1;
        given -= 1;
    }
    counts
}

/// Orders slots by smooth weighted round-robin: each step takes the backend that is furthest behind its share.
fn interleave(shares: &[Share], width: usize) -> Vec<Endpoint> {
    let counts = apportion(shares, width);
    let whole = i64::try_from(total(&counts)).unwrap_or(i64::MAX);
    let mut owed = vec![0_i64; counts.len()];
    (0..total(&counts))
        .filter_map(|_| {
            for (owed, count) in owed.iter_mut().zip(&counts) {
                *owed += i64::try_from(*count).unwrap_or(0);
            }
            let next = (0..owed.len()).max_by_key(|&i| (owed[i], std::cmp::Reverse(i)))?;
            owed[next] -= whole;
            Some(shares[next].0)
        })
        .collect()
}

/// Returns the rendezvous hash of a slot and a backend: FNV-1a over both, then the finalizer of `MurmurHash3`, so that
/// similar endpoints differ.
fn score(slot: u16, endpoint: Endpoint) -> u64 {
    let (bytes, len) = super::rows::endpoint_bytes(endpoint);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in slot.to_be_bytes().iter().chain(&bytes[..len]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[u16]) -> Vec<Share> {
        let endpoint = |i: usize| Endpoint {
            address: std::net::Ipv4Addr::from(0x0a02_000b + u32::try_from(i).unwrap()).into(),
            port: NonZeroU16::new(3000).unwrap(),
        };
        weights
            .iter()
            .enumerate()
            .map(|(i, w)| (endpoint(i), NonZeroU16::new(*w).unwrap()))
            .collect()
    }

    fn counts(slots: &[Endpoint]) -> BTreeMap<Endpoint, usize> {
        slots.iter().fold(BTreeMap::new(), |mut counts, slot| {
            *counts.entry(*slot).or_default() += 1;
            counts
        })
    }

    #[test]
    fn few_backends_get_a_slot_for_each_part_of_their_weight() {
        assert_eq!(spread(&shares(&[])), []);
        assert_eq!(spread(&shares(&[7])).len(), 1);
        assert_eq!(spread(&shares(&[1, 1, 1, 1])).len(), 4);
        assert_eq!(
            counts(&spread(&shares(&[100, 300]))).into_values().collect::<Vec<_>>(),
            [1, 3]
        );
        assert_eq!(spread(&shares(&[1; 64])).len(), 64);
        assert_eq!(spread(&shares(&[1; 65])).len(), 256);
        assert_eq!(spread(&shares(&[1; 128])).len(), 128);
        assert_eq!(spread(&shares(&[256; 256])).len(), 256);
    }

    #[test]
    fn round_robin_takes_turns() {
        let order = round_robin(&shares(&[2, 1, 1]));
        let [a, b, c] = [0, 1, 2].map(|i| shares(&[1, 1, 1])[i].0);
        assert_eq!(order, [a, b, c, a]);
        assert_eq!(round_robin(&shares(&[1; 100])).len(), 100);
    }

    #[test]
    fn a_changed_set_moves_few_clients() {
        for n in [2_u32, 4, 8, 16] {
            let all = shares(&vec![1; usize::try_from(n).unwrap()]);
            let before = source_hash(&all);
            let mut moved = 0;
            for gone in 0..all.len() {
                let mut rest = all.clone();
                rest.remove(gone);
                let after = source_hash(&rest);
                moved += before.iter().zip(&after).filter(|(a, b)| a != b).count();
            }
            let share = f64::from(u32::try_from(moved).unwrap()) / f64::from(n) / 256.0;
            println!("{n} backends, one leaves: {:.1} % of the slots move", share * 100.0);
            // The optimum is 1/n; the rest is the cost of exact shares.
            assert!(share < 1.8 / f64::from(n), "{n}: {share}");
        }
    }

    proptest! {
        #[test]
        fn slots_are_dense_and_fair(weights in prop::collection::vec(1_u16..=256, 1..=256)) {
            let shares = shares(&weights);
            for slots in [spread(&shares), round_robin(&shares), source_hash(&shares)] {
                prop_assert!(slots.len() <= 256);
                let counts = counts(&slots);
                prop_assert_eq!(counts.len(), shares.len(), "every backend gets some");
            }
            prop_assert_eq!(source_hash(&shares).len(), 256);
            let width = spread(&shares).len();
            prop_assert!(width <= 64 || width == 128 || width == 256);
        }
    }
}
