//! Reading the table back: its generation, whether its rules are ours, and its elements.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use crate::Counted;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::{NetlinkError, restarting};
use crate::netlink::tlv::{Attr, Attrs, Family, Header, Malformed, Message, Messages, Writer};
use crate::nftables::nft::{self, chain, elem, expr, msg, object, rule, set, table};
use crate::nftables::sets;
use crate::nftables::skeleton::{self, TABLE};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{self, ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::{Limits, Rows};
use tcpgw_core::ruleset::skeleton::{self as rules, Asked, Chain};
use tcpgw_core::ruleset::spec::{Payload, SetSpec};
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, TcpState, Timeouts};
use tcpgw_core::ruleset::{Ruleset, idle_timeouts};

/// The table as it stands in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The kernel's number for it, never given twice in a network namespace.
    pub handle: u64,
    /// Its comment, which tells the skeleton and the flow mark.
    pub comment: Option<String>,
    /// `NFT_TABLE_F_*`.
    pub flags: u32,
    /// The netlink port of the socket that owns it.
    pub owner: Option<u32>,
}

/// The generation id: it grows with each transaction of anyone in this network namespace.
pub fn generation(socket: &mut impl NetlinkExchange) -> Result<u32, NetlinkError> {
    let mut id = None;
    socket.request(
        "read the generation of the ruleset",
        |writer, seq| request(writer, msg::GET_GEN, nft::F_ACK, seq, |_| {}),
        |message| {
            let (_, attrs) = message.family()?;
            id = attrs.first(nft::GEN_ID)?.map(|attr| attr.be32()).transpose()?.or(id);
            Ok(())
        },
    )?;
    id.ok_or(NetlinkError::Malformed(Malformed::new(
        "no generation id in the answer",
    )))
}

/// The table, if it is there.
pub fn table(socket: &mut impl NetlinkExchange) -> Result<Option<Table>, NetlinkError> {
    let mut found = None;
    let answer = socket.request(
        "read the table",
        |writer, seq| {
            request(writer, msg::GET_TABLE, nft::F_ACK, seq, |writer| {
                writer.str(table::NAME, TABLE);
            });
        },
        |message| {
            let (mut handle, mut comment, mut flags, mut owner) = (None, None, 0, None);
            for attr in message.family()?.1 {
                let attr = attr?;
                match attr.kind {
                    table::HANDLE => handle = Some(attr.be64()?),
                    table::USERDATA => comment = read_comment(attr.payload),
                    table::FLAGS => flags = attr.be32()?,
                    table::OWNER => owner = Some(attr.be32()?),
                    _ => {}
                }
            }
            found = handle.map(|handle| Table {
                handle,
                comment,
                flags,
                owner,
            });
            Ok(())
        },
    );
    absent_is_none(answer)?;
    Ok(found)
}

fn absent_is_none(answer: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match answer {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

fn read_comment(userdata: &[u8]) -> Option<String> {
    let (&[kind, length], rest) = userdata.split_first_chunk::<2>()?;
    let text = rest.get(..usize::from(length).checked_sub(1)?)?;
    (kind == table::COMMENT).then(|| tcpgw_core::escape::text(&String::from_utf8_lossy(text)))
}

/// Whether the objects, sets, chains and rules are those that this program makes, for these round-robin services and
/// numbers of slots: what the sets hold does not matter. Notes which optional sets the rules ask.
///
/// # Errors
/// The kernel could not be read: those of [`NetlinkExchange::dump`]; likewise for all of these.
pub fn skeleton_is_ours(
    socket: &mut impl NetlinkExchange,
    mark: FlowMark,
    found: &mut Found,
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
    found.asked = asked(&listed)?;
    Ok(rules_are(&listed, &expected_chains(mark, found))?)
}

/// All chains that there should be, by name.
pub fn expected_chains(mark: FlowMark, found: &Found) -> BTreeMap<String, Chain> {
    let widths = found.widths();
    let spreads = ListenScope::ALL.map(|listen_scope| {
        let of_reach = widths.iter().filter(|(of, _)| *of == listen_scope);
        rules::spread(listen_scope, &of_reach.map(|(_, width)| *width).collect(), mark)
    });
    let turns = found.turn_chains.iter().map(rules::turn);
    let chains = rules::fixed(mark, &found.asked).into_iter().chain(spreads).chain(turns);
    chains.map(|chain| (chain.name.clone(), chain)).collect()
}

/// What a look at the sets and chains found, before the elements are read.
#[derive(Debug, Default)]
pub struct Found {
    /// The sets.
    pub sets: BTreeSet<SetName>,
    /// The chains that count turns.
    pub turn_chains: BTreeSet<RoundRobinChain>,
    /// The optional sets that the rules ask.
    pub asked: Asked,
    /// What the objects with timeouts follow.
    pub timeouts: KernelTimeouts,
    /// Whether they are all that there should be, and made as they should be.
    pub sets_match: bool,
}

impl Found {
    fn widths(&self) -> BTreeSet<(ListenScope, SpreadRule)> {
        let width = |name: &SetName| match name {
            SetName::Spread(listen_scope, width) => Some((*listen_scope, *width)),
            _ => None,
        };
        self.sets.iter().filter_map(width).collect()
    }

    /// The objects with timeouts that these sets need, beside those that are always there.
    pub fn idle_timeouts(&self) -> BTreeSet<Timeouts> {
        let of = |(listen_scope, rule)| idle_timeouts(listen_scope, &[rule].into());
        self.widths().into_iter().flat_map(of).collect()
    }
}

/// The sets that there are, and whether they are all ours and made as we make them.
pub fn survey(socket: &mut impl NetlinkExchange, room: Room) -> Result<Found, NetlinkError> {
    let mut found = Found {
        sets_match: true,
        ..Found::default()
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
    let turn_chains = &mut found.turn_chains;
    let dump = socket.dump(
        "list the chains",
        |writer, seq| {
            request(writer, msg::GET_CHAIN, nft::F_DUMP, seq, |writer| {
                writer.str(chain::TABLE, TABLE);
            });
        },
        |message| {
            if attr_str(body(message), chain::TABLE)? == Some(TABLE) {
                turn_chains.extend(attr_str(body(message), chain::NAME)?.and_then(RoundRobinChain::parse));
            }
            Ok(())
        },
    );
    absent_is_none(dump)?;
    Ok(found)
}

/// Says what is not as this program makes it; false.
fn alien(what: &str, name: Option<&str>) -> bool {
    tracing::debug!(name, "the kernel has another {what} than expected");
    false
}

fn expected_set(name: SetName, room: Room) -> Vec<u8> {
    let mut writer = Writer::new();
    sets::write_set(&mut writer, name, room, 0);
    let bytes = writer.finish().unwrap_or_default();
    // User data is for nft's eyes, and a set that nft loaded may say the same in other words.
    without(&bytes, &[set::ID, set::USERDATA])
}

/// What the objects with timeouts follow, if there are just those that are always there, and these.
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
    Ok(KernelTimeouts::of_policy(|state: TcpState| {
        seconds.get(&state.attribute()).copied()
    }))
}

/// Whether the chains are these.
pub fn chains_match(socket: &mut impl NetlinkExchange, chains: &BTreeMap<String, Chain>) -> Result<bool, NetlinkError> {
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

/// The bodies of what is listed. They are looked at afterwards: whoever commits while a dump goes on, to whatever table,
/// interrupts it.
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

/// Whether the rules of all chains are those of these.
pub fn rules_match(socket: &mut impl NetlinkExchange, chains: &BTreeMap<String, Chain>) -> Result<bool, NetlinkError> {
    Ok(rules_are(&list_rules(socket)?, chains)?)
}

fn list_rules(socket: &mut impl NetlinkExchange) -> Result<Vec<Vec<u8>>, NetlinkError> {
    list(socket, "list the rules", |writer, seq| {
        request(writer, msg::GET_RULE, nft::F_DUMP, seq, |writer| {
            writer.str(rule::TABLE, TABLE);
        });
    })
}

/// The optional sets that these rules look into.
fn asked(listed: &[Vec<u8>]) -> Result<Asked, Malformed> {
    let mut asked = Asked::new();
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
                asked.extend(set.filter(|set| set.is_optional()));
            }
        }
    }
    Ok(asked)
}

fn rules_are(listed: &[Vec<u8>], chains: &BTreeMap<String, Chain>) -> Result<bool, Malformed> {
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
    let complete = |chain: &Chain| position.get(&chain.name).copied().unwrap_or(0) == chain.rules.len();
    Ok(all_ours && chains.values().all(complete))
}

/// The elements of all sets that are not counters, and whether all of them have the shape of ours.
pub fn elements(socket: &mut impl NetlinkExchange, found: &Found) -> Result<(Ruleset, bool), NetlinkError> {
    let mut sets = BTreeMap::new();
    let mut turns = BTreeMap::new();
    let mut all_ours = true;
    for name in found.sets.iter().copied().filter(|name| !name.is_counter()) {
        let spec = SetSpec::of(name);
        if let SetName::RoundRobin(listen_scope) = name {
            dump_elements(socket, name, |element| {
                let key = element.key.filter(|key| key.len() == spec.key_len());
                if let (Some(key), Some(chain)) = (key, element.chain.and_then(RoundRobinChain::parse)) {
                    turns.insert((listen_scope, key.into()), chain);
                } else {
                    all_ours = alien("element of set", Some(&name.to_string()));
                }
            })?;
            continue;
        }
        let mut rows = Rows::new(&spec);
        dump_elements(socket, name, |element| {
            if !element.push_to(&mut rows, &spec) {
                all_ours = alien("element of set", Some(&name.to_string()));
            }
        })?;
        rows.sort();
        if !rows.is_sorted() {
            // Of one moment it can only list the same element again, as it does while it makes a set larger.
            return Err(NetlinkError::Interrupted);
        }
        sets.insert(name, rows);
    }
    let ruleset = Ruleset::new(sets, turns)
        .among(&found.widths(), &found.turn_chains, &found.asked)
        .with_timeouts(found.timeouts);
    Ok((ruleset, all_ours))
}

/// What packets have counted in a set.
pub fn counted(socket: &mut impl NetlinkExchange, name: SetName) -> Result<Vec<Counted>, NetlinkError> {
    let mut counted = Vec::new();
    dump_elements(socket, name, |element| {
        if let Some(key) = element.key {
            let (packets, bytes) = element.counter.unwrap_or_default();
            counted.push(Counted {
                key: key.into(),
                packets,
                bytes,
            });
        }
    })?;
    Ok(counted)
}

/// Returns what packets have counted under one key, packets and bytes: one look-up, however large the set is. `None`: nothing, or
/// there is no such set.
///
/// # Errors
/// The kernel refuses the request or its answer cannot be read: those of
/// [`NetlinkExchange::request`](crate::netlink::exchange::NetlinkExchange::request).
pub fn counter(
    socket: &mut impl NetlinkExchange,
    name: SetName,
    key: &[u8],
) -> Result<Option<(u64, u64)>, NetlinkError> {
    let mut counter = None;
    let asked = socket.request(
        "look up an element of a set",
        |writer, seq| {
            request(writer, msg::GET_ELEM, nft::F_ACK, seq, |writer| {
                writer.str(elem::LIST_TABLE, TABLE);
                writer.str(elem::LIST_SET, &name.to_string());
                writer.nest(elem::LIST_ELEMENTS, |writer| {
                    writer.nest(nft::LIST_ELEM, |writer| {
                        writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
                    });
                });
            });
        },
        |message| {
            let Some(list) = Attrs::new(body(message)).first(elem::LIST_ELEMENTS)? else {
                return Ok(());
            };
            for attr in Attrs::new(list.payload) {
                let element = Element::read(attr?.payload)?;
                if element.key == Some(key) {
                    counter = element.counter;
                }
            }
            Ok(())
        },
    );
    match asked {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        asked => asked.map(|()| counter),
    }
}

#[derive(Default)]
struct Element<'a> {
    key: Option<&'a [u8]>,
    end: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    chain: Option<&'a str>,
    limits: Option<Limits>,
    counter: Option<(u64, u64)>,
}

impl<'a> Element<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut element = Self::default();
        for attr in Attrs::new(payload) {
            let attr = attr?;
            let value = |kind| Attrs::new(attr.payload).first(kind);
            match attr.kind {
                elem::KEY => element.key = value(elem::VALUE)?.map(|value| value.payload),
                elem::KEY_END => element.end = value(elem::VALUE)?.map(|value| value.payload),
                elem::DATA => {
                    element.data = value(elem::VALUE)?.map(|value| value.payload);
                    element.chain = value(elem::VERDICT)?
                        .map(|verdict| read_goto(verdict.payload))
                        .transpose()?
                        .flatten();
                }
                elem::EXPR => element.counter = read_counter(attr.payload)?,
                elem::EXPRESSIONS => element.limits = read_limits(attr.payload)?,
                _ => {}
            }
        }
        Ok(element)
    }

    /// Whether it has the shape of our rows. One with other limits than ours differs from what is wanted and so gets
    /// replaced.
    fn push_to(&self, rows: &mut Rows, spec: &SetSpec) -> bool {
        let key = self.key.filter(|key| key.len() == spec.key_len());
        let end = if spec.interval {
            self.end.or(self.key)
        } else {
            Some(&[][..])
        };
        let data = if spec.data_len() > 0 { self.data } else { Some(&[][..]) };
        let limits = self
            .limits
            .unwrap_or(Limits {
                packet_rate: 0,
                packet_burst: 0,
                byte_rate: 0,
                byte_burst: 0,
            })
            .to_bytes();
        let limits = if spec.payload == Payload::Limits {
            &limits[..]
        } else {
            &[]
        };
        let (Some(key), Some(end), Some(data)) = (key, end, data) else {
            return false;
        };
        let fits = key.len() + end.len() == spec.identity_len() && data.len() == spec.data_len();
        if fits {
            rows.push(&[key, end, data, limits]);
        }
        fits
    }
}

/// The chain that a verdict goes to, if that is what it does.
fn read_goto(verdict: &[u8]) -> Result<Option<&str>, Malformed> {
    match Attrs::new(verdict).first(elem::VERDICT_CODE)? {
        Some(code) if code.be32()? == elem::GOTO => Attrs::new(verdict)
            .first(elem::VERDICT_CHAIN)?
            .map(|chain| chain.str())
            .transpose(),
        _ => Ok(None),
    }
}

fn read_counter(payload: &[u8]) -> Result<Option<(u64, u64)>, Malformed> {
    let Some(data) = Attrs::new(payload).first(expr::DATA)? else {
        return Ok(None);
    };
    let number = |kind| Attrs::new(data.payload).first(kind)?.map_or(Ok(0), |attr| attr.be64());
    Ok(Some((number(expr::COUNTER_PACKETS)?, number(expr::COUNTER_BYTES)?)))
}

fn read_limits(payload: &[u8]) -> Result<Option<Limits>, Malformed> {
    let (mut packets, mut bytes) = (None, None);
    for expression in Attrs::new(payload) {
        let Some(data) = Attrs::new(expression?.payload).first(expr::DATA)? else {
            continue;
        };
        let value = |kind| Attrs::new(data.payload).first(kind);
        let rate = value(expr::LIMIT_RATE)?.map_or(Ok(0), |attr| attr.be64())?;
        let burst = value(expr::LIMIT_BURST)?.map_or(Ok(0), |attr| attr.be32())?;
        match value(expr::LIMIT_TYPE)?.map_or(Ok(0), |attr| attr.be32())? {
            expr::LIMIT_PACKETS => packets = Some((rate, burst)),
            _ => bytes = Some((rate, burst)),
        }
    }
    Ok(packets
        .zip(bytes)
        .map(|((packet_rate, packet_burst), (byte_rate, byte_burst))| Limits {
            packet_rate,
            packet_burst,
            byte_rate,
            byte_burst,
        }))
}

fn dump_elements(
    socket: &mut impl NetlinkExchange,
    name: SetName,
    mut each: impl FnMut(&Element<'_>),
) -> Result<(), NetlinkError> {
    socket.dump(
        "list the elements of a set",
        |writer, seq| {
            request(writer, msg::GET_ELEM, nft::F_DUMP, seq, |writer| {
                writer.str(elem::LIST_TABLE, TABLE);
                writer.str(elem::LIST_SET, &name.to_string());
            });
        },
        |message| {
            let Some(list) = Attrs::new(body(message)).first(elem::LIST_ELEMENTS)? else {
                return Ok(());
            };
            for attr in Attrs::new(list.payload) {
                each(&Element::read(attr?.payload)?);
            }
            Ok(())
        },
    )
}

fn request(writer: &mut Writer, kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Writer)) {
    let header = Header {
        kind: nft::message(kind),
        flags: flags | nft::F_REQUEST,
        seq,
    };
    writer.message(
        header,
        Family {
            family: nft::INET,
            version: 0,
            res_id: 0,
        },
        fill,
    );
}

fn body<'a>(message: &Message<'a>) -> &'a [u8] {
    message.payload.get(4..).unwrap_or_default()
}

fn message_body(bytes: &[u8]) -> &[u8] {
    Messages::new(bytes)
        .next()
        .and_then(Result::ok)
        .map_or(&[], |message| body(&message))
}

fn attr_str(body: &[u8], kind: u16) -> Result<Option<&str>, Malformed> {
    Attrs::new(body).first(kind)?.map(|attr| attr.str()).transpose()
}

fn without(body: &[u8], kinds: &[u16]) -> Vec<u8> {
    let mut writer = Writer::new();
    for attr in Attrs::new(body)
        .map_while(Result::ok)
        .filter(|attr| !kinds.contains(&attr.kind))
    {
        writer.attr(attr.kind, attr.payload);
    }
    writer.finish().unwrap_or_default()
}

/// Whether everything that was said to the kernel is in what it says: it may add attributes, handles and counters say,
/// but not change or leave out any, and of a list it must have as many as were sent.
fn matches(sent: &[u8], listed: &[u8]) -> bool {
    // libnftnl sends the name of an object without its NUL.
    if sent == listed || listed.strip_suffix(&[0]) == Some(sent) {
        return true;
    }
    let (Some(sent), Some(listed)) = (all_attrs(sent), all_attrs(listed)) else {
        return false;
    };
    let of = |attrs: &[Attr<'_>], kind: u16| attrs.iter().filter(|attr| attr.kind == kind).count();
    sent.iter().enumerate().all(|(at, attr)| {
        let earlier = of(&sent[..at], attr.kind);
        let same = listed.iter().filter(|other| other.kind == attr.kind);
        of(&sent, attr.kind) == same.clone().count()
            && same
                .clone()
                .nth(earlier)
                .is_some_and(|other| matches(attr.payload, other.payload))
    })
}

fn all_attrs(bytes: &[u8]) -> Option<Vec<Attr<'_>>> {
    Attrs::new(bytes).collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::recorded::Recorded;
    use tcpgw_core::ruleset::name::Family as Ip;

    fn bytes(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        fill(&mut writer);
        writer.finish().unwrap()
    }

    fn sent() -> Vec<u8> {
        bytes(|writer| {
            writer.str(1, "tcpgw");
            writer.be32(3, 8);
            writer.nest(9, |writer| {
                writer.nest(1, |writer| writer.be32(1, 2));
                writer.nest(1, |writer| writer.be32(1, 4));
            });
        })
    }

    fn listed(flags: u32, fields: &[u32], handle: Option<u64>) -> Vec<u8> {
        bytes(|writer| {
            writer.str(1, "tcpgw");
            if let Some(handle) = handle {
                writer.be64(20, handle);
            }
            writer.be32(3, flags);
            writer.nest(9, |writer| {
                for field in fields {
                    writer.nest(1, |writer| writer.be32(1, *field));
                }
            });
        })
    }

    #[test]
    fn what_the_kernel_adds_is_no_difference() {
        assert!(matches(&sent(), &listed(8, &[2, 4], None)));
        assert!(matches(&sent(), &listed(8, &[2, 4], Some(7))));
        assert!(matches(b"turn", b"turn\0"));
    }

    #[test]
    fn what_it_changed_or_lacks_is_one() {
        for other in [
            listed(9, &[2, 4], None),
            listed(8, &[4, 2], None),
            listed(8, &[2], None),
            listed(8, &[2, 4, 4], None),
            without(&sent(), &[3]),
            Vec::new(),
            vec![1, 2, 3],
        ] {
            assert!(!matches(&sent(), &other), "{other:?}");
        }
        assert!(!matches(b"turn", b"turns"));
    }

    #[test]
    fn every_set_is_as_it_is_made() {
        let widths = ListenScope::ALL.map(|listen_scope| SetName::Spread(listen_scope, SpreadRule::random(7)));
        for name in SetName::fixed().into_iter().chain(widths) {
            let listed = bytes(|writer| sets::write_set(writer, name, Room::default(), 5));
            for other in SetName::fixed() {
                assert_eq!(
                    matches(&expected_set(other, Room::default()), &listed),
                    other == name,
                    "{name} as {other}"
                );
            }
        }
    }

    #[test]
    fn elements_of_another_shape_are_not_ours() {
        let element = |key: &[u8], data: Option<&[u8]>| {
            bytes(|writer| {
                writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
                if let Some(data) = data {
                    writer.nest(elem::DATA, |writer| writer.attr(elem::VALUE, data));
                }
            })
        };
        let spec = SetSpec::of(SetName::Slots(ListenScope::Any(Ip::V4)));
        for (key, data, fits) in [
            (8, Some(8), true),
            (8, Some(4), false),
            (8, None, false),
            (4, Some(8), false),
            (0, Some(8), false),
        ] {
            let payload = element(&vec![1; key], data.map(|len| vec![2; len]).as_deref());
            let mut rows = Rows::new(&spec);
            assert_eq!(Element::read(&payload).unwrap().push_to(&mut rows, &spec), fits);
            assert_eq!(rows.len(), usize::from(fits));
        }
        let mut rows = Rows::new(&spec);
        assert!(!Element::read(&[]).unwrap().push_to(&mut rows, &spec));
    }

    #[test]
    fn an_element_may_be_listed_twice_but_not_with_two_values() {
        let name = SetName::Slots(ListenScope::Any(Ip::V4));
        let found = Found {
            sets: [name].into(),
            ..Found::default()
        };
        let read = |values: &[u8]| {
            let mut writer = Writer::new();
            request(&mut writer, msg::NEW_ELEM, 0, 1, |writer| {
                writer.nest(elem::LIST_ELEMENTS, |writer| {
                    for value in values {
                        sets::write_element(writer, &SetSpec::of(name), &[&[1; 8][..], &[*value; 8]].concat(), false);
                    }
                });
            });
            let end = writer.begin_plain(Header {
                kind: 3,
                flags: 0,
                seq: 1,
            });
            writer.raw(&[0; 4]);
            writer.end(end);
            let answers = writer.finish().unwrap();
            elements(&mut Recorded::new(&answers), &found).map(|(ruleset, _)| ruleset.len())
        };
        assert_eq!(read(&[2, 2]).unwrap(), 1);
        assert!(matches!(read(&[2, 3]), Err(NetlinkError::Interrupted)));
    }

    #[test]
    fn only_a_goto_leads_to_a_chain() {
        let verdict = |code: u32| {
            bytes(|writer| {
                writer.be32(elem::VERDICT_CODE, code);
                writer.str(elem::VERDICT_CHAIN, "turn_v4_3_a");
            })
        };
        assert_eq!(read_goto(&verdict(elem::GOTO)).unwrap(), Some("turn_v4_3_a"));
        assert_eq!(read_goto(&verdict(elem::GOTO + 1)).unwrap(), None);
        assert_eq!(read_goto(&[]).unwrap(), None);
    }
}
