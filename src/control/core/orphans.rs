//! Orphans: services that no provider defines any more. They are served until they are removed, or a provider defines
//! their name, port or backend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Core, DaemonPhase, Now};
use crate::control::claimed::{Claimed, Left, displacement};
use crate::control::events::EventContent;
use crate::control::name::Name;
use crate::control::storage::Write;
use crate::store::last_services::{LastNotes, LastServices};
use crate::view::problems::{orphaned, some_of};
use tcpgw_core::diff::Changes;
use tcpgw_core::model::{Edits, Service, State};
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_core::words::count;

/// Maximum number of names in one event.
const MOST_NAMES: usize = 20;

/// A service that no provider defines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Orphan {
    pub(super) service: Arc<Service>,
    /// Whether it is as its provider defined it; otherwise only the fields in the kernel are known.
    pub(super) is_whole: bool,
}

impl Orphan {
    /// Returns an orphan with the full definition of its provider.
    pub(super) fn whole(service: Arc<Service>) -> Self {
        Self {
            service,
            is_whole: true,
        }
    }

    pub(super) fn owner(&self) -> Owner {
        if self.is_whole { Owner::Orphan } else { Owner::Found }
    }
}

/// The orphans by name. None has a name or a port that a provider defines; an endpoint may be shared with a provider's
/// service.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    all: BTreeMap<Name, Orphan>,
}

impl Orphans {
    /// Returns the orphan of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Orphan> {
        self.all.get(name)
    }

    /// Returns all orphans by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Orphan> {
        self.all.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.all.values().map(|orphan| &orphan.service)
    }

    /// Returns the orphans that change by a provider's services, and the remainder of each. Orphans that it defines by
    /// name are left out.
    fn displaced_by<'s>(&'s self, put: &'s [Arc<Service>]) -> impl Iterator<Item = (&'s Arc<Service>, Left<'s>)> {
        let claimed = Claimed::by(put);
        let left = self
            .iter()
            .map(move |orphan| (&orphan.service, claimed.leave(&orphan.service, orphan.is_whole)));
        left.filter(|(orphan, left)| match left {
            Left::Whole => false,
            Left::Nothing(by) => by.name != orphan.name,
            Left::Completed(_) | Left::Part(..) => true,
        })
    }
}

/// Problems with the file of last services.
#[derive(Debug, Default)]
pub(super) struct LastTrouble {
    /// Earlier files could not be read.
    pub(super) damaged: Option<Problem>,
    /// Reason why the file could not be written.
    pub(super) unwritten: Option<String>,
    /// Consequence of a file that was missing at a start beside a store that was not new, until a reload.
    pub(super) missing: Option<String>,
}

impl Core {
    /// Takes the contents of the file of last services, before any service is desired. `boot`: the boot id of the
    /// kernel.
    pub fn served_last(&mut self, last: LastServices, boot: String) {
        for refused in &last.refused {
            tracing::error!(
                "a service that was served last is not accepted by this version: {}",
                refused.problems
            );
        }
        let served = last.services.iter().map(|(_, service)| service);
        let served = served.filter(|service| !last.unserved.contains(&service.name));
        let kept = last.kept.iter().filter(|kept| !kept.is_unserved);
        let served = served.chain(kept.map(|kept| &kept.service));
        let served = served.map(|service| (service.name.clone(), Arc::clone(service)));
        self.held_back.served_last = served.collect();
        (self.last, self.boot) = (last, boot);
    }

    /// Returns whether any service is desired.
    pub fn is_serving(&self) -> bool {
        self.desired().next().is_some()
    }

    /// Reports files of last services that could not be read and were set aside.
    pub fn last_damaged(&mut self, problem: Option<Problem>) {
        self.last_trouble.damaged = problem;
        self.judge_last();
    }

    /// Reports or resolves the problem that the store was lost.
    pub fn store_lost(&mut self, problem: Option<Problem>) {
        self.problems.replace(&[ProblemKind::StoreLost], problem);
    }

    /// Reports or resolves the problem that the flow log lacks connections.
    pub fn flow_log(&mut self, trouble: Option<String>) {
        let problem = trouble.map(|why| Problem::new(ProblemKind::FlowLog, why));
        self.problems.replace(&[ProblemKind::FlowLog], problem);
    }

    /// Reports or resolves problems with the file of last services.
    pub(super) fn judge_last(&mut self) {
        let LastTrouble {
            damaged,
            unwritten,
            missing,
        } = &self.last_trouble;
        // One that was set aside is missing, too.
        let missing = missing.as_ref().filter(|_| damaged.is_none());
        let words: Vec<&str> = unwritten.iter().chain(missing).map(String::as_str).collect();
        let unwritten = (!words.is_empty()).then(|| Problem::new(ProblemKind::LastServices, words.join("; ")));
        let found = match (damaged.clone(), unwritten) {
            (Some(damaged), Some(unwritten)) => {
                let message = format!("{}; {}", damaged.message, unwritten.message);
                Some(Problem { message, ..damaged })
            }
            (damaged, unwritten) => damaged.or(unwritten),
        };
        self.problems.replace(&[ProblemKind::LastServices], found);
    }

    /// Returns a provider's edits together with the changes of orphans that follow from them.
    pub(super) fn with_orphans(&self, edits: &Edits) -> Edits {
        let mut all = edits.clone();
        if self.orphans.is_empty() {
            return all;
        }
        for (orphan, left) in self.orphans.displaced_by(&edits.put) {
            if edits.touches(&orphan.name) {
                continue;
            }
            match left.reached(orphan) {
                Some(rest) => all.put.push(Arc::new(rest)),
                None => all.gone.push(orphan.name.clone()),
            }
        }
        all.gone.sort_unstable();
        all.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Returns the names of orphans that a provider's edits change without naming them, with a text about the change.
    fn displacements<'s>(&'s self, edits: &'s Edits) -> impl Iterator<Item = (&'s Name, String)> {
        let displaced = self.orphans.displaced_by(&edits.put);
        let displaced = displaced.filter(|(orphan, _)| !edits.touches(&orphan.name));
        displaced.filter_map(|(orphan, left)| Some((&orphan.name, displacement(orphan, &left)?)))
    }

    /// Returns warnings about orphans that edits change.
    pub(super) fn warn_of_displacements(&self, edits: &Edits) -> Vec<String> {
        let mut displaced = self.displacements(edits).map(|(_, text)| text);
        let mut warnings: Vec<String> = displaced.by_ref().take(MOST_NAMES).collect();
        let more = displaced.count();
        if more > 0 {
            let services = count(more, "more service");
            warnings.push(format!(
                "{services} that no provider defines any more lose backends, or end"
            ));
        }
        warnings
    }

    /// Records an event for the orphans that a provider's edits change.
    pub(super) fn tell_displacements(&mut self, edits: &Edits, cause: &str, now: Now) {
        if self.orphans.is_empty() {
            return;
        }
        let names: Vec<String> = self.displacements(edits).map(|(name, _)| name.to_string()).collect();
        self.displaced(names, cause, now);
    }

    fn displaced(&mut self, mut names: Vec<String>, reason: &str, now: Now) {
        let count = names.len();
        if count > 0 {
            names.truncate(MOST_NAMES);
            let reason = reason.to_owned();
            self.note(EventContent::Displaced { count, names, reason }, now);
        }
    }

    /// Adds the removal of all orphans that the edits do not define.
    pub(super) fn prune(&self, edits: &mut Edits) {
        let names = self.orphans.all.keys();
        let names: Vec<Name> = names.filter(|name| !edits.touches(name)).cloned().collect();
        edits.gone.extend(names);
        edits.gone.sort_unstable();
    }

    /// Returns the names of orphans that edits remove.
    pub(super) fn orphans_removed_by(&self, edits: &Edits) -> BTreeSet<Name> {
        let names = edits.gone.iter();
        names.filter(|name| self.orphans.get(name).is_some()).cloned().collect()
    }

    /// Returns the changes from the services of the API to a state, including the orphans that the edits remove or
    /// change. Services of resources stay, whether the state has them or not.
    pub(super) fn differing(&self, state: &State, edits: &Edits) -> Changes {
        let all = self.with_orphans(edits);
        let touched = self.orphans.services().filter(|service| all.touches(&service.name));
        let old: Vec<&Service> = self.api.services().chain(touched).map(AsRef::as_ref).collect();
        let left = all.put.iter().filter(|service| !edits.touches(&service.name));
        let stay = self.api.services().filter(|service| !edits.touches(&service.name));
        let stay = stay.filter(|service| state.get(&service.name).is_none());
        let new = state.services.iter().chain(left).chain(stay);
        let new: Vec<&Service> = new.map(AsRef::as_ref).collect();
        Changes::of_services(&old, &new)
    }

    /// Applies edits, as [`Self::with_orphans`] returns them, to the orphans.
    pub(super) fn learn_orphans(&mut self, edits: &Edits, now: Now) {
        for name in &edits.gone {
            if self.orphans.all.remove(name).is_some() {
                self.due.record_at_once(now.instant);
            }
        }
        for service in &edits.put {
            let is_left = !self.is_defined(&service.name);
            match self.orphans.all.get_mut(&service.name) {
                Some(orphan) if is_left => orphan.service = Arc::clone(service),
                Some(_) => drop(self.orphans.all.remove(&service.name)),
                None => {}
            }
        }
    }

    pub(super) fn is_defined(&self, name: &str) -> bool {
        let of_file = self.file.as_ref().and_then(|file| file.get(name));
        of_file.is_some() || self.docker.get(name).is_some() || self.api.get(name).is_some()
    }

    /// Makes orphans of services that have no provider any more.
    pub(super) fn orphan(&mut self, services: impl IntoIterator<Item = Orphan>, reason: &str, now: Now) {
        let before = self.orphans.all.len();
        let mut names = Vec::new();
        for orphan in services {
            let name = orphan.service.name.clone();
            self.unrecorded([&name]);
            if names.len() < MOST_NAMES {
                names.push(name.to_string());
            }
            self.orphans.all.insert(name, orphan);
        }
        let count = self.orphans.all.len() - before;
        if count > 0 {
            let reason = reason.to_owned();
            self.note(EventContent::Orphaned { count, names, reason }, now);
        }
        self.due.record(now.instant);
        self.due.remember(now.instant);
    }

    /// Makes orphans of the parts of `found` that providers do not define. Each item says whether it is as its
    /// provider defined it.
    pub(super) fn orphan_found(&mut self, found: Vec<(Service, bool)>, now: Now) {
        let (mut orphans, mut displaced) = (Vec::new(), Vec::new());
        let claimed = Claimed::by(self.desired());
        for (service, is_whole) in found {
            let left = claimed.leave(&service, is_whole);
            // If the record is lost or old, the same service may have another name.
            if is_whole && displacement(&service, &left).is_some() {
                displaced.push(service.name.to_string());
            }
            if let Some(left) = left.reached(&service) {
                orphans.push(Orphan {
                    service: Arc::new(left),
                    is_whole,
                });
            }
        }
        self.displaced(displaced, "other services take over ports or backends of orphans", now);
        self.orphan(orphans, "services that were served are defined by no provider", now);
    }

    /// Reports or resolves the problem that there are orphans.
    pub(super) fn judge_orphans(&mut self) {
        if self.orphans.is_empty() {
            return self.problems.resolve(ProblemKind::Orphaned);
        }
        let names: Vec<&str> = self.orphans.iter().map(|orphan| &*orphan.service.name).collect();
        let guessed: Vec<&str> = self
            .orphans
            .iter()
            .filter(|orphan| !orphan.is_whole)
            .map(|orphan| &*orphan.service.name)
            .collect();
        let mut problem = orphaned(&names, self.phase != DaemonPhase::TornDown);
        if !guessed.is_empty() {
            let _ = write!(
                problem.message,
                "; fields that are not in the kernel (drain_timeout, health, labels) are unknown for {} and have their defaults",
                some_of(&guessed)
            );
        }
        let unserved = self
            .orphans
            .iter()
            .filter(|orphan| !orphan.service.has_active_backend());
        let unserved: Vec<&str> = unserved.map(|orphan| &*orphan.service.name).collect();
        if !unserved.is_empty() {
            let _ = write!(
                problem.message,
                "; without a backend that is active, so that clients are refused: {}",
                some_of(&unserved)
            );
        }
        self.problems.report(problem);
    }

    /// Returns the owners of the desired services other than those of the state file.
    pub(super) fn owners(&self) -> BTreeMap<Name, Owner> {
        let api = self.api.services().map(|service| (service.name.clone(), Owner::Api));
        let docker = self.docker.services();
        let docker = docker.map(|service| (service.name.clone(), Owner::Docker));
        let orphans = self
            .orphans
            .iter()
            .map(|orphan| (orphan.service.name.clone(), orphan.owner()));
        api.chain(docker).chain(orphans).collect()
    }

    /// Returns whether the desired and the held-back services are known. Until then the file of last services stays as
    /// it is.
    pub(super) fn knows_what_to_remember(&self) -> bool {
        self.has_looked() && !self.held_back.awaits_first_judgement()
    }

    /// Returns the contents of the file of last services, for the next boot.
    pub(super) fn to_remember(&self, now: Now) -> LastServices {
        let of_file = self.file.iter().flat_map(|file| &file.services);
        let of_file = of_file.map(|service| (Owner::File, Arc::clone(service)));
        let of_api = self.api.services().map(|service| (Owner::Api, Arc::clone(service)));
        let of_docker = self.docker.services();
        let of_docker = of_docker.map(|service| (Owner::Docker, Arc::clone(service)));
        let orphans = self.orphans.iter();
        let orphans = orphans.map(|orphan| (orphan.owner(), Arc::clone(&orphan.service)));
        let serving = self.membership.serving();
        let names = self.defined().map(|service| &service.name);
        let unserved = names.filter(|name| self.held_back.contains(name) || !serving.contains_key(*name));
        LastServices {
            boot: self.boot.clone(),
            namespace: self.namespace,
            known: now.boot,
            revision: self.known_revision(),
            identity: self.known_identity(),
            lineage: self.known_lineage(),
            origin: self.file_origin.clone(),
            services: of_file.chain(of_api).chain(of_docker).chain(orphans).collect(),
            unserved: unserved.cloned().collect(),
            kept: self.held_back.to_remember().collect(),
            refused: self.last.refused.clone(),
            resources: self.resources_to_remember(),
            apps: self.apps_to_remember(),
            pauses: self.pauses(now),
            notes: self.notes_to_remember(),
        }
    }

    /// Returns the notes for a later start.
    pub(super) fn notes_to_remember(&self) -> LastNotes {
        let trouble = &self.last_trouble;
        LastNotes {
            // One that was set aside is reported as long as it is there.
            was_missing: trouble.missing.is_some() && trouble.damaged.is_none(),
            record_lost: self.record_lost.clone(),
            is_configured: self.configuration_lost.is_some() || self.config.sets_by_default_path(),
        }
    }

    /// Returns the file of last services to write before the daemon ends, with its path, if it is outdated.
    pub fn last_services(&self, now: Now) -> Option<(PathBuf, LastServices)> {
        let is_due = self.knows_what_to_remember() && self.due.has_to_remember();
        is_due.then(|| (LastServices::path(&self.settings.store), self.to_remember(now)))
    }

    pub(super) fn remember_now(&self, now: Now) -> Write {
        Write::Remember(
            LastServices::path(&self.settings.store),
            Box::new(self.to_remember(now)),
        )
    }
}
