//! Check of paths to backends that bypass their services, and with that access lists and limits.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::forwarding::forwards;
use super::samples;
use super::text::some;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    if facts.protect_backends {
        return;
    }
    let outside = Family::BOTH.map(|family| (family, outside(facts, family)));
    let is_reached = |backend: IpAddr| {
        let way = facts
            .backend_routes
            .as_ref()
            .ok()
            .and_then(|backend_routes| backend_routes.get(&backend)?.as_ref());
        let links = outside.iter().filter(|(family, _)| *family == Family::of(backend));
        let mut links = links.flat_map(|(_, links)| links);
        way.is_some_and(|way| links.any(|link| *link != way.index))
    };
    let exposed = |service: &&ServiceSummary| {
        let settings = &service.settings;
        let guarded = settings.limit.is_some() || settings.allow.is_some() || !settings.deny.is_empty();
        guarded && service.backends().any(|backend| is_reached(backend.ip()))
    };
    let services: Vec<&ServiceSummary> = facts.services.services.iter().filter(exposed).collect();
    if services.is_empty() {
        return;
    }
    diagnosis.found(
        "backends-exposed",
        FindingSeverity::Warning,
        format!(
            "{} with `allow`, `deny` or `limit` can be bypassed: {}",
            count(services.len(), "service"),
            some(&services)
        ),
        "the gateway forwards packets from outside directly to a container's address if the sender has a route to it; the lists and limits of services do not apply to such packets"
            .into(),
        Some(advice(remedy(facts))),
    );
}

/// Returns the advice. The table takes the setting over when a daemon starts, and at an `apply`.
fn remedy(facts: &CheapFacts) -> String {
    let file = &facts.configuration;
    let put_into_effect = "restart the daemon (without a daemon: run `tcpgw apply`)";
    if facts.configured_to_protect {
        format!("`protect_backends = true` of {file} is not in effect yet: {put_into_effect}")
    } else if is_no_configuration(file) {
        format!(
            "put `protect_backends = true` at the top of a configuration and name that with `--config` or `TCPGW_CONFIG`, which say {file} now; then {put_into_effect}"
        )
    } else {
        format!("put `protect_backends = true` at the top of {file}, then {put_into_effect}")
    }
}

/// Returns whether the file stands for no configuration.
fn is_no_configuration(file: &str) -> bool {
    file == "/dev/null"
}

/// Returns the interfaces by which clients come in and that forward.
fn outside(facts: &CheapFacts, family: Family) -> BTreeSet<u32> {
    let backend_routes = facts.client_routes.iter().flatten();
    let links = backend_routes
        .filter(|((of, _), _)| *of == family)
        .filter_map(|(_, way)| Some(way.as_ref()?.index));
    let links = links.chain(samples::outside(facts, family).into_iter().map(|link| link.index));
    links
        .filter(|index| facts.link(*index).is_none_or(|link| forwards(facts, family, link)))
        .collect()
}
