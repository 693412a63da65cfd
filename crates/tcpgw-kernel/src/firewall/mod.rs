//! Everyone's chains and rules, as far as they can be understood: what each rule asks of a packet, and what it does.
//!
//! Owns reading and decoding, from `nf_tables` and from what `iptables-legacy-save` prints. What a rule means for anyone's
//! packets is the caller's to judge. What is not understood is said to be unknown, never left out.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, `net/netfilter/nf_tables_api.c`.

mod decode;
mod mark;
mod program;
mod read;
mod save;
mod sets;
mod stateful;
mod xt;

pub use self::mark::MarkWrite;
pub use self::read::{OwnTable, Unread, owner, read, without_rules};
pub use self::save::{LegacyError, has_legacy_nat, legacy, parse as parse_save};

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The table that it is in.
    pub table: ForeignTable,
    /// Its name.
    pub name: String,
    /// The kernel's number for it, in its table. None of iptables-legacy.
    pub handle: Option<u64>,
    /// Where it is hooked, if it is.
    pub base: Option<Base>,
    /// The interfaces whose packets it sees, where it is hooked to interfaces ([`Hook::is_of_interfaces`]).
    pub devices: Vec<Device>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// An interface that a chain is hooked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, or how the names of several begin.
    pub name: String,
    /// Whether it stands for all interfaces whose names begin like this.
    pub is_prefix: bool,
}

impl Device {
    /// Whether an interface of that name is meant.
    pub fn is(&self, name: &str) -> bool {
        if self.is_prefix {
            name.starts_with(&self.name)
        } else {
            name == self.name
        }
    }
}

/// Whose chain it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignTable {
    /// What packets it sees.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Whether it is the other, older kind of iptables.
    pub legacy: bool,
    /// Whether a running program keeps others from changing it (`flags owner`).
    pub owned: bool,
    /// The kernel's number for it: a table that is made later has a larger one. None of iptables-legacy.
    pub handle: Option<u64>,
}

/// What packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames of a bridge.
    Bridge,
    /// Everything on an interface.
    Netdev,
    /// ARP.
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

/// Where a chain sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// For this machine itself.
    Input,
    /// For others.
    Forward,
    /// From this machine itself.
    Output,
    /// Before it leaves.
    Postrouting,
    /// At an interface, before all else: conntrack has not seen the packet.
    Ingress,
    /// At an interface, after all else.
    Egress,
    /// Of a bridge.
    Other,
}

impl Hook {
    /// Whether chains there see packets of some interfaces only.
    pub const fn is_of_interfaces(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Where.
    pub hook: Hook,
    /// Whether it sees the first packet of a flow only.
    pub nat: bool,
    /// When, among the others there.
    pub priority: i32,
    /// Whether packets that no rule decided on are dropped.
    pub drops: bool,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// All of these must hold.
    pub tests: Vec<Test>,
    /// What it does besides.
    pub effects: Vec<Effect>,
    /// What becomes of the packet.
    pub verdict: Verdict,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The next rule decides.
    #[default]
    Continue,
    /// This base chain lets it pass.
    Accept,
    /// It is gone.
    Drop,
    /// It is gone, and its sender is told.
    Reject,
    /// The calling chain goes on.
    Return,
    /// That chain, and then the next rule.
    Jump(String),
    /// That chain.
    Goto(String),
    /// What the map says; `None` where it was not read.
    Map(Vec<Load>, Option<Vec<(Element, Verdict)>>),
    /// Something that decides, and is not understood.
    Unknown(String),
}

/// What a rule does besides deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Another destination (`dnat`, `redirect`).
    Dnat,
    /// Conntrack shall not look at it.
    Notrack,
    /// Later packets of the flow take a short cut past all rules.
    Offload,
    /// The ct mark is written.
    CtMark(MarkWrite),
    /// The packet's mark becomes the ct mark, or a part of it.
    RestoreMark,
    /// The packet's mark is written: of its bits, not those of the ct mark.
    PacketMark(MarkWrite),
    /// The hop limit (TTL) becomes that.
    HopLimit(u8),
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A comparison of (some bits of) a field.
    Compare {
        /// What is compared.
        load: Load,
        /// The bits of it.
        mask: Option<Vec<u8>>,
        /// How.
        relation: Relation,
        /// With what.
        value: Vec<u8>,
    },
    /// One of these, or none of them.
    In {
        /// What is looked up.
        key: Vec<Load>,
        /// Where; `None` where it was not read.
        elements: Option<Vec<Element>>,
        /// Whether it must not be there.
        negated: bool,
    },
    /// Holds for some clients: a limit for each of them, a list of addresses.
    Sometimes,
    /// Holds for no packet.
    Never,
    /// Holds for what exceeds a rate that all packets share.
    Exceeds,
    /// Something that is not understood.
    Unknown(String),
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same, as far as the value goes.
    Equal,
    /// Not the same.
    Differs,
    /// Less.
    Less,
    /// Less, or the same.
    AtMost,
    /// More.
    More,
    /// More, or the same.
    AtLeast,
}

/// An element of a set: one value, or all from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The first.
    pub from: Vec<u8>,
    /// The last.
    pub to: Vec<u8>,
}

/// A part of a packet, or of what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What.
    pub field: Field,
    /// How many of its bytes, from the first.
    pub len: usize,
}

/// What a rule may look at. Addresses and ports are in network byte order, marks and conntrack's bits in this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The family, as `NFPROTO_*`.
    Family,
    /// The family, as the type of an Ethernet frame.
    EtherType,
    /// TCP, UDP and so on.
    Protocol,
    /// The name of the interface that it came in by.
    InName,
    /// The number of that interface.
    InIndex,
    /// The name of the interface that it leaves by.
    OutName,
    /// The number of that interface.
    OutIndex,
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
    /// `ct state`, with `STATE_DNAT` of iptables as well.
    CtState,
    /// `ct status`.
    CtStatus,
    /// `ct mark`.
    CtMark,
    /// `ct direction`.
    CtDirection,
    /// `meta mark`.
    Mark,
    /// The type of the route to the destination (`RTN_LOCAL` and so on), in this machine's byte order.
    DestType,
    /// Something about the sender: whether there is a route back, say.
    Sender,
    /// Anything else.
    Other,
}

/// `ct state` bits; those of iptables' `--ctstate` are the same as far as they go.
pub mod ct_state {
    /// What conntrack cannot place.
    pub const INVALID: u32 = 1;
    /// Answered before.
    pub const ESTABLISHED: u32 = 2;
    /// The first packet of a flow.
    pub const NEW: u32 = 8;
    /// Left alone by conntrack.
    pub const UNTRACKED: u32 = 64;
    /// Only iptables has it: translated. Far from the bits of nft.
    pub const DNAT: u32 = 1 << 16;
}
