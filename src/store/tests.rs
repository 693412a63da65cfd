use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use nix::unistd::{Uid, setfsuid};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use std::fs::Permissions;
use tcpgw_core::model::{self, Service, State};

struct Place {
    _directory: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lib/store.db");
    Place {
        _directory: directory,
        path,
    }
}

fn service(name: &str, port: u16) -> Arc<Service> {
    let text = json!({"name": name, "port": port, "backends": []}).to_string();
    Arc::new(model::parse_service(text.as_bytes()).unwrap())
}

fn put(name: &str, port: u16, expect: Expect) -> Change {
    Change {
        edits: vec![Edit::Put(service(name, port), expect)],
        ..Change::default()
    }
}

fn by(what: &str) -> By {
    By {
        uid: 1000,
        pid: 77,
        what: what.into(),
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn set(store: &mut Store, name: &str, port: u16) -> u64 {
    let committed = store.commit(&put(name, port, Expect::Anything), &by("service set"), at(port.into()));
    committed.unwrap().revision
}

fn names(store: &mut Store) -> Vec<(String, u64)> {
    let loaded = store.load().unwrap();
    let named = loaded.services.iter();
    named
        .map(|stored| (stored.service.name.to_string(), stored.revision))
        .collect()
}

/// Returns the change that makes all services equal to a state, and that fails if they have changed meanwhile.
fn replace(have: &Loaded, want: &State) -> Change {
    let services = have.services.iter().map(|stored| Arc::clone(&stored.service));
    let edits = want.edits_from(&State {
        services: services.collect(),
    });
    let gone = edits.gone.into_iter();
    let gone = gone.map(|name| Edit::Delete(name, Expect::Present));
    let put = edits.put.into_iter();
    let put = put.map(|service| Edit::Put(service, Expect::Anything));
    Change {
        edits: gone.chain(put).collect(),
        expect: Some(have.revision),
        deploy: None,
        resources: Vec::new(),
        rests: Vec::new(),
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!((store.load(), store.trouble()), (Ok(Loaded::default()), None));
    assert_eq!(set(&mut store, "b", 2000), 1);
    assert_eq!(set(&mut store, "a", 2001), 2);
    assert_eq!(set(&mut store, "b", 2002), 3);
    assert_eq!(set(&mut store, "b", 2002), 3, "nothing has changed");
    let loaded = store.load().unwrap();
    drop(store);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(store.load().unwrap(), loaded);
    assert_eq!(names(&mut store), [("a".into(), 2), ("b".into(), 3)]);
    assert_eq!(*loaded.services[1].service, *service("b", 2002));
}

#[test]
fn it_is_private_and_waits_for_the_disk() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let directory = place.path.parent().unwrap();
    assert_eq!((mode(&place.path), mode(directory)), (0o600, 0o700));
    let connection = store.connection.as_ref().unwrap();
    let pragma = |name: &str| -> String {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        match value.unwrap() {
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        }
    };
    let settings = ["journal_mode", "synchronous", "locking_mode", "trusted_schema"].map(pragma);
    assert_eq!(settings, ["wal", "Integer(2)", "exclusive", "Integer(0)"]);
    let files = || {
        let files = fs::read_dir(directory).unwrap().flatten();
        let mut files: Vec<_> = files
            .map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())))
            .collect();
        files.sort();
        files
    };
    let file = |name: &str| (name.to_owned(), 0o600);
    assert_eq!(files(), [file("store.db"), file("store.db-wal")]);
    drop(store);
    assert_eq!(files(), [file("store.db")], "one at rest is one file");
    let store = Store::open(&place.path).unwrap();
    assert_eq!(files(), [file("store.db"), file("store.db-wal")], "a later one, too");
    drop(store);
    fs::set_permissions(&place.path, Permissions::from_mode(0o644)).unwrap();
    Store::open(&place.path).unwrap();
    assert_eq!(mode(&place.path), 0o600);
}

#[test]
fn a_change_is_made_of_what_it_expects_or_not_at_all() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let first = store.load().unwrap().services.remove(0);
    set(&mut store, "b", 2001);
    let unmet = [
        (put("a", 9, Expect::Absent), "a", Some(&first)),
        (put("a", 9, Expect::Revision(2)), "a", Some(&first)),
        (put("c", 9, Expect::Present), "c", None),
        (put("c", 9, Expect::Revision(1)), "c", None),
    ];
    for (mut change, name, current) in unmet {
        change.edits.insert(0, Edit::Delete("b".into(), Expect::Present));
        let error = store.commit(&change, &by("x"), at(1)).unwrap_err();
        let conflict = StoreError::Conflict {
            name: name.into(),
            current: current.map(|current| Box::new(current.clone())),
        };
        assert_eq!(error, conflict);
        assert!(!error.is_trouble() && store.is_writable());
        assert_eq!(names(&mut store), [("a".into(), 1), ("b".into(), 2)]);
    }
    let behind = Change {
        expect: Some(1),
        ..put("c", 9, Expect::Absent)
    };
    let error = store.commit(&behind, &by("x"), at(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the services are at revision 2, not 1; nothing was changed"
    );
    let met = Change {
        edits: vec![
            Edit::Put(service("a", 9), Expect::Revision(1)),
            Edit::Delete("b".into(), Expect::Revision(2)),
            Edit::Put(service("c", 10), Expect::Absent),
            Edit::Delete("none".into(), Expect::Anything),
        ],
        expect: Some(2),
        deploy: None,
        resources: Vec::new(),
        rests: Vec::new(),
    };
    let committed = store.commit(&met, &by("x"), at(1)).unwrap();
    assert_eq!(committed.changed, ["a".into(), "b".into(), "c".into()]);
    assert_eq!(names(&mut store), [("a".into(), 3), ("c".into(), 3)]);
}

#[test]
fn all_is_replaced_by_what_differs() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    for (name, port) in [("a", 2000), ("b", 2001), ("c", 2002)] {
        set(&mut store, name, port);
    }
    let want = ["a", "b", "d"].iter().zip([2000, 2009, 2003]);
    let want = State::new(want.map(|(name, port)| service(name, port))).unwrap();
    let change = replace(&store.load().unwrap(), &want);
    assert_eq!(change.edits.len(), 3);
    store.commit(&change, &by("apply"), at(1)).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1), ("b".into(), 4), ("d".into(), 4)]);
    let error = store.commit(&change, &by("apply"), at(1)).unwrap_err();
    assert_eq!(
        error,
        StoreError::Behind {
            expected: 3,
            current: 4
        }
    );
}

#[test]
fn the_history_says_what_changed_when_and_by_whom() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    set(&mut store, "b", 2001);
    set(&mut store, "a", 2002);
    let delete = Change {
        edits: vec![Edit::Delete("a".into(), Expect::Anything)],
        ..Change::default()
    };
    store.commit(&delete, &by("service delete"), at(3000)).unwrap();
    let all = HistoryFilter {
        limit: 10,
        ..HistoryFilter::default()
    };
    let entries = store.history(&all).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let told = |entry: &HistoryEntry| {
        let json = json!({"old": entry.old, "new": entry.new, "service": entry.service, "what": entry.what});
        (entry.revision, entry.at, entry.uid, entry.pid, entry.deploy, json)
    };
    let [first, second] = [2000, 2002].map(|port| json!({"name": "a", "port": port, "backends": []}));
    let deleted = json!({"old": second, "new": null, "service": "a", "what": "service delete"});
    assert_eq!(told(&entries[0]), (4, at(3000), 1000, 77, None, deleted));
    let changed = json!({"old": first, "new": second, "service": "a", "what": "service set"});
    assert_eq!(told(&entries[1]), (3, at(2002), 1000, 77, None, changed));
    let mut ids = |filter: HistoryFilter| -> Vec<u64> {
        let entries = store.history(&HistoryFilter {
            limit: filter.limit.max(2),
            ..filter
        });
        entries.unwrap().iter().map(|entry| entry.id).collect()
    };
    let none = HistoryFilter::default;
    assert_eq!(ids(none()), [4, 3]);
    assert_eq!(
        ids(HistoryFilter {
            before: Some(3),
            ..none()
        }),
        [2, 1]
    );
    assert_eq!(
        ids(HistoryFilter {
            services: vec!["a".into()],
            before: Some(4),
            ..none()
        }),
        [3, 1]
    );
    assert_eq!(
        ids(HistoryFilter {
            since: Some(at(2002)),
            limit: 9,
            ..none()
        }),
        [4, 3]
    );
    assert_eq!(
        ids(HistoryFilter {
            deploy: Some(1),
            ..none()
        }),
        [0; 0]
    );
}

#[test]
fn the_past_is_bounded_and_revisions_are_not_given_again() {
    let place = place();
    let keep = Keep {
        entries: 3,
        bytes: 1 << 20,
        deploys: 2,
    };
    let mut store = Store::open_with(&place.path, keep).unwrap();
    for port in 1..=9 {
        set(&mut store, "a", port);
    }
    let all = HistoryFilter {
        limit: 100,
        ..HistoryFilter::default()
    };
    let ids = |store: &mut Store| {
        store
            .history(&all)
            .unwrap()
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut store), [9, 8, 7]);
    drop(store);
    let one = model::write::service_text(&service("a", 10)).len() as u64;
    let mut store = Store::open_with(
        &place.path,
        Keep {
            bytes: one * 4,
            ..Keep::default()
        },
    )
    .unwrap();
    assert_eq!(set(&mut store, "a", 10), 10);
    assert_eq!(set(&mut store, "a", 11), 11);
    assert_eq!(ids(&mut store), [11, 10]);
    drop(store);
    let mut store = Store::open_with(
        &place.path,
        Keep {
            bytes: 0,
            entries: 0,
            deploys: 0,
        },
    )
    .unwrap();
    set(&mut store, "a", 12);
    assert_eq!(ids(&mut store), [12], "the last one stays");
    let nothing = replace(&store.load().unwrap(), &State::default());
    assert_eq!(store.commit(&nothing, &by("x"), at(1)).unwrap().revision, 13);
    drop(store);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(set(&mut store, "a", 12), 14);
}

fn new_deploy(service: &str) -> NewDeploy {
    NewDeploy {
        service: service.into(),
        targets: vec!["10.2.0.1:80".parse().unwrap(), "[fd00:2::1]:80".parse().unwrap()],
        details: json!({"until": "drained", "was": ["10.2.0.9:80"]}),
        ends: Vec::new(),
        supersedes: Vec::new(),
    }
}

fn step(id: u64, phase: DeployPhase, reason: Option<&str>) -> DeployStep {
    DeployStep {
        id,
        phase,
        reason: reason.map(str::to_owned),
    }
}

#[test]
fn a_deploy_begins_together_with_the_end_of_another() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let first = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    let next = NewDeploy {
        ends: vec![
            step(first, DeployPhase::Failed, Some("no room")),
            step(99, DeployPhase::Failed, None),
        ],
        ..new_deploy("a")
    };
    let second = store.deploy_begin(&next, &by("deploy"), at(11)).unwrap();
    let ended = store.deploy(first).unwrap().unwrap();
    assert_eq!(
        (ended.phase, ended.reason.as_deref()),
        (DeployPhase::Failed, Some("no room"))
    );
    assert_eq!(store.deploy(second).unwrap().unwrap().phase, DeployPhase::Probing);
    // The step is repeated, and is over already.
    let third = NewDeploy {
        ends: vec![
            step(first, DeployPhase::Failed, None),
            step(second, DeployPhase::Undone, None),
        ],
        ..new_deploy("a")
    };
    assert_eq!(store.deploy_begin(&third, &by("deploy"), at(12)).unwrap(), second + 1);
}

#[test]
fn a_deploy_supersedes_those_that_probe_and_no_others() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let first = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    store
        .deploy_update(&step(first, DeployPhase::Switched, None), at(11))
        .unwrap();
    let second = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(12)).unwrap();
    let next = NewDeploy {
        supersedes: vec![first, second, 99],
        ..new_deploy("a")
    };
    let third = store.deploy_begin(&next, &by("deploy"), at(13)).unwrap();
    let mut told = |id| {
        let deploy = store.deploy(id).unwrap().unwrap();
        (deploy.phase, deploy.reason)
    };
    assert_eq!(told(first), (DeployPhase::Switched, None));
    assert_eq!(told(second), (DeployPhase::Undone, Some(superseded_by(third))));
    assert_eq!(told(third), (DeployPhase::Probing, None));
}

#[test]
fn a_deploy_is_followed_to_its_end() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    let error = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap_err();
    assert_eq!(
        error,
        StoreError::Deploying {
            service: "a".into(),
            id
        }
    );
    let other = store.deploy_begin(&new_deploy("b"), &by("deploy"), at(11)).unwrap();
    assert_eq!((id, other), (1, 2));
    store
        .deploy_update(&step(id, DeployPhase::Probing, Some("1 of 2 answer")), at(12))
        .unwrap();
    let switch = Change {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Revision(1))
    };
    assert_eq!(store.commit(&switch, &by("deploy"), at(13)).unwrap().revision, 2);
    let filter = HistoryFilter {
        deploy: Some(id),
        limit: 9,
        ..HistoryFilter::default()
    };
    assert_eq!(store.history(&filter).unwrap().len(), 1);
    drop(store);
    let mut store = Store::open(&place.path).unwrap();
    store.load().unwrap();
    let open: Vec<_> = store
        .unfinished_deploys()
        .unwrap()
        .iter()
        .map(|deploy| (deploy.id, deploy.phase))
        .collect();
    assert_eq!(open, [(1, DeployPhase::Switched), (2, DeployPhase::Probing)]);
    // While the old backends drain the next deploy may begin.
    let next = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(14)).unwrap();
    store
        .deploy_update(&step(id, DeployPhase::Drained, None), at(15))
        .unwrap();
    store
        .deploy_update(&step(other, DeployPhase::Failed, Some("10.2.0.1:80: refused")), at(16))
        .unwrap();
    let expected = StoredDeploy {
        id: 1,
        service: "a".into(),
        targets: ["10.2.0.1:80", "[fd00:2::1]:80"].map(|at| at.parse().unwrap()).into(),
        details: json!({"until": "drained", "was": ["10.2.0.9:80"]}),
        uid: 1000,
        pid: 77,
        what: "deploy".into(),
        phase: DeployPhase::Drained,
        reason: Some("1 of 2 answer".into()),
        began: at(10),
        updated: at(15),
        revision: Some(2),
    };
    assert_eq!(store.deploy(id).unwrap(), Some(expected));
    let listed = |store: &mut Store, service: Option<&str>| -> Vec<u64> {
        store
            .deploys(service, 9)
            .unwrap()
            .iter()
            .map(|deploy| deploy.id)
            .collect()
    };
    assert_eq!(listed(&mut store, Some("a")), [3, 1]);
    assert_eq!(listed(&mut store, None), [3, 2, 1]);
    assert_eq!(store.deploy(4), Ok(None));
    assert_eq!(next, 3);
}

#[test]
fn a_step_that_cannot_be_takes_its_change_with_it() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    store
        .deploy_update(&step(id, DeployPhase::Undone, None), at(11))
        .unwrap();
    let late = Change {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Anything)
    };
    let error = store.commit(&late, &by("deploy"), at(12)).unwrap_err();
    assert_eq!(error.to_string(), "deploy 1 is undone, it cannot become switched");
    assert_eq!(names(&mut store), []);
    let unknown = store
        .deploy_update(&step(7, DeployPhase::Undone, None), at(11))
        .unwrap_err();
    assert_eq!(unknown, StoreError::NoDeploy(7));
    // What fails as a change leaves the deploy as it was, too.
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(13)).unwrap();
    let stale = Change {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Revision(9))
    };
    store.commit(&stale, &by("deploy"), at(14)).unwrap_err();
    assert_eq!(store.deploy(id).unwrap().unwrap().phase, DeployPhase::Probing);
}

#[test]
fn finished_deploys_are_forgotten_unfinished_ones_are_not() {
    let place = place();
    let mut store = Store::open_with(
        &place.path,
        Keep {
            deploys: 2,
            ..Keep::default()
        },
    )
    .unwrap();
    for nth in 1..=6 {
        let id = store
            .deploy_begin(&new_deploy(&format!("s{nth}")), &by("deploy"), at(1))
            .unwrap();
        assert_eq!(id, nth);
        if nth != 2 {
            store
                .deploy_update(&step(id, DeployPhase::Failed, None), at(2))
                .unwrap();
        }
    }
    let left: Vec<u64> = store.deploys(None, 9).unwrap().iter().map(|deploy| deploy.id).collect();
    assert_eq!(left, [6, 5, 2]);
}

#[test]
fn one_process_at_a_time_has_it() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let Err(StoreError::Locked { holder, .. }) = Store::open(&place.path) else {
        panic!("two have it");
    };
    assert!(
        holder.starts_with(&format!("process {} (", std::process::id())),
        "{holder}"
    );
    set(&mut store, "a", 2001);
    drop(store);
    Store::open(&place.path).unwrap();
}

/// Runs as a user who may not write other users' files, where the tests run as root.
fn as_nobody(work: impl FnOnce() + Send + 'static) {
    let run = move || {
        let own = setfsuid(Uid::from_raw(65_534));
        work();
        setfsuid(own);
    };
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn what_may_not_be_written_is_read() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    drop(store);
    let directory = place.path.parent().unwrap();
    let chmod = |directory_mode, file_mode| {
        fs::set_permissions(&place.path, Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(directory_mode)).unwrap();
    };
    fs::set_permissions(
        place.path.parent().unwrap().parent().unwrap(),
        Permissions::from_mode(0o755),
    )
    .unwrap();
    chmod(0o555, 0o444);
    let path = place.path.clone();
    as_nobody(move || {
        let mut store = Store::open(&path).unwrap();
        assert!(!store.is_writable());
        let told = store.trouble().unwrap().to_string();
        assert!(
            told.contains("cannot be written: its file or its directory may not be written"),
            "{told}"
        );
        assert_eq!(names(&mut store), [("a".into(), 1)]);
        let error = store
            .commit(&put("a", 9, Expect::Anything), &by("x"), at(1))
            .unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert_eq!(names(&mut store), [("a".into(), 1)]);
        let absent = Store::open(&path.with_file_name("other.db")).unwrap_err();
        assert!(matches!(absent, StoreError::ReadOnly { .. }), "{absent}");
    });
    chmod(0o700, 0o600);
    let mut store = Store::open(&place.path).unwrap();
    assert!(store.is_writable());
    assert_eq!(set(&mut store, "a", 2001), 2);
}

#[test]
fn one_that_becomes_writable_is_written_again() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    // As it is after a start on a read-only file system.
    store.connection = None;
    store.read_only = true;
    assert_eq!(set(&mut store, "a", 2001), 2);
    // Another process has changed it meanwhile.
    store.connection = None;
    let mut other = Store::open(&place.path).unwrap();
    other.load().unwrap();
    set(&mut other, "b", 2002);
    drop(other);
    for _ in 0..2 {
        let error = store
            .commit(&put("a", 9, Expect::Anything), &by("x"), at(1))
            .unwrap_err();
        assert!(matches!(error, StoreError::Moved { known: 2, found: 3, .. }), "{error}");
    }
    store.load().unwrap();
    assert_eq!(set(&mut store, "a", 2003), 4);
}

#[test]
fn what_is_no_store_says_what_to_do() {
    let place = place();
    fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    let told = |content: &[u8]| {
        fs::write(&place.path, content).unwrap();
        let error = Store::open(&place.path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(fs::read(&place.path).unwrap() == content, "it is left alone");
        error.to_string()
    };
    let lost = told(b"");
    assert!(
        lost.contains(
            "store.db is damaged: it is not a store of tcpgw; write down what is served (`tcpgw export > FILE`), move "
        ),
        "{lost}"
    );
    assert!(lost.ends_with("bring the services back (`tcpgw apply FILE`)"), "{lost}");
    let text = told(&b"no database at all\n".repeat(500));
    assert!(text.contains("file is not a database"), "{text}");
    fs::remove_file(&place.path).unwrap();
    let connection = Connection::open(&place.path).unwrap();
    connection.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    drop(connection);
    let other = Store::open(&place.path).unwrap_err().to_string();
    assert!(other.contains("it is not a store of tcpgw"), "{other}");
    fs::remove_file(&place.path).unwrap();
    fs::create_dir(&place.path).unwrap();
    let error = Store::open(&place.path).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn a_log_that_was_left_behind_is_not_played_into_a_new_store() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "lost", 3000);
    let log = fs::read(beside(&place.path, "-wal")).unwrap();
    drop(store);
    fs::remove_file(&place.path).unwrap();
    fs::write(beside(&place.path, "-wal"), log).unwrap();
    fs::write(
        beside(&place.path, "-journal"),
        [b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7".as_slice(), &[1; 9000]].concat(),
    )
    .unwrap();
    let left = beside(&place.path, ".new-1");
    fs::write(&left, "of somebody who was killed").unwrap();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    assert_eq!(names(&mut store), [("a".into(), 1)]);
    assert!(!left.exists());
}

/// Creates a store in the form from before there was a log.
fn with_journal(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "truncate", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "truncate");
}

#[test]
fn one_of_a_version_that_had_no_log_is_taken_and_given_back() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    drop(store);
    with_journal(&place.path);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(set(&mut store, "b", 2001), 2);
    drop(store);
    with_journal(&place.path);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1), ("b".into(), 2)]);
}

/// Returns the file and the log of a process that is killed now.
fn files(path: &Path) -> [Vec<u8>; 2] {
    ["", "-wal"].map(|end| fs::read(beside(path, end)).unwrap_or_default())
}

fn put_back(path: &Path, [file, log]: &[Vec<u8>; 2]) {
    fs::write(path, file).unwrap();
    fs::write(beside(path, "-wal"), log).unwrap();
}

#[test]
fn a_damaged_one_is_left_as_it_is_with_its_log() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let [file, log] = files(&place.path);
    drop(store);
    assert!(!log.is_empty());
    let foreign = vec![7; file.len()];
    let mut header = file.clone();
    header[..32].fill(b'x');
    let mut page = file.clone();
    let middle = page.len() / 2;
    page[middle..middle + 4096].fill(0x55);
    for damaged in [foreign, header, page] {
        let left = [damaged, log.clone()];
        put_back(&place.path, &left);
        let error = Store::open(&place.path);
        if error.is_ok() {
            // The log has the page that is damaged.
            continue;
        }
        assert!(matches!(error, Err(StoreError::Corrupt { .. })), "{error:?}");
        assert!(files(&place.path) == left, "it is changed");
    }
}

#[test]
fn what_a_killed_one_left_in_its_log_is_there_and_in_the_file_after_a_checkpoint() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let killed = files(&place.path);
    assert!(killed[1].len() > 4096, "{}", killed[1].len());
    store.checkpoint().unwrap();
    let [file, log] = files(&place.path);
    assert_eq!(log.len(), 0);
    drop(store);
    for (files, expected) in [
        (&killed, 1),
        (&[file, Vec::new()], 1),
        (&[killed[0].clone(), Vec::new()], 0),
    ] {
        put_back(&place.path, files);
        let mut store = Store::open(&place.path).unwrap();
        assert_eq!(store.load().unwrap().revision, expected);
        assert_eq!(
            fs::metadata(beside(&place.path, "-wal")).unwrap().len(),
            0,
            "opening is a checkpoint"
        );
    }
}

/// Replaces an open store by another one with its log, while the daemon still runs.
#[test]
fn the_log_of_another_store_survives_the_end_of_the_one_before() {
    let (place, other) = (place(), place());
    let mut store = Store::open(&other.path).unwrap();
    set(&mut store, "other", 3000);
    let files_of_other = files(&other.path);
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let away = place.path.with_file_name("away.db");
    for end in ["", "-wal"] {
        fs::rename(beside(&place.path, end), beside(&away, end)).unwrap();
    }
    put_back(&place.path, &files_of_other);
    set(&mut store, "b", 2001);
    drop(store);
    assert_eq!(files(&place.path), files_of_other, "they are left alone");
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("other".into(), 1)]);
    let mut store = Store::open(&away).unwrap();
    assert_eq!(
        names(&mut store),
        [("a".into(), 1), ("b".into(), 2)],
        "nor has the other lost anything"
    );
}

#[test]
fn a_log_with_changes_is_not_left_out_where_nothing_can_be_written() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let killed = files(&place.path);
    drop(store);
    put_back(&place.path, &killed);
    let directory = place.path.parent().unwrap();
    let parent = directory.parent().unwrap();
    fs::set_permissions(parent, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    let path = place.path.clone();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    as_nobody(move || {
        let error = Store::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::ReadOnly { .. }) && error.may_pass(),
            "{error}"
        );
        let told = error.to_string();
        assert!(
            told.contains("the last changes, in ")
                && told.contains("store.db-wal, cannot be read before it can be written"),
            "{told}"
        );
    });
    fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1)]);
}

#[test]
fn what_was_changed_by_hand_is_found() {
    for (sql, told) in [
        (
            "UPDATE services SET body = replace(body, '2000', '2001')",
            "the checksum of service \"a\" is wrong",
        ),
        (
            "UPDATE services SET name = 'z' WHERE name = 'a'",
            "the checksum of service \"z\" is wrong",
        ),
        (
            "DELETE FROM services WHERE name = 'a'",
            "it has 1 services, of those that were written it should have 2",
        ),
        ("UPDATE head SET revision = 1", "the head's checksum is wrong"),
        ("DELETE FROM head", "Query returned no rows"),
        ("DROP TABLE services", "no such table: services"),
    ] {
        let place = place();
        let mut store = Store::open(&place.path).unwrap();
        set(&mut store, "a", 2000);
        set(&mut store, "b", 3000);
        drop(store);
        Connection::open(&place.path).unwrap().execute_batch(sql).unwrap();
        let error = Store::open(&place.path).unwrap_err().to_string();
        assert!(error.contains(told), "{sql}: {error}");
    }
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    store.deploy_begin(&new_deploy("a"), &by("deploy"), at(1)).unwrap();
    drop(store);
    let past = "UPDATE history SET uid = 0; UPDATE deploys SET phase = 'failed'";
    Connection::open(&place.path).unwrap().execute_batch(past).unwrap();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1)]);
    let all = HistoryFilter {
        limit: 9,
        ..HistoryFilter::default()
    };
    let error = store.history(&all).unwrap_err().to_string();
    assert!(error.contains("the checksum of history entry 1 is wrong"), "{error}");
    assert!(
        store
            .deploy(1)
            .unwrap_err()
            .to_string()
            .contains("deploy 1 is not what was written")
    );
}

/// Restores a backup beside the log of the later store, whose pages belong to another file.
#[test]
fn the_log_of_a_later_store_beside_a_backup_is_damage() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    set(&mut store, "b", 2001);
    drop(store);
    let [backup, _] = files(&place.path);
    for added in 1_u16..8 {
        put_back(&place.path, &[backup.clone(), Vec::new()]);
        let mut store = Store::open(&place.path).unwrap();
        for n in 0..added {
            set(&mut store, &format!("later-{n}"), 3000 + n);
        }
        drop(store);
        let mut store = Store::open(&place.path).unwrap();
        set(&mut store, "b", 2002);
        let [_, log] = files(&place.path);
        drop(store);
        put_back(&place.path, &[backup.clone(), log]);
        fs::remove_file(beside(&place.path, ".written")).unwrap();
        let error = Store::open(&place.path).err();
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{added}: {error:?}");
    }
}
