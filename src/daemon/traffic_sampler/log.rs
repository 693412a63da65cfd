//! The sampler's part in the flow log: ended flows are added, and lost lines are told.

use std::thread;
use std::time::{Duration, Instant};

use super::TrafficSampler;
use crate::daemon::flow_log::FlowLog;
use crate::locked::locked;

/// Time for which lost lines of the flow log are a problem.
const TOLD: Duration = Duration::from_secs(600);
/// Time that the flow log may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Sysctl that enables reports, of the reader's network namespace.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

impl TrafficSampler {
    pub(super) fn start_log(&mut self) {
        let Some(target) = self.settings.flow_log.clone() else {
            return;
        };
        match FlowLog::start(target) {
            Ok(log) => self.log = Some(log),
            Err(error) => self.tell("failed to start the thread of the flow log", &error.to_string()),
        }
    }

    /// Ends the flow log. Its last lines are written, unless that takes too long.
    pub(super) fn end_log(&mut self) {
        self.lost = (0, None);
        let Some((log, thread)) = self.log.take() else { return };
        drop(log);
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < LAST_LINES {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells the main loop why connections are missing in the flow log, if they are.
    pub(super) fn tell_trouble(&mut self) {
        let trouble = self.log.as_ref().and_then(|(log, _)| {
            let (missing, trouble) = log.state();
            if missing.all() > self.lost.0 {
                self.lost = (missing.all(), Some(Instant::now()));
            }
            let are_off = || std::fs::read_to_string(EVENTS).is_ok_and(|value| value.trim() == "0");
            let is_recent = self.lost.1.is_some_and(|at| at.elapsed() < TOLD);
            match trouble {
                Some(why) => Some(format!("the flow log cannot be written: {why}")),
                None if are_off() => Some(
                    "the kernel reports no ended connections: sysctl -w net.netfilter.nf_conntrack_events=1".into(),
                ),
                None => is_recent.then(|| missing.to_string()),
            }
        });
        *locked(&self.trouble) = trouble;
    }
}
