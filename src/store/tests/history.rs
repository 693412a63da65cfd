//! The history of changes, and its bounds.

use super::*;

#[test]
fn the_history_says_what_changed_when_and_by_whom() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    set(&mut store, "b", 2001);
    set(&mut store, "a", 2002);
    let delete = StoreChange {
        edits: vec![StoreEdit::Delete("a".into(), Expect::Anything)],
        ..StoreChange::default()
    };
    store.commit(&delete, &by("service delete"), at(3000)).unwrap();
    let all = HistoryFilter {
        limit: 10,
        ..HistoryFilter::default()
    };
    let entries = store.history(&all).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let reported = |entry: &HistoryEntry| {
        let json = json!({"old": entry.old, "new": entry.new, "service": entry.service, "what": entry.what});
        (entry.revision, entry.at, entry.uid, entry.pid, entry.deploy, json)
    };
    let [first, second] = [2000, 2002].map(|port| json!({"name": "a", "port": port, "backends": []}));
    let deleted = json!({"old": second, "new": null, "service": "a", "what": "service delete"});
    assert_eq!(reported(&entries[0]), (4, at(3000), 1000, 77, None, deleted));
    let changed = json!({"old": first, "new": second, "service": "a", "what": "service set"});
    assert_eq!(reported(&entries[1]), (3, at(2002), 1000, 77, None, changed));
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
    let keep = HistoryBounds {
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
        HistoryBounds {
            bytes: one * 4,
            ..HistoryBounds::default()
        },
    )
    .unwrap();
    assert_eq!(set(&mut store, "a", 10), 10);
    assert_eq!(set(&mut store, "a", 11), 11);
    assert_eq!(ids(&mut store), [11, 10]);
    drop(store);
    let mut store = Store::open_with(
        &place.path,
        HistoryBounds {
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
