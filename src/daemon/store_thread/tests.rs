use std::sync::mpsc as std_mpsc;

use tokio::sync::oneshot;

use super::*;
use crate::addon;
use crate::control::storage::DeployRecord;
use crate::store::{
    ChangeAuthor, DeployPhase, DeployStep, Expect, NewDeploy, Store, StoreChange, StoreEdit, StoreIdentity, lost,
    write_count,
};
use std::sync::Arc;
use tcpgw_core::model::parse_service;

/// Returns a query, and the channel of its answer.
fn question() -> (Query, oneshot::Receiver<Result<Option<DeployRecord>, QueryError>>) {
    let (reply, answer) = oneshot::channel();
    (Query::Deploy(1, reply), answer)
}

/// Returns the first change of a store, which adds a service.
fn a_service() -> (StoreChange, ChangeAuthor) {
    let service = parse_service(br#"{"name": "a", "port": 2001, "backends": []}"#).unwrap();
    let change = StoreChange {
        edits: vec![StoreEdit::Put(Arc::new(service), Expect::Absent)],
        ..StoreChange::default()
    };
    let by = ChangeAuthor {
        uid: 0,
        pid: 1,
        what: "test".into(),
    };
    (change, by)
}

/// Returns what a record knows that has this revision, and no identity.
fn recorded(revision: u64) -> RecordedStore {
    RecordedStore {
        revision,
        ..RecordedStore::default()
    }
}

fn answered(order: StoreOrder) -> Option<WriteResult> {
    match order {
        StoreOrder::Write(_) => Some(WriteResult::Stepped(Ok(()))),
        StoreOrder::Checkpoint => None,
        StoreOrder::Query(query) => {
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
    let last = LastServices {
        boot: "b".into(),
        revision: 6,
        ..LastServices::default()
    };
    let (change, by) = a_service();
    let (mut store, opened) = open(&path, &last, &RecordedStore::default(), Duration::ZERO).unwrap();
    assert_eq!((opened.loaded.revision, opened.loaded.services.len()), (6, 0));
    drop(store);
    store = open(&path, &last, &RecordedStore::default(), Duration::ZERO).unwrap().0;
    assert_eq!(store.commit(&change, &by, Duration::ZERO).unwrap().revision, 7);
    drop(store);
    // The file of last services was not written meanwhile.
    let (store, opened) = open(&path, &last, &recorded(7), Duration::ZERO).unwrap();
    assert_eq!((opened.loaded.revision, opened.loaded.services.len()), (7, 1));
    drop(store);
    // The store has lost what the record knows of.
    let refused = open(&path, &last, &recorded(8), Duration::ZERO).map(|_| ());
    let older = |known| StoreError::Older {
        path: path.clone(),
        known,
        found: 7,
    };
    assert_eq!(refused, Err(older(8)));
    // The file of last services was removed, so that the store is accepted as it is.
    drop(open(&path, &LastServices::default(), &recorded(8), Duration::ZERO).unwrap());
    let newer = LastServices {
        revision: 8,
        ..LastServices::default()
    };
    let refused = open(&path, &newer, &RecordedStore::default(), Duration::ZERO).map(|_| ());
    assert!(
        matches!(refused, Err(StoreError::Older { known: 8, found: 7, .. })),
        "{refused:?}"
    );
}

/// Returns a store of another gateway, with one service, closed.
fn foreign(path: &Path) -> StoreIdentity {
    let (mut store, _) = open(path, &LastServices::default(), &recorded(0), Duration::ZERO).unwrap();
    let (change, by) = a_service();
    store.commit(&change, &by, Duration::ZERO).unwrap();
    store.identity().unwrap()
}

/// Tests stores that no revision tells apart.
#[test]
fn the_store_of_another_gateway_is_refused_until_it_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let [path, ours] = ["store.db", "ours.db"].map(|name| directory.path().join(name));
    let (found, known) = (foreign(&path), foreign(&ours));
    assert_ne!(found, known);
    let of_boot = |identity| LastServices {
        boot: "b".into(),
        revision: 1,
        identity,
        ..LastServices::default()
    };
    let recorded = RecordedStore {
        identity: Some(known),
        ..recorded(1)
    };
    let none = RecordedStore::default();
    let opens = |path: &Path, last: &LastServices, recorded: &RecordedStore| {
        let opened = open(path, last, recorded, Duration::ZERO);
        opened.map(|(_, opened)| opened.identity.unwrap())
    };
    // The file of last services, or the record of this boot, knows another one.
    let last = of_boot(Some(known));
    for (last, recorded, by) in [
        (&last, &none, "store.db.last"),
        (&last, &recorded, "store.db.last"),
        (&of_boot(Some(found)), &recorded, "the record of this boot"),
        (&of_boot(None), &recorded, "the record of this boot"),
    ] {
        let refused = opens(&path, last, recorded).unwrap_err();
        assert!(refused.is_trouble() && !refused.may_pass());
        let StoreError::Foreign { known_by, .. } = &refused else {
            panic!("{refused:?}")
        };
        assert!(known_by.ends_with(by), "{known_by}");
        let text = refused.to_string();
        for part in [
            "that of another gateway",
            "what is served goes on",
            "store.db.last;",
            &*known.to_string(),
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(opens(&ours, &of_boot(Some(known)), recorded), Ok(known));
    }
    // Nothing is known: a restored gateway, one of an earlier version, or an operator who accepts it.
    assert_eq!(opens(&path, &of_boot(None), &none), Ok(found));
    assert_eq!(opens(&path, &LastServices::default(), &recorded), Ok(found));
    // The record is outdated.
    let newer = LastServices {
        known: Duration::from_secs(1),
        ..of_boot(Some(found))
    };
    assert_eq!(opens(&path, &newer, &newer.amended(recorded, "b", 0)), Ok(found));
    // What is refused is remembered as refused.
    let refused = opens(&path, &of_boot(Some(found)), &recorded).unwrap_err();
    let mut kept = of_boot(Some(found));
    super::super::store_opening::keep_known(&mut kept, &recorded, &refused);
    assert_eq!(kept, of_boot(Some(known)));
}

/// A store that replaces a lost one has its identity, so that a backup of the lost one is no store of another gateway.
#[test]
fn a_new_store_has_the_identity_of_the_lost_one() {
    let directory = tempfile::tempdir().unwrap();
    let [path, backup] = ["store.db", "backup.db"].map(|name| directory.path().join(name));
    let known = foreign(&backup);
    for revision in [0, 1] {
        let last = LastServices {
            boot: "b".into(),
            revision,
            identity: Some(known),
            ..LastServices::default()
        };
        for _ in 0..2 {
            let (_, opened) = open(&path, &last, &recorded(0), Duration::ZERO).unwrap();
            assert_eq!((opened.identity, opened.loaded.revision), (Some(known), revision));
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// Tests a store of an earlier version, which has no identity.
#[test]
fn a_store_without_an_identity_gets_one_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    foreign(&path);
    let before = rusqlite::Connection::open(&path).unwrap();
    before.execute_batch("DROP TABLE identity").unwrap();
    drop(before);
    let identity = || Store::open(&path).unwrap().identity();
    let given = identity();
    assert!(given.is_some());
    assert_eq!(identity(), given);
}

/// Opens a store of which nothing is known.
fn new_store(path: &Path) -> Store {
    let (last, recorded) = (LastServices::default(), RecordedStore::default());
    open(path, &last, &recorded, Duration::ZERO).unwrap().0
}

/// Copies a store as it is without its log, with what is noted beside it.
fn without_log(path: &Path, to: &Path) {
    std::fs::copy(path, to).unwrap();
    std::fs::copy(write_count::path(path), write_count::path(to)).unwrap();
}

/// Tests the last acknowledged write, whether it changes the store's revision and the record or not.
#[test]
fn a_store_whose_log_was_lost_is_found_by_its_last_write() {
    let directory = tempfile::tempdir().unwrap();
    let (path, cut) = (directory.path().join("store.db"), directory.path().join("cut.db"));
    let mut store = new_store(&path);
    let (change, by) = a_service();
    store.commit(&change, &by, Duration::ZERO).unwrap();
    store.checkpoint().unwrap();
    let last = LastServices {
        boot: "b".into(),
        revision: 1,
        ..LastServices::default()
    };
    let opens = |last: &LastServices| open(&cut, last, &recorded(1), Duration::ZERO).map(|_| ());
    without_log(&path, &cut);
    assert_eq!(opens(&last), Ok(()), "it has all");
    let resource = r#"{"id": "baaaaaaaaaaa", "dialect": "scalingo", "app": "my-app", "uuid": null, "owner": null, "plan": "small",
        "port": 20000, "status": "suspended", "bindings": {}, "created": {"secs": 1, "nanos": 0}}"#;
    let resource: addon::Resource = serde_json::from_str(resource).unwrap();
    let resource = StoreChange {
        resources: vec![addon::ResourceChange::Put(Arc::new(resource))],
        ..StoreChange::default()
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
                phase: DeployPhase::Failed,
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
    assert_eq!(opens(&LastServices::default()), Ok(()));
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
    let (mut store, _) = open(
        &path,
        &LastServices::default(),
        &RecordedStore::default(),
        Duration::ZERO,
    )
    .unwrap();
    store.commit(&change, &by, Duration::ZERO).unwrap();
    drop(store);
    assert_eq!(lost::problem(&path), None);
    std::fs::write(write_count::path(&path), "").unwrap();
    let (_, opened) = open(
        &path,
        &LastServices::default(),
        &RecordedStore::default(),
        Duration::ZERO,
    )
    .unwrap();
    assert_eq!(opened.loaded.services.len(), 1);
    let problems = lost::problem(&path).unwrap().message;
    assert!(problems.contains("store.db.written.damaged"), "{problems}");
}

#[test]
fn a_store_that_has_lost_all_that_it_had_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (path, cut) = (directory.path().join("store.db"), directory.path().join("cut.db"));
    let mut store = new_store(&path);
    let (change, by) = a_service();
    store.commit(&change, &by, Duration::ZERO).unwrap();
    without_log(&path, &cut);
    let last = LastServices {
        boot: "b".into(),
        ..LastServices::default()
    };
    assert_eq!(lost::problem(&cut), None);
    drop(open(&cut, &last, &RecordedStore::default(), Duration::ZERO).unwrap());
    assert!(lost::problem(&cut).is_some());
    std::fs::remove_file(lost::path(&cut)).unwrap();
    drop(open(&cut, &last, &RecordedStore::default(), Duration::ZERO).unwrap());
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
        seen.send(matches!(order, StoreOrder::Write(_))).unwrap();
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
    let (store_thread, opened) = StoreThread::start(
        &path,
        &mut LastServices::default(),
        recorded(0),
        Duration::ZERO,
        results,
    )
    .unwrap();
    assert!(opened.is_ok());
    let (change, by) = a_service();
    store_thread.write(Write::Change(change, by, Duration::ZERO)).unwrap();
    let Some(WriteResult::Changed(Ok(committed))) = written.blocking_recv() else {
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
