//! Opening the store, and reading what the daemon begins with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::addon;
use crate::control::storage::{Continuity, Opened, UnfinishedDeploy};
use crate::record::RecordedStore;
use crate::store::last_services::LastServices;
use crate::store::{
    ChangeAuthor, Expect, HistoryFilter, LoadedResources, MOST_EPOCHS, Store, StoreChange, StoreEdit, StoreEpoch,
    StoreError, StoreIdentity, StoreLineage, StoredDeploy, lost, write_count,
};
use tcpgw_core::escape;
use tcpgw_core::model::{Service, parse_service};
use tcpgw_core::owner::Owner;

/// Opens a store and reads its contents. Resources of the add-on, which a platform knows and cannot order again, are
/// restored from `last` if the store is new. `recorded`: what the record of this boot knows, which is written before
/// a change is acknowledged, unlike `last`. `now`: time since the Unix epoch.
///
/// # Errors
/// Fails when the store cannot be read, is that of another gateway or a copy that was used elsewhere, is older than `last` or `recorded`, or
/// lacks writes. A store that cannot be
/// written is no error, unless resources have to be restored.
pub fn open(
    path: &Path,
    last: &LastServices,
    recorded: &RecordedStore,
    now: Duration,
) -> Result<(Store, Opened), StoreError> {
    write_count::set_aside(path);
    let mut store = Store::open(path)?;
    let mut opened = read(&mut store)?;
    let found = opened.loaded.revision;
    // A store that continues the revisions of an earlier one, and has no further ones, is new, too.
    let is_new = (found == 0 || found == last.revision)
        && opened.loaded.services.is_empty()
        && opened.removed.is_empty()
        && opened.resources == LoadedResources::default();
    // If the file of last services was removed, the store is accepted as it is.
    let is_known = !last.boot.is_empty();
    let predecessors = Predecessor::all(path, last, recorded);
    let state = StoreState::new(&store, &opened);
    let mut continuity = state.continuity(&predecessors, store.lacks_writes());
    let known = if is_known && !is_new {
        last.revision.max(recorded.revision)
    } else {
        last.revision
    };
    if is_known && !is_new {
        state.is_ours(path, &predecessors)?;
    }
    let identity = last.identity.or(recorded.identity);
    if found < known {
        if !is_new {
            return Err(StoreError::Older {
                path: path.to_owned(),
                known,
                found,
            });
        }
        lost::note(path, last, now)?;
        store.succeed(identity, last.revision)?;
        opened = read(&mut store)?;
    } else if is_known && !is_new {
        state.is_not_copied(path, &predecessors)?;
    } else if is_known && is_new && identity.is_some() && store.identity() != identity && store.is_writable() {
        store.succeed(identity, last.revision)?;
        opened = read(&mut store)?;
    }
    if store.lacks_writes() {
        if is_known && !is_new {
            return Err(StoreError::Incomplete(path.to_owned()));
        }
        if is_known {
            lost::note(path, last, now)?;
        }
        store.accept()?;
    }
    if is_known && is_new {
        continuity = Continuity::Continued;
    } else if continuity != Continuity::Continued && !predecessors.is_empty() {
        tracing::warn!(
            "a store that does not continue the one before is accepted: services that are served and that it lacks are orphans"
        );
    }
    begin_epoch(&mut store, &predecessors, is_new);
    if let Some(change) = last.resources.as_ref().filter(|_| is_new).and_then(|_| restored(last)) {
        let by = ChangeAuthor {
            uid: nix::unistd::geteuid().as_raw(),
            pid: std::process::id(),
            what: "restore".into(),
        };
        store.commit(&change, &by, now)?;
        let resources = change.resources.len();
        tracing::warn!("the store is new: {resources} resources of the add-on were restored from {RESTORED_FROM}");
        opened = Opened {
            is_restored: true,
            ..read(&mut store)?
        };
    }
    let opened = Opened {
        continuity,
        epoch: store.epochs().first().copied(),
        trouble: store.trouble().cloned(),
        ..opened
    };
    Ok((store, opened))
}

/// Adds an epoch to the store, so that copies of it that go on elsewhere are told from it. What the files know of the store before does not
/// leave its epochs: they may not be written again before the next start. A new store stays without an epoch of its own, so that a backup of
/// the one that it replaces still fits.
fn begin_epoch(store: &mut Store, predecessors: &[Predecessor], is_new: bool) {
    if !store.is_writable() || store.lacks_writes() {
        return;
    }
    let known: Vec<StoreEpoch> = predecessors.iter().filter_map(|known| known.lineage.epoch).collect();
    let mut epochs = store.epochs().to_vec();
    let missing = known.iter().filter(|epoch| !epochs.contains(epoch)).copied();
    let mut missing: Vec<StoreEpoch> = missing.collect();
    missing.dedup();
    missing.append(&mut epochs);
    epochs = missing;
    if !is_new {
        match getrandom::u64() {
            Ok(random) => epochs.insert(0, StoreEpoch::new(random)),
            Err(error) => tracing::warn!("the store gets no epoch: {error}"),
        }
    }
    let (kept, left) = epochs.split_at(epochs.len().min(MOST_EPOCHS));
    if kept == store.epochs() || left.iter().any(|epoch| known.contains(epoch)) {
        return;
    }
    if let Err(error) = store.set_epochs(kept.to_vec()) {
        tracing::warn!("the store gets no epoch: {error}");
    }
}

/// A store that was in use before, as a file knows it.
struct Predecessor {
    revision: u64,
    identity: Option<StoreIdentity>,
    lineage: StoreLineage,
    known_by: String,
}

impl Predecessor {
    /// Returns what the file of last services and the record know.
    fn all(path: &Path, last: &LastServices, recorded: &RecordedStore) -> Vec<Self> {
        let of_last = (!last.boot.is_empty()).then(|| Self {
            revision: last.revision,
            identity: last.identity,
            lineage: last.lineage,
            known_by: escape::path(&LastServices::path(path)),
        });
        let is_recorded = recorded.revision > 0 || recorded.identity.is_some();
        let of_record = is_recorded.then(|| Self {
            revision: recorded.revision,
            identity: recorded.identity,
            lineage: recorded.lineage,
            known_by: "the record of this boot".to_owned(),
        });
        of_last.into_iter().chain(of_record).collect()
    }
}

/// State of a store when it was opened.
struct StoreState {
    revision: u64,
    contents: i64,
    identity: Option<StoreIdentity>,
    epochs: Vec<StoreEpoch>,
}

impl StoreState {
    fn new(store: &Store, opened: &Opened) -> Self {
        Self {
            revision: opened.loaded.revision,
            contents: opened.loaded.contents,
            identity: store.identity(),
            epochs: store.epochs().to_vec(),
        }
    }

    fn has_identity_of(&self, known: &Predecessor) -> bool {
        known.identity.is_none() || known.identity == self.identity
    }

    /// Returns whether the store has the same services as the one before, or was used after it, as far as that is known.
    fn is_after(&self, known: &Predecessor) -> bool {
        let is_same = self.revision == known.revision && known.lineage.contents == Some(self.contents);
        is_same || known.lineage.epoch.is_none_or(|epoch| self.epochs.contains(&epoch))
    }

    fn continuity(&self, predecessors: &[Predecessor], lacks_writes: bool) -> Continuity {
        let continues = |known: &Predecessor| {
            self.has_identity_of(known) && self.revision >= known.revision && self.is_after(known)
        };
        match predecessors {
            [] => Continuity::Unknown,
            all if !lacks_writes && all.iter().all(continues) => Continuity::Continued,
            _ => Continuity::Accepted,
        }
    }

    /// Checks whether the store is the one that was in use before, or a copy of it, as far as that is known.
    fn is_ours(&self, path: &Path, predecessors: &[Predecessor]) -> Result<(), StoreError> {
        let foreign = predecessors.iter().find(|known| !self.has_identity_of(known));
        match foreign.and_then(|known| Some((known.identity?, known))) {
            Some((identity, known)) => Err(StoreError::Foreign {
                path: path.to_owned(),
                known: identity,
                found: self.identity,
                known_by: known.known_by.as_str().into(),
            }),
            None => Ok(()),
        }
    }

    /// Checks whether the store is no copy that was used elsewhere.
    fn is_not_copied(&self, path: &Path, predecessors: &[Predecessor]) -> Result<(), StoreError> {
        match predecessors.iter().find(|known| !self.is_after(known)) {
            Some(known) => Err(StoreError::Copied {
                path: path.to_owned(),
                found: self.epochs.first().copied(),
                known_by: known.known_by.as_str().into(),
            }),
            None => Ok(()),
        }
    }
}

/// Puts into `last` what the record knows better of the store that was in use before, after the one that is there could not be
/// opened or was refused.
pub fn keep_known(last: &mut LastServices, recorded: &RecordedStore, refused: &StoreError) {
    match refused {
        StoreError::Older { .. } => {
            if recorded.revision > last.revision {
                (last.revision, last.lineage) = (recorded.revision, recorded.lineage);
            }
        }
        // The file of last services came with the other store.
        StoreError::Foreign { found, .. } if recorded.identity.is_some() && last.identity == *found => {
            *last = only_recorded(last, recorded);
        }
        StoreError::Copied { found, .. } if recorded.lineage.epoch.is_some() && last.lineage.epoch == *found => {
            *last = only_recorded(last, recorded);
        }
        StoreError::Copied { .. } => {
            if recorded.revision >= last.revision && !recorded.lineage.is_unknown() {
                (last.revision, last.lineage) = (recorded.revision, recorded.lineage);
            }
        }
        _ => last.identity = last.identity.or(recorded.identity),
    }
}

fn only_recorded(last: &mut LastServices, recorded: &RecordedStore) -> LastServices {
    LastServices {
        boot: std::mem::take(&mut last.boot),
        revision: recorded.revision,
        identity: recorded.identity,
        lineage: recorded.lineage,
        ..LastServices::default()
    }
}

/// Source of restored resources.
const RESTORED_FROM: &str = "the file of last services beside it";

/// Returns the change that puts the resources of an earlier store, and their services, into a new one; `None`: there
/// were none.
fn restored(last: &LastServices) -> Option<StoreChange> {
    let known = last.resources.as_ref()?;
    let names: BTreeSet<String> = known.resources.iter().map(|resource| resource.id.service()).collect();
    let of_resources = last.services.iter();
    let of_resources = of_resources.filter(|(owner, service)| *owner != Owner::File && names.contains(&*service.name));
    let removed = known.removed.iter().cloned().map(addon::ResourceChange::Remove);
    let there = known.resources.iter().cloned().map(addon::ResourceChange::Put);
    let resources: Vec<addon::ResourceChange> = removed.chain(there).collect();
    (!resources.is_empty()).then(|| StoreChange {
        edits: of_resources
            .map(|(_, service)| StoreEdit::Put(Arc::clone(service), Expect::Absent))
            .collect(),
        resources,
        ..StoreChange::default()
    })
}

pub(super) fn read(store: &mut Store) -> Result<Opened, StoreError> {
    Ok(Opened {
        loaded: store.load()?,
        removed: store.removed()?,
        resources: store.resources()?,
        is_restored: false,
        unfinished: unfinished(store)?,
        file: store.file(),
        identity: store.identity(),
        epoch: store.epochs().first().copied(),
        continuity: Continuity::Continued,
        trouble: store.trouble().cloned(),
    })
}

pub(super) fn refresh(store: &mut Store) -> Result<Opened, StoreError> {
    read(store)?;
    let probed = store.probe();
    let opened = read(store)?;
    // A store that cannot be written can still be read.
    Ok(Opened {
        trouble: probed.err().or(opened.trouble),
        ..opened
    })
}

fn unfinished(store: &mut Store) -> Result<Vec<UnfinishedDeploy>, StoreError> {
    let deploys = store.unfinished_deploys()?.into_iter();
    let with_before = deploys.map(|deploy| {
        let before = before(store, &deploy)?;
        Ok(UnfinishedDeploy { deploy, before })
    });
    with_before.collect()
}

/// Returns a deploy's service before the last change by it, from the history, which is written with the change.
pub(super) fn before(store: &mut Store, deploy: &StoredDeploy) -> Result<Option<Service>, StoreError> {
    let filter = HistoryFilter {
        services: vec![deploy.service.clone()],
        deploy: Some(deploy.id),
        limit: 1,
        ..HistoryFilter::default()
    };
    let entry = store.history(&filter)?.pop();
    let before = entry.and_then(|entry| entry.old);
    Ok(before.and_then(|old| parse_service(old.get().as_bytes()).ok()))
}

#[cfg(test)]
mod tests;
