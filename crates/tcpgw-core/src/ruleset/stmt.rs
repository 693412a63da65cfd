//! Matches and statements of rules, and their nft syntax.

use std::fmt;

use super::name::SetName;
use super::scope::{Family, ListenScope, Scope};
use super::spec::{Field, listening_key, service_key};
use super::timeouts::{SYN_RECV_SECONDS, SYN_SENT_SECONDS, Timeouts};
use crate::model::FlowMark;

/// Values of `ct state` (`include/uapi/linux/netfilter/nf_conntrack_common.h`, `NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtState {
    /// The packet belongs to a flow that was answered, or is related to such a flow.
    EstablishedOrRelated,
    /// The packet is the first one of a flow.
    New,
    /// The packet is the first one of a flow, or is not tracked.
    NewOrUntracked,
    /// The packet belongs to no flow that conntrack could accept.
    Invalid,
    /// The packet is not tracked by conntrack.
    Untracked,
}

impl CtState {
    /// Returns the bit mask for `ct state`.
    pub fn bits(self) -> u32 {
        match self {
            Self::EstablishedOrRelated => 2 | 4,
            Self::New => 8,
            Self::NewOrUntracked => 8 | 64,
            Self::Invalid => 1,
            Self::Untracked => 64,
        }
    }
}

/// Direction of a packet in its flow, as conntrack defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowDirection {
    /// Packets from the client to the backend.
    Original,
    /// Packets from the backend to the client.
    Reply,
}

/// Computation of a slot number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Hash of the client's address and port, modulo this number.
    Client(u16),
    /// Hash of the client's address, modulo [`HASH_SLOTS`].
    Hash,
    /// Counter, modulo this number.
    RoundRobin(u16),
    /// Random number, modulo this number.
    Random(u16),
}

/// Number of slots of a service that is balanced by source hash: fixed, so that a change of backends moves few clients.
pub const HASH_SLOTS: u16 = 256;

/// Number of slots of a backend whose service has several source addresses: the largest number of addresses.
pub const SOURCE_SLOTS: u16 = 16;
const _: () = assert!(SOURCE_SLOTS as usize == crate::model::MAX_SOURCE_ADDRESSES);

/// Seed of the hashes: fixed, so that a rule that is created again sends clients to the same slots.
pub const HASH_SEED: u32 = 0x7463_7067;

/// Priority of probes' sockets (`SO_PRIORITY`), by which rules recognize their packets: `tcp` in ASCII, and a number
/// that leaves them in the same queue as other packets (`TC_PRIO_BESTEFFORT`). A mark would do as well, but routing
/// rules match marks, and programs copy them to flows.
pub const PROBE_PRIORITY: u32 = 0x7463_7060;

/// Upper bound of slot numbers.
pub const SLOT_MODULUS: u32 = 65536;

/// A match or statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stmt {
    /// Matches TCP segments.
    Tcp,
    /// Matches packets that are not TCP segments.
    NotTcp,
    /// Matches packets that came in by loopback, or that did not.
    InLoopback(bool),
    /// Matches packets that do not leave by loopback, as all packets to local addresses do.
    OutNotLoopback,
    /// Matches packets of this family.
    Family(Family),
    /// Matches packets in this conntrack state.
    CtState(CtState),
    /// Matches packets whose flow has the mark of tcpgw, or does not.
    Marked(FlowMark, bool),
    /// Matches packets of this direction of their flow.
    Direction(FlowDirection),
    /// Matches packets whose flow was given a new destination.
    StatusDnat,
    /// Matches packets of flows whose handshake is complete.
    StatusAssured,
    /// Matches packets of flows whose handshake is not complete.
    Unassured,
    /// Matches the first segment of a handshake, or all other segments.
    Syn(bool),
    /// Matches the second segment of a handshake (SYN and ACK).
    SynAck,
    /// Matches segments whose flags say nothing but ACK.
    BareAck,
    /// Matches segments with data: they have a first byte behind the TCP header.
    HasData,
    /// Matches packets whose flow waits for the answer to a SYN. The remaining time of the flow tells this; a bare
    /// acknowledgement changes neither.
    SynUnanswered,
    /// Matches packets of the daemon's probes, by the priority of their sockets.
    Probe,
    /// Matches packets whose flow is TCP, whatever the packet itself is: an ICMP error belongs to the flow that it
    /// reports on.
    FlowOfTcp(Family),
    /// Matches packets whose destination is a local address, or is not.
    LocalDest(bool),
    /// Matches packets that came in by an interface that does not lead to their destination.
    FromOutside,
    /// Matches packets without an incoming interface: the gateway's own, or those that a filtering bridge
    /// (`br_netfilter`) passes on.
    InNowhere,
    /// Matches packets whose destination is a loopback address.
    DestLoopback(Family),
    /// Matches packets whose key is in the set.
    In(Vec<Field>, SetName),
    /// Counts the packet under this key.
    Count(Vec<Field>, SetName),
    /// Removes this key from the set.
    Forget(Vec<Field>, SetName),
    /// Sets the mark of tcpgw on the flow.
    MarkFlow(FlowMark),
    /// Sets the timeouts that conntrack applies to the flow.
    Timeouts(Timeouts),
    /// Removes the TCP timestamp option.
    StripTimestamp,
    /// Translates the destination of the flow to the backend in the chosen slot.
    Dnat(ListenScope, Pick),
    /// Goes to the chain of the round-robin service.
    RoundRobin(ListenScope),
    /// Leaves this chain.
    Return,
    /// Drops the packet.
    Drop,
    /// Drops the packet and answers with a TCP reset.
    Reset,
    /// Translates the source of the flow to one of the addresses that its backend is to see, if any is set.
    Snat(Family),
    /// Sets the packet's source address to that of its outgoing link for a moment, without changing the flow.
    PretendLinkSource(Family),
    /// Restores the packet's original source address.
    RestoreSource(Family),
    /// Matches packets whose source is a local address.
    LocalSource,
    /// Translates the source of the flow to the address of its outgoing link, if the link has one.
    SnatToLink(Family),
    /// Translates the source of the flow to the gateway's own address.
    Masquerade,
    /// Continues in this chain and does not return.
    Goto(String),
    /// Calls this chain.
    Jump(String),
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L4Proto => f.write_str("meta l4proto"),
            Self::SourcePort => f.write_str("tcp sport"),
            Self::DestPort => f.write_str("tcp dport"),
            Self::SourceAddress(family) => write!(f, "{} saddr", ip(*family)),
            Self::DestAddress(family) => write!(f, "{} daddr", ip(*family)),
            Self::ClientAddress(family) => write!(f, "ct original {} saddr", ip(*family)),
            Self::ClientPort => f.write_str("ct original proto-src"),
            Self::PublicAddress(family) => write!(f, "ct original {} daddr", ip(*family)),
            Self::PublicPort => f.write_str("ct original proto-dst"),
            Self::BackendAddress(family) => write!(f, "ct reply {} saddr", ip(*family)),
            Self::BackendPort => f.write_str("ct reply proto-src"),
            Self::InInterface => f.write_str("iifname"),
            Self::OutInterface => f.write_str("oifname"),
            Self::SourceNetwork => f.write_str("ip6 saddr & ffff:ffff:ffff:ffff::"),
            Self::FlowId => f.write_str("ct id"),
            Self::Slot => write!(f, "numgen random mod {SLOT_MODULUS}"),
        }
    }
}

/// Returns the fields in nft's syntax of a concatenation: `a . b . c`.
pub fn concat(fields: &[Field]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::NotTcp => f.write_str("meta l4proto != tcp"),
            Self::InLoopback(true) => f.write_str("iif \"lo\""),
            Self::InLoopback(false) => f.write_str("iif != \"lo\""),
            Self::OutNotLoopback => f.write_str("oif != \"lo\""),
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::CtState(CtState::EstablishedOrRelated) => f.write_str("ct state established,related"),
            Self::CtState(CtState::NewOrUntracked) => f.write_str("ct state new,untracked"),
            Self::CtState(CtState::New) => f.write_str("ct state new"),
            Self::CtState(CtState::Invalid) => f.write_str("ct state invalid"),
            Self::CtState(CtState::Untracked) => f.write_str("ct state untracked"),
            Self::Marked(mark, yes) => {
                let op = if *yes { "==" } else { "!=" };
                write!(f, "ct mark & {:#010x} {op} {:#010x}", mark.mask(), mark.value())
            }
            Self::Direction(FlowDirection::Original) => f.write_str("ct direction original"),
            Self::Direction(FlowDirection::Reply) => f.write_str("ct direction reply"),
            Self::StatusDnat => f.write_str("ct status dnat"),
            Self::StatusAssured => f.write_str("ct status assured"),
            Self::Unassured => f.write_str("ct status ! assured"),
            Self::Syn(true) => f.write_str("tcp flags syn / fin,syn,rst,ack"),
            Self::Syn(false) => f.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::SynAck => f.write_str("tcp flags syn,ack / fin,syn,rst,ack"),
            Self::BareAck => f.write_str("tcp flags ack / fin,syn,rst,psh,ack"),
            // nft has no keyword for this; the load fails for packets without data.
            Self::HasData => f.write_str("@ih,0,8 >= 0x0"),
            Self::SynUnanswered => write!(
                f,
                "ct expiration > {SYN_RECV_SECONDS}s ct expiration <= {SYN_SENT_SECONDS}s"
            ),
            Self::Probe => write!(
                f,
                "meta priority {:x}:{:x}",
                PROBE_PRIORITY >> 16,
                PROBE_PRIORITY & 0xffff
            ),
            // nft accepts ports of a flow only where its protocols are known.
            Self::FlowOfTcp(Family::V4) => f.write_str("ip version 4 ct protocol tcp"),
            Self::FlowOfTcp(Family::V6) => f.write_str("ip6 version 6 ct protocol tcp"),
            Self::LocalDest(true) => f.write_str("fib daddr type local"),
            Self::LocalDest(false) => f.write_str("fib daddr type != local"),
            Self::FromOutside => f.write_str("fib daddr . iif oif missing"),
            Self::InNowhere => f.write_str("iif 0"),
            Self::DestLoopback(Family::V4) => f.write_str("ip daddr 127.0.0.0/8"),
            Self::DestLoopback(Family::V6) => f.write_str("ip6 daddr ::1"),
            Self::In(key, set) => write!(f, "{} @{set}", concat(key)),
            Self::Count(key, set) => write!(f, "update @{set} {{ {} }}", concat(key)),
            Self::Forget(key, set) => write!(f, "delete @{set} {{ {} }}", concat(key)),
            Self::MarkFlow(mark) if mark.mask() == mark.value() => {
                write!(f, "ct mark set ct mark | {:#010x}", mark.value())
            }
            Self::MarkFlow(mark) => {
                write!(
                    f,
                    "ct mark set ct mark & {:#010x} | {:#010x}",
                    !mark.mask(),
                    mark.value()
                )
            }
            Self::Timeouts(object) => write!(f, "ct timeout set \"{object}\""),
            Self::StripTimestamp => f.write_str("reset tcp option timestamp"),
            Self::Dnat(listen_scope, pick) => {
                let (family, key) = (ip(listen_scope.family()), listening_key(listen_scope.scope()));
                write!(f, "dnat {family} to {} . ", concat(&key))?;
                match pick {
                    Pick::Hash => write!(f, "jhash {family} saddr mod {HASH_SLOTS} seed {HASH_SEED:#x}")?,
                    Pick::Client(width) => {
                        let client = concat(&sender(listen_scope.family()));
                        write!(f, "jhash {client} mod {width} seed {HASH_SEED:#x}")?;
                    }
                    Pick::RoundRobin(width) => write!(f, "numgen inc mod {width}")?,
                    Pick::Random(width) => write!(f, "numgen random mod {width}")?,
                }
                write!(f, " map @{}", SetName::Slots(*listen_scope))
            }
            Self::RoundRobin(listen_scope) => {
                let key = concat(&service_key(listen_scope.scope()));
                write!(f, "{key} vmap @{}", SetName::RoundRobin(*listen_scope))
            }
            Self::Return => f.write_str("return"),
            Self::Drop => f.write_str("drop"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Snat(family) => write!(
                f,
                "snat {} to {} . jhash {} mod {SOURCE_SLOTS} seed {HASH_SEED:#x} map @{}",
                ip(*family),
                concat(&receiver(*family)),
                concat(&sender(*family)),
                SetName::Sources(*family)
            ),
            Self::PretendLinkSource(_) | Self::RestoreSource(_) | Self::LocalSource | Self::SnatToLink(_) => {
                f.write_str(&link_source(self))
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

/// Returns the nft syntax of the statements that make a backend see the gateway's address on a link.
fn link_source(stmt: &Stmt) -> String {
    let link = Field::OutInterface;
    match stmt {
        Stmt::PretendLinkSource(family) => {
            format!(
                "{} saddr set {link} map @{}",
                ip(*family),
                SetName::LinkSources(*family)
            )
        }
        Stmt::RestoreSource(family) => format!("{} saddr set {}", ip(*family), Field::ClientAddress(*family)),
        Stmt::SnatToLink(family) => format!("snat {} to {link} map @{}", ip(*family), SetName::LinkSources(*family)),
        _ => "fib saddr type local".into(),
    }
}

/// Returns a match of packets whose service is in the set.
pub fn service_in(scope: Scope, set: SetName) -> Stmt {
    Stmt::In(service_key(scope), set)
}

/// Returns a statement that counts the packet under its service.
pub fn count_service(scope: Scope, set: SetName) -> Stmt {
    Stmt::Count(service_key(scope), set)
}

/// Returns the key of the packet's destination.
pub fn receiver(family: Family) -> Vec<Field> {
    vec![Field::DestAddress(family), Field::DestPort]
}

/// Returns the key of the packet's source.
pub fn sender(family: Family) -> Vec<Field> {
    vec![Field::SourceAddress(family), Field::SourcePort]
}

/// Returns the key of the flow's backend, for packets of both directions.
pub fn answering(family: Family) -> Vec<Field> {
    vec![Field::BackendAddress(family), Field::BackendPort]
}

/// Returns the key of the connection attempt (client and public address), for packets of both directions.
pub fn attempt(family: Family) -> Vec<Field> {
    vec![
        Field::ClientAddress(family),
        Field::ClientPort,
        Field::PublicAddress(family),
        Field::PublicPort,
    ]
}

/// Returns the address and port that the client connected to, for packets of both directions.
pub fn public(family: Family) -> Vec<Field> {
    vec![Field::PublicAddress(family), Field::PublicPort]
}

/// Returns the key of the flow's service and backend, for packets of both directions.
pub fn connection(listen_scope: ListenScope) -> Vec<Field> {
    let mut key = match listen_scope.scope() {
        Scope::Any => vec![Field::PublicPort],
        Scope::At(family) => public(family),
    };
    key.extend(answering(listen_scope.family()));
    key
}

/// Returns the key of service and client.
pub fn visitor(listen_scope: ListenScope) -> Vec<Field> {
    let mut key = listening_key(listen_scope.scope());
    key.push(Field::SourceAddress(listen_scope.family()));
    key
}
