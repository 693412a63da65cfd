//! Values of the fields of ARP and neighbour discovery.

use super::neighbour::{NeighbourMessage, NeighbourPacket};
use super::{ETHERTYPE_IPV6, NFPROTO_IPV6, Packet, address_bytes};
use crate::doctor::field_value::FieldValue;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{RuleField, ct_state};

impl Packet {
    /// Returns the value of a field of a message of neighbour discovery or ARP.
    pub(super) fn of_neighbour(&self, packet: NeighbourPacket, field: RuleField) -> FieldValue {
        const ICMPV6: u8 = 58;
        const NFPROTO_ARP: u8 = 3;
        const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
        /// Ethernet and IPv4, and the lengths of their addresses (RFC 826).
        const ARP_FORMAT: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let NeighbourPacket { message, source, dest } = packet;
        let is_arp = self.family == Family::V4;
        let one = |of_arp: u8, of_icmp: u8| FieldValue::Is(vec![if is_arp { of_arp } else { of_icmp }]);
        match field {
            RuleField::Family => one(NFPROTO_ARP, NFPROTO_IPV6),
            RuleField::FrameType if self.is_below() => FieldValue::Unknown,
            RuleField::EtherType | RuleField::FrameType if is_arp => FieldValue::Is(ETHERTYPE_ARP.to_vec()),
            RuleField::EtherType | RuleField::FrameType => FieldValue::Is(ETHERTYPE_IPV6.to_vec()),
            RuleField::Protocol if !is_arp => FieldValue::Is(vec![ICMPV6]),
            // Routers in between would have lowered it (RFC 4861).
            RuleField::HopLimit if !is_arp => FieldValue::Is(vec![u8::MAX]),
            RuleField::IcmpType if !is_arp => FieldValue::Is(vec![match message {
                NeighbourMessage::Request => 135,
                NeighbourMessage::Answer => 136,
            }]),
            RuleField::ArpOperation if is_arp => FieldValue::Is(match message {
                NeighbourMessage::Request => vec![0, 1],
                NeighbourMessage::Answer => vec![0, 2],
            }),
            RuleField::ArpFormat(at) if is_arp => {
                FieldValue::Is(ARP_FORMAT.into_iter().skip(usize::from(at)).collect())
            }
            RuleField::ArpSource if is_arp => address_bytes(source),
            RuleField::ArpTarget if is_arp => address_bytes(dest),
            RuleField::Source6 if !is_arp => address_bytes(source),
            RuleField::Dest6 if !is_arp => address_bytes(dest),
            // conntrack does not track neighbour discovery (`nf_conntrack_icmpv6_error`).
            RuleField::CtState => {
                let is_untracked = !is_arp && self.seen_by.is_tracked();
                let state = if is_untracked {
                    ct_state::UNTRACKED
                } else {
                    ct_state::INVALID
                };
                FieldValue::Is(state.to_ne_bytes().to_vec())
            }
            RuleField::Sender
            | RuleField::SourceType
            | RuleField::HasSourceRoute
            | RuleField::SourceRouteIndex
            | RuleField::SourceRouteName => FieldValue::Differs,
            _ => FieldValue::Unknown,
        }
    }
}
