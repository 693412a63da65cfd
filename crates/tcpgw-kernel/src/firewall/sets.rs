//! Sets that rules look into.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::attributes::read_verdict;
use super::decode::SetContent;
use super::dump::{attrs, dump, header, of, text};
use super::{RuleVerdict, SetElement, TableFamily};
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Attrs, Malformed, Message};
use crate::nftables::nft::{LIST_ELEM, elem, msg, set};

/// Largest number of sets without a name that are read, since each costs a request, and largest number of sets with a
/// name.
const MOST_SETS: usize = 2000;
/// Largest number of elements of a named set that are read: the kernel walks a set from its beginning for every 32 KiB
/// that it lists.
const MOST_ELEMENTS: usize = 20_000;
/// Largest number of elements of named sets that are copied into rules, all rules taken together.
const MOST_COPIED: usize = 50_000;
/// Longest key in bytes: `NFT_DATA_VALUE_MAXLEN`.
const LONGEST_KEY: u32 = 64;
const SET_ANONYMOUS: u32 = 1;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;
const ELEMENT_FLAGS: u16 = 3;

/// The table's family and name, and the set's name.
pub(super) type ForeignSetName = (TableFamily, String, String);

/// Sets of other programs: those without a name with their elements, the others as far as they were read.
pub(super) struct ForeignSets {
    found: BTreeMap<ForeignSetName, ForeignSet>,
    left: usize,
    /// Whether a set was read whose elements are added or removed without a notification.
    pub(super) changes_silently: bool,
}

struct ForeignSet {
    interval: bool,
    /// Whether the elements may change at any time without a notification: they expire, or packets add them.
    changes_silently: bool,
    /// Whether the set is not read: it has too many elements, or they could not be read.
    is_closed: bool,
    content: SetContent,
}

impl ForeignSets {
    pub(super) fn read(
        socket: &mut impl NetlinkExchange,
        is_foreign: impl Fn(TableFamily, &str) -> bool,
    ) -> Result<Self, NetlinkError> {
        let mut found: BTreeMap<ForeignSetName, ForeignSet> = BTreeMap::new();
        let mut anonymous = Vec::new();
        let mut named = 0;
        dump(socket, "list all sets", msg::GET_SET, |family, message| {
            let number = |kind| attrs(message)?.first(kind)?.map_or(Ok(0), |attr| attr.be32());
            let flags: u32 = number(set::FLAGS)?;
            let name = (family, text(message, set::TABLE)?, text(message, set::NAME)?);
            let is_anonymous = flags & SET_ANONYMOUS != 0;
            let has_room = if is_anonymous {
                anonymous.len() < MOST_SETS
            } else {
                named < MOST_SETS
            };
            if !has_room || !is_foreign(family, &name.1) {
                return Ok(());
            }
            if is_anonymous {
                anonymous.push(name.clone());
            } else {
                named += 1;
            }
            let key_len = number(set::KEY_LEN)?.min(LONGEST_KEY);
            let content = SetContent {
                key_len: usize::try_from(key_len).unwrap_or(0),
                ..SetContent::default()
            };
            let set = ForeignSet {
                interval: flags & set::F_INTERVAL != 0 && flags & set::F_CONCAT == 0,
                changes_silently: flags & (set::F_TIMEOUT | set::F_EVAL) != 0,
                is_closed: false,
                content,
            };
            found.insert(name, set);
            Ok(())
        })?;
        for name in anonymous {
            if let Some(set) = found.get_mut(&name) {
                let mut listed = Vec::new();
                socket.dump("list the elements of a set", listing(&name), |message| {
                    set.content.catch_all |= add(message, &mut listed)?;
                    Ok(())
                })?;
                set.content.elements = Some(spans(listed, set.interval));
            }
        }
        Ok(Self {
            found,
            left: MOST_COPIED,
            changes_silently: false,
        })
    }

    pub(super) fn get(&self, family: TableFamily, table: &str, name: &str) -> Option<&SetContent> {
        let set = self.found.get(&(family, table.to_owned(), name.to_owned()))?;
        Some(&set.content)
    }

    /// Reads a named set, unless it cannot be read or has too many elements. `open` opens a socket for it.
    pub(super) fn read_named<A: NetlinkExchange>(
        &mut self,
        name: &ForeignSetName,
        open: impl Fn() -> Result<A, NetlinkError>,
    ) {
        let left = self.left;
        let Some(set) = self.found.get_mut(name) else {
            return;
        };
        if set.is_closed || set.content.elements.is_some() || left == 0 {
            return;
        }
        self.changes_silently |= set.changes_silently;
        let mut listed = Vec::new();
        let mut catch_all = false;
        let most = MOST_ELEMENTS.min(left);
        let read = open().and_then(|socket| {
            socket.dump_until("list the elements of a set", listing(name), |message| {
                catch_all |= add(message, &mut listed)?;
                Ok(if listed.len() > most {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            })
        });
        match read {
            Ok(()) if listed.len() <= most => {
                set.content.catch_all = catch_all;
                set.content.elements = Some(spans(listed, set.interval));
            }
            // The next caller need not try again.
            Ok(()) => set.is_closed = true,
            Err(error) => {
                set.is_closed = true;
                tracing::debug!(%error, "failed to list the elements of a foreign set");
            }
        }
    }

    /// Returns whether a rule can get the elements of these sets: every rule has a copy of its own.
    pub(super) fn afford<'a>(&mut self, names: impl Iterator<Item = &'a ForeignSetName>) -> bool {
        let of = |name: &ForeignSetName| {
            let elements = self.found.get(name)?.content.elements.as_ref()?;
            // An empty set costs something, too.
            Some(elements.len() + 1)
        };
        let costs: usize = names.filter_map(of).sum();
        let affordable = costs <= self.left;
        if affordable {
            self.left -= costs;
        }
        affordable
    }
}

fn listing(name: &ForeignSetName) -> impl FnOnce(&mut crate::netlink::tlv::Writer, u32) {
    let (family, table, set) = name;
    move |writer, seq| {
        writer.message(header(msg::GET_ELEM, seq), of(*family), |writer| {
            writer.str(elem::LIST_TABLE, table);
            writer.str(elem::LIST_SET, set);
        });
    }
}

/// Adds the elements of a message, and returns whether one that stands for all others is among them.
fn add(message: &Message<'_>, listed: &mut Vec<ListedElement>) -> Result<bool, Malformed> {
    let mut catch_all = false;
    if let Some(list) = attrs(message)?.first(elem::LIST_ELEMENTS)? {
        for attr in list.nested() {
            let attr = attr?;
            if attr.kind == LIST_ELEM {
                match element(attr.payload)? {
                    Some(element) => listed.push(element),
                    None => catch_all = true,
                }
            }
        }
    }
    Ok(catch_all)
}

fn spans(listed: Vec<ListedElement>, interval: bool) -> Vec<(SetElement, RuleVerdict)> {
    if interval { intervals(listed) } else { singles(listed) }
}

/// An element as the kernel lists it.
struct ListedElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    ends: bool,
    verdict: RuleVerdict,
}

/// Reads an element; `None` is the one that stands for all others.
fn element(payload: &[u8]) -> Result<Option<ListedElement>, Malformed> {
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
    if flags & CATCH_ALL != 0 {
        return Ok(None);
    }
    Ok(Some(ListedElement {
        key: value(elem::KEY)?.unwrap_or_default(),
        key_end: value(elem::KEY_END)?,
        ends: flags & INTERVAL_END != 0,
        verdict: verdict.map_or(Ok(RuleVerdict::Continue), |attr| read_verdict(attr.payload))?,
    }))
}

fn singles(listed: Vec<ListedElement>) -> Vec<(SetElement, RuleVerdict)> {
    let single = |listed: ListedElement| {
        let to = listed.key_end.unwrap_or_else(|| listed.key.clone());
        let element = SetElement { from: listed.key, to };
        (element, listed.verdict)
    };
    listed.into_iter().map(single).collect()
}

/// Converts the elements of a tree to intervals. A tree has two elements for each: its first value, and the first one
/// after it.
fn intervals(mut listed: Vec<ListedElement>) -> Vec<(SetElement, RuleVerdict)> {
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
        found.push((SetElement { from: first.key, to }, first.verdict));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: u8, ends: bool) -> ListedElement {
        ListedElement {
            key: vec![0, key],
            key_end: None,
            ends,
            verdict: RuleVerdict::Continue,
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
