//! Use of the results of jobs.
use std::time::{Duration, Instant};

use super::jobs::RunningJob;
use super::pending::NotInKernel;
use super::{Core, DaemonPhase, Now, RETRY, RETRY_MOST};
use crate::control::events::EventContent;
use crate::control::job::{JobOutcome, JobResult};
use crate::control::request::Refused;
use crate::reconcile::{ReconcileError, ReconcileReport};
use tcpgw_core::model::Endpoint;
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::words::count;

impl Core {
    /// Takes the result of a job.
    pub fn done(&mut self, outcome: JobOutcome, now: Now) {
        let Some(out) = self.out.take() else { return };
        if let Some(table) = outcome.table {
            self.view.owns_table = table.as_ref().is_some_and(|table| table.owner.is_some());
            self.table = table;
        }
        self.record_trouble = outcome.record_trouble;
        match outcome.done {
            JobResult::ContentsRead(found) => self.contents_read(found, now),
            JobResult::All(Ok(report)) => {
                self.due.all_flushed();
                self.problems.resolve(ProblemKind::StaleFlows);
                self.take_report(out, &report, outcome.at, outcome.took, now);
            }
            JobResult::Changed(Ok(Some(report))) => self.take_report(out, &report, outcome.at, outcome.took, now),
            JobResult::Flushed(flushed) => self.flushed(flushed, now),
            JobResult::Changed(Ok(None)) => {
                self.waiting.extend(out.pending_replies);
                self.known = Some(out.known);
                self.full = Some(out.cause);
            }
            JobResult::All(Err(error)) | JobResult::Changed(Err(error)) => self.failed(out, &error, now),
            JobResult::Checked(checked) => self.checked(checked, out, outcome.at, now),
            JobResult::Counted(counted) => {
                match counted {
                    Ok(counts) => {
                        let counts = counts
                            .into_iter()
                            .filter_map(|((service, at), flows)| Some(((service, Endpoint::try_from(at).ok()?), flows)))
                            .collect();
                        for note in self.membership.counted(&counts, now.instant) {
                            self.tell(&note, now);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "failed to count the flows of draining backends"),
                }
                self.due.counted(
                    !self.membership.draining_backends().is_empty(),
                    outcome.took,
                    now.instant,
                );
            }
            JobResult::Forgot(Err(error)) => {
                tracing::warn!(%error, "failed to forget handshakes that no backend answers");
            }
            JobResult::Tidied(Err(error)) => {
                tracing::warn!(%error, "failed to remove counters of removed services and backends");
                self.due.drift();
            }
            JobResult::Recorded => self.due.recorded(outcome.took),
            JobResult::Forgot(Ok(_)) | JobResult::Tidied(Ok(())) => {}
            JobResult::TornDown(torn, by) => self.torn_down(torn, by, now),
        }
        self.judge_record(now);
    }

    /// Takes the report of a change that the kernel has made.
    fn take_report(&mut self, out: RunningJob, report: &ReconcileReport, at: Instant, took: Duration, now: Now) {
        if report.transactions > 0 {
            let commit = took.saturating_sub(report.flushing);
            self.own.committed(commit, at.saturating_duration_since(out.known));
        }
        self.full = None;
        self.failures = 0;
        self.problems.resolve(ProblemKind::KernelRefuses);
        self.committed(out, report, at, now);
    }

    /// Reports flows of removed backends that could not be deleted, and schedules another attempt, at growing
    /// intervals.
    fn unflushed(&mut self, failed: u64, now: Now) {
        if failed == 0 {
            return;
        }
        let (flows, have) = if failed == 1 {
            ("flow", "has")
        } else {
            ("flows", "have")
        };
        let text = format!(
            "{failed} {flows} of backends that are gone could not be deleted, and {have} not ended: tried again every minute \
             at least"
        );
        self.report(ProblemKind::StaleFlows, text);
        self.due.flush_again(now.instant);
    }

    fn flushed(&mut self, flushed: Result<ReconcileReport, ReconcileError>, now: Now) {
        match flushed {
            Ok(report) if report.failed == 0 => {
                self.due.all_flushed();
                self.problems.resolve(ProblemKind::StaleFlows);
            }
            Ok(report) => self.unflushed(report.failed, now),
            Err(error) => {
                tracing::warn!(%error, "failed to delete flows of backends that are gone");
                self.due.flush_again(now.instant);
            }
        }
    }

    fn committed(&mut self, out: RunningJob, report: &ReconcileReport, at: Instant, now: Now) {
        for pending in out.pending_replies {
            self.answer(pending, Ok(report), now);
        }
        self.reach(out.reached, now);
        self.unflushed(report.failed, now);
        if let Some(why) = &report.rebuilt {
            tracing::warn!("the table was replaced: {why}");
        }
        if report.transactions > 0 {
            self.changed(out.is_of_docker, now);
        }
        let what = EventContent::Committed {
            cause: out.cause,
            elements: report.elements,
            transactions: report.transactions,
            flushed: report.flushed,
            forgotten: report.forgotten,
            micros: u64::try_from(at.saturating_duration_since(out.known).as_micros()).unwrap_or(u64::MAX),
        };
        if report.transactions > 0 || report.flushed > 0 {
            self.note(what, now);
        }
    }

    fn failed(&mut self, out: RunningJob, error: &ReconcileError, now: Now) {
        self.own.commit_failures += 1;
        let text = error.to_string();
        let known = self.problems.get(ProblemKind::KernelRefuses);
        if known.is_none_or(|known| known.message != text) {
            self.note(EventContent::Failed { error: text.clone() }, now);
        }
        self.report(ProblemKind::KernelRefuses, text.clone());
        for pending in out.pending_replies {
            self.answer(pending, Err(NotInKernel::Failed(&text)), now);
        }
        self.full = Some(out.cause);
        self.retry(now);
    }

    fn retry(&mut self, now: Now) {
        let pause = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MOST);
        self.failures = self.failures.saturating_add(1);
        self.due.retry = Some(now.instant + pause);
    }

    fn checked(
        &mut self,
        checked: Result<crate::reconcile::engine::TableCheck, ReconcileError>,
        out: RunningJob,
        at: Instant,
        now: Now,
    ) {
        match checked {
            Ok(checked) => {
                self.problems.resolve(ProblemKind::KernelRefuses);
                self.unflushed(checked.report.failed, now);
                if checked.drifted {
                    let what = format!(
                        "{} in {}{}",
                        count(checked.report.elements, "element"),
                        count(checked.report.transactions, "transaction"),
                        checked.report.rebuilt.map(|why| format!("; {why}")).unwrap_or_default()
                    );
                    self.note(EventContent::Repaired { what }, now);
                    self.due.record(now.instant);
                } else if checked.report.transactions > 0 {
                    // No other program has written: settings that depend on links could not be changed when the links
                    // did.
                    let out = RunningJob {
                        cause: "the gateway's links, addresses or timeouts have changed".into(),
                        ..out
                    };
                    self.committed(out, &checked.report, at, now);
                }
            }
            Err(error) => {
                let out = RunningJob {
                    cause: "a check that failed".into(),
                    ..out
                };
                self.failed(out, &error, now);
            }
        }
    }

    fn contents_read(&mut self, found: Result<crate::reconcile::engine::InitialContents, ReconcileError>, now: Now) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let text = error.to_string();
                self.note(EventContent::Failed { error: text.clone() }, now);
                for (_, reply) in std::mem::take(&mut self.teardown) {
                    // The client may have disconnected.
                    let _ = reply.send(Err(Refused::Failed(text.clone())));
                }
                self.report(ProblemKind::KernelRefuses, text);
                self.phase = DaemonPhase::Waiting;
                self.retry(now);
                return;
            }
        };
        self.started(found, now);
    }
}
