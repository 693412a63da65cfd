//! The flows: stale ones are deleted, at once or when they had time to end.

use std::time::Duration;

use super::{Reconciler, Report};
use crate::kernel::conntrack::{Deletion, Flow, Pair, TcpState};
use crate::kernel::socket::NetlinkError;
use crate::kernel::{Kernel, KernelError};
use crate::summary::{Standing, Summary};

/// A SYN in flight may confirm an old flow just after it was swept; it is well through the stack after this.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
const SWEEPS: u32 = 50;
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

impl<K: Kernel> Reconciler<'_, K> {
    /// Waits until no flow is stale, or the time is over. Unanswered handshakes are forgotten at once.
    pub(super) fn drain(&mut self, summary: &Summary, time: Duration, report: &mut Report) -> Result<(), KernelError> {
        let begin = self.kernel.now();
        loop {
            let mut left = 0_u64;
            let forgotten = self.kernel.sweep(self.mark, &mut |flow| {
                let stale = summary.standing(flow.public, flow.backend) == Standing::Stale;
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

    /// Deletes stale flows and unanswered handshakes to backends that get no new connections, until a pass finds none.
    pub(super) fn sweep(
        &mut self,
        summary: &Summary,
        quick: Option<&[Pair]>,
        report: &mut Report,
    ) -> Result<(), KernelError> {
        let mut again = report.retired;
        let mut incomplete = false;
        for _ in 0..SWEEPS {
            let deletion = match quick {
                Some([]) => return Ok(()),
                Some(pairs) => {
                    let deletion = self.kernel.flush_pairs(self.mark, pairs)?;
                    report.flushed += deletion.deleted;
                    deletion
                }
                None => self.sweep_once(summary, report)?,
            };
            report.failed = deletion.failed;
            let nothing = deletion.deleted == 0 && deletion.gone == 0 && !deletion.incomplete;
            incomplete = deletion.incomplete;
            if deletion.failed > 0 || deletion.nobody || nothing && !again {
                return Ok(());
            }
            again = false;
            self.kernel.pause(SWEEP_PAUSE);
        }
        if incomplete { Err(lost()) } else { Ok(()) }
    }

    fn sweep_once(&mut self, summary: &Summary, report: &mut Report) -> Result<Deletion, KernelError> {
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

    /// Deletes all our flows; how many were deleted, and how many are left.
    pub(super) fn sweep_all(&mut self) -> Result<(u64, u64), KernelError> {
        let (mut flushed, mut failed, mut incomplete) = (0, 0, false);
        for _ in 0..SWEEPS {
            let deletion = self.kernel.sweep(self.mark, &mut |_| true)?;
            flushed += deletion.deleted;
            failed = deletion.failed;
            incomplete = deletion.incomplete;
            if deletion.deleted == 0 && !incomplete || failed > 0 {
                break;
            }
            self.kernel.pause(SWEEP_PAUSE);
        }
        if incomplete {
            return Err(lost());
        }
        Ok((flushed, failed))
    }
}

/// Pass after pass lost answers.
fn lost() -> KernelError {
    NetlinkError::Overrun.into()
}

fn is_condemned(summary: &Summary, flow: &Flow) -> bool {
    match summary.standing(flow.public, flow.backend) {
        Standing::Active => false,
        Standing::Draining => !flow.status.seen_reply(),
        Standing::Stale => true,
    }
}

/// Whether both ends have closed it.
fn is_over(flow: &Flow) -> bool {
    matches!(flow.tcp_state, Some(TcpState::TimeWait | TcpState::Close))
}
