//! What the messages of this module have in common: their headers, and the parts of what the kernel lists.

use crate::netlink::socket::NetlinkError;
use crate::netlink::tlv::{Attrs, Family, Header, Malformed, Message, Messages, Writer};
use crate::nftables::nft::{self};

pub(super) fn request(writer: &mut Writer, kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Writer)) {
    let header = Header {
        kind: nft::message(kind),
        flags: flags | nft::F_REQUEST,
        seq,
    };
    writer.message(
        header,
        Family {
            family: nft::INET,
            version: 0,
            res_id: 0,
        },
        fill,
    );
}

pub(super) fn body<'a>(message: &Message<'a>) -> &'a [u8] {
    message.payload.get(4..).unwrap_or_default()
}

pub(super) fn message_body(bytes: &[u8]) -> &[u8] {
    Messages::new(bytes)
        .next()
        .and_then(Result::ok)
        .map_or(&[], |message| body(&message))
}

pub(super) fn attr_str(body: &[u8], kind: u16) -> Result<Option<&str>, Malformed> {
    Attrs::new(body).first(kind)?.map(|attr| attr.str()).transpose()
}

pub(super) fn absent_is_none(answer: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match answer {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}
