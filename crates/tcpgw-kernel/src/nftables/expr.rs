//! How the kernel writes what a rule says: each statement as the expressions that nft would make of it, so that nft can
//! read them back. Numbers of attributes are libnftnl's (`libnftnl/expr.h`), the rest is
//! `include/uapi/linux/netfilter/nf_tables.h`.

mod nat;

use std::ffi::{CStr, CString};

use nftnl_sys as sys;

use crate::nftables::nft::elem;

use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::spec::{Field, service_key};
use tcpgw_core::ruleset::stmt::{CtState, Direction, PROBE_PRIORITY, Stmt};
use tcpgw_core::ruleset::timeouts::{SYN_RECV_SECONDS, SYN_SENT_SECONDS};

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expr {
    /// What kind it is.
    pub kind: &'static CStr,
    /// Its attributes, by libnftnl's numbers.
    pub attributes: Vec<(u16, Value)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    U8(u8),
    /// A number.
    U32(u32),
    /// Bytes as they are compared with.
    Bytes(Vec<u8>),
    /// A name.
    Text(CString),
}

// Registers: the verdict, four of 16 bytes, and the same memory as sixteen of 4 bytes.
const VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG32_00: u32 = 8;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const CMP_LTE: u32 = 3;
const CMP_GT: u32 = 4;
const CMP_GTE: u32 = 5;

const META_PRIORITY: u32 = 2;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
const CT_EXPIRATION: u32 = 5;
const CT_PROTOCOL: u32 = 10;
const CT_PROTO_SRC: u32 = 11;
const CT_PROTO_DST: u32 = 12;
const CT_SRC_IP: u32 = 19;
const CT_DST_IP: u32 = 20;
const CT_SRC_IP6: u32 = 21;
const CT_DST_IP6: u32 = 22;
const CT_ID: u32 = 23;
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 32;
/// `IPS_ASSURED`.
const STATUS_ASSURED: u32 = 4;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_PAYLOAD_INNER_HEADER`: what is behind the transport header.
const INNER_HEADER: u32 = 3;

const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;
/// `NFTA_FIB_F_PRESENT`: only whether there is one.
const FIB_PRESENT: u32 = 32;
const FIB_OIF: u32 = 1;
const FIB_ADDRTYPE: u32 = 3;
const RTN_LOCAL: u32 = 2;

const IPPROTO_TCP: u8 = 6;
/// The first interface of every network namespace.
const LOOPBACK: u32 = 1;
const FIN_SYN_RST_ACK: u8 = 0x17;
const FIN_SYN_RST_PSH_ACK: u8 = 0x1f;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// `NFT_BYTEORDER_HTON`.
const BYTEORDER_HTON: u32 = 1;
/// `NFT_EXTHDR_OP_TCPOPT`.
const TCP_OPTION: u32 = 1;
/// `TCPOPT_TIMESTAMP`.
const TIMESTAMP: u8 = 8;

const OBJECT_CT_TIMEOUT: u32 = 7;
const DYNSET_UPDATE: u32 = 1;
const DYNSET_DELETE: u32 = 2;
const REJECT_TCP_RST: u32 = 1;

const NF_DROP: u32 = 0;
const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
const NFT_RETURN: u32 = (-5_i32).cast_unsigned();

/// The expressions of one rule.
pub fn rule(stmts: &[Stmt]) -> Vec<Expr> {
    let mut writer = Writer::default();
    for stmt in stmts {
        writer.stmt(stmt);
    }
    writer.exprs
}

#[derive(Default)]
struct Writer {
    exprs: Vec<Expr>,
    family: Option<Family>,
    tcp: bool,
}

fn text(value: &impl ToString) -> Value {
    // Names are made here, of letters, digits and `-_.`; none of them has a NUL.
    Value::Text(CString::new(value.to_string()).unwrap_or_default())
}

fn protocol(family: Family) -> u32 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4.cast_unsigned(),
        Family::V6 => libc::NFPROTO_IPV6.cast_unsigned(),
    }
}

fn native(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The register at that 4-byte slot; where it can, the kernel names the 16-byte one.
fn register(slot: u32) -> u32 {
    if slot.is_multiple_of(4) {
        REG_1 + slot / 4
    } else {
        REG32_00 + slot
    }
}

impl Writer {
    fn push<const N: usize>(&mut self, kind: &'static CStr, attributes: [(u32, Value); N]) {
        let number = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let attributes = attributes
            .into_iter()
            .map(|(key, value)| (number(key), value))
            .collect();
        self.exprs.push(Expr { kind, attributes });
    }

    fn meta(&mut self, key: u32, dreg: u32) {
        self.push(
            c"meta",
            [
                (sys::NFTNL_EXPR_META_KEY, Value::U32(key)),
                (sys::NFTNL_EXPR_META_DREG, Value::U32(dreg)),
            ],
        );
    }

    fn ct(&mut self, key: u32) {
        self.ct_into(key, REG_1);
    }

    fn ct_into(&mut self, key: u32, dreg: u32) {
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, Value::U32(key)),
                (sys::NFTNL_EXPR_CT_DREG, Value::U32(dreg)),
            ],
        );
    }

    fn ct_tuple(&mut self, key: u32, direction: u8, dreg: u32) {
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, Value::U32(key)),
                (sys::NFTNL_EXPR_CT_DREG, Value::U32(dreg)),
                (sys::NFTNL_EXPR_CT_DIR, Value::U8(direction)),
            ],
        );
    }

    fn cmp(&mut self, op: u32, data: Vec<u8>) {
        self.push(
            c"cmp",
            [
                (sys::NFTNL_EXPR_CMP_SREG, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_CMP_OP, Value::U32(op)),
                (sys::NFTNL_EXPR_CMP_DATA, Value::Bytes(data)),
            ],
        );
    }

    fn bitwise(&mut self, mask: Vec<u8>, xor: Vec<u8>) {
        self.bitwise_in(REG_1, mask, xor);
    }

    fn bitwise_in(&mut self, register: u32, mask: Vec<u8>, xor: Vec<u8>) {
        let len = u32::try_from(mask.len()).unwrap_or(0);
        self.push(
            c"bitwise",
            [
                (sys::NFTNL_EXPR_BITWISE_SREG, Value::U32(register)),
                (sys::NFTNL_EXPR_BITWISE_DREG, Value::U32(register)),
                (sys::NFTNL_EXPR_BITWISE_LEN, Value::U32(len)),
                (sys::NFTNL_EXPR_BITWISE_MASK, Value::Bytes(mask)),
                (sys::NFTNL_EXPR_BITWISE_XOR, Value::Bytes(xor)),
            ],
        );
    }

    fn masked(&mut self, mask: u32) {
        self.bitwise(native(mask), native(0));
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32, dreg: u32) {
        self.push(
            c"payload",
            [
                (sys::NFTNL_EXPR_PAYLOAD_DREG, Value::U32(dreg)),
                (sys::NFTNL_EXPR_PAYLOAD_BASE, Value::U32(base)),
                (sys::NFTNL_EXPR_PAYLOAD_OFFSET, Value::U32(offset)),
                (sys::NFTNL_EXPR_PAYLOAD_LEN, Value::U32(len)),
            ],
        );
    }

    fn fib(&mut self, result: u32, flags: u32) {
        self.push(
            c"fib",
            [
                (sys::NFTNL_EXPR_FIB_DREG, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_FIB_RESULT, Value::U32(result)),
                (sys::NFTNL_EXPR_FIB_FLAGS, Value::U32(flags)),
            ],
        );
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.push(
            c"immediate",
            [
                (sys::NFTNL_EXPR_IMM_DREG, Value::U32(VERDICT)),
                (sys::NFTNL_EXPR_IMM_VERDICT, Value::U32(code)),
            ],
        );
        if let (Some(chain), Some(last)) = (chain, self.exprs.last_mut()) {
            let number = u16::try_from(sys::NFTNL_EXPR_IMM_CHAIN).unwrap_or(u16::MAX);
            last.attributes.push((number, text(&chain)));
        }
    }

    fn need_tcp(&mut self) {
        if !self.tcp {
            self.meta(META_L4PROTO, REG_1);
            self.cmp(CMP_EQ, vec![IPPROTO_TCP]);
            self.tcp = true;
        }
    }

    fn need_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.meta(META_NFPROTO, REG_1);
            self.cmp(CMP_EQ, vec![u8::try_from(protocol(family)).unwrap_or(0)]);
            self.family = Some(family);
        }
    }

    /// Puts fields side by side into registers, from the first on, and gives the slot after them.
    fn load(&mut self, fields: &[Field]) -> u32 {
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

    fn load_field(&mut self, field: Field, dreg: u32) {
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

    fn lookup(&mut self, set: SetName, dreg: Option<u32>) {
        self.push(
            c"lookup",
            [
                (sys::NFTNL_EXPR_LOOKUP_SREG, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_LOOKUP_SET, text(&set)),
            ],
        );
        if let (Some(dreg), Some(last)) = (dreg, self.exprs.last_mut()) {
            let number = u16::try_from(sys::NFTNL_EXPR_LOOKUP_DREG).unwrap_or(u16::MAX);
            last.attributes.push((number, Value::U32(dreg)));
        }
    }

    fn mark_flow(&mut self, value: u32, mask: u32) {
        self.ct(CT_MARK);
        self.bitwise(native(!mask), native(value));
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, Value::U32(CT_MARK)),
                (sys::NFTNL_EXPR_CT_SREG, Value::U32(REG_1)),
            ],
        );
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let eq = |yes: bool| if yes { CMP_EQ } else { CMP_NEQ };
        match stmt {
            Stmt::Tcp => self.need_tcp(),
            Stmt::NotTcp => {
                self.meta(META_L4PROTO, REG_1);
                self.cmp(CMP_NEQ, vec![IPPROTO_TCP]);
            }
            Stmt::InLoopback(yes) => {
                self.meta(META_IIF, REG_1);
                self.cmp(eq(*yes), native(LOOPBACK));
            }
            Stmt::OutNotLoopback => {
                self.meta(META_OIF, REG_1);
                self.cmp(CMP_NEQ, native(LOOPBACK));
            }
            Stmt::Family(family) => self.need_family(*family),
            Stmt::CtState(state) => self.ct_state(*state),
            Stmt::Marked(mark, yes) => {
                self.ct(CT_MARK);
                self.masked(mark.mask());
                self.cmp(eq(*yes), native(mark.value()));
            }
            Stmt::Direction(direction) => {
                self.ct(CT_DIRECTION);
                self.cmp(CMP_EQ, vec![u8::from(*direction == Direction::Reply)]);
            }
            Stmt::StatusDnat => self.ct_status(STATUS_DNAT, CMP_NEQ),
            Stmt::StatusAssured => self.ct_status(STATUS_ASSURED, CMP_NEQ),
            Stmt::Unassured => self.ct_status(STATUS_ASSURED, CMP_EQ),
            Stmt::Syn(yes) => self.tcp_flags(FIN_SYN_RST_ACK, eq(*yes), SYN),
            Stmt::SynAck => self.tcp_flags(FIN_SYN_RST_ACK, CMP_EQ, SYN_ACK),
            Stmt::BareAck => self.tcp_flags(FIN_SYN_RST_PSH_ACK, CMP_EQ, ACK),
            Stmt::HasData => {
                self.payload(INNER_HEADER, 0, 1, REG_1);
                self.cmp(CMP_GTE, vec![0]);
            }
            Stmt::SynUnanswered => {
                self.expires(CMP_GT, SYN_RECV_SECONDS);
                self.expires(CMP_LTE, SYN_SENT_SECONDS);
            }
            Stmt::Probe => {
                self.meta(META_PRIORITY, REG_1);
                self.cmp(CMP_EQ, native(PROBE_PRIORITY));
            }
            Stmt::FlowOfTcp(family) => self.flow_of_tcp(*family),
            Stmt::LocalDest(yes) => {
                self.fib(FIB_ADDRTYPE, FIB_DADDR);
                self.cmp(eq(*yes), native(RTN_LOCAL));
            }
            Stmt::FromOutside => {
                self.fib(FIB_OIF, FIB_DADDR | FIB_IIF | FIB_PRESENT);
                self.cmp(CMP_EQ, vec![0]);
            }
            Stmt::InNowhere => {
                self.meta(META_IIF, REG_1);
                self.cmp(CMP_EQ, native(0));
            }
            Stmt::DestLoopback(family) => self.dest_loopback(*family),
            Stmt::In(key, set) => {
                self.load(key);
                self.lookup(*set, None);
            }
            Stmt::Count(key, set) => self.dynset(DYNSET_UPDATE, key, *set),
            Stmt::Forget(key, set) => self.dynset(DYNSET_DELETE, key, *set),
            Stmt::MarkFlow(mark) => self.mark_flow(mark.value(), mark.mask()),
            Stmt::Dnat(reach, pick) => self.dnat(*reach, *pick),
            Stmt::Snat(family) => self.snat(*family),
            Stmt::PretendLinkSource(_) | Stmt::RestoreSource(_) | Stmt::LocalSource | Stmt::SnatToLink(_) => {
                self.source(stmt);
            }
            Stmt::Turns(reach) => {
                self.load(&service_key(reach.scope()));
                self.lookup(SetName::RoundRobin(*reach), Some(VERDICT));
            }
            Stmt::Timeouts(_) | Stmt::StripTimestamp | Stmt::Reset | Stmt::Masquerade => self.action(stmt),
            Stmt::Return => self.verdict(NFT_RETURN, None),
            Stmt::Drop => self.verdict(NF_DROP, None),
            Stmt::Goto(chain) => self.verdict(elem::GOTO, Some(chain)),
            Stmt::Jump(chain) => self.verdict(NFT_JUMP, Some(chain)),
        }
    }

    fn ct_state(&mut self, state: CtState) {
        self.ct(CT_STATE);
        self.masked(state.bits());
        self.cmp(CMP_NEQ, native(0));
    }

    fn ct_status(&mut self, bit: u32, op: u32) {
        self.ct(CT_STATUS);
        self.masked(bit);
        self.cmp(op, native(0));
    }

    /// Compares what is left of the flow's time, as nft does: numbers that are ordered are compared byte by byte.
    fn expires(&mut self, op: u32, seconds: u32) {
        self.ct(CT_EXPIRATION);
        self.push(
            c"byteorder",
            [
                (sys::NFTNL_EXPR_BYTEORDER_DREG, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_BYTEORDER_SREG, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_BYTEORDER_OP, Value::U32(BYTEORDER_HTON)),
                (sys::NFTNL_EXPR_BYTEORDER_LEN, Value::U32(4)),
                (sys::NFTNL_EXPR_BYTEORDER_SIZE, Value::U32(4)),
            ],
        );
        self.cmp(op, (seconds * 1000).to_be_bytes().to_vec());
    }

    fn flow_of_tcp(&mut self, family: Family) {
        let version = match family {
            Family::V4 => 0x40,
            Family::V6 => 0x60,
        };
        self.need_family(family);
        self.payload(NETWORK_HEADER, 0, 1, REG_1);
        self.bitwise(vec![0xf0], vec![0]);
        self.cmp(CMP_EQ, vec![version]);
        self.ct(CT_PROTOCOL);
        self.cmp(CMP_EQ, vec![IPPROTO_TCP]);
    }

    fn tcp_flags(&mut self, mask: u8, op: u32, flags: u8) {
        self.need_tcp();
        self.payload(TRANSPORT_HEADER, 13, 1, REG_1);
        self.bitwise(vec![mask], vec![0]);
        self.cmp(op, vec![flags]);
    }

    fn dest_loopback(&mut self, family: Family) {
        self.need_family(family);
        match family {
            // The network is a whole byte: nft compares just that.
            Family::V4 => {
                self.payload(NETWORK_HEADER, 16, 1, REG_1);
                self.cmp(CMP_EQ, vec![127]);
            }
            Family::V6 => {
                self.payload(NETWORK_HEADER, 24, 16, REG_1);
                self.cmp(CMP_EQ, std::net::Ipv6Addr::LOCALHOST.octets().to_vec());
            }
        }
    }

    fn dynset(&mut self, operation: u32, key: &[Field], set: SetName) {
        self.load(key);
        self.push(
            c"dynset",
            [
                (sys::NFTNL_EXPR_DYNSET_SREG_KEY, Value::U32(REG_1)),
                (sys::NFTNL_EXPR_DYNSET_OP, Value::U32(operation)),
                (sys::NFTNL_EXPR_DYNSET_SET_NAME, text(&set)),
            ],
        );
    }

    fn action(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::StripTimestamp => {
                self.need_tcp();
                self.push(
                    c"exthdr",
                    [
                        (sys::NFTNL_EXPR_EXTHDR_TYPE, Value::U8(TIMESTAMP)),
                        (sys::NFTNL_EXPR_EXTHDR_OP, Value::U32(TCP_OPTION)),
                    ],
                );
            }
            Stmt::Timeouts(timeouts) => self.push(
                c"objref",
                [
                    (sys::NFTNL_EXPR_OBJREF_IMM_TYPE, Value::U32(OBJECT_CT_TIMEOUT)),
                    (sys::NFTNL_EXPR_OBJREF_IMM_NAME, text(timeouts)),
                ],
            ),
            Stmt::Reset => {
                self.need_tcp();
                self.push(c"reject", [(sys::NFTNL_EXPR_REJECT_TYPE, Value::U32(REJECT_TCP_RST))]);
            }
            _ => self.push(c"masq", []),
        }
    }
}
