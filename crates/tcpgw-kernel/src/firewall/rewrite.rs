//! Header fields that rules write without conntrack: `ip daddr set`, `tcp dport set` and the like.
//!
//! Source: RFC 791, RFC 8200, RFC 9293; `nft_payload_set_eval` of `net/netfilter/nft_payload.c`.

/// Bases of payload expressions (`NFT_PAYLOAD_*`).
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Field of a header that a rule may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderField {
    /// Source address.
    SourceAddress,
    /// Destination address.
    DestAddress,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestPort,
    /// Version of IP and length of the header (IPv4), or version and a part of the traffic class (IPv6): one byte.
    Version,
    /// Length of the packet.
    Length,
    /// Flags and offset of a fragment (IPv4).
    Fragment,
    /// Protocol after the header.
    Protocol,
    /// Checksum of IPv4 or TCP.
    Checksum,
    /// Sequence number of TCP.
    Sequence,
    /// Acknowledgement number of TCP.
    Acknowledgement,
    /// Length of the header of TCP, in the upper four bits of its byte.
    DataOffset,
    /// Flags of TCP, one byte.
    TcpFlags,
    /// Window of TCP.
    Window,
    /// Link-layer destination of the frame.
    LinkDest,
    /// Type of the frame's content.
    LinkType,
    /// For whom the link layer has received the packet (`meta pkttype`, as `PACKET_*`).
    PacketType,
}

impl HeaderField {
    /// Fields of the link layer, IPv4 and TCP: base, first byte and number of bytes. Type of service, identification and hop
    /// limit are missing, and the urgent pointer.
    const OF_IPV4: &[(u32, u32, u32, Self)] = &[
        (NETWORK, 0, 1, Self::Version),
        (NETWORK, 2, 2, Self::Length),
        (NETWORK, 6, 2, Self::Fragment),
        (NETWORK, 9, 1, Self::Protocol),
        (NETWORK, 10, 2, Self::Checksum),
        (NETWORK, 12, 4, Self::SourceAddress),
        (NETWORK, 16, 4, Self::DestAddress),
    ];
    const OF_IPV6: &[(u32, u32, u32, Self)] = &[
        (NETWORK, 0, 1, Self::Version),
        (NETWORK, 4, 2, Self::Length),
        (NETWORK, 6, 1, Self::Protocol),
        (NETWORK, 8, 16, Self::SourceAddress),
        (NETWORK, 24, 16, Self::DestAddress),
    ];
    const OF_BOTH: &[(u32, u32, u32, Self)] = &[
        (LINK, 0, 6, Self::LinkDest),
        (LINK, 12, 2, Self::LinkType),
        (TRANSPORT, 0, 2, Self::SourcePort),
        (TRANSPORT, 2, 2, Self::DestPort),
        (TRANSPORT, 4, 4, Self::Sequence),
        (TRANSPORT, 8, 4, Self::Acknowledgement),
        (TRANSPORT, 12, 1, Self::DataOffset),
        (TRANSPORT, 13, 1, Self::TcpFlags),
        (TRANSPORT, 14, 2, Self::Window),
        (TRANSPORT, 16, 2, Self::Checksum),
    ];
}

/// A write to a field, as far as the rule gives its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderWrite {
    /// Field that is written.
    pub field: HeaderField,
    /// Bits that are kept, and bits that are then flipped; `None` if the value comes from elsewhere.
    bits: Option<(u128, u128)>,
}

impl HeaderWrite {
    /// Returns a write of an unknown value.
    pub const fn unknown(field: HeaderField) -> Self {
        Self { field, bits: None }
    }

    /// Returns a write that keeps some bits and flips others, as numbers in network byte order.
    pub const fn new(field: HeaderField, kept: u128, flipped: u128) -> Self {
        Self {
            field,
            bits: Some((kept, flipped)),
        }
    }

    /// Returns the value after the write, by the one before; `None` if it is unknown.
    pub const fn result(&self, before: u128) -> Option<u128> {
        match self.bits {
            Some((kept, flipped)) => Some(before & kept ^ flipped),
            None => None,
        }
    }

    /// Returns the value that the rule writes whatever was there before; `None` if it gives none.
    pub const fn constant(&self) -> Option<u128> {
        match self.bits {
            Some((0, value)) => Some(value),
            _ => None,
        }
    }

    /// Returns whether the write may change one of these bits.
    pub const fn touches(&self, of: u128) -> bool {
        match self.bits {
            Some((kept, flipped)) => kept & of != of || flipped & of != 0,
            None => true,
        }
    }
}

/// Returns the write of a target of ip6tables that translates prefixes.
pub(super) fn of_target(name: &str) -> Option<HeaderWrite> {
    let field = match name {
        "SNPT" => HeaderField::SourceAddress,
        "DNPT" => HeaderField::DestAddress,
        _ => return None,
    };
    Some(HeaderWrite::unknown(field))
}

/// Byte of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegisterByte {
    /// A value that the rule gives.
    Known(u8),
    /// A byte of the packet: base and offset, the bits that are kept, and those that are then flipped.
    OfPacket { place: (u32, u32), kept: u8, flipped: u8 },
    /// Any other.
    Unknown,
}

impl RegisterByte {
    /// Returns the byte after a mask and an exclusive or.
    pub(super) const fn masked(self, mask: u8, xor: u8) -> Self {
        match self {
            Self::Known(byte) => Self::Known(byte & mask ^ xor),
            _ if mask == 0 => Self::Known(xor),
            Self::OfPacket { place, kept, flipped } => Self::OfPacket {
                place,
                kept: kept & mask,
                flipped: flipped & mask ^ xor,
            },
            Self::Unknown => Self::Unknown,
        }
    }

    /// Returns the bits that are kept and flipped where the byte is written to this place of the packet.
    const fn at(self, of: (u32, u32)) -> Option<(u8, u8)> {
        match self {
            Self::Known(byte) => Some((0, byte)),
            Self::OfPacket { place, kept, flipped } if place.0 == of.0 && place.1 == of.1 => Some((kept, flipped)),
            Self::OfPacket { .. } | Self::Unknown => None,
        }
    }
}

/// Returns the fields that are changed by a write of bytes to the packet from this place on.
pub(super) fn writes(ipv6: bool, (base, offset): (u32, u32), bytes: &[RegisterByte]) -> Vec<HeaderWrite> {
    const SAME: Option<(u8, u8)> = Some((0xff, 0));
    let written = |at: u32| {
        let byte = at
            .checked_sub(offset)
            .and_then(|at| bytes.get(usize::try_from(at).ok()?));
        byte.map_or(SAME, |byte| byte.at((base, at)))
    };
    let of_family = if ipv6 {
        HeaderField::OF_IPV6
    } else {
        HeaderField::OF_IPV4
    };
    let fields = of_family.iter().chain(HeaderField::OF_BOTH);
    let fields = fields.filter(|(of, ..)| *of == base);
    let changed = fields.filter_map(|(_, first, len, field)| {
        let bytes: Vec<Option<(u8, u8)>> = (*first..first + len).map(written).collect();
        if bytes.iter().all(|byte| *byte == SAME) {
            return None;
        }
        let known: Option<Vec<(u8, u8)>> = bytes.into_iter().collect();
        Some(known.map_or(HeaderWrite::unknown(*field), |bytes| {
            let number = |of: fn(&(u8, u8)) -> u8| bytes.iter().fold(0, |all, byte| all << 8 | u128::from(of(byte)));
            HeaderWrite::new(*field, number(|(kept, _)| *kept), number(|(_, flipped)| *flipped))
        }))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(bytes: &[u8]) -> Vec<RegisterByte> {
        bytes.iter().map(|byte| RegisterByte::Known(*byte)).collect()
    }

    fn loaded(place: (u32, u32), mask: &[u8], xor: &[u8]) -> Vec<RegisterByte> {
        let bytes = (place.1..).zip(mask.iter().zip(xor));
        let bytes = bytes.map(|(at, (mask, xor))| {
            let byte = RegisterByte::OfPacket {
                place: (place.0, at),
                kept: 0xff,
                flipped: 0,
            };
            byte.masked(*mask, *xor)
        });
        bytes.collect()
    }

    #[test]
    fn a_value_changes_the_fields_that_it_covers() {
        let port = writes(false, (TRANSPORT, 2), &known(&[0x23, 0x27]));
        assert_eq!(port, [HeaderWrite::new(HeaderField::DestPort, 0, 8999)]);
        assert_eq!((port[0].constant(), port[0].result(8000)), (Some(8999), Some(8999)));
        let address = writes(false, (NETWORK, 16), &known(&[10, 2, 0, 99]));
        assert_eq!(address, [HeaderWrite::new(HeaderField::DestAddress, 0, 0x0a02_0063)]);
        let both = writes(false, (NETWORK, 12), &known(&[1; 8]));
        let fields: Vec<HeaderField> = both.iter().map(|write| write.field).collect();
        assert_eq!(fields, [HeaderField::SourceAddress, HeaderField::DestAddress]);
        let address = writes(true, (NETWORK, 24), &known(&[0xfd; 16]));
        assert_eq!(address[0].field, HeaderField::DestAddress);
    }

    #[test]
    fn what_is_written_back_is_no_change() {
        // nft writes a byte as one of two.
        let hop_limit = writes(false, (NETWORK, 8), &loaded((NETWORK, 8), &[0, 0xff], &[1, 0]));
        assert_eq!(hop_limit, []);
        let class = writes(true, (NETWORK, 0), &loaded((NETWORK, 0), &[0xf0, 0x3f], &[0x0b, 0x80]));
        assert_eq!(class, [HeaderWrite::new(HeaderField::Version, 0xf0, 0x0b)]);
        assert!(!class[0].touches(0xf0));
        // From another place it is one.
        let copied = writes(false, (NETWORK, 16), &loaded((NETWORK, 12), &[0xff; 4], &[0; 4]));
        assert_eq!(copied, [HeaderWrite::unknown(HeaderField::DestAddress)]);
    }

    #[test]
    fn a_part_of_an_address_is_changed() {
        let prefix = writes(
            false,
            (NETWORK, 16),
            &loaded((NETWORK, 16), &[0, 0, 0, 0xff], &[10, 2, 0, 0]),
        );
        assert_eq!(prefix[0].result(0xcb00_7107), Some(0x0a02_0007));
        assert_eq!(prefix[0].constant(), None);
    }
}
