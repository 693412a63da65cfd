//! Check of other programs' chains that packets of services pass: rules that drop them, exempt them from conntrack, or
//! send them past the limits.

use std::net::SocketAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, Severity};
use super::super::judge::{Done, Holds, PacketVerdict, RulePlace};
use super::samples::{Kind, Packets, Sample, packet_mark, samples, walk_all};
use super::{count, other_links, quoted, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{
    FirewallBase, FirewallChain, FirewallHook, Rule, RuleEffect, RuleVerdict, TableFamily, Test,
};

/// Kinds of packets that are judged, as (answer, later than the handshake).
pub(super) const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];
/// The same, and packets with data, as (answer, later than the handshake, with data).
const KINDS_AND_DATA: [(bool, bool, bool); 6] = [
    (false, false, false),
    (true, false, false),
    (false, true, false),
    (true, true, false),
    (false, true, true),
    (true, true, true),
];
/// Minimum and maximum number of backends that are checked one by one.
const FEWEST_SAMPLES: usize = 8;
const MOST_SAMPLES: usize = 1000;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for chains in foreign_chains(facts, diagnosis) {
        all(facts, chains, diagnosis);
    }
    for table in facts.firewall.iter().flat_map(|firewall| &firewall.unjudged) {
        diagnosis.unchecked(
            format!("table {} {}", table.family, table.name),
            "it sees frames and not packets; what it drops is not known here",
        );
    }
    let links = facts.links.iter().flatten().filter(|link| link.up && !link.loopback);
    for link in links {
        let name = &link.name;
        if link.xdp {
            diagnosis.unchecked(
                format!("the XDP program of {name}"),
                "it sees packets before all rules; what it drops is not known here",
            );
        }
        if link.classifies {
            diagnosis.unchecked(
                format!("filters of traffic control at {name}"),
                format!(
                    "they see packets before most rules; `tc filter show dev {} ingress` prints them",
                    quoted(name)
                ),
            );
        }
    }
}

fn all(facts: &CheapFacts, chains: &[FirewallChain], diagnosis: &mut Diagnosis) {
    for chain in chains {
        if let Some(base) = chain.base {
            judge(facts, chains, chain, base, diagnosis);
        }
    }
}

/// Returns the chains of other programs that could be read: of nftables, of iptables-legacy, and of ip6tables-legacy.
pub(super) fn foreign_chains<'a>(facts: &'a CheapFacts, diagnosis: &mut Diagnosis) -> Vec<&'a [FirewallChain]> {
    let firewall = diagnosis.known("other tables of nftables", &facts.firewall);
    let firewall = firewall.map(|firewall| firewall.chains.as_slice());
    let legacy = diagnosis.known("tables of iptables-legacy", &facts.legacy);
    let legacy6 = diagnosis.known("tables of ip6tables-legacy", &facts.legacy6);
    let legacy = legacy.into_iter().chain(legacy6).map(|chains| chains.as_slice());
    firewall.into_iter().chain(legacy).collect()
}

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

fn judge(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    base: FirewallBase,
    diagnosis: &mut Diagnosis,
) {
    if base.hook == FirewallHook::Other || (is_probes(base) && base.nat) {
        return;
    }
    let of_table = || chains.iter().filter(|of| of.table == chain.table);
    let effort: usize = of_table().flat_map(|of| &of.rules).map(effort).sum();
    let most = (facts.effort.most_rules() / effort.max(1)).clamp(FEWEST_SAMPLES, MOST_SAMPLES);
    let mut sees_any = false;
    let mark = packet_mark(facts);
    for family in Family::BOTH {
        if !facts.uses(family) || !sees(chain.table.family, family) {
            continue;
        }
        let samples = samples(facts, family, most);
        let (mut nothing_arrives, mut is_told) = (false, false);
        for (reply, later, data) in KINDS_AND_DATA {
            // If no packet reaches a backend, no answer comes; and translation concerns first packets only.
            if (reply || later) && (base.nat || nothing_arrives) {
                continue;
            }
            // Probes leave by output, and their answers come in by input.
            if is_probes(base) && (later || reply != (base.hook == FirewallHook::Input)) {
                continue;
            }
            // Later packets mostly meet the same verdict as first ones.
            if later && is_told {
                continue;
            }
            let kind = Kind {
                family,
                reply,
                later,
                data,
                mark,
            };
            let of_all = Packets::of(facts, chain, base, kind, None);
            let of_sample = |sample| (sample, Packets::of(facts, chain, base, kind, Some(sample)));
            let packets = samples.iter().map(of_sample);
            let packets: Vec<(&Sample<'_>, Packets)> =
                packets.filter(|(_, packets)| !packets.seen.is_empty()).collect();
            // Most chains pass a packet for any backend.
            let is_known = !of_all.seen.is_empty();
            if !is_known && packets.is_empty() {
                continue;
            }
            sees_any = true;
            let mut trouble = Trouble::default();
            trouble.add(None, walk_all(facts, chains, chain, (None, &of_all)));
            if trouble.is_none() && is_known {
                continue;
            }
            if !packets.is_empty() {
                trouble = Trouble::default();
            }
            for (sample, packets) in &packets {
                let walked = walk_all(facts, chains, chain, (Some(sample), packets));
                trouble.add(Some(sample.backend), walked);
            }
            nothing_arrives |= !trouble.ends.is_empty();
            is_told |= !trouble.is_none();
            let context = Context {
                facts,
                chains,
                chain,
                base,
                family,
                reply,
                later,
                looked_at: packets.len(),
                by: None,
            };
            trouble.tell(&context, diagnosis);
        }
        if !is_told {
            let seen = other_links::Seen {
                facts,
                chains,
                chain,
                base,
                family,
                mark,
            };
            other_links::judge(seen, &samples, diagnosis);
        }
    }
    if !sees_any && base.hook.is_of_interfaces() && (base.drops || of_table().any(may_drop)) {
        diagnosis.unchecked(
            format!("chain {} of {}", chain.name, whose(chain)),
            "it sees packets of other interfaces than those by which clients and backends are reached",
        );
    }
}

/// Returns the cost of evaluating a rule, which grows with the sets that it uses.
fn effort(rule: &Rule) -> usize {
    /// Number of elements that cost as much as a rule.
    const ELEMENTS: usize = 8;
    let elements = |test: &Test| match test {
        Test::In { elements, .. } => elements.as_ref().map_or(0, Vec::len),
        _ => 0,
    };
    1 + rule.tests.iter().map(elements).sum::<usize>() / ELEMENTS
}

fn may_drop(chain: &FirewallChain) -> bool {
    let passes = |rule: &Rule| {
        matches!(
            rule.verdict,
            RuleVerdict::Continue
                | RuleVerdict::Accept
                | RuleVerdict::Return
                | RuleVerdict::Jump(_)
                | RuleVerdict::Goto(_)
        )
    };
    !chain.rules.iter().all(passes)
}

/// Effects of one base chain on packets of services.
#[derive(Default)]
struct Trouble {
    ends: Vec<(Option<SocketAddr>, RulePlace)>,
    may_end: Vec<(Option<SocketAddr>, RulePlace)>,
    untracked: Option<(String, Holds)>,
    offloaded: Option<String>,
    unjudged: bool,
}

pub(super) struct Context<'a> {
    pub(super) facts: &'a CheapFacts,
    pub(super) chains: &'a [FirewallChain],
    pub(super) chain: &'a FirewallChain,
    pub(super) base: FirewallBase,
    pub(super) family: Family,
    /// Whether the packets are answers.
    pub(super) reply: bool,
    /// Whether the packets come after the first two of a connection.
    pub(super) later: bool,
    pub(super) looked_at: usize,
    /// Interfaces of the clients, if only some clients are concerned.
    pub(super) by: Option<String>,
}

impl Trouble {
    fn is_none(&self) -> bool {
        self.ends.is_empty()
            && self.may_end.is_empty()
            && self.untracked.is_none()
            && self.offloaded.is_none()
            && !self.unjudged
    }

    fn add(&mut self, backend: Option<SocketAddr>, (fate, done): (PacketVerdict, Vec<Done>)) {
        match fate {
            PacketVerdict::Passes => {}
            PacketVerdict::Ends(place) => self.ends.push((backend, place)),
            PacketVerdict::MayEnd(place) => self.may_end.push((backend, place)),
            PacketVerdict::Unjudged => self.unjudged = true,
        }
        for done in done {
            match done.effect {
                RuleEffect::Notrack if self.untracked.as_ref().is_none_or(|(_, holds)| *holds < done.holds) => {
                    self.untracked = Some((done.chain, done.holds));
                }
                RuleEffect::Offload => drop(self.offloaded.get_or_insert(done.chain)),
                _ => {}
            }
        }
    }

    fn tell(&self, context: &Context<'_>, diagnosis: &mut Diagnosis) {
        let whose = whose(context.chain);
        if self.unjudged {
            diagnosis.unchecked(
                format!("chain {} of {whose}", context.chain.name),
                "it has too many rules",
            );
        }
        if !self.ends.is_empty() {
            context.dropped(&self.ends, "drops", Severity::Broken, diagnosis);
        } else if !self.may_end.is_empty() {
            context.dropped(&self.may_end, "may drop", Severity::Warning, diagnosis);
        }
        if is_probes(context.base) {
            return;
        }
        if let Some((chain, holds)) = &self.untracked {
            let sure = *holds == Holds::Yes;
            diagnosis.found(
                "packets-untracked",
                if sure { Severity::Broken } else { Severity::Warning },
                format!(
                    "chain {chain} of {whose} {} {} off conntrack (notrack)",
                    if sure { "takes" } else { "may take" },
                    if context.reply {
                        "answers of backends"
                    } else {
                        "packets to services"
                    }
                ),
                "what conntrack does not see is not translated, and is refused as a packet of no known flow".into(),
                Some(context.let_pass()),
            );
        }
        if let Some(chain) = self.offloaded.as_ref().filter(|_| !context.reply) {
            diagnosis.warning(
                "flows-offloaded",
                format!("chain {chain} of {whose} sends flows past the rules (flowtable)"),
                "later packets of such a flow are not held to any limit",
                context.let_pass(),
            );
        }
    }
}

impl Context<'_> {
    /// Returns the name of the chain: `chain FORWARD of table filter of iptables-nft`.
    pub(super) fn name(&self) -> String {
        format!("chain {} of {}", self.chain.name, whose(self.chain))
    }

    /// Returns the rule or policy that ends a packet at this place.
    pub(super) fn place_of_end(&self, place: &RulePlace) -> String {
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
        places: &[(Option<SocketAddr>, RulePlace)],
        does: &str,
        severity: Severity,
        diagnosis: &mut Diagnosis,
    ) {
        let Some((_, place)) = places.first() else { return };
        let backends: Vec<&SocketAddr> = places.iter().filter_map(|(backend, _)| backend.as_ref()).collect();
        let who = match (backends.len(), self.looked_at) {
            (0, _) => "any backend".to_owned(),
            (hit, all) => format!(
                "{hit} of the {} that were looked at ({})",
                count(all, "backend"),
                some(&backends)
            ),
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
        let doubt = if severity == Severity::Broken {
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
        let seen = format!("{} {does} {what} {who}: {by}{doubt}", self.name());
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
