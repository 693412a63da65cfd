//! Ways to backends that lead past their services, and with that past access lists and limits.

use std::collections::BTreeSet;

use super::super::facts::Facts;
use super::super::finding::{Diagnosis, Severity, advice};
use super::{count, some};
use crate::ruleset::name::Family;
use crate::summary::ServiceSummary;

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    if facts.protect_backends {
        return;
    }
    let exposed = |service: &&ServiceSummary| {
        let settings = &service.settings;
        let guarded = settings.limit.is_some() || settings.allow.is_some() || !settings.deny.is_empty();
        guarded
            && service
                .backends()
                .any(|backend| is_reached_from_outside(facts, backend.ip()))
    };
    let services: Vec<&ServiceSummary> = facts.cheap.services.services.iter().filter(exposed).collect();
    if services.is_empty() {
        return;
    }
    diagnosis.found(
        "backends-exposed",
        Severity::Warning,
        format!(
            "{} with `allow`, `deny` or `limit` can be passed by: {}",
            count(services.len(), "service"),
            some(&services)
        ),
        "the gateway forwards packets from outside straight to the address of a container, if the sender has a route to it; lists and \
         limits are a service's, and no such packet comes through one"
            .into(),
        Some(advice(
            "put `protect_backends = true` at the top of /etc/tcpgw/config.toml, then restart the daemon, or run `tcpgw apply` where \
             there is none",
        )),
    );
}

/// Whether clients far away come in by another interface than the one that leads to it, and the gateway forwards.
fn is_reached_from_outside(facts: &Facts, backend: std::net::IpAddr) -> bool {
    let family = Family::of(backend);
    let forwards = match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    };
    let way = facts
        .cheap
        .ways
        .as_ref()
        .ok()
        .and_then(|ways| ways.get(&backend)?.as_ref());
    let outside: BTreeSet<u32> = facts
        .cheap
        .ways_out
        .iter()
        .flatten()
        .filter(|((of, _), _)| *of == family)
        .filter_map(|(_, way)| Some(way.as_ref()?.index))
        .collect();
    facts.cheap.number(forwards) != Some(0) && way.is_some_and(|way| outside.iter().any(|link| *link != way.index))
}
