//! Check of other tables that translate ports of services, too.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, Fix, advice};
use super::super::judge::{ChainEffect, walk};
use super::super::packet::{Interface, Packet, PacketStage};
use super::chain::{ForeignBaseChain, sees, whose};
use super::docker::{is_of_docker, other_port};
use super::firewall::foreign_base_chains;
use super::samples::{PacketKind, outside, packet, packet_mark, samples};
use super::text::some;
use crate::doctor::condition_result::Holds;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, Relation, Rule, RuleEffect, RuleField, Test};
use tcpgw_kernel::nftables::nat_order::DSTNAT;

/// Priority of tcpgw's chain for the gateway's own connections.
const DSTNAT_OUTPUT: i32 = -100;
/// Maximum number of ports that are checked one by one.
const MOST_PORTS: usize = 500;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for seen in foreign_base_chains(facts, diagnosis) {
        match seen.base.hook {
            FirewallHook::Prerouting if seen.base.nat => judge(seen, diagnosis),
            FirewallHook::Output if seen.base.nat => judge_own_connections(seen, diagnosis),
            _ => {}
        }
    }
}

/// Judges the gateway's own connections: those of local programs to services, and the daemon's probes of backends.
fn judge_own_connections(seen: ForeignBaseChain<'_>, diagnosis: &mut Diagnosis) {
    let ForeignBaseChain {
        facts,
        chains,
        chain,
        base,
    } = seen;
    let by_docker = Cell::new(true);
    let is_translated = |packet: &Packet| {
        let (_, done) = walk(chains, chain, packet);
        let done = done.into_iter();
        let done: Vec<ChainEffect> = done
            .filter(|done| done.effect == RuleEffect::Dnat && done.holds >= Holds::Unknown)
            .collect();
        by_docker.set(by_docker.get() && done.iter().all(|done| is_of_docker(chain, &done.chain)));
        !done.is_empty()
    };
    let services = &facts.services.services;
    let named = named_ports(chains, chain, &services.iter().map(|service| service.port).collect());
    let named: BTreeSet<u16> = named.into_iter().take(MOST_PORTS).collect();
    let meant = services.iter().filter(|service| named.contains(&service.port));
    let taken = meant.filter(|service| {
        let packets = packets(facts, (chain, base), service).into_iter();
        packets
            .map(|packet| Packet { input: None, ..packet })
            .any(|packet| is_translated(&packet))
    });
    let taken: BTreeSet<u16> = taken.map(|service| service.port).collect();
    let publisher = publisher(by_docker.get());
    if !taken.is_empty() && base.priority <= DSTNAT_OUTPUT {
        diagnosis.warning(
            "port-translated-elsewhere",
            format!(
                "chain {} of {} translates the gateway's own connections to {} of services, too: {}{}",
                chain.name,
                whose(chain),
                count(taken.len(), "port"),
                some(&taken),
                publisher.0
            ),
            "programs on the gateway that connect to the service may get to where that table says; clients from outside are not \
             concerned",
            (publisher.1)(&taken),
        );
    }
    let kind = |family| PacketKind {
        family,
        reply: false,
        later: false,
        data: false,
        mark: packet_mark(facts),
    };
    let families = Family::BOTH
        .into_iter()
        .filter(|family| sees(chain.table.family, *family));
    let probed = families.flat_map(|family| {
        let samples = samples(facts, family, MOST_PORTS).into_iter();
        samples.map(move |sample| (sample.backend, packet(facts, base, kind(family), None, Some(&sample))))
    });
    let probed: Vec<SocketAddr> = probed
        .filter(|(_, packet)| is_translated(packet))
        .map(|(backend, _)| backend)
        .collect();
    if !probed.is_empty() {
        diagnosis.warning(
            "probes-dropped",
            format!(
                "chain {} of {} translates the gateway's own connections, such as probes, to {}: {}",
                chain.name,
                whose(chain),
                count(probed.len(), "backend"),
                some(&probed)
            ),
            "a daemon judges the backend by the answer of another program",
            advice("let TCP of the gateway itself to the backends pass in that chain, in front of its other rules"),
        );
    }
}

fn judge(seen: ForeignBaseChain<'_>, diagnosis: &mut Diagnosis) {
    let ForeignBaseChain {
        facts,
        chains,
        chain,
        base,
    } = seen;
    let services = &facts.services.services;
    let ports: BTreeSet<u16> = services.iter().map(|service| service.port).collect();
    let named = named_ports(chains, chain, &ports);
    if named.len() > MOST_PORTS {
        let reason = format!(
            "{} may be translated there, too; only {MOST_PORTS} were examined",
            count(named.len(), "port")
        );
        diagnosis.unchecked(format!("ports in chain {} of {}", chain.name, whose(chain)), reason);
    }
    let mut taken: BTreeSet<u16> = BTreeSet::new();
    let (mut surely, mut by_docker) = (false, true);
    for service in services
        .iter()
        .filter(|service| named.iter().take(MOST_PORTS).any(|port| *port == service.port))
    {
        for packet in packets(facts, (chain, base), service) {
            let (_, done) = walk(chains, chain, &packet);
            for done in done.iter().filter(|done| done.effect == RuleEffect::Dnat) {
                taken.insert(service.port);
                by_docker &= is_of_docker(chain, &done.chain);
                surely |= done.holds == Holds::Yes;
            }
        }
    }
    if taken.is_empty() {
        return;
    }
    let publisher = publisher(by_docker);
    let (severity, cause) = match base.priority {
        ..DSTNAT if surely => (
            FindingSeverity::Broken,
            "its chain comes before tcpgw's: the connections go where that table says",
        ),
        ..DSTNAT => (
            FindingSeverity::Warning,
            "its chain comes before tcpgw's: connections for which its rule holds go where that table says",
        ),
        DSTNAT => match is_later(facts, chain) {
            Some(true) if surely => (
                FindingSeverity::Broken,
                "both chains have the same priority, and it was made after tcpgw's: the one that was made last gets the \
                 connections",
            ),
            Some(true) => (
                FindingSeverity::Warning,
                "both chains have the same priority, and it was made after tcpgw's: connections for which its rule holds go \
                 where that table says",
            ),
            Some(false) => (
                FindingSeverity::Warning,
                "both chains have the same priority, and it was made before tcpgw's, which gets the connections as long as \
                 that chain is not made again",
            ),
            None => (
                FindingSeverity::Warning,
                "both chains have the same priority: the one that was made last gets the connections; which one that is cannot be seen here",
            ),
        },
        _ => (
            FindingSeverity::Warning,
            "its chain comes after tcpgw's: that rule gets no connections",
        ),
    };
    diagnosis.found(
        "port-translated-elsewhere",
        severity,
        format!(
            "chain {} of {} translates {} of services, too: {}{}",
            chain.name,
            whose(chain),
            count(taken.len(), "port"),
            some(&taken),
            publisher.0
        ),
        cause.into(),
        Some((publisher.1)(&taken)),
    );
}

/// Returns who translates ports of services, and what to do about it.
fn publisher(by_docker: bool) -> (&'static str, fn(&BTreeSet<u16>) -> Fix) {
    if by_docker {
        ("; Docker publishes them for containers", other_port)
    } else {
        ("", |_| advice("give the service or that other program another port"))
    }
}

/// Returns whether the chain was made after tcpgw's, if that is known: the table of tcpgw records the chains that
/// existed before it, and a chain of a later table is later, too.
fn is_later(facts: &CheapFacts, chain: &FirewallChain) -> Option<bool> {
    let own = facts.firewall.as_ref().ok()?.own_table.as_ref()?;
    let is_older = own.older.as_ref().and_then(|older| older.has(chain));
    let of_later_table = || (chain.table.handle? > own.handle).then_some(true);
    is_older.map(|is_older| !is_older).or_else(of_later_table)
}

fn packets(facts: &CheapFacts, (chain, base): (&FirewallChain, FirewallBase), service: &ServiceSummary) -> Vec<Packet> {
    let targets: Vec<(Family, Option<IpAddr>)> = if service.addresses.is_empty() {
        Family::BOTH.map(|family| (family, None)).to_vec()
    } else {
        service
            .addresses
            .iter()
            .map(|address| (Family::of(*address), Some(*address)))
            .collect()
    };
    let mark = packet_mark(facts);
    targets
        .into_iter()
        .filter(|(family, _)| sees(chain.table.family, *family) && facts.uses(*family))
        .flat_map(|(family, server)| {
            let outside = outside(facts, family).into_iter().map(Some);
            let mut outside: Vec<Option<Interface>> = outside.collect();
            if outside.is_empty() {
                outside.push(None);
            }
            outside.into_iter().map(move |input| Packet {
                family,
                input,
                output: None,
                server,
                port: Some(service.port),
                reply: false,
                stage: PacketStage::Handshake,
                seen_by: base,
                ours: None,
                mark,
                client: None,
                from_app: None,
                neighbour: None,
            })
        })
        .collect()
}

/// Returns the ports of services that a translating rule of the table matches.
fn named_ports(chains: &[FirewallChain], base: &FirewallChain, ports: &BTreeSet<u16>) -> BTreeSet<u16> {
    let mut named = BTreeSet::new();
    let rules = chains
        .iter()
        .filter(|chain| chain.table == base.table)
        .flat_map(|chain| &chain.rules);
    for (from, to) in rules
        .filter(|rule| rule.effects.contains(&RuleEffect::Dnat))
        .flat_map(destinations)
    {
        if from <= to {
            named.extend(ports.range(from..=to));
        }
    }
    named
}

/// Returns the ranges of ports that a rule matches: all ports if it does not match ports.
fn destinations(rule: &Rule) -> Vec<(u16, u16)> {
    let port = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    for test in &rule.tests {
        match test {
            Test::Compare {
                load,
                mask: None,
                relation: Relation::Equal,
                value,
            } if load.field == RuleField::DestPort => return vec![(port(value), port(value))],
            Test::In {
                key,
                elements: Some(elements),
                negated: false,
            } => {
                let mut at = 0;
                for load in key {
                    if load.field == RuleField::DestPort {
                        let within = |key: &[u8]| port(key.get(at..).unwrap_or_default());
                        return elements
                            .iter()
                            .map(|element| (within(&element.from), within(&element.to)))
                            .collect();
                    }
                    at += load.len.next_multiple_of(4);
                }
            }
            _ => {}
        }
    }
    vec![(0, u16::MAX)]
}
