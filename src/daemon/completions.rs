//! Reports of completed handshakes while some are overdue, received in the thread that observes handshakes.

use std::time::{Duration, Instant};

use crate::control::handshakes::ReportedHandshakes;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::{Completion, CompletionMonitor};
use tcpgw_kernel::netlink::error::NetlinkError;

/// Number of messages between two observations from which receiving them pauses.
const MANY: usize = 10_000;
/// Duration of that pause, so that many connections cost little. A client that was served counts for a minute.
const REST: Duration = Duration::from_secs(7);

/// Receiver of completed handshakes between observations, as long as they are wanted.
#[derive(Debug, Default)]
pub(super) struct CompletionListener {
    listening: Option<Listening>,
    /// Time before which nothing is received.
    not_before: Option<Instant>,
    /// Whether the kernel reports no completed handshakes in this network namespace.
    is_unavailable: bool,
    /// Whether a failure to receive was logged.
    is_told: bool,
}

#[derive(Debug)]
struct Listening {
    monitor: CompletionMonitor,
    mark: FlowMark,
    /// Time after which the handshakes received next were completed.
    since: Instant,
}

impl CompletionListener {
    /// Passes the handshakes received since the last observation to `each`, with a time after which they were
    /// completed. Returns the completeness of these reports.
    pub(super) fn drain(&mut self, now: Instant, mut each: impl FnMut(Completion, Instant)) -> ReportedHandshakes {
        if self.is_unavailable {
            return ReportedHandshakes::None;
        }
        let Some(listening) = &mut self.listening else {
            return ReportedHandshakes::Part;
        };
        let since = std::mem::replace(&mut listening.since, now);
        match listening.monitor.drain(|completion| each(completion, since)) {
            Ok(messages) if messages >= MANY => {
                self.listening = None;
                self.not_before = Some(now + REST);
            }
            Ok(_) => {}
            Err(error) => {
                self.tell(&error);
                self.listening = None;
                return ReportedHandshakes::Part;
            }
        }
        ReportedHandshakes::All
    }

    /// Begins, continues or ends to receive reports until the next observation.
    pub(super) fn listen(&mut self, is_wanted: bool, mark: FlowMark, now: Instant) {
        if !is_wanted || self.listening.as_ref().is_some_and(|of| of.mark != mark) {
            self.listening = None;
        }
        if !is_wanted || self.listening.is_some() || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.is_unavailable = !CompletionMonitor::is_supported();
        match CompletionMonitor::open(mark) {
            Ok(_) if self.is_unavailable => {}
            Ok(monitor) => {
                self.listening = Some(Listening {
                    monitor,
                    mark,
                    since: now,
                });
            }
            Err(error) => {
                self.tell(&error);
                self.is_unavailable = true;
            }
        }
    }

    /// Logs the first failure to receive reports; without them, connections that end with a reset are noticed by
    /// chance only.
    fn tell(&mut self, error: &NetlinkError) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%error, "failed to receive reports of completed handshakes");
        }
    }
}
