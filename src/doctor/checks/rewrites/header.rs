//! Fields of headers that rules write, and whether packets arrive with the change.
//!
//! Source: `nf_nat_manip_pkt` and `nf_nat_packet` of `net/netfilter/nf_nat_core.c`; `ip_rcv` and `ip_forward`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::super::facts::CheapFacts;
use super::super::super::field_value::FieldValue;
use super::super::super::packet::SRCNAT;
use super::super::super::packet::{Packet, PacketStage};
use super::super::samples::{DSTNAT, PacketKind};
use crate::doctor::condition_result::Holds;
use crate::doctor::spans::number;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallHook, HeaderField, HeaderWrite, Load, RuleEffect, RuleField};

pub(super) const CAUSE: &str = "conntrack does not know of the change: a packet with another address or port belongs to no connection of a client and a service";

/// A chain of another program, and a kind of packets that it sees.
#[derive(Clone, Copy)]
pub(in crate::doctor::checks) struct ChangingChain<'a> {
    pub(in crate::doctor::checks) facts: &'a CheapFacts,
    pub(in crate::doctor::checks) base: FirewallBase,
    pub(in crate::doctor::checks) kind: PacketKind,
    /// Whether the service shows its backends the clients' addresses.
    pub(in crate::doctor::checks) preserves: bool,
}

/// Place on the way of a packet through conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before conntrack sees the packet.
    Untracked,
    /// Before the destination is translated.
    Tracked,
    /// Before the source is translated.
    Routed,
    /// Afterwards.
    Leaving,
}

/// Returns whether a field is an address or a port.
pub(super) const fn is_end(field: HeaderField) -> bool {
    mirrored(field).is_some()
}

/// Returns the field that packets in the other direction have in place of this one.
const fn mirrored(field: HeaderField) -> Option<HeaderField> {
    Some(match field {
        HeaderField::SourceAddress => HeaderField::DestAddress,
        HeaderField::DestAddress => HeaderField::SourceAddress,
        HeaderField::SourcePort => HeaderField::DestPort,
        HeaderField::DestPort => HeaderField::SourcePort,
        _ => return None,
    })
}

pub(super) const fn named(field: HeaderField) -> &'static str {
    match field {
        HeaderField::SourceAddress => "the source address",
        HeaderField::DestAddress => "the destination address",
        HeaderField::SourcePort => "the source port",
        HeaderField::DestPort => "the destination port",
        HeaderField::Version => "another first byte (version, length of the header)",
        HeaderField::Length => "another length",
        HeaderField::Fragment => "the offset or flags of a fragment",
        HeaderField::Protocol => "another protocol number",
        HeaderField::Checksum => "another checksum",
        HeaderField::Sequence => "another sequence number of TCP",
        HeaderField::Acknowledgement => "another acknowledgement number of TCP",
        HeaderField::DataOffset => "another length of the TCP header",
        HeaderField::TcpFlags => "other TCP flags",
        HeaderField::Window => "the TCP window",
        HeaderField::LinkDest => "another link-layer destination",
        HeaderField::LinkType => "another type of the frame",
        HeaderField::PacketType => "the packet type (pkttype)",
    }
}

/// Returns the value that is written for people, if the rule gives one.
pub(super) fn value(write: HeaderWrite, family: Family) -> Option<String> {
    let value = write.constant()?;
    match (write.field, family) {
        (HeaderField::SourceAddress | HeaderField::DestAddress, Family::V4) => {
            Some(Ipv4Addr::from_bits(u32::try_from(value).ok()?).to_string())
        }
        (HeaderField::SourceAddress | HeaderField::DestAddress, Family::V6) => {
            Some(Ipv6Addr::from_bits(value).to_string())
        }
        (HeaderField::SourcePort | HeaderField::DestPort | HeaderField::Window, _) => Some(value.to_string()),
        _ => None,
    }
}

const fn sure(breaks: bool) -> Holds {
    if breaks { Holds::Yes } else { Holds::No }
}

/// Returns whether bits of a value are changed; unknown if the value that is written is.
fn changes(write: HeaderWrite, before: u128, bits: u128) -> Holds {
    let after = write.result(before);
    after.map_or(Holds::Unknown, |after| sure((before ^ after) & bits != 0))
}

/// Returns the value of a field before the write, if it is known.
fn before(field: RuleField, packet: &Packet) -> Option<u128> {
    match packet.value(Load { field, len: 16 }, None) {
        FieldValue::Is(bytes) => Some(number(&bytes)),
        FieldValue::Among(_) | FieldValue::Differs | FieldValue::Unknown => None,
    }
}

impl ChangingChain<'_> {
    /// Returns whether packets do not arrive with what is written.
    pub(super) fn rewritten(self, write: HeaderWrite, packet: &Packet) -> Holds {
        const WHOLE: u128 = u128::MAX;
        const UPPER_HALF: u128 = 0xf0;
        const TCP: u128 = 6;
        const DONT_FRAGMENT: u128 = 0x4000;
        const FRAGMENT: u128 = 0x3fff;
        const FIN_SYN_RST_ACK: u128 = 0x17;
        let is_first = packet.stage == PacketStage::Handshake && !packet.reply;
        match (write.field, self.kind.family) {
            (HeaderField::Version, Family::V4) => changes(write, 0x45, WHOLE),
            (HeaderField::Version, Family::V6) => changes(write, 0x60, UPPER_HALF),
            (HeaderField::Length | HeaderField::Sequence, _) => Holds::Yes,
            (HeaderField::Acknowledgement, _) => sure(!is_first),
            (HeaderField::Fragment, _) => changes(write, DONT_FRAGMENT, FRAGMENT),
            (HeaderField::Protocol, _) => changes(write, TCP, WHOLE),
            // It may be computed again, or not be looked at.
            (HeaderField::Checksum, _) => Holds::Unknown,
            (HeaderField::DataOffset, _) => sure(write.touches(UPPER_HALF)),
            (HeaderField::TcpFlags, _) => {
                let before = before(RuleField::TcpFlags, packet).unwrap_or(0);
                changes(write, before, FIN_SYN_RST_ACK)
            }
            (HeaderField::Window, _) => sure(write.constant() == Some(0)),
            (HeaderField::LinkDest | HeaderField::LinkType, _) => sure(self.base.hook == FirewallHook::Egress),
            // 0 is a packet for this host.
            (HeaderField::PacketType, _) => changes(write, 0, WHOLE),
            (HeaderField::SourceAddress, Family::V4) => self.end(write, RuleField::Source4, packet),
            (HeaderField::SourceAddress, Family::V6) => self.end(write, RuleField::Source6, packet),
            (HeaderField::DestAddress, Family::V4) => self.end(write, RuleField::Dest4, packet),
            (HeaderField::DestAddress, Family::V6) => self.end(write, RuleField::Dest6, packet),
            (HeaderField::SourcePort, _) => self.end(write, RuleField::SourcePort, packet),
            (HeaderField::DestPort, _) => self.end(write, RuleField::DestPort, packet),
        }
    }

    /// Judges a write to an address or a port.
    fn end(self, write: HeaderWrite, field: RuleField, packet: &Packet) -> Holds {
        let before = before(field, packet);
        let is_same = before.is_some_and(|before| write.result(before) == Some(before));
        if is_same || !self.stays(write.field) {
            return Holds::No;
        }
        if self.is_undone(write.field, before) {
            return Holds::Unknown;
        }
        Holds::Yes
    }

    /// Returns whether a change stays: conntrack writes the addresses and ports of its own translations over it.
    fn stays(self, field: HeaderField) -> bool {
        let is_source = matches!(field, HeaderField::SourceAddress | HeaderField::SourcePort);
        let reply = self.kind.reply;
        match (self.stage(), is_source) {
            // The rules of tcpgw look at the first packet only.
            (Stage::Tracked, false) if !reply => !self.kind.later,
            (Stage::Tracked, false) => self.preserves,
            (Stage::Tracked | Stage::Routed, true) => !reply && self.preserves,
            (Stage::Untracked | Stage::Leaving, _) | (Stage::Routed, false) => true,
        }
    }

    const fn stage(self) -> Stage {
        match self.base.hook {
            _ if !self.base.is_tracked() => Stage::Untracked,
            FirewallHook::Prerouting if self.base.priority <= DSTNAT => Stage::Tracked,
            FirewallHook::Egress => Stage::Leaving,
            FirewallHook::Postrouting if self.base.priority > SRCNAT => Stage::Leaving,
            _ => Stage::Routed,
        }
    }

    /// Returns whether another rule may make the opposite change in the other direction, so that clients connect to what it
    /// writes. Packets to a service must arrive as such in any case.
    fn is_undone(self, field: HeaderField, before: Option<u128>) -> bool {
        let is_dest = matches!(field, HeaderField::DestAddress | HeaderField::DestPort);
        let Some(opposite) = mirrored(field).filter(|_| self.kind.reply || !is_dest) else {
            return false;
        };
        let effects = self.facts.known_chains().flatten().flat_map(|chain| &chain.rules);
        let mut effects = effects.flat_map(|rule| &rule.effects);
        effects.any(|effect| match effect {
            RuleEffect::Rewrite(write) if write.field == opposite => {
                let written = write.constant();
                before.is_none_or(|before| written.is_none_or(|written| written == before))
            }
            _ => false,
        })
    }
}
