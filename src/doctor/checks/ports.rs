//! Checks of source ports, the gateway's own ports, and addresses that services listen on.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::facts::{CheapFacts, Facts};
use super::super::finding::{Diagnosis, FindingSeverity, advice, command};
use super::docker::other_port;
use super::text::{range_list, ranges, some};
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;
use tcpgw_kernel::listeners::Listener;

/// Number of ports from 1024 to 65535, from which masquerading chooses for a client port above 1023
/// (`nf_nat_l4proto_unique_tuple`).
const SNAT_PORTS: u32 = 64_512;
/// Name of the program with which Docker listens on the ports that it publishes.
const DOCKER_PROXY: &str = "docker-proxy";
const NEARLY_ALL: u32 = 80;
/// Percentage at which new connections fail: the kernel tries some 250 ports at random, and with one of a hundred
/// free, one of twelve new connections finds none.
const ALL: u32 = 99;

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    snat(facts, diagnosis);
    local_range(facts, diagnosis);
    listeners(facts, diagnosis);
}

fn snat(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(used) = diagnosis.known("source ports in use", &facts.ports_in_use) else {
        return;
    };
    let percent = |flows: u32| flows.saturating_mul(100) / SNAT_PORTS;
    let mut crowded: Vec<(u32, &(SocketAddr, IpAddr))> = used
        .iter()
        .filter(|(_, flows)| percent(**flows) >= NEARLY_ALL)
        .map(|(pair, flows)| (*flows, pair))
        .collect();
    crowded.sort_unstable_by(|a, b| b.cmp(a));
    let Some((most, (backend, address))) = crowded.first() else {
        return;
    };
    let others = match crowded.len() - 1 {
        0 => String::new(),
        more => format!("; and nearly as many of {more} more pairs"),
    };
    diagnosis.found(
        "snat-ports-exhausted",
        if percent(*most) >= ALL {
            FindingSeverity::Broken
        } else {
            FindingSeverity::Warning
        },
        format!(
            "{most} of {SNAT_PORTS} source ports from {address} to backend {backend} are in use ({} %){others}",
            percent(*most)
        ),
        "once all are in use, new connections to that backend are dropped; entries in TIME_WAIT count, too".into(),
        Some(advice(
            "give the service more \"source_addresses\" or more backends, or let it see its clients (\"source\": \"preserve\")",
        )),
    );
}

fn local_range(facts: &Facts, diagnosis: &mut Diagnosis) {
    let text = |name: &str| facts.cheap.sysctls.get(name).map_or("", String::as_str);
    let range: Vec<u16> = text("net.ipv4.ip_local_port_range")
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [low, high] = range.as_slice() else {
        return;
    };
    let reserved_text = text("net.ipv4.ip_local_reserved_ports");
    let reserved = parse_ranges(reserved_text);
    let ports: BTreeSet<u16> = facts
        .cheap
        .services
        .services
        .iter()
        .map(|service| service.port)
        .filter(|port| (low..=high).contains(&port) && !reserved.iter().any(|(from, to)| (from..=to).contains(&port)))
        .collect();
    if ports.is_empty() {
        return;
    }
    let mut wanted: BTreeSet<u16> = ports.clone();
    wanted.extend(reserved.iter().flat_map(|(from, to)| *from..=*to));
    diagnosis.warning(
        "port-in-local-range",
        format!(
            "{} of services lie in net.ipv4.ip_local_port_range ({low}-{high}): {}",
            count(ports.len(), "port"),
            some(&ports)
        ),
        "a connection that the gateway itself opens may be given one of them, and late packets of it are then refused as if \
         they were the service's",
        command(format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={}",
            range_list(&ranges(&wanted), ",")
        )),
    );
}

fn parse_ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

fn listeners(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(listeners) = diagnosis.known("programs that listen on ports of services", &facts.listeners) else {
        return;
    };
    let covered = |listener: &Listener| {
        let mut services = facts.cheap.services.services.iter();
        services.any(|service| covers(service, listener.addr))
    };
    let of_docker = |(listener, process): &(Listener, Option<String>)| {
        let is_proxy = process
            .as_deref()
            .is_some_and(|process| process.starts_with(DOCKER_PROXY));
        (is_proxy && covered(listener)).then_some(listener.addr.port())
    };
    let published: BTreeSet<u16> = listeners.iter().filter_map(of_docker).collect();
    let hidden: Vec<String> = listeners
        .iter()
        .filter(|(listener, _)| covered(listener))
        .map(|(listener, process)| format!("{} on {}", process.as_deref().unwrap_or("a program"), listener.addr))
        .collect();
    if !hidden.is_empty() {
        let (docker, fix) = if published.is_empty() {
            ("", None)
        } else {
            (
                "; docker-proxy is there since Docker publishes the port, too",
                Some(other_port(&published)),
            )
        };
        diagnosis.found(
            "port-with-listener",
            FindingSeverity::Note,
            format!(
                "{} a port of a service: {}",
                if hidden.len() == 1 {
                    "a program listens on"
                } else {
                    "programs listen on"
                },
                some(&hidden)
            ),
            format!("connections from outside go to the service; the program gets those of loopback only{docker}"),
            fix,
        );
    }
}

fn covers(service: &ServiceSummary, listener: SocketAddr) -> bool {
    let address = listener.ip().to_canonical();
    service.port == listener.port()
        && !address.is_loopback()
        && (service.addresses.is_empty() || address.is_unspecified() || service.addresses.contains(&address))
}

/// Reports lost addresses if services listen on all addresses. Clients of the remaining addresses are served; if none
/// remains, [`super::no_address`] reports that.
pub(super) fn lost_addresses(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let services = &facts.services.services;
    if facts.lost_addresses.is_empty() || services.iter().all(|service| !service.addresses.is_empty()) {
        return;
    }
    let lost = facts.lost_addresses.iter();
    let lost = lost.map(|(address, connections)| {
        let connections = count(usize::try_from(*connections).unwrap_or(usize::MAX), "connection");
        format!("{address} ({connections})")
    });
    diagnosis.warning(
        "address-lost",
        format!(
            "the gateway has lost {} on which clients had connections: {}",
            if facts.lost_addresses.len() == 1 {
                "an address"
            } else {
                "addresses"
            },
            some(lost)
        ),
        "clients that connect to it reach no service here; this is intended if the address was moved, to another gateway for example. The finding stays for an hour",
        advice("give the gateway the address again (`ip address add`, and wherever it is set at boot)"),
    );
}

pub(super) fn addresses(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(local) = diagnosis.known("addresses of services", &facts.local) else {
        return;
    };
    let gone: Vec<String> = facts
        .services
        .services
        .iter()
        .flat_map(|service| service.addresses.iter().map(move |address| (service, address)))
        .filter(|(_, address)| !local.contains(address))
        .map(|(service, address)| {
            format!(
                "{} of {}",
                address,
                service.name.as_deref().unwrap_or("an unnamed service")
            )
        })
        .collect();
    if !gone.is_empty() {
        // The severity agrees with the daemon's reports for each service.
        let has_none = |service: &ServiceSummary| {
            !service.addresses.is_empty() && !service.addresses.iter().any(|address| local.contains(address))
        };
        let is_broken = facts.services.services.iter().any(has_none);
        diagnosis.found(
            "address-not-local",
            if is_broken {
                FindingSeverity::Broken
            } else {
                FindingSeverity::Warning
            },
            format!(
                "services listen on {} that this gateway does not have: {}",
                if gone.len() == 1 { "an address" } else { "addresses" },
                some(&gone)
            ),
            "nobody reaches the service there until the gateway has the address".into(),
            Some(advice(
                "give the gateway the address (`ip address add`), or take it out of the state",
            )),
        );
    }
}
