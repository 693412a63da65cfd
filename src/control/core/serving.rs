//! Pauses, teardown and resume.
use super::pending::{NotInKernel, PendingReply, ReplyKind};
use super::{Core, DaemonPhase, Now};
use crate::control::events::EventContent;
use crate::control::membership::Pause;
use crate::control::name::Name;
use crate::control::reply::ReplySender;
use crate::control::request::{PauseOrder, Peer, Refused, Resumed, TornDown};
use crate::reconcile::{ReconcileError, TeardownReport};
use crate::record::TeardownNote;
use tcpgw_core::problem::ProblemKind;

impl Core {
    /// Ends a teardown, and serves again.
    pub(super) fn serve_again(&mut self, cause: &str, now: Now) {
        self.phase = DaemonPhase::Running;
        let torn = self.torn.take();
        self.due.is_note_outdated = false;
        self.full = Some(cause.to_owned());
        let words = cause.to_owned();
        self.note(EventContent::ServesAgain { cause: words }, now);
        self.docker.has_changed_last = false;
        self.because(cause, now);
        self.want(now.instant);
        self.pause_again(&torn.map(|torn| torn.pauses).unwrap_or_default(), now);
        self.addresses_changed(now);
        self.probe(now.instant);
    }

    /// Pauses new connections of a service for a time, or resumes them.
    pub fn pause(&mut self, order: &PauseOrder, reply: ReplySender<Result<Vec<String>, Refused>>, now: Now) {
        let refused = match self.phase {
            // The teardown has read the pauses to keep already.
            DaemonPhase::Running if !self.teardown.is_empty() => Some(Refused::Busy(
                "everything is being torn down: nothing was changed".into(),
            )),
            DaemonPhase::Running => None,
            DaemonPhase::TornDown => Some(Refused::Failed(super::TORN_DOWN.into())),
            DaemonPhase::Waiting | DaemonPhase::Reading => {
                Some(Refused::Busy("nothing is served yet: the daemon is starting".into()))
            }
        };
        if let Some(refused) = refused {
            return drop(reply.send(Err(refused)));
        }
        let service = order.name.to_string();
        if !self.membership.wanted().contains_key(&order.name) {
            return drop(reply.send(Err(super::edits::missing(&service))));
        }
        if let (Some(_), Err(refused)) = (order.time, self.judge_suspended(&service)) {
            return drop(reply.send(Err(refused)));
        }
        self.ended_pauses.retain(|ended| ended.service != order.name);
        self.judgement.outdate();
        let (uid, through) = (order.by.uid, order.by.through());
        let pause = order.time.map(|time| Pause {
            until: now.instant + time,
            time,
            since: now.unix.as_secs(),
            uid,
            browser: order.by.browser,
        });
        if self.membership.pause(&order.name, pause) {
            self.unrecorded([&order.name]);
            self.due.record(now.instant);
            self.due.remember_at_once(now.instant);
            let what = match order.time {
                Some(time) => EventContent::Paused {
                    service,
                    seconds: time.as_secs(),
                    uid,
                    through,
                },
                None => EventContent::Resumed {
                    service,
                    reason: "asked",
                    uid: Some(uid),
                    through,
                },
            };
            self.note(what, now);
            self.docker.has_changed_last = false;
        }
        self.because("pause", now);
        let wants = ReplyKind::Pause(reply);
        let since = now.instant;
        self.waiting.push(PendingReply { wants, since });
    }

    /// Ends the pauses of services whose resource of the add-on is suspended: their new connections are reset instead
    /// of dropped, since clients would wait in vain.
    pub(super) fn end_pauses_of_suspended(&mut self, now: Now) {
        let paused = self.membership.paused().map(|(name, _)| name);
        let over: Vec<Name> = paused.filter(|name| self.addon.is_suspended(name)).cloned().collect();
        for name in over {
            self.membership.pause(&name, None);
            self.unrecorded([&name]);
            let resumed = EventContent::Resumed {
                service: name.into(),
                reason: "suspended",
                uid: None,
                through: None,
            };
            self.note(resumed, now);
        }
    }

    /// Orders a teardown: everything is removed, and nothing is served until a resume.
    pub fn teardown(&mut self, by: Peer, reply: ReplySender<Result<TornDown, Refused>>) {
        self.teardown.push((by, reply));
    }

    /// Serves again after a teardown.
    pub fn resume(&mut self, by: Peer, reply: ReplySender<Result<Resumed, Refused>>, now: Now) {
        match self.phase {
            DaemonPhase::Waiting | DaemonPhase::Reading => {
                drop(reply.send(Err(Refused::Busy("the daemon is starting".into()))));
            }
            DaemonPhase::Running => drop(reply.send(Ok(Resumed::default()))),
            DaemonPhase::TornDown => {
                self.serve_again(&format!("resume (uid {})", by.uid), now);
                let wants = ReplyKind::Resume(reply);
                let since = now.instant;
                self.waiting.push(PendingReply { wants, since });
            }
        }
    }

    pub(super) fn torn_down(&mut self, torn: Result<TeardownReport, ReconcileError>, by: TeardownNote, now: Now) {
        let answer = match torn {
            Ok(torn) => {
                self.phase = DaemonPhase::TornDown;
                self.full = None;
                self.table = None;
                self.view.owns_table = false;
                self.problems.resolve(ProblemKind::KernelRefuses);
                self.judgement.outdate();
                self.problems.resolve(ProblemKind::StaleFlows);
                self.due.all_flushed();
                self.forget_observations(now);
                self.membership = crate::control::membership::Membership::new(self.settings.all_failed);
                self.unrecorded.clear();
                self.held_back.keep_nothing();
                // Results of probes under way are ignored from here on.
                self.health.set([], now.instant);
                self.end_deploys(now);
                let flushed = torn.flushed;
                self.note(EventContent::TornDown { flushed, uid: by.uid }, now);
                self.torn = Some(by);
                self.overtaken(now);
                Ok(TornDown {
                    table_removed: torn.table,
                    flows_flushed: torn.flushed,
                    flows_not_flushed: torn.failed,
                    not_lasting: torn.unwritten,
                })
            }
            Err(error) => {
                self.full = Some("a teardown that failed".into());
                Err(Refused::Failed(error.to_string()))
            }
        };
        for (_, reply) in std::mem::take(&mut self.teardown) {
            let _ = reply.send(answer.clone());
        }
    }

    /// Answers clients whose change was accepted but torn down before the kernel held it.
    fn overtaken(&mut self, now: Now) {
        let why = "everything was torn down meanwhile, and nothing is served until `tcpgw resume`";
        for pending in std::mem::take(&mut self.waiting) {
            self.answer(pending, Err(NotInKernel::TornDown(why)), now);
        }
        self.known = None;
        self.cause.clear();
    }

    /// Returns the author of the teardown, while the gateway is torn down.
    pub fn torn_down_by(&self) -> Option<&TeardownNote> {
        self.torn.as_ref().filter(|_| self.phase == DaemonPhase::TornDown)
    }
}
