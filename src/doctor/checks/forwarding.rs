//! Check of the interfaces by which clients, answers and containers come in: whether they forward.
//!
//! IPv4 uses the setting of the incoming interface only: `ip_forward` writes to all interfaces, and is the initial
//! value of later ones (`ip_route_input_slow`). IPv6 uses the switch for all interfaces, and if that is off, from
//! Linux 6.17 on, the incoming interface's `force_forwarding` (`ip6_forward`); an interface's own `forwarding` is
//! about router advertisements.
//!
//! Source: `net/ipv4/route.c`, `net/ipv4/devinet.c`, `net/ipv6/ip6_output.c`,
//! `Documentation/networking/ip-sysctl.rst`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, command};
use super::text::{some, sysctl};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::route::links::LinkDetails;

const IDS: [(Family, &str); 2] = [(Family::V4, "ip-forward-off"), (Family::V6, "ipv6-forwarding-off")];

pub(in super::super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for (family, id) in IDS {
        if facts.uses(family) {
            one(facts, family, id, diagnosis);
        }
    }
    advertisements(facts, diagnosis);
}

fn one(facts: &CheapFacts, family: Family, id: &'static str, diagnosis: &mut Diagnosis) {
    let switch = switch(family);
    let roles = roles(facts, family);
    let is_off = facts.number(switch) == Some(0);
    let serves_no_client = no_client_link_forwards(facts, family, &roles);
    let mut off: Vec<(&LinkDetails, Role)> = roles
        .into_iter()
        .filter(|(link, _)| !forwards(facts, family, link))
        .collect();
    off.sort_by_key(|(_, role)| *role);
    if off.is_empty() {
        if is_off && no_link_is_known(facts, family) {
            diagnosis.broken(
                id,
                format!("{switch} is 0"),
                CAUSE,
                command(format!("sysctl -w {switch}=1")),
            );
        } else if is_off && (family == Family::V6 || facts.number("net.ipv4.conf.default.forwarding") == Some(0)) {
            diagnosis.note(
                id,
                format!("{switch} is 0, while all interfaces that are used here forward"),
                "an interface that is created later, such as a bridge that is created again, will not forward",
            );
        }
        return;
    }
    let severity = off
        .iter()
        .map(|(_, role)| role.severity())
        .min()
        .unwrap_or(FindingSeverity::Note);
    let severity = if serves_no_client {
        FindingSeverity::Broken
    } else {
        severity
    };
    let names = off
        .iter()
        .map(|(link, role)| format!("{} ({})", link.name, role.words()));
    let (seen, fix) = if is_off && severity == FindingSeverity::Broken {
        (
            format!("{switch} is 0, and forwarding is off on {}", some(names)),
            format!("sysctl -w {switch}=1"),
        )
    } else {
        let settings = off.iter().map(|(link, _)| format!(" {}=1", setting(family, link)));
        (
            format!("forwarding is off on {}", some(names)),
            format!("sysctl -w{}", settings.collect::<String>()),
        )
    };
    diagnosis.found(id, severity, seen, CAUSE.into(), Some(command(fix)));
}

const CAUSE: &str = "the kernel forwards no packets that come in by an interface where forwarding is off, whatever the rules say; for \
                     good, put the setting into /etc/sysctl.d";

const fn switch(family: Family) -> &'static str {
    match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    }
}

fn setting(family: Family, link: &LinkDetails) -> String {
    match family {
        Family::V4 => sysctl("ipv4", &link.name, "forwarding"),
        Family::V6 => sysctl("ipv6", &link.name, "force_forwarding"),
    }
}

/// Returns whether a link forwards; without a setting of its own, the switch for all decides.
pub(super) fn forwards(facts: &CheapFacts, family: Family, link: &LinkDetails) -> bool {
    let on = |name: &str| facts.number(name).map(|value| value != 0);
    let all = on(switch(family));
    match family {
        Family::V4 => on(&format!("net.ipv4.conf.{}.forwarding", link.name)).or(all) != Some(false),
        Family::V6 => all != Some(false) || on(&format!("net.ipv6.conf.{}.force_forwarding", link.name)) == Some(true),
    }
}

/// Traffic that comes in by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// Answers of backends, and clients among the containers.
    Answers,
    /// Packets of clients.
    Clients,
    /// Possibly packets of clients: the interface has a public address.
    PerhapsClients,
    /// Possibly packets of clients: the interface has an address, and services listen on all.
    OtherClients,
}

impl Role {
    const fn severity(self) -> FindingSeverity {
        match self {
            Self::Answers | Self::Clients => FindingSeverity::Broken,
            Self::PerhapsClients => FindingSeverity::Warning,
            Self::OtherClients => FindingSeverity::Note,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Answers => "answers of backends",
            Self::Clients => "clients",
            Self::PerhapsClients | Self::OtherClients => "clients, if they come in by it",
        }
    }
}

fn roles(facts: &CheapFacts, family: Family) -> Vec<(&LinkDetails, Role)> {
    let mut roles: BTreeMap<u32, Role> = BTreeMap::new();
    let mut add = |index: u32, role: Role| {
        roles
            .entry(index)
            .and_modify(|known| *known = role.min(*known))
            .or_insert(role);
    };
    for (address, way) in facts.backend_routes.iter().flatten() {
        if let Some(way) = way.as_ref().filter(|way| !way.local && Family::of(*address) == family) {
            add(way.index, Role::Answers);
        }
    }
    let far = facts
        .client_routes
        .as_ref()
        .ok()
        .and_then(|backend_routes| backend_routes.get(&(family, None))?.as_ref());
    if let Some(way) = far {
        add(way.index, Role::Clients);
    }
    // Policy routing may route answers differently from the gateway's own packets.
    for ((of, _), out) in facts.answers.iter().flatten() {
        if let Some(out) = out.as_ref().filter(|_| *of == family) {
            add(out.index, Role::Clients);
        }
    }
    let services = &facts.services.services;
    let everywhere = services.iter().any(|service| service.addresses.is_empty());
    for link in facts.links.iter().flatten().filter(|link| link.up && !link.loopback) {
        for (address, _) in link
            .addresses
            .iter()
            .filter(|(address, _)| Family::of(*address) == family)
        {
            let leaves = facts
                .client_routes
                .as_ref()
                .ok()
                .and_then(|backend_routes| backend_routes.get(&(family, Some(*address)))?.as_ref());
            if services.iter().any(|service| service.addresses.contains(address)) {
                // Packets to it may still all come in by another interface.
                let sure = leaves.is_none_or(|way| way.index == link.index);
                add(link.index, if sure { Role::Clients } else { Role::PerhapsClients });
            } else if everywhere && far.is_none() && leaves.is_some_and(|way| way.index == link.index) {
                // Only policy routing by source address knows a route to remote clients.
                add(link.index, Role::Clients);
            } else if everywhere && (is_public(*address) || far.is_none()) {
                add(link.index, Role::PerhapsClients);
            } else if everywhere && !is_link_local(*address) {
                add(link.index, Role::OtherClients);
            }
        }
    }
    roles
        .into_iter()
        .filter_map(|(index, role)| Some((facts.link(index)?, role)))
        .collect()
}

/// Returns whether clients may come in by some interfaces and none of these forwards. Containers do not count: they
/// come in where answers do.
fn no_client_link_forwards(facts: &CheapFacts, family: Family, roles: &[(&LinkDetails, Role)]) -> bool {
    let mut clients = roles.iter().filter(|(_, role)| *role != Role::Answers).peekable();
    clients.peek().is_some() && clients.all(|(link, _)| !forwards(facts, family, link))
}

fn no_link_is_known(facts: &CheapFacts, family: Family) -> bool {
    roles(facts, family).is_empty()
}

pub(in crate::doctor) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_private() && !is_link_local(address) && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unique_local() && !is_link_local(address) && !v6.is_loopback(),
    }
}

/// Reports interfaces that ignore router advertisements: with forwarding on, this is the effect of the value 1
/// (`ip-sysctl.rst`, `accept_ra`).
fn advertisements(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    if facts.number("net.ipv6.conf.all.forwarding") != Some(1) || !facts.uses(Family::V6) {
        return;
    }
    let Some(links) = diagnosis.known("IPv6 router advertisements", &facts.links) else {
        return;
    };
    let ignoring: Vec<&str> = links
        .iter()
        .filter(|link| link.up && !link.loopback)
        .map(|link| link.name.as_str())
        .filter(|name| facts.number(&format!("net.ipv6.conf.{name}.accept_ra")) == Some(1))
        .collect();
    if !ignoring.is_empty() {
        diagnosis.note(
            "ipv6-router-advertisements",
            format!("accept_ra is 1 on {} while IPv6 forwarding is on", some(&ignoring)),
            "a router ignores router advertisements then: a default route that came by one is not renewed. Where that is \
             how this gateway gets its route, set accept_ra to 2",
        );
    }
}
