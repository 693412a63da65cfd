//! Check of probes that take another route than packets of clients.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::{CheapFacts, MisroutedProbe};
use super::super::finding::{Diagnosis, advice, command};
use super::text::{SHOWN, some};
use tcpgw_core::words::count;
use tcpgw_kernel::route::{RouteEntry, RouteTo};

/// Number of the table `main` (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(misrouted) = diagnosis.known("routes of probes", &facts.misrouted_probes) else {
        return;
    };
    let Some(first) = misrouted.first() else { return };
    let backends: BTreeSet<&IpAddr> = misrouted.iter().map(|probe| &probe.backend).collect();
    let source = first.source.map(|source| format!(" from {source}"));
    let seen = format!(
        "probes{} to {} of backends do not go the way of clients' packets, and fail: {} (to {} clients' packets leave by {}, and probes {})",
        source.unwrap_or_default(),
        count(backends.len(), "address"),
        some(&backends),
        first.backend,
        described(facts, &first.clients),
        match &first.way {
            Some(way) => format!("by {}", described(facts, way)),
            None => "have no route, or one that refuses".into(),
        }
    );
    let cause = "probes are the gateway's own packets, to which no rule for an incoming interface (`ip rule iif`) applies: the daemon takes \
                 these backends for unhealthy and sends them no new connections, though clients may reach them";
    let lines: BTreeSet<String> = misrouted.iter().filter_map(line).collect();
    let fix = if lines.is_empty() {
        advice(format!(
            "see `ip route get {0}` and `ip rule`: give the gateway's own packets the clients' route, too \
             (`ip rule add iif lo to {0} lookup TABLE`)",
            first.backend
        ))
    } else {
        command(lines.into_iter().take(SHOWN).collect::<Vec<_>>().join("; "))
    };
    diagnosis.warning("probes-misrouted", seen, cause, fix);
}

/// Returns the command that gives probes the clients' route; `iif lo` matches packets that this host sends, see
/// ip-rule(8).
fn line(probe: &MisroutedProbe) -> Option<String> {
    let RouteEntry { network, table } = probe.entry?;
    let ip = if probe.backend.is_ipv4() { "ip" } else { "ip -6" };
    let table = match table {
        MAIN => "main".to_owned(),
        number => number.to_string(),
    };
    Some(format!("{ip} rule add iif lo to {network} lookup {table}"))
}

fn described(facts: &CheapFacts, way: &RouteTo) -> String {
    let link = facts.link(way.index).map_or("another link", |link| &link.name);
    match way.gateway {
        Some(router) => format!("{link} to the router {router}"),
        None => link.to_owned(),
    }
}
