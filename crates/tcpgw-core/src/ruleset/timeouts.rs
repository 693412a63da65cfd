//! Timeouts of conntrack for flows of tcpgw and for its probes: objects of the table, one of each kind for each family,
//! and one for each value of `idle_timeout`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scope::Family;

/// A state of a TCP flow, numbered as attributes of a policy are (`CTA_TIMEOUT_TCP_*`, `nfnetlink_cttimeout.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum TimeoutState {
    /// A SYN was sent and not answered.
    SynSent = 1,
    /// A SYN-ACK was sent and not acknowledged.
    SynRecv = 2,
    /// The handshake is complete.
    Established = 3,
    /// One side sent a FIN.
    FinWait = 4,
    /// The FIN was acknowledged: the connection is half-closed.
    CloseWait = 5,
    /// Both sides sent a FIN, and one of these was not acknowledged yet.
    LastAck = 6,
    /// Both FINs were acknowledged.
    TimeWait = 7,
    /// One side sent a reset.
    Close = 8,
    /// A retransmission, in any state.
    Retransmits = 10,
    /// Unacknowledged data, in any state.
    Unacknowledged = 11,
}

impl TimeoutState {
    /// Returns the number of the policy's attribute.
    pub const fn attribute(self) -> u16 {
        self as u16
    }

    /// Returns the kernel's default in seconds (`tcp_timeouts` in `net/netfilter/nf_conntrack_proto_tcp.c`). nft does
    /// not list timeouts with these values.
    pub const fn default_seconds(self) -> u32 {
        match self {
            Self::SynSent | Self::FinWait | Self::TimeWait => 120,
            Self::SynRecv | Self::CloseWait => 60,
            Self::Established => 432_000,
            Self::LastAck => 30,
            Self::Close => 10,
            Self::Retransmits | Self::Unacknowledged => 300,
        }
    }
}

impl fmt::Display for TimeoutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::Established => "established",
            Self::FinWait => "fin_wait",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::Retransmits => "retrans",
            Self::Unacknowledged => "unack",
        })
    }
}

/// Values of conntrack's sysctls (`nf_conntrack_tcp_timeout_*`), in seconds, for the states that tcpgw has no reason to
/// decide. An object keeps the values that it was created with, so they are compared, and written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelTimeouts {
    /// Value of `established`.
    pub established: u32,
    /// Value of `fin_wait`.
    pub fin_wait: u32,
    /// Value of `last_ack`.
    pub last_ack: u32,
    /// Value of `max_retrans`.
    pub retransmits: u32,
    /// Value of `unacknowledged`.
    pub unacknowledged: u32,
}

impl Default for KernelTimeouts {
    /// Returns the defaults of the kernel.
    fn default() -> Self {
        Self {
            established: TimeoutState::Established.default_seconds(),
            fin_wait: TimeoutState::FinWait.default_seconds(),
            last_ack: TimeoutState::LastAck.default_seconds(),
            retransmits: TimeoutState::Retransmits.default_seconds(),
            unacknowledged: TimeoutState::Unacknowledged.default_seconds(),
        }
    }
}

impl KernelTimeouts {
    /// Returns the values that `seconds` gives for the sysctls, by name without `nf_conntrack_tcp_timeout_`; the
    /// kernel's default where it gives none.
    pub fn from_sysctls(mut seconds: impl FnMut(&str) -> Option<u32>) -> Self {
        let default = Self::default();
        let mut sysctl = |name, default| seconds(name).unwrap_or(default);
        Self {
            established: sysctl("established", default.established),
            fin_wait: sysctl("fin_wait", default.fin_wait),
            last_ack: sysctl("last_ack", default.last_ack),
            retransmits: sysctl("max_retrans", default.retransmits),
            unacknowledged: sysctl("unacknowledged", default.unacknowledged),
        }
    }

    /// Returns the values with this timeout of silent established flows, if any.
    #[must_use]
    pub fn with_idle(self, idle: Option<Duration>) -> Self {
        let seconds = idle.map(|idle| u32::try_from(idle.as_secs()).unwrap_or(u32::MAX));
        Self {
            established: seconds.unwrap_or(self.established),
            ..self
        }
    }

    /// Returns the values in the policy of an object for flows; `None` if it lacks one.
    pub fn of_policy(seconds: impl Fn(TimeoutState) -> Option<u32>) -> Option<Self> {
        Some(Self {
            established: seconds(TimeoutState::Established)?,
            fin_wait: seconds(TimeoutState::FinWait)?,
            last_ack: seconds(TimeoutState::LastAck)?,
            retransmits: seconds(TimeoutState::Retransmits)?,
            unacknowledged: seconds(TimeoutState::Unacknowledged)?,
        })
    }
}

/// Time in seconds until conntrack forgets a SYN that is not answered. With the kernel's 120 s, 538 spoofed SYNs per
/// second hold every SNAT port of a backend; with this, 9,216 do. A client repeats its SYN after 1, 3 and 7 s (RFC
/// 6298), and each one restarts the time. A later one is a new flow, which costs its client nothing.
pub const SYN_SENT_SECONDS: u32 = 7;

/// Time in seconds until conntrack forgets a handshake that the client does not complete: long enough for three
/// SYN-ACKs of a backend (RFC 6298: after 1 and 3 s), which do not restart the time; a client that got none of them
/// repeats its SYN, as a new flow. It is shorter than [`SYN_SENT_SECONDS`], so that the remaining time distinguishes
/// the two. 12,902 spoofed SYNs per second that a backend answers hold every SNAT port of it.
pub const SYN_RECV_SECONDS: u32 = 5;

/// Time in seconds until conntrack forgets a closed flow and frees its SNAT port: a little longer than Linux backends
/// hold theirs (`TCP_TIMEWAIT_LEN`, 60 s), so that a port that is free here is free there. The kernel's 120 s would
/// hold every port for another minute without need.
pub const TIME_WAIT_SECONDS: u32 = 65;

/// Time in seconds until conntrack forgets a flow that was reset: none. As long as conntrack remembers it, a SYN from
/// the same port belongs to that flow if the backend sent the reset (`nf_conntrack_tcp_packet`), and goes to that
/// backend, which may be gone.
pub const CLOSE_SECONDS: u32 = 0;

/// Time in seconds until conntrack forgets a probe that was not answered: longer than the kernel waits before it
/// repeats a SYN for the first time (RFC 6298, 1 s). Answered probes end at once, with a reset.
const PROBE_SECONDS: u32 = 2;

/// An object of the table that holds timeouts for conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timeouts {
    /// Timeouts of flows through services.
    Flows(Family),
    /// Timeouts of flows through services with an `idle_timeout`, in seconds.
    Idle(Family, NonZeroU32),
    /// Timeouts of the daemon's probes.
    Probes(Family),
}

impl Timeouts {
    /// Objects that always exist.
    pub const FIXED: [Self; 4] = [
        Self::Flows(Family::V4),
        Self::Flows(Family::V6),
        Self::Probes(Family::V4),
        Self::Probes(Family::V6),
    ];

    /// Returns the object for flows of this family, with this `idle_timeout` in seconds, if any.
    pub const fn of_flows(family: Family, idle: Option<NonZeroU32>) -> Self {
        match idle {
            None => Self::Flows(family),
            Some(seconds) => Self::Idle(family, seconds),
        }
    }

    /// Returns the family of the flows.
    pub const fn family(self) -> Family {
        match self {
            Self::Flows(family) | Self::Idle(family, _) | Self::Probes(family) => family,
        }
    }

    /// Returns whether the object follows conntrack's sysctls.
    pub const fn follows_sysctls(self) -> bool {
        !matches!(self, Self::Probes(_))
    }

    /// Returns the timeouts in seconds of the states that the object sets. A half-closed session may be as silent as
    /// any other, and lives as long: the kernel's 60 s would cut it.
    pub fn policy(self, kernel: &KernelTimeouts) -> Vec<(TimeoutState, u32)> {
        use TimeoutState::{
            Close, CloseWait, Established, FinWait, LastAck, Retransmits, SynRecv, SynSent, TimeWait, Unacknowledged,
        };
        let flows = |silent| {
            vec![
                (SynSent, SYN_SENT_SECONDS),
                (SynRecv, SYN_RECV_SECONDS),
                (Established, silent),
                (FinWait, kernel.fin_wait),
                (CloseWait, silent),
                (LastAck, kernel.last_ack),
                (TimeWait, TIME_WAIT_SECONDS),
                (Close, CLOSE_SECONDS),
                (Retransmits, kernel.retransmits),
                (Unacknowledged, kernel.unacknowledged),
            ]
        };
        match self {
            Self::Flows(_) => flows(kernel.established),
            Self::Idle(_, seconds) => flows(seconds.get()),
            Self::Probes(_) => [SynSent, SynRecv, Established, FinWait, CloseWait, LastAck, TimeWait]
                .map(|state| (state, PROBE_SECONDS))
                .into_iter()
                .chain([(Close, CLOSE_SECONDS)])
                .collect(),
        }
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flows(family) => write!(f, "timeouts_{family}"),
            Self::Idle(family, seconds) => write!(f, "idle_{seconds}_{family}"),
            Self::Probes(family) => write!(f, "probes_{family}"),
        }
    }
}
