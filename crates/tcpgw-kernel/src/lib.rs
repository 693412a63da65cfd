//! Access to the kernel: the trait `Kernel`, and its implementation by netlink.
//!
//! Owns the wire format. Knows no services, files or policies: it takes and returns plain values.

pub mod conntrack;
#[cfg(feature = "fake")]
pub mod fake;
pub mod ffi;
pub mod firewall;
pub mod linux;
pub mod listeners;
pub mod netlink;
pub mod nftables;
pub mod requirements;
pub mod route;
pub mod xfrm;

use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use thiserror::Error;

use self::conntrack::{Deletion, Flow, Pair, Selection};
use self::nftables::ownership::{Adoption, Ownership};
use self::nftables::transaction::{MessageSubject, RefusedMessage};
use crate::netlink::error::NetlinkError;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::step::PlanStep;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

/// Number of attempts of [`reading`].
const READINGS: u32 = 4;

/// State of the table at one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The generation at which it was read.
    pub generation: u32,
    /// The table as it was found.
    pub table: ObservedTable,
}

/// The table as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedTable {
    /// The table does not exist.
    Absent,
    /// The table has the rules of this program.
    Ours {
        /// The kernel's number for the table.
        handle: u64,
        /// Contents of its sets.
        ruleset: Ruleset,
        /// Sizes of its sets.
        room: Room,
    },
    /// The table has the rules of another version, or another program changed them.
    Other {
        /// The kernel's number for the table.
        handle: u64,
        /// Comment of the table, which may contain the version.
        comment: Option<String>,
        /// Contents of its sets, as far as they can be read.
        ruleset: Ruleset,
    },
}

/// Values that identify a state of the kernel's rules without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RulesetIdentity {
    /// Counter of the transactions of all programs in the network namespace.
    pub generation: u32,
    /// Number of the table, if it exists.
    pub table: Option<u64>,
}

/// Creation of the table, with as much of [`Kernel::ownership`] as the kernel supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The table does not exist yet.
    New(Room),
    /// The present table is removed in the same transaction.
    Replace(Room),
}

/// A transaction.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// Generation that the transaction was made for; the kernel refuses it at any other.
    pub generation: u32,
    /// Mark of tcpgw's flows, which the rules set and match.
    pub mark: FlowMark,
    /// Whether the table is created, too.
    pub build: Option<Build>,
    /// Other changes of the transaction.
    pub step: &'a PlanStep<'a>,
    /// Counters to delete, which packets have added.
    pub forget: &'a [(SetName, Vec<Box<[u8]>>)],
}

/// Counter of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The service or the backend.
    pub key: Box<[u8]>,
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes, including IP headers.
    pub bytes: u64,
}

/// State of the packets that met the rules as they were before the last transaction, and whose flows no sweep can see
/// yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// No flow exists, not even one whose first packet is in the stack.
    NoFlows,
    /// No such packet is left.
    Through,
    /// Not known: the flows must be swept again later.
    Unknown,
}

/// Properties of the table, without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProperties {
    /// The kernel's number for it.
    pub handle: u64,
    /// Comment, which contains the skeleton, the flow mark and the room.
    pub comment: Option<String>,
    /// `NFT_TABLE_F_*` of `include/uapi/linux/netfilter/nf_tables.h`: 1 is dormant, 2 owner, 4 persist.
    pub flags: u32,
    /// Netlink port of the socket that owns it; usually the number of its process.
    pub owner: Option<u32>,
}

/// Operations of the kernel that tcpgw uses. Implemented by [`linux::Linux`] and, for tests, by `fake::Fake`.
pub trait Kernel {
    /// Returns the values that identify the present state of the rules.
    fn identity(&mut self) -> Result<RulesetIdentity, KernelError>;
    /// Reads the table. Slow for a large one: the kernel walks a set from its beginning for every 32 KiB that it lists.
    fn observe(&mut self, mark: FlowMark) -> Result<Observed, KernelError>;
    /// Returns the table's comment, which contains its skeleton and flow mark; `None` if there is no table.
    fn comment(&mut self) -> Result<Option<String>, KernelError>;
    /// Returns the properties of the table; `None` if there is none.
    fn about(&mut self) -> Result<Option<TableProperties>, KernelError>;
    /// Returns the ownership of new tables; with [`Ownership::Owned`], [`Kernel::adopt`] also takes over the present
    /// table.
    fn ownership(&self) -> Ownership;
    /// Takes over the table as it was at that generation, if it is to be owned: nothing in it changes, and no packet is
    /// lost.
    ///
    /// # Errors
    ///
    /// Fails with [`KernelError::Outdated`] if another program wrote to it since, and as [`Kernel::commit`] does.
    fn adopt(&mut self, generation: u32) -> Result<Adoption, KernelError>;
    /// Carries out a transaction, whole or not at all, and gives the generation after it.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<u32, KernelError>;
    /// Removes the table. Returns whether it existed.
    fn remove(&mut self) -> Result<bool, KernelError>;
    /// Returns the present values of conntrack's sysctls.
    fn timeouts(&mut self) -> KernelTimeouts;
    /// Returns the counters of a set.
    fn counted(&mut self, set: SetName) -> Result<Vec<Counted>, KernelError>;
    /// Returns what packets have counted under each of these keys, in their order, none where nothing was: one look-up for each,
    /// however large the sets are.
    fn counters(&mut self, keys: &[(SetName, Box<[u8]>)]) -> Result<Vec<Counted>, KernelError>;
    /// Calls `each` with every marked flow.
    fn flows(&mut self, mark: FlowMark, each: &mut dyn FnMut(&Flow)) -> Result<(), KernelError>;
    /// Calls `each` with some marked flows until it breaks off.
    fn select(
        &mut self,
        mark: FlowMark,
        selection: &Selection,
        each: &mut dyn FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), KernelError>;
    /// Returns the marked flow that a backend sees as coming from `seen_as`, by one lookup, however many flows there
    /// are.
    fn who(&mut self, mark: FlowMark, backend: SocketAddr, seen_as: SocketAddr) -> Result<Option<Flow>, KernelError>;
    /// Deletes the marked flows that `judge` condemns, in one pass.
    fn sweep(&mut self, mark: FlowMark, judge: &mut dyn FnMut(&Flow) -> bool) -> Result<Deletion, KernelError>;
    /// Deletes the marked flows of a few pairs of service and backend.
    fn flush_pairs(&mut self, mark: FlowMark, pairs: &[Pair]) -> Result<Deletion, KernelError>;
    /// Waits for the packets that are in the stack under the old rules, and returns whether they have left it.
    fn settle(&mut self) -> Result<InFlight, KernelError>;
    /// Returns the time of the kernel's clock.
    fn now(&self) -> Instant;
    /// Waits for this time; the kernel in memory advances its clock instead.
    fn pause(&mut self, time: Duration);
}

/// Reason why the kernel did not carry out a request.
#[derive(Debug, Error)]
pub enum KernelError {
    /// Reading or sending failed; nothing was changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The transaction was refused; nothing was changed.
    #[error("the kernel refused the transaction; nothing was changed: {}", Refusals(.0))]
    Refused(Vec<RefusedMessage>),
    /// Another program committed a transaction in between; nothing was changed.
    #[error("another program changed the nftables ruleset at the same time")]
    Outdated,
    /// The transaction was sent and the answer was lost.
    #[error("the answer to the transaction was lost; the transaction may have been carried out: {0}")]
    Unknown(#[source] NetlinkError),
}

/// Repeats a read a few times when answers were lost.
///
/// # Errors
///
/// Fails with the error of the last attempt.
pub fn reading<T>(mut attempt: impl FnMut() -> Result<T, KernelError>) -> Result<T, KernelError> {
    for _ in 1..READINGS {
        match attempt() {
            Err(KernelError::Netlink(error)) if error.is_passing() => {}
            other => return other,
        }
    }
    attempt()
}

/// Number of refusals that a message lists: most follow from the first.
const SHOWN_REFUSALS: usize = 5;

struct Refusals<'a>(&'a [RefusedMessage]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refused) in self.0.iter().take(SHOWN_REFUSALS).enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{refused}")?;
        }
        match self.0.len().saturating_sub(SHOWN_REFUSALS) {
            0 => {}
            more => write!(f, "; and {more} more")?,
        }
        // Without CAP_NET_ADMIN the rules could not have been read before.
        if self.0.iter().any(|refused| refused.nack.error() == Errno::EPERM) {
            f.write_str("; is the table owned by another process (`flags owner` in `nft list table inet tcpgw`)?")?;
        }
        Ok(())
    }
}

impl fmt::Display for RefusedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.subject, &self.expression) {
            (MessageSubject::Rule(chain), Some(kind)) => write!(
                f,
                "a rule of chain {chain} with the expression \"{kind}\": {}",
                self.nack
            ),
            (MessageSubject::Rule(chain), None) => write!(f, "a rule of chain {chain}: {}", self.nack),
            (MessageSubject::Batch, _) => write!(f, "the batch: {}", self.nack),
            (MessageSubject::Table, _) => write!(f, "the table: {}", self.nack),
            (MessageSubject::Timeouts, _) => write!(f, "the object with conntrack's timeouts: {}", self.nack),
            (MessageSubject::Set(name), _) => write!(f, "set {name}: {}", self.nack),
            (MessageSubject::Chain(name), _) => write!(f, "chain {name}: {}", self.nack),
            (MessageSubject::Elements(name), _) => {
                write!(f, "an element of set {name}")?;
                if let Some(about) = self
                    .element
                    .as_deref()
                    .and_then(|key| tcpgw_core::ruleset::text::key(*name, key))
                {
                    write!(f, " ({about})")?;
                }
                write!(f, ": {}", self.nack)
            }
        }?;
        match nftables::feature::missing(&self.subject, self.expression.as_deref(), self.nack.error()) {
            Some(feature) => write!(f, "; {feature}"),
            None => Ok(()),
        }
    }
}
