//! The attributes of an expression.

use super::RuleVerdict;
use crate::netlink::tlv::{Attr, Attrs, Malformed};
use crate::nftables::nft::elem;

/// The parts of an expression's data.
pub(super) struct ExpressionData<'a>(pub(super) &'a [u8]);

impl<'a> ExpressionData<'a> {
    pub(super) fn get(&self, kind: u16) -> Result<Option<Attr<'a>>, Malformed> {
        Attrs::new(self.0).first(kind)
    }

    pub(super) fn number(&self, kind: u16) -> Result<u32, Malformed> {
        self.get(kind)?.map_or(Ok(0), |attr| attr.be32())
    }

    pub(super) fn has(&self, kind: u16) -> Result<bool, Malformed> {
        Ok(self.get(kind)?.is_some())
    }

    pub(super) fn text(&self, kind: u16) -> Result<&'a str, Malformed> {
        self.get(kind)?.map_or(Ok(""), |attr| attr.str())
    }

    pub(super) fn value(&self, kind: u16) -> Result<Vec<u8>, Malformed> {
        let Some(data) = self.get(kind)? else {
            return Ok(Vec::new());
        };
        Ok(data
            .nested()
            .first(elem::VALUE)?
            .map_or_else(Vec::new, |value| value.payload.to_vec()))
    }
}

/// Reads a verdict from its attributes.
pub(super) fn read_verdict(payload: &[u8]) -> Result<RuleVerdict, Malformed> {
    let parts = ExpressionData(payload);
    let chain = || parts.text(elem::VERDICT_CHAIN).map(str::to_owned);
    Ok(match parts.number(elem::VERDICT_CODE)?.cast_signed() {
        0 => RuleVerdict::Drop,
        1 => RuleVerdict::Accept,
        -1 => RuleVerdict::Continue,
        -3 => RuleVerdict::Jump(chain()?),
        -4 => RuleVerdict::Goto(chain()?),
        -5 => RuleVerdict::Return,
        _ => RuleVerdict::Unknown("a verdict".into()),
    })
}
