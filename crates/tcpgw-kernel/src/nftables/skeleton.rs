//! Chains and rules as netlink messages, through libnftnl.

use std::ffi::CString;

use nftnl::{Chain as NftChain, Hook as NftHook, MsgType, ProtoFamily, Rule, Table};

use crate::ffi::expression;
use crate::netlink::tlv::Writer;
use crate::nftables::expr;
use crate::nftables::nat_order::OlderChains;
use crate::nftables::nft;
use tcpgw_core::ruleset::skeleton::{Hook, SkeletonChain};
use tcpgw_core::ruleset::stmt::Stmt;

/// The table's name.
pub const TABLE: &str = "tcpgw";

const ACK: u16 = 4;

/// Returns the message that adds a chain without its rules.
pub fn new_chain(chain: &SkeletonChain, seq: u32) -> Vec<u8> {
    let table = table();
    without_ack(expression::message(&nft_chain(chain, &table), seq, MsgType::Add))
}

/// Returns the message that adds a chain without its rules, with the list of the chains that are older.
pub fn new_chain_after(chain: &SkeletonChain, older: &OlderChains, seq: u32) -> Vec<u8> {
    with_attr(new_chain(chain, seq), nft::chain::USERDATA, &older.encode())
}

/// Appends an attribute to a message.
fn with_attr(mut message: Vec<u8>, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.attr(kind, payload);
    // What has no room is too long for the kernel, too: user data ends at 256 bytes.
    message.extend(writer.finish().unwrap_or_default());
    if let (Ok(length), Some(field)) = (u32::try_from(message.len()), message.first_chunk_mut()) {
        *field = length.to_ne_bytes();
    }
    message
}

/// Returns the message that appends a rule to a chain.
pub fn new_rule(chain: &str, rule: &[Stmt], seq: u32) -> Vec<u8> {
    let table = table();
    let chain = NftChain::new(c_string(chain), &table);
    let mut nft_rule = Rule::new(&chain);
    for expr in expr::rule(rule) {
        expression::add_expression(&mut nft_rule, &expr);
    }
    without_ack(expression::message(&nft_rule, seq, MsgType::Add))
}

/// Returns the message that removes all rules of a chain.
pub fn flush_chain(chain: &str, seq: u32) -> Vec<u8> {
    let table = table();
    let chain = NftChain::new(c_string(chain), &table);
    without_ack(expression::message(&Rule::new(&chain), seq, MsgType::Del))
}

/// Returns the message that removes a chain.
pub fn delete_chain(chain: &str, seq: u32) -> Vec<u8> {
    let table = table();
    without_ack(expression::message(
        &NftChain::new(c_string(chain), &table),
        seq,
        MsgType::Del,
    ))
}

fn table() -> Table {
    Table::new(c_string(TABLE), ProtoFamily::Inet)
}

fn c_string(name: &str) -> CString {
    // Names are made of letters, digits and `-_.`.
    CString::new(name).unwrap_or_default()
}

fn nft_chain<'a>(chain: &SkeletonChain, table: &'a Table) -> NftChain<'a> {
    let mut nft = NftChain::new(c_string(&chain.name), table);
    if let Some(base) = &chain.base {
        let hook = match base.hook {
            Hook::Prerouting => NftHook::PreRouting,
            Hook::Input => NftHook::In,
            Hook::Output => NftHook::Out,
            Hook::Postrouting => NftHook::PostRouting,
        };
        nft.set_type(if base.nat {
            nftnl::ChainType::Nat
        } else {
            nftnl::ChainType::Filter
        });
        nft.set_hook(hook, base.priority);
        nft.set_policy(nftnl::Policy::Accept);
    }
    nft
}

/// Removes the request for an ACK, which libnftnl's wrapper adds to every message: hundreds of ACKs overrun the socket,
/// and one at the end is enough.
fn without_ack(mut message: Vec<u8>) -> Vec<u8> {
    if let Some([low, high]) = message.get_mut(6..8).and_then(|flags| flags.first_chunk_mut()) {
        [*low, *high] = (u16::from_ne_bytes([*low, *high]) & !ACK).to_ne_bytes();
    }
    message
}
