//! Rules that Docker writes: which chains are its own, and how to let packets of services pass them.
//!
//! Docker keeps the chain `DOCKER-USER` for rules of others (iptables). Its tables of nftables, `docker-bridges`, are for
//! itself only: it accepts packets that have a mark, if it is told which one (`bridge-accept-fwmark`).

use std::collections::BTreeSet;

use super::super::facts::CheapFacts;
use super::super::finding::{Fix, advice, command};
use super::chain::ChainContext;
use super::text::some;
use tcpgw_kernel::firewall::{FirewallChain, Relation, Rule, RuleField, RuleVerdict, Test};

/// Chain of iptables for rules of others, which Docker jumps to before its own rules.
pub(super) const FOR_USERS: &str = "DOCKER-USER";
/// Name of Docker's tables of nftables, one for each family.
const TABLE: &str = "docker-bridges";
/// Begin of the names of chains in that table that see packets to a network.
const TO_NETWORK: &str = "filter-forward-in__";

/// Returns whether Docker made a chain and all its rules.
pub(super) fn is_of_docker(chain: &FirewallChain, name: &str) -> bool {
    chain.table.name == TABLE || (name.starts_with("DOCKER") && name != FOR_USERS)
}

/// Returns whether Docker writes rules into the table of a chain.
pub(super) fn has_docker(chains: &[FirewallChain], chain: &FirewallChain) -> bool {
    let mut of_table = chains.iter().filter(|of| of.table == chain.table);
    is_table(chain) || of_table.any(|of| of.name.starts_with(FOR_USERS))
}

/// Returns whether a chain is in Docker's own table of nftables.
pub(super) fn is_table(chain: &FirewallChain) -> bool {
    chain.table.name == TABLE && !chain.table.legacy
}

/// Returns advice for a port that Docker publishes and that is a service's, too.
pub(super) fn other_port(ports: &BTreeSet<u16>) -> Fix {
    let containers = ports.iter().map(|port| format!("`docker ps --filter publish={port}`"));
    advice(format!(
        "{} names the container: publish another port of the host, or none (a backend needs no published port), or give the service \
         another port",
        some(containers)
    ))
}

/// Returns whether an interface is the bridge of a network of Docker, by the name that Docker gives it unless told otherwise.
pub(super) fn is_network(link: &str) -> bool {
    let id = link.strip_prefix("br-");
    link == "docker0" || id.is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl ChainContext<'_> {
    /// Returns the chain for a rule that comes before all others: Docker's chain for users' rules, where no rule that
    /// drops comes before it.
    pub(super) fn first_chain(&self) -> &str {
        let drops = |rule: &Rule| matches!(rule.verdict, RuleVerdict::Drop | RuleVerdict::Reject);
        let may_drop = |rule: &Rule| match &rule.verdict {
            RuleVerdict::Jump(to) | RuleVerdict::Goto(to) => {
                let mut called = self
                    .chains
                    .iter()
                    .filter(|of| of.table == self.chain.table && of.name == *to);
                called.any(|chain| chain.rules.iter().any(|rule| drops(rule) || jumps(rule)))
            }
            _ => drops(rule),
        };
        let before = self
            .chain
            .rules
            .iter()
            .take_while(|rule| !may_drop(rule) || is_jump_to_users(rule));
        if before.into_iter().any(is_jump_to_users) {
            FOR_USERS
        } else {
            &self.chain.name
        }
    }

    /// Returns what lets packets of services pass Docker's own table. An accept of another table is not enough: each
    /// packet passes them all.
    pub(super) fn let_pass_docker(&self) -> Fix {
        let mark = self.facts.mark;
        match accepted_mark(self.chains, self.chain) {
            Some((value, bits)) => command(marking(self.facts, value, bits)),
            None => advice(format!(
                "give Docker the option `\"bridge-accept-fwmark\": \"{mark}\"` in /etc/docker/daemon.json, restart it, and run `{}`",
                marking(self.facts, mark.value(), mark.mask())
            )),
        }
    }
}

fn jumps(rule: &Rule) -> bool {
    matches!(rule.verdict, RuleVerdict::Jump(_) | RuleVerdict::Goto(_))
}

fn is_jump_to_users(rule: &Rule) -> bool {
    rule.tests.is_empty() && rule.verdict == RuleVerdict::Jump(FOR_USERS.into())
}

/// Returns the line that gives packets of services a mark before Docker's rules see them.
fn marking(facts: &CheapFacts, value: u32, bits: u32) -> String {
    let ours = facts.mark;
    let others = match !bits {
        0 => String::new(),
        _ if value == bits => "meta mark or ".to_owned(),
        others => format!("meta mark and {others:#010x} or "),
    };
    format!(
        "nft 'table inet docker-user {{ chain forward {{ type filter hook forward priority filter - 1; ct mark and {:#010x} == {:#010x} \
         meta mark set {others}{value:#010x}; }}; }}'",
        ours.mask(),
        ours.value()
    )
}

/// Returns the mark that Docker accepts to its networks, as (value, bits).
fn accepted_mark(chains: &[FirewallChain], chain: &FirewallChain) -> Option<(u32, u32)> {
    let of_networks = chains
        .iter()
        .filter(|of| of.table == chain.table && of.name.starts_with(TO_NETWORK));
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    of_networks
        .flat_map(|of| &of.rules)
        .find_map(|rule| match rule.tests.as_slice() {
            [
                Test::Compare {
                    load,
                    mask,
                    relation: Relation::Equal,
                    value,
                },
            ] if load.field == RuleField::Mark && rule.verdict == RuleVerdict::Accept => {
                let bits = mask.as_deref().map_or(Some(u32::MAX), number)?;
                Some((number(value)?, bits))
            }
            _ => None,
        })
}
