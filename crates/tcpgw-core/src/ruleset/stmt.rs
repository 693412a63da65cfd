//! The vocabulary of the rules: what a rule may ask of a packet and do with it, and how nft writes that.

use std::fmt;

use super::name::SetName;
use super::scope::{Family, ListenScope, Scope};
use super::spec::{Field, listening_key, service_key};
use super::timeouts::{SYN_RECV_SECONDS, SYN_SENT_SECONDS, Timeouts};
use crate::model::FlowMark;

/// `ct state` bits (`include/uapi/linux/netfilter/nf_conntrack_common.h`, `NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtState {
    /// Tracked, and answered before or related to such a flow.
    EstablishedOrRelated,
    /// The first packet of a flow.
    New,
    /// The first packet of a flow, or left alone by conntrack.
    NewOrUntracked,
    /// What conntrack cannot place.
    Invalid,
    /// Left alone by conntrack.
    Untracked,
}

impl CtState {
    /// The bits that `ct state` is masked with.
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

/// A direction of a flow, as conntrack has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Original,
    /// From the backend.
    Reply,
}

/// How the slot number is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// By a hash of the client's address and port, among this many.
    Client(u16),
    /// By a hash of the client's address.
    Hash,
    /// In turn among this many.
    RoundRobin(u16),
    /// At random among this many.
    Random(u16),
}

/// Slots of a service that is balanced by source hash: fixed, so that a change of backends moves few clients.
pub const HASH_SLOTS: u16 = 256;

/// Slots of a backend whose service has several source addresses: as many as there may be.
pub const SOURCE_SLOTS: u16 = 16;
const _: () = assert!(SOURCE_SLOTS as usize == crate::model::MAX_SOURCE_ADDRESSES);

/// Seed of the hashes: fixed, so that a re-created rule sends clients where they were.
pub const HASH_SEED: u32 = 0x7463_7067;

/// The priority of probes' sockets (`SO_PRIORITY`), by which their packets are known: `tcp` and a number that leaves them in the
/// queue of all others (`TC_PRIO_BESTEFFORT`). A mark would do as well, but rules of routing go by marks, and programs copy them to
/// flows.
pub const PROBE_PRIORITY: u32 = 0x7463_7060;

/// Slot numbers are below this.
pub const SLOT_MODULUS: u32 = 65536;

/// One match or statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stmt {
    /// A TCP segment.
    Tcp,
    /// Not a TCP segment.
    NotTcp,
    /// Came in by loopback, or did not.
    InLoopback(bool),
    /// Does not leave by loopback, which all packets to local addresses do.
    OutNotLoopback,
    /// Of this family.
    Family(Family),
    /// In that conntrack state.
    CtState(CtState),
    /// Its flow bears our mark, or does not.
    Marked(FlowMark, bool),
    /// Goes in that direction.
    Direction(Direction),
    /// Its flow was given a new destination.
    StatusDnat,
    /// The handshake of its flow is complete.
    StatusAssured,
    /// It is not.
    Unassured,
    /// Is the first segment of a handshake, or is not.
    Syn(bool),
    /// Answers the first segment of a handshake and agrees.
    SynAck,
    /// Carries nothing but an acknowledgement, as far as its flags say.
    BareAck,
    /// Carries data: it has a first byte behind its TCP header.
    HasData,
    /// Its flow waits for the answer to a SYN, as what is left of the flow's time tells: a bare acknowledgement changes neither.
    SynUnanswered,
    /// Was sent by one of the daemon's probes: its socket has our priority.
    Probe,
    /// Its flow is one of TCP, whatever the packet itself is: an ICMP error is of the flow that it is about.
    FlowOfTcp(Family),
    /// Its destination is a local address, or is not.
    LocalDest(bool),
    /// Came in by an interface that does not lead to its destination.
    FromOutside,
    /// Did not come in by an interface: it is the gateway's own, or a bridge that filters (`br_netfilter`) sends it on.
    InNowhere,
    /// Its destination is a loopback address.
    DestLoopback(Family),
    /// The key is in the set.
    In(Vec<Field>, SetName),
    /// Count it under that key.
    Count(Vec<Field>, SetName),
    /// Take that key out of the set.
    Forget(Vec<Field>, SetName),
    /// Mark the flow as ours.
    MarkFlow(FlowMark),
    /// How long conntrack keeps the flow.
    Timeouts(Timeouts),
    /// Take the timestamp option away.
    StripTimestamp,
    /// Send the flow to the backend in that slot.
    Dnat(ListenScope, Pick),
    /// Go on where the service counts its turns.
    Turns(ListenScope),
    /// Leave this chain.
    Return,
    /// Drop the packet.
    Drop,
    /// Drop the packet and answer with a TCP reset.
    Reset,
    /// Give the flow one of the addresses that its backend is to see, if there are any.
    Snat(Family),
    /// Give the packet the source address of the link that it leaves by, for now: the flow is not changed.
    PretendLinkSource(Family),
    /// Give the packet the source address back that it had when it came.
    RestoreSource(Family),
    /// Its source is a local address.
    LocalSource,
    /// Give the flow the source address of the link that it leaves by, if the link has one.
    SnatToLink(Family),
    /// Give the flow the gateway's own address.
    Masquerade,
    /// Go on in that chain, and do not come back.
    Goto(String),
    /// Visit that chain.
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

/// `a . b . c`
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
            Self::Direction(Direction::Original) => f.write_str("ct direction original"),
            Self::Direction(Direction::Reply) => f.write_str("ct direction reply"),
            Self::StatusDnat => f.write_str("ct status dnat"),
            Self::StatusAssured => f.write_str("ct status assured"),
            Self::Unassured => f.write_str("ct status ! assured"),
            Self::Syn(true) => f.write_str("tcp flags syn / fin,syn,rst,ack"),
            Self::Syn(false) => f.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::SynAck => f.write_str("tcp flags syn,ack / fin,syn,rst,ack"),
            Self::BareAck => f.write_str("tcp flags ack / fin,syn,rst,psh,ack"),
            // nft has no word for it; the load fails where nothing is.
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
            // nft reads ports of a flow only where it knows its protocols.
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
            Self::Turns(listen_scope) => {
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

/// How nft writes what makes a backend see the gateway's address on a link.
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

/// A packet's service is in that set.
pub fn service_in(scope: Scope, set: SetName) -> Stmt {
    Stmt::In(service_key(scope), set)
}

/// Count the packet under its service.
pub fn count_service(scope: Scope, set: SetName) -> Stmt {
    Stmt::Count(service_key(scope), set)
}

/// Whoever a packet goes to.
pub fn receiver(family: Family) -> Vec<Field> {
    vec![Field::DestAddress(family), Field::DestPort]
}

/// Whoever a packet comes from.
pub fn sender(family: Family) -> Vec<Field> {
    vec![Field::SourceAddress(family), Field::SourcePort]
}

/// Whoever answers in the packet's flow, whichever way the packet goes.
pub fn answering(family: Family) -> Vec<Field> {
    vec![Field::BackendAddress(family), Field::BackendPort]
}

/// Who wanted to connect to what, whichever way the packet goes.
pub fn attempt(family: Family) -> Vec<Field> {
    vec![
        Field::ClientAddress(family),
        Field::ClientPort,
        Field::PublicAddress(family),
        Field::PublicPort,
    ]
}

/// The service and the client.
pub fn visitor(listen_scope: ListenScope) -> Vec<Field> {
    let mut key = listening_key(listen_scope.scope());
    key.push(Field::SourceAddress(listen_scope.family()));
    key
}
