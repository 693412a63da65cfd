//! The chains and rules that `nf_tables` has.

use std::collections::BTreeMap;

use super::decode::{self, SetContent};
use super::{Base, Chain, Element, Hook, Table, TableFamily, Verdict};
use crate::kernel::ask::Ask;
use crate::kernel::nft::{self, LIST_ELEM, chain, elem, msg, rule, set, table};
use crate::kernel::skeleton::TABLE;
use crate::kernel::socket::{NetlinkError, restarting};
use crate::kernel::tlv::{Attrs, Family, Header, Malformed, Message};

/// More sets without a name than these are not looked into: each costs a request.
const MOST_SETS: usize = 2000;
const SET_ANONYMOUS: u32 = 1;
const INTERVAL_END: u32 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_DORMANT: u32 = 1;
const TABLE_OWNED: u32 = 2;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;

/// What was left out of a reading, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Tables that see frames instead of packets, and have chains that may drop.
    pub other_families: Vec<Table>,
    /// The number of our own table, which is left out.
    pub own_table: Option<u64>,
}

/// Reads every chain but those of our own table.
///
/// # Errors
/// Those of [`Ask::dump`].
pub fn read(socket: &mut impl Ask) -> Result<(Vec<Chain>, Unread), NetlinkError> {
    restarting(|| read_once(socket))
}

/// The port id of the socket that owns our table, if one does.
///
/// # Errors
/// Those of [`Ask::dump`].
pub fn owner(socket: &mut impl Ask) -> Result<Option<u32>, NetlinkError> {
    const TABLE_OWNER: u16 = 7;
    restarting(|| {
        let mut owner = None;
        dump(socket, "list all tables", msg::GET_TABLE, |family, message| {
            if (family, text(message, table::NAME)?.as_str()) == (TableFamily::Inet, TABLE) {
                owner = attrs(message)?
                    .first(TABLE_OWNER)?
                    .map(|attr| attr.be32())
                    .transpose()?;
            }
            Ok(())
        })?;
        Ok(owner)
    })
}

type Name = (TableFamily, String, String);
type SetsOfTables = BTreeMap<Name, SetContent>;

fn read_once(socket: &mut impl Ask) -> Result<(Vec<Chain>, Unread), NetlinkError> {
    let mut unread = Unread::default();
    let tables = tables(socket, &mut unread.own_table)?;
    let mut chains = chains(socket, &tables)?;
    chains.retain(|chain| {
        let judged = matches!(
            chain.table.family,
            TableFamily::Inet | TableFamily::Ip | TableFamily::Ip6
        );
        if !judged && chain.base.is_some() && !unread.other_families.contains(&chain.table) {
            unread.other_families.push(chain.table.clone());
        }
        judged
    });
    if chains.is_empty() {
        return Ok((chains, unread));
    }
    let sets = anonymous_sets(socket)?;
    let places: BTreeMap<Name, usize> = chains
        .iter()
        .enumerate()
        .map(|(at, chain)| ((chain.table.family, chain.table.name.clone(), chain.name.clone()), at))
        .collect();
    dump(socket, "list all rules", msg::GET_RULE, |family, message| {
        let [table, chain] = [rule::TABLE, rule::CHAIN].map(|kind| text(message, kind));
        let (table, chain) = (table?, chain?);
        let Some(at) = places.get(&(family, table.clone(), chain)).copied() else {
            return Ok(());
        };
        let expressions = attrs(message)?.first(rule::EXPRESSIONS)?;
        let of_table = |name: &str| sets.get(&(family, table.clone(), name.to_owned()));
        let rule = decode::rule(family, expressions.map_or(&[][..], |list| list.payload), &of_table)?;
        if let Some(chain) = chains.get_mut(at) {
            chain.rules.push(rule);
        }
        Ok(())
    })?;
    Ok((chains, unread))
}

/// Tables that are at work: whether each is owned, and its number.
type Tables = BTreeMap<(TableFamily, String), (bool, Option<u64>)>;

fn tables(socket: &mut impl Ask, own: &mut Option<u64>) -> Result<Tables, NetlinkError> {
    let mut tables = BTreeMap::new();
    dump(socket, "list all tables", msg::GET_TABLE, |family, message| {
        let name = text(message, table::NAME)?;
        let flags = attrs(message)?.first(TABLE_FLAGS)?.map_or(Ok(0), |attr| attr.be32())?;
        let handle = attrs(message)?
            .first(TABLE_HANDLE)?
            .map(|attr| attr.be64())
            .transpose()?;
        if (family, name.as_str()) == (TableFamily::Inet, TABLE) {
            *own = handle;
        } else if flags & TABLE_DORMANT == 0 {
            tables.insert((family, name), (flags & TABLE_OWNED != 0, handle));
        }
        Ok(())
    })?;
    Ok(tables)
}

fn chains(socket: &mut impl Ask, tables: &Tables) -> Result<Vec<Chain>, NetlinkError> {
    let mut chains = Vec::new();
    dump(socket, "list all chains", msg::GET_CHAIN, |family, message| {
        let table = text(message, chain::TABLE)?;
        let Some((owned, handle)) = tables.get(&(family, table.clone())) else {
            return Ok(());
        };
        chains.push(Chain {
            table: Table {
                family,
                name: table,
                legacy: false,
                owned: *owned,
                handle: *handle,
            },
            name: text(message, chain::NAME)?,
            base: base(family, message)?,
            rules: Vec::new(),
        });
        Ok(())
    })?;
    Ok(chains)
}

fn base(family: TableFamily, message: &Message<'_>) -> Result<Option<Base>, Malformed> {
    const DROP: u32 = 0;
    let Some(hook) = attrs(message)?.first(CHAIN_HOOK)? else {
        return Ok(None);
    };
    let number = |kind| hook.nested().first(kind)?.map_or(Ok(0), |attr| attr.be32());
    let policy = attrs(message)?.first(CHAIN_POLICY)?;
    let is_ip = matches!(family, TableFamily::Inet | TableFamily::Ip | TableFamily::Ip6);
    Ok(Some(Base {
        hook: match number(HOOK_NUMBER)? {
            0 if is_ip => Hook::Prerouting,
            1 if is_ip => Hook::Input,
            2 if is_ip => Hook::Forward,
            3 if is_ip => Hook::Output,
            4 if is_ip => Hook::Postrouting,
            _ => Hook::Other,
        },
        nat: text(message, CHAIN_TYPE)? == "nat",
        priority: number(HOOK_PRIORITY)?.cast_signed(),
        drops: policy.map(|policy| policy.be32()).transpose()? == Some(DROP),
    }))
}

fn anonymous_sets(socket: &mut impl Ask) -> Result<SetsOfTables, NetlinkError> {
    let mut found: Vec<(Name, bool)> = Vec::new();
    dump(socket, "list all sets", msg::GET_SET, |family, message| {
        let flags = attrs(message)?.first(set::FLAGS)?.map_or(Ok(0), |attr| attr.be32())?;
        let concatenated = flags & set::F_CONCAT != 0;
        if flags & SET_ANONYMOUS != 0 && found.len() < MOST_SETS {
            let name = (family, text(message, set::TABLE)?, text(message, set::NAME)?);
            found.push((name, flags & set::F_INTERVAL != 0 && !concatenated));
        }
        Ok(())
    })?;
    let mut sets = BTreeMap::new();
    for (name, interval) in found {
        let content = elements(socket, &name, interval)?;
        sets.insert(name, content);
    }
    Ok(sets)
}

/// One element as it is listed.
struct Listed {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    ends: bool,
    verdict: Verdict,
}

fn elements(socket: &mut impl Ask, name: &Name, interval: bool) -> Result<SetContent, NetlinkError> {
    let mut listed = Vec::new();
    let (family, table, set) = name;
    socket.dump(
        "list the elements of a set",
        |writer, seq| {
            writer.message(header(msg::GET_ELEM, seq), of(*family), |writer| {
                writer.str(elem::LIST_TABLE, table);
                writer.str(elem::LIST_SET, set);
            });
        },
        |message| {
            if let Some(list) = attrs(message)?.first(elem::LIST_ELEMENTS)? {
                for attr in list.nested() {
                    let attr = attr?;
                    if attr.kind == LIST_ELEM {
                        listed.push(element(attr.payload)?);
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(SetContent {
        elements: if interval { intervals(listed) } else { singles(listed) },
    })
}

fn element(payload: &[u8]) -> Result<Listed, Malformed> {
    let value = |kind| -> Result<Option<Vec<u8>>, Malformed> {
        let Some(attr) = Attrs::new(payload).first(kind)? else {
            return Ok(None);
        };
        Ok(attr.nested().first(elem::VALUE)?.map(|value| value.payload.to_vec()))
    };
    let verdict = match Attrs::new(payload).first(elem::DATA)? {
        Some(data) => data.nested().first(elem::VERDICT)?,
        None => None,
    };
    let flags = Attrs::new(payload)
        .first(ELEMENT_FLAGS)?
        .map_or(Ok(0), |attr| attr.be32())?;
    Ok(Listed {
        key: value(elem::KEY)?.unwrap_or_default(),
        key_end: value(elem::KEY_END)?,
        ends: flags & INTERVAL_END != 0,
        verdict: verdict.map_or(Ok(Verdict::Continue), |attr| decode::read_verdict(attr.payload))?,
    })
}

fn singles(listed: Vec<Listed>) -> Vec<(Element, Verdict)> {
    let single = |listed: Listed| {
        let to = listed.key_end.unwrap_or_else(|| listed.key.clone());
        let element = Element { from: listed.key, to };
        (element, listed.verdict)
    };
    listed.into_iter().map(single).collect()
}

/// In a tree an interval is two elements: its first value, and the first one behind it.
fn intervals(mut listed: Vec<Listed>) -> Vec<(Element, Verdict)> {
    listed.sort_by(|a, b| a.key.cmp(&b.key).then(b.ends.cmp(&a.ends)));
    let mut found = Vec::new();
    let mut rest = listed.into_iter().peekable();
    while let Some(first) = rest.next() {
        if first.ends {
            continue;
        }
        let to = match rest.peek() {
            Some(behind) => one_less(&behind.key),
            None => vec![0xff; first.key.len()],
        };
        found.push((Element { from: first.key, to }, first.verdict));
    }
    found
}

fn one_less(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}

fn dump(
    socket: &mut impl Ask,
    what: &'static str,
    kind: u16,
    mut each: impl FnMut(TableFamily, &Message<'_>) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    socket.dump(
        what,
        |writer, seq| writer.message(header(kind, seq), Family::default(), |_| {}),
        |message| match family(message.family()?.0.family) {
            Some(family) => each(family, message),
            None => Ok(()),
        },
    )
}

fn header(kind: u16, seq: u32) -> Header {
    Header {
        kind: nft::message(kind),
        flags: nft::F_REQUEST | nft::F_DUMP,
        seq,
    }
}

fn attrs<'a>(message: &Message<'a>) -> Result<Attrs<'a>, Malformed> {
    Ok(message.family()?.1)
}

fn text(message: &Message<'_>, kind: u16) -> Result<String, Malformed> {
    let attr = attrs(message)?.first(kind)?;
    Ok(attr.map(|attr| attr.str()).transpose()?.unwrap_or_default().to_owned())
}

const FAMILIES: [(u8, TableFamily); 6] = [
    (1, TableFamily::Inet),
    (2, TableFamily::Ip),
    (3, TableFamily::Arp),
    (5, TableFamily::Netdev),
    (7, TableFamily::Bridge),
    (10, TableFamily::Ip6),
];

fn family(number: u8) -> Option<TableFamily> {
    let found = FAMILIES.iter().find(|(of, _)| *of == number);
    found.map(|(_, family)| *family)
}

fn of(family: TableFamily) -> Family {
    let number = FAMILIES
        .iter()
        .find(|(_, of)| *of == family)
        .map_or(0, |(number, _)| *number);
    Family {
        family: number,
        ..Family::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: u8, ends: bool) -> Listed {
        Listed {
            key: vec![0, key],
            key_end: None,
            ends,
            verdict: Verdict::Continue,
        }
    }

    #[test]
    fn intervals_end_before_the_next_mark() {
        let found = intervals(vec![
            listed(9, true),
            listed(3, false),
            listed(0, true),
            listed(200, false),
        ]);
        let spans: Vec<_> = found.into_iter().map(|(e, _)| (e.from, e.to)).collect();
        assert_eq!(spans, [(vec![0, 3], vec![0, 8]), (vec![0, 200], vec![0xff, 0xff])]);
        assert_eq!(one_less(&[1, 0]), [0, 255]);
    }
}
