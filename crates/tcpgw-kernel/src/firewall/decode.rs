//! Decoding of `nf_tables` expressions to tests, effects and verdicts.

mod bitwise;
mod comparisons;
mod writes;

use std::collections::BTreeMap;

use super::attributes::{ExpressionData, read_verdict};
use super::field::{arp_field, ct_field, extension_field, fields_within, meta_field, payload_field, route_field};
use super::mark::MarkWrite;
use super::rewrite::RegisterByte;
use super::stateful as state;
use super::{Load, Relation, Rule, RuleEffect, RuleField, RuleVerdict, SetElement, TableFamily, Test, xt};
use crate::netlink::tlv::{Attrs, Malformed};
use crate::nftables::nft::{LIST_ELEM, elem, expr};

const VERDICT_REGISTER: u32 = 0;
/// `NFTA_LIMIT_FLAGS`, and `NFT_LIMIT_F_INV` of it.
const LIMIT_FLAGS: u16 = 5;
const LIMIT_OVER: u32 = 1;
/// `NFT_OBJECT_QUOTA` and `NFT_OBJECT_LIMIT`.
const OBJECT_QUOTA: u32 = 2;
const OBJECT_LIMIT: u32 = 4;
/// `NFT_CT_MARK`, `NFT_META_MARK`.
const CT_MARK: u32 = 3;
const META_MARK: u32 = 3;
/// `NFTA_PAYLOAD_SREG`.
const PAYLOAD_SOURCE: u16 = 5;
/// Largest length in bytes of a value that is followed through registers.
const MOST_VALUE: usize = 64;

/// A set that rules look into.
#[derive(Debug, Clone, Default)]
pub(super) struct SetContent {
    /// Length of a key in bytes.
    pub(super) key_len: usize,
    /// Elements of the set; `None` if they were not read.
    pub(super) elements: Option<Vec<(SetElement, RuleVerdict)>>,
    /// Whether it has an element that stands for all others.
    pub(super) catch_all: bool,
}

/// The sets of the rule's table.
pub(super) type TableSets<'a> = &'a dyn Fn(&str) -> Option<&'a SetContent>;

/// A decoded rule, and the names of sets that would tell more about it if they were read.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) rule: Rule,
    pub(super) unread: Vec<String>,
}

/// Decodes a rule from its list of expressions.
pub(super) fn rule(family: TableFamily, expressions: &[u8], sets: TableSets<'_>) -> Result<Decoded, Malformed> {
    let mut reader = RuleDecoder {
        family,
        sets,
        registers: BTreeMap::new(),
        marks: BTreeMap::new(),
        packet_marks: BTreeMap::new(),
        bytes: BTreeMap::new(),
        rule: Rule::default(),
        unread: Vec::new(),
    };
    for expression in Attrs::new(expressions) {
        let expression = expression?;
        if expression.kind == LIST_ELEM {
            reader.expression(expression.payload)?;
        }
    }
    Ok(Decoded {
        rule: reader.rule,
        unread: reader.unread,
    })
}

/// Content of a register: a field, perhaps masked.
#[derive(Debug, Clone)]
struct RegisterContent {
    load: Load,
    mask: Option<Vec<u8>>,
}

const NOTHING: RegisterContent = RegisterContent {
    load: Load {
        field: RuleField::Other,
        len: 0,
    },
    mask: None,
};

struct RuleDecoder<'a> {
    family: TableFamily,
    sets: TableSets<'a>,
    /// Fields by 4-byte slot.
    registers: BTreeMap<u32, RegisterContent>,
    /// Value that a slot would write to the ct mark; a missing one is unknown.
    marks: BTreeMap<u32, MarkWrite>,
    /// Value that a slot would write to the packet's mark.
    packet_marks: BTreeMap<u32, MarkWrite>,
    /// The bytes that start at a slot.
    bytes: BTreeMap<u32, Vec<RegisterByte>>,
    rule: Rule,
    unread: Vec<String>,
}

fn slot(register: u32) -> u32 {
    match register {
        1..=4 => (register - 1) * 4,
        other => other.saturating_sub(8),
    }
}

impl RuleDecoder<'_> {
    fn expression(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let Some(name) = Attrs::new(payload).first(expr::NAME)? else {
            return Ok(());
        };
        let data = Attrs::new(payload).first(expr::DATA)?;
        let parts = ExpressionData(data.map_or(&[][..], |data| data.payload));
        match name.str()? {
            "meta" if parts.has(1)? => {
                self.hold(parts.number(1)?, meta_field(parts.number(2)?));
                if parts.number(2)? == META_MARK {
                    self.packet_marks.insert(slot(parts.number(1)?), MarkWrite::SAME);
                }
            }
            "ct" if parts.has(1)? => {
                self.hold(parts.number(1)?, ct_field(parts.number(2)?));
                if parts.number(2)? == CT_MARK {
                    self.marks.insert(slot(parts.number(1)?), MarkWrite::SAME);
                }
            }
            "ct" if parts.number(2)? == CT_MARK && parts.has(4)? => {
                let write = self.marks.get(&slot(parts.number(4)?)).copied();
                self.rule
                    .effects
                    .push(RuleEffect::CtMark(write.unwrap_or(MarkWrite::UNKNOWN)));
            }
            "meta" if parts.has(3)? => self.write_meta(&parts)?,
            "payload" if parts.has(1)? => self.payload(&parts)?,
            "payload" if parts.has(PAYLOAD_SOURCE)? => self.write_payload(&parts)?,
            "hash" => {
                self.forget(&parts)?;
                self.number_made(parts.number(2)?, parts.number(4)?, parts.number(6)?);
            }
            "numgen" => {
                self.forget(&parts)?;
                self.number_made(parts.number(1)?, parts.number(2)?, parts.number(4)?);
            }
            // Objects with names: whether a limit is meant for what exceeds it, the rule does not say.
            "objref" if matches!(parts.number(1)?, OBJECT_QUOTA | OBJECT_LIMIT) => {
                self.rule
                    .tests
                    .push(Test::Unknown("a limit or quota by its name".into()));
            }
            // They count, or set a timeout, a header field.
            "counter" | "log" | "last" | "masq" | "dup" | "objref" | "meta" | "ct" | "payload" => {}
            "fib" => {
                self.hold(parts.number(1)?, route_field(parts.number(2)?, parts.number(3)?));
            }
            "exthdr" if parts.has(1)? => self.extension(&parts)?,
            "byteorder" => self.byteorder(&parts)?,
            "bitwise" => self.bitwise(&parts)?,
            "cmp" => self.compare(&parts)?,
            "range" => self.range(&parts)?,
            "lookup" => self.lookup(&parts)?,
            "immediate" => self.immediate(&parts)?,
            "reject" => self.rule.verdict = RuleVerdict::Reject,
            "notrack" => self.rule.effects.push(RuleEffect::Notrack),
            "flow_offload" => self.rule.effects.push(RuleEffect::Offload),
            "redir" => self.rule.effects.push(RuleEffect::Dnat),
            "nat" => {
                const DNAT: u32 = 1;
                if parts.number(1)? == DNAT {
                    self.rule.effects.push(RuleEffect::Dnat);
                }
            }
            "limit" if parts.number(LIMIT_FLAGS)? & LIMIT_OVER != 0 => self.rule.tests.push(Test::Exceeds),
            // Below its rate, it holds for all.
            "limit" => self.rule.tests.push(Test::Unknown("a limit".into())),
            "quota" | "connlimit" | "dynset" => {
                let test = state::test(name.str()?, &parts)?;
                self.rule.tests.extend(test);
            }
            "match" => {
                let info = parts.get(3)?.map_or(&[][..], |attr| attr.payload);
                self.rule
                    .tests
                    .extend(xt::matches(parts.text(1)?, parts.number(2)?, info));
            }
            "target" => {
                let info = parts.get(3)?.map_or(&[][..], |attr| attr.payload);
                self.target(parts.text(1)?, parts.number(2)?, info);
            }
            "queue" | "synproxy" | "tproxy" | "fwd" => self.rule.verdict = RuleVerdict::Unknown(name.str()?.into()),
            // All others load something.
            _ if parts.has(1)? => self.forget(&parts)?,
            other => self.rule.tests.push(Test::Unknown(other.into())),
        }
        Ok(())
    }

    fn hold(&mut self, register: u32, (field, len): (RuleField, usize)) {
        let held = RegisterContent {
            load: Load { field, len },
            mask: None,
        };
        self.unknown(register);
        self.registers.insert(slot(register), held);
    }

    /// Records that the content of a register is unknown.
    fn unknown(&mut self, register: u32) {
        let slot = slot(register);
        self.registers.remove(&slot);
        self.marks.remove(&slot);
        self.packet_marks.remove(&slot);
        self.bytes.remove(&slot);
    }

    /// Records that a register gets one of `count` numbers from `offset` on.
    fn number_made(&mut self, register: u32, count: u32, offset: u32) {
        self.hold(register, (RuleField::Generated { first: offset, count }, 4));
        if let Some(write) = MarkWrite::one_of(count, offset) {
            self.marks.insert(slot(register), write);
            self.packet_marks.insert(slot(register), write);
        }
    }

    /// Records that the first and the second attribute may be destination registers, whose content is then unknown.
    fn forget(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        for kind in [1, 2] {
            if let Some(register) = parts.get(kind)?.and_then(|attr| attr.be32().ok()) {
                self.unknown(register);
            }
        }
        Ok(())
    }

    fn held(&self, register: u32) -> &RegisterContent {
        self.registers.get(&slot(register)).unwrap_or(&NOTHING)
    }

    fn payload(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        let len = usize::try_from(parts.number(4)?).unwrap_or(0);
        let (base, offset) = (parts.number(2)?, parts.number(3)?);
        let field = self.field_at(base, offset, len);
        self.hold(parts.number(1)?, (field, len));
        let places = (offset..).take(len.min(MOST_VALUE));
        let bytes = places.map(|at| RegisterByte::OfPacket {
            place: (base, at),
            kept: 0xff,
            flipped: 0,
        });
        self.bytes.insert(slot(parts.number(1)?), bytes.collect());
        Ok(())
    }

    /// Decodes a load of an option or an extension header.
    fn extension(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        const PRESENT: u32 = 1;
        let kind = parts
            .get(2)?
            .and_then(|attr| attr.payload.first().copied())
            .unwrap_or(0);
        let len = usize::try_from(parts.number(4)?).unwrap_or(0);
        let field = extension_field(
            parts.number(6)?,
            kind,
            (parts.number(3)?, len),
            parts.number(5)? & PRESENT != 0,
        );
        self.hold(parts.number(1)?, field);
        Ok(())
    }

    /// Decodes a change of the byte order, which comes before a comparison with a bound.
    fn byteorder(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        let is_length = self.held(parts.number(1)?).load.field == RuleField::Length;
        self.forget(parts)?;
        if is_length {
            self.hold(parts.number(2)?, (RuleField::OrderedLength, 4));
        }
        Ok(())
    }

    fn field_at(&self, base: u32, offset: u32, len: usize) -> RuleField {
        if self.is_arp() {
            arp_field(base, offset, len)
        } else {
            payload_field(self.is_ipv6(), base, offset, len)
        }
    }

    /// Returns the fields in which a register holds adjacent bytes of the packet; none where it holds something else.
    fn adjacent_fields(&self, register: u32) -> Vec<(RuleField, usize)> {
        let bytes = self.bytes.get(&slot(register)).map_or(&[][..], Vec::as_slice);
        let Some(RegisterByte::OfPacket {
            place: (base, offset), ..
        }) = bytes.first().copied()
        else {
            return Vec::new();
        };
        let are_whole = bytes.iter().zip(offset..).all(|(byte, at)| {
            *byte
                == RegisterByte::OfPacket {
                    place: (base, at),
                    kept: 0xff,
                    flipped: 0,
                }
        });
        if are_whole {
            fields_within(offset, bytes.len(), |at, len| self.field_at(base, at, len))
        } else {
            Vec::new()
        }
    }

    /// Returns whether the rule is about IPv6. In tables of both families a rule tests the family first.
    fn is_ipv6(&self) -> bool {
        match self.family {
            TableFamily::Ip6 => true,
            TableFamily::Ip => false,
            _ => self.asks_for(&[10], [0x86, 0xdd]),
        }
    }

    /// Returns whether the rule is about ARP. In a chain of an interface, a rule tests the type of the frame first.
    fn is_arp(&self) -> bool {
        self.family == TableFamily::Arp || (self.family == TableFamily::Netdev && self.asks_for(&[], [0x08, 0x06]))
    }

    /// Returns whether a test has asked for one of these families (`NFPROTO_*`), or for this type of a frame.
    fn asks_for(&self, families: &[u8], kind: [u8; 2]) -> bool {
        self.rule.tests.iter().any(|test| match test {
            Test::Compare {
                load,
                value,
                relation: Relation::Equal,
                ..
            } => match load.field {
                RuleField::Family => value.first().is_some_and(|family| families.contains(family)),
                RuleField::EtherType | RuleField::FrameType => *value == kind,
                _ => false,
            },
            _ => false,
        })
    }

    fn immediate(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        if parts.number(1)? != VERDICT_REGISTER {
            let register = parts.number(1)?;
            self.unknown(register);
            let value = parts.value(2)?;
            if let Ok(bytes) = value.as_slice().try_into() {
                let write = MarkWrite::constant(u32::from_ne_bytes(bytes));
                self.marks.insert(slot(register), write);
                self.packet_marks.insert(slot(register), write);
            }
            let value = value.into_iter().take(MOST_VALUE);
            self.bytes
                .insert(slot(register), value.map(RegisterByte::Known).collect());
            return Ok(());
        }
        let verdict = parts
            .get(2)?
            .map(|data| data.nested().first(elem::VERDICT))
            .transpose()?;
        if let Some(attr) = verdict.flatten() {
            self.rule.verdict = read_verdict(attr.payload)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
