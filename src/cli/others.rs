//! Services in the kernel that a direct `apply` does not define and leaves alone: those of a daemon's API and orphans.
//!
//! A state file, whether the daemon follows it or `apply` reads it, is one provider: what an earlier one has put into the
//! kernel is replaced. What belongs to nobody that is known stays where a daemon has been at work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::gateway::Gateway;
use super::{Failure, Global};
use crate::config::Config;
use crate::daemon::adopt::{adopt, beside};
use crate::daemon::last::Last;
use crate::daemon::settings::DEFAULT_STORE;
use crate::model::{Service, State};
use crate::owner::{AllDetails, Details, Owner};
use crate::reconcile::Known;
use crate::record::boot_id;
use crate::summary::Summary;
use crate::words::count;

/// Names in one line.
const MOST_NAMES: usize = 20;

/// Those that stay, and those that go.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// As the kernel holds them, and shall go on to.
    pub(super) services: Vec<Service>,
    details: AllDetails,
    pruned: Vec<(Owner, Box<str>)>,
    last: Option<(PathBuf, Last)>,
}

/// Looks at the kernel, and finds the services in it that are not for a state file to replace. With `prune` none are.
pub(super) fn look(
    gateway: &mut Gateway,
    config: &Config,
    state: &State,
    prune: bool,
) -> Result<(Known, Others), Failure> {
    let store = store_path(config);
    let last = last_here(&store, gateway.namespace);
    let was_daemon = last.is_some() || store.symlink_metadata().is_ok();
    let mut guide = Summary::from(state);
    let of_last = last.iter().flat_map(|last| &last.services);
    guide.complete_from(&of_last.map(|(_, service)| &**service).collect());
    let known = gateway.reconciler(config).look(&guide)?;
    let nothing = Last::default();
    let adopted = adopt(
        &known.summary,
        known.recorded.as_ref(),
        last.as_ref().unwrap_or(&nothing),
    );
    let mut others = Others {
        last: last.map(|last| (Last::path(&store), last)),
        ..Others::default()
    };
    let mut stays = Vec::new();
    for found in adopted {
        let owner = match found.owner {
            Some(owner @ (Owner::Api | Owner::Orphan)) => owner,
            // A record that does not know it is older than it.
            None if was_daemon && known.recorded.is_none() => Owner::Orphan,
            Some(Owner::File | Owner::Removed) | None => continue,
        };
        let name = found.serving.name.clone();
        if state.get(&name).is_some() {
            continue;
        }
        if prune {
            others.pruned.push((owner, name));
            continue;
        }
        others
            .details
            .insert(name, Details::new(owner, &found.wanted, &found.serving));
        stays.push(found.serving);
    }
    let empty: BTreeSet<&str> = stays
        .iter()
        .filter(|service| service.backends.is_empty())
        .map(|service| &*service.name)
        .collect();
    others.services = beside(&stays, state.services.iter());
    // The state gives all backends of the others to services of its own.
    others
        .services
        .retain(|service| !service.backends.is_empty() || empty.contains(&*service.name));
    let left: BTreeSet<&str> = others.services.iter().map(|service| &*service.name).collect();
    others.details.retain(|name, _| left.contains(&**name));
    Ok((known, others))
}

/// Where a daemon keeps its store, as far as its environment and the configuration tell.
fn store_path(config: &Config) -> PathBuf {
    let named = std::env::var_os("TCPGW_STORE").filter(|path| !path.is_empty());
    let named = named.map(PathBuf::from).or_else(|| config.daemon.store.clone());
    named.unwrap_or_else(|| DEFAULT_STORE.into())
}

/// What a daemon of this network namespace wanted last. In another boot namespaces had other numbers.
fn last_here(store: &Path, namespace: u64) -> Option<Last> {
    let last = Last::load(&Last::path(store));
    let last = last.inspect_err(|error| tracing::warn!("{error}")).ok().flatten()?;
    (last.namespace == namespace || last.boot != boot_id()).then_some(last)
}

impl Others {
    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = Value> + '_ {
        self.services.iter().map(|service| Value::from(&*service.name))
    }

    /// Says which stay, and which of those that go come back.
    pub(super) fn tell(&self, global: &Global) {
        for (owner, whose) in [
            (Owner::Api, "of the daemon's API"),
            (Owner::Orphan, "that no provider defines any more"),
        ] {
            let of_owner = |name: &str| self.details.get(name).is_some_and(|details| details.owner == owner);
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

    /// Orphans that were removed are not to come back when a daemon starts.
    pub(super) fn forget_pruned(&self, global: &Global) {
        let Some((path, last)) = &self.last else { return };
        let is_pruned = |name: &str| {
            self.pruned
                .iter()
                .any(|(owner, of)| *owner == Owner::Orphan && **of == *name)
        };
        let mut left = last.clone();
        left.services
            .retain(|(owner, service)| *owner == Owner::Api || !is_pruned(&service.name));
        if left.services.len() == last.services.len() {
            return;
        }
        if let Err(error) = left.save(path) {
            let path = crate::escape::path(path);
            global.warn(&format!(
                "failed to write {path}: {error}; a daemon may serve the services that were removed when this machine has booted"
            ));
        }
    }
}

fn shown(names: &[&str]) -> String {
    let text = names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
