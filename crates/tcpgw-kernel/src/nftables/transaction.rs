//! A transaction as netlink messages, encoded before any of it is sent.

mod sealed;
mod steps;
#[cfg(test)]
mod tests;

pub use self::sealed::{MessageSubject, RefusedMessage, Sealed};

use self::sealed::Origin;
use crate::netlink::tlv::{Header, NetfilterHeader, TooLong, Writer};
use crate::nftables::nft;

/// Size in bytes from which a new piece of the buffer begins. The pieces are sent together; one growing buffer would be
/// copied.
const PIECE: usize = 1 << 20;
const INET: NetfilterHeader = NetfilterHeader {
    family: nft::INET,
    version: 0,
    res_id: 0,
};

/// A transaction under construction, to which messages are added.
pub struct Transaction {
    pieces: Vec<Writer>,
    origins: Vec<Origin>,
    seq: u32,
    sets: u32,
}

impl Transaction {
    /// Begins a transaction. With a generation, the kernel refuses it (ERESTART) if another program has committed
    /// since; 0 and `None` ask for no check. The first message has the sequence number after `seq`.
    pub fn begin(generation: Option<u32>, seq: u32) -> Self {
        let mut this = Self {
            pieces: vec![Writer::new()],
            origins: Vec::new(),
            seq,
            sets: 0,
        };
        let header = Header {
            kind: nft::BATCH_BEGIN,
            flags: nft::F_REQUEST,
            seq: this.next(MessageSubject::Batch),
        };
        this.writer().message(
            header,
            NetfilterHeader {
                family: 0,
                version: 0,
                res_id: nft::SUBSYSTEM,
            },
            |writer| {
                if let Some(generation) = generation {
                    writer.be32(nft::BATCH_GENID, generation);
                }
            },
        );
        this
    }

    /// Ends the transaction. Its last message is the only one that asks for an acknowledgement.
    ///
    /// # Errors
    /// Fails when an attribute is longer than its 16 bits of length can say.
    pub fn seal(mut self) -> Result<Sealed, TooLong> {
        let last = self.origins.last().map(|origin| (origin.piece, origin.start));
        let header = Header {
            kind: nft::BATCH_END,
            flags: nft::F_REQUEST,
            seq: self.next(MessageSubject::Batch),
        };
        self.writer().message(
            header,
            NetfilterHeader {
                family: 0,
                version: 0,
                res_id: nft::SUBSYSTEM,
            },
            |_| {},
        );
        self.origins.pop();
        let mut pieces = self
            .pieces
            .into_iter()
            .map(Writer::finish)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((piece, start)) = last
            && let Some([low, high]) = pieces[piece]
                .get_mut(start + 6..start + 8)
                .and_then(|flags| flags.first_chunk_mut())
        {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) | nft::F_ACK).to_ne_bytes();
        }
        Ok(Sealed {
            pieces,
            origins: self.origins,
        })
    }

    fn writer(&mut self) -> &mut Writer {
        if self.pieces.last().is_none_or(|piece| piece.len() > PIECE) {
            self.pieces.push(Writer::with_capacity(PIECE + (1 << 17)));
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    fn next(&mut self, subject: MessageSubject) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        let start = self.writer().len();
        self.origins.push(Origin {
            seq: self.seq,
            piece: self.pieces.len() - 1,
            start,
            subject,
        });
        self.seq
    }

    fn message(&mut self, kind: u16, flags: u16, subject: MessageSubject, fill: impl FnOnce(&mut Writer)) {
        let seq = self.next(subject);
        let header = Header {
            kind: nft::message(kind),
            flags: flags | nft::F_REQUEST,
            seq,
        };
        self.writer().message(header, INET, fill);
    }

    fn raw(&mut self, subject: MessageSubject, build: impl FnOnce(u32) -> Vec<u8>) {
        let seq = self.next(subject);
        let bytes = build(seq);
        self.writer().raw(&bytes);
    }
}
