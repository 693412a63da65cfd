//! Inventory of the sets, chains and objects of the table, and whether they have the form that this program gives them.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Attrs, Malformed, Writer};
use crate::nftables::compare::{alien, matches, without};
use crate::nftables::message::{absent_is_none, attr_str, body, request};
use crate::nftables::nft::{self, chain, msg, object, set};
use crate::nftables::sets;
use crate::nftables::skeleton::TABLE;
use tcpgw_core::ruleset::idle_timeouts;
use tcpgw_core::ruleset::name::{self, ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::skeleton::OptionalSets;
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, TimeoutState, Timeouts};

/// Sets and chains of the table, as read before the elements.
#[derive(Debug, Default)]
pub struct Survey {
    /// Sets that are made as this program makes them.
    pub sets: BTreeSet<SetName>,
    /// Chains of round-robin services.
    pub round_robin_chains: BTreeSet<RoundRobinChain>,
    /// Optional sets that the rules look into.
    pub optional_sets: OptionalSets,
    /// Timeouts of the kernel that the timeout objects follow.
    pub timeouts: KernelTimeouts,
    /// Whether every set that must be there is, and there is no set that this program does not make.
    pub sets_match: bool,
}

impl Survey {
    /// Returns the numbers of slots that there are sets for.
    pub(super) fn widths(&self) -> BTreeSet<(ListenScope, SpreadRule)> {
        let width = |name: &SetName| match name {
            SetName::Spread(listen_scope, width) => Some((*listen_scope, *width)),
            _ => None,
        };
        self.sets.iter().filter_map(width).collect()
    }

    /// Returns the timeout objects that these sets need, beside those that are always there.
    pub fn idle_timeouts(&self) -> BTreeSet<Timeouts> {
        let of = |(listen_scope, rule)| idle_timeouts(listen_scope, &[rule].into());
        self.widths().into_iter().flat_map(of).collect()
    }
}

/// Reads which sets and round-robin chains there are, and whether the sets are made as this program makes them.
///
/// # Errors
/// Fails when the kernel refuses a request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn survey(socket: &mut impl NetlinkExchange, room: Room) -> Result<Survey, NetlinkError> {
    let mut found = Survey {
        sets_match: true,
        ..Survey::default()
    };
    let (sets, ours) = (&mut found.sets, &mut found.sets_match);
    let dump = socket.dump(
        "list the sets",
        |writer, seq| {
            request(writer, msg::GET_SET, nft::F_DUMP, seq, |writer| {
                writer.str(set::TABLE, TABLE);
            });
        },
        |message| {
            let body = body(message);
            match attr_str(body, set::NAME)?.and_then(SetName::parse) {
                Some(name) if matches(&expected_set(name, room), body) => {
                    sets.insert(name);
                }
                _ => *ours = alien("set", attr_str(body, set::NAME)?),
            }
            Ok(())
        },
    );
    absent_is_none(dump)?;
    found.sets_match &= SetName::fixed().iter().all(|name| found.sets.contains(name));
    let round_robin_chains = &mut found.round_robin_chains;
    let dump = socket.dump(
        "list the chains",
        |writer, seq| {
            request(writer, msg::GET_CHAIN, nft::F_DUMP, seq, |writer| {
                writer.str(chain::TABLE, TABLE);
            });
        },
        |message| {
            if attr_str(body(message), chain::TABLE)? == Some(TABLE) {
                round_robin_chains.extend(attr_str(body(message), chain::NAME)?.and_then(RoundRobinChain::parse));
            }
            Ok(())
        },
    );
    absent_is_none(dump)?;
    Ok(found)
}

fn expected_set(name: SetName, room: Room) -> Vec<u8> {
    let mut writer = Writer::new();
    sets::write_set(&mut writer, name, room, 0);
    let bytes = writer.finish().unwrap_or_default();
    // User data is for nft's eyes, and a set that nft loaded may say the same in other words.
    without(&bytes, &[set::ID, set::USERDATA])
}

/// Returns the timeouts that the timeout objects follow; `None` if there are other objects than those that are always there and
/// these.
///
/// # Errors
/// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn timeouts(
    socket: &mut impl NetlinkExchange,
    idle: &BTreeSet<Timeouts>,
) -> Result<Option<KernelTimeouts>, NetlinkError> {
    let mut listed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    socket.dump(
        "list the objects",
        |writer, seq| {
            request(writer, msg::GET_OBJ, nft::F_DUMP, seq, |writer| {
                writer.str(object::TABLE, TABLE);
            });
        },
        |message| {
            let body = body(message);
            let name = attr_str(body, object::NAME)?.unwrap_or_default();
            listed.insert(name.to_owned(), body.to_vec());
            Ok(())
        },
    )?;
    let first = listed.get(&Timeouts::Flows(name::Family::V4).to_string());
    let Some(kernel) = first.map(|body| read_policy(body)).transpose()?.flatten() else {
        return Ok(None);
    };
    let is_ours = |timeouts: Timeouts| {
        let mut expected = Writer::new();
        sets::write_timeouts(&mut expected, timeouts, &kernel);
        let expected = expected.finish().unwrap_or_default();
        let body = listed.get(&timeouts.to_string());
        body.is_some_and(|body| matches(&expected, body)) || alien("object", Some(&timeouts.to_string()))
    };
    let mut expected = Timeouts::FIXED.into_iter().chain(idle.iter().copied());
    let all_ours = expected.all(is_ours) && listed.len() == Timeouts::FIXED.len() + idle.len();
    Ok(all_ours.then_some(kernel))
}

fn read_policy(body: &[u8]) -> Result<Option<KernelTimeouts>, Malformed> {
    let Some(data) = Attrs::new(body).first(object::DATA)? else {
        return Ok(None);
    };
    let Some(policy) = Attrs::new(data.payload).first(object::TIMEOUTS)? else {
        return Ok(None);
    };
    let mut seconds = BTreeMap::new();
    for attr in Attrs::new(policy.payload) {
        let attr = attr?;
        seconds.insert(attr.kind, attr.be32()?);
    }
    Ok(KernelTimeouts::of_policy(|state: TimeoutState| {
        seconds.get(&state.attribute()).copied()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tlv::written;

    #[test]
    fn every_set_is_as_it_is_made() {
        let widths = ListenScope::ALL.map(|listen_scope| SetName::Spread(listen_scope, SpreadRule::random(7)));
        for name in SetName::fixed().into_iter().chain(widths) {
            let listed = written(|writer| sets::write_set(writer, name, Room::default(), 5));
            for other in SetName::fixed() {
                assert_eq!(
                    matches(&expected_set(other, Room::default()), &listed),
                    other == name,
                    "{name} as {other}"
                );
            }
        }
    }
}
