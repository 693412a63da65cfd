//! Checks of source ports that are reused while backends still hold them, and of source addresses that the gateway has
//! lost.

use std::net::SocketAddr;

use super::super::facts::{CheapFacts, Facts};
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::text::some;
use tcpgw_core::words::count;

/// Number of ports from 1024 to 65535, as in `nf_nat_l4proto_unique_tuple`.
const SNAT_PORTS: u32 = 64_512;
/// Percentage of used ports at which one in 150 new connections finds no free port among the 96 that the kernel tries,
/// and gets one that is still in `TIME_WAIT` (0.95 to the power of 96).
const TAKEN_PERCENT: u32 = 95;

/// Reports reused ports: as a note while ports are free, since conntrack may have removed flows or an endpoint may
/// have moved; as a warning when they are used up, since this will continue.
pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(reused) = diagnosis.known("source ports that were used again", &facts.reused) else {
        return;
    };
    let mut by_packets: Vec<(u64, SocketAddr)> = reused.iter().map(|(backend, packets)| (*packets, *backend)).collect();
    by_packets.sort_unstable_by(|a, b| b.cmp(a));
    let Some((most, backend)) = by_packets.first() else {
        return;
    };
    let others = match by_packets.len() - 1 {
        0 => String::new(),
        more => format!(", and others from {}", count(more, "more backend")),
    };
    let crowded: Vec<SocketAddr> = by_packets
        .iter()
        .map(|(_, backend)| *backend)
        .filter(|backend| is_crowded(facts, *backend))
        .collect();
    let (severity, now) = if crowded.is_empty() {
        (FindingSeverity::Note, String::new())
    } else {
        let now = format!("; the ports to {} are used up right now", some(&crowded));
        (FindingSeverity::Warning, now)
    };
    diagnosis.found(
        "snat-port-reuse",
        severity,
        format!(
            "{} to backend {backend} met a connection that it still held{others}, since the table was made{now}",
            count(usize::try_from(*most).unwrap_or(usize::MAX), "SYN")
        ),
        "a backend that closes first holds the gateway's address and port for 60 s, with the timestamp of the client that \
         it was for; when another client gets that port, its SYN has to be repeated: after some milliseconds by Linux, else \
         after 1 s. It begins above some 1,000 new connections per second, backend and gateway address, or when flows were \
         flushed or thrown out of conntrack"
            .into(),
        (severity == FindingSeverity::Warning).then(|| {
            advice(
                "give the service more \"source_addresses\" or more backends, or let its clients close first; \
                 \"source\": \"preserve\" has no such bound",
            )
        }),
    );
}

fn is_crowded(facts: &Facts, backend: SocketAddr) -> bool {
    let used = facts.ports_in_use.iter().flatten();
    used.filter(|((to, _), _)| *to == backend)
        .any(|(_, flows)| flows.saturating_mul(100) / SNAT_PORTS >= TAKEN_PERCENT)
}

pub(super) fn source_addresses(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(local) = diagnosis.known("source addresses of services", &facts.local) else {
        return;
    };
    let gone: Vec<String> = facts
        .services
        .services
        .iter()
        .flat_map(|service| {
            let addresses = service.settings.source_addresses.iter();
            addresses.map(move |address| (service, address))
        })
        .filter(|(_, address)| !local.contains(address))
        .map(|(service, address)| {
            let name = service.name.as_deref().unwrap_or("an unnamed service");
            format!("{address} of {name}")
        })
        .collect();
    if !gone.is_empty() {
        diagnosis.broken(
            "source-address-not-local",
            format!(
                "services have source addresses that this gateway does not have: {}",
                some(&gone)
            ),
            "backends answer to an address that no machine has: connections that use it time out",
            advice("give the gateway the address (`ip address add`), or take it out of the state"),
        );
    }
}
