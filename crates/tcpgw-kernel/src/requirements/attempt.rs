//! Asks the kernel for a feature in a batch without an end.

use std::io::IoSlice;

use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::{Attrs, Header, Messages, Nack, NetfilterHeader, NetlinkReply, Writer};
use crate::nftables::nft::{self, msg, object, rule, set, table};
use crate::nftables::sets;
use crate::nftables::skeleton::{self, TABLE};
use crate::requirements::features::Needs;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::skeleton::{Hook, SkeletonBase, SkeletonChain};
use tcpgw_core::ruleset::stmt::Stmt;
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};

/// Name of the table in the batch, which is never made.
const PROBE: &str = "tcpgw-doctor";

/// Sends a batch without an end, and returns the first refusal.
///
/// # Errors
/// Fails when the batch cannot be sent or its answer cannot be read.
pub(super) fn first_refusal(socket: &mut Netlink, needs: &Needs) -> Result<Option<Nack>, NetlinkError> {
    let mut batch = TrialBatch {
        writer: Writer::new(),
        seq: socket.next_seq(),
    };
    batch.begin();
    batch.message(msg::NEW_TABLE, |writer| {
        writer.str(table::NAME, PROBE);
        if needs.flags != 0 {
            writer.be32(table::FLAGS, needs.flags);
        }
    });
    for (id, name) in (1..).zip(&needs.sets) {
        let mut body = Writer::new();
        sets::write_set(&mut body, *name, Room::default(), id);
        let body = body.finish()?;
        batch.message(msg::NEW_SET, |writer| elsewhere(writer, &body, set::TABLE));
    }
    if needs.objects {
        for timeouts in Timeouts::FIXED {
            let mut body = Writer::new();
            sets::write_timeouts(&mut body, timeouts, &KernelTimeouts::default());
            let body = body.finish()?;
            batch.message(msg::NEW_OBJ, |writer| elsewhere(writer, &body, object::TABLE));
        }
    }
    if let Some((nat, hook, stmts)) = &needs.chain {
        batch.chain(*nat, *hook, stmts);
    }
    let last = batch.seq;
    let bytes = batch.writer.finish()?;
    socket.send("ask the kernel for its features", &[IoSlice::new(&bytes)])?;
    socket.skip_seq(last);
    let mut refused = None;
    // The answers are there already: the kernel works in the caller's context.
    while let Some(messages) = socket.try_recv()? {
        for message in messages {
            if let NetlinkReply::Nack(nack) = message?.reply()? {
                refused.get_or_insert(nack);
            }
        }
    }
    Ok(refused)
}

struct TrialBatch {
    writer: Writer,
    seq: u32,
}

impl TrialBatch {
    fn begin(&mut self) {
        let header = Header {
            kind: nft::BATCH_BEGIN,
            flags: nft::F_REQUEST,
            seq: self.seq,
        };
        let family = NetfilterHeader {
            res_id: nft::SUBSYSTEM,
            ..NetfilterHeader::default()
        };
        self.writer.message(header, family, |_| {});
    }

    fn message(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        self.seq = self.seq.wrapping_add(1);
        let header = Header {
            kind: nft::message(kind),
            flags: nft::F_REQUEST | nft::F_CREATE,
            seq: self.seq,
        };
        let family = NetfilterHeader {
            family: nft::INET,
            ..NetfilterHeader::default()
        };
        self.writer.message(header, family, fill);
    }

    fn chain(&mut self, nat: bool, hook: Hook, stmts: &[Stmt]) {
        let priority = if hook == Hook::Prerouting { -100 } else { 100 };
        let chain = SkeletonChain {
            name: "probe".into(),
            base: Some(SkeletonBase {
                hook,
                nat,
                priority,
                priority_name: "",
            }),
            rules: Vec::new(),
        };
        self.foreign(msg::NEW_CHAIN, &skeleton::new_chain(&chain, 0), nft::chain::TABLE);
        if !stmts.is_empty() {
            self.foreign(msg::NEW_RULE, &skeleton::new_rule(&chain.name, stmts, 0), rule::TABLE);
        }
    }

    fn foreign(&mut self, kind: u16, made: &[u8], table: u16) {
        let message = Messages::new(made).next().and_then(Result::ok);
        let body = message.and_then(|message| message.payload.get(4..)).unwrap_or_default();
        self.message(kind, |writer| elsewhere(writer, body, table));
    }
}

/// Writes the same attributes, with the name of the trial's table.
fn elsewhere(writer: &mut Writer, body: &[u8], table: u16) {
    for attr in Attrs::new(body).map_while(Result::ok) {
        if attr.kind == table && attr.payload.starts_with(TABLE.as_bytes()) {
            writer.str(table, PROBE);
        } else {
            writer.attr(attr.kind, attr.payload);
        }
    }
}
