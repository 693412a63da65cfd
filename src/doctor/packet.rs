//! A packet of a service as a rule of another program sees it.

mod neighbour;
mod neighbour_fields;

use std::net::{IpAddr, SocketAddr};

pub(super) use self::neighbour::{NeighbourMessage, NeighbourPacket};
use super::field_value::FieldValue;
use super::header::PacketHeader;
use super::mark_bits::MarkBits;
use super::spans::LINUX_PORTS;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::key;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallHook, Load, RuleField, ct_state};

const TCP: u8 = 6;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const RTN_UNICAST: u32 = 1;
const RTN_LOCAL: u32 = 2;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// Bit of a translated destination in the status of conntrack (`IPS_DST_NAT`).
const STATUS_DNAT: u32 = 32;

/// Length of the name of an interface with the zero at its end (`IFNAMSIZ`).
const NAME_LENGTH: usize = 16;
/// Priority at which answers of backends get the public address, and other sources are translated (`NF_IP_PRI_NAT_SRC`).
pub(super) const SRCNAT: i32 = 100;

/// An interface that a packet passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// Whether the packet is seen at a link below the interface, which has another name and index.
    pub(super) below: bool,
    /// Whether it has frames of Ethernet, as far as is known.
    pub(super) is_ethernet: bool,
}

/// Known properties of a packet; `None`: unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) family: Family,
    pub(super) input: Option<Interface>,
    pub(super) output: Option<Interface>,
    /// Address of the backend, or the public address before the translation.
    pub(super) server: Option<IpAddr>,
    pub(super) port: Option<u16>,
    /// Whether the packet goes from the server to the client.
    pub(super) reply: bool,
    /// Place in its connection.
    pub(super) stage: PacketStage,
    /// Base chain that sees the packet.
    pub(super) seen_by: FirewallBase,
    /// Mark of its flow, if the rules of tcpgw have already marked and translated it.
    pub(super) ours: Option<FlowMark>,
    /// Mark of the packet (`meta mark`).
    pub(super) mark: MarkBits,
    /// Client of the packet, where the packet shows it and it is known.
    pub(super) client: Option<PacketClient>,
    /// Client of a connection from an app to the outside, whose server is unknown.
    pub(super) from_app: Option<FromApp>,
    /// Message of neighbour discovery (IPv6) or ARP (IPv4) that it is, instead of a packet of TCP.
    pub(super) neighbour: Option<NeighbourPacket>,
}

/// Place of a packet in its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketStage {
    /// The SYN, or the answer to it.
    Handshake,
    /// A later packet without data.
    Later,
    /// A later packet with data, which has PSH.
    Data,
}

/// A client that was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketClient {
    pub(super) address: IpAddr,
    /// First and last port that it may use for the next connection.
    pub(super) ports: (u16, u16),
}

impl PacketClient {
    /// Returns a client by the address and port of a connection. Systems take the port of the next one from the same range.
    pub(super) const fn of(client: SocketAddr) -> Self {
        let ports = match client.port() {
            // Linux (`ip_local_port_range`), and the range for all of RFC 6335.
            32768..=60999 => LINUX_PORTS,
            61000.. => (49152, u16::MAX),
            1024.. => (1024, u16::MAX),
            0.. => (1, u16::MAX),
        };
        Self {
            address: client.ip(),
            ports,
        }
    }
}

/// Client of a connection that a process of `tcpgw up` has made to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FromApp {
    /// Address in the app's network.
    pub(super) client: IpAddr,
    /// Mark of services' flows, which this connection does not have.
    pub(super) mark: FlowMark,
}

impl Packet {
    /// Returns its TCP flags.
    const fn tcp_flags(&self) -> u8 {
        const SYN: u8 = 2;
        const PSH: u8 = 8;
        const ACK: u8 = 16;
        match (self.stage, self.reply) {
            (PacketStage::Handshake, false) => SYN,
            (PacketStage::Handshake, true) => SYN | ACK,
            (PacketStage::Later, _) => ACK,
            (PacketStage::Data, _) => PSH | ACK,
        }
    }

    /// Returns the bits of `ct state`, with that of iptables.
    pub(super) fn state(&self) -> u32 {
        if !self.seen_by.is_tracked() {
            // A packet without an entry is INVALID (`nft_ct_get_eval`).
            return ct_state::INVALID;
        }
        let translated = if self.ours.is_some() { ct_state::DNAT } else { 0 };
        translated
            | if self.reply || self.stage != PacketStage::Handshake {
                ct_state::ESTABLISHED
            } else {
                ct_state::NEW
            }
    }

    /// Returns the first and the last port that the client may use, if it is known.
    pub(super) fn client_ports(&self) -> Option<(u16, u16)> {
        self.client.map(|client| client.ports)
    }

    /// Returns the value of a field under a mask: of marks only the bits of tcpgw are known.
    pub(super) fn value(&self, load: Load, mask: Option<&[u8]>) -> FieldValue {
        let value = self.whole(load.field, mask);
        match value {
            FieldValue::Is(mut bytes) => {
                bytes.truncate(load.len);
                FieldValue::Is(bytes)
            }
            other => other,
        }
    }

    /// Returns whether the packet has no such field, so that no rule that asks for it matches, whatever it compares with.
    pub(super) fn lacks(&self, field: RuleField) -> bool {
        let is_arp = self.neighbour.is_some() && self.family == Family::V4;
        match field {
            RuleField::Protocol
            | RuleField::SourcePort
            | RuleField::DestPort
            | RuleField::TcpFlags
            | RuleField::IcmpType => is_arp,
            // They are properties of a flow (`nft_ct_get_eval`).
            RuleField::CtMark | RuleField::CtStatus | RuleField::CtDirection => !self.seen_by.is_tracked(),
            RuleField::InType => self.seen_by.hook == FirewallHook::Output,
            _ => self.neighbour.is_none() && self.header().lacks(field),
        }
    }

    /// Returns what decides on its header.
    fn header(&self) -> PacketHeader {
        PacketHeader {
            family: self.family,
            is_handshake: self.stage == PacketStage::Handshake,
            hook: self.seen_by.hook,
            is_below: self.is_below(),
        }
    }

    /// Returns whether it has a frame: packets of the gateway itself get theirs when they leave.
    const fn has_frame(&self) -> bool {
        self.input.is_some() || matches!(self.seen_by.hook, FirewallHook::Egress)
    }

    /// Returns the number and the name of the interface by which it came in: 0 and none where it leaves or is the gateway's own.
    fn entrance(&self) -> (FieldValue, FieldValue) {
        if matches!(self.seen_by.hook, FirewallHook::Output | FirewallHook::Egress) {
            return (FieldValue::Is(vec![0; 4]), FieldValue::Is(vec![0; NAME_LENGTH]));
        }
        (index(self.input.as_ref()), name(self.input.as_ref()))
    }

    /// Returns the hardware type of the interface by which it came in, and at egress of the one by which it leaves, as the kernel does.
    fn entrance_type(&self) -> FieldValue {
        match self.seen_by.hook {
            FirewallHook::Egress => hardware(self.output.as_ref()),
            _ => hardware(self.input.as_ref()),
        }
    }

    /// Returns whether its source is a client or a backend, and not the gateway.
    fn is_from_elsewhere(&self) -> bool {
        match self.seen_by.hook {
            FirewallHook::Ingress | FirewallHook::Prerouting | FirewallHook::Input | FirewallHook::Forward => true,
            // Before the source is translated.
            FirewallHook::Postrouting => self.seen_by.priority < SRCNAT,
            _ => false,
        }
    }

    /// Returns a property of the route to its source, which clients and backends have, by the interface that it came in by.
    fn of_source_route(&self, field: RuleField) -> FieldValue {
        let native = |number: u32| FieldValue::Is(number.to_ne_bytes().to_vec());
        match field {
            RuleField::SourceType if !self.is_from_elsewhere() => FieldValue::Among(vec![(RTN_UNICAST, RTN_LOCAL)]),
            _ if !self.is_from_elsewhere() => FieldValue::Unknown,
            RuleField::SourceType => native(RTN_UNICAST),
            RuleField::HasSourceRoute => native(1),
            RuleField::SourceRouteIndex => index(self.input.as_ref()),
            RuleField::SourceRouteName => name(self.input.as_ref()),
            _ => FieldValue::Differs,
        }
    }

    /// Returns whether the packet is seen at a link below its interface.
    fn is_below(&self) -> bool {
        [&self.input, &self.output].into_iter().flatten().any(|link| link.below)
    }

    /// Returns the value of a field of the interfaces; `None` if it is another one.
    fn of_interfaces(&self, field: RuleField) -> Option<FieldValue> {
        Some(match field {
            RuleField::InName => self.entrance().1,
            RuleField::OutName => name(self.output.as_ref()),
            RuleField::InIndex => self.entrance().0,
            RuleField::OutIndex => index(self.output.as_ref()),
            RuleField::InType => self.entrance_type(),
            RuleField::OutType => hardware(self.output.as_ref()),
            _ => return None,
        })
    }

    fn whole(&self, field: RuleField, mask: Option<&[u8]>) -> FieldValue {
        let native = |number: u32| FieldValue::Is(number.to_ne_bytes().to_vec());
        if let Some(value) = self.of_interfaces(field) {
            return value;
        }
        if let Some(packet) = self.neighbour {
            return self.of_neighbour(packet, field);
        }
        match field {
            RuleField::Family => FieldValue::Is(vec![match self.family {
                Family::V4 => NFPROTO_IPV4,
                Family::V6 => NFPROTO_IPV6,
            }]),
            RuleField::FrameType if self.is_below() || !self.has_frame() => FieldValue::Unknown,
            RuleField::EtherType | RuleField::FrameType => FieldValue::Is(match self.family {
                Family::V4 => ETHERTYPE_IPV4.to_vec(),
                Family::V6 => ETHERTYPE_IPV6.to_vec(),
            }),
            RuleField::Protocol => FieldValue::Is(vec![TCP]),
            RuleField::Source4 | RuleField::Source6 => self.address(self.reply),
            RuleField::Dest4 | RuleField::Dest6 => self.address(!self.reply),
            RuleField::SourcePort => self.port_bytes(self.reply),
            RuleField::DestPort => self.port_bytes(!self.reply),
            RuleField::CtState => {
                let asks_for_dnat = mask.is_some_and(|mask| number(mask) & ct_state::DNAT != 0);
                native(self.state() & if asks_for_dnat { u32::MAX } else { !ct_state::DNAT })
            }
            RuleField::CtStatus => match mask.map(number) {
                Some(STATUS_DNAT) => native(if self.ours.is_some() { STATUS_DNAT } else { 0 }),
                _ => FieldValue::Unknown,
            },
            RuleField::CtMark => match (self.ours, mask.map(number)) {
                (Some(ours), Some(bits)) if bits & !ours.mask() == 0 => native(ours.value()),
                (None, Some(bits)) if self.from_app.as_ref().is_some_and(|app| bits & !app.mark.mask() == 0) => {
                    native(0)
                }
                _ => FieldValue::Differs,
            },
            RuleField::CtDirection => FieldValue::Is(vec![u8::from(self.reply)]),
            // Before the rules of tcpgw the destination is the gateway, afterwards a backend.
            RuleField::DestType if self.from_app.is_some() => native(RTN_UNICAST),
            RuleField::DestType => match (self.reply, self.ours, self.server) {
                (false, None, _) if self.input.is_some() || self.output.is_none() => native(RTN_LOCAL),
                (false, Some(_), Some(_)) => native(RTN_UNICAST),
                _ => FieldValue::Among(vec![(RTN_UNICAST, RTN_LOCAL)]),
            },
            RuleField::TcpFlags => FieldValue::Is(vec![self.tcp_flags()]),
            RuleField::Mark => self.mark.of(mask.map(number)).map_or(FieldValue::Differs, native),
            RuleField::SourceType
            | RuleField::HasSourceRoute
            | RuleField::SourceRouteIndex
            | RuleField::SourceRouteName
            | RuleField::Sender => self.of_source_route(field),
            _ => self.header().value(field, mask),
        }
    }

    fn address(&self, of_server: bool) -> FieldValue {
        let app = self.from_app.as_ref().map(|app| app.client);
        let client = self.client.map(|client| client.address).or(app);
        match if of_server { self.server } else { client } {
            None if of_server && app.is_none() => FieldValue::Unknown,
            address => address_bytes(address),
        }
    }

    fn port_bytes(&self, of_server: bool) -> FieldValue {
        match self.port {
            _ if !of_server => FieldValue::Differs,
            Some(port) => FieldValue::Is(port.to_be_bytes().to_vec()),
            None if self.from_app.is_some() => FieldValue::Differs,
            None => FieldValue::Unknown,
        }
    }
}

/// Returns the bytes of an address, which differs between hosts where it is unknown.
fn address_bytes(address: Option<IpAddr>) -> FieldValue {
    address.map_or(FieldValue::Differs, |address| {
        FieldValue::Is(key::address_bytes(address))
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn name(interface: Option<&Interface>) -> FieldValue {
    interface
        .filter(|of| !of.below)
        .map_or(FieldValue::Unknown, |interface| {
            let mut bytes = interface.name.as_bytes().to_vec();
            bytes.resize(NAME_LENGTH, 0);
            FieldValue::Is(bytes)
        })
}

fn index(interface: Option<&Interface>) -> FieldValue {
    interface
        .filter(|of| !of.below)
        .map_or(FieldValue::Unknown, |interface| {
            FieldValue::Is(interface.index.to_ne_bytes().to_vec())
        })
}

fn hardware(interface: Option<&Interface>) -> FieldValue {
    /// `ARPHRD_ETHER`.
    const ETHERNET: u16 = 1;
    let is_known = interface.is_some_and(|interface| interface.is_ethernet);
    if is_known {
        FieldValue::Is(ETHERNET.to_ne_bytes().to_vec())
    } else {
        FieldValue::Unknown
    }
}
