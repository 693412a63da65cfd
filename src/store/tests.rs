mod access;
mod deploys;
mod history;
mod log;

use super::*;
use nix::unistd::{Uid, setfsuid};
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use tcpgw_core::model::{self, Service, State};
use tempfile::TempDir;

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

fn put(name: &str, port: u16, expect: Expect) -> StoreChange {
    StoreChange {
        edits: vec![StoreEdit::Put(service(name, port), expect)],
        ..StoreChange::default()
    }
}

fn by(what: &str) -> ChangeAuthor {
    ChangeAuthor {
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
fn replace(have: &LoadedServices, want: &State) -> StoreChange {
    let services = have.services.iter().map(|stored| Arc::clone(&stored.service));
    let edits = want.edits_from(&State {
        services: services.collect(),
    });
    let gone = edits.gone.into_iter();
    let gone = gone.map(|name| StoreEdit::Delete(name, Expect::Present));
    let put = edits.put.into_iter();
    let put = put.map(|service| StoreEdit::Put(service, Expect::Anything));
    StoreChange {
        edits: gone.chain(put).collect(),
        expect: Some(have.revision),
        deploy: None,
        resources: Vec::new(),
        rests: Vec::new(),
    }
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

fn new_deploy(service: &str) -> NewDeploy {
    NewDeploy {
        service: service.into(),
        targets: vec!["10.2.0.1:80".parse().unwrap(), "[fd00:2::1]:80".parse().unwrap()],
        details: json!({"until": "drained", "was": ["10.2.0.9:80"]}),
        ends: Vec::new(),
        supersedes: Vec::new(),
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!((store.load(), store.trouble()), (Ok(LoadedServices::default()), None));
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
        change.edits.insert(0, StoreEdit::Delete("b".into(), Expect::Present));
        let error = store.commit(&change, &by("x"), at(1)).unwrap_err();
        let conflict = StoreError::Conflict {
            name: name.into(),
            current: current.map(|current| Box::new(current.clone())),
        };
        assert_eq!(error, conflict);
        assert!(!error.is_trouble() && store.is_writable());
        assert_eq!(names(&mut store), [("a".into(), 1), ("b".into(), 2)]);
    }
    let behind = StoreChange {
        expect: Some(1),
        ..put("c", 9, Expect::Absent)
    };
    let error = store.commit(&behind, &by("x"), at(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the services were changed meanwhile, and are at revision 2, not 1; nothing was changed; read them again, then repeat the change"
    );
    let met = StoreChange {
        edits: vec![
            StoreEdit::Put(service("a", 9), Expect::Revision(1)),
            StoreEdit::Delete("b".into(), Expect::Revision(2)),
            StoreEdit::Put(service("c", 10), Expect::Absent),
            StoreEdit::Delete("none".into(), Expect::Anything),
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
