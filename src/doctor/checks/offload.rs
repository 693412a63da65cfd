//! Checks of interfaces that merge packets.

use super::super::facts::Facts;
use super::super::finding::{Diagnosis, command};
use super::text::{quoted, some};

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(links) = diagnosis.known("segmentation offloads", &facts.cheap.links) else {
        return;
    };
    let up = || links.iter().filter(|link| link.up && !link.loopback);
    for link in up().filter(|link| link.offloads.is_some_and(|offloads| offloads.lro)) {
        diagnosis.warning(
            "large-receive-offload",
            format!("{} merges received packets in hardware (LRO)", link.name),
            "packets that are merged in hardware cannot be forwarded unchanged: connections stall or become slow",
            command(format!("ethtool -K {} lro off", quoted(&link.name))),
        );
    }
    let unknown: Vec<&str> = up()
        .filter(|link| link.offloads.is_none())
        .map(|link| link.name.as_str())
        .collect();
    if !unknown.is_empty() {
        diagnosis.unchecked("segmentation offloads", format!("{} cannot tell", some(&unknown)));
    }
    let limited = facts
        .cheap
        .services
        .services
        .iter()
        .any(|service| service.settings.limit.is_some());
    let merging: Vec<&str> = up()
        .filter(|link| link.offloads.is_some_and(|offloads| offloads.gro || offloads.gso))
        .map(|link| link.name.as_str())
        .collect();
    if limited && !merging.is_empty() {
        diagnosis.note(
            "packets-merged",
            format!("{} merge packets (GRO, GSO)", some(&merging)),
            "a limit counts a merged packet as one; therefore the limit in bytes (pps x mtu) applies to large packets, and the limit in packets to small ones",
        );
    }
}
