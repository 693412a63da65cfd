//! Chains and rules of other programs, decoded as far as they can be understood: the conditions of each rule, and its
//! effects.
//!
//! Owns reading and decoding, from `nf_tables` and from the output of `iptables-legacy-save`. What a rule means for
//! packets is decided by the caller. What is not understood is reported as unknown, never left out.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, `net/netfilter/nf_tables_api.c`.

mod attributes;
mod decode;
mod dump;
mod field;
mod legacy;
mod mark;
mod options;
mod program;
mod read;
mod rewrite;
mod save;
mod sets;
mod stateful;
mod xt;

pub use self::legacy::{LegacyError, has_legacy_nat, legacy};
pub use self::mark::MarkWrite;
pub use self::read::{OwnTable, Unread, owner, read, without_rules};
pub use self::rewrite::{HeaderField, HeaderWrite};
pub use self::save::parse as parse_save;

/// A chain of any program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallChain {
    /// The table that it is in.
    pub table: ForeignTable,
    /// Name of the chain.
    pub name: String,
    /// The kernel's number of the chain in its table; `None` for iptables-legacy.
    pub handle: Option<u64>,
    /// Properties of a base chain; `None` for other chains.
    pub base: Option<FirewallBase>,
    /// The interfaces whose packets it sees, where it is hooked to interfaces ([`FirewallHook::is_of_interfaces`]).
    pub devices: Vec<Device>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// An interface that a chain is hooked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name of the interface, or prefix of the names of several.
    pub name: String,
    /// Whether the name is a prefix.
    pub is_prefix: bool,
}

impl Device {
    /// Returns whether an interface of this name is meant.
    pub fn is(&self, name: &str) -> bool {
        if self.is_prefix {
            name.starts_with(&self.name)
        } else {
            name == self.name
        }
    }
}

/// Table of a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignTable {
    /// Address family of the table.
    pub family: TableFamily,
    /// Name of the table.
    pub name: String,
    /// Whether the table belongs to iptables-legacy.
    pub legacy: bool,
    /// Whether a running program keeps others from changing it (`flags owner`).
    pub owned: bool,
    /// The kernel's number of the table: a table that is created later has a larger one. `None` for iptables-legacy.
    pub handle: Option<u64>,
}

/// Address family of a table, which decides which packets it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// Frames of a bridge.
    Bridge,
    /// Everything on an interface.
    Netdev,
    /// ARP packets.
    Arp,
}

impl std::fmt::Display for TableFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
            Self::Arp => "arp",
        })
    }
}

/// Hook of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirewallHook {
    /// Before the routing decision.
    Prerouting,
    /// Packets to this machine; all that come in, of ARP.
    Input,
    /// Packets that are forwarded.
    Forward,
    /// Packets from this machine; all that leave, of ARP.
    Output,
    /// After the routing decision, before packets leave.
    Postrouting,
    /// Incoming packets of an interface, before all else: conntrack has not seen them.
    Ingress,
    /// Outgoing packets of an interface, after all else.
    Egress,
    /// Hook of a bridge, or of packets of ARP that a bridge forwards.
    Other,
}

/// Priority at which conntrack sees packets (`NF_IP_PRI_CONNTRACK`).
pub const CONNTRACK_PRIORITY: i32 = -200;

impl FirewallBase {
    /// Returns whether conntrack has seen a packet before the chain.
    pub const fn is_tracked(self) -> bool {
        match self.hook {
            FirewallHook::Ingress => false,
            FirewallHook::Prerouting | FirewallHook::Output => self.priority >= CONNTRACK_PRIORITY,
            _ => true,
        }
    }
}

impl FirewallHook {
    /// Returns whether chains of this hook see packets of some interfaces only.
    pub const fn is_of_interfaces(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }
}

/// Properties of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirewallBase {
    /// Hook of the chain.
    pub hook: FirewallHook,
    /// Whether it sees the first packet of a flow only.
    pub nat: bool,
    /// Priority among the chains of the hook.
    pub priority: i32,
    /// Whether packets that no rule decided on are dropped.
    pub drops: bool,
}

/// A rule of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, all of which must hold.
    pub tests: Vec<Test>,
    /// Effects apart from the verdict.
    pub effects: Vec<RuleEffect>,
    /// Verdict on the packet.
    pub verdict: RuleVerdict,
}

/// Verdict on a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The next rule decides.
    #[default]
    Continue,
    /// This base chain accepts the packet.
    Accept,
    /// The packet is dropped.
    Drop,
    /// The packet is dropped, and its sender is notified.
    Reject,
    /// The calling chain continues.
    Return,
    /// The chain with this name decides, and then the next rule.
    Jump(String),
    /// The chain with this name decides.
    Goto(String),
    /// The map decides; its elements are `None` if they were not read.
    Map(Vec<Load>, Option<Vec<(SetElement, RuleVerdict)>>),
    /// Something decides that is not understood.
    Unknown(String),
}

/// Effect of a rule apart from its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleEffect {
    /// The destination is translated (`dnat`, `redirect`).
    Dnat,
    /// Conntrack ignores the packet.
    Notrack,
    /// Later packets of the flow bypass all rules.
    Offload,
    /// The ct mark is written.
    CtMark(MarkWrite),
    /// The packet's mark becomes the ct mark, or a part of it.
    RestoreMark,
    /// Sets bits of the packet's mark (not of the ct mark).
    PacketMark(MarkWrite),
    /// The hop limit (TTL) is set to this value.
    HopLimit(u8),
    /// Another field of a header is written, without conntrack.
    Rewrite(HeaderWrite),
}

/// Condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A comparison of (some bits of) a field.
    Compare {
        /// Field that is compared.
        load: Load,
        /// Bits of it that are compared; `None` for all.
        mask: Option<Vec<u8>>,
        /// Comparison.
        relation: Relation,
        /// Value that the field is compared with.
        value: Vec<u8>,
    },
    /// A lookup in a set.
    In {
        /// Key that is looked up.
        key: Vec<Load>,
        /// Elements of the set; `None` if they were not read.
        elements: Option<Vec<SetElement>>,
        /// Whether the key must not be in the set.
        negated: bool,
    },
    /// A condition that holds for some clients: a limit for each of them, a list of addresses.
    Sometimes,
    /// A condition that holds for no packet.
    Never,
    /// A condition that holds for packets over a rate that all packets share.
    Exceeds,
    /// A condition that is not understood.
    Unknown(String),
}

/// Comparison of a field with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Equal in the bytes of the value.
    Equal,
    /// Not equal.
    Differs,
    /// Less than the value.
    Less,
    /// Less than the value or equal.
    AtMost,
    /// Greater than the value.
    More,
    /// Greater than the value or equal.
    AtLeast,
}

/// An element of a set: one value, or a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetElement {
    /// First value.
    pub from: Vec<u8>,
    /// Last value.
    pub to: Vec<u8>,
}

/// A field, as a rule loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Field that is loaded.
    pub field: RuleField,
    /// Number of its bytes, from the first on.
    pub len: usize,
}

/// Field that a rule may look at. Addresses and ports are in network byte order, marks and conntrack's bits in this
/// machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleField {
    /// Family, as `NFPROTO_*`.
    Family,
    /// Family, as the type of an Ethernet frame.
    EtherType,
    /// The type in the header of the Ethernet frame itself, which may be that of a VLAN.
    FrameType,
    /// Protocol, such as TCP or UDP.
    Protocol,
    /// Name of the incoming interface.
    InName,
    /// Number of the incoming interface.
    InIndex,
    /// Name of the outgoing interface.
    OutName,
    /// Number of the outgoing interface.
    OutIndex,
    /// Hardware type of the incoming interface (`ARPHRD_*`), in this machine's byte order.
    InType,
    /// Hardware type of the outgoing interface.
    OutType,
    /// The IPv4 source address.
    Source4,
    /// The IPv4 destination address.
    Dest4,
    /// The IPv6 source address.
    Source6,
    /// The IPv6 destination address.
    Dest6,
    /// The TCP source port.
    SourcePort,
    /// The TCP destination port.
    DestPort,
    /// The TCP flags, one byte: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK, 32 URG.
    TcpFlags,
    /// For whom the packet was received (`PACKET_HOST` and so on), one byte.
    PacketType,
    /// The length of the packet, in this machine's byte order.
    Length,
    /// The length of the packet in network byte order, as rules compare it with a bound.
    OrderedLength,
    /// The user or group of the local socket that sent the packet, or is to get it.
    SocketOwner,
    /// The first byte of an IP header: the version, and of IPv4 the length of the header in words of 32 bits.
    IpVersion,
    /// The flags and the fragment offset of IPv4, two bytes.
    Fragment,
    /// The TTL of IPv4, or the hop limit of IPv6, one byte.
    HopLimit,
    /// The byte of a TCP header whose upper half is the length of the header, in words of 32 bits.
    DataOffset,
    /// Bytes of an option of IPv4.
    IpOption,
    /// Whether the packet has an option of IPv4: 1 or 0.
    HasIpOption,
    /// Bytes of an extension header of IPv6.
    ExtensionHeader,
    /// Whether the packet has an extension header of IPv6: 1 or 0.
    HasExtensionHeader,
    /// The maximum segment size, an option of the first two TCP packets, two bytes.
    SegmentSize,
    /// Whether the packet has a maximum segment size: 1 or 0.
    HasSegmentSize,
    /// One of this many consecutive numbers that the rule draws, or computes from the packet, in this machine's byte order.
    Generated {
        /// The first number.
        first: u32,
        /// The number of numbers.
        count: u32,
    },
    /// The type of an ICMP or ICMPv6 message, one byte.
    IcmpType,
    /// The operation of an ARP packet: 1 for a request, 2 for an answer.
    ArpOperation,
    /// The bytes of an ARP packet from this one on, of the first six: which addresses it has, and how long they are.
    ArpFormat(u8),
    /// The IPv4 address of an ARP packet's sender.
    ArpSource,
    /// The IPv4 address of an ARP packet's target.
    ArpTarget,
    /// `ct state`, with `STATE_DNAT` of iptables as well.
    CtState,
    /// Bits of `ct status`.
    CtStatus,
    /// Value of `ct mark`.
    CtMark,
    /// Value of `ct direction`.
    CtDirection,
    /// Value of `meta mark`.
    Mark,
    /// The type of the route to the destination (`RTN_LOCAL` and so on), in this machine's byte order.
    DestType,
    /// The type of the route to the source address (`RTN_UNICAST` and so on), in this machine's byte order.
    SourceType,
    /// Whether there is a route to the source address: 1 or 0, in this machine's byte order.
    HasSourceRoute,
    /// Number of the interface of the route to the source address; 0 where there is none.
    SourceRouteIndex,
    /// Name of the interface of the route to the source address.
    SourceRouteName,
    /// Another property of the sender, such as whether the route back leaves by the interface that the packet came in by.
    Sender,
    /// Any other field.
    Other,
}

/// `ct state` bits; those of iptables' `--ctstate` are the same as far as they go.
pub mod ct_state {
    /// Packet that conntrack cannot assign to a flow.
    pub const INVALID: u32 = 1;
    /// Packet of a flow that was answered.
    pub const ESTABLISHED: u32 = 2;
    /// The first packet of a flow.
    pub const NEW: u32 = 8;
    /// Packet that is not tracked.
    pub const UNTRACKED: u32 = 64;
    /// Packet of a translated flow; only iptables has this state. Its bit is far from those of nft.
    pub const DNAT: u32 = 1 << 16;
}
