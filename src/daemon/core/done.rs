//! What follows from a job that was done, or that failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Core, Now, Out, Phase, RETRY, RETRY_MOST, Unheld, take};
use crate::daemon::adopt;
use crate::daemon::ask::Refused;
use crate::daemon::events::What;
use crate::daemon::leavers::TimeLeft;
use crate::daemon::worker::{Done, Outcome};
use crate::model::{Endpoint, Service, State};
use crate::problem::Kind;
use crate::reconcile::{ReconcileError, Report};
use crate::words::count;

impl Core {
    /// A job was done.
    pub fn done(&mut self, outcome: Outcome, now: Now) {
        let Some(out) = self.out.take() else { return };
        if let Some(table) = outcome.table {
            self.view.owns_table = table.as_ref().is_some_and(|table| table.owner.is_some());
            self.table = table;
        }
        match outcome.done {
            Done::Looked(found) => self.looked(found, now),
            Done::All(Ok(report)) => {
                self.due.all_flushed();
                self.problems.resolve(Kind::StaleFlows);
                self.told(out, &report, outcome.at, now);
            }
            Done::Changed(Ok(Some(report))) => self.told(out, &report, outcome.at, now),
            Done::Flushed(flushed) => self.flushed(flushed, now),
            Done::Changed(Ok(None)) => {
                self.waiting.extend(out.waiters);
                self.known = Some(out.known);
                self.full = Some(out.cause);
            }
            Done::All(Err(error)) | Done::Changed(Err(error)) => self.failed(out, &error, now),
            Done::Checked(checked) => self.checked(checked, out, now),
            Done::Counted(Ok(counts)) => {
                let counts = counts
                    .into_iter()
                    .filter_map(|((service, at), flows)| Some(((service, Endpoint::try_from(at).ok()?), flows)))
                    .collect();
                for note in self.roster.counted(&counts, now.instant) {
                    self.tell(&note, now);
                }
                self.due
                    .counted(!self.roster.leavers().is_empty(), outcome.took, now.instant);
            }
            Done::Counted(Err(error)) => {
                tracing::warn!(%error, "failed to count the flows of backends that leave");
                self.due
                    .counted(!self.roster.leavers().is_empty(), outcome.took, now.instant);
            }
            Done::Forgot(Err(error)) => {
                tracing::warn!(%error, "failed to forget handshakes that nobody answers");
            }
            Done::Tidied(Err(error)) => {
                tracing::warn!(%error, "failed to remove the counters of what is gone");
                self.due.drift();
            }
            Done::Recorded => self.due.recorded(outcome.took),
            Done::Forgot(Ok(_)) | Done::Tidied(Ok(())) => {}
            Done::TornDown(torn) => self.torn_down(torn, now),
        }
    }

    /// The kernel has taken a change.
    fn told(&mut self, out: Out, report: &Report, at: Instant, now: Now) {
        self.full = None;
        self.failures = 0;
        self.problems.resolve(Kind::KernelRefuses);
        self.committed(out, report, at, now);
    }

    /// So many stale flows could not be deleted: only they are tried again, ever more rarely.
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
        self.report(Kind::StaleFlows, text);
        self.due.flush_again(now.instant);
    }

    fn flushed(&mut self, flushed: Result<Report, ReconcileError>, now: Now) {
        match flushed {
            Ok(report) if report.failed == 0 => {
                self.due.all_flushed();
                self.problems.resolve(Kind::StaleFlows);
            }
            Ok(report) => self.unflushed(report.failed, now),
            Err(error) => {
                tracing::warn!(%error, "failed to delete flows of backends that are gone");
                self.due.flush_again(now.instant);
            }
        }
    }

    fn committed(&mut self, out: Out, report: &Report, at: Instant, now: Now) {
        for waiter in out.waiters {
            self.answer(waiter, Ok(report), now);
        }
        self.reach(out.reached, now);
        self.unflushed(report.failed, now);
        if let Some(why) = &report.rebuilt {
            tracing::warn!("the table was replaced: {why}");
        }
        let what = What::Committed {
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

    fn failed(&mut self, out: Out, error: &ReconcileError, now: Now) {
        let text = error.to_string();
        let known = self.problems.get(Kind::KernelRefuses);
        if known.is_none_or(|known| known.message != text) {
            self.note(What::Failed { error: text.clone() }, now);
        }
        self.report(Kind::KernelRefuses, text.clone());
        for waiter in out.waiters {
            self.answer(waiter, Err(Unheld::Failed(&text)), now);
        }
        self.full = Some(out.cause);
        self.retry(now);
    }

    fn retry(&mut self, now: Now) {
        let pause = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MOST);
        self.failures = self.failures.saturating_add(1);
        self.due.retry = Some(now.instant + pause);
    }

    fn checked(&mut self, checked: Result<crate::reconcile::engine::Checked, ReconcileError>, out: Out, now: Now) {
        match checked {
            Ok(checked) => {
                self.problems.resolve(Kind::KernelRefuses);
                self.unflushed(checked.report.failed, now);
                if checked.drifted || checked.report.transactions > 0 {
                    let what = format!(
                        "{} in {}{}",
                        count(checked.report.elements, "element"),
                        count(checked.report.transactions, "transaction"),
                        checked.report.rebuilt.map(|why| format!("; {why}")).unwrap_or_default()
                    );
                    self.note(What::Repaired { what }, now);
                    self.due.record(now.instant);
                }
            }
            Err(error) => {
                let out = Out {
                    cause: "a check that failed".into(),
                    ..out
                };
                self.failed(out, &error, now);
            }
        }
    }

    fn looked(&mut self, found: Result<crate::reconcile::engine::Found, ReconcileError>, now: Now) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let text = error.to_string();
                self.note(What::Failed { error: text.clone() }, now);
                for reply in std::mem::take(&mut self.teardown) {
                    // Whoever asked may be gone.
                    let _ = reply.send(Err(Refused::Failed(text.clone())));
                }
                self.report(Kind::KernelRefuses, text);
                self.phase = Phase::Waiting;
                self.retry(now);
                return;
            }
        };
        let mut services = adopt::services(&found.summary);
        self.complete(&mut services);
        let backends: usize = services.iter().map(|service| service.backends.len()).sum();
        let adopted = if services.is_empty() {
            "nothing".into()
        } else {
            format!(
                "{} with {}",
                count(services.len(), "service"),
                count(backends, "backend")
            )
        };
        let left = found.drains.into_iter().filter_map(|deadline| {
            let endpoint = Endpoint::try_from(deadline.backend).ok()?;
            let time = TimeLeft {
                left: deadline.left(now.boot),
                whole: deadline.time,
            };
            Some(((endpoint, deadline.service.clone()), time))
        });
        self.doubt_empty_file(&services, now);
        // A file that was never good says nothing: what there is stays.
        if self.file.is_none() && self.settings.state.is_some() {
            let kept = adopt::beside(&services, self.api.services());
            self.file = State::new(kept).ok().map(Arc::new);
        }
        if self.desk.lost {
            let file = self.file.clone().unwrap_or_default();
            self.api
                .presume(adopt::beside(&services, file.services.iter()).into_iter());
        }
        self.roster.adopt(services, &left.collect(), now.instant);
        self.phase = Phase::Running;
        self.full = Some("start".into());
        self.problems.resolve(Kind::KernelRefuses);
        self.want(now.instant);
        self.probe(now.instant);
        let version = env!("CARGO_PKG_VERSION");
        self.note(What::Started { version, adopted }, now);
    }

    /// What the kernel does not know of a service is as those say who want it: a drain that the record does not know yet
    /// has the time that its service gives.
    fn complete(&self, services: &mut [Service]) {
        let wanted = self.desired().map(|service| (&*service.name, service));
        let wanted: BTreeMap<&str, &Arc<Service>> = wanted.collect();
        for service in services {
            if let Some(wanted) = wanted.get(&*service.name) {
                service.drain_timeout = wanted.drain_timeout;
                service.health = wanted.health;
                service.labels.clone_from(&wanted.labels);
            }
        }
    }

    /// Nothing was known of what is served when the file said its first word: a broken template must not wipe a gateway.
    fn doubt_empty_file(&mut self, found: &[Service], now: Now) {
        let lost = adopt::beside(found, self.api.services()).len();
        let is_empty = self.file.as_ref().is_some_and(|file| file.services.is_empty());
        if is_empty && lost > 0 && !self.settings.allow_empty {
            self.file = None;
            self.reject("file", vec![take::empty(lost)], now);
        }
    }
}
