//! Contents of the record for the next process: all of it, or the part that a change touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::orphans::Orphan;
use super::{Core, DaemonPhase, Now};
use crate::control::draining::DrainingBackend;
use crate::control::job::Job;
use crate::control::membership::{self, MembershipChange};
use crate::control::name::Name;
use crate::reconcile::engine::{ChangeMemo, Memo};
use crate::record::{ApplyNote, Deadline, RecordedPause, ServiceEntry};
use tcpgw_core::model::Service;
use tcpgw_core::owner::{Details, Owner};
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::summary::ServiceSummary;

impl Core {
    /// Returns the details that the record keeps besides the served services.
    pub(super) fn memo(&self, now: Now) -> Memo {
        let left = self.membership.draining_backends().iter();
        let applied = self.applied.clone().unwrap_or_else(|| self.change_now(now));
        Memo {
            applied: ApplyNote {
                known: now.boot,
                store: Some(self.store_revision()),
                ..applied
            },
            drains: left.filter_map(|leaving| deadline(leaving, now)).collect(),
            pauses: self.pauses(now),
            wanted: self.wanted_by_providers(),
            owners: self.owners(),
            suspended: self.addon.suspended_names().cloned().collect(),
        }
    }

    /// Returns the pauses in effect.
    pub(super) fn pauses(&self, now: Now) -> Vec<RecordedPause> {
        let pauses = self.membership.paused();
        pauses.map(|(name, of)| pause(name, of, now)).collect()
    }

    /// Returns the details that the record needs before a change is made: of services that it touches, and of those
    /// that changed since the record was written.
    pub(super) fn change_memo(&mut self, change: &MembershipChange, now: Now) -> ChangeMemo {
        let mut names = std::mem::take(&mut self.unrecorded);
        let changed = change.old.iter().chain(&change.new);
        names.extend(changed.map(|service| service.name.clone()));
        ChangeMemo {
            applied: self.change_now(now),
            services: names.iter().map(|name| self.service_entry(name, now)).collect(),
        }
    }

    fn service_entry(&self, name: &Name, now: Now) -> ServiceEntry {
        let Some(serving) = self.membership.serving().get(name) else {
            return ServiceEntry::gone(name);
        };
        let wanted = self.membership.wanted().get(name);
        let details = match wanted.map(|wanted| self.service_of_suspended(name).unwrap_or(wanted)) {
            Some(wanted) => Details::new(self.owner(name), wanted, serving).suspended(self.addon.is_suspended(name)),
            None => Details::new(Owner::Removed, serving, serving),
        };
        let draining_backends = self.membership.draining_backends();
        let leaving = draining_backends.of(name).into_iter();
        let leaving = leaving.filter_map(|endpoint| draining_backends.get(name, endpoint));
        ServiceEntry {
            name: name.clone(),
            summary: Some(ServiceSummary::from(&**serving)),
            details,
            deadlines: leaving.filter_map(|leaving| deadline(leaving, now)).collect(),
            pause: self.membership.pause_of(name).map(|of| pause(name, &of, now)),
        }
    }

    /// Returns the desired services as their providers define them.
    fn wanted_by_providers(&self) -> BTreeMap<Name, Arc<Service>> {
        let mut wanted = self.membership.wanted().clone();
        for name in self.addon.suspended_names() {
            if let (Some(known), Some(wish)) = (wanted.get_mut(name), self.service_of_suspended(name)) {
                *known = Arc::clone(wish);
            }
        }
        wanted
    }

    /// Returns the desired form of a service whose resource is suspended; it is served otherwise until the resource is
    /// resumed.
    fn service_of_suspended(&self, name: &str) -> Option<&Arc<Service>> {
        self.addon.is_suspended(name).then_some(())?;
        self.api.get(name).map(|stored| &stored.service)
    }

    fn owner(&self, name: &str) -> Owner {
        if self.api.get(name).is_some() {
            Owner::Api
        } else if self.docker.get(name).is_some() {
            Owner::Docker
        } else {
            self.orphans.get(name).map_or(Owner::File, Orphan::owner)
        }
    }

    /// Notes that the next change writes these services into the record.
    pub(super) fn unrecorded<'n>(&mut self, names: impl IntoIterator<Item = &'n Name>) {
        self.unrecorded.extend(names.into_iter().cloned());
    }

    /// Returns a warning when an order that only the record keeps could not be written and ends with the daemon.
    pub(super) fn unrecorded_order(&self) -> Vec<String> {
        let warning = self.record_trouble.as_ref().map(|trouble| {
            format!(
                "this ends with the daemon: it could not be written down for the next one ({trouble}); make it writable, the daemon tries again \
                 every few seconds"
            )
        });
        warning.into_iter().collect()
    }

    /// Takes the result of a check of the run directory; `trouble`: why it cannot be written. The check writes
    /// nothing.
    pub fn run_dir(&mut self, trouble: Option<String>, now: Now) {
        if self.run_dir_trouble != trouble {
            self.run_dir_trouble = trouble;
            self.judge_record(now);
        }
    }

    /// Reports or resolves the problem of a record that cannot be written.
    pub(super) fn judge_record(&mut self, now: Now) {
        let Some(trouble) = &self.record_trouble else {
            let unwritable = self.run_dir_trouble.as_deref().map(not_to_be_written);
            let lost_memory = || self.memory_lost.as_ref().map(|problem| problem.message.clone());
            return match unwritable.or_else(|| self.record_lost.clone()).or_else(lost_memory) {
                Some(message) => self.report(ProblemKind::Record, message),
                None => self.problems.resolve(ProblemKind::Record),
            };
        };
        let (what, then) = if self.phase == DaemonPhase::TornDown {
            ("that everything was torn down", "serves again")
        } else {
            (
                "what is served, paused and drained",
                "may not know it, or do what was ordered before",
            )
        };
        let message = format!(
            "{what} cannot be written down ({trouble}): if the daemon ends now, the next one {then}; make it writable, the daemon tries again \
             every few seconds"
        );
        self.report(ProblemKind::Record, message);
        self.due.record_again(now.instant);
    }

    /// Returns the job that writes the note of the teardown again, when it could not be written or has changed.
    pub(super) fn note_teardown_again(&mut self, now: Now) -> Option<Job> {
        let by = self.torn.clone()?;
        if !self.is_teardown_unwritten() || !self.due.take_record(now.instant) {
            return None;
        }
        self.due.is_note_outdated = false;
        Some(Job::NoteTeardown(by))
    }

    /// Returns whether the note of the teardown is missing or outdated.
    pub(super) fn is_teardown_unwritten(&self) -> bool {
        self.record_trouble.is_some() || self.due.is_note_outdated
    }

    /// Ends the pauses of services that are removed while the gateway is torn down.
    pub(super) fn forget_pauses(&mut self, gone: &[Name], now: Now) {
        let Some(torn) = &mut self.torn else { return };
        let before = torn.pauses.len();
        torn.pauses.retain(|pause| !gone.contains(&pause.service));
        if torn.pauses.len() != before {
            self.due.is_note_outdated = true;
            self.due.record_at_once(now.instant);
        }
    }

    /// Restores pauses that an earlier process has set, except those of services whose resource is suspended.
    pub(super) fn pause_again(&mut self, pauses: &[RecordedPause], now: Now) {
        let wanted: BTreeSet<Name> = self.membership.wanted().keys().cloned().collect();
        for pause in pauses.iter().filter(|pause| wanted.contains(&pause.service)) {
            let again = membership::Pause {
                until: now.instant + pause.left(now.boot),
                time: pause.time,
                since: pause.since,
                uid: pause.uid,
                browser: pause.browser,
            };
            self.membership.pause(&pause.service, Some(again));
        }
        self.end_pauses_of_suspended(now);
    }
}

fn not_to_be_written(trouble: &str) -> String {
    format!(
        "nothing can be written into the run directory ({trouble}): what is ordered and changed from here on may be unknown to the next daemon; \
         make room, or the directory writable for the daemon"
    )
}

fn deadline(leaving: &DrainingBackend, now: Now) -> Option<Deadline> {
    let left = leaving.drain.deadline()?.saturating_duration_since(now.instant);
    Some(Deadline {
        service: leaving.service.clone(),
        backend: leaving.backend.endpoint.into(),
        until: now.boot + left,
        time: leaving.time,
    })
}

fn pause(service: &Name, pause: &membership::Pause, now: Now) -> RecordedPause {
    RecordedPause {
        service: service.clone(),
        since: pause.since,
        uid: pause.uid,
        browser: pause.browser,
        until: now.boot + pause.until.saturating_duration_since(now.instant),
        time: pause.time,
    }
}
