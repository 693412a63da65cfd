//! Comparisons of a rule: of registers with values, ranges and the elements of sets.

use super::{NOTHING, RegisterContent, RuleDecoder, VERDICT_REGISTER, slot};
use crate::firewall::attributes::ExpressionData;
use crate::firewall::xt::compare;
use crate::firewall::{Load, Relation, RuleField, RuleVerdict, SetElement, Test};
use crate::netlink::tlv::Malformed;

impl RuleDecoder<'_> {
    pub(super) fn compare(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        let relation = match parts.number(2)? {
            0 => Relation::Equal,
            1 => Relation::Differs,
            2 => Relation::Less,
            3 => Relation::AtMost,
            4 => Relation::More,
            _ => Relation::AtLeast,
        };
        let value = parts.value(3)?;
        self.push_compare(parts.number(1)?, relation, value);
        Ok(())
    }

    pub(super) fn push_compare(&mut self, register: u32, relation: Relation, value: Vec<u8>) {
        let RegisterContent { load, mask } = self.held(register).clone();
        if load.field == RuleField::Other && mask.is_none() && relation == Relation::Equal {
            let fields = self.adjacent_fields(register);
            let len: usize = fields.iter().map(|(_, len)| len).sum();
            if fields.len() > 1 && len == value.len() {
                let mut rest = value.as_slice();
                for (field, len) in fields {
                    let (own, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                    rest = later;
                    self.rule.tests.push(compare(field, len, relation, own.to_vec()));
                }
                return;
            }
        }
        self.rule.tests.push(Test::Compare {
            load,
            mask,
            relation,
            value,
        });
    }

    pub(super) fn range(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        const DIFFERS: u32 = 1;
        let held = self.held(parts.number(1)?);
        let elements = vec![SetElement {
            from: parts.value(3)?,
            to: parts.value(4)?,
        }];
        let test = Test::In {
            key: vec![held.load],
            elements: held.mask.is_none().then_some(elements),
            negated: parts.number(2)? == DIFFERS,
        };
        self.rule.tests.push(test);
        Ok(())
    }

    pub(super) fn lookup(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        const INVERTED: u32 = 1;
        let name = parts.text(1)?;
        let content = (self.sets)(name);
        let elements = content.and_then(|content| content.elements.clone());
        let key = self.key(parts.number(2)?, content.map(|content| content.key_len));
        let tells = |load: &Load| !matches!(load.field, RuleField::Other | RuleField::Sender | RuleField::CtMark);
        if content.is_some() && elements.is_none() && key.iter().all(tells) {
            self.unread.push(name.to_owned());
        }
        let catch_all = content.filter(|content| content.catch_all).map(|content| SetElement {
            from: vec![0; content.key_len],
            to: vec![0xff; content.key_len],
        });
        match parts.get(3)?.map(|attr| attr.be32()).transpose()? {
            // The element gives the verdict where no other one does: without the others the verdict is unknown.
            Some(VERDICT_REGISTER) => {
                self.rule.verdict = RuleVerdict::Map(key, elements.filter(|_| catch_all.is_none()));
            }
            destination => {
                self.rule.tests.push(Test::In {
                    key,
                    elements: elements
                        .map(|elements| elements.into_iter().map(|(of, _)| of).chain(catch_all).collect()),
                    negated: parts.number(5)? & INVERTED != 0,
                });
                if let Some(register) = destination {
                    self.unknown(register);
                }
            }
        }
        Ok(())
    }

    /// Returns the fields that lie one behind the other from a register on, each padded to 4 bytes.
    fn key(&self, register: u32, width: Option<usize>) -> Vec<Load> {
        let mut at = slot(register);
        let mut key = Vec::new();
        let mut length = 0;
        loop {
            let held = self.registers.get(&at).unwrap_or(&NOTHING);
            let masked = held.mask.is_some();
            let load = if masked { NOTHING.load } else { held.load };
            key.push(load);
            let padded = load.len.next_multiple_of(4).max(4);
            length += padded;
            at += u32::try_from(padded / 4).unwrap_or(1);
            if masked || length >= width.unwrap_or(0) {
                return key;
            }
        }
    }
}
