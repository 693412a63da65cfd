//! Intervals between probes: spread so that thousands of endpoints are not probed at the same time, and equal in every
//! run.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::machine::EndpointState;
use crate::model;

/// Interval until an endpoint is healthy, where its service sets none.
const EAGER: Duration = Duration::from_secs(2);
/// Interval of healthy endpoints, where their service sets none.
const CALM: Duration = Duration::from_secs(10);

/// Upper bound of what batching and the delay of an answer add to an interval.
const ROUNDING: Duration = Duration::from_millis(100);

/// Returns the time from one probe's start to that of the next, before it is spread.
pub(super) fn mean(params: &model::HealthSettings, state: EndpointState) -> Duration {
    let calm = matches!(state, EndpointState::Healthy | EndpointState::Presumed { failed: 0 });
    params.interval.unwrap_or(if calm { CALM } else { EAGER })
}

/// Returns the longest time from the moment when an endpoint stops answering until it leaves the balance, if its probes
/// need not wait for others.
pub(super) fn longest_fall(params: &model::HealthSettings) -> Duration {
    let first = most(mean(params, EndpointState::Healthy));
    let failed = EndpointState::Unknown { failed: 1 };
    let next = most(mean(params, failed).max(params.timeout));
    let others = next.saturating_mul(u32::from(params.fall.get()) - 1);
    first.saturating_add(others).saturating_add(params.timeout)
}

/// Returns the longest time that an interval takes.
fn most(interval: Duration) -> Duration {
    interval.saturating_add(interval / 10).saturating_add(ROUNDING)
}

/// Returns the largest number of probes after which a new endpoint is healthy or unhealthy: all failures but the last one, and then
/// answers.
pub(super) fn most_first(params: &model::HealthSettings) -> u32 {
    u32::from(params.fall.get()) + u32::from(params.rise.get()) - 1
}

/// Returns the longest time from the first probe of a new endpoint until it is healthy or unhealthy, if its probes need not wait for
/// others.
pub(super) fn longest_first(params: &model::HealthSettings) -> Duration {
    let next = most(mean(params, EndpointState::Unknown { failed: 1 }).max(params.timeout));
    let others = next.saturating_mul(most_first(params) - 1);
    others.saturating_add(params.timeout)
}

/// Returns the interval, longer or shorter by up to a tenth, depending on endpoint and round.
pub(super) fn jittered(interval: Duration, endpoint: SocketAddr, round: u32) -> Duration {
    let thousandths = hash(endpoint, round) % 201;
    scaled(interval, 900 + thousandths)
}

/// Returns a part of an interval that depends on the endpoint: endpoints that were probed at the same time are spread
/// evenly over the interval.
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

/// Returns the result of one step of `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
