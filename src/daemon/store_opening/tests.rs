//! Stores that continue the one before, and copies that do not.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A gateway with its files: the store, what the file of last services and the record of this boot know of it.
struct Gateway {
    directory: tempfile::TempDir,
    store: Option<Store>,
    epoch: Option<StoreEpoch>,
    last: LastServices,
    recorded: RecordedStore,
    clock: Duration,
    services: u32,
}

impl Gateway {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: None,
            epoch: None,
            last: LastServices::default(),
            recorded: RecordedStore::default(),
            clock: Duration::ZERO,
            services: 0,
        }
    }

    /// Returns another machine with a copy of all files except the record, which no reboot survives.
    fn cloned(&self) -> Self {
        let copy = Self {
            last: self.last.clone(),
            services: 1000,
            ..Self::new()
        };
        fs::copy(self.path(), copy.path()).unwrap();
        let _ = fs::copy(write_count::path(&self.path()), write_count::path(&copy.path()));
        copy
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    fn start(&mut self) -> Result<Continuity, StoreError> {
        self.store = None;
        let recorded = self.last.amended(self.recorded, "b", 0);
        let (store, opened) = open(&self.path(), &self.last, &recorded, Duration::ZERO)?;
        (self.store, self.epoch) = (Some(store), opened.epoch);
        Ok(opened.continuity)
    }

    fn write_last(&mut self) {
        let known = self.known();
        self.last = LastServices {
            boot: "b".into(),
            known: known.known,
            revision: known.revision,
            identity: known.identity,
            lineage: known.lineage,
            ..LastServices::default()
        };
    }

    fn write_record(&mut self) {
        self.recorded = self.known();
    }

    fn known(&mut self) -> RecordedStore {
        self.clock += Duration::from_millis(1);
        let store = self.store.as_mut().unwrap();
        let loaded = store.load().unwrap();
        RecordedStore {
            revision: loaded.revision,
            identity: store.identity(),
            lineage: StoreLineage {
                epoch: self.epoch,
                contents: Some(loaded.contents),
            },
            known: self.clock,
        }
    }

    /// Adds a service, of which the record may learn.
    fn change(&mut self, is_recorded: bool) {
        self.services += 1;
        let service = format!(r#"{{"name": "s{}", "port": 2001, "backends": []}}"#, self.services);
        let service = parse_service(service.as_bytes()).unwrap();
        self.edit(StoreEdit::Put(Arc::new(service), Expect::Absent));
        if is_recorded {
            self.write_record();
        }
    }

    fn edit(&mut self, edit: StoreEdit) {
        let change = StoreChange {
            edits: vec![edit],
            ..StoreChange::default()
        };
        let by = ChangeAuthor {
            uid: 0,
            pid: 1,
            what: "test".into(),
        };
        self.store
            .as_mut()
            .unwrap()
            .commit(&change, &by, Duration::ZERO)
            .unwrap();
    }

    /// Ends as a daemon does that is stopped.
    fn stop(&mut self) {
        self.write_last();
        self.write_record();
        self.store = None;
    }

    /// Puts the store of another gateway in the place of this one.
    fn take_store(&mut self, from: &Self) {
        self.store = None;
        fs::copy(from.path(), self.path()).unwrap();
        let _ = fs::remove_file(write_count::path(&self.path()));
    }
}

/// Returns numbers that look random, each less than `most`.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed * 2 + 1;
    move |most| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % most
    }
}

/// Law: whichever of the writes of a daemon were made when it was killed, its store is accepted at the next start.
#[test]
fn a_daemon_that_is_killed_at_any_time_knows_its_store() {
    for seed in 0..6 {
        let (mut random, mut gateway) = (random(seed), Gateway::new());
        gateway.start().unwrap();
        for step in 0..60 {
            match random(8) {
                0..=2 => {
                    gateway
                        .start()
                        .unwrap_or_else(|error| panic!("{seed}, {step}: {error}"));
                }
                3 => gateway.write_last(),
                4 => gateway.write_record(),
                5 => {
                    gateway.change(random(3) > 0);
                }
                6 => gateway.stop(),
                // The machine boots.
                _ => gateway.recorded = RecordedStore::default(),
            }
            if gateway.store.is_none() {
                gateway.start().unwrap();
            }
        }
    }
}

/// Tests a daemon that cannot write one of its files for many starts.
#[test]
fn many_starts_that_no_file_knows_of_are_no_alarm() {
    let mut gateway = Gateway::new();
    gateway.start().unwrap();
    gateway.change(true);
    gateway.write_last();
    for _ in 0..3 {
        gateway.start().unwrap();
    }
    gateway.change(false);
    for _ in 0..crate::store::MOST_EPOCHS + 3 {
        assert_eq!(gateway.start(), Ok(Continuity::Continued));
    }
}

/// Law: a copy that was changed elsewhere, after the daemon was started here again, does not replace the store here.
#[test]
fn a_copy_that_was_used_elsewhere_is_refused() {
    for (here, elsewhere) in [(0, 1), (1, 1), (1, 2), (2, 5), (3, 3)] {
        for has_booted in [false, true] {
            let mut gateway = Gateway::new();
            gateway.start().unwrap();
            gateway.change(true);
            gateway.start().unwrap();
            gateway.stop();
            let mut copy = gateway.cloned();
            assert_eq!(copy.start(), Ok(Continuity::Continued));
            (0..elsewhere).for_each(|_| copy.change(true));
            copy.stop();
            gateway.start().unwrap();
            (0..here).for_each(|_| gateway.change(true));
            gateway.stop();
            if has_booted {
                gateway.recorded = RecordedStore::default();
            }
            let own = gateway.cloned();
            gateway.take_store(&copy);
            let refused = gateway.start().unwrap_err();
            assert!(
                matches!(refused, StoreError::Copied { .. }),
                "{here} {elsewhere}: {refused}"
            );
            assert!(refused.is_trouble() && !refused.may_pass());
            // The whole directory came from the other machine; what the record knows is kept.
            if !has_booted {
                let theirs = LastServices {
                    boot: "theirs".into(),
                    ..copy.last.clone()
                };
                let ours = std::mem::replace(&mut gateway.last, theirs);
                let (refused, recorded) = (gateway.start().unwrap_err(), gateway.recorded);
                keep_known(&mut gateway.last, &recorded, &refused);
                assert_eq!(gateway.last.lineage, ours.lineage);
                assert_eq!(gateway.last.services, []);
                gateway.last = ours;
            }
            // It is accepted without the file of last services, and quiet from then on.
            let ours = std::mem::take(&mut gateway.last);
            let continuity = gateway.start().unwrap();
            assert_eq!(continuity == Continuity::Unknown, has_booted);
            assert_eq!(continuity == Continuity::Accepted, !has_booted);
            gateway.write_last();
            assert_eq!(gateway.start(), Ok(Continuity::Continued));
            // The own one is none afterwards, either; where it was never accepted, it is in order.
            gateway.take_store(&own);
            gateway.start().unwrap_err();
            gateway.last = ours;
            gateway.recorded = RecordedStore::default();
            assert_eq!(gateway.start(), Ok(Continuity::Continued));
        }
    }
}

/// A backup with all changes is in order, however often the daemon was started since.
#[test]
fn a_copy_with_the_same_services_is_no_alarm() {
    let mut gateway = Gateway::new();
    gateway.start().unwrap();
    gateway.change(true);
    gateway.start().unwrap();
    gateway.stop();
    let backup = gateway.cloned();
    for _ in 0..3 {
        gateway.start().unwrap();
        gateway.stop();
    }
    gateway.take_store(&backup);
    assert_eq!(gateway.start(), Ok(Continuity::Continued));
    // It is killed before any file knows of this start, and of a change in it.
    gateway.change(true);
    assert_eq!(gateway.start(), Ok(Continuity::Continued));
    gateway.stop();
    gateway.take_store(&backup);
    assert!(matches!(gateway.start(), Err(StoreError::Older { .. })));
}

/// Files and stores of an earlier version know no epochs.
#[test]
fn an_upgrade_is_no_alarm() {
    for (has_last, has_record) in [(true, true), (true, false), (false, true)] {
        let mut gateway = Gateway::new();
        gateway.start().unwrap();
        gateway.change(true);
        gateway.stop();
        let before = rusqlite::Connection::open(gateway.path()).unwrap();
        before.execute_batch("DROP TABLE IF EXISTS epochs").unwrap();
        drop(before);
        gateway.last.lineage = StoreLineage::default();
        gateway.recorded.lineage = StoreLineage::default();
        if !has_last {
            gateway.last = LastServices::default();
        }
        if !has_record {
            gateway.recorded = RecordedStore::default();
        }
        for _ in 0..3 {
            assert_eq!(gateway.start(), Ok(Continuity::Continued), "{has_last}, {has_record}");
            assert!(gateway.epoch.is_some());
        }
        gateway.change(true);
        gateway.write_last();
        assert_eq!(gateway.start(), Ok(Continuity::Continued));
    }
}

#[test]
fn only_a_store_that_continues_the_one_before_tells_what_was_removed() {
    let mut gateway = Gateway::new();
    assert_eq!(gateway.start(), Ok(Continuity::Unknown));
    gateway.change(true);
    gateway.stop();
    let older = gateway.cloned();
    assert_eq!(gateway.start(), Ok(Continuity::Continued));
    gateway.change(true);
    gateway.stop();
    let mut foreign = Gateway::new();
    foreign.start().unwrap();
    (0..5).for_each(|_| foreign.change(true));
    foreign.stop();
    // The file of last services was removed without a need: the record knows the store.
    let last = std::mem::take(&mut gateway.last);
    assert_eq!(gateway.start(), Ok(Continuity::Continued));
    gateway.store = None;
    for other in [&older, &foreign] {
        gateway.last = last.clone();
        gateway.take_store(other);
        gateway.start().unwrap_err();
        gateway.last = LastServices::default();
        assert_eq!(gateway.start(), Ok(Continuity::Accepted));
        gateway.store = None;
    }
    gateway.recorded = RecordedStore::default();
    assert_eq!(gateway.start(), Ok(Continuity::Unknown));
}
