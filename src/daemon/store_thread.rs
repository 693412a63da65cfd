//! The thread that writes the store: acknowledged changes are on the disk, and the main loop never waits for a disk.
//!
//! Writes and queries have a queue each. A write goes before all waiting queries; a query that finds its queue full is
//! refused, and no number of queries delays a write.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::addon;
use crate::control::storage::{
    Opened, OrphanRemoval, Query, QueryError, Recorded, Unfinished, WAITING, Write, Written,
};
use crate::store::last::Last;
use crate::store::lost;
use crate::store::written;
use crate::store::{
    By, Change, Committed, Deploy, Edit, Expect, HistoryFilter, LoadedResources, Phase, Store, StoreError,
};
use tcpgw_core::model::{Service, parse_service};
use tcpgw_core::owner::Owner;

/// Opens a store and reads its contents. Resources of the add-on, which a platform knows and cannot order again, are
/// restored from `last` if the store is new. `recorded`: revision in the record of this boot, which is written before
/// a change is acknowledged, unlike `last`. `now`: time since the Unix epoch.
///
/// # Errors
/// Fails when the store cannot be read, is older than `last` or `recorded`, or lacks writes. A store that cannot be
/// written is no error, unless resources have to be restored.
pub fn open(path: &Path, last: &Last, recorded: u64, now: Duration) -> Result<(Store, Opened), StoreError> {
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
        last.revision.max(recorded)
    } else {
        last.revision
    };
    if found < known {
        if !is_new {
            return Err(StoreError::Older {
                path: path.to_owned(),
                known,
                found,
            });
        }
        lost::note(path, last, now)?;
        store.count_on_from(last.revision)?;
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
        let by = By {
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

/// Source of restored resources.
const RESTORED_FROM: &str = "the file of last services beside it";

/// Returns the change that puts the resources of an earlier store, and their services, into a new one; `None`: there
/// were none.
fn restored(last: &Last) -> Option<Change> {
    let known = last.resources.as_ref()?;
    let names: BTreeSet<String> = known.resources.iter().map(|resource| resource.id.service()).collect();
    let of_resources = last.services.iter();
    let of_resources = of_resources.filter(|(owner, service)| *owner != Owner::File && names.contains(&*service.name));
    let removed = known.removed.iter().cloned().map(addon::ResourceChange::Remove);
    let there = known.resources.iter().cloned().map(addon::ResourceChange::Put);
    let resources: Vec<addon::ResourceChange> = removed.chain(there).collect();
    (!resources.is_empty()).then(|| Change {
        edits: of_resources
            .map(|(_, service)| Edit::Put(Arc::clone(service), Expect::Absent))
            .collect(),
        resources,
        ..Change::default()
    })
}

fn read(store: &mut Store) -> Result<Opened, StoreError> {
    Ok(Opened {
        loaded: store.load()?,
        removed: store.removed()?,
        resources: store.resources()?,
        is_restored: false,
        unfinished: unfinished(store)?,
        file: store.file(),
        trouble: store.trouble().cloned(),
    })
}

fn refresh(store: &mut Store) -> Result<Opened, StoreError> {
    read(store)?;
    let probed = store.probe();
    let opened = read(store)?;
    // A store that cannot be written can still be read.
    Ok(Opened {
        trouble: probed.err().or(opened.trouble),
        ..opened
    })
}

fn unfinished(store: &mut Store) -> Result<Vec<Unfinished>, StoreError> {
    let deploys = store.unfinished_deploys()?.into_iter();
    let with_before = deploys.map(|deploy| {
        let before = before(store, &deploy)?;
        Ok(Unfinished { deploy, before })
    });
    with_before.collect()
}

/// Returns a deploy's service before the last change by it, from the history, which is written with the change.
fn before(store: &mut Store, deploy: &Deploy) -> Result<Option<Service>, StoreError> {
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

fn recorded(store: &mut Store, id: u64) -> Result<Option<Recorded>, StoreError> {
    let Some(deploy) = store.deploy(id)? else {
        return Ok(None);
    };
    let before = match deploy.phase {
        Phase::Switched | Phase::Drained => before(store, &deploy)?,
        Phase::Probing | Phase::Failed | Phase::Undone => None,
    };
    let old = before.into_iter().flat_map(|service| service.backends);
    let old = old.map(|backend| backend.endpoint);
    let old = old.filter(|endpoint| !deploy.targets.contains(endpoint)).collect();
    Ok(Some(Recorded { deploy, old }))
}

/// An order for the thread.
#[derive(Debug)]
enum Order {
    Write(Box<Write>),
    Query(Query),
    /// Moves the store's log into its file.
    Checkpoint,
}

/// Delay from a write to the move of the store's log into its file, unless writes and queries keep the thread busy. A
/// copy of the file alone, or a file that loses its log, lacks the changes of this time at most.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// The thread has ended and takes no orders any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the thread that writes the store has ended")]
pub struct Gone;

/// Handle of the thread.
pub struct StoreThread {
    writes: mpsc::Sender<Write>,
    queries: mpsc::Sender<Query>,
    thread: thread::JoinHandle<()>,
}

impl StoreThread {
    /// Opens the store and starts the thread. If the store cannot be opened, the thread refuses all orders. If it is
    /// older than `recorded`, that revision is put into `last`.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub fn start(
        path: &Path,
        last: &mut Last,
        recorded: u64,
        now: Duration,
        results: mpsc::Sender<Written>,
    ) -> std::io::Result<(Self, Result<Opened, StoreError>)> {
        let (store, opened) = match open(path, last, recorded, now) {
            Ok((store, opened)) => (Ok(store), Ok(opened)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        if matches!(opened, Err(StoreError::Older { .. })) {
            last.revision = last.revision.max(recorded);
        }
        let mut store = store;
        let again = store.is_err().then(|| (path.to_owned(), last.clone()));
        let store_thread = Self::working(results, move |order| match order {
            Order::Write(write) => Some(match &again {
                Some((path, last)) if matches!(*write, Write::Refresh) => {
                    open_or_refresh(&mut store, path, last, recorded)
                }
                _ => perform(&mut store, *write),
            }),
            Order::Query(query) => {
                if !query.is_abandoned() {
                    answer(&mut store, query);
                }
                None
            }
            Order::Checkpoint => {
                if let Ok(store) = &mut store
                    && let Err(error) = store.checkpoint()
                {
                    tracing::debug!("failed to move the log of the store into its file: {error}");
                }
                None
            }
        })?;
        Ok((store_thread, opened))
    }

    /// Starts a thread that runs `work` for each order, until both queues are closed or no results are wanted any
    /// more. If it panics, both queues and `results` are closed.
    fn working(
        results: mpsc::Sender<Written>,
        mut work: impl FnMut(Order) -> Option<Written> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (writes, mut to_write) = mpsc::channel(1);
        let (queries, mut to_read) = mpsc::channel(WAITING);
        // The runtime only waits for two queues and a time; it needs no I/O.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            let mut checkpoint = None;
            while let Some(order) = next(&runtime, &mut to_write, &mut to_read, checkpoint) {
                match order {
                    Order::Write(_) => checkpoint = checkpoint.or_else(|| Instant::now().checked_add(CHECKPOINT_AFTER)),
                    Order::Checkpoint => checkpoint = None,
                    Order::Query(_) => {}
                }
                if let Some(written) = work(order)
                    && results.blocking_send(written).is_err()
                {
                    return;
                }
            }
        })?;
        Ok(Self {
            writes,
            queries,
            thread,
        })
    }

    /// Gives the thread a write. There is one write at a time: the next one must follow the result of the one before.
    ///
    /// # Errors
    /// Fails when the thread has ended.
    pub fn write(&self, write: Write) -> Result<(), Gone> {
        self.writes.try_send(write).map_err(|error| {
            debug_assert!(matches!(error, TrySendError::Closed(_)), "one write at a time");
            Gone
        })
    }

    /// Gives the thread a query, or refuses it when too many wait.
    pub fn query(&self, query: Query) {
        match self.queries.try_send(query) {
            Ok(()) => {}
            Err(TrySendError::Full(query)) => query.refuse(QueryError::Busy),
            Err(TrySendError::Closed(query)) => query.refuse(QueryError::Gone),
        }
    }

    /// Ends the thread after the orders that it has.
    pub fn end(self) {
        drop((self.writes, self.queries));
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes the store has panicked");
        }
    }
}

/// Returns the next order: a write before any query, and a checkpoint when one is due and nothing else waits; `None`
/// when the queues are closed.
fn next(
    runtime: &Runtime,
    writes: &mut mpsc::Receiver<Write>,
    queries: &mut mpsc::Receiver<Query>,
    checkpoint: Option<Instant>,
) -> Option<Order> {
    let order = async {
        tokio::select! {
            biased;
            Some(write) = writes.recv() => Some(Order::Write(Box::new(write))),
            Some(query) = queries.recv() => Some(Order::Query(query)),
            else => None,
        }
    };
    runtime.block_on(async {
        match checkpoint {
            Some(at) => tokio::time::timeout_at(at.into(), order)
                .await
                .unwrap_or(Some(Order::Checkpoint)),
            None => order.await,
        }
    })
}

fn with<T>(
    store: &mut Result<Store, StoreError>,
    work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match store {
        Ok(store) => work(store),
        Err(error) => Err(error.clone()),
    }
}

/// Carries out [`Write::Refresh`]. A store that could not be opened for a reason that may pass is opened again, as at
/// a start.
pub fn open_or_refresh(store: &mut Result<Store, StoreError>, path: &Path, last: &Last, recorded: u64) -> Written {
    if store.as_ref().is_err_and(StoreError::may_pass) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        return Written::Refreshed(match open(path, last, recorded, now) {
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

/// Carries out a write, or returns the error of a store that could not be opened.
pub fn perform(store: &mut Result<Store, StoreError>, write: Write) -> Written {
    match write {
        Write::Refresh => Written::Refreshed(with(store, refresh)),
        Write::Remember(path, last) => {
            let begin = Instant::now();
            let saved = last.save(&path);
            let saved = saved.map_err(|error| format!("failed to write {}: {error}", tcpgw_core::escape::path(&path)));
            Written::Remembered(saved, begin.elapsed())
        }
        Write::Change(change, by, at) => Written::Changed(with(store, |store| store.commit(&change, &by, at))),
        Write::Together(changes, at) => Written::Together(match store {
            Ok(store) => store.commit_together(&changes, at),
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        }),
        Write::RemoveOrphans(removal) => Written::Changed(with(store, |store| remove_orphans(store, &removal))),
        Write::Begin(deploy, by, at) => Written::Began(with(store, |store| store.deploy_begin(&deploy, &by, at))),
        Write::Step(step, at) => Written::Stepped(with(store, |store| store.deploy_update(&step, at))),
    }
}

/// Removes orphans. The file of last services is written first: if the store then refuses the change, the file is
/// restored.
fn remove_orphans(store: &mut Store, removal: &OrphanRemoval) -> Result<Committed, StoreError> {
    let OrphanRemoval { path, before, .. } = removal;
    let saved = before.without(&removal.orphans).save(path);
    let saved = saved.map_err(|error| StoreError::Last {
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
fn answer(store: &mut Result<Store, StoreError>, query: Query) {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::{DeployStep, NewDeploy, written};

    /// Returns a query, and the channel of its answer.
    fn question() -> (Query, oneshot::Receiver<Result<Option<Recorded>, QueryError>>) {
        let (reply, answer) = oneshot::channel();
        (Query::Deploy(1, reply), answer)
    }

    /// Returns the first change of a store, which adds a service.
    fn a_service() -> (Change, By) {
        let service = parse_service(br#"{"name": "a", "port": 2001, "backends": []}"#).unwrap();
        let change = Change {
            edits: vec![Edit::Put(Arc::new(service), Expect::Absent)],
            ..Change::default()
        };
        let by = By {
            uid: 0,
            pid: 1,
            what: "test".into(),
        };
        (change, by)
    }

    fn answered(order: Order) -> Option<Written> {
        match order {
            Order::Write(_) => Some(Written::Stepped(Ok(()))),
            Order::Checkpoint => None,
            Order::Query(query) => {
                if let Query::Deploy(_, reply) = query {
                    let _ = reply.send(Ok(None));
                }
                None
            }
        }
    }

    #[test]
    fn a_new_store_is_not_older_than_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let last = Last {
            boot: "b".into(),
            revision: 6,
            ..Last::default()
        };
        let (change, by) = a_service();
        let (mut store, opened) = open(&path, &last, 0, Duration::ZERO).unwrap();
        assert_eq!((opened.loaded.revision, opened.loaded.services.len()), (6, 0));
        drop(store);
        store = open(&path, &last, 0, Duration::ZERO).unwrap().0;
        assert_eq!(store.commit(&change, &by, Duration::ZERO).unwrap().revision, 7);
        drop(store);
        // The file of last services was not written meanwhile.
        let (store, opened) = open(&path, &last, 7, Duration::ZERO).unwrap();
        assert_eq!((opened.loaded.revision, opened.loaded.services.len()), (7, 1));
        drop(store);
        // The store has lost what the record knows of.
        let refused = open(&path, &last, 8, Duration::ZERO).map(|_| ());
        let older = |known| StoreError::Older {
            path: path.clone(),
            known,
            found: 7,
        };
        assert_eq!(refused, Err(older(8)));
        // The file of last services was removed, so that the store is accepted as it is.
        drop(open(&path, &Last::default(), 8, Duration::ZERO).unwrap());
        let newer = Last {
            revision: 8,
            ..Last::default()
        };
        let refused = open(&path, &newer, 0, Duration::ZERO).map(|_| ());
        assert!(
            matches!(refused, Err(StoreError::Older { known: 8, found: 7, .. })),
            "{refused:?}"
        );
    }

    /// Copies a store as it is without its log, with what is noted beside it.
    fn without_log(path: &Path, to: &Path) {
        std::fs::copy(path, to).unwrap();
        std::fs::copy(written::path(path), written::path(to)).unwrap();
    }

    /// Tests the last acknowledged write, whether it changes the store's revision and the record or not.
    #[test]
    fn a_store_whose_log_was_lost_is_found_by_its_last_write() {
        let directory = tempfile::tempdir().unwrap();
        let (path, cut) = (directory.path().join("store.db"), directory.path().join("cut.db"));
        let mut store = open(&path, &Last::default(), 0, Duration::ZERO).unwrap().0;
        let (change, by) = a_service();
        store.commit(&change, &by, Duration::ZERO).unwrap();
        store.checkpoint().unwrap();
        let last = Last {
            boot: "b".into(),
            revision: 1,
            ..Last::default()
        };
        let opens = |last: &Last| open(&cut, last, 1, Duration::ZERO).map(|_| ());
        without_log(&path, &cut);
        assert_eq!(opens(&last), Ok(()), "it has all");
        let resource = r#"{"id": "baaaaaaaaaaa", "dialect": "scalingo", "app": "my-app", "uuid": null, "owner": null, "plan": "small",
            "port": 20000, "status": "suspended", "bindings": {}, "created": {"secs": 1, "nanos": 0}}"#;
        let resource: addon::Resource = serde_json::from_str(resource).unwrap();
        let resource = Change {
            resources: vec![addon::ResourceChange::Put(Arc::new(resource))],
            ..Change::default()
        };
        let deploy = NewDeploy {
            service: "a".into(),
            targets: Vec::new(),
            details: serde_json::json!({}),
            supersedes: Vec::new(),
            ends: Vec::new(),
        };
        let writes: [&dyn Fn(&mut Store) -> u64; 3] = [
            &|store| store.commit(&resource, &by, Duration::ZERO).unwrap().revision,
            &|store| store.deploy_begin(&deploy, &by, Duration::ZERO).unwrap(),
            &|store| {
                let step = DeployStep {
                    id: 1,
                    phase: Phase::Failed,
                    reason: None,
                };
                store.deploy_update(&step, Duration::ZERO).map(|()| 1).unwrap()
            },
        ];
        for (number, write) in writes.iter().enumerate() {
            assert_eq!(write(&mut store), 1, "the revision does not tell of it");
            without_log(&path, &cut);
            for _ in 0..4 {
                assert_eq!(opens(&last), Err(StoreError::Incomplete(cut.clone())), "{number}");
            }
            // Changes by another process hide nothing.
            Store::open(&cut).unwrap().probe().unwrap();
            assert_eq!(opens(&last), Err(StoreError::Incomplete(cut.clone())), "{number}");
            store.checkpoint().unwrap();
        }
        // The file of last services was removed, so that the store is accepted; then the store is complete.
        assert_eq!(opens(&Last::default()), Ok(()));
        assert_eq!(opens(&last), Ok(()));
        drop(store);
        without_log(&path, &cut);
        assert_eq!(opens(&last), Ok(()), "what was closed is whole");
    }

    /// Tests a store whose first changes were in its log alone.
    #[test]
    fn an_empty_count_of_writes_is_told_and_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let (change, by) = a_service();
        let (mut store, _) = open(&path, &Last::default(), 0, Duration::ZERO).unwrap();
        store.commit(&change, &by, Duration::ZERO).unwrap();
        drop(store);
        assert_eq!(lost::problem(&path), None);
        std::fs::write(written::path(&path), "").unwrap();
        let (_, opened) = open(&path, &Last::default(), 0, Duration::ZERO).unwrap();
        assert_eq!(opened.loaded.services.len(), 1);
        let told = lost::problem(&path).unwrap().message;
        assert!(told.contains("store.db.written.damaged"), "{told}");
    }

    #[test]
    fn a_store_that_has_lost_all_that_it_had_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, cut) = (directory.path().join("store.db"), directory.path().join("cut.db"));
        let mut store = open(&path, &Last::default(), 0, Duration::ZERO).unwrap().0;
        let (change, by) = a_service();
        store.commit(&change, &by, Duration::ZERO).unwrap();
        without_log(&path, &cut);
        let last = Last {
            boot: "b".into(),
            ..Last::default()
        };
        assert_eq!(lost::problem(&cut), None);
        drop(open(&cut, &last, 0, Duration::ZERO).unwrap());
        assert!(lost::problem(&cut).is_some());
        std::fs::remove_file(lost::path(&cut)).unwrap();
        drop(open(&cut, &last, 0, Duration::ZERO).unwrap());
        assert_eq!(lost::problem(&cut), None, "once");
    }

    #[test]
    fn many_questions_are_refused_and_keep_no_write_out() {
        let (results, mut written) = mpsc::channel(1);
        let (busy, is_busy) = std_mpsc::channel();
        let (release, released) = std_mpsc::channel::<()>();
        let (seen, order) = std_mpsc::channel();
        let store_thread = StoreThread::working(results, move |order| {
            busy.send(()).unwrap();
            let _ = released.recv();
            seen.send(matches!(order, Order::Write(_))).unwrap();
            answered(order)
        })
        .unwrap();
        let mut answers = Vec::new();
        let mut ask = || {
            let (query, answer) = question();
            store_thread.query(query);
            answers.push(answer);
        };
        ask();
        is_busy.recv().unwrap();
        for _ in 0..WAITING + 2 {
            ask();
        }
        let refused = answers.iter_mut().filter_map(|answer| answer.try_recv().ok());
        assert_eq!(
            refused.collect::<Vec<_>>(),
            [Err(QueryError::Busy), Err(QueryError::Busy)]
        );
        assert_eq!(store_thread.write(Write::Refresh), Ok(()));
        drop(release);
        assert!(written.blocking_recv().is_some());
        store_thread.end();
        let order: Vec<bool> = order.iter().collect();
        assert_eq!(order.len(), WAITING + 2);
        assert_eq!(
            order[..3],
            [false, true, false],
            "the write goes before the questions that wait"
        );
        let answered = answers.into_iter().filter_map(|mut answer| answer.try_recv().ok());
        assert_eq!(answered.flatten().count(), WAITING + 1);
    }

    #[test]
    fn a_second_after_a_write_the_file_alone_is_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let (results, mut written) = mpsc::channel(1);
        let (store_thread, opened) =
            StoreThread::start(&path, &mut Last::default(), 0, Duration::ZERO, results).unwrap();
        assert!(opened.is_ok());
        let (change, by) = a_service();
        store_thread.write(Write::Change(change, by, Duration::ZERO)).unwrap();
        let Some(Written::Changed(Ok(committed))) = written.blocking_recv() else {
            panic!("it is not written");
        };
        assert_eq!(committed.revision, 1);
        let log = directory.path().join("store.db-wal");
        let is_empty = || std::fs::metadata(&log).is_ok_and(|log| log.len() == 0);
        let patience = Instant::now() + Duration::from_secs(60);
        while !is_empty() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(is_empty());
        let copy = directory.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(Store::open(&copy).unwrap().load().unwrap().revision, 1);
        store_thread.end();
        assert!(!log.exists(), "nor is there a log after the end");
    }

    #[test]
    fn a_thread_that_panics_in_the_midst_of_work_is_noticed_by_everybody() {
        let (results, mut written) = mpsc::channel(1);
        let (busy, is_busy) = std_mpsc::channel();
        let (release, released) = std_mpsc::channel::<()>();
        let store_thread = StoreThread::working(results, move |_| {
            busy.send(()).unwrap();
            let _ = released.recv();
            std::panic::resume_unwind(Box::new(()));
        })
        .unwrap();
        assert_eq!(store_thread.write(Write::Refresh), Ok(()));
        is_busy.recv().unwrap();
        let (query, waits) = question();
        store_thread.query(query);
        drop(release);
        assert!(written.blocking_recv().is_none(), "the loop hears of it");
        waits.blocking_recv().expect_err("nobody waits for ever");
        while !store_thread.thread.is_finished() {
            thread::yield_now();
        }
        assert_eq!(store_thread.write(Write::Refresh), Err(Gone));
        let (query, answer) = question();
        store_thread.query(query);
        assert_eq!(answer.blocking_recv(), Ok(Err(QueryError::Gone)));
        store_thread.end();
    }
}
