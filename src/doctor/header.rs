//! Fields of headers that are alike in all packets of services: lengths, options, hop limits and fragments.
//!
//! Values that practically no packet has are left out, so that rules for such packets alone are no finding.

use super::field_value::FieldValue;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallHook, RuleField};

/// `PACKET_HOST` and `PACKET_OTHERHOST`.
const HOST: u32 = 0;
const OTHER_HOST: u32 = 3;
/// Version 4 and a header of five words, which has no options.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const IPV6: u8 = 0x60;
/// "Do not fragment", without a fragment offset: systems that find out the path MTU send this.
const DO_NOT_FRAGMENT: [u8; 2] = [0x40, 0];
/// Hop limits of packets that have passed up to 40 routers: systems begin with 64, 128 or 255.
const HOP_LIMITS: [(u32, u32); 3] = [(24, 64), (88, 128), (215, 255)];
/// Lengths of a TCP header, 20 to 60 bytes, in the upper half of a byte whose lower half has reserved bits.
const DATA_OFFSETS: [(u32, u32); 11] = [
    (0x50, 0x50),
    (0x60, 0x60),
    (0x70, 0x70),
    (0x80, 0x80),
    (0x90, 0x90),
    (0xa0, 0xa0),
    (0xb0, 0xb0),
    (0xc0, 0xc0),
    (0xd0, 0xd0),
    (0xe0, 0xe0),
    (0xf0, 0xf0),
];
/// Segment sizes from the smallest that hosts have to accept (RFC 9293).
const SEGMENT_SIZES: (u32, u32) = (536, 65535);

/// Properties of a TCP packet of a service that decide what its header contains.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketHeader {
    pub(super) family: Family,
    /// Whether it is a SYN, or the answer to one.
    pub(super) is_handshake: bool,
    /// Hook at which it is seen.
    pub(super) hook: FirewallHook,
    /// Whether it is seen at a link below its interface.
    pub(super) is_below: bool,
}

impl PacketHeader {
    /// Returns whether packets have no such field, so that no rule that asks for it matches.
    pub(super) fn lacks(self, field: RuleField) -> bool {
        match field {
            RuleField::IpOption | RuleField::ExtensionHeader => true,
            RuleField::HasIpOption => self.family == Family::V6,
            RuleField::HasExtensionHeader => self.family == Family::V4,
            RuleField::SegmentSize => !self.is_handshake,
            // A packet that is forwarded belongs to no local socket (`nft_meta_get_eval_skugid`).
            RuleField::SocketOwner => !matches!(self.hook, FirewallHook::Input | FirewallHook::Output),
            _ => false,
        }
    }

    /// Returns the value of a field under a mask.
    pub(super) fn value(self, field: RuleField, mask: Option<&[u8]>) -> FieldValue {
        let (length, first_length) = match self.family {
            Family::V4 => (40, 120),
            Family::V6 => (60, 140),
        };
        match field {
            RuleField::PacketType if self.is_below => FieldValue::Among(vec![(HOST, HOST), (OTHER_HOST, OTHER_HOST)]),
            RuleField::PacketType => FieldValue::Among(vec![(HOST, HOST)]),
            // At egress with the header of the frame.
            RuleField::Length | RuleField::OrderedLength if self.hook == FirewallHook::Egress => FieldValue::Unknown,
            RuleField::Length | RuleField::OrderedLength if self.is_handshake => {
                FieldValue::Among(vec![(length, first_length)])
            }
            RuleField::Length | RuleField::OrderedLength => FieldValue::Among(vec![(length, 65535)]),
            RuleField::IpVersion if self.family == Family::V4 => FieldValue::Is(vec![IPV4_WITHOUT_OPTIONS]),
            // The lower half has bits of the traffic class.
            RuleField::IpVersion => match mask {
                Some([0xf0]) => FieldValue::Is(vec![IPV6]),
                _ => FieldValue::Unknown,
            },
            RuleField::Fragment => FieldValue::Is(DO_NOT_FRAGMENT.to_vec()),
            RuleField::HopLimit => FieldValue::Among(HOP_LIMITS.to_vec()),
            RuleField::DataOffset => FieldValue::Among(DATA_OFFSETS.to_vec()),
            RuleField::HasIpOption | RuleField::HasExtensionHeader => FieldValue::Is(vec![0]),
            RuleField::SegmentSize => FieldValue::Among(vec![SEGMENT_SIZES]),
            RuleField::HasSegmentSize => FieldValue::Is(vec![self.is_handshake.into()]),
            RuleField::Generated { first, count } => {
                match count.checked_sub(1).and_then(|more| first.checked_add(more)) {
                    Some(last) => FieldValue::Among(vec![(first, last)]),
                    None => FieldValue::Unknown,
                }
            }
            _ => FieldValue::Unknown,
        }
    }
}
