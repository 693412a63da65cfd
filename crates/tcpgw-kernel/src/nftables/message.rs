//! Writes the header of a request about the table, and takes the kernel's answers apart.

use crate::netlink::error::NetlinkError;
use crate::netlink::tlv::{Attrs, Header, Malformed, Message, Messages, NetfilterHeader, Writer};
use crate::nftables::nft;

/// Writes a request for the `inet` family; `fill` writes its attributes.
pub(super) fn request(writer: &mut Writer, kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Writer)) {
    let header = Header {
        kind: nft::message(kind),
        flags: flags | nft::F_REQUEST,
        seq,
    };
    writer.message(
        header,
        NetfilterHeader {
            family: nft::INET,
            version: 0,
            res_id: 0,
        },
        fill,
    );
}

/// Returns the attributes of a message, which follow its four bytes of family header.
pub(super) fn body<'a>(message: &Message<'a>) -> &'a [u8] {
    message.payload.get(4..).unwrap_or_default()
}

/// Returns the attributes of the first message in these bytes, or nothing if there is no whole message.
pub(super) fn message_body(bytes: &[u8]) -> &[u8] {
    Messages::new(bytes)
        .next()
        .and_then(Result::ok)
        .map_or(&[], |message| body(&message))
}

/// Returns the first attribute of a kind as a string.
///
/// # Errors
/// Fails when the attributes cannot be read, or when this one is no string.
pub(super) fn attr_str(body: &[u8], kind: u16) -> Result<Option<&str>, Malformed> {
    Attrs::new(body).first(kind)?.map(|attr| attr.str()).transpose()
}

/// Turns the refusal "no such object" into `false`, and success into `true`.
///
/// # Errors
/// Fails with every other error of `answer`.
pub(super) fn absent_is_none(answer: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match answer {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}
