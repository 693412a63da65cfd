//! Use of the daemon's file of last services: services of other providers in it, and changes that an `apply` writes to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::cli::failure::Failure;
use crate::cli::global::Global;
use crate::cli::others::Others;
use crate::control::adopt::AdoptedService;
use crate::record::boot_id;
use crate::store::last_services::LastServices;
use tcpgw_core::model::{Service, State};
use tcpgw_core::owner::Owner;

/// Returns the services of the API and orphans that a daemon served before the machine booted, that the kernel does not hold
/// and that the state does not define.
pub(super) fn waiting(last: &LastServices, found: &[AdoptedService], state: &State) -> Vec<(Owner, Box<str>)> {
    let is_there = |name: &str| found.iter().any(|found| *found.wanted.name == *name);
    let waiting = last.services.iter().filter(|(owner, service)| {
        *owner != Owner::File && state.get(&service.name).is_none() && !is_there(&service.name)
    });
    waiting.map(|(owner, service)| (*owner, service.name.clone())).collect()
}

/// Returns the API's services as they were defined, of those that this boot serves, completely or not, or holds back, or that
/// are `not_held` by the kernel. Services of another boot are known by the file only: a daemon that starts serves all of them
/// again.
pub(super) fn said_through_api<'a>(
    last: &'a LastServices,
    found: &'a [(Owner, AdoptedService)],
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
    /// Returns services of a state as they were served before the machine booted while a change of them was held back, and as
    /// nothing serves them now.
    pub(in crate::cli) fn before(&self, state: &State) -> Vec<Arc<Service>> {
        let Some((_, last)) = &self.last else {
            return Vec::new();
        };
        let kept = last.kept.iter().filter(|kept| kept.is_unserved || self.is_all_lost);
        let kept = kept.filter(|kept| state.get(&kept.service.name).is_some());
        kept.map(|kept| Arc::clone(&kept.service)).collect()
    }

    /// Notes, for the next start of a daemon, that the kernel has lost services which were not removed by an order, before the
    /// record is replaced by one without them.
    pub(in crate::cli) fn remember_lost(&mut self, global: &Global) {
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

    /// Removes the orphans that are to be removed from the file of last services, before they are removed from the kernel:
    /// otherwise they would come back when a daemon starts.
    ///
    /// # Errors
    /// Fails when the file cannot be written; nothing is to be changed then.
    pub(in crate::cli) fn forget_pruned(&self, held: &BTreeSet<Box<str>>) -> Result<(), Failure> {
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

    /// Returns whether orphans are removed: otherwise the earlier record would bring them back.
    pub(in crate::cli) fn prunes_orphans(&self) -> bool {
        let waiting = self.waiting.iter().filter(|_| self.prunes);
        self.pruned.iter().chain(waiting).any(|(owner, _)| owner.is_orphan())
    }

    /// Takes [`Self::forget_pruned`] back: the orphans are still there.
    pub(in crate::cli) fn remember_pruned(&self, global: &Global) {
        if let Some((path, last)) = self.last.as_ref().filter(|_| self.prunes)
            && let Err(error) = last.save(path)
        {
            let path = tcpgw_core::escape::path(path);
            global.warn(&format!(
                "failed to write {path}: {error}; a machine that boots may not know services that no provider defines"
            ));
        }
    }

    /// Removes services that were held back of a state file which this one replaces, so that they do not come back when a
    /// daemon starts. `held`: services of this one that are held back.
    pub(in crate::cli) fn forget_replaced(&self, global: &Global, held: &BTreeSet<Box<str>>) {
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

    /// Returns the new contents of the file of last services; `None`: it stays as it is.
    fn left(&self, held: &BTreeSet<Box<str>>) -> Option<(&Path, LastServices)> {
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
                Owner::Api | Owner::Docker => true,
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
