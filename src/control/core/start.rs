//! Decision at the start of the daemon about each service that the kernel already serves: a provider defines it, it was
//! removed, or it becomes an orphan and stays served.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Core, DaemonPhase, Now};
use crate::control::adopt::{self, AdoptedService};
use crate::control::claimed::{self, Claimed};
use crate::control::draining::TimeLeft;
use crate::control::events::EventContent;
use crate::control::storage::Continuity;
use crate::reconcile::engine::InitialContents;
use crate::record::{ApplyNote, RecordedPause};
use crate::store::last_services::LastServices;
use crate::view::problems::some_of;
use tcpgw_core::escape;
use tcpgw_core::model::{Endpoint, Service, State};
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::words::count;

/// Facts about the providers at the time when the kernel has been read.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact, and all combinations occur"
)]
pub(super) struct ProviderFacts {
    /// Whether the state file has been read and is valid.
    has_file: bool,
    /// Whether a state file is to be followed.
    follows_file: bool,
    /// Whether the services of a file came from that file.
    is_same_file: bool,
    /// Whether the store could not be read.
    is_store_lost: bool,
    /// Whether Docker's containers are to be followed.
    follows_docker: bool,
}

/// Treatment of a service that was served and that no provider defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// The service was removed: its backends drain.
    Removed,
    /// The service belongs to the file, which could not be read.
    OfFile,
    /// The service belongs to the API, whose store could not be read.
    OfApi,
    /// The service belongs to Docker's containers, of which the engine has not told yet.
    OfDocker,
    /// The service has no provider, and stays served.
    Orphan,
}

impl ProviderFacts {
    fn disposition(self, served: &AdoptedService, is_removed: bool) -> Disposition {
        match served.owner {
            Some(Owner::Removed) => Disposition::Removed,
            Some(Owner::Api) if self.is_store_lost => Disposition::OfApi,
            Some(Owner::Api) if is_removed => Disposition::Removed,
            Some(Owner::Docker) if self.follows_docker => Disposition::OfDocker,
            Some(Owner::Api | Owner::Docker | Owner::Orphan | Owner::Found) => Disposition::Orphan,
            Some(Owner::File) => self.of_file(),
            None => Self::of_nobody(is_removed),
        }
    }

    fn of_file(self) -> Disposition {
        match (self.follows_file, self.has_file) {
            (true, false) => Disposition::OfFile,
            // Removing a service from the file is intended.
            (true, true) if self.is_same_file => Disposition::Removed,
            // Another file, or none, does not decide about this service.
            _ => Disposition::Orphan,
        }
    }

    /// Returns the treatment of a service that neither the record nor the file of last services knows. It is not
    /// assigned to a provider, since a provider that does not define it would end it. It may be the rest of a removed one that
    /// drains, or may be paused or wait for its first deploy: only a person can tell.
    fn of_nobody(is_removed: bool) -> Disposition {
        if is_removed {
            Disposition::Removed
        } else {
            Disposition::Orphan
        }
    }
}

/// Services that the kernel does not hold.
struct Former {
    /// Services that were desired before and are not in the kernel: after a boot, when another program removed the
    /// table or them, or when they were held back all the time.
    wanted: Vec<AdoptedService>,
    /// Services as they were served in this boot until the table was removed.
    served: Vec<Arc<Service>>,
    /// Services as they were served until the machine booted, of which a change was held back.
    kept: BTreeMap<Box<str>, Arc<Service>>,
}

impl Former {
    fn find(
        found: &InitialContents,
        last: &LastServices,
        adopted: &mut [AdoptedService],
        boot: &str,
        is_last_newer: bool,
    ) -> Self {
        let recorded = found.recorded.as_ref();
        let recorded = recorded.map(|recorded| adopt::adopt(&recorded.summary, Some(recorded), last, is_last_newer));
        let mut recorded = recorded.unwrap_or_default();
        if found.has_table {
            // Another program has removed them from the table, or the record could not be written when they were
            // removed.
            let names: BTreeSet<&str> = adopted.iter().map(|of| &*of.serving.name).collect();
            recorded.retain(|known| known.owner != Some(Owner::Removed) && !names.contains(&*known.serving.name));
        }
        // Fields that no rule contains are as they were desired: other services of an endpoint have the same ones.
        // A newer file of last services says which of them were held back since, and left their ports to other programs.
        let is_kept = |name: &str| {
            last.kept
                .iter()
                .any(|kept| !kept.is_unserved && &*kept.service.name == name)
        };
        let is_unserved = |name: &str| last.unserved.contains(name) && !is_kept(name);
        let was_served = |known: &&AdoptedService| !(is_last_newer && is_unserved(&known.serving.name));
        let served = recorded.iter().filter(was_served).map(|known| {
            Arc::new(Service {
                drain_timeout: known.wanted.drain_timeout,
                health: known.wanted.health.clone(),
                labels: known.wanted.labels.clone(),
                ..known.serving.clone()
            })
        });
        let served = served.collect();
        // A service of this boot that a newer record does not have was not served.
        let is_all_lost = last.boot != boot || !found.has_table && found.recorded.is_none();
        let of_last = last
            .services
            .iter()
            .filter(|(_, service)| is_all_lost || is_last_newer || last.unserved.contains(&service.name));
        let is_rebooted = last.boot != boot;
        let of_last = of_last.map(|(owner, service)| {
            let mut service = Service::clone(service);
            // Containers get other addresses when the machine boots, and theirs may be those of others.
            if is_rebooted && *owner == Owner::Docker {
                service.backends.clear();
            }
            AdoptedService {
                serving: service.clone(),
                wanted: service,
                owner: Some(*owner),
                is_whole: *owner != Owner::Found,
                is_suspended: false,
            }
        });
        let of_last: Vec<AdoptedService> = of_last.collect();
        // Another program may have created it in the kernel since: known services of an endpoint determine how it is
        // probed.
        let whole = recorded.iter().chain(&of_last).filter(|known| known.is_whole);
        let whole: Vec<Arc<Service>> = whole.map(|known| Arc::new(known.wanted.clone())).collect();
        let claimed = Claimed::by(&whole);
        for known in adopted.iter_mut().filter(|known| !known.is_whole) {
            if let Some(completed) = claimed.completed(&known.wanted) {
                known.wanted = completed;
            }
        }
        let mut wanted: Vec<AdoptedService> = Vec::new();
        for candidates in [recorded, of_last] {
            // A removed service that drains has given up its name and its port.
            let there = adopted
                .iter()
                .chain(&wanted)
                .filter(|known| known.owner != Some(Owner::Removed));
            let there: Vec<Arc<Service>> = there.map(|known| Arc::new(known.wanted.clone())).collect();
            let left = claimed::beside(candidates.iter().map(|of| (&of.wanted, of.is_whole)), &there).into_iter();
            let mut left: BTreeMap<Box<str>, Service> = left.map(|service| (service.name.clone(), service)).collect();
            wanted.extend(candidates.into_iter().filter_map(|known| {
                let wanted = left.remove(&known.wanted.name)?;
                Some(AdoptedService { wanted, ..known })
            }));
        }
        let kept = last.kept.iter().filter(|kept| is_all_lost || kept.is_unserved);
        let kept = kept.map(|kept| (kept.service.name.clone(), Arc::clone(&kept.service)));
        Self {
            wanted,
            served,
            kept: kept.collect(),
        }
    }
}

/// Returns the state file that the file's services came from, by the record and by the file of last services of this
/// boot. Returns `None` when they differ, since one of them is outdated.
fn origin_of_file(applied: Option<&ApplyNote>, last: &LastServices, boot: &str) -> Option<PathBuf> {
    let Some(applied) = applied else {
        return last.origin.clone();
    };
    let origin = PathBuf::from(&applied.origin);
    let is_uncertain = last.boot == boot && last.origin.as_ref().is_some_and(|last| *last != origin);
    (!is_uncertain).then_some(origin)
}

/// Returns a text about the services found in the kernel.
fn words(adopted: &[AdoptedService]) -> String {
    let backends: usize = adopted.iter().map(|served| served.serving.backends.len()).sum();
    if adopted.is_empty() {
        return "nothing".into();
    }
    format!(
        "{} with {}",
        count(adopted.len(), "service"),
        count(backends, "backend")
    )
}

/// Returns the names of services that have no backends in the kernel for new connections.
fn silent(adopted: &[AdoptedService]) -> BTreeSet<Box<str>> {
    let silent = adopted.iter().filter(|of| !of.serving.has_active_backend());
    silent.map(|of| of.wanted.name.clone()).collect()
}

impl Core {
    /// Works out the desired state when the state of the kernel is known.
    pub(super) fn started(&mut self, found: InitialContents, now: Now) {
        let last = std::mem::take(&mut self.last);
        self.last_trouble.missing = self.without_last(&last);
        self.judge_last();
        self.judge_lost_configuration(&last.notes);
        self.addon.remember_apps(&last);
        if let Some(copy) = last.resources.as_ref().filter(|_| self.is_store_lost()) {
            self.copy_resources(copy, now);
        }
        let recorded = found.recorded.as_ref();
        let is_last_newer =
            recorded.is_some_and(|recorded| last.is_newer(recorded.known(), &self.boot, self.namespace));
        if let Some(recorded) = recorded.filter(|_| !is_last_newer) {
            self.correct_resources(recorded, now);
        }
        let mut adopted = adopt::adopt(&found.summary, recorded, &last, is_last_newer);
        let mut former = Former::find(&found, &last, &mut adopted, &self.boot, is_last_newer);
        let all = adopted.iter_mut().chain(&mut former.wanted);
        for suspended in all.filter(|of| of.is_suspended && !self.addon.knows(&of.wanted.name)) {
            suspended.stay_suspended();
        }
        self.held_back.former = former.served;
        self.held_back.before = former.kept;
        let former = former.wanted;
        let origin = recorded.and_then(|recorded| recorded.applied.as_ref());
        self.applied = origin.cloned();
        self.docker.has_changed_last = origin.is_some_and(|applied| applied.provider.is_some());
        let origin = origin_of_file(origin, &last, &self.boot);
        (self.last.refused, self.last.revision) = (last.refused, last.revision);
        (self.last.identity, self.last.lineage) = (last.identity, last.lineage);
        self.judge_recorded_store(now);
        let in_kernel = words(&adopted);
        let silent = silent(&adopted);
        self.reject_empty_file(&adopted, &former, now);
        let orphans = self.settle_owners(&adopted, &former, origin);
        self.orphan_found(orphans, now);
        let services: Vec<Service> = adopted.into_iter().map(|adopted| self.completed(adopted)).collect();
        let is_record_lost = found.has_table && found.recorded.is_none() && found.torn_down.is_none();
        let is_of_here = last.boot == self.boot && last.namespace == self.namespace;
        let ended = if found.recorded.is_none() && found.torn_down.is_none() {
            last.pauses.clone()
        } else {
            Vec::new()
        };
        let (drains, pauses) = match found.recorded {
            Some(recorded) => (recorded.deadlines, recorded.pauses),
            // A service that has backends in the kernel was resumed since.
            None if is_record_lost && is_of_here => {
                let pauses = last.pauses.into_iter();
                let pauses = pauses.filter(|pause| silent.contains(&pause.service) && !pause.left(now.boot).is_zero());
                (Vec::new(), pauses.collect())
            }
            None => (Vec::new(), Vec::new()),
        };
        let left = drains.into_iter().filter_map(|deadline| {
            let endpoint = Endpoint::try_from(deadline.backend).ok()?;
            let time = TimeLeft {
                left: deadline.left(now.boot),
                whole: deadline.time,
            };
            Some(((endpoint, deadline.service.clone()), time))
        });
        self.problems.resolve(ProblemKind::KernelRefuses);
        if last.boot.is_empty() {
            // Before any change of a new store: one without this file would look like one that has lost it.
            self.due.remember_at_once(now.instant);
        } else {
            self.due.remember(now.instant);
        }
        let version = env!("CARGO_PKG_VERSION");
        if let Some(torn) = found.torn_down {
            self.phase = DaemonPhase::TornDown;
            self.torn = Some(torn);
            self.note(EventContent::Started { version, in_kernel }, now);
            return;
        }
        self.membership.adopt(services, &left.collect(), now.instant);
        self.phase = DaemonPhase::Running;
        self.full = Some("start".into());
        self.want(now.instant);
        self.pause_again(&pauses, now);
        self.pauses_ended(ended, now);
        if is_record_lost {
            self.record_lost = Some(self.without_record(silent));
        } else if is_of_here {
            self.record_lost = last.notes.record_lost;
        }
        self.judge_record(now);
        self.addresses_changed(now);
        self.probe(now.instant);
        self.note(EventContent::Started { version, in_kernel }, now);
    }

    /// Has the record name the store that is in use, if it names another one.
    fn judge_recorded_store(&mut self, now: Now) {
        let store = self.applied.as_ref().and_then(|applied| applied.store.as_ref());
        let known = (self.known_identity(), self.known_lineage().epoch);
        if store.is_some_and(|store| (store.identity, store.lineage.epoch) != known) {
            self.due.record_at_once(now.instant);
        }
    }

    /// Returns what follows from a file of last services that was missing. A new store has none.
    fn without_last(&self, last: &LastServices) -> Option<String> {
        let is_new = self.api.revision() == 0 && !self.order_queue.lost;
        // Who accepts another store than the one before has removed the file for that.
        let is_accepted = self.store_continuity == Continuity::Accepted;
        let is_missing = last.boot.is_empty() && !is_new && !is_accepted;
        (is_missing || last.notes.was_missing).then(|| {
            format!(
                "{} was missing when a daemon started, though the store beside it is not new: services that only this file knew are not \
                 served after a boot; check whether any is missing (`tcpgw service ls`), add it again, then reload the daemon to end \
                 this message",
                escape::path(&LastServices::path(&self.settings.store))
            )
        })
    }

    /// Takes the pauses that were in effect before the record was lost, and remembers those that are not in effect any
    /// more, and would not be over yet.
    fn pauses_ended(&mut self, pauses: Vec<RecordedPause>, now: Now) {
        let wanted = self.membership.wanted();
        let is_ended = |pause: &RecordedPause| {
            wanted.contains_key(&pause.service) && self.membership.pause_of(&pause.service).is_none()
        };
        let ended: Vec<RecordedPause> = pauses
            .into_iter()
            .filter(|pause| is_ended(pause) && pause.ends() > now.unix.as_secs())
            .collect();
        for pause in &ended {
            let (service, uid) = (&pause.service, pause.uid);
            tracing::warn!(%service, uid, "a pause has ended early, because its record is gone, as after a boot");
        }
        self.ended_pauses = ended;
        self.judgement.outdate();
    }

    /// Returns what follows from a record that was missing or damaged at the start. `silent`: services that had no backends in the
    /// kernel for new connections.
    fn without_record(&self, silent: BTreeSet<Box<str>>) -> String {
        let wanted = self.membership.wanted();
        let (paused, ended): (Vec<Box<str>>, Vec<Box<str>>) = silent
            .into_iter()
            .filter(|name| wanted.get(name).is_some_and(|service| service.has_active_backend()))
            .partition(|name| self.membership.pause_of(name).is_some());
        let naming = |names: &[Box<str>], what: &str| {
            let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
            (!names.is_empty()).then(|| format!("; {what}: {}", some_of(&names)))
        };
        let paused = naming(&paused, "paused still, by the copy beside the store").unwrap_or_default();
        let ended = naming(
            &ended,
            "without backends for new connections until then, so that a pause of them may have ended with the record",
        );
        format!(
            "the record in the run directory was missing or damaged when a daemon started, though there was a table in the kernel: what is \
             served goes on, and backends that drain have all of their time again{paused}{}; check whether services have to be paused \
             (`tcpgw pause`), then reload the daemon to end this message",
            ended.unwrap_or_default()
        )
    }

    /// Decides about services that were served and that no provider defines. Returns the orphans.
    fn settle_owners(
        &mut self,
        adopted: &[AdoptedService],
        former: &[AdoptedService],
        origin: Option<PathBuf>,
    ) -> Vec<(Service, bool)> {
        let facts = ProviderFacts {
            has_file: self.file.is_some(),
            follows_file: self.settings.state.is_some(),
            is_same_file: self.settings.state.is_some() && origin == self.settings.state,
            is_store_lost: self.order_queue.lost,
            follows_docker: self.config.docker.is_some(),
        };
        let (mut of_file, mut of_api, mut of_docker, mut orphans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for served in adopted.iter().chain(former) {
            let name = &served.wanted.name;
            if self.is_defined(name) {
                continue;
            }
            // Another store may have had a service of this name, or an older one may have removed an earlier service.
            let is_removed = self.store_continuity == Continuity::Continued && self.removed.contains_key(name);
            match facts.disposition(served, is_removed) {
                Disposition::Removed => {}
                Disposition::OfFile => of_file.push((&served.wanted, served.is_whole)),
                Disposition::OfApi => of_api.push((&served.wanted, served.is_whole)),
                Disposition::OfDocker => of_docker.push((&served.wanted, served.is_whole)),
                Disposition::Orphan => orphans.push((served.wanted.clone(), served.is_whole)),
            }
        }
        // A file that was never valid decides nothing: its services stay.
        if !facts.has_file && facts.follows_file {
            let kept = claimed::beside(of_file, self.api.services());
            self.file = Some(Arc::new(State::from_valid(kept.into_iter().map(Arc::new).collect())));
            self.file_origin = origin;
        }
        if self.order_queue.lost {
            let file = self.file.clone().unwrap_or_default();
            self.api.presume(claimed::beside(of_api, &file.services).into_iter());
            self.addon.learn(self.api.services());
        }
        if facts.follows_docker {
            let of_others = self.file.iter().flat_map(|file| &file.services);
            let kept = claimed::beside(of_docker, of_others.chain(self.api.services()));
            self.docker.presume(kept.into_iter());
        }
        orphans
    }

    /// Returns a service of the kernel with fields from its definition that the kernel does not hold: a drain that the
    /// record does not know has the time of its service.
    fn completed(&self, adopted: AdoptedService) -> Service {
        let mut service = adopted.serving;
        let file = self.file.as_ref().and_then(|file| file.get(&service.name));
        let api = self.api.get(&service.name).map(|stored| &stored.service);
        let docker = self.docker.get(&service.name);
        let wanted = file.or(api).or(docker).map_or(&adopted.wanted, AsRef::as_ref);
        service.drain_timeout = wanted.drain_timeout;
        service.health = wanted.health.clone();
        service.labels.clone_from(&wanted.labels);
        service
    }

    /// Rejects an empty first state of the file when services are served: a broken template must not remove all
    /// services.
    fn reject_empty_file(&mut self, adopted: &[AdoptedService], former: &[AdoptedService], now: Now) {
        let of_file = adopted.iter().chain(former);
        let of_file = of_file.filter(|served| matches!(served.owner, Some(Owner::File) | None));
        let of_file = of_file.map(|served| (&served.wanted, served.is_whole));
        let lost = claimed::beside(of_file, self.api.services()).len();
        let is_empty = self.file.as_ref().is_some_and(|file| file.services.is_empty());
        if is_empty && lost > 0 && !self.settings.allow_empty {
            let empty = self.file.take().unwrap_or_default();
            self.refuse_file(empty, vec![self.empty_file(lost)], now);
        }
    }
}
