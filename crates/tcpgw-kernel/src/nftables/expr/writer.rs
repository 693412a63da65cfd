//! Writes single expressions: what a packet or flow has goes into registers, and is compared there.

use std::ffi::{CStr, CString};

use nftnl_sys as sys;

use crate::nftables::expr::numbers::{
    CMP_EQ, CT_DST_IP, CT_DST_IP6, CT_ID, CT_PROTO_DST, CT_PROTO_SRC, CT_SRC_IP, CT_SRC_IP6, IPPROTO_TCP, META_IIFNAME,
    META_L4PROTO, META_NFPROTO, META_OIFNAME, NETWORK_HEADER, ORIGINAL, REG_1, REG32_00, REPLY, TRANSPORT_HEADER,
    VERDICT,
};

use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::spec::Field;

/// An expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expr {
    /// Name of its kind, such as `meta`.
    pub kind: &'static CStr,
    /// Attributes, by libnftnl's numbers.
    pub attributes: Vec<(u16, AttributeValue)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A number of one byte.
    U8(u8),
    /// A number of four bytes.
    U32(u32),
    /// Bytes in the order in which the kernel compares them.
    Bytes(Vec<u8>),
    /// A name of an object or chain.
    Text(CString),
}

#[derive(Default)]
pub(super) struct ExprWriter {
    pub(super) exprs: Vec<Expr>,
    pub(super) family: Option<Family>,
    pub(super) tcp: bool,
}

impl ExprWriter {
    pub(super) fn push<const N: usize>(&mut self, kind: &'static CStr, attributes: [(u32, AttributeValue); N]) {
        let number = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let attributes = attributes
            .into_iter()
            .map(|(key, value)| (number(key), value))
            .collect();
        self.exprs.push(Expr { kind, attributes });
    }

    pub(super) fn meta(&mut self, key: u32, dreg: u32) {
        self.push(
            c"meta",
            [
                (sys::NFTNL_EXPR_META_KEY, AttributeValue::U32(key)),
                (sys::NFTNL_EXPR_META_DREG, AttributeValue::U32(dreg)),
            ],
        );
    }

    pub(super) fn ct(&mut self, key: u32) {
        self.ct_into(key, REG_1);
    }

    pub(super) fn ct_into(&mut self, key: u32, dreg: u32) {
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, AttributeValue::U32(key)),
                (sys::NFTNL_EXPR_CT_DREG, AttributeValue::U32(dreg)),
            ],
        );
    }

    pub(super) fn ct_tuple(&mut self, key: u32, direction: u8, dreg: u32) {
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, AttributeValue::U32(key)),
                (sys::NFTNL_EXPR_CT_DREG, AttributeValue::U32(dreg)),
                (sys::NFTNL_EXPR_CT_DIR, AttributeValue::U8(direction)),
            ],
        );
    }

    pub(super) fn cmp(&mut self, op: u32, data: Vec<u8>) {
        self.push(
            c"cmp",
            [
                (sys::NFTNL_EXPR_CMP_SREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_CMP_OP, AttributeValue::U32(op)),
                (sys::NFTNL_EXPR_CMP_DATA, AttributeValue::Bytes(data)),
            ],
        );
    }

    pub(super) fn bitwise(&mut self, mask: Vec<u8>, xor: Vec<u8>) {
        self.bitwise_in(REG_1, mask, xor);
    }

    pub(super) fn bitwise_in(&mut self, register: u32, mask: Vec<u8>, xor: Vec<u8>) {
        let len = u32::try_from(mask.len()).unwrap_or(0);
        self.push(
            c"bitwise",
            [
                (sys::NFTNL_EXPR_BITWISE_SREG, AttributeValue::U32(register)),
                (sys::NFTNL_EXPR_BITWISE_DREG, AttributeValue::U32(register)),
                (sys::NFTNL_EXPR_BITWISE_LEN, AttributeValue::U32(len)),
                (sys::NFTNL_EXPR_BITWISE_MASK, AttributeValue::Bytes(mask)),
                (sys::NFTNL_EXPR_BITWISE_XOR, AttributeValue::Bytes(xor)),
            ],
        );
    }

    pub(super) fn masked(&mut self, mask: u32) {
        self.bitwise(native(mask), native(0));
    }

    pub(super) fn payload(&mut self, base: u32, offset: u32, len: u32, dreg: u32) {
        self.push(
            c"payload",
            [
                (sys::NFTNL_EXPR_PAYLOAD_DREG, AttributeValue::U32(dreg)),
                (sys::NFTNL_EXPR_PAYLOAD_BASE, AttributeValue::U32(base)),
                (sys::NFTNL_EXPR_PAYLOAD_OFFSET, AttributeValue::U32(offset)),
                (sys::NFTNL_EXPR_PAYLOAD_LEN, AttributeValue::U32(len)),
            ],
        );
    }

    pub(super) fn fib(&mut self, result: u32, flags: u32) {
        self.push(
            c"fib",
            [
                (sys::NFTNL_EXPR_FIB_DREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_FIB_RESULT, AttributeValue::U32(result)),
                (sys::NFTNL_EXPR_FIB_FLAGS, AttributeValue::U32(flags)),
            ],
        );
    }

    pub(super) fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.push(
            c"immediate",
            [
                (sys::NFTNL_EXPR_IMM_DREG, AttributeValue::U32(VERDICT)),
                (sys::NFTNL_EXPR_IMM_VERDICT, AttributeValue::U32(code)),
            ],
        );
        if let (Some(chain), Some(last)) = (chain, self.exprs.last_mut()) {
            let number = u16::try_from(sys::NFTNL_EXPR_IMM_CHAIN).unwrap_or(u16::MAX);
            last.attributes.push((number, text(&chain)));
        }
    }

    pub(super) fn lookup(&mut self, set: SetName, dreg: Option<u32>) {
        self.push(
            c"lookup",
            [
                (sys::NFTNL_EXPR_LOOKUP_SREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_LOOKUP_SET, text(&set)),
            ],
        );
        if let (Some(dreg), Some(last)) = (dreg, self.exprs.last_mut()) {
            let number = u16::try_from(sys::NFTNL_EXPR_LOOKUP_DREG).unwrap_or(u16::MAX);
            last.attributes.push((number, AttributeValue::U32(dreg)));
        }
    }

    pub(super) fn need_tcp(&mut self) {
        if !self.tcp {
            self.meta(META_L4PROTO, REG_1);
            self.cmp(CMP_EQ, vec![IPPROTO_TCP]);
            self.tcp = true;
        }
    }

    pub(super) fn need_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.meta(META_NFPROTO, REG_1);
            self.cmp(CMP_EQ, vec![u8::try_from(protocol(family)).unwrap_or(0)]);
            self.family = Some(family);
        }
    }

    /// Loads fields side by side into registers, from the first on, and returns the slot after them.
    pub(super) fn load(&mut self, fields: &[Field]) -> u32 {
        for field in fields {
            match field {
                Field::L4Proto | Field::SourcePort | Field::DestPort => self.need_tcp(),
                Field::SourceAddress(family) | Field::DestAddress(family) => self.need_family(*family),
                Field::SourceNetwork => self.need_family(Family::V6),
                _ => {}
            }
        }
        let mut slot = 0;
        for field in fields {
            self.load_field(*field, register(slot));
            slot += u32::try_from(field.padded() / 4).unwrap_or(0);
        }
        slot
    }

    pub(super) fn load_field(&mut self, field: Field, dreg: u32) {
        match field {
            Field::L4Proto => self.meta(META_L4PROTO, dreg),
            Field::SourcePort => self.payload(TRANSPORT_HEADER, 0, 2, dreg),
            Field::DestPort => self.payload(TRANSPORT_HEADER, 2, 2, dreg),
            Field::SourceAddress(Family::V4) => self.payload(NETWORK_HEADER, 12, 4, dreg),
            Field::SourceAddress(Family::V6) => self.payload(NETWORK_HEADER, 8, 16, dreg),
            Field::DestAddress(Family::V4) => self.payload(NETWORK_HEADER, 16, 4, dreg),
            Field::DestAddress(Family::V6) => self.payload(NETWORK_HEADER, 24, 16, dreg),
            Field::ClientAddress(Family::V4) => self.ct_tuple(CT_SRC_IP, ORIGINAL, dreg),
            Field::ClientAddress(Family::V6) => self.ct_tuple(CT_SRC_IP6, ORIGINAL, dreg),
            Field::ClientPort => self.ct_tuple(CT_PROTO_SRC, ORIGINAL, dreg),
            Field::PublicAddress(Family::V4) => self.ct_tuple(CT_DST_IP, ORIGINAL, dreg),
            Field::PublicAddress(Family::V6) => self.ct_tuple(CT_DST_IP6, ORIGINAL, dreg),
            Field::PublicPort => self.ct_tuple(CT_PROTO_DST, ORIGINAL, dreg),
            Field::BackendAddress(Family::V4) => self.ct_tuple(CT_SRC_IP, REPLY, dreg),
            Field::BackendAddress(Family::V6) => self.ct_tuple(CT_SRC_IP6, REPLY, dreg),
            Field::BackendPort => self.ct_tuple(CT_PROTO_SRC, REPLY, dreg),
            Field::InInterface => self.meta(META_IIFNAME, dreg),
            Field::OutInterface => self.meta(META_OIFNAME, dreg),
            Field::SourceNetwork => {
                self.payload(NETWORK_HEADER, 8, 16, dreg);
                self.bitwise_in(dreg, [vec![0xff; 8], vec![0; 8]].concat(), vec![0; 16]);
            }
            Field::FlowId => self.ct_into(CT_ID, dreg),
            Field::Slot => {}
        }
    }
}

pub(super) fn text(value: &impl ToString) -> AttributeValue {
    // Names are made here, of letters, digits and `-_.`; none of them has a NUL.
    AttributeValue::Text(CString::new(value.to_string()).unwrap_or_default())
}

pub(super) fn protocol(family: Family) -> u32 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4.cast_unsigned(),
        Family::V6 => libc::NFPROTO_IPV6.cast_unsigned(),
    }
}

pub(super) fn native(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Returns the register at a slot of 4 bytes: the one of 16 bytes where it begins there, as the kernel lists it.
pub(super) fn register(slot: u32) -> u32 {
    if slot.is_multiple_of(4) {
        REG_1 + slot / 4
    } else {
        REG32_00 + slot
    }
}
