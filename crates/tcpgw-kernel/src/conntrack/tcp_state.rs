//! States of tracked TCP connections.
//!
//! Source: `include/uapi/linux/netfilter/nf_conntrack_tcp.h`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// State of a tracked TCP connection: `enum tcp_conntrack` of `nf_conntrack_tcp.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// No packet was seen yet.
    None,
    /// The client's SYN was seen.
    SynSent,
    /// The backend's SYN-ACK was seen.
    SynRecv,
    /// The handshake is complete.
    Established,
    /// One side closed the connection.
    FinWait,
    /// One side closed the connection, and the other acknowledged that.
    CloseWait,
    /// Both sides closed the connection.
    LastAck,
    /// Both sides closed the connection, and conntrack waits for late packets.
    TimeWait,
    /// A reset ended the connection.
    Close,
    /// Both sides sent a SYN.
    SynSent2,
    /// A state that this program does not know.
    Other(u8),
}

/// Part of its life that a connection is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowPhase {
    /// The handshake is not complete.
    Handshake,
    /// Established: the connection is open.
    Established,
    /// One end or both have closed it; conntrack keeps such entries for a while.
    Closing,
}

impl FlowPhase {
    /// Returns the phase of a flow by its TCP state.
    pub const fn of(state: Option<TcpState>) -> Self {
        use TcpState::{Established, None as Fresh, SynRecv, SynSent, SynSent2};
        match state {
            Some(Fresh | SynSent | SynRecv | SynSent2) => Self::Handshake,
            // Entries that other programs made may have no state.
            Some(Established) | None => Self::Established,
            Some(_) => Self::Closing,
        }
    }
}

impl From<u8> for TcpState {
    fn from(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for TcpState {
    /// Writes the state as `conntrack -L` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
            Self::Other(_) => "UNKNOWN",
        })
    }
}

impl Serialize for TcpState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TcpState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        let known = (0..=u8::MAX).map(Self::from).find(|state| state.to_string() == name);
        known.ok_or_else(|| serde::de::Error::custom("no state of a connection"))
    }
}
