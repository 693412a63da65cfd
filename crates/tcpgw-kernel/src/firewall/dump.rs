//! Requests for everything of one kind that `nf_tables` has, and what their answers have in common.

use super::TableFamily;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Attrs, Header, Malformed, Message, NetfilterHeader};
use crate::nftables::nft;

pub(super) fn dump(
    socket: &mut impl NetlinkExchange,
    what: &'static str,
    kind: u16,
    mut each: impl FnMut(TableFamily, &Message<'_>) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    socket.dump(
        what,
        |writer, seq| writer.message(header(kind, seq), NetfilterHeader::default(), |_| {}),
        |message| match family(message.family()?.0.family) {
            Some(family) => each(family, message),
            None => Ok(()),
        },
    )
}

pub(super) fn header(kind: u16, seq: u32) -> Header {
    Header {
        kind: nft::message(kind),
        flags: nft::F_REQUEST | nft::F_DUMP,
        seq,
    }
}

pub(super) fn attrs<'a>(message: &Message<'a>) -> Result<Attrs<'a>, Malformed> {
    Ok(message.family()?.1)
}

pub(super) fn text(message: &Message<'_>, kind: u16) -> Result<String, Malformed> {
    let attr = attrs(message)?.first(kind)?;
    Ok(attr.map(|attr| attr.str()).transpose()?.unwrap_or_default().to_owned())
}

const FAMILIES: [(u8, TableFamily); 6] = [
    (1, TableFamily::Inet),
    (2, TableFamily::Ip),
    (3, TableFamily::Arp),
    (5, TableFamily::Netdev),
    (7, TableFamily::Bridge),
    (10, TableFamily::Ip6),
];

pub(super) fn family(number: u8) -> Option<TableFamily> {
    let found = FAMILIES.iter().find(|(of, _)| *of == number);
    found.map(|(_, family)| *family)
}

pub(super) fn of(family: TableFamily) -> NetfilterHeader {
    let number = FAMILIES
        .iter()
        .find(|(_, of)| *of == family)
        .map_or(0, |(number, _)| *number);
    NetfilterHeader {
        family: number,
        ..NetfilterHeader::default()
    }
}
