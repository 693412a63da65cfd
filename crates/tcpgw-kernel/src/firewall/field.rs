//! Fields by the numbers of `nf_tables`.

use super::RuleField;

/// Bases of payload expressions (`NFT_PAYLOAD_*`).
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

pub(super) fn meta_field(key: u32) -> (RuleField, usize) {
    match key {
        0 => (RuleField::Length, 4),
        3 => (RuleField::Mark, 4),
        4 => (RuleField::InIndex, 4),
        5 => (RuleField::OutIndex, 4),
        6 => (RuleField::InName, 16),
        7 => (RuleField::OutName, 16),
        8 => (RuleField::InType, 2),
        9 => (RuleField::OutType, 2),
        1 => (RuleField::EtherType, 2),
        15 => (RuleField::Family, 1),
        16 => (RuleField::Protocol, 1),
        10 | 11 => (RuleField::SocketOwner, 4),
        19 => (RuleField::PacketType, 1),
        _ => (RuleField::Other, 4),
    }
}

/// Decodes a result of a route lookup (`NFTA_FIB_RESULT`) with its flags (`NFTA_FIB_FLAGS`).
pub(super) fn route_field(result: u32, flags: u32) -> (RuleField, usize) {
    const INDEX: u32 = 1;
    const NAME: u32 = 2;
    const TYPE: u32 = 3;
    const SOURCE: u32 = 1;
    const DEST: u32 = 2;
    const PRESENT: u32 = 32;
    const SOURCE_PRESENT: u32 = SOURCE | PRESENT;
    match (result, flags) {
        (TYPE, SOURCE) => (RuleField::SourceType, 4),
        (TYPE, DEST) => (RuleField::DestType, 4),
        (INDEX | NAME, SOURCE_PRESENT) => (RuleField::HasSourceRoute, 4),
        (INDEX, SOURCE) => (RuleField::SourceRouteIndex, 4),
        (NAME, SOURCE) => (RuleField::SourceRouteName, 16),
        _ if flags & SOURCE != 0 => (RuleField::Sender, 4),
        _ => (RuleField::Other, 4),
    }
}

/// Decodes a load of an option or an extension header by its operation (`NFT_EXTHDR_OP_*`), its type, and where and how much of it is
/// loaded; `asks_presence`: only whether it is there (`NFT_EXTHDR_F_PRESENT`).
pub(super) fn extension_field(
    operation: u32,
    kind: u8,
    (offset, len): (u32, usize),
    asks_presence: bool,
) -> (RuleField, usize) {
    const IPV6: u32 = 0;
    const TCP: u32 = 1;
    const IPV4: u32 = 2;
    /// `TCPOPT_MAXSEG`.
    const SEGMENT_SIZE: u8 = 2;
    let field = match (operation, kind, asks_presence) {
        (IPV6, _, true) => RuleField::HasExtensionHeader,
        (IPV6, _, false) => RuleField::ExtensionHeader,
        (IPV4, _, true) => RuleField::HasIpOption,
        (IPV4, _, false) => RuleField::IpOption,
        (TCP, SEGMENT_SIZE, true) => RuleField::HasSegmentSize,
        (TCP, SEGMENT_SIZE, false) if (offset, len) == (2, 2) => RuleField::SegmentSize,
        _ => RuleField::Other,
    };
    (field, if asks_presence { 1 } else { len })
}

pub(super) fn ct_field(key: u32) -> (RuleField, usize) {
    match key {
        0 => (RuleField::CtState, 4),
        1 => (RuleField::CtDirection, 1),
        2 => (RuleField::CtStatus, 4),
        3 => (RuleField::CtMark, 4),
        _ => (RuleField::Other, 4),
    }
}

/// Returns the field of an ARP packet (`struct arphdr`).
pub(super) fn arp_field(base: u32, offset: u32, len: usize) -> RuleField {
    /// Number of bytes before the operation.
    const FORMAT: usize = 6;
    let at = u8::try_from(offset)
        .ok()
        .filter(|at| base == NETWORK && usize::from(*at) + len <= FORMAT);
    if let Some(at) = at {
        return RuleField::ArpFormat(at);
    }
    match (base, offset, len) {
        (NETWORK, 6, 2) => RuleField::ArpOperation,
        (NETWORK, 14, 1..=4) => RuleField::ArpSource,
        (NETWORK, 24, 1..=4) => RuleField::ArpTarget,
        (LINK, 12, 2) => RuleField::FrameType,
        _ => RuleField::Other,
    }
}

pub(super) fn payload_field(ipv6: bool, base: u32, offset: u32, len: usize) -> RuleField {
    match (base, offset) {
        (LINK, 12) if len == 2 => RuleField::FrameType,
        (NETWORK, 0) if len == 1 => RuleField::IpVersion,
        (NETWORK, 6) if !ipv6 && len == 2 => RuleField::Fragment,
        (NETWORK, 8) if !ipv6 && len == 1 => RuleField::HopLimit,
        (NETWORK, 9) if !ipv6 && len == 1 => RuleField::Protocol,
        (NETWORK, 12) if !ipv6 && len <= 4 => RuleField::Source4,
        (NETWORK, 16) if !ipv6 && len <= 4 => RuleField::Dest4,
        (NETWORK, 6) if ipv6 && len == 1 => RuleField::Protocol,
        (NETWORK, 7) if ipv6 && len == 1 => RuleField::HopLimit,
        (NETWORK, 8) if ipv6 && len <= 16 => RuleField::Source6,
        (NETWORK, 24) if ipv6 && len <= 16 => RuleField::Dest6,
        (TRANSPORT, 0) if len == 1 => RuleField::IcmpType,
        (TRANSPORT, 0) if len == 2 => RuleField::SourcePort,
        (TRANSPORT, 2) if len == 2 => RuleField::DestPort,
        (TRANSPORT, 12) if len == 1 => RuleField::DataOffset,
        (TRANSPORT, 13) if len == 1 => RuleField::TcpFlags,
        _ => RuleField::Other,
    }
}

/// Divides bytes of a packet from an offset on into fields, since nft loads adjacent ones together: `ip saddr` and `ip daddr` of a rule
/// are one load. `field_at` returns the field of an offset and a length.
pub(super) fn fields_within(
    offset: u32,
    len: usize,
    field_at: impl Fn(u32, usize) -> RuleField,
) -> Vec<(RuleField, usize)> {
    /// Lengths of fields, the longest first.
    const LENGTHS: [usize; 4] = [16, 4, 2, 1];
    let mut fields: Vec<(RuleField, usize)> = Vec::new();
    let mut done = 0;
    while done < len {
        let at = u32::try_from(done).map_or(u32::MAX, |done| offset.saturating_add(done));
        let fits = LENGTHS.into_iter().filter(|length| *length <= len - done);
        let known = fits.map(|length| (field_at(at, length), length));
        let known = known.into_iter().find(|(field, _)| *field != RuleField::Other);
        let (field, length) = known.unwrap_or((RuleField::Other, 1));
        match fields.last_mut() {
            Some((RuleField::Other, before)) if field == RuleField::Other => *before += length,
            _ => fields.push((field, length)),
        }
        done += length;
    }
    fields
}
