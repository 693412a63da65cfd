//! Compares the chains and rules in the kernel with those that this program makes.

use std::collections::BTreeMap;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use crate::netlink::tlv::{Attrs, Malformed, Writer};
use crate::nftables::compare::{alien, matches};
use crate::nftables::message::{attr_str, body, message_body, request};
use crate::nftables::nft::{self, chain, expr, msg, rule};
use crate::nftables::skeleton::{self, TABLE};
use crate::nftables::survey::{Survey, timeouts};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{ListenScope, SetName};
use tcpgw_core::ruleset::skeleton::{self as rules, OptionalSets, SkeletonChain};

/// Returns whether the objects, sets, chains and rules are those that this program makes for the round-robin services and numbers of
/// slots in `found`. The elements of the sets do not matter. Writes the timeouts and the optional sets that the rules look into to
/// `found`.
///
/// # Errors
/// Fails when the kernel refuses a request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn skeleton_is_ours(
    socket: &mut impl NetlinkExchange,
    mark: FlowMark,
    found: &mut Survey,
) -> Result<bool, NetlinkError> {
    let idle = found.idle_timeouts();
    let Some(timeouts) = restarting(|| timeouts(socket, &idle))? else {
        return Ok(false);
    };
    found.timeouts = timeouts;
    if !(found.sets_match && chains_match(socket, &expected_chains(mark, found))?) {
        return Ok(false);
    }
    let listed = list_rules(socket)?;
    found.optional_sets = optional_sets(&listed)?;
    Ok(rules_are(&listed, &expected_chains(mark, found))?)
}

/// Returns all chains that there should be, by name.
pub fn expected_chains(mark: FlowMark, found: &Survey) -> BTreeMap<String, SkeletonChain> {
    let widths = found.widths();
    let spreads = ListenScope::ALL.map(|listen_scope| {
        let of_reach = widths.iter().filter(|(of, _)| *of == listen_scope);
        rules::spread(listen_scope, &of_reach.map(|(_, width)| *width).collect(), mark)
    });
    let round_robin = found.round_robin_chains.iter().map(rules::round_robin_chain);
    let chains = rules::fixed(mark, &found.optional_sets)
        .into_iter()
        .chain(spreads)
        .chain(round_robin);
    chains.map(|chain| (chain.name.clone(), chain)).collect()
}

/// Returns whether the table has these chains and no others.
///
/// # Errors
/// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn chains_match(
    socket: &mut impl NetlinkExchange,
    chains: &BTreeMap<String, SkeletonChain>,
) -> Result<bool, NetlinkError> {
    let listed = list(socket, "list the chains", |writer, seq| {
        request(writer, msg::GET_CHAIN, nft::F_DUMP, seq, |writer| {
            writer.str(chain::TABLE, TABLE);
        });
    })?;
    let (mut seen, mut all_ours) = (0, true);
    for body in &listed {
        if attr_str(body, chain::TABLE)? != Some(TABLE) {
            continue;
        }
        match attr_str(body, chain::NAME)?.and_then(|name| chains.get(name)) {
            Some(expected) if matches(message_body(&skeleton::new_chain(expected, 0)), body) => seen += 1,
            _ => all_ours = alien("chain", attr_str(body, chain::NAME)?),
        }
    }
    Ok(all_ours && seen == chains.len())
}

/// Returns whether the table has the rules of these chains and no others.
///
/// # Errors
/// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn rules_match(
    socket: &mut impl NetlinkExchange,
    chains: &BTreeMap<String, SkeletonChain>,
) -> Result<bool, NetlinkError> {
    Ok(rules_are(&list_rules(socket)?, chains)?)
}

fn rules_are(listed: &[Vec<u8>], chains: &BTreeMap<String, SkeletonChain>) -> Result<bool, Malformed> {
    let mut position: BTreeMap<String, usize> = BTreeMap::new();
    let mut all_ours = true;
    for body in listed {
        let name = attr_str(body, rule::CHAIN)?.unwrap_or_default();
        let at = position.entry(name.to_owned()).or_default();
        let expected = chains.get(name).and_then(|chain| chain.rules.get(*at));
        *at += 1;
        if !expected.is_some_and(|stmts| matches(message_body(&skeleton::new_rule(name, stmts, 0)), body)) {
            all_ours = alien("rule of chain", Some(name));
        }
    }
    let complete = |chain: &SkeletonChain| position.get(&chain.name).copied().unwrap_or(0) == chain.rules.len();
    Ok(all_ours && chains.values().all(complete))
}

fn list_rules(socket: &mut impl NetlinkExchange) -> Result<Vec<Vec<u8>>, NetlinkError> {
    list(socket, "list the rules", |writer, seq| {
        request(writer, msg::GET_RULE, nft::F_DUMP, seq, |writer| {
            writer.str(rule::TABLE, TABLE);
        });
    })
}

/// Returns the optional sets that these rules look into.
fn optional_sets(listed: &[Vec<u8>]) -> Result<OptionalSets, Malformed> {
    let mut optional_sets = OptionalSets::new();
    for body in listed {
        let Some(list) = Attrs::new(body).first(rule::EXPRESSIONS)? else {
            continue;
        };
        for attr in Attrs::new(list.payload) {
            let expression = attr?.payload;
            let (name, data) = (
                attr_str(expression, expr::NAME)?,
                Attrs::new(expression).first(expr::DATA)?,
            );
            if let (Some("lookup"), Some(data)) = (name, data) {
                let set = attr_str(data.payload, expr::LOOKUP_SET)?.and_then(SetName::parse);
                optional_sets.extend(set.filter(|set| set.is_optional()));
            }
        }
    }
    Ok(optional_sets)
}

/// Returns the bodies of a dump. They are compared after it has ended, because any transaction that is committed during a dump, to
/// whatever table, interrupts it.
fn list(
    socket: &mut impl NetlinkExchange,
    what: &'static str,
    build: impl Fn(&mut Writer, u32),
) -> Result<Vec<Vec<u8>>, NetlinkError> {
    restarting(|| {
        let mut listed = Vec::new();
        socket.dump(what, &build, |message| {
            listed.push(body(message).to_vec());
            Ok(())
        })?;
        Ok(listed)
    })
}
