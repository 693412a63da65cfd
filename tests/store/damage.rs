//! A damaged store is refused, or the damage has no effect: everything that is read is what was written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use tcpgw::store::{
    ChangeAuthor, Expect, HistoryFilter, LoadedServices, NewDeploy, Store, StoreChange, StoreEdit, StoreError,
};
use tcpgw_core::model;

#[derive(Debug, PartialEq)]
struct Content {
    loaded: LoadedServices,
    history: String,
    deploys: String,
}

fn made(path: &Path) -> Content {
    let mut store = Store::open(path).unwrap();
    let by = ChangeAuthor {
        uid: 1,
        pid: 2,
        what: "test".into(),
    };
    for nth in 0..40_u16 {
        let backends: Vec<String> = (0..nth % 30).map(|at| format!("10.2.{nth}.{at}:80")).collect();
        let json = json!({"name": format!("s{}", nth % 20), "port": 2000 + nth, "backends": backends});
        let service = Arc::new(model::parse_service(json.to_string().as_bytes()).unwrap());
        let change = StoreChange {
            edits: vec![StoreEdit::Put(service, Expect::Anything)],
            ..StoreChange::default()
        };
        store.commit(&change, &by, Duration::ZERO).unwrap();
        let deploy = NewDeploy {
            service: format!("s{nth}").into(),
            targets: Vec::new(),
            details: json!({}),
            supersedes: Vec::new(),
            ends: Vec::new(),
        };
        store.deploy_begin(&deploy, &by, Duration::ZERO).unwrap();
    }
    let loaded = store.load().unwrap();
    let (history, deploys) = past(&mut store);
    Content {
        loaded,
        history: history.unwrap(),
        deploys: deploys.unwrap(),
    }
}

type Told = Result<String, StoreError>;

fn past(store: &mut Store) -> (Told, Told) {
    let all = HistoryFilter {
        limit: 1000,
        ..HistoryFilter::default()
    };
    let history = store.history(&all);
    let deploys = store.unfinished_deploys();
    (
        history.map(|history| format!("{history:?}")),
        deploys.map(|deploys| format!("{deploys:?}")),
    )
}

/// Returns true when the damage was found. Asserts that otherwise all contents are intact.
fn check(path: &Path, content: &Content) -> bool {
    let opened = Store::open(path).and_then(|mut store| Ok((store.load()?, past(&mut store))));
    let (loaded, (history, deploys)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let known = matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. });
            assert!(
                known || matches!(error, StoreError::ReadOnly { .. } | StoreError::Io { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("store.db"), "{error}");
            return true;
        }
    };
    assert_eq!(loaded, content.loaded);
    assert!(history.as_ref().is_err() || history.as_ref() == Ok(&content.history));
    assert!(deploys.as_ref().is_err() || deploys.as_ref() == Ok(&content.deploys));
    history.is_err() || deploys.is_err()
}

#[test]
fn a_flipped_bit_is_found_or_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let content = made(&path);
    let good = fs::read(&path).unwrap();
    let mut found = 0;
    // The header of SQLite has much that is not in any row: all of it. Of the rest some.
    let places: Vec<usize> = (0..100).chain((100..good.len()).step_by(good.len() / 400)).collect();
    for (nth, at) in places.iter().enumerate() {
        let mut bad = good.clone();
        bad[*at] ^= 1 << (nth % 8);
        fs::write(&path, &bad).unwrap();
        found += usize::from(check(&path, &content));
    }
    eprintln!("{} bits of {} bytes flipped, {found} found", places.len(), good.len());
    assert!(found >= 100, "{found}");
    fs::write(&path, &good).unwrap();
    assert!(!check(&path, &content));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_torn_file_is_found_or_harms_nothing(from in any::<Index>(), length in 1..9000_usize, cut in any::<bool>(), byte in any::<u8>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let content = made_once();
        let mut bad = content.1.clone();
        let from = from.index(bad.len());
        if cut {
            bad.truncate(from);
        } else {
            let end = (from + length).min(bad.len());
            bad[from..end].fill(byte);
        }
        let is_changed = bad != content.1;
        fs::write(&path, &bad).unwrap();
        let found = check(&path, &content.0);
        prop_assert!(is_changed || !found);
    }
}

/// Contents of a store after one of some changes, with the file and log that a killed process leaves then.
struct Moment {
    content: Content,
    file: Vec<u8>,
    log: Vec<u8>,
}

fn moments(path: &Path) -> Vec<Moment> {
    made(path);
    let mut store = Store::open(path).unwrap();
    let by = ChangeAuthor {
        uid: 1,
        pid: 2,
        what: "test".into(),
    };
    let mut moments = Vec::new();
    for nth in 0..6_u16 {
        // Changes of many pages, and of one.
        let names = if nth % 2 == 0 { 3..18 } else { 4..5 };
        let edits = names.map(|at| {
            let backends: Vec<String> = (0..40).map(|host| format!("10.3.{nth}.{host}:80")).collect();
            let json = json!({"name": format!("s{at}"), "port": 3000 + at, "backends": backends});
            let service = Arc::new(model::parse_service(json.to_string().as_bytes()).unwrap());
            StoreEdit::Put(service, Expect::Anything)
        });
        let change = StoreChange {
            edits: edits.collect(),
            ..StoreChange::default()
        };
        store.commit(&change, &by, Duration::ZERO).unwrap();
        let loaded = store.load().unwrap();
        let (history, deploys) = past(&mut store);
        moments.push(Moment {
            content: Content {
                loaded,
                history: history.unwrap(),
                deploys: deploys.unwrap(),
            },
            file: fs::read(path).unwrap(),
            log: fs::read(log_of(path)).unwrap(),
        });
        if nth == 2 {
            store.checkpoint().unwrap();
        }
    }
    moments
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// Returns the moment whose contents a store has, or `None` when the damage was found. Asserts that it has no other contents.
fn moment_of(path: &Path, moments: &[Moment]) -> Option<usize> {
    let opened = Store::open(path).and_then(|mut store| Ok((store.load()?, past(&mut store))));
    let (loaded, (history, deploys)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            return None;
        }
    };
    let found = moments.iter().position(|moment| moment.content.loaded == loaded);
    let Some(at) = found else {
        panic!("it never was so: {loaded:?}");
    };
    let content = &moments[at].content;
    assert!(history.is_err() || history.as_ref() == Ok(&content.history));
    assert!(deploys.is_err() || deploys.as_ref() == Ok(&content.deploys));
    Some(at)
}

/// A log with a damaged end reads as an earlier moment, because its end counts as not written. The revision in the file of last
/// services tells that moment from the last one.
#[test]
fn a_damaged_log_is_that_of_an_earlier_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let all = moments(&path);
    let last = all.last().unwrap();
    // Before the first of the changes that are in the log, too.
    let moments = &all[2..];
    let mut seen = [0; 4];
    for (nth, at) in (0..last.log.len()).step_by(last.log.len() / 300).enumerate() {
        let mut bad = last.log.clone();
        bad[at] ^= 1 << (nth % 8);
        fs::write(&path, &last.file).unwrap();
        fs::write(log_of(&path), bad).unwrap();
        if let Some(moment) = moment_of(&path, moments) {
            seen[moment] += 1;
        }
    }
    eprintln!("bits of the log flipped: {seen:?}");
    assert!(seen[0] > 20 && seen[1..3].iter().all(|seen| *seen > 0), "{seen:?}");
    fs::write(&path, &last.file).unwrap();
    fs::write(log_of(&path), &last.log).unwrap();
    assert_eq!(moment_of(&path, moments), Some(3));
}

/// A log beside an older or newer copy of the file is found, or reads as an earlier moment.
#[test]
fn a_log_beside_another_copy_of_the_file_is_found_or_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let made = made(&path);
    let first = Moment {
        content: made,
        file: fs::read(&path).unwrap(),
        log: Vec::new(),
    };
    let other = tempfile::tempdir().unwrap();
    let mut moments = moments(&other.path().join("store.db"));
    moments.insert(0, first);
    let (mut found, mut read) = (0, 0);
    for file in &moments {
        for log in &moments {
            fs::write(&path, &file.file).unwrap();
            fs::write(log_of(&path), &log.log).unwrap();
            match moment_of(&path, &moments) {
                None => found += 1,
                Some(_) => read += 1,
            }
        }
    }
    eprintln!("{found} found, {read} read");
    assert!(found > 0 && read >= moments.len(), "{found} found, {read} read");
}

fn made_once() -> &'static (Content, Vec<u8>) {
    static MADE: std::sync::OnceLock<(Content, Vec<u8>)> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let content = made(&path);
        (content, fs::read(&path).unwrap())
    })
}
