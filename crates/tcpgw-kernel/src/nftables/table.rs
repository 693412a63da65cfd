//! Reads the table itself, and the generation of the ruleset.

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::Malformed;
use crate::nftables::message::{absent_is_none, request};
use crate::nftables::nft::{self, msg, table};
use crate::nftables::skeleton::TABLE;

/// The table as the kernel lists it, without what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTable {
    /// Number that the kernel gave it; no number is given twice in a network namespace.
    pub handle: u64,
    /// Comment, which names the version of the skeleton, the flow mark and the room of the sets.
    pub comment: Option<String>,
    /// Flags `NFT_TABLE_F_*`.
    pub flags: u32,
    /// Netlink port of the socket that owns it; `None`: it has no owner.
    pub owner: Option<u32>,
}

/// Returns the generation id of the ruleset, which every transaction in this network namespace changes, of any program.
///
/// # Errors
/// Fails when the kernel refuses the request, or when its answer cannot be read or has no generation id.
pub fn generation(socket: &mut impl NetlinkExchange) -> Result<u32, NetlinkError> {
    let mut id = None;
    socket.request(
        "read the generation of the ruleset",
        |writer, seq| request(writer, msg::GET_GEN, nft::F_ACK, seq, |_| {}),
        |message| {
            let (_, attrs) = message.family()?;
            id = attrs.first(nft::GEN_ID)?.map(|attr| attr.be32()).transpose()?.or(id);
            Ok(())
        },
    )?;
    id.ok_or(NetlinkError::Malformed(Malformed::new(
        "no generation id in the answer",
    )))
}

/// Returns the table, or `None` if there is none.
///
/// # Errors
/// Fails when the kernel refuses the request for another reason, or when its answer cannot be read.
pub fn table(socket: &mut impl NetlinkExchange) -> Result<Option<ListedTable>, NetlinkError> {
    let mut found = None;
    let answer = socket.request(
        "read the table",
        |writer, seq| {
            request(writer, msg::GET_TABLE, nft::F_ACK, seq, |writer| {
                writer.str(table::NAME, TABLE);
            });
        },
        |message| {
            let (mut handle, mut comment, mut flags, mut owner) = (None, None, 0, None);
            for attr in message.family()?.1 {
                let attr = attr?;
                match attr.kind {
                    table::HANDLE => handle = Some(attr.be64()?),
                    table::USERDATA => comment = read_comment(attr.payload),
                    table::FLAGS => flags = attr.be32()?,
                    table::OWNER => owner = Some(attr.be32()?),
                    _ => {}
                }
            }
            found = handle.map(|handle| ListedTable {
                handle,
                comment,
                flags,
                owner,
            });
            Ok(())
        },
    );
    absent_is_none(answer)?;
    Ok(found)
}

fn read_comment(userdata: &[u8]) -> Option<String> {
    let (&[kind, length], rest) = userdata.split_first_chunk::<2>()?;
    let text = rest.get(..usize::from(length).checked_sub(1)?)?;
    (kind == table::COMMENT).then(|| tcpgw_core::escape::text(&String::from_utf8_lossy(text)))
}
