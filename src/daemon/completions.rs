//! Listening for completed handshakes while some are overdue, in the thread that looks at them.

use std::time::Instant;

use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::{Completion, CompletionMonitor};
use tcpgw_kernel::netlink::socket::NetlinkError;

/// Messages of the kernel, between two looks, that are many: it is listened less often then.
const MANY: usize = 10_000;
/// Looks that are passed over after one with many messages, so that they cost little where connections are many. Whoever is served
/// is seen for a minute.
const PASSED_OVER: u32 = 8;

/// Hears of completed handshakes between looks, as long as that is wanted.
#[derive(Debug, Default)]
pub(super) struct CompletionListener {
    listening: Option<Listening>,
    passed_over: u32,
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
    /// Shows what was heard since the last look, each with a time after which it was completed.
    pub(super) fn drain(&mut self, now: Instant, mut each: impl FnMut(Completion, Instant)) {
        let Some(listening) = &mut self.listening else { return };
        let since = std::mem::replace(&mut listening.since, now);
        match listening.monitor.drain(|completion| each(completion, since)) {
            Ok(messages) if messages >= MANY => {
                self.listening = None;
                self.passed_over = PASSED_OVER;
            }
            Ok(_) => {}
            Err(error) => {
                self.tell(&error);
                self.listening = None;
            }
        }
    }

    /// Goes on to listen, begins to, or ends it, as is wanted until the next look.
    pub(super) fn listen(&mut self, is_wanted: bool, mark: FlowMark, now: Instant) {
        self.passed_over = self.passed_over.saturating_sub(1);
        if !is_wanted || self.listening.as_ref().is_some_and(|of| of.mark != mark) {
            self.listening = None;
        }
        if !is_wanted || self.listening.is_some() || self.passed_over > 0 {
            return;
        }
        match CompletionMonitor::open(mark) {
            Ok(monitor) => {
                self.listening = Some(Listening {
                    monitor,
                    mark,
                    since: now,
                });
            }
            Err(error) => self.tell(&error),
        }
    }

    /// Without it, connections that end with a reset are seen by chance only.
    fn tell(&mut self, error: &NetlinkError) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%error, "failed to hear of completed handshakes");
        }
    }
}
