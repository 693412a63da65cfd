//! Services in the kernel that a direct `apply` does not define and leaves alone: those of a daemon's API and orphans.
//!
//! A state file, whether the daemon follows it or `apply` reads it, is one provider: services that an earlier one has put into
//! the kernel are replaced. Services whose owner is not known stay.

mod found;
mod last;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::found::Others;
use self::last::{said_through_api, waiting};
use super::arguments::FileArgument;
use super::failure::Failure;
use super::gateway::Gateway;
use super::global::Global;
use crate::config::Config;
use crate::control::adopt::{AdoptedService, adopt};
use crate::control::claimed::{Claimed, Left, displacement};
use crate::reconcile::KnownContents;
use crate::record::boot_id;
use crate::store::last_services::LastServices;
use crate::unserved::{last_here, store_path};
use tcpgw_core::model::{InputProblem, InputProblems, Service, State};
use tcpgw_core::owner::{AllDetails, Details, Owner};
use tcpgw_core::summary::Summary;
use tcpgw_core::words::{count, first_and_more};

/// Largest number of names in one line.
const MOST_NAMES: usize = 20;

/// Reads the kernel, and finds the services in it that a state file must not replace. With `prune` there are none. Services of
/// the API that the state defines in the same way are taken out of the state.
pub(super) fn read(
    gateway: &mut Gateway,
    config: &Config,
    file: &FileArgument,
    state: &mut State,
    prune: bool,
) -> Result<(KnownContents, Others), Failure> {
    let store = store_path(config);
    let last = last_here(&store, gateway.namespace);
    let last = last.inspect_err(|error| tracing::warn!("{error}")).unwrap_or_default();
    let mut guide = Summary::from(&*state);
    let of_last = last.iter().flat_map(|last| &last.services);
    guide.complete_from(&of_last.map(|(_, service)| &**service).collect());
    let known = gateway.reconciler(config).read_contents(&guide)?;
    let nothing = LastServices::default();
    let of_last = last.as_ref().unwrap_or(&nothing);
    let recorded = known.recorded.as_ref();
    let is_last_newer =
        recorded.is_some_and(|recorded| of_last.is_newer(recorded.known(), &boot_id(), gateway.namespace));
    let adopted = adopt(&known.summary, recorded, of_last, is_last_newer);
    // Without a record the owners of services are not known.
    let is_orphan = known.recorded.is_none();
    let not_held: BTreeSet<Box<str>> = last
        .iter()
        .filter(|last| last.boot == boot_id())
        .flat_map(|last| known.lost(last))
        .map(|(_, name)| name.into())
        .collect();
    let of_last = last.iter().flat_map(|last| {
        if last.boot == boot_id() {
            let missing = known.lost(last).filter(|(_, name)| state.get(name).is_none());
            missing.map(|(owner, name)| (owner, name.into())).collect()
        } else {
            waiting(last, &adopted, state)
        }
    });
    let waiting = of_last.collect();
    let of_others = adopted.into_iter().filter_map(|found| match found.owner {
        Some(owner) if owner.is_of_daemon() || owner.is_orphan() => Some((owner, found)),
        None if is_orphan => Some((Owner::Found, found)),
        Some(_) | None => None,
    });
    let of_others: Vec<(Owner, AdoptedService)> = of_others.collect();
    let defined_by_api = last
        .iter()
        .flat_map(|last| said_through_api(last, &of_others, &not_held, &boot_id()));
    // A suspended service, or one that is held back, is not complete in the kernel.
    let defined_by_api = defined_by_api.map(|service| (service.name.clone(), Service::clone(service)));
    let defined_by_api: BTreeMap<Box<str>, Service> = defined_by_api.collect();
    let mut others =
        Others::settle(of_others.into_iter(), &defined_by_api, state, prune).map_err(|problems| Failure::Invalid {
            file: file.file.clone(),
            problems,
        })?;
    others.waiting = waiting;
    let is_nothing_known = known.recorded.is_none() && known.summary.services.is_empty();
    others.is_all_lost = is_nothing_known || last.as_ref().is_some_and(|last| last.boot != boot_id());
    others.last = last.map(|last| (LastServices::path(&store), last));
    Ok((known, others))
}

impl Others {
    /// Decides which services of other providers stay beside a state. `defined_by_api` are those of the API, by name, as far as their
    /// definitions are known: the kernel does not have all of a service that is suspended or held back.
    ///
    /// # Errors
    /// Fails with one problem for each service of the API that the state would change.
    fn settle(
        found: impl Iterator<Item = (Owner, AdoptedService)>,
        defined_by_api: &BTreeMap<Box<str>, Service>,
        state: &mut State,
        prune: bool,
    ) -> Result<Self, InputProblems> {
        let mut others = Self {
            prunes: prune,
            ..Self::default()
        };
        let (mut problems, mut stays) = (Vec::new(), Vec::new());
        let found: Vec<(Owner, AdoptedService)> = found.collect();
        if !prune {
            let of_api = found.iter().filter(|(owner, _)| *owner == Owner::Api);
            let of_api = of_api.map(|(_, of)| {
                (
                    &*of.wanted.name,
                    defined_by_api.get(&of.wanted.name).unwrap_or(&of.wanted),
                )
            });
            let of_api: BTreeMap<&str, &Service> = of_api.collect();
            let is_same = |service: &Service| of_api.get(&*service.name).is_some_and(|known| **known == *service);
            state.services.retain(|service| !is_same(service));
        }
        let claimed = Claimed::by(&state.services);
        if !prune {
            // A state that has the same service as the API creates it, if the kernel does not hold it.
            let is_in_state = |of_api: &Service| state.get(&of_api.name).is_some_and(|service| **service == *of_api);
            let others = defined_by_api.values().filter(|of_api| !is_in_state(of_api));
            problems.extend(others.filter_map(|of_api| refusal(Owner::Api, of_api, &claimed.leave(of_api, true))));
        }
        for (owner, found) in found {
            let name = &found.serving.name;
            if prune {
                // A daemon that starts makes its API's anew, also where the state has one of that name.
                if owner.is_of_daemon() || state.get(name).is_none() {
                    others.pruned.push((owner, name.clone()));
                }
                continue;
            }
            let comparable = Service {
                health: found.wanted.health.clone(),
                ..found.serving.clone()
            };
            let left = claimed.leave(&comparable, found.is_whole);
            if owner.is_of_daemon() {
                let is_known = defined_by_api.contains_key(&**name);
                problems.extend(refusal(owner, &comparable, &left).filter(|_| !is_known));
                stays.push((owner, found.serving.clone(), found));
                continue;
            }
            others.displaced.extend(displacement(&comparable, &left));
            if let Some(rest) = left.reached(&found.serving) {
                stays.push((owner, rest, found));
            }
        }
        problems.into_iter().collect::<InputProblems>().into_result()?;
        for (owner, rest, found) in stays {
            let details = Details::new(owner, &found.wanted, &found.serving).suspended(found.is_suspended);
            others.details.insert(rest.name.clone(), details);
            others.services.push(rest);
        }
        Ok(others)
    }

    /// Returns whether a service of that name is among those that stay.
    pub(super) fn stays(&self, name: &str) -> bool {
        self.services.iter().any(|service| *service.name == *name)
    }

    /// Returns the names of those that stay.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| &*service.name)
    }

    /// Reports the services that stay, and those that are removed and will come back.
    pub(super) fn tell(&self, global: &Global) {
        for warning in self.warnings() {
            global.warn(&warning);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (owner, whose) in [
            (Owner::Api, "of the daemon's API"),
            (Owner::Docker, "of Docker's containers"),
            (Owner::Orphan, "that no provider defines any more"),
        ] {
            let of_owner = |name: &str| {
                self.details
                    .get(name)
                    .is_some_and(|details| details.owner.name() == owner.name())
            };
            let names = self
                .services
                .iter()
                .map(|service| &*service.name)
                .filter(|name| of_owner(name));
            let names: Vec<&str> = names.collect();
            if !names.is_empty() {
                let (stay, it) = if names.len() == 1 {
                    ("stays", "it")
                } else {
                    ("stay", "them")
                };
                let services = count(names.len(), "service");
                let names = first_and_more(names, MOST_NAMES);
                warnings.push(format!("{services} {whose} {stay}: {names}; --prune removes {it}"));
            }
        }
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|(owner, _)| !(self.prunes && owner.is_orphan()));
        let waiting: Vec<&str> = waiting.map(|(_, name)| &**name).collect();
        if !waiting.is_empty() {
            let (services, names) = (count(waiting.len(), "service"), first_and_more(&waiting, MOST_NAMES));
            warnings.push(format!(
                "{services} of the daemon's API, of Docker's containers, or that no provider defines, that the kernel does not hold: {names}; a daemon that starts serves \
                 what is wanted of them"
            ));
        }
        warnings.extend(self.displaced.iter().take(MOST_NAMES).cloned());
        let more = self.displaced.len().saturating_sub(MOST_NAMES);
        if more > 0 {
            let services = count(more, "more service");
            warnings.push(format!(
                "{services} that no provider defines any more lose backends, or end"
            ));
        }
        for (of, whose, removal) in [
            (
                Owner::Api,
                "its API's services",
                "`tcpgw service rm NAME` removes them for good",
            ),
            (
                Owner::Docker,
                "services of Docker's containers",
                "they end when their containers are removed",
            ),
        ] {
            let pruned = self.pruned.iter().filter(|(owner, _)| *owner == of);
            let pruned: Vec<&str> = pruned.map(|(_, name)| &**name).collect();
            if !pruned.is_empty() {
                let names = first_and_more(&pruned, MOST_NAMES);
                warnings.push(format!("a daemon that starts serves {whose} again: {names}; {removal}"));
            }
        }
        warnings
    }

    /// Returns the owners of the services from now on.
    pub(super) fn details_with(&self, state: &State) -> AllDetails {
        let of_state = state.services.iter().filter_map(|service| {
            let details = Details::new(Owner::File, service, service);
            (!details.is_default()).then(|| (service.name.clone(), details))
        });
        of_state.chain(self.details.clone()).collect()
    }
}

/// Returns why a state may not stand beside a service of the API; `None`: it may.
fn refusal(owner: Owner, of_daemon: &Service, left: &Left<'_>) -> Option<InputProblem> {
    let name = &of_daemon.name;
    let whose = if owner == Owner::Docker {
        "Docker's containers"
    } else {
        "the daemon's API"
    };
    let (by, message) = match left {
        Left::Whole | Left::Completed(_) => return None,
        Left::Nothing(by) if by.name == *name => (by, format!("is a service of {whose}")),
        Left::Nothing(by) => (
            by,
            format!("port {} is already taken by service \"{name}\" of {whose}", by.port),
        ),
        Left::Part(rest, by) => {
            let stays = |at| rest.backends.iter().any(|backend| backend.endpoint == at);
            let mut lost = of_daemon.backends.iter().map(|backend| backend.endpoint);
            let lost = lost.find(|at| !stays(*at))?;
            let why = "with another limit, source, source_addresses or health, on which both must agree";
            (
                by,
                format!("{lost} is also a backend of service \"{name}\" of {whose}, {why}"),
            )
        }
    };
    Some(InputProblem {
        place: format!("service \"{}\"", by.name),
        message: format!(
            "{message}: start the daemon and {}, or give --prune, which replaces all services of the API and of containers until a daemon starts",
            if owner == Owner::Docker {
                "change the labels of the containers".to_owned()
            } else {
                format!("change it there (`tcpgw service set {name}`, `tcpgw service rm {name}`)")
            }
        ),
    })
}
