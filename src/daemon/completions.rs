//! Listening for completed handshakes while some are overdue, in the thread that looks at them.

use std::time::{Duration, Instant};

use crate::control::handshakes::Hearing;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::{Completion, CompletionMonitor};
use tcpgw_kernel::netlink::socket::NetlinkError;

/// Messages of the kernel, between two looks, that are many: it is listened less often then.
const MANY: usize = 10_000;
/// After a look with many messages nobody listens for so long, so that they cost little where connections are many. Whoever is
/// served is seen for a minute.
const REST: Duration = Duration::from_secs(7);

/// Hears of completed handshakes between looks, as long as that is wanted.
#[derive(Debug, Default)]
pub(super) struct CompletionListener {
    listening: Option<Listening>,
    /// It is not listened before that.
    not_before: Option<Instant>,
    /// Whether the kernel tells nothing in this network namespace.
    is_deaf: bool,
    /// Whether it was told that listening fails.
    is_told: bool,
}

#[derive(Debug)]
struct Listening {
    monitor: CompletionMonitor,
    mark: FlowMark,
    /// What is heard next was completed after that.
    since: Instant,
}

impl CompletionListener {
    /// Shows what was heard since the last look, each with a time after which it was completed. Returns how it was listened.
    pub(super) fn drain(&mut self, now: Instant, mut each: impl FnMut(Completion, Instant)) -> Hearing {
        if self.is_deaf {
            return Hearing::None;
        }
        let Some(listening) = &mut self.listening else {
            return Hearing::Part;
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
                return Hearing::Part;
            }
        }
        Hearing::All
    }

    /// Goes on to listen, begins to, or ends it, as is wanted until the next look.
    pub(super) fn listen(&mut self, is_wanted: bool, mark: FlowMark, now: Instant) {
        if !is_wanted || self.listening.as_ref().is_some_and(|of| of.mark != mark) {
            self.listening = None;
        }
        if !is_wanted || self.listening.is_some() || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.is_deaf = !CompletionMonitor::is_told();
        match CompletionMonitor::open(mark) {
            Ok(_) if self.is_deaf => {}
            Ok(monitor) => {
                self.listening = Some(Listening {
                    monitor,
                    mark,
                    since: now,
                });
            }
            Err(error) => {
                self.tell(&error);
                self.is_deaf = true;
            }
        }
    }

    /// Without it, connections that end with a reset are seen by chance only.
    fn tell(&mut self, error: &NetlinkError) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%error, "failed to hear of completed handshakes");
        }
    }
}
