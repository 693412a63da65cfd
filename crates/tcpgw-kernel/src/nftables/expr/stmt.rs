//! Writes each statement of a rule as the expressions that nft makes of it.

use nftnl_sys as sys;

use crate::nftables::expr::numbers::{
    ACK, BYTEORDER_HTON, CMP_EQ, CMP_GT, CMP_GTE, CMP_LTE, CMP_NEQ, CT_DIRECTION, CT_EXPIRATION, CT_MARK, CT_PROTOCOL,
    CT_STATE, CT_STATUS, DYNSET_DELETE, DYNSET_UPDATE, FIB_ADDRTYPE, FIB_DADDR, FIB_IIF, FIB_OIF, FIB_PRESENT,
    FIN_SYN_RST_ACK, FIN_SYN_RST_PSH_ACK, INNER_HEADER, IPPROTO_TCP, LOOPBACK, META_IIF, META_L4PROTO, META_OIF,
    META_PRIORITY, NETWORK_HEADER, NF_DROP, NFT_JUMP, NFT_RETURN, OBJECT_CT_TIMEOUT, REG_1, REJECT_TCP_RST, RTN_LOCAL,
    STATUS_ASSURED, STATUS_DNAT, SYN, SYN_ACK, TCP_OPTION, TIMESTAMP, TRANSPORT_HEADER, VERDICT,
};
use crate::nftables::expr::writer::{AttributeValue, ExprWriter, native, text};
use crate::nftables::nft::elem;

use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::spec::{Field, service_key};
use tcpgw_core::ruleset::stmt::{CtState, FlowDirection, PROBE_PRIORITY, Stmt};
use tcpgw_core::ruleset::timeouts::{SYN_RECV_SECONDS, SYN_SENT_SECONDS};

impl ExprWriter {
    pub(super) fn stmt(&mut self, stmt: &Stmt) {
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
                self.cmp(CMP_EQ, vec![u8::from(*direction == FlowDirection::Reply)]);
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
            Stmt::Dnat(listen_scope, pick) => self.dnat(*listen_scope, *pick),
            Stmt::Snat(family) => self.snat(*family),
            Stmt::PretendLinkSource(_) | Stmt::RestoreSource(_) | Stmt::LocalSource | Stmt::SnatToLink(_) => {
                self.source(stmt);
            }
            Stmt::RoundRobin(listen_scope) => {
                self.load(&service_key(listen_scope.scope()));
                self.lookup(SetName::RoundRobin(*listen_scope), Some(VERDICT));
            }
            Stmt::Timeouts(_) | Stmt::StripTimestamp | Stmt::Reset | Stmt::Masquerade => self.action(stmt),
            Stmt::Return => self.verdict(NFT_RETURN, None),
            Stmt::Drop => self.verdict(NF_DROP, None),
            Stmt::Goto(chain) => self.verdict(elem::GOTO, Some(chain)),
            Stmt::Jump(chain) => self.verdict(NFT_JUMP, Some(chain)),
        }
    }

    fn mark_flow(&mut self, value: u32, mask: u32) {
        self.ct(CT_MARK);
        self.bitwise(native(!mask), native(value));
        self.push(
            c"ct",
            [
                (sys::NFTNL_EXPR_CT_KEY, AttributeValue::U32(CT_MARK)),
                (sys::NFTNL_EXPR_CT_SREG, AttributeValue::U32(REG_1)),
            ],
        );
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

    /// Compares the time that the flow has left. As nft does, it turns the number into network byte order, because the kernel
    /// compares byte by byte.
    fn expires(&mut self, op: u32, seconds: u32) {
        self.ct(CT_EXPIRATION);
        self.push(
            c"byteorder",
            [
                (sys::NFTNL_EXPR_BYTEORDER_DREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_BYTEORDER_SREG, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_BYTEORDER_OP, AttributeValue::U32(BYTEORDER_HTON)),
                (sys::NFTNL_EXPR_BYTEORDER_LEN, AttributeValue::U32(4)),
                (sys::NFTNL_EXPR_BYTEORDER_SIZE, AttributeValue::U32(4)),
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
                (sys::NFTNL_EXPR_DYNSET_SREG_KEY, AttributeValue::U32(REG_1)),
                (sys::NFTNL_EXPR_DYNSET_OP, AttributeValue::U32(operation)),
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
                        (sys::NFTNL_EXPR_EXTHDR_TYPE, AttributeValue::U8(TIMESTAMP)),
                        (sys::NFTNL_EXPR_EXTHDR_OP, AttributeValue::U32(TCP_OPTION)),
                    ],
                );
            }
            Stmt::Timeouts(timeouts) => self.push(
                c"objref",
                [
                    (sys::NFTNL_EXPR_OBJREF_IMM_TYPE, AttributeValue::U32(OBJECT_CT_TIMEOUT)),
                    (sys::NFTNL_EXPR_OBJREF_IMM_NAME, text(timeouts)),
                ],
            ),
            Stmt::Reset => {
                self.need_tcp();
                self.push(
                    c"reject",
                    [(sys::NFTNL_EXPR_REJECT_TYPE, AttributeValue::U32(REJECT_TCP_RST))],
                );
            }
            _ => self.push(c"masq", []),
        }
    }
}
