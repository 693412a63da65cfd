//! A chain of another program, as findings name it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::RuleLocation;
use super::text::{of_services, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, TableFamily};

/// Kinds of packets that are judged, as (answer, after the handshake).
pub(super) const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

pub(super) fn sees(family: TableFamily, packet: Family) -> bool {
    match family {
        TableFamily::Inet | TableFamily::Netdev => true,
        TableFamily::Ip => packet == Family::V4,
        TableFamily::Ip6 => packet == Family::V6,
        _ => false,
    }
}

/// Returns the table of a chain for people: `table ip filter of iptables-nft`.
pub(super) fn whose(chain: &FirewallChain) -> String {
    let table = &chain.table;
    match program(chain) {
        Some(program) => format!("table {} of {program}", table.name),
        None => format!("table {} {}", table.family, table.name),
    }
}

/// Returns the program of iptables' family that made the table, if it was one.
pub(super) fn program(chain: &FirewallChain) -> Option<&'static str> {
    let table = &chain.table;
    let is_iptables = ["filter", "nat", "mangle", "raw", "security"].contains(&table.name.as_str())
        && (chain.base.is_none() || chain.name.chars().all(|letter| letter.is_ascii_uppercase()));
    Some(match (table.legacy, table.family, is_iptables) {
        (true, TableFamily::Ip6, _) => "ip6tables-legacy",
        (true, ..) => "iptables-legacy",
        (false, TableFamily::Ip, true) => "iptables-nft",
        (false, TableFamily::Ip6, true) => "ip6tables-nft",
        _ => return None,
    })
}

/// Returns whether a chain sees the gateway's own packets: probes of backends and their answers.
pub(super) fn is_probes(base: FirewallBase) -> bool {
    matches!(base.hook, FirewallHook::Input | FirewallHook::Output)
}

/// A base chain of another program, and the chains that it may jump to.
#[derive(Clone, Copy)]
pub(super) struct ForeignBaseChain<'a> {
    pub(super) facts: &'a CheapFacts,
    pub(super) chains: &'a [FirewallChain],
    pub(super) chain: &'a FirewallChain,
    pub(super) base: FirewallBase,
}

impl<'a> ForeignBaseChain<'a> {
    /// Returns the base chains among the chains of one program.
    pub(super) fn among(facts: &'a CheapFacts, chains: &'a [FirewallChain]) -> impl Iterator<Item = Self> {
        chains.iter().filter_map(move |chain| {
            Some(Self {
                facts,
                chains,
                chain,
                base: chain.base?,
            })
        })
    }

    /// Returns the chain for findings about the first packets of clients.
    pub(super) fn context(self, family: Family) -> ChainContext<'a> {
        ChainContext {
            facts: self.facts,
            chains: self.chains,
            chain: self.chain,
            base: self.base,
            family,
            reply: false,
            later: false,
            examined: 0,
            by: None,
        }
    }
}

/// A base chain and a kind of packets, for findings.
pub(super) struct ChainContext<'a> {
    pub(super) facts: &'a CheapFacts,
    pub(super) chains: &'a [FirewallChain],
    pub(super) chain: &'a FirewallChain,
    pub(super) base: FirewallBase,
    pub(super) family: Family,
    /// Whether the packets are answers.
    pub(super) reply: bool,
    /// Whether the packets come after the first two of a connection.
    pub(super) later: bool,
    pub(super) examined: usize,
    /// Interfaces of the clients, if only some clients are concerned.
    pub(super) by: Option<String>,
}

impl ChainContext<'_> {
    /// Returns the name of the chain: `chain FORWARD of table filter of iptables-nft`.
    pub(super) fn name(&self) -> String {
        format!("chain {} of {}", self.chain.name, whose(self.chain))
    }

    /// Returns the rule or policy that ends a packet at this place.
    pub(super) fn place_of_end(&self, place: &RuleLocation) -> String {
        match place.rule {
            None => "its policy is drop, and no rule lets them pass".to_owned(),
            Some(rule) if place.chain == self.chain.name => format!("by its rule {rule}"),
            Some(rule) => format!("by rule {rule} of chain {}", place.chain),
        }
    }

    /// Returns the description of packets of clients that come in by some interfaces.
    fn what_of_clients(&self, interfaces: &str) -> String {
        let later = if self.later { "later " } else { "" };
        let (what, end) = if self.reply {
            ("answers to", "from")
        } else {
            ("packets of", "to")
        };
        format!("{later}{what} clients that come by {interfaces} {end}")
    }

    pub(super) fn dropped(
        &self,
        places: &[(Option<SocketAddr>, RuleLocation)],
        does: &str,
        severity: FindingSeverity,
        diagnosis: &mut Diagnosis,
    ) {
        let Some((_, place)) = places.first() else { return };
        let backends: Vec<&SocketAddr> = places.iter().filter_map(|(backend, _)| backend.as_ref()).collect();
        let who = match (backends.len(), self.examined) {
            (0, _) => "any backend".to_owned(),
            (hit, all) => {
                let hit_ones: BTreeSet<SocketAddr> = backends.iter().map(|backend| **backend).collect();
                format!(
                    "{hit} of the {} that were examined ({}){}",
                    count(all, "backend"),
                    some(&backends),
                    of_services(&self.facts.services, |backend| hit_ones.contains(&backend))
                )
            }
        };
        let what = match (self.reply, is_probes(self.base)) {
            (false, false) if self.later => "later packets of connections to",
            (true, false) if self.later => "later answers from",
            (false, false) => "packets to",
            (true, false) => "answers from",
            (false, true) => "the gateway's own connections, such as probes, to",
            (true, true) => "answers to the gateway's own connections, such as probes, from",
        };
        let what = self
            .by
            .as_ref()
            .map_or_else(|| what.to_owned(), |by| self.what_of_clients(by));
        let does = if place.rejects {
            does.replace("drop", "reject")
        } else {
            does.to_owned()
        };
        let by = self.place_of_end(place);
        let uncertainty = if severity == FindingSeverity::Broken {
            ""
        } else if place.exceeds {
            "; it drops what exceeds its rate"
        } else if place.spares_few {
            "; it lets only a few addresses or ports of clients through"
        } else if self.by.is_some() {
            "; clients that come by other interfaces are not affected"
        } else {
            "; its rules cannot all be evaluated here, or concern some of the addresses or interfaces only"
        };
        let seen = format!("{} {does} {what} {who}: {by}{uncertainty}", self.name());
        if is_probes(self.base) {
            let cause = format!(
                "a daemon takes such backends for unhealthy, and sends them no new connections. {}",
                self.lasting()
            );
            diagnosis.warning("probes-dropped", seen, cause, self.let_pass());
            return;
        }
        diagnosis.found(
            "packets-dropped",
            severity,
            seen,
            format!(
                "a packet must pass every table: a packet that tcpgw accepts can still be dropped by another one. {}",
                self.lasting()
            ),
            Some(self.let_pass()),
        );
    }
}
