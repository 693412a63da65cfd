//! Contents of the store: at the start, after a failure, and when a lost store can be read again.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api_services::ApiServices;
use super::order_queue::StoreKnowledge;
use super::{Core, DaemonPhase, Now, Provider};
use crate::control::name::Name;
use crate::control::storage::{Continuity, Opened};
use crate::store::{LoadedServices, StoreError, StoredService};
use tcpgw_core::model::{Edits, InputProblems, Service, State};
use tcpgw_core::problem::ProblemKind;

/// Interval between attempts after a failure of the store.
pub(super) const REFRESH: Duration = Duration::from_secs(5);

/// Returns the services of the store with those marked as refused that conflict with earlier ones by the rules of this
/// version, and the reasons.
fn compatible(loaded: LoadedServices) -> (ApiServices, Vec<String>) {
    let mut order: Vec<&StoredService> = loaded.services.iter().collect();
    order.sort_by(|a, b| (a.revision, &a.service.name).cmp(&(b.revision, &b.service.name)));
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    admit(&mut kept, &order, &mut refused);
    let refused: BTreeMap<Box<str>, String> = refused
        .into_iter()
        .map(|(name, why)| {
            let why = left_out(&name, &why);
            (name, why)
        })
        .collect();
    let problems = refused.values().cloned().collect();
    (ApiServices::new(loaded, refused), problems)
}

/// Returns the reason why a stored service is not served.
pub(super) fn left_out(name: &str, why: &impl std::fmt::Display) -> String {
    format!(
        "service \"{name}\" of the store is left out: {why}; change it, or remove it with `tcpgw service rm {name}`"
    )
}

/// Adds services that fit to `kept`, and the others to `refused`, by bisection: few conflicts need few attempts.
fn admit(kept: &mut Vec<Arc<Service>>, batch: &[&StoredService], refused: &mut Vec<(Box<str>, InputProblems)>) {
    let with = batch.iter().map(|stored| Arc::clone(&stored.service));
    let Err(problems) = State::new(kept.iter().cloned().chain(with.clone())) else {
        return kept.extend(with);
    };
    if let [one] = batch {
        return refused.push((one.service.name.clone(), problems));
    }
    let (first, second) = batch.split_at(batch.len() / 2);
    admit(kept, first, refused);
    admit(kept, second, refused);
}

impl Core {
    /// Takes the contents of the store, before any service is desired. If the store cannot be read, the services of
    /// the API stay as they were: a lost store must not end what is served.
    pub fn opened(&mut self, opened: Result<Opened, StoreError>, now: Now) {
        match opened {
            Ok(opened) => {
                self.observing.store_file = opened.file;
                (self.store_identity, self.store_epoch) = (opened.identity, opened.epoch);
                self.store_continuity = opened.continuity;
                let (held, problems) = compatible(opened.loaded);
                if !problems.is_empty() {
                    self.reject("api", problems, now);
                }
                self.api = held;
                self.addon.is_restored = opened.is_restored;
                drop(self.addon.load(opened.resources, now));
                self.addon.learn(self.api.services());
                self.removed = opened.removed;
                self.take_up(opened.unfinished, now);
                self.store_trouble(opened.trouble.as_ref(), now);
            }
            Err(error) => {
                tracing::error!("{error}; services of the API cannot be changed");
                self.order_queue.lost = true;
                self.store_trouble(Some(&error), now);
            }
        }
    }

    pub(super) fn remembered(&mut self, result: Result<(), String>, took: Duration, now: Now) {
        self.due.remembered(took);
        self.last_trouble.unwritten = result.err().map(|error| {
            format!("{error}: a machine that boots with a lost file or store would not know these services")
        });
        if self.last_trouble.unwritten.is_some() {
            self.due.remember(now.instant + REFRESH);
        }
        self.judge_last();
    }

    /// Returns whether a teardown has to wait for the file of last services. A teardown removes table and record, so
    /// that only this file tells a later daemon which services were served.
    pub(super) fn remembers_first(&mut self, now: Instant) -> bool {
        let until = self.due.wait_for_last(now);
        let is_next = self.due.has_to_remember() && self.order_queue.is_idle() && self.last_trouble.unwritten.is_none();
        let waits = until > now && (is_next || self.order_queue.remembering);
        if !waits {
            self.due.teardown = None;
        } else if is_next {
            self.due.remember_at_once(now);
        }
        waits
    }

    pub(super) fn store_trouble(&mut self, trouble: Option<&StoreError>, now: Now) {
        self.due.store = trouble.map(|_| now.instant + REFRESH);
        if let Some(error) = trouble {
            self.report(ProblemKind::Store, format!("the store refuses changes: {error}"));
        } else {
            self.problems.resolve(ProblemKind::Store);
        }
    }

    /// Takes the contents of the store after it had failed, and whether it can be written again.
    pub(super) fn refreshed(&mut self, refreshed: Result<Opened, StoreError>, now: Now) {
        let mut opened = match refreshed {
            Ok(opened) => opened,
            Err(error) => {
                if self.order_queue.resources == StoreKnowledge::Uncertain {
                    self.order_queue.resources = StoreKnowledge::Unreadable;
                }
                return self.store_trouble(Some(&error), now);
            }
        };
        self.order_queue.resources = StoreKnowledge::Certain;
        self.observing.store_file = opened.file;
        (self.store_identity, self.store_epoch) = (opened.identity, opened.epoch);
        self.addon.amendments.correct(&mut opened);
        if self.order_queue.lost {
            return self.found_again(opened, now);
        }
        let (held, problems) = compatible(opened.loaded);
        if problems.is_empty() {
            self.problems.resolve(ProblemKind::RejectedStore);
        } else if problems != self.api.reasons() {
            self.reject("api", problems, now);
        }
        let services = held.services().cloned();
        // A change that failed may have been made all the same.
        let mut edits = self.api.edits_to(&State::from_valid(services.collect()));
        self.api = held;
        let before = self.addon.load(opened.resources, now);
        // A store that can be written in a trial may refuse what it has to write.
        let refused = self.addon.amendments.still_refused();
        self.store_trouble(opened.trouble.or(refused).as_ref(), now);
        self.put_resumed(&mut edits, &before);
        self.compare_deploys(opened.unfinished, now);
        if !edits.is_empty() {
            self.docker.has_changed_last = false;
            self.wanted_instead("the store", &edits, now);
        }
    }

    /// Takes the contents of a store that could not be opened at the start. Services presumed to be of the API are
    /// judged as at a start: those that the store does not know become orphans, unless the store continues the one before and
    /// knows that they were removed.
    fn found_again(&mut self, opened: Opened, now: Now) {
        tracing::info!(
            "the store, which failed before, can be read again: changes through the API are accepted from now on"
        );
        self.order_queue.lost = false;
        self.addon.is_copy = false;
        if matches!(self.phase, DaemonPhase::Waiting | DaemonPhase::Reading) {
            return self.opened(Ok(opened), now);
        }
        self.store_trouble(opened.trouble.as_ref(), now);
        let (held, problems) = compatible(opened.loaded);
        if !problems.is_empty() {
            self.reject("api", problems, now);
        }
        let presumed = std::mem::replace(&mut self.api, held);
        let services = self.api.services().cloned();
        let mut edits = presumed.edits_to(&State::from_valid(services.collect()));
        let before = self.addon.load(opened.resources, now);
        self.put_resumed(&mut edits, &before);
        self.removed = opened.removed;
        self.leave_out_claimed(&mut edits);
        let gone = std::mem::take(&mut edits.gone);
        let is_removed = |name: &Name| opened.continuity == Continuity::Continued && self.removed.contains_key(name);
        let (removed, unknown): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_removed);
        edits.gone = removed;
        let unknown = unknown.iter().filter_map(|name| presumed.get(name));
        let unknown: Vec<Arc<Service>> = unknown.map(|stored| Arc::clone(&stored.service)).collect();
        let orphans = unknown.iter().map(|service| (Service::clone(service), true));
        self.orphan_found(orphans.collect(), now);
        for service in unknown {
            match self.orphans.get(&service.name).map(|orphan| &orphan.service) {
                None => edits.gone.push(service.name.clone()),
                Some(left) if *left != service => edits.put.push(Arc::clone(left)),
                Some(_) => {}
            }
        }
        self.compare_deploys(opened.unfinished, now);
        self.docker.has_changed_last &= edits.is_empty();
        self.wanted_instead("the store can be read again", &edits, now);
        self.addresses_changed(now);
        self.due.remember(now.instant);
    }

    /// Leaves out services of the store that conflict with services defined while it could not be read, with the
    /// reason.
    fn leave_out_claimed(&mut self, edits: &mut Edits) {
        let put = std::mem::take(&mut edits.put);
        for service in put {
            let alone = Edits {
                put: vec![Arc::clone(&service)],
                ..Edits::default()
            };
            match self.judge_books(&alone, Provider::Api) {
                Ok(()) => edits.put.push(service),
                Err(refused) => {
                    let reason = left_out(&service.name, &refused.lines().join("; "));
                    self.api.judged(&service.name, Some(reason));
                }
            }
        }
        let reasons = self.api.reasons();
        if !reasons.is_empty() {
            self.report_rejected(Provider::Api.name(), &reasons);
        }
    }
}
