//! Writes the statements that choose a flow's backend, and the source address that the backend sees.

use nftnl_sys as sys;

use super::numbers::{CMP_EQ, FIB_ADDRTYPE, FIB_SADDR, NETWORK_HEADER, REG_1, RTN_LOCAL};
use super::writer::{AttributeValue, ExprWriter, native, protocol, register};
use tcpgw_core::ruleset::name::{Family, ListenScope, SetName};
use tcpgw_core::ruleset::spec::{Field, listening_key};
use tcpgw_core::ruleset::stmt::{HASH_SEED, HASH_SLOTS, Pick, SOURCE_SLOTS, Stmt, receiver, sender};

const NAT_SNAT: u32 = 0;
const NAT_DNAT: u32 = 1;

/// `NFT_PAYLOAD_CSUM_INET`: there is a checksum of the header itself.
const HEADER_CHECKSUM: u32 = 1;
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: the checksum of the layer above covers the field, too.
const PSEUDO_HEADER: u32 = 1;

impl ExprWriter {
    fn pick(&mut self, family: Family, pick: Pick, slot: u32) {
        match pick {
            Pick::RoundRobin(width) => self.number(libc::NFT_NG_INCREMENTAL, width, slot),
            Pick::Random(width) => self.number(libc::NFT_NG_RANDOM, width, slot),
            Pick::Client(width) => self.hash(&sender(family), width, slot),
            Pick::Hash => self.hash(&[Field::SourceAddress(family)], HASH_SLOTS, slot),
        }
    }

    fn number(&mut self, kind: libc::c_int, modulus: u16, slot: u32) {
        self.push(
            c"numgen",
            [
                (sys::NFTNL_EXPR_NG_DREG, AttributeValue::U32(register(slot))),
                (sys::NFTNL_EXPR_NG_MODULUS, AttributeValue::U32(modulus.into())),
                (sys::NFTNL_EXPR_NG_TYPE, AttributeValue::U32(kind.cast_unsigned())),
            ],
        );
    }

    fn hash(&mut self, fields: &[Field], modulus: u16, slot: u32) {
        // Where nft puts them, so that a table that nft loaded is the same.
        let first = slot + 5;
        let mut at = first;
        for field in fields {
            self.load_field(*field, register(at));
            at += u32::try_from(field.padded() / 4).unwrap_or(0);
        }
        self.push(
            c"hash",
            [
                (sys::NFTNL_EXPR_HASH_SREG, AttributeValue::U32(register(first))),
                (sys::NFTNL_EXPR_HASH_DREG, AttributeValue::U32(register(slot))),
                (sys::NFTNL_EXPR_HASH_LEN, AttributeValue::U32((at - first) * 4)),
                (sys::NFTNL_EXPR_HASH_MODULUS, AttributeValue::U32(modulus.into())),
                (sys::NFTNL_EXPR_HASH_SEED, AttributeValue::U32(HASH_SEED)),
            ],
        );
    }

    pub(super) fn dnat(&mut self, listen_scope: ListenScope, pick: Pick) {
        let family = listen_scope.family();
        if matches!(pick, Pick::Client(_) | Pick::Hash) {
            self.need_family(family);
        }
        let slot = self.load(&listening_key(listen_scope.scope()));
        self.pick(family, pick, slot);
        self.lookup(SetName::Slots(listen_scope), Some(REG_1));
        let port = register(u32::try_from(family.address_len() / 4).unwrap_or(1));
        self.push(
            c"nat",
            [
                (sys::NFTNL_EXPR_NAT_TYPE, AttributeValue::U32(NAT_DNAT)),
                (sys::NFTNL_EXPR_NAT_FAMILY, AttributeValue::U32(protocol(family))),
                (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, AttributeValue::U32(port)),
            ],
        );
    }

    pub(super) fn snat(&mut self, family: Family) {
        let slot = self.load(&receiver(family));
        self.hash(&sender(family), SOURCE_SLOTS, slot);
        self.lookup(SetName::Sources(family), Some(REG_1));
        self.snat_to_loaded(family);
    }

    fn snat_to_loaded(&mut self, family: Family) {
        self.push(
            c"nat",
            [
                (sys::NFTNL_EXPR_NAT_TYPE, AttributeValue::U32(NAT_SNAT)),
                (sys::NFTNL_EXPR_NAT_FAMILY, AttributeValue::U32(protocol(family))),
                (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, AttributeValue::U32(REG_1)),
            ],
        );
    }

    pub(super) fn source(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::PretendLinkSource(family) => {
                self.need_family(*family);
                self.load_link_source(*family);
                self.write_source(*family);
            }
            Stmt::RestoreSource(family) => {
                self.need_family(*family);
                self.load_field(Field::ClientAddress(*family), REG_1);
                self.write_source(*family);
            }
            Stmt::SnatToLink(family) => {
                self.load_link_source(*family);
                self.snat_to_loaded(*family);
            }
            _ => {
                self.fib(FIB_ADDRTYPE, FIB_SADDR);
                self.cmp(CMP_EQ, native(RTN_LOCAL));
            }
        }
    }

    fn load_link_source(&mut self, family: Family) {
        self.load_field(Field::OutInterface, REG_1);
        self.lookup(SetName::LinkSources(family), Some(REG_1));
    }

    fn write_source(&mut self, family: Family) {
        let (at, len, checksum, checksum_at) = match family {
            Family::V4 => (12, 4, HEADER_CHECKSUM, 10),
            Family::V6 => (8, 16, 0, 0),
        };
        self.push(
            c"payload",
            [
                (sys::NFTNL_EXPR_PAYLOAD_SREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_PAYLOAD_BASE, AttributeValue::U32(NETWORK_HEADER)),
                (sys::NFTNL_EXPR_PAYLOAD_OFFSET, AttributeValue::U32(at)),
                (sys::NFTNL_EXPR_PAYLOAD_LEN, AttributeValue::U32(len)),
                (sys::NFTNL_EXPR_PAYLOAD_CSUM_TYPE, AttributeValue::U32(checksum)),
                (sys::NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, AttributeValue::U32(checksum_at)),
                (sys::NFTNL_EXPR_PAYLOAD_FLAGS, AttributeValue::U32(PSEUDO_HEADER)),
            ],
        );
    }
}
