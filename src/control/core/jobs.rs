//! Selection of the next job for the kernel, and the further effects of a change.
use std::collections::BTreeSet;
use std::time::Instant;

use super::deploys::DeployProgress;
use super::pending::PendingReply;
use super::{Core, DaemonPhase, GRACE, Now};
use crate::control::events::EventContent;
use crate::control::job::Job;
use crate::control::membership::{BackendVerdict, MembershipChange, Note, Probing};
use crate::control::request::Peer;
use crate::reconcile::ReconcileReport;
use crate::record::{ApplyNote, TeardownNote};
use tcpgw_core::model::Endpoint;
use tcpgw_core::owner::Owner;
use tcpgw_kernel::conntrack::Pair;

/// The job that runs.
pub(super) struct RunningJob {
    pub(super) pending_replies: Vec<PendingReply>,
    /// Progress of deploys once the job is done.
    pub(super) reached: Vec<(u64, DeployProgress)>,
    pub(super) cause: String,
    pub(super) known: Instant,
    /// Whether Docker's containers asked for it last, and neither the state file nor the API.
    pub(super) is_of_docker: bool,
}

impl RunningJob {
    /// Returns a job without clients that wait for it.
    fn errand(is_of_docker: bool, now: Now) -> Self {
        Self {
            pending_replies: Vec::new(),
            reached: Vec::new(),
            cause: String::new(),
            known: now.instant,
            is_of_docker,
        }
    }
}

impl Core {
    /// Returns the time at which [`Self::next_job`] has work without further input.
    pub fn wakes_at(&self) -> Option<Instant> {
        let to_remember = self.due.next_remember().filter(|_| self.knows_what_to_remember());
        let of_store = [self.deploys.next_time(), self.due.store, to_remember, self.amends_at()];
        let of_store = of_store.into_iter().flatten().filter(|_| self.order_queue.is_idle());
        let of_kernel = match self.phase {
            _ if self.out.is_some() => None,
            DaemonPhase::Waiting => self.due.retry,
            DaemonPhase::Reading => None,
            DaemonPhase::TornDown => self.due.next_record().filter(|_| self.is_teardown_unwritten()),
            DaemonPhase::Running if self.held_back.awaits_first_judgement() => None,
            DaemonPhase::Running => {
                let times = [self.membership.next_deadline(), self.due.next()];
                times.into_iter().flatten().min()
            }
        };
        let of_problems = self.judgement.next_time();
        let of_teardown = self.due.teardown.filter(|_| self.out.is_none());
        of_store.chain(of_kernel).chain(of_problems).chain(of_teardown).min()
    }

    /// Returns the next job for the kernel; `None` while a job runs, or when there is nothing to do.
    pub fn next_job(&mut self, now: Now) -> Option<Job> {
        self.tell_problems(now);
        if self.out.is_some() {
            return None;
        }
        let job = self.choose(now)?;
        // Changes have set their replies already.
        let is_of_docker = self.docker.has_changed_last;
        self.out.get_or_insert_with(|| RunningJob::errand(is_of_docker, now));
        Some(job)
    }

    fn choose(&mut self, now: Now) -> Option<Job> {
        let is_early = self.due.retry.is_some_and(|at| at > now.instant);
        match self.phase {
            DaemonPhase::Waiting if self.ready && !is_early => {
                self.due.retry = None;
                self.phase = DaemonPhase::Reading;
                return Some(Job::ReadContents(self.wanted_summary()));
            }
            DaemonPhase::Waiting | DaemonPhase::Reading => return None,
            DaemonPhase::TornDown | DaemonPhase::Running => {}
        }
        if let Some((by, _)) = self.teardown.first() {
            let by = *by;
            if self.remembers_first(now.instant) {
                return None;
            }
            return Some(Job::Teardown(self.teardown_by(by, now)));
        }
        if self.phase == DaemonPhase::TornDown {
            return self.note_teardown_again(now);
        }
        if self.held_back.awaits_first_judgement() {
            return None;
        }
        for service in self.membership.tick(now.instant) {
            self.unrecorded.insert(service.clone());
            let service = service.into();
            self.note(
                EventContent::Resumed {
                    service,
                    reason: "time",
                    uid: None,
                    through: None,
                },
                now,
            );
        }
        if self.full.is_some() {
            return if is_early { None } else { Some(self.run_in_full(now)) };
        }
        if self.due.take_late_record(now.instant) {
            return Some(Job::Record(self.membership.serving().clone(), self.memo(now)));
        }
        self.change(now).or_else(|| self.due_job(now))
    }

    fn run_in_full(&mut self, now: Now) -> Job {
        self.due.retry = None;
        let change = self.settle(now);
        self.after(&change, now);
        self.cause = self.full.clone().unwrap_or_default();
        self.take_along(self.docker.has_changed_last, now);
        self.unrecorded.clear();
        Job::All(self.membership.serving().clone(), self.memo(now))
    }

    pub(super) fn change(&mut self, now: Now) -> Option<Job> {
        let is_fresh = self.deploys.take_fresh();
        if !self.membership.is_dirty() && self.waiting.is_empty() && self.unrecorded.is_empty() && !is_fresh {
            self.known = None;
            return None;
        }
        let change = self.settle(now);
        self.after(&change, now);
        let memo = self.change_memo(&change, now);
        if change.is_empty() && memo.services.is_empty() {
            for pending in std::mem::take(&mut self.waiting) {
                self.answer(pending, Ok(&ReconcileReport::default()), now);
            }
            self.reach(self.deploys.reached(&self.membership), now);
            self.known = None;
            self.cause.clear();
            return None;
        }
        let is_of_docker = if self.cause.is_empty() {
            "probes and drains".clone_into(&mut self.cause);
            self.is_of_docker(&change)
        } else {
            self.docker.has_changed_last
        };
        self.take_along(is_of_docker, now);
        Some(Job::Change(change, memo))
    }

    /// Returns whether a change that nobody has asked for now concerns Docker's containers: what others have ordered since for other
    /// services is not its origin.
    fn is_of_docker(&self, change: &MembershipChange) -> bool {
        let mut services = change.old.iter().chain(&change.new).map(|service| &service.name);
        match services.next().map(|name| self.docker.get(name).is_some()) {
            Some(is_first) if services.all(|name| self.docker.get(name).is_some() == is_first) => is_first,
            _ => self.docker.has_changed_last,
        }
    }

    /// Assigns all pending replies to the next job.
    fn take_along(&mut self, is_of_docker: bool, now: Now) {
        self.deploys.take_fresh();
        self.out = Some(RunningJob {
            pending_replies: std::mem::take(&mut self.waiting),
            reached: self.deploys.reached(&self.membership),
            cause: std::mem::take(&mut self.cause),
            known: self.known.take().unwrap_or(now.instant),
            is_of_docker,
        });
    }

    fn settle(&mut self, now: Now) -> MembershipChange {
        let health = &self.health;
        let verdict = |endpoint: Endpoint| {
            let view = health.get(endpoint.into());
            let nothing = BackendVerdict {
                open: true,
                ..BackendVerdict::default()
            };
            view.map_or(nothing, |view| BackendVerdict {
                good: view.in_balance,
                dead: view.dead,
                open: matches!(view.state, tcpgw_core::health::EndpointState::Unknown { .. }),
                failed: view.failed,
                answered: view.answered,
            })
        };
        let change = self.membership.settle(&verdict, now.instant);
        self.probe(now.instant);
        self.judgement.outdate();
        change
    }

    /// Updates the probes to those that the membership asks for.
    pub(super) fn probe(&mut self, now: Instant) {
        for (endpoint, probing) in self.membership.take_probes() {
            let forgets = match probing {
                Probing::With(_) | Probing::Again(_) => false,
                Probing::Anew(_) => true,
                Probing::Stop => !self.deploys.asks(endpoint),
            };
            if forgets {
                self.since.remove(&endpoint.into());
                self.health.remove(endpoint.into());
            }
            let is_again = matches!(probing, Probing::Again(_));
            if let Probing::With(params) | Probing::Again(params) | Probing::Anew(params) = probing {
                let presumed = !forgets && self.membership.is_balanced(endpoint);
                let target = tcpgw_core::health::ProbeTarget { params, presumed };
                self.health.upsert(endpoint.into(), target, now);
            }
            if is_again {
                self.health.probe_now(endpoint.into(), now);
            }
        }
    }

    /// Handles the effects of a change besides the job: events and timers.
    pub(super) fn after(&mut self, change: &MembershipChange, now: Now) {
        for note in &change.notes {
            self.tell(note, now);
        }
        if !change.unbalanced.is_empty() {
            self.due.forget(change.unbalanced.iter().copied(), now.instant + GRACE);
        }
        if !change.is_empty() {
            self.due.record(now.instant);
            self.due.tidy(now.instant);
        }
        self.due
            .drains(!self.membership.draining_backends().is_empty(), now.instant);
    }

    pub(super) fn tell(&mut self, note: &Note, now: Now) {
        let what = match note.clone() {
            Note::Draining(service, at, time) => EventContent::Draining {
                service: service.into(),
                backend: at.into(),
                seconds: time.as_secs(),
            },
            Note::Back(service, at) => EventContent::Back {
                service: service.into(),
                backend: at.into(),
            },
            Note::Retired(service, at, over, flows) => EventContent::Retired {
                service: service.into(),
                backend: at.into(),
                reason: over.name(),
                flows,
            },
            Note::NoneGood(service, kept) => EventContent::NoneHealthy {
                service: service.into(),
                kept,
            },
        };
        self.note(what, now);
    }

    fn teardown_by(&self, by: Peer, now: Now) -> TeardownNote {
        TeardownNote {
            at: now.unix.as_secs(),
            uid: by.uid,
            boot: self.boot.clone(),
            pauses: self.pauses(now),
        }
    }

    /// Records that the kernel was changed now. `is_of_docker`: whether Docker's containers asked for that.
    pub(super) fn changed(&mut self, is_of_docker: bool, now: Now) {
        let provider = is_of_docker.then(|| Owner::Docker.name().into());
        self.applied = Some(ApplyNote {
            provider,
            ..self.change_now(now)
        });
        self.due.record(now.instant);
    }

    /// Has the record name another state file as the origin, also when the kernel need not change.
    pub(super) fn judge_origin(&mut self, now: Now) {
        let Some(applied) = &self.applied else { return };
        let origin = self.change_now(now).origin;
        if applied.origin != origin {
            let (at, provider) = (applied.at, applied.provider.clone());
            self.applied = Some(ApplyNote {
                at,
                provider,
                origin,
                known: now.boot,
                store: Some(self.store_revision()),
            });
            self.due.record_at_once(now.instant);
        }
    }

    pub(super) fn change_now(&self, now: Now) -> ApplyNote {
        let origin = self.file_origin.as_ref().filter(|_| self.file.is_some());
        ApplyNote {
            at: now.unix.as_secs(),
            origin: origin.map_or_else(|| self.origin.clone(), |path| path.to_string_lossy().into_owned()),
            known: now.boot,
            store: Some(self.store_revision()),
            provider: self.docker.has_changed_last.then(|| Owner::Docker.name().into()),
        }
    }

    fn due_job(&mut self, now: Now) -> Option<Job> {
        let at = now.instant;
        if self.due.take_drift() {
            return Some(Job::Check(self.membership.serving().clone(), self.memo(now)));
        }
        if let Some(left) = self.due.take_forget(at) {
            let left = left.into_iter().filter(|pair| !self.membership.is_balanced_there(pair));
            let left: BTreeSet<Pair> = left.collect();
            if !left.is_empty() {
                return Some(Job::Forget(left));
            }
        }
        if self.due.take_count(at) {
            let draining = self.membership.draining_pairs();
            if !draining.is_empty() {
                return Some(Job::Count(draining));
            }
        }
        if self.due.take_check(at) {
            return Some(Job::Check(self.membership.serving().clone(), self.memo(now)));
        }
        if self.due.take_flush(at) {
            return Some(Job::Flush(self.membership.serving().clone()));
        }
        if self.due.take_tidy(at) {
            return Some(Job::Tidy(self.membership.serving().clone()));
        }
        if self.due.take_record(at) {
            return Some(Job::Record(self.membership.serving().clone(), self.memo(now)));
        }
        None
    }

    /// Returns the last job before the daemon ends, which writes the record.
    pub fn last_job(&mut self, now: Now) -> Option<Job> {
        let has = self.phase == DaemonPhase::Running && self.full.is_none();
        has.then(|| Job::Record(self.membership.serving().clone(), self.memo(now)))
    }
}
