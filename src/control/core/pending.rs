//! Accepted orders that wait for the kernel, and their answers.
use std::time::{Duration, Instant};

use super::{Core, Now};
use crate::addon::AddonOutcome;
use crate::apply_report::ApplyReport;
use crate::control::name::Name;
use crate::control::reply::ReplySender;
use crate::control::request::{AddonRefused, Applied, Edited, EditedBatch, Refused, Resumed};
use crate::reconcile::ReconcileReport;
use tcpgw_core::diff::ChangeCounts;

/// A client that waits for a change of the kernel.
pub(super) struct PendingReply {
    pub(super) wants: ReplyKind,
    pub(super) since: Instant,
}

/// Kind of the answer to an order that was accepted and written.
pub(super) enum ReplyKind {
    Apply {
        reply: ReplySender<Result<Applied, Refused>>,
        services: ChangeCounts,
        backends: ChangeCounts,
        warnings: Vec<String>,
    },
    Edit(ReplySender<Result<Edited, Refused>>, Box<Edited>),
    Batch(ReplySender<Result<EditedBatch, Refused>>, Box<EditedBatch>),
    /// A deploy was taken back.
    Restored {
        id: u64,
        service: Name,
        reason: String,
        reply: ReplySender<Result<u64, Refused>>,
    },
    Pause(ReplySender<Result<Vec<String>, Refused>>),
    Resume(ReplySender<Result<Resumed, Refused>>),
    /// A request about a resource. It is answered as done even if the kernel fails, since it is stored and the kernel
    /// is tried again.
    Addon(ReplySender<Result<AddonOutcome, AddonRefused>>, Box<AddonOutcome>),
}

/// Reason why the kernel does not hold a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum NotInKernel<'a> {
    /// The change failed, and is tried again.
    Failed(&'a str),
    /// A teardown came first.
    TornDown(&'a str),
    /// The daemon ends first.
    Ending,
}

impl From<NotInKernel<'_>> for Refused {
    fn from(unheld: NotInKernel<'_>) -> Self {
        Self::Failed(match unheld {
            NotInKernel::Failed(error) => {
                format!("accepted, but not in effect in the kernel yet; the daemon tries again: {error}")
            }
            NotInKernel::TornDown(why) => format!("accepted, but not in effect in the kernel: {why}"),
            NotInKernel::Ending => {
                "accepted, but not in effect in the kernel yet: the daemon is ending, and the next one puts it into effect".into()
            }
        })
    }
}

/// Returns the answer to an apply.
pub(super) fn applied(report: &ReconcileReport, draining: usize, warnings: Vec<String>, time: Duration) -> Applied {
    Applied {
        report: ApplyReport::new(report, time, draining).into(),
        warnings,
    }
}

impl Core {
    /// Answers a client after the kernel was changed, or failed to be.
    pub(super) fn answer(
        &mut self,
        pending: PendingReply,
        outcome: Result<&ReconcileReport, NotInKernel<'_>>,
        now: Now,
    ) {
        let PendingReply { wants, since } = pending;
        let outcome = outcome.map_err(Refused::from);
        // The client may have disconnected.
        match wants {
            ReplyKind::Apply {
                reply,
                services,
                backends,
                warnings,
            } => {
                let time = now.instant.saturating_duration_since(since);
                let draining = self.membership.draining_backends().len();
                let done = outcome.map(|report| {
                    let report = ReconcileReport {
                        services,
                        backends,
                        ..report.clone()
                    };
                    applied(&report, draining, warnings, time)
                });
                drop(reply.send(done));
            }
            ReplyKind::Edit(reply, edited) => drop(reply.send(outcome.map(|_| *edited))),
            ReplyKind::Batch(reply, edited) => drop(reply.send(outcome.map(|_| *edited))),
            ReplyKind::Restored {
                id,
                service,
                reason,
                reply,
            } => {
                self.tell_deploy(id, &service, "undone", Some(reason), now);
                drop(reply.send(outcome.map(|_| id)));
            }
            ReplyKind::Pause(reply) => drop(reply.send(outcome.map(|_| self.unrecorded_order()))),
            ReplyKind::Resume(reply) => {
                let warnings = self.unrecorded_order();
                let resumed = |_: &ReconcileReport| Resumed {
                    resumed: true,
                    warnings,
                };
                drop(reply.send(outcome.map(resumed)));
            }
            ReplyKind::Addon(reply, done) => drop(reply.send(Ok(*done))),
        }
    }
}
