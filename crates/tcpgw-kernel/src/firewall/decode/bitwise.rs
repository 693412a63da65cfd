//! Operations on the bits of registers.

use std::collections::BTreeMap;

use super::{NOTHING, RuleDecoder, slot};
use crate::firewall::attributes::ExpressionData;
use crate::firewall::mark::MarkWrite;
use crate::firewall::rewrite::RegisterByte;
use crate::netlink::tlv::Malformed;

/// Returns what an operation on the bits of a register would write.
fn bitwise_mark(
    marks: &BTreeMap<u32, MarkWrite>,
    from: u32,
    parts: &ExpressionData<'_>,
) -> Result<Option<MarkWrite>, Malformed> {
    const MASK_AND_XOR: u32 = 0;
    const OR: u32 = 4;
    const SECOND: u16 = 8;
    let of = |register: u32| marks.get(&slot(register)).copied();
    let number = |bytes: Vec<u8>| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    Ok(match (parts.number(6)?, of(from)) {
        (MASK_AND_XOR, Some(write)) => match (number(parts.value(4)?), number(parts.value(5)?)) {
            (Some(mask), Some(xor)) => Some(write.masked(mask, xor)),
            _ => None,
        },
        (OR, first) => {
            let second = of(parts.number(SECOND)?);
            // With unknown bits, a mark that is kept whole keeps those that are set.
            let whole = [first, second]
                .into_iter()
                .flatten()
                .find(|write| *write == MarkWrite::SAME);
            whole.or_else(|| Some(first?.or(second?)))
        }
        _ => None,
    })
}

impl RuleDecoder<'_> {
    pub(super) fn bitwise(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        const MASK_AND_XOR: u32 = 0;
        let (from, to) = (parts.number(1)?, parts.number(2)?);
        self.bitwise_mark(from, to, parts)?;
        let bytes = self.bitwise_bytes(from, parts)?;
        match bytes {
            Some(bytes) => self.bytes.insert(slot(to), bytes),
            None => self.bytes.remove(&slot(to)),
        };
        let mut held = self.held(from).clone();
        let plain = parts.number(6)? == MASK_AND_XOR && parts.value(5)?.iter().all(|byte| *byte == 0);
        if plain && held.mask.is_none() {
            held.mask = Some(parts.value(4)?);
        } else {
            held = NOTHING;
        }
        self.registers.insert(slot(to), held);
        Ok(())
    }

    fn bitwise_bytes(&self, from: u32, parts: &ExpressionData<'_>) -> Result<Option<Vec<RegisterByte>>, Malformed> {
        const MASK_AND_XOR: u32 = 0;
        let Some(bytes) = self
            .bytes
            .get(&slot(from))
            .filter(|_| parts.number(6) == Ok(MASK_AND_XOR))
        else {
            return Ok(None);
        };
        let (mask, xor) = (parts.value(4)?, parts.value(5)?);
        let bytes = bytes.iter().zip(mask.iter().zip(xor));
        let bytes = bytes.map(|(byte, (mask, xor))| byte.masked(*mask, xor));
        Ok(Some(bytes.collect()))
    }

    fn bitwise_mark(&mut self, from: u32, to: u32, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        for marks in [&mut self.marks, &mut self.packet_marks] {
            match bitwise_mark(marks, from, parts)? {
                Some(write) => marks.insert(slot(to), write),
                None => marks.remove(&slot(to)),
            };
        }
        Ok(())
    }
}
