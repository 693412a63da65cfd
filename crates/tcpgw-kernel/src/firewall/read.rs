//! The chains and rules that `nf_tables` has.

use std::collections::BTreeMap;

use super::decode::{self, Decoded};
use super::dump::{attrs, dump, text};
use super::sets::{ForeignSetName, ForeignSets};
use super::{Device, FirewallBase, FirewallChain, FirewallHook, ForeignTable, Rule, TableFamily};
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use crate::netlink::tlv::{Malformed, Message};
use crate::nftables::nat_order::OlderChains;
use crate::nftables::nft::{chain, msg, rule, table};
use crate::nftables::skeleton::TABLE;

const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_DORMANT: u32 = 1;
const TABLE_OWNED: u32 = 2;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
const DEVICE_NAME: u16 = 1;
const DEVICE_PREFIX: u16 = 2;

/// Information about what a reading of the chains has left out, and whether its result may become outdated without a
/// notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Tables that see frames of bridges instead of packets, with chains that may drop.
    pub other_families: Vec<ForeignTable>,
    /// The table of tcpgw, which is left out.
    pub own_table: Option<OwnTable>,
    /// Whether rules use sets whose elements end by themselves, or are added by packets: what was read of these is old after
    /// some time, and the generation of the rules stays the same.
    pub changes_silently: bool,
}

/// Data that is read of the table of tcpgw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnTable {
    /// The kernel's number for it.
    pub handle: u64,
    /// The NAT chains that were there before it; `None` where it does not say, because an earlier build or `nft` loaded it.
    pub older: Option<OlderChains>,
}

/// Reads every chain except those of tcpgw's table. `open` opens further sockets like `socket`, for sets that may be
/// too large to be listed completely.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn read<A: NetlinkExchange>(
    socket: &mut impl NetlinkExchange,
    open: impl Fn() -> Result<A, NetlinkError>,
) -> Result<(Vec<FirewallChain>, Unread), NetlinkError> {
    restarting(|| read_once(socket, &open))
}

/// Reads every chain except those of tcpgw's table, without rules.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn without_rules(socket: &mut impl NetlinkExchange) -> Result<Vec<FirewallChain>, NetlinkError> {
    restarting(|| {
        let tables = tables(socket, &mut None)?;
        chains(socket, &tables, None)
    })
}

/// Returns the port id of the socket that owns the table of tcpgw, if any.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn owner(socket: &mut impl NetlinkExchange) -> Result<Option<u32>, NetlinkError> {
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

fn read_once<A: NetlinkExchange>(
    socket: &mut impl NetlinkExchange,
    open: &impl Fn() -> Result<A, NetlinkError>,
) -> Result<(Vec<FirewallChain>, Unread), NetlinkError> {
    let mut unread = Unread::default();
    let tables = tables(socket, &mut unread.own_table)?;
    let mut chains = chains(socket, &tables, unread.own_table.as_mut())?;
    chains.retain(|chain| {
        let judged = chain.table.family != TableFamily::Bridge;
        if !judged && chain.base.is_some() && !unread.other_families.contains(&chain.table) {
            unread.other_families.push(chain.table.clone());
        }
        judged
    });
    if chains.is_empty() {
        return Ok((chains, unread));
    }
    let is_foreign = |family, table: &str| tables.contains_key(&(family, table.to_owned()));
    let mut sets = ForeignSets::read(socket, is_foreign)?;
    let unfinished = rules(socket, &mut chains, &sets)?;
    for unfinished in unfinished {
        unfinished.finish(&mut chains, &mut sets, open)?;
    }
    unread.changes_silently = sets.changes_silently;
    Ok((chains, unread))
}

/// A rule whose named sets have not been read yet.
struct UnfinishedRule {
    chain: usize,
    rule: usize,
    expressions: Vec<u8>,
    sets: Vec<ForeignSetName>,
}

impl UnfinishedRule {
    fn finish<A: NetlinkExchange>(
        &self,
        chains: &mut [FirewallChain],
        sets: &mut ForeignSets,
        open: &impl Fn() -> Result<A, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        for name in &self.sets {
            sets.read_named(name, open);
        }
        let Some(chain) = chains.get_mut(self.chain) else {
            return Ok(());
        };
        let rule: Option<&mut Rule> = chain.rules.get_mut(self.rule);
        if let Some(rule) = rule.filter(|_| sets.afford(self.sets.iter())) {
            let of_table = |name: &str| sets.get(chain.table.family, &chain.table.name, name);
            *rule = decode::rule(chain.table.family, &self.expressions, &of_table)?.rule;
        }
        Ok(())
    }
}

/// Adds their rules to chains, and returns those that must be decoded again once more sets were read.
fn rules(
    socket: &mut impl NetlinkExchange,
    chains: &mut [FirewallChain],
    sets: &ForeignSets,
) -> Result<Vec<UnfinishedRule>, NetlinkError> {
    let places: BTreeMap<ForeignSetName, usize> = chains
        .iter()
        .enumerate()
        .map(|(at, chain)| ((chain.table.family, chain.table.name.clone(), chain.name.clone()), at))
        .collect();
    let mut unfinished = Vec::new();
    dump(socket, "list all rules", msg::GET_RULE, |family, message| {
        let [table, chain] = [rule::TABLE, rule::CHAIN].map(|kind| text(message, kind));
        let (table, chain) = (table?, chain?);
        let Some(at) = places.get(&(family, table.clone(), chain)).copied() else {
            return Ok(());
        };
        let expressions = attrs(message)?.first(rule::EXPRESSIONS)?;
        let expressions = expressions.map_or(&[][..], |list| list.payload);
        let of_table = |name: &str| sets.get(family, &table, name);
        let Decoded { rule, unread } = decode::rule(family, expressions, &of_table)?;
        if let Some(chain) = chains.get_mut(at) {
            if !unread.is_empty() {
                unfinished.push(UnfinishedRule {
                    chain: at,
                    rule: chain.rules.len(),
                    expressions: expressions.to_vec(),
                    sets: unread.into_iter().map(|set| (family, table.clone(), set)).collect(),
                });
            }
            chain.rules.push(rule);
        }
        Ok(())
    })?;
    Ok(unfinished)
}

/// Tables that are in effect, each with whether it has an owner, and its number.
type Tables = BTreeMap<(TableFamily, String), (bool, Option<u64>)>;

fn tables(socket: &mut impl NetlinkExchange, own: &mut Option<OwnTable>) -> Result<Tables, NetlinkError> {
    let mut tables = BTreeMap::new();
    dump(socket, "list all tables", msg::GET_TABLE, |family, message| {
        let name = text(message, table::NAME)?;
        let flags = attrs(message)?.first(TABLE_FLAGS)?.map_or(Ok(0), |attr| attr.be32())?;
        let handle = attrs(message)?
            .first(TABLE_HANDLE)?
            .map(|attr| attr.be64())
            .transpose()?;
        if (family, name.as_str()) == (TableFamily::Inet, TABLE) {
            *own = handle.map(|handle| OwnTable { handle, older: None });
        } else if flags & TABLE_DORMANT == 0 {
            tables.insert((family, name), (flags & TABLE_OWNED != 0, handle));
        }
        Ok(())
    })?;
    Ok(tables)
}

fn chains(
    socket: &mut impl NetlinkExchange,
    tables: &Tables,
    mut own: Option<&mut OwnTable>,
) -> Result<Vec<FirewallChain>, NetlinkError> {
    let mut chains = Vec::new();
    dump(socket, "list all chains", msg::GET_CHAIN, |family, message| {
        let table = text(message, chain::TABLE)?;
        if (family, table.as_str()) == (TableFamily::Inet, TABLE) {
            let userdata = attrs(message)?.first(chain::USERDATA)?;
            let older = userdata.and_then(|userdata| OlderChains::decode(userdata.payload));
            if let Some(own) = own.as_mut().filter(|_| older.is_some()) {
                own.older = older;
            }
            return Ok(());
        }
        let Some((owned, handle)) = tables.get(&(family, table.clone())) else {
            return Ok(());
        };
        chains.push(FirewallChain {
            table: ForeignTable {
                family,
                name: table,
                legacy: false,
                owned: *owned,
                handle: *handle,
            },
            name: text(message, chain::NAME)?,
            handle: attrs(message)?
                .first(chain::HANDLE)?
                .map(|attr| attr.be64())
                .transpose()?,
            base: base(family, message)?,
            devices: devices(message)?,
            rules: Vec::new(),
        });
        Ok(())
    })?;
    Ok(chains)
}

fn base(family: TableFamily, message: &Message<'_>) -> Result<Option<FirewallBase>, Malformed> {
    const DROP: u32 = 0;
    let Some(hook) = attrs(message)?.first(CHAIN_HOOK)? else {
        return Ok(None);
    };
    let number = |kind| hook.nested().first(kind)?.map_or(Ok(0), |attr| attr.be32());
    let policy = attrs(message)?.first(CHAIN_POLICY)?;
    let is_ip = matches!(family, TableFamily::Inet | TableFamily::Ip | TableFamily::Ip6);
    Ok(Some(FirewallBase {
        hook: match number(HOOK_NUMBER)? {
            0 if is_ip => FirewallHook::Prerouting,
            1 if is_ip => FirewallHook::Input,
            2 if is_ip => FirewallHook::Forward,
            3 if is_ip => FirewallHook::Output,
            4 if is_ip => FirewallHook::Postrouting,
            0 if family == TableFamily::Arp => FirewallHook::Input,
            1 if family == TableFamily::Arp => FirewallHook::Output,
            5 if family == TableFamily::Inet => FirewallHook::Ingress,
            0 if family == TableFamily::Netdev => FirewallHook::Ingress,
            1 if family == TableFamily::Netdev => FirewallHook::Egress,
            _ => FirewallHook::Other,
        },
        nat: text(message, CHAIN_TYPE)? == "nat",
        priority: number(HOOK_PRIORITY)?.cast_signed(),
        drops: policy.map(|policy| policy.be32()).transpose()? == Some(DROP),
    }))
}

/// Returns the interfaces that a base chain is hooked to.
fn devices(message: &Message<'_>) -> Result<Vec<Device>, Malformed> {
    let mut devices = Vec::new();
    let Some(hook) = attrs(message)?.first(CHAIN_HOOK)? else {
        return Ok(devices);
    };
    let mut add = |payload: &[u8], is_prefix| {
        // The kernel takes any bytes but a slash, a colon and white space for a name.
        let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        devices.push(Device {
            name: String::from_utf8_lossy(name).into_owned(),
            is_prefix,
        });
    };
    // A single one is listed twice.
    if let Some(list) = hook.nested().first(HOOK_DEVICES)? {
        for device in list.nested() {
            let device = device?;
            if matches!(device.kind, DEVICE_NAME | DEVICE_PREFIX) {
                add(device.payload, device.kind == DEVICE_PREFIX);
            }
        }
    } else if let Some(device) = hook.nested().first(HOOK_DEVICE)? {
        add(device.payload, false);
    }
    Ok(devices)
}
