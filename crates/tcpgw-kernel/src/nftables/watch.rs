//! Watch for writes of other programs to the table while these write to their own tables all the time: the generation
//! counts all tables, so it alone does not tell.

use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::{Attrs, Message, NetlinkReply};
use crate::nftables::nft::{self, msg};
use crate::nftables::skeleton::TABLE;
use crate::nftables::transaction::Transaction;

/// `NFNLGRP_NFTABLES` (`include/uapi/linux/netfilter/nfnetlink.h`).
pub(crate) const GROUP: libc::c_int = 7;
/// First attribute of every message but that of a new generation, which names the table (`NFTA_TABLE_NAME`,
/// `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and so on).
const NAMES_TABLE: u16 = 1;

/// Monitor of every commit, each of which costs the kernel time while it is open: open it only when it is needed.
#[derive(Debug)]
pub(crate) struct Watch(Netlink);

impl Watch {
    /// Opens the monitor in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = Netlink::netfilter()?;
        socket.join(GROUP)?;
        Ok(Self(socket))
    }

    /// Returns whether another program wrote to the table since the last call, or may have.
    pub(crate) fn touched(&mut self) -> Result<bool, NetlinkError> {
        self.wait_for_writers()?;
        let mut touched = false;
        loop {
            match self.0.try_recv() {
                Ok(None) => return Ok(touched),
                Ok(Some(messages)) => {
                    for message in messages {
                        touched |= message.map_or(true, |message| is_about_us(&message));
                    }
                }
                Err(NetlinkError::Overrun | NetlinkError::Truncated(_)) => touched = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the notifications of visible commits are sent. A commit is visible before its messages are sent, but
    /// it holds a lock until then. An empty transaction takes that lock, too (`nf_tables_valid_genid`).
    fn wait_for_writers(&mut self) -> Result<(), NetlinkError> {
        let nothing = Transaction::begin(None, self.0.next_seq()).seal()?;
        self.0.send("wait for others to commit", &nothing.parts())
    }
}

/// Returns whether a notification may be about the table. One that cannot be read may be.
pub fn is_about_us(message: &Message<'_>) -> bool {
    match message.reply() {
        Ok(NetlinkReply::Ack | NetlinkReply::Noop) => false,
        Ok(NetlinkReply::Data(data)) if data.kind == nft::message(msg::NEW_GEN) => false,
        Ok(NetlinkReply::Data(data)) => {
            let family = data.family();
            family.map_or(true, |(family, attrs)| family.family == nft::INET && names_us(attrs))
        }
        _ => true,
    }
}

fn names_us(attrs: Attrs<'_>) -> bool {
    let mut attrs = attrs.map_while(Result::ok);
    let name = attrs.find(|attr| attr.kind == NAMES_TABLE);
    name.is_none_or(|attr| attr.str().map_or(true, |name| name == TABLE))
}
