//! When an endpoint's next probe is due: spread so that thousands of them do not come in lumps, the same in every run.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::machine::State;
use crate::model;

/// Until an endpoint is healthy, where its service names no interval.
const EAGER: Duration = Duration::from_secs(2);
/// From then on.
const CALM: Duration = Duration::from_secs(10);

/// What waking up together, and the way of an answer, may add to an interval.
const ROUNDING: Duration = Duration::from_millis(100);

/// From one probe's start to that of the next, before it is spread.
pub(super) fn interval(params: &model::Health, state: State) -> Duration {
    let calm = matches!(state, State::Healthy | State::Presumed { failed: 0 });
    params.interval.unwrap_or(if calm { CALM } else { EAGER })
}

/// The longest time from when an endpoint stops answering until it leaves the balance, as long as its probes need not
/// wait for others.
pub(super) fn longest_fall(params: &model::Health) -> Duration {
    let most = |interval: Duration| interval.saturating_add(interval / 10).saturating_add(ROUNDING);
    let first = most(interval(params, State::Healthy));
    let failed = State::Unknown { failed: 1 };
    let next = most(interval(params, failed).max(params.timeout));
    let others = next.saturating_mul(u32::from(params.fall.get()) - 1);
    first.saturating_add(others).saturating_add(params.timeout)
}

/// Up to a tenth more or less, by endpoint and round.
pub(super) fn jittered(interval: Duration, endpoint: SocketAddr, round: u32) -> Duration {
    let thousandths = hash(endpoint, round) % 201;
    scaled(interval, 900 + thousandths)
}

/// Some part of one such, by endpoint: endpoints that were asked at the same time part here, and stay evenly spread.
pub(super) fn phase(interval: Duration, endpoint: SocketAddr) -> Duration {
    let thousandths = hash(endpoint, u32::MAX) % 1000;
    scaled(jittered(interval, endpoint, 0), 1 + thousandths)
}

fn scaled(interval: Duration, thousandths: u64) -> Duration {
    interval.saturating_mul(u32::try_from(thousandths).unwrap_or(1000)) / 1000
}

fn hash(endpoint: SocketAddr, round: u32) -> u64 {
    let address = match endpoint.ip() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "both halves go in")]
    let halves = [(address >> 64) as u64, address as u64];
    let rest = u64::from(endpoint.port()) << 32 | u64::from(round);
    halves
        .into_iter()
        .chain([rest])
        .fold(0, |hash, word| mixed(hash ^ word))
}

/// `SplitMix64`'s step (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
