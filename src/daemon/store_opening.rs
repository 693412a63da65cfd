//! Opening the store, and reading what the daemon begins with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::addon;
use crate::control::storage::{Opened, UnfinishedDeploy};
use crate::record::RecordedStore;
use crate::store::last_services::LastServices;
use crate::store::{
    ChangeAuthor, Expect, HistoryFilter, LoadedResources, Store, StoreChange, StoreEdit, StoreError, StoreIdentity,
    StoredDeploy, lost, written,
};
use tcpgw_core::escape;
use tcpgw_core::model::{Service, parse_service};
use tcpgw_core::owner::Owner;

/// Opens a store and reads its contents. Resources of the add-on, which a platform knows and cannot order again, are
/// restored from `last` if the store is new. `recorded`: what the record of this boot knows, which is written before
/// a change is acknowledged, unlike `last`. `now`: time since the Unix epoch.
///
/// # Errors
/// Fails when the store cannot be read, is that of another gateway, is older than `last` or `recorded`, or lacks writes. A store that cannot be
/// written is no error, unless resources have to be restored.
pub fn open(
    path: &Path,
    last: &LastServices,
    recorded: &RecordedStore,
    now: Duration,
) -> Result<(Store, Opened), StoreError> {
    written::set_aside(path);
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
    let known = if is_known && !is_new {
        last.revision.max(recorded.revision)
    } else {
        last.revision
    };
    if is_known && !is_new {
        is_ours(path, store.identity(), last, recorded)?;
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
    Ok((store, opened))
}

/// Checks whether the store is the one that was in use before, as far as that is known.
fn is_ours(
    path: &Path,
    found: Option<StoreIdentity>,
    last: &LastServices,
    recorded: &RecordedStore,
) -> Result<(), StoreError> {
    let of_last = last
        .identity
        .map(|known| (known, escape::path(&LastServices::path(path))));
    let of_record = recorded
        .identity
        .map(|known| (known, "the record of this boot".to_owned()));
    let mut known = of_last.into_iter().chain(of_record);
    match known.find(|(known, _)| found != Some(*known)) {
        Some((known, known_by)) => Err(StoreError::Foreign {
            path: path.to_owned(),
            known,
            found,
            known_by: known_by.into(),
        }),
        None => Ok(()),
    }
}

/// Puts into `last` what the record knows better of the store that was in use before, after the one that is there could not be
/// opened or was refused.
pub fn keep_known(last: &mut LastServices, recorded: &RecordedStore, refused: &StoreError) {
    match refused {
        StoreError::Older { .. } => last.revision = last.revision.max(recorded.revision),
        // The file of last services came with the other store.
        StoreError::Foreign { found, .. } if recorded.identity.is_some() && last.identity == *found => {
            *last = LastServices {
                boot: std::mem::take(&mut last.boot),
                revision: recorded.revision,
                identity: recorded.identity,
                ..LastServices::default()
            };
        }
        _ => last.identity = last.identity.or(recorded.identity),
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
