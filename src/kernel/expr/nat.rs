//! Which backend a flow gets, and which address that backend sees.

use nftnl_sys as sys;

use super::{REG_1, Value, Writer, protocol, register};
use crate::ruleset::name::{Family, Reach, SetName};
use crate::ruleset::spec::{Field, listening_key};
use crate::ruleset::stmt::{HASH_SEED, HASH_SLOTS, Pick, SOURCE_SLOTS, receiver, sender};

const NAT_SNAT: u32 = 0;
const NAT_DNAT: u32 = 1;

impl Writer {
    fn pick(&mut self, family: Family, pick: Pick, slot: u32) {
        match pick {
            Pick::Turn(width) => self.number(libc::NFT_NG_INCREMENTAL, width, slot),
            Pick::Random(width) => self.number(libc::NFT_NG_RANDOM, width, slot),
            Pick::Client(width) => self.hash(&sender(family), width, slot),
            Pick::Hash => self.hash(&[Field::SourceAddress(family)], HASH_SLOTS, slot),
        }
    }

    fn number(&mut self, kind: libc::c_int, modulus: u16, slot: u32) {
        self.push(
            c"numgen",
            [
                (sys::NFTNL_EXPR_NG_DREG, Value::U32(register(slot))),
                (sys::NFTNL_EXPR_NG_MODULUS, Value::U32(modulus.into())),
                (sys::NFTNL_EXPR_NG_TYPE, Value::U32(kind.cast_unsigned())),
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
                (sys::NFTNL_EXPR_HASH_SREG, Value::U32(register(first))),
                (sys::NFTNL_EXPR_HASH_DREG, Value::U32(register(slot))),
                (sys::NFTNL_EXPR_HASH_LEN, Value::U32((at - first) * 4)),
                (sys::NFTNL_EXPR_HASH_MODULUS, Value::U32(modulus.into())),
                (sys::NFTNL_EXPR_HASH_SEED, Value::U32(HASH_SEED)),
            ],
        );
    }

    pub(super) fn dnat(&mut self, reach: Reach, pick: Pick) {
        let family = reach.family();
        if matches!(pick, Pick::Client(_) | Pick::Hash) {
            self.need_family(family);
        }
        let slot = self.load(&listening_key(reach.scope()));
        self.pick(family, pick, slot);
        self.lookup(SetName::Slots(reach), Some(REG_1));
        let port = register(u32::try_from(family.address_len() / 4).unwrap_or(1));
        self.push(
            c"nat",
            [
                (sys::NFTNL_EXPR_NAT_TYPE, Value::U32(NAT_DNAT)),
                (sys::NFTNL_EXPR_NAT_FAMILY, Value::U32(protocol(family))),
                (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, Value::U32(port)),
            ],
        );
    }

    pub(super) fn snat(&mut self, family: Family) {
        let slot = self.load(&receiver(family));
        self.hash(&sender(family), SOURCE_SLOTS, slot);
        self.lookup(SetName::Sources(family), Some(REG_1));
        self.push(
            c"nat",
            [
                (sys::NFTNL_EXPR_NAT_TYPE, Value::U32(NAT_SNAT)),
                (sys::NFTNL_EXPR_NAT_FAMILY, Value::U32(protocol(family))),
                (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, Value::U32(REG_1)),
            ],
        );
    }
}
