//! Sets and objects as netlink messages: what `nftnl` has no types for.

use crate::netlink::tlv::Writer;
use crate::nftables::nft::{self, elem, expr, object, set};
use crate::nftables::skeleton::TABLE;
use tcpgw_core::ruleset::cap::{CLIENT_MILLISECONDS, CLIENT_SET_SIZE};
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Limits;
use tcpgw_core::ruleset::spec::{
    COUNTER_SET_SIZE, Field, MOMENT_MILLISECONDS, MOMENT_SET_SIZE, Payload, RESERVE_BURST, RESERVE_MILLISECONDS,
    RESERVE_RATE, SetSpec,
};
use tcpgw_core::ruleset::stmt::SLOT_MODULUS;
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};

/// Limits of an element that was added without limits. tcpgw adds no such element; other programs might.
const LEAST: Limits = Limits {
    packet_rate: 1,
    packet_burst: 1,
    byte_rate: 1500,
    byte_burst: 1,
};

/// Writes the attributes of a set.
pub(crate) fn write_set(writer: &mut Writer, name: SetName, room: Room, id: u32) {
    let spec = SetSpec::of(name);
    writer.str(set::TABLE, TABLE);
    writer.str(set::NAME, &name.to_string());
    // The kernel lists no flags where there are none.
    if flags(&spec) != 0 {
        writer.be32(set::FLAGS, flags(&spec));
    }
    writer.be32(set::KEY_TYPE, concat_type(&spec.key));
    writer.be32(set::KEY_LEN, u32::try_from(spec.key_len()).unwrap_or(0));
    match spec.payload {
        Payload::Endpoint(family) => {
            writer.be32(set::DATA_TYPE, concat_type(&endpoint_fields(family)));
            writer.be32(set::DATA_LEN, u32::try_from(spec.data_len()).unwrap_or(0));
        }
        Payload::Address(family) => {
            writer.be32(set::DATA_TYPE, datatype(Field::SourceAddress(family)));
            writer.be32(set::DATA_LEN, u32::try_from(spec.data_len()).unwrap_or(0));
        }
        Payload::Chain => writer.be32(set::DATA_TYPE, set::VERDICTS),
        _ => {}
    }
    describe(writer, &spec, room.size(name));
    writer.be32(set::ID, id);
    writer.attr(set::USERDATA, &userdata(&spec));
    match spec.payload {
        Payload::Counter => writer.nest(set::EXPR, |writer| writer.str(expr::NAME, "counter")),
        Payload::Limits => writer.nest(set::EXPRESSIONS, |writer| write_limits(writer, LEAST)),
        Payload::Moment => writer.be64(set::TIMEOUT, MOMENT_MILLISECONDS),
        Payload::Rate(rate) => {
            writer.be64(set::TIMEOUT, CLIENT_MILLISECONDS);
            writer.nest(set::EXPR, |writer| {
                writer.str(expr::NAME, "limit");
                writer.nest(expr::DATA, |writer| {
                    limit_data(writer, rate.into(), rate, expr::LIMIT_PACKETS);
                    writer.be32(expr::LIMIT_FLAGS, expr::LIMIT_OVER);
                });
            });
        }
        Payload::Flows(flows) => writer.nest(set::EXPR, |writer| flows_over(writer, flows)),
        // Any number of flows is over zero: a flow for which the set has space continues.
        Payload::OneFlow(_) => writer.nest(set::EXPR, |writer| flows_over(writer, 0)),
        Payload::Reserve => {
            writer.be64(set::TIMEOUT, RESERVE_MILLISECONDS);
            writer.nest(set::EXPR, |writer| {
                write_limit(writer, RESERVE_RATE, RESERVE_BURST, expr::LIMIT_PACKETS);
            });
        }
        _ => {}
    }
}

fn flags(spec: &SetSpec) -> u32 {
    let payload = match spec.payload {
        Payload::Nothing => 0,
        Payload::Endpoint(_) | Payload::Address(_) | Payload::Chain => set::F_MAP,
        Payload::Limits => set::F_EXPR,
        Payload::Counter | Payload::Flows(_) | Payload::OneFlow(_) => set::F_EVAL,
        Payload::Moment | Payload::Reserve | Payload::Rate(_) => set::F_EVAL | set::F_TIMEOUT,
    };
    payload
        | if spec.interval {
            set::F_INTERVAL | set::F_CONCAT
        } else {
            0
        }
}

fn describe(writer: &mut Writer, spec: &SetSpec, size: Option<u32>) {
    let filled_by_packets = match spec.payload {
        Payload::Counter => Some(COUNTER_SET_SIZE),
        Payload::Moment | Payload::Reserve => Some(MOMENT_SET_SIZE),
        Payload::Rate(_) | Payload::Flows(_) => Some(CLIENT_SET_SIZE),
        Payload::OneFlow(flows) => Some(flows),
        _ => None,
    };
    if let Some(size) = filled_by_packets.or(size) {
        writer.nest(set::DESC, |writer| writer.be32(set::DESC_SIZE, size));
    }
    if spec.interval {
        writer.nest(set::DESC, |writer| {
            writer.nest(set::DESC_CONCAT, |writer| {
                for field in &spec.key {
                    writer.nest(nft::LIST_ELEM, |writer| {
                        writer.be32(set::FIELD_LEN, u32::try_from(field.width()).unwrap_or(0));
                    });
                }
            });
        });
    }
}

/// Writes the two limit expressions of an element.
pub(crate) fn write_limits(writer: &mut Writer, limits: Limits) {
    for (rate, burst, kind) in [
        (limits.packet_rate, limits.packet_burst, expr::LIMIT_PACKETS),
        (limits.byte_rate, limits.byte_burst, expr::LIMIT_BYTES),
    ] {
        writer.nest(nft::LIST_ELEM, |writer| write_limit(writer, rate, burst, kind));
    }
}

fn write_limit(writer: &mut Writer, rate: u64, burst: u32, kind: u32) {
    writer.str(expr::NAME, "limit");
    writer.nest(expr::DATA, |writer| limit_data(writer, rate, burst, kind));
}

fn limit_data(writer: &mut Writer, rate: u64, burst: u32, kind: u32) {
    writer.be64(expr::LIMIT_RATE, rate);
    writer.be64(expr::LIMIT_UNIT, 1);
    writer.be32(expr::LIMIT_BURST, burst);
    writer.be32(expr::LIMIT_TYPE, kind);
}

/// Writes the expression that is true while there are more flows than this number.
fn flows_over(writer: &mut Writer, flows: u32) {
    writer.str(expr::NAME, "connlimit");
    writer.nest(expr::DATA, |writer| {
        writer.be32(expr::CONNLIMIT_COUNT, flows);
        writer.be32(expr::CONNLIMIT_FLAGS, expr::CONNLIMIT_OVER);
    });
}

/// Writes one element from a packed row.
pub(crate) fn write_element(writer: &mut Writer, spec: &SetSpec, row: &[u8], identity_only: bool) {
    let (key, rest) = row.split_at(spec.key_len());
    let (end, rest) = rest.split_at(spec.identity_len() - spec.key_len());
    writer.nest(nft::LIST_ELEM, |writer| {
        writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
        if spec.interval {
            writer.nest(elem::KEY_END, |writer| writer.attr(elem::VALUE, end));
        }
        if identity_only {
            return;
        }
        match spec.payload {
            Payload::Endpoint(_) | Payload::Address(_) => {
                writer.nest(elem::DATA, |writer| writer.attr(elem::VALUE, rest));
            }
            Payload::Limits => {
                if let Ok(limits) = rest.try_into() {
                    writer.nest(elem::EXPRESSIONS, |writer| {
                        write_limits(writer, Limits::from_bytes(limits));
                    });
                }
            }
            _ => {}
        }
    });
}

/// Writes one element of a map of verdicts.
pub(crate) fn write_goto(writer: &mut Writer, key: &[u8], chain: &str) {
    writer.nest(nft::LIST_ELEM, |writer| {
        writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
        writer.nest(elem::DATA, |writer| {
            writer.nest(elem::VERDICT, |writer| {
                writer.be32(elem::VERDICT_CODE, elem::GOTO);
                writer.str(elem::VERDICT_CHAIN, chain);
            });
        });
    });
}

/// Writes the attributes of an object with timeouts of conntrack.
pub(crate) fn write_timeouts(writer: &mut Writer, timeouts: Timeouts, kernel: &KernelTimeouts) {
    writer.str(object::TABLE, TABLE);
    writer.str(object::NAME, &timeouts.to_string());
    writer.be32(object::TYPE, object::CT_TIMEOUT);
    writer.nest(object::DATA, |writer| {
        let l3proto = match timeouts.family() {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        writer.be16(object::L3PROTO, u16::try_from(l3proto).unwrap_or(0));
        writer.u8(object::L4PROTO, 6);
        writer.nest(object::TIMEOUTS, |writer| {
            for (state, seconds) in timeouts.policy(kernel) {
                writer.be32(state.attribute(), seconds);
            }
        });
    });
}

fn endpoint_fields(family: Family) -> [Field; 2] {
    [Field::DestAddress(family), Field::DestPort]
}

/// Returns nft's number for a concatenation: six bits for each part's type (`TYPE_BITS` in nftables' `datatype.h`).
fn concat_type(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | datatype(*field))
}

/// Returns nft's number for a type (`enum datatypes` in nftables' `datatype.h`).
fn datatype(field: Field) -> u32 {
    match field {
        Field::L4Proto => 12,
        Field::SourcePort | Field::DestPort | Field::ClientPort | Field::PublicPort | Field::BackendPort => 13,
        Field::SourceAddress(family)
        | Field::DestAddress(family)
        | Field::ClientAddress(family)
        | Field::PublicAddress(family)
        | Field::BackendAddress(family) => match family {
            Family::V4 => 7,
            Family::V6 => 8,
        },
        Field::InInterface | Field::OutInterface => 41,
        Field::SourceNetwork => 8,
        Field::Slot | Field::FlowId => 4,
    }
}

/// Returns what nft stores with a set so that it can print `typeof`. Layout: nftables' `udata.h` and libnftnl's
/// `udata.h`; the values were read from sets that nft 1.0.6 made, in this machine's byte order. A wrong value makes
/// `nft list` crash.
fn userdata(spec: &SetSpec) -> Vec<u8> {
    const BIG_ENDIAN: u32 = 2;
    const KEY_BYTEORDER: u8 = 0;
    const DATA_BYTEORDER: u8 = 1;
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    const DATA_INTERVAL: u8 = 6;
    // What is compared as a number of its own has the network's order, a concatenation none.
    let order = if spec.key == [Field::FlowId] { BIG_ENDIAN } else { 0 };
    let mut bytes = user_number(KEY_BYTEORDER, order);
    match spec.payload {
        Payload::Endpoint(family) => {
            bytes.extend(user_number(DATA_BYTEORDER, 0));
            bytes.extend(user_entry(KEY_TYPEOF, &typeof_concat(&spec.key)));
            bytes.extend(user_entry(DATA_TYPEOF, &typeof_concat(&endpoint_fields(family))));
            bytes.extend(user_number(DATA_INTERVAL, 0));
        }
        Payload::Address(family) => {
            bytes.extend(user_number(DATA_BYTEORDER, 0));
            bytes.extend(user_entry(KEY_TYPEOF, &typeof_concat(&spec.key)));
            bytes.extend(user_entry(DATA_TYPEOF, &typeof_field(Field::SourceAddress(family))));
            bytes.extend(user_number(DATA_INTERVAL, 0));
        }
        Payload::Chain => {
            // nft writes no `typeof` of a verdict: such a map is declared by type.
            bytes.extend(user_number(DATA_BYTEORDER, 0));
            bytes.extend(user_number(DATA_INTERVAL, 0));
        }
        _ => bytes.extend(user_entry(KEY_TYPEOF, &typeof_concat(&spec.key))),
    }
    bytes
}

fn user_entry(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(value);
    bytes
}

fn user_number(kind: u8, value: u32) -> Vec<u8> {
    user_entry(kind, &value.to_ne_bytes())
}

fn typeof_expr(kind: u32, data: &[u8]) -> Vec<u8> {
    [user_number(0, kind), user_entry(1, data)].concat()
}

fn typeof_concat(fields: &[Field]) -> Vec<u8> {
    const EXPR_CONCAT: u32 = 13;
    if let [field] = fields {
        return typeof_field(*field);
    }
    let part = |(index, field): (u8, &Field)| user_entry(index, &typeof_field(*field));
    typeof_expr(EXPR_CONCAT, &(0..).zip(fields).flat_map(part).collect::<Vec<u8>>())
}

fn typeof_field(field: Field) -> Vec<u8> {
    const EXPR_PAYLOAD: u32 = 7;
    const EXPR_META: u32 = 9;
    const EXPR_CT: u32 = 12;
    const CT_ID: u32 = 23;
    const EXPR_NUMGEN: u32 = 23;
    const TCP: u32 = 8;
    const IP: u32 = 12;
    const IP6: u32 = 13;
    let meta = |key| typeof_expr(EXPR_META, &user_number(0, key));
    let payload =
        |protocol, part| typeof_expr(EXPR_PAYLOAD, &[user_number(0, protocol), user_number(1, part)].concat());
    match field {
        Field::L4Proto => meta(16),
        Field::InInterface => meta(6),
        Field::OutInterface => meta(7),
        // No set is made with these; a rule that asks for them has the same bytes.
        Field::ClientAddress(family) => typeof_field(Field::SourceAddress(family)),
        Field::PublicAddress(family) | Field::BackendAddress(family) => typeof_field(Field::DestAddress(family)),
        Field::SourcePort | Field::ClientPort => payload(TCP, 1),
        Field::DestPort | Field::PublicPort | Field::BackendPort => payload(TCP, 2),
        Field::SourceAddress(Family::V4) => payload(IP, 11),
        Field::DestAddress(Family::V4) => payload(IP, 12),
        Field::SourceAddress(Family::V6) => payload(IP6, 8),
        Field::DestAddress(Family::V6) => payload(IP6, 9),
        // No set is made with it, either.
        Field::SourceNetwork => typeof_field(Field::SourceAddress(Family::V6)),
        Field::FlowId => typeof_expr(EXPR_CT, &[user_number(0, CT_ID), user_number(1, u32::MAX)].concat()),
        Field::Slot => {
            let random = [user_number(0, 1), user_number(1, SLOT_MODULUS), user_number(2, 0)].concat();
            typeof_expr(EXPR_NUMGEN, &random)
        }
    }
}
