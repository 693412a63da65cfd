//! Lines of the flow log.

use std::net::SocketAddr;

use serde::Serialize;

use super::TrafficView;
use tcpgw_core::ruleset::timeouts::{SYN_RECV_SECONDS, SYN_SENT_SECONDS, TIME_WAIT_SECONDS};
use tcpgw_kernel::conntrack::{Flow, TcpState};

/// End of a connection, as conntrack saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEnd {
    /// Both sides closed it.
    Closed,
    /// A reset ended it, or refused it.
    Reset,
    /// No backend answered the handshake.
    Unanswered,
    /// The client did not complete the handshake.
    Incomplete,
    /// Forgotten while it was open: it was silent for too long, or its flow was deleted.
    Open,
    /// The kernel does not report the state (before Linux 5.11).
    Unknown,
}

impl FlowEnd {
    fn of(flow: &Flow) -> Self {
        match flow.tcp_state {
            Some(TcpState::Close) => Self::Reset,
            Some(TcpState::TimeWait | TcpState::LastAck) => Self::Closed,
            _ if !flow.status.seen_reply() => Self::Unanswered,
            Some(TcpState::SynSent | TcpState::SynSent2 | TcpState::SynRecv) => Self::Incomplete,
            Some(TcpState::Established | TcpState::FinWait | TcpState::CloseWait) => Self::Open,
            Some(TcpState::None | TcpState::Other(_)) | None => Self::Unknown,
        }
    }

    /// Returns the time in seconds for which conntrack remembers a connection that ended in this way.
    const fn remembered(self) -> u32 {
        match self {
            Self::Closed => TIME_WAIT_SECONDS,
            Self::Unanswered => SYN_SENT_SECONDS,
            Self::Incomplete => SYN_RECV_SECONDS,
            Self::Reset | Self::Open | Self::Unknown => 0,
        }
    }
}

/// A line of the flow log: one connection, after conntrack has forgotten it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowRecord {
    /// Address of the client.
    pub client: SocketAddr,
    /// Name of the service; `None`: it is not known.
    pub service: Option<Box<str>>,
    /// Address that the client connected to.
    pub public: SocketAddr,
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Time of its first packet, in seconds since the Unix epoch; `None`: conntrack does not note it.
    pub start: Option<f64>,
    /// Time from its first to its last packet. conntrack may notice the end late, by up to a minute.
    pub seconds: Option<f64>,
    /// Traffic to the backend; `None`: conntrack does not account it.
    pub to_backend: Option<TrafficView>,
    /// Traffic from the backend.
    pub from_backend: Option<TrafficView>,
    /// End of the connection.
    pub ended: FlowEnd,
}

impl FlowRecord {
    /// Creates the record of a flow of that service. `stopped`: the time at which conntrack forgot it, in nanoseconds
    /// since the Unix epoch.
    pub fn new(flow: &Flow, service: Option<Box<str>>, stopped: Option<u64>) -> Self {
        let ended = FlowEnd::of(flow);
        let times = flow.started.zip(stopped);
        let lasted = times.map(|(started, stopped)| seconds(stopped.saturating_sub(started)));
        Self {
            client: flow.client,
            service,
            public: flow.public,
            backend: flow.backend,
            start: flow.started.map(seconds),
            seconds: lasted.map(|lasted| (lasted - f64::from(ended.remembered())).max(0.0)),
            to_backend: flow.counters.map(|counters| counters.to.into()),
            from_backend: flow.counters.map(|counters| counters.from.into()),
            ended,
        }
    }
}

/// Returns nanoseconds as seconds, in milliseconds.
fn seconds(nanoseconds: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in 53 bits")]
    let milliseconds = (nanoseconds / 1_000_000) as f64;
    milliseconds / 1000.0
}
