//! Whether the gateway forwards at all.

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, command};
use super::some;
use crate::ruleset::name::Family;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for (family, id, sysctl) in [
        (Family::V4, "ip-forward-off", "net.ipv4.ip_forward"),
        (Family::V6, "ipv6-forwarding-off", "net.ipv6.conf.all.forwarding"),
    ] {
        if facts.uses(family) && facts.number(sysctl) == Some(0) {
            diagnosis.broken(
                id,
                format!("{sysctl} is 0"),
                "the kernel forwards no packets to or from backends, whatever the rules say; for good, put it into \
                 /etc/sysctl.d",
                command(format!("sysctl -w {sysctl}=1")),
            );
        }
    }
    advertisements(facts, diagnosis);
}

/// With forwarding on, a value of 1 means that they are ignored (`ip-sysctl.rst`, `accept_ra`).
fn advertisements(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    if facts.number("net.ipv6.conf.all.forwarding") != Some(1) || !facts.uses(Family::V6) {
        return;
    }
    let Some(links) = diagnosis.known("IPv6 router advertisements", &facts.links) else {
        return;
    };
    let deaf: Vec<&str> = links
        .iter()
        .filter(|link| link.up && !link.loopback)
        .map(|link| link.name.as_str())
        .filter(|name| facts.number(&format!("net.ipv6.conf.{name}.accept_ra")) == Some(1))
        .collect();
    if !deaf.is_empty() {
        diagnosis.note(
            "ipv6-router-advertisements",
            format!("accept_ra is 1 on {} while IPv6 forwarding is on", some(&deaf)),
            "a router ignores router advertisements then: a default route that came by one is not renewed. Where that is \
             how this gateway gets its route, set accept_ra to 2",
        );
    }
}
