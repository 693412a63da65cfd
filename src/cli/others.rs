//! Services in the kernel that a direct `apply` does not define and leaves alone: those of a daemon's API and orphans.
//!
//! A state file, whether the daemon follows it or `apply` reads it, is one provider: what an earlier one has put into the
//! kernel is replaced. What belongs to nobody that is known stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gateway::Gateway;
use super::{Failure, File, Global};
use crate::config::Config;
use crate::control::adopt::{Adopted, adopt};
use crate::control::claimed::{Claimed, Left, displacement};
use crate::reconcile::Known;
use crate::record::boot_id;
use crate::store::last::Last;
use crate::unserved::{last_here, store_path};
use tcpgw_core::diff::count;
use tcpgw_core::model::{Problem, Problems, Service, State};
use tcpgw_core::owner::{AllDetails, Details, Owner};
use tcpgw_core::summary::Summary;

/// Names in one line.
const MOST_NAMES: usize = 20;

/// Those that stay, and those that go.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// As the kernel holds them, and shall go on to.
    pub(super) services: Vec<Service>,
    details: AllDetails,
    pruned: Vec<(Owner, Box<str>)>,
    prunes: bool,
    /// What the state takes from orphans, in words.
    displaced: Vec<String>,
    /// Those of the API and orphans that the kernel does not hold, and that the state does not define.
    waiting: Vec<(Owner, Box<str>)>,
    last: Option<(PathBuf, Last)>,
    /// Nothing is left of what was served: the machine has booted.
    is_all_lost: bool,
}

/// Looks at the kernel, and finds the services in it that are not for a state file to replace. With `prune` none are. What the
/// state says of a service of the API as it is already is taken out of it.
pub(super) fn look(
    gateway: &mut Gateway,
    config: &Config,
    file: &File,
    state: &mut State,
    prune: bool,
) -> Result<(Known, Others), Failure> {
    let store = store_path(config);
    let last = last_here(&store, gateway.namespace);
    let last = last.inspect_err(|error| tracing::warn!("{error}")).unwrap_or_default();
    let mut guide = Summary::from(&*state);
    let of_last = last.iter().flat_map(|last| &last.services);
    guide.complete_from(&of_last.map(|(_, service)| &**service).collect());
    let known = gateway.reconciler(config).look(&guide)?;
    let nothing = Last::default();
    let of_last = last.as_ref().unwrap_or(&nothing);
    let recorded = known.recorded.as_ref();
    let is_last_newer =
        recorded.is_some_and(|recorded| of_last.is_newer(recorded.known(), &boot_id(), gateway.namespace));
    let adopted = adopt(&known.summary, recorded, of_last, is_last_newer);
    // Without a record nobody knows whose a service is.
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
        Some(owner) if owner == Owner::Api || owner.is_orphan() => Some((owner, found)),
        None if is_orphan => Some((Owner::Found, found)),
        Some(_) | None => None,
    });
    let of_others: Vec<(Owner, Adopted)> = of_others.collect();
    let said = last
        .iter()
        .flat_map(|last| said_through_api(last, &of_others, &not_held, &boot_id()));
    // One that is suspended or held back is not whole in the kernel.
    let said = said.map(|service| (service.name.clone(), Service::clone(service)));
    let said: BTreeMap<Box<str>, Service> = said.collect();
    let mut others =
        Others::settle(of_others.into_iter(), &said, state, prune).map_err(|problems| Failure::Invalid {
            file: file.file.clone(),
            problems,
        })?;
    others.waiting = waiting;
    let is_nothing_known = known.recorded.is_none() && known.summary.services.is_empty();
    others.is_all_lost = is_nothing_known || last.as_ref().is_some_and(|last| last.boot != boot_id());
    others.last = last.map(|last| (Last::path(&store), last));
    Ok((known, others))
}

/// Those of the API and orphans that a daemon served before the machine booted, that the kernel does not hold and that the state does not
/// define.
fn waiting(last: &Last, found: &[Adopted], state: &State) -> Vec<(Owner, Box<str>)> {
    let is_there = |name: &str| found.iter().any(|found| *found.wanted.name == *name);
    let waiting = last.services.iter().filter(|(owner, service)| {
        *owner != Owner::File && state.get(&service.name).is_none() && !is_there(&service.name)
    });
    waiting.map(|(owner, service)| (*owner, service.name.clone())).collect()
}

/// Services of the API as they were put there, of those that this boot serves, whole or not, or holds back, or that are `not_held` by the
/// kernel. Of another boot nothing but the file tells: a daemon that starts serves all of them again.
fn said_through_api<'a>(
    last: &'a Last,
    found: &'a [(Owner, Adopted)],
    not_held: &'a BTreeSet<Box<str>>,
    boot: &str,
) -> impl Iterator<Item = &'a Service> + use<'a> {
    let is_of_boot = last.boot == boot;
    let is_there = |name: &str| {
        let mut found = found.iter();
        found.any(|(owner, found)| *owner == Owner::Api && *found.wanted.name == *name)
            || last.unserved.contains(name)
            || not_held.contains(name)
    };
    let of_api = last.services.iter().filter(|(owner, _)| *owner == Owner::Api);
    let of_api = of_api.filter(move |(_, service)| !is_of_boot || is_there(&service.name));
    of_api.map(|(_, service)| &**service)
}

impl Others {
    /// Decides what becomes of services that others define, beside those of a state. `said` are those of the API, by name, as
    /// far as they are known as they were put there: of one that is suspended or held back the kernel has not all.
    ///
    /// # Errors
    /// One problem for each service of the API that the state would change.
    fn settle(
        found: impl Iterator<Item = (Owner, Adopted)>,
        said: &BTreeMap<Box<str>, Service>,
        state: &mut State,
        prune: bool,
    ) -> Result<Self, Problems> {
        let mut others = Self {
            prunes: prune,
            ..Self::default()
        };
        let (mut problems, mut stays) = (Vec::new(), Vec::new());
        let found: Vec<(Owner, Adopted)> = found.collect();
        if !prune {
            let of_api = found.iter().filter(|(owner, _)| *owner == Owner::Api);
            let of_api = of_api.map(|(_, of)| (&*of.wanted.name, said.get(&of.wanted.name).unwrap_or(&of.wanted)));
            let of_api: BTreeMap<&str, &Service> = of_api.collect();
            let is_same = |service: &Service| of_api.get(&*service.name).is_some_and(|known| **known == *service);
            state.services.retain(|service| !is_same(service));
        }
        let claimed = Claimed::by(&state.services);
        if !prune {
            // What the kernel does not hold is made by whoever says the same of it.
            let is_said = |of_api: &Service| state.get(&of_api.name).is_some_and(|service| **service == *of_api);
            let others = said.values().filter(|of_api| !is_said(of_api));
            problems.extend(others.filter_map(|of_api| refusal(of_api, &claimed.leave(of_api, true))));
        }
        for (owner, found) in found {
            let name = &found.serving.name;
            if prune {
                // A daemon that starts makes its API's anew, also where the state has one of that name.
                if owner == Owner::Api || state.get(name).is_none() {
                    others.pruned.push((owner, name.clone()));
                }
                continue;
            }
            let comparable = Service {
                health: found.wanted.health,
                ..found.serving.clone()
            };
            let left = claimed.leave(&comparable, found.is_whole);
            if owner == Owner::Api {
                let is_said = said.contains_key(&**name);
                problems.extend(refusal(&comparable, &left).filter(|_| !is_said));
                stays.push((owner, found.serving.clone(), found));
                continue;
            }
            others.displaced.extend(displacement(&comparable, &left));
            if let Some(rest) = left.reached(&found.serving) {
                stays.push((owner, rest, found));
            }
        }
        problems.into_iter().collect::<Problems>().into_result()?;
        for (owner, rest, found) in stays {
            let details = Details::new(owner, &found.wanted, &found.serving).suspended(found.is_suspended);
            others.details.insert(rest.name.clone(), details);
            others.services.push(rest);
        }
        Ok(others)
    }

    /// Whether a service of that name is among those that stay.
    pub(super) fn stays(&self, name: &str) -> bool {
        self.services.iter().any(|service| *service.name == *name)
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| &*service.name)
    }

    /// Says which stay, and which of those that go come back.
    pub(super) fn tell(&self, global: &Global) {
        for (owner, whose) in [
            (Owner::Api, "of the daemon's API"),
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
                let names = shown(&names);
                global.warn(&format!("{services} {whose} {stay}: {names}; --prune removes {it}"));
            }
        }
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|(owner, _)| !(self.prunes && owner.is_orphan()));
        let waiting: Vec<&str> = waiting.map(|(_, name)| &**name).collect();
        if !waiting.is_empty() {
            let (services, names) = (count(waiting.len(), "service"), shown(&waiting));
            global.warn(&format!(
                "{services} of the daemon's API, or that no provider defines, that the kernel does not hold: {names}; a daemon that starts serves \
                 what is wanted of them"
            ));
        }
        for text in self.displaced.iter().take(MOST_NAMES) {
            global.warn(text);
        }
        let more = self.displaced.len().saturating_sub(MOST_NAMES);
        if more > 0 {
            let services = count(more, "more service");
            global.warn(&format!(
                "{services} that no provider defines any more lose backends, or end"
            ));
        }
        let pruned = self.pruned.iter().filter(|(owner, _)| *owner == Owner::Api);
        let pruned: Vec<&str> = pruned.map(|(_, name)| &**name).collect();
        if !pruned.is_empty() {
            let names = shown(&pruned);
            global.warn(&format!(
                "a daemon that starts serves its API's services again: {names}; `tcpgw service rm NAME` removes them for good"
            ));
        }
    }

    /// Whose the services are from now on.
    pub(super) fn details_with(&self, state: &State) -> AllDetails {
        let of_state = state.services.iter().filter_map(|service| {
            let details = Details::new(Owner::File, service, service);
            (!details.is_default()).then(|| (service.name.clone(), details))
        });
        of_state.chain(self.details.clone()).collect()
    }

    /// Services of a state as they were served before the machine booted while a change of them was held back, and as nothing
    /// serves them now.
    pub(super) fn before(&self, state: &State) -> Vec<Arc<Service>> {
        let Some((_, last)) = &self.last else {
            return Vec::new();
        };
        let kept = last.kept.iter().filter(|kept| kept.is_unserved || self.is_all_lost);
        let kept = kept.filter(|kept| state.get(&kept.service.name).is_some());
        kept.map(|kept| Arc::clone(&kept.service)).collect()
    }

    /// Notes for a daemon that starts that the kernel has lost services which nobody has removed, before the record says no more that
    /// they were served.
    pub(super) fn remember_lost(&mut self, global: &Global) {
        let of_boot = self.last.as_mut().filter(|(_, last)| last.boot == boot_id());
        let Some((path, last)) = of_boot else { return };
        let missing = self.waiting.iter().map(|(_, name)| name);
        let missing: Vec<&Box<str>> = missing.filter(|name| !last.unserved.contains(*name)).collect();
        if missing.is_empty() {
            return;
        }
        last.unserved.extend(missing.into_iter().cloned());
        if let Err(error) = last.save(path) {
            let path = tcpgw_core::escape::path(path);
            global.warn(&format!(
                "failed to write {path}: {error}; a daemon that starts may not know that services are to be served that the kernel does not hold"
            ));
        }
    }

    /// Orphans that are to be removed are not to come back when a daemon starts: only the file of last services says so, and it says it
    /// before they are removed.
    ///
    /// # Errors
    /// The file cannot be written: nothing is to be changed.
    pub(super) fn forget_pruned(&self, held: &BTreeSet<Box<str>>) -> Result<(), Failure> {
        let Some((path, left)) = self.prunes.then(|| self.left(held)).flatten() else {
            return Ok(());
        };
        left.save(path).map_err(|error| {
            let path = tcpgw_core::escape::path(path);
            Failure::Refused(format!(
                "failed to write {path}, which alone says that services no provider defines were removed: {error}; nothing was changed; make \
                 it writable, then try again"
            ))
        })
    }

    /// Whether orphans are removed: the record of before would have them come back.
    pub(super) fn prunes_orphans(&self) -> bool {
        let waiting = self.waiting.iter().filter(|_| self.prunes);
        self.pruned.iter().chain(waiting).any(|(owner, _)| owner.is_orphan())
    }

    /// Takes [`Self::forget_pruned`] back: the orphans are still there.
    pub(super) fn remember_pruned(&self, global: &Global) {
        if let Some((path, last)) = self.last.as_ref().filter(|_| self.prunes)
            && let Err(error) = last.save(path)
        {
            let path = tcpgw_core::escape::path(path);
            global.warn(&format!(
                "failed to write {path}: {error}; a machine that boots may not know services that no provider defines"
            ));
        }
    }

    /// What was held back of a state file that this one replaces is not to come back when a daemon starts. `held`: services of this one
    /// that are held back.
    pub(super) fn forget_replaced(&self, global: &Global, held: &BTreeSet<Box<str>>) {
        let left = (!self.prunes).then(|| self.left(held)).flatten();
        if let Some((path, left)) = left
            && let Err(error) = left.save(path)
        {
            let path = tcpgw_core::escape::path(path);
            global.warn(&format!(
                "failed to write {path}: {error}; a daemon may serve the services that were replaced when this machine has booted"
            ));
        }
    }

    /// What the file of last services is to say then; `None`: what it says.
    fn left(&self, held: &BTreeSet<Box<str>>) -> Option<(&Path, Last)> {
        let (path, last) = self.last.as_ref()?;
        let is_pruned = |name: &str| {
            let waiting = self.waiting.iter().filter(|_| self.prunes);
            let mut pruned = self.pruned.iter().chain(waiting);
            pruned.any(|(owner, of)| owner.is_orphan() && **of == *name)
        };
        let mut left = last.clone();
        left.services.retain(|(owner, service)| {
            let is_unserved = last.unserved.contains(&service.name);
            match owner {
                Owner::Api => true,
                Owner::File if is_unserved => false,
                _ => !(is_unserved && self.prunes || is_pruned(&service.name)),
            }
        });
        let names: BTreeSet<&str> = left.services.iter().map(|(_, service)| &*service.name).collect();
        let is_left = |name: &str| held.contains(name) || names.contains(name);
        left.kept = last
            .kept
            .iter()
            .filter(|kept| is_left(&kept.service.name))
            .cloned()
            .collect();
        (left != *last).then_some((path.as_path(), left))
    }
}

/// Why a state may not stand beside a service of the API; `None`: it may.
fn refusal(of_api: &Service, left: &Left<'_>) -> Option<Problem> {
    let name = &of_api.name;
    let (by, message) = match left {
        Left::Whole | Left::Completed(_) => return None,
        Left::Nothing(by) if by.name == *name => (by, "is a service of the daemon's API".to_owned()),
        Left::Nothing(by) => (
            by,
            format!(
                "port {} is already taken by service \"{name}\" of the daemon's API",
                by.port
            ),
        ),
        Left::Part(rest, by) => {
            let stays = |at| rest.backends.iter().any(|backend| backend.endpoint == at);
            let mut lost = of_api.backends.iter().map(|backend| backend.endpoint);
            let lost = lost.find(|at| !stays(*at))?;
            let why = "with another limit, source, source_addresses or health, on which both must agree";
            (
                by,
                format!("{lost} is also a backend of service \"{name}\" of the daemon's API, {why}"),
            )
        }
    };
    Some(Problem {
        place: format!("service \"{}\"", by.name),
        message: format!(
            "{message}: start the daemon and change it there (`tcpgw service set {name}`, `tcpgw service rm {name}`), or give --prune, which \
             replaces all services of the API until a daemon starts"
        ),
    })
}

fn shown(names: &[&str]) -> String {
    let text = names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        let text = format!(r#"{{"version": 1, "services": [{text}]}}"#);
        tcpgw_core::model::parse(text.as_bytes()).unwrap()
    }

    const OWN: &str = r#"{"name": "own", "port": 20005, "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]}"#;

    fn settled(owner: Owner, found: &str, beside: &str, prune: bool) -> (Result<Others, String>, State) {
        let found = state(found).services;
        let found = found.iter().map(|service| {
            let adopted = Adopted {
                serving: Service::clone(service),
                wanted: Service::clone(service),
                owner: Some(owner),
                is_whole: true,
                is_suspended: false,
            };
            (owner, adopted)
        });
        let mut state = state(beside);
        let others =
            Others::settle(found, &BTreeMap::new(), &mut state, prune).map_err(|problems| problems.to_string());
        (others, state)
    }

    #[test]
    fn an_endpoint_is_shared_with_a_service_of_the_api() {
        let web = r#"{"name": "web", "port": 20003, "backends": ["10.2.0.11:3000"]}"#;
        let others = settled(Owner::Api, OWN, web, false).0.unwrap();
        assert_eq!(others.services, [Service::clone(&state(OWN).services[0])]);
        assert_eq!(others.displaced, Vec::<String>::new());
    }

    /// Nothing is left in the kernel of what the API had, and a daemon that starts serves it.
    #[test]
    fn a_port_of_the_api_is_taken_on_a_machine_that_has_booted_too() {
        let last = Last {
            boot: "earlier".into(),
            services: vec![(Owner::Api, Arc::clone(&state(OWN).services[0]))],
            ..Last::default()
        };
        let port = r#"{"name": "web", "port": 20005, "backends": ["10.2.0.12:3000"]}"#;
        let mut web = state(port);
        assert_eq!(waiting(&last, &[], &web), [(Owner::Api, "own".into())]);
        let nothing = BTreeSet::new();
        let said = said_through_api(&last, &[], &nothing, "now").map(|of| (of.name.clone(), Service::clone(of)));
        let said: BTreeMap<Box<str>, Service> = said.collect();
        let refused = Others::settle([].into_iter(), &said, &mut web, false).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("port 20005 is already taken by service \"own\""),
            "{refused}"
        );
        Others::settle([].into_iter(), &said, &mut web, true).unwrap();
        // In the boot that served it, it was removed.
        assert_eq!(said_through_api(&last, &[], &BTreeSet::new(), "earlier").count(), 0);
        // Or somebody has removed the table.
        let not_held = BTreeSet::from(["own".into()]);
        assert_eq!(said_through_api(&last, &[], &not_held, "earlier").count(), 1);
    }

    /// Nothing in the kernel tells that a service of the API which is suspended has these backends.
    #[test]
    fn what_a_suspended_service_has_is_not_replaced() {
        let suspended = r#"{"name": "own", "port": 20005, "backends": []}"#;
        let said = state(OWN);
        let said = [("own".into(), Service::clone(&said.services[0]))].into();
        let adopted = || {
            let serving = Service::clone(&state(suspended).services[0]);
            (
                Owner::Api,
                Adopted {
                    wanted: serving.clone(),
                    serving,
                    owner: Some(Owner::Api),
                    is_whole: true,
                    is_suspended: true,
                },
            )
        };
        let settle = |found: Vec<(Owner, Adopted)>, beside: &str| {
            let mut state = state(beside);
            let settled = Others::settle(found.into_iter(), &said, &mut state, false);
            settled
                .map(|_| state.services.len())
                .map_err(|problems| problems.to_string())
        };
        let other = r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#;
        let same = r#"{"name": "web", "port": 20003, "backends": ["10.2.0.12:3000"]}"#;
        // Also when it is held back, and not in the kernel at all.
        for found in [vec![adopted()], Vec::new()] {
            let refused = settle(found.clone(), other).unwrap_err();
            assert_eq!(
                refused.matches("10.2.0.12:3000 is also a backend").count(),
                1,
                "{refused}"
            );
            settle(found.clone(), same).unwrap();
            // What says the same leaves it to the API, or serves what nobody serves.
            let is_held = !found.is_empty();
            assert_eq!(settle(found, OWN).unwrap(), usize::from(!is_held));
        }
    }

    #[test]
    fn a_service_of_the_api_is_not_replaced() {
        for (beside, why) in [
            (
                r#"{"name": "own", "port": 20009, "backends": ["10.2.0.13:3000"]}"#,
                "service \"own\": is a service of the daemon's API",
            ),
            (
                r#"{"name": "web", "port": 20005, "backends": ["10.2.0.13:3000"]}"#,
                "service \"web\": port 20005 is already taken by service \"own\"",
            ),
            (
                r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#,
                "service \"web\": 10.2.0.12:3000 is also a backend of service \"own\"",
            ),
        ] {
            let refused = settled(Owner::Api, OWN, beside, false).0.unwrap_err();
            assert!(
                refused.contains(why) && refused.contains("tcpgw service set own"),
                "{refused}"
            );
            let (pruned, _) = settled(Owner::Api, OWN, beside, true);
            let pruned = pruned.unwrap();
            assert_eq!(pruned.services, []);
            assert_eq!(pruned.pruned, [(Owner::Api, "own".into())]);
        }
    }

    /// An export that is applied again.
    #[test]
    fn what_says_the_same_leaves_it_to_the_api() {
        let (others, left) = settled(Owner::Api, OWN, OWN, false);
        let others = others.unwrap();
        assert_eq!(others.services.len(), 1);
        assert_eq!(others.details["own"].owner, Owner::Api);
        assert_eq!(left.services, []);
    }

    #[test]
    fn what_a_state_takes_from_an_orphan_is_said() {
        let port = r#"{"name": "web", "port": 20005, "backends": []}"#;
        let others = settled(Owner::Orphan, OWN, port, false).0.unwrap();
        assert!(
            others.services.is_empty() && others.displaced[0].contains("\"web\" listens there"),
            "{others:?}"
        );
        let limit = r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#;
        let others = settled(Owner::Orphan, OWN, limit, false).0.unwrap();
        assert_eq!(others.services[0].backends.len(), 1);
        assert!(others.displaced[0].contains("10.2.0.12:3000"), "{others:?}");
        // Its name is defined anew.
        let name = r#"{"name": "own", "port": 20006, "backends": []}"#;
        let others = settled(Owner::Orphan, OWN, name, false).0.unwrap();
        assert!(others.services.is_empty() && others.displaced.is_empty(), "{others:?}");
    }
}
