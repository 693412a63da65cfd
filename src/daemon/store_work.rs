//! Writes to the store and queries of it, carried out.

use std::path::Path;
use std::time::Instant;

use super::store_opening::{before, open, refresh};
use crate::control::storage::{DeployRecord, OrphanRemoval, Query, QueryError, Write, WriteResult};
use crate::date::since_1970;
use crate::record::RecordedStore;
use crate::store::last_services::LastServices;
use crate::store::{CommittedChange, DeployPhase, Store, StoreError};

pub(super) fn recorded(store: &mut Store, id: u64) -> Result<Option<DeployRecord>, StoreError> {
    let Some(deploy) = store.deploy(id)? else {
        return Ok(None);
    };
    let before = match deploy.phase {
        DeployPhase::Switched | DeployPhase::Drained => before(store, &deploy)?,
        DeployPhase::Probing | DeployPhase::Failed | DeployPhase::Undone => None,
    };
    let old = before.into_iter().flat_map(|service| service.backends);
    let old = old.map(|backend| backend.endpoint);
    let old = old.filter(|endpoint| !deploy.targets.contains(endpoint)).collect();
    Ok(Some(DeployRecord { deploy, old }))
}

pub(super) fn with<T>(
    store: &mut Result<Store, StoreError>,
    work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match store {
        Ok(store) => work(store),
        Err(error) => Err(error.clone()),
    }
}

/// Carries out a write, or returns the error of a store that could not be opened.
pub fn perform(store: &mut Result<Store, StoreError>, write: Write) -> WriteResult {
    match write {
        Write::Refresh => WriteResult::Refreshed(with(store, refresh)),
        Write::Remember(path, last) => {
            let begin = Instant::now();
            let saved = last.save(&path);
            let saved = saved.map_err(|error| format!("failed to write {}: {error}", tcpgw_core::escape::path(&path)));
            WriteResult::Remembered(saved, begin.elapsed())
        }
        Write::Change(change, by, at) => WriteResult::Changed(with(store, |store| store.commit(&change, &by, at))),
        Write::Together(changes, at) => WriteResult::Together(match store {
            Ok(store) => store.commit_together(&changes, at),
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        }),
        Write::RemoveOrphans(removal) => WriteResult::Changed(with(store, |store| remove_orphans(store, &removal))),
        Write::Begin(deploy, by, at) => WriteResult::Began(with(store, |store| store.deploy_begin(&deploy, &by, at))),
        Write::Step(step, at) => WriteResult::Stepped(with(store, |store| store.deploy_update(&step, at))),
    }
}

/// Removes orphans. The file of last services is written first: if the store then refuses the change, the file is
/// restored.
fn remove_orphans(store: &mut Store, removal: &OrphanRemoval) -> Result<CommittedChange, StoreError> {
    let OrphanRemoval { path, before, .. } = removal;
    let saved = before.without(&removal.orphans).save(path);
    let saved = saved.map_err(|error| StoreError::LastServices {
        path: path.clone(),
        what: error.to_string(),
    });
    let changed = saved.and_then(|()| store.commit(&removal.change, &removal.by, removal.at));
    // A write that failed may have been made all the same.
    if changed.is_err()
        && let Err(error) = before.save(path)
    {
        tracing::warn!("failed to write {}: {error}", tcpgw_core::escape::path(path));
    }
    changed
}

/// Answers a query. The client may have disconnected.
pub(super) fn answer(store: &mut Result<Store, StoreError>, query: Query) {
    match query {
        Query::History(filter, reply) => {
            drop(reply.send(with(store, |store| store.history(&filter)).map_err(QueryError::from)));
        }
        Query::Deploy(id, reply) => {
            drop(reply.send(with(store, |store| recorded(store, id)).map_err(QueryError::from)));
        }
        Query::Deploys(service, most, reply) => {
            let deploys = with(store, |store| store.deploys(service.as_deref(), most));
            drop(reply.send(deploys.map_err(QueryError::from)));
        }
    }
}

/// Carries out [`Write::Refresh`]. A store that could not be opened for a reason that may pass is opened again, as at
/// a start.
pub fn open_or_refresh(
    store: &mut Result<Store, StoreError>,
    path: &Path,
    last: &LastServices,
    recorded: &RecordedStore,
) -> WriteResult {
    if store.as_ref().is_err_and(StoreError::may_pass) {
        let now = since_1970();
        return WriteResult::Refreshed(match open(path, last, recorded, now) {
            Ok((opened_store, opened)) => {
                *store = Ok(opened_store);
                Ok(opened)
            }
            Err(error) => {
                *store = Err(error.clone());
                Err(error)
            }
        });
    }
    perform(store, Write::Refresh)
}
