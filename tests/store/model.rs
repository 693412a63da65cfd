//! Random changes to a store and to a map: both have the same contents and give the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tcpgw::store::{ChangeAuthor, CommittedChange, Expect, HistoryFilter, Store, StoreChange, StoreEdit, StoreError};
use tcpgw_core::model::{self, Service, write};

/// Services that get a port, or are removed without one, if they are as wished.
type Edits = Vec<(u8, Option<u16>, Wish)>;

#[derive(Debug, Clone)]
enum Step {
    Change(Edits, Option<u64>),
    /// Several changes in one transaction, some of which may be refused.
    Together(Vec<(Edits, Option<u64>)>),
    Reopen,
}

/// Expectations as in [`Expect`], with revisions relative to the store's.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Anything,
    Absent,
    Present,
    Current,
    Revision(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let wish = prop_oneof![
        4 => Just(Wish::Anything),
        1 => Just(Wish::Absent),
        1 => Just(Wish::Present),
        3 => Just(Wish::Current),
        1 => (0..6_u64).prop_map(Wish::Revision),
    ];
    let edit = (0..5_u8, prop::option::weighted(0.7, 1..9_u16), wish);
    let change = (prop::collection::vec(edit, 0..4), prop::option::weighted(0.2, 0..2_u64));
    prop_oneof![
        9 => change.clone().prop_map(|(edits, behind)| Step::Change(edits, behind)),
        5 => prop::collection::vec(change, 0..5).prop_map(Step::Together),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    revision: u64,
    services: BTreeMap<Box<str>, (Arc<Service>, u64)>,
    history: Vec<(u64, Box<str>, Value, Value)>,
}

impl Model {
    /// Applies a change to the model, as the store should. Fails with the name of the service that is not as expected, if it is
    /// one.
    fn apply(&mut self, change: &StoreChange) -> Result<(), Option<Box<str>>> {
        if change.expect.is_some_and(|expected| expected != self.revision) {
            return Err(None);
        }
        let mut next = self.clone();
        next.revision += 1;
        for edit in &change.edits {
            let (name, expect, new) = match edit {
                StoreEdit::Put(service, expect) => (&service.name, expect, Some(service)),
                StoreEdit::Delete(name, expect) => (name, expect, None),
            };
            let old = next.services.get(name).cloned();
            let met = match expect {
                Expect::Anything => true,
                Expect::Absent => old.is_none(),
                Expect::Present => old.is_some(),
                Expect::Revision(revision) => old.as_ref().is_some_and(|(_, at)| at == revision),
            };
            if !met {
                return Err(Some(name.clone()));
            }
            let old = old.map(|(service, _)| service);
            if old.as_ref() == new {
                continue;
            }
            let json = |service: Option<&Arc<Service>>| service.map_or(Value::Null, |one| write::service_value(one));
            let entry = (next.revision, name.clone(), json(old.as_ref()), json(new));
            next.history.insert(0, entry);
            match new {
                Some(service) => next.services.insert(name.clone(), (service.clone(), next.revision)),
                None => next.services.remove(name),
            };
        }
        if next.history.len() > self.history.len() {
            *self = next;
        }
        Ok(())
    }

    fn change(&self, edits: &Edits, behind: Option<u64>) -> StoreChange {
        let edits = edits.iter().map(|(at, port, wish)| {
            let name: Box<str> = format!("s{at}").into();
            let current = self.services.get(&name).map_or(0, |(_, revision)| *revision);
            let expect = match wish {
                Wish::Anything => Expect::Anything,
                Wish::Absent => Expect::Absent,
                Wish::Present => Expect::Present,
                Wish::Current => Expect::Revision(current),
                Wish::Revision(behind) => Expect::Revision(self.revision.saturating_sub(*behind)),
            };
            match port {
                Some(port) => StoreEdit::Put(service(&name, *port), expect),
                None => StoreEdit::Delete(name, expect),
            }
        });
        StoreChange {
            edits: edits.collect(),
            expect: behind.map(|behind| self.revision.saturating_sub(behind)),
            deploy: None,
            resources: Vec::new(),
            rests: Vec::new(),
        }
    }

    /// Compares what the store has answered with what it should, and is as it should be then.
    fn expect(&mut self, change: &StoreChange, told: Result<CommittedChange, StoreError>) {
        let before = self.revision;
        match (told, self.apply(change)) {
            (Ok(committed), Ok(())) => assert_eq!(committed.revision, self.revision),
            (Err(StoreError::Behind { current, .. }), Err(None)) => assert_eq!(current, before),
            (Err(StoreError::Conflict { name, current }), Err(Some(expected))) => {
                assert_eq!(name, expected);
                assert!(current.is_none_or(|stored| stored.service.name == name));
            }
            (told, expected) => panic!("{told:?} {expected:?}"),
        }
    }

    fn check(&self, store: &mut Store) {
        let loaded = store.load().unwrap();
        assert_eq!(loaded.revision, self.revision);
        let held = loaded.services.into_iter();
        let held: BTreeMap<_, _> = held
            .map(|stored| (stored.service.name.clone(), (stored.service, stored.revision)))
            .collect();
        assert_eq!(held, self.services);
        let all = HistoryFilter {
            limit: 1000,
            ..HistoryFilter::default()
        };
        let history = store.history(&all).unwrap();
        let json = |text: &Option<_>| serde_json::to_value(text).unwrap();
        let noted: Vec<_> = history
            .iter()
            .map(|entry| {
                let name: Box<str> = entry.service.as_str().into();
                (entry.revision, name, json(&entry.old), json(&entry.new))
            })
            .collect();
        assert_eq!(noted, self.history);
        assert!(history.is_sorted_by(|newer, older| newer.id == older.id + 1));
    }
}

fn service(name: &str, port: u16) -> Arc<Service> {
    let json = json!({"name": name, "port": port, "backends": []});
    Arc::new(model::parse_service(json.to_string().as_bytes()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_is_a_map_with_a_memory(steps in prop::collection::vec(step(), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let mut store = Store::open(&path).unwrap();
        let mut model = Model::default();
        let by = ChangeAuthor { uid: 1, pid: 2, what: "test".into() };
        for step in steps {
            match step {
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path).unwrap();
                }
                Step::Change(edits, behind) => {
                    let change = model.change(&edits, behind);
                    model.expect(&change, store.commit(&change, &by, Duration::ZERO));
                }
                Step::Together(changes) => {
                    let changes = changes.iter().map(|(edits, behind)| model.change(edits, *behind));
                    let changes: Vec<(StoreChange, ChangeAuthor)> = changes.map(|change| (change, by.clone())).collect();
                    let told = store.commit_together(&changes, Duration::ZERO);
                    prop_assert_eq!(told.len(), changes.len());
                    for ((change, _), told) in changes.iter().zip(told) {
                        model.expect(change, told);
                    }
                }
            }
            model.check(&mut store);
        }
    }
}
