//! Deletion of stale flows, at once or after the drain time.

use std::time::Duration;

use super::reconciler::Reconciler;
use super::report::ReconcileReport;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{Deletion, Flow, Pair, TcpState};
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::{InFlight, Kernel, KernelError};

const SWEEPS: u32 = 50;
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

impl<K: Kernel> Reconciler<'_, K> {
    /// Waits until no flow is stale, or the time is over. Unanswered handshakes are forgotten at once.
    pub(super) fn drain(
        &mut self,
        summary: &Summary,
        time: Duration,
        report: &mut ReconcileReport,
    ) -> Result<(), KernelError> {
        let begin = self.kernel.now();
        loop {
            let mut left = 0_u64;
            let forgotten = self.kernel.sweep(self.mark, &mut |flow| {
                let stale = summary.verdict(flow.public, flow.backend) == FlowVerdict::Stale;
                left += u64::from(stale && flow.status.seen_reply() && !is_over(flow));
                !flow.status.seen_reply() && is_condemned(summary, flow)
            })?;
            report.forgotten += forgotten.deleted;
            let waited = self.kernel.now() - begin;
            if left == 0 && !forgotten.incomplete || waited >= time {
                return Ok(());
            }
            tracing::debug!(flows = left, "draining");
            self.kernel.pause(DRAIN_PAUSE.min(time.saturating_sub(waited)));
        }
    }

    /// Deletes stale flows and unanswered handshakes to backends that get no new connections, until there can be none.
    ///
    /// A SYN on its way may confirm an old flow after a sweep went through. Where the kernel tells that all are through,
    /// one sweep is enough; a second one takes as long as the first to find nothing (0.4 s where there are a million).
    pub(super) fn sweep(
        &mut self,
        summary: &Summary,
        quick: Option<&[Pair]>,
        changed: bool,
        report: &mut ReconcileReport,
    ) -> Result<(), KernelError> {
        if quick.is_some_and(<[Pair]>::is_empty) {
            return Ok(());
        }
        self.until_none(changed, |this| {
            let deletion = match quick {
                Some(pairs) => {
                    let deletion = this.kernel.flush_pairs(this.mark, pairs)?;
                    report.flushed += deletion.deleted;
                    deletion
                }
                None => this.sweep_once(summary, report)?,
            };
            report.failed = deletion.failed;
            Ok(deletion)
        })
    }

    /// Deletes all flows of tcpgw. Returns how many were deleted, and how many are left.
    pub(super) fn sweep_all(&mut self) -> Result<(u64, u64), KernelError> {
        let (mut flushed, mut failed) = (0, 0);
        self.until_none(true, |this| {
            let deletion = this.kernel.sweep(this.mark, &mut |_| true)?;
            flushed += deletion.deleted;
            failed = deletion.failed;
            Ok(deletion)
        })?;
        Ok((flushed, failed))
    }

    /// Repeats `pass` until it was run after the last packet that met the rules as they were before the change has left
    /// the stack, or where that is not known, until it finds nothing.
    pub(super) fn until_none(
        &mut self,
        changed: bool,
        mut pass: impl FnMut(&mut Self) -> Result<Deletion, KernelError>,
    ) -> Result<(), KernelError> {
        let mut again = changed;
        let mut incomplete = false;
        let mut in_flight = if changed {
            self.kernel.settle()?
        } else {
            InFlight::Unknown
        };
        for _ in 0..SWEEPS {
            if in_flight == InFlight::NoFlows {
                return Ok(());
            }
            let deletion = pass(self)?;
            incomplete = deletion.incomplete;
            let nothing = deletion.deleted == 0 && deletion.gone == 0;
            let through = in_flight == InFlight::Through || nothing && !again;
            if deletion.failed > 0 || through && !incomplete {
                return Ok(());
            }
            again = false;
            in_flight = self.kernel.settle()?;
        }
        if incomplete { Err(lost()) } else { Ok(()) }
    }

    fn sweep_once(&mut self, summary: &Summary, report: &mut ReconcileReport) -> Result<Deletion, KernelError> {
        let (mut established, mut unanswered) = (0_u64, 0);
        let deletion = self.kernel.sweep(self.mark, &mut |flow| {
            let condemned = is_condemned(summary, flow);
            if condemned && flow.status.seen_reply() {
                established += 1;
            } else if condemned {
                unanswered += 1;
            }
            condemned
        })?;
        report.flushed += established.saturating_sub(deletion.failed + deletion.gone);
        report.forgotten += unanswered;
        Ok(deletion)
    }
}

/// Returns the error for passes that all lost answers.
fn lost() -> KernelError {
    NetlinkError::Overrun.into()
}

fn is_condemned(summary: &Summary, flow: &Flow) -> bool {
    match summary.verdict(flow.public, flow.backend) {
        FlowVerdict::Active => false,
        FlowVerdict::Draining => !flow.status.seen_reply(),
        FlowVerdict::Stale => true,
    }
}

/// Returns whether both ends have closed the connection.
pub(super) fn is_over(flow: &Flow) -> bool {
    matches!(flow.tcp_state, Some(TcpState::TimeWait | TcpState::Close))
}
