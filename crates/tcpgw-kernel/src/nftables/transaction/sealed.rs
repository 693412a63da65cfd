//! A whole transaction: its bytes, and what each of its messages is about, so that a refusal can be traced.

use std::io::IoSlice;

use crate::netlink::tlv::{Attrs, FAMILY_LEN, HEADER_LEN, Messages, Nack};
use crate::nftables::nft::{self, elem, expr, rule};
use tcpgw_core::ruleset::name::SetName;

/// Subject of a message, for the error when the kernel refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageSubject {
    /// The beginning or the end of the batch.
    Batch,
    /// The table itself.
    Table,
    /// A timeout object.
    Timeouts,
    /// A set or map.
    Set(SetName),
    /// A chain.
    Chain(String),
    /// A rule of this chain.
    Rule(String),
    /// Elements of this set.
    Elements(SetName),
}

pub(super) struct Origin {
    pub(super) seq: u32,
    pub(super) piece: usize,
    pub(super) start: usize,
    pub(super) subject: MessageSubject,
}

/// A complete transaction, which can be sent.
pub struct Sealed {
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) origins: Vec<Origin>,
}

/// A message that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedMessage {
    /// Subject of the refused message.
    pub subject: MessageSubject,
    /// Key of the element, if the kernel names one.
    pub element: Option<Box<[u8]>>,
    /// Kind of the expression, if the kernel names one.
    pub expression: Option<String>,
    /// Answer of the kernel.
    pub nack: Nack,
}

impl Sealed {
    /// Returns the pieces, which must be sent with one `sendmsg`.
    pub fn parts(&self) -> Vec<IoSlice<'_>> {
        self.pieces.iter().map(|piece| IoSlice::new(piece)).collect()
    }

    /// Changes the generation that the kernel checks, without encoding the transaction again: there is little time where others
    /// commit often.
    pub fn set_generation(&mut self, generation: u32) {
        const VALUE: std::ops::Range<usize> = HEADER_LEN + FAMILY_LEN + 4..HEADER_LEN + FAMILY_LEN + 8;
        if let Some(value) = self.pieces.first_mut().and_then(|piece| piece.get_mut(VALUE)) {
            value.copy_from_slice(&generation.to_be_bytes());
        }
    }

    /// Returns the number of bytes of all pieces.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Returns whether there is nothing between the beginning and the end.
    pub fn is_empty(&self) -> bool {
        self.origins.len() <= 1
    }

    /// Returns the sequence number of the message that asks for the acknowledgement.
    pub fn last_seq(&self) -> u32 {
        self.origins.last().map_or(0, |origin| origin.seq)
    }

    /// Returns the sequence number of the message that opens the batch.
    pub fn first_seq(&self) -> u32 {
        self.origins.first().map_or(0, |origin| origin.seq)
    }

    /// Returns what a refusal is about; `None`: no message has its sequence number.
    pub fn trace(&self, nack: Nack) -> Option<RefusedMessage> {
        let at = self.origins.binary_search_by_key(&nack.seq, |origin| origin.seq).ok()?;
        let origin = &self.origins[at];
        let message = self.pieces[origin.piece]
            .get(origin.start..)
            .and_then(|bytes| Messages::new(bytes).next());
        let payload = message.and_then(Result::ok).map_or(&[][..], |message| message.payload);
        let body = payload.get(4..).unwrap_or_default();
        let offset = nack
            .offset
            .and_then(|offset| usize::try_from(offset).ok()?.checked_sub(20));
        let (mut element, mut expression) = (None, None);
        match &origin.subject {
            MessageSubject::Elements(_) => element = offset.and_then(|offset| element_key(body, offset)),
            MessageSubject::Rule(_) => expression = offset.and_then(|offset| expression_at(body, offset)),
            _ => {}
        }
        Some(RefusedMessage {
            subject: origin.subject.clone(),
            element,
            expression,
            nack,
        })
    }
}

/// Returns the key of the element whose attribute begins at the offset.
fn element_key(body: &[u8], offset: usize) -> Option<Box<[u8]>> {
    let element = Attrs::new(body.get(offset..)?)
        .next()?
        .ok()
        .filter(|attr| attr.kind == nft::LIST_ELEM)?;
    let within = |bytes, kind| Attrs::new(bytes).map_while(Result::ok).find(|attr| attr.kind == kind);
    let key = within(element.payload, elem::KEY)?;
    Some(within(key.payload, elem::VALUE)?.payload.into())
}

/// Returns the kind of the expression that holds the attribute at the offset.
fn expression_at(body: &[u8], offset: usize) -> Option<String> {
    let target = body.as_ptr() as usize + offset;
    let list = Attrs::new(body)
        .map_while(Result::ok)
        .find(|attr| attr.kind == rule::EXPRESSIONS)?;
    let holder = Attrs::new(list.payload).map_while(Result::ok).find(|expression| {
        let start = expression.payload.as_ptr() as usize;
        (start - 4..start + expression.payload.len()).contains(&target)
    })?;
    let name = Attrs::new(holder.payload)
        .map_while(Result::ok)
        .find(|attr| attr.kind == expr::NAME)?;
    name.str().ok().map(str::to_owned)
}
