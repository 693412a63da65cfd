//! Parts of netlink messages that the targets use.

use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::netlink::tlv::{Attrs, Header, Messages, Writer};

/// Type of the message that ends a dump.
pub const DONE: u16 = 3;
/// Type of the message that ends a transaction.
pub const BATCH_END: u16 = 0x11;
/// Type of a message about a table: `NFT_MSG_*` in the subsystem `nf_tables`.
pub const NEW_TABLE: u16 = 0xa00;
/// Type of a message about a chain.
pub const NEW_CHAIN: u16 = 0xa03;
/// Type of a message about a rule.
pub const NEW_RULE: u16 = 0xa06;
/// Type of a message about a set.
pub const NEW_SET: u16 = 0xa09;
/// Type of a message about elements of a set.
pub const NEW_ELEMENTS: u16 = 0xa0c;
/// Type of a message about a generation.
pub const NEW_GENERATION: u16 = 0xa0f;
/// Type of a message about an object.
pub const NEW_OBJECT: u16 = 0xa12;

/// `NFTA_SET_NAME`, and `NFTA_SET_ELEM_LIST_SET`.
const SET: u16 = 2;
const SEQ: u32 = 1;

/// Returns the kind of the first message.
pub fn kind(answers: &[u8]) -> Option<u16> {
    let first = Messages::new(answers).next()?.ok()?;
    Some(first.kind)
}

/// Returns the payload of the first message.
pub fn payload(answers: &[u8]) -> Option<&[u8]> {
    let first = Messages::new(answers).next()?.ok()?;
    Some(first.payload)
}

/// Returns the set that a message about a set or its elements names.
pub fn set_name(payload: &[u8]) -> Option<SetName> {
    let attrs = Attrs::new(payload.get(4..)?);
    SetName::parse(attrs.first(SET).ok()??.str().ok()?)
}

/// Adds an answer.
pub fn write(writer: &mut Writer, kind: u16, payload: &[u8]) {
    let header = Header {
        kind,
        flags: 2,
        seq: SEQ,
    };
    let open = writer.begin_plain(header);
    writer.raw(payload);
    writer.end(open);
}

/// Adds the end of a dump.
pub fn write_end(writer: &mut Writer) {
    write(writer, DONE, &[0; 4]);
}
