//! The rules of an app's network: the processes reach the outside as the gateway does, and one another through services only.
//!
//! A table of its own (`inet tcpup_ID`), beside the gateway's: packets from the network to elsewhere get the gateway's address;
//! what is forwarded into the network belongs to a flow that a service's rule has translated, or is an answer to what a process has
//! asked for. All else, from other processes, other apps and other machines, is dropped.

use std::ffi::CString;
use std::io::IoSlice;

use ipnet::Ipv4Net;
use nftnl::expr::InterfaceName;
use nftnl::{Batch, Chain, ChainType, Hook, MsgType, Policy, ProtoFamily, Rule, Table, nft_expr};

use super::id::AppId;
use super::network::link_prefix;
use tcpgw_core::ruleset::stmt::{FlowDirection, Stmt};
use tcpgw_kernel::ffi::expression;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::netlink::exchange::NetlinkExchange as _;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::nftables::expr;

/// Priority `NF_IP_PRI_FILTER`.
const FILTER: i32 = 0;
/// Priority `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;

/// Returns the name of an app's table.
pub fn table_name(id: &AppId) -> String {
    format!("tcpup_{id}")
}

/// Creates the table of an app, in place of an existing one.
///
/// # Errors
/// Fails with [`NetlinkError`] when the kernel refuses the table or does not answer.
pub fn install(id: &AppId, network: Ipv4Net) -> Result<(), NetlinkError> {
    let table = table(id);
    let mut batch = emptied(&table);
    batch.add(&table, MsgType::Add);

    let mut forward = Chain::new(c"forward", &table);
    forward.set_hook(Hook::Forward, FILTER);
    forward.set_type(ChainType::Filter);
    forward.set_policy(Policy::Accept);
    batch.add(&forward, MsgType::Add);
    for stmt in [Stmt::Direction(FlowDirection::Reply), Stmt::StatusDnat] {
        let mut rule = Rule::new(&forward);
        for expr in expr::rule(&[stmt]) {
            expression::add_expression(&mut rule, &expr);
        }
        rule.add_expr(&nft_expr!(verdict accept));
        batch.add(&rule, MsgType::Add);
    }
    let mut rest = Rule::new(&forward);
    leaves_by(&mut rest, id, true);
    rest.add_expr(&nft_expr!(counter));
    rest.add_expr(&nft_expr!(verdict drop));
    batch.add(&rest, MsgType::Add);

    let mut postrouting = Chain::new(c"postrouting", &table);
    postrouting.set_hook(Hook::PostRouting, SOURCE_NAT);
    postrouting.set_type(ChainType::Nat);
    postrouting.set_policy(Policy::Accept);
    batch.add(&postrouting, MsgType::Add);
    let mut out = Rule::new(&postrouting);
    leaves_by(&mut out, id, false);
    let is_ipv4 = u8::try_from(libc::NFPROTO_IPV4).unwrap_or_default();
    out.add_expr(&nft_expr!(meta nfproto));
    out.add_expr(&nft_expr!(cmp == is_ipv4));
    out.add_expr(&nft_expr!(payload ipv4 saddr));
    out.add_expr(&nft_expr!(bitwise mask network.netmask(), xor 0_u32));
    out.add_expr(&nft_expr!(cmp == network.network()));
    out.add_expr(&nft_expr!(masquerade));
    batch.add(&out, MsgType::Add);
    commit(batch, "make the table of an app")
}

/// Removes the table of an app, if it exists.
///
/// # Errors
/// Fails with [`NetlinkError`] when the kernel refuses the removal or does not answer.
pub fn remove(id: &AppId) -> Result<(), NetlinkError> {
    commit(emptied(&table(id)), "remove the table of an app")
}

/// Returns a batch that removes the table, whether it exists or not.
fn emptied(table: &Table) -> Batch {
    let mut batch = Batch::new();
    batch.add(table, MsgType::Add);
    batch.add(table, MsgType::Del);
    batch
}

fn table(id: &AppId) -> Table {
    Table::new(CString::new(table_name(id)).unwrap_or_default(), ProtoFamily::Inet)
}

/// Adds a match of the output interface: a link to a process of the app (`yes`), or any other (not `yes`).
fn leaves_by(rule: &mut Rule<'_>, id: &AppId, yes: bool) {
    let links = InterfaceName::StartingWith(CString::new(link_prefix(id)).unwrap_or_default());
    rule.add_expr(&nft_expr!(meta oifname));
    if yes {
        rule.add_expr(&nft_expr!(cmp == links));
    } else {
        rule.add_expr(&nft_expr!(cmp != links));
    }
}

fn commit(batch: Batch, what: &'static str) -> Result<(), NetlinkError> {
    let batch = batch.finalize();
    let mut netlink = Netlink::netfilter()?;
    let parts: Vec<IoSlice<'_>> = (&batch).into_iter().map(IoSlice::new).collect();
    netlink.send(what, &parts)?;
    let Some(last) = batch.sequence_numbers().last() else {
        return Ok(());
    };
    netlink.acks(last, |nack| Err(NetlinkError::Refused { what, nack }))
}
