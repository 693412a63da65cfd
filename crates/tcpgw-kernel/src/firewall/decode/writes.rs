//! Writes of a rule: to properties and the payload of a packet, and by targets of iptables.

use super::{META_MARK, MOST_VALUE, PAYLOAD_SOURCE, RuleDecoder, slot};
use crate::firewall::attributes::ExpressionData;
use crate::firewall::mark::{self, ConnmarkEffect, MarkWrite};
use crate::firewall::rewrite::{self, HeaderField, HeaderWrite, RegisterByte};
use crate::firewall::{RuleEffect, RuleVerdict};
use crate::netlink::tlv::Malformed;

/// `NFT_META_PKTTYPE`.
const META_PACKET_TYPE: u32 = 19;

impl RuleDecoder<'_> {
    /// Decodes a write to a property of the packet: its mark, or for whom it was received.
    pub(super) fn write_meta(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        let from = slot(parts.number(3)?);
        match parts.number(2)? {
            META_MARK => {
                let from_ct = self.marks.get(&from).is_some_and(|write| write.keep != 0);
                let write = self.packet_marks.get(&from).copied();
                self.rule.effects.push(if from_ct {
                    RuleEffect::RestoreMark
                } else {
                    RuleEffect::PacketMark(write.unwrap_or(MarkWrite::UNKNOWN))
                });
            }
            META_PACKET_TYPE => {
                let written = self.bytes.get(&from).and_then(|bytes| bytes.first());
                let write = match written {
                    Some(RegisterByte::Known(kind)) => HeaderWrite::new(HeaderField::PacketType, 0, (*kind).into()),
                    _ => HeaderWrite::unknown(HeaderField::PacketType),
                };
                self.rule.effects.push(RuleEffect::Rewrite(write));
            }
            _ => {}
        }
        Ok(())
    }

    /// Decodes a write to the payload. The hop limit is followed if the rule gives its value.
    pub(super) fn write_payload(&mut self, parts: &ExpressionData<'_>) -> Result<(), Malformed> {
        const NETWORK: u32 = 1;
        let (base, offset) = (parts.number(2)?, parts.number(3)?);
        let len = usize::try_from(parts.number(4)?).unwrap_or(0).min(MOST_VALUE);
        let mut bytes = self
            .bytes
            .get(&slot(parts.number(PAYLOAD_SOURCE)?))
            .cloned()
            .unwrap_or_default();
        bytes.resize(len, RegisterByte::Unknown);
        let place: u32 = if self.is_ipv6() { 7 } else { 8 };
        let at = place.checked_sub(offset).filter(|_| base == NETWORK);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(RegisterByte::Known(limit)) = at.and_then(|at| bytes.get(at)) {
            self.rule.effects.push(RuleEffect::HopLimit(*limit));
        }
        if !self.is_arp() {
            let writes = rewrite::writes(self.is_ipv6(), (base, offset), &bytes);
            self.rule.effects.extend(writes.into_iter().map(RuleEffect::Rewrite));
        }
        Ok(())
    }

    pub(super) fn target(&mut self, name: &str, revision: u32, info: &[u8]) {
        match name {
            "CONNMARK" => match mark::connmark(revision, info) {
                Some(ConnmarkEffect::Writes(write)) => self.rule.effects.push(RuleEffect::CtMark(write)),
                Some(ConnmarkEffect::Restores) => self.rule.effects.push(RuleEffect::RestoreMark),
                None => {}
            },
            "REJECT" => self.rule.verdict = RuleVerdict::Reject,
            "DNAT" | "REDIRECT" => self.rule.effects.push(RuleEffect::Dnat),
            "SNPT" | "DNPT" => self
                .rule
                .effects
                .extend(rewrite::of_target(name).map(RuleEffect::Rewrite)),
            "CT" | "NOTRACK" => self.rule.effects.push(RuleEffect::Notrack),
            "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" | "TARPIT" => {
                self.rule.verdict = RuleVerdict::Unknown(name.into());
            }
            // `struct ipt_TTL_info` and `ip6t_HL_info`: the mode, of which 0 sets it, and the number.
            "TTL" | "HL" => {
                if let [0, limit, ..] = info {
                    self.rule.effects.push(RuleEffect::HopLimit(*limit));
                }
            }
            "MARK" => {
                // `struct xt_mark_tginfo2`: the mark and its mask.
                let word = |at: usize| info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                let write = match (revision, word(0), word(4)) {
                    (2, Some(value), Some(bits)) => MarkWrite::set(value, bits),
                    _ => MarkWrite::UNKNOWN,
                };
                self.rule.effects.push(RuleEffect::PacketMark(write));
            }
            // Logs and the like.
            _ => {}
        }
    }
}
