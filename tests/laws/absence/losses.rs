//! The losses of an event, each of which happens while no daemon runs.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcpgw::reconcile::{Desired, ReconcileOptions, Reconciler};
use tcpgw::record::ApplyNote;
use tcpgw::store::last_services::LastServices;
use tcpgw::store::{ChangeAuthor, Expect, Store, StoreChange, StoreEdit, StoreIdentity};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::{Details, Owner};
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::fake::Fake;
use tcpgw_kernel::{Commit, Kernel as _};

use super::{WRITTEN, World};
use crate::states::links;
use crate::world::NAMESPACE;

/// Losses while no daemon runs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// Another program removes the table.
    TableGone,
    /// The table is removed, and the state file is applied without a daemon, if that is possible.
    Reapplied,
    /// Another program removes all slots, so that no backend is in the balance any more.
    SlotsFlushed,
    /// Another program removes all services from the table.
    ServicesFlushed,
    StoreGone,
    StoreDamaged,
    /// The store of another gateway, which has later revisions, is in the place of this one's.
    StoreForeign,
    RecordGone,
    RecordDamaged,
    /// The file of last services.
    LastGone,
    /// The record and the table are of another version.
    OtherVersion,
    Reboot,
}

impl World {
    /// Kills the daemon, lets all this be lost, and starts another daemon.
    pub(super) fn restart_after(&mut self, losses: &BTreeSet<Loss>) {
        let mut fake = self.kill();
        self.allow_record();
        // Where the kernel was not examined, or does not hold a service, no other source has it.
        let is_blind = self.examinations.is_stuck(self.clock.now);
        let is_table_lost = losses.iter().any(|loss| *loss <= Loss::ServicesFlushed);
        let is_stuck = std::mem::take(&mut self.clients.is_record_stuck);
        let is_record_lost = is_stuck || losses.contains(&Loss::RecordGone) || losses.contains(&Loss::RecordDamaged);
        for loss in losses {
            match loss {
                // The rules for a boot decide what is served again then, and what may be held back.
                Loss::TableGone | Loss::Reapplied | Loss::SlotsFlushed | Loss::ServicesFlushed if is_blind => {}
                // Nor where no source says that a port was served on which a local program listens now.
                Loss::TableGone | Loss::Reapplied if is_record_lost && !self.listening().is_empty() => {}
                // A service that is held back is kept as the kernel has it.
                Loss::SlotsFlushed if !self.clients.moved.is_empty() => {}
                Loss::SlotsFlushed => flush(&mut fake, |name| matches!(name, SetName::Slots(_))),
                // Without a record it is unknown whether they were removed.
                Loss::ServicesFlushed if is_record_lost => {}
                Loss::ServicesFlushed => flush(&mut fake, |name| matches!(name, SetName::Services(_))),
                Loss::TableGone => drop(fake.remove().unwrap()),
                Loss::Reapplied => self.apply_alone(&mut fake),
                Loss::StoreGone => drop(fs::remove_file(self.store_path())),
                Loss::StoreDamaged => fs::write(self.store_path(), "damaged").unwrap(),
                // Nothing says that it is that of another gateway: it is restored here.
                Loss::StoreForeign if losses.contains(&Loss::LastGone) || self.identity_remembered().is_none() => {}
                Loss::StoreForeign => self.put_foreign_store(),
                Loss::RecordGone => drop(fs::remove_file(self.record_path())),
                Loss::LastGone if losses.contains(&Loss::Reboot) || is_table_lost => {}
                Loss::LastGone if !self.clients.theirs.is_empty() || is_blind || is_stuck => {}
                // Somebody who removes it accepts the store of another gateway.
                Loss::LastGone if self.is_store_foreign() => {}
                Loss::LastGone => drop(fs::remove_file(LastServices::path(&self.store_path()))),
                Loss::RecordDamaged => drop(fs::write(self.record_path(), "damaged")),
                Loss::OtherVersion => self.other_version(),
                Loss::Reboot => {
                    self.clients.theirs = self.listening();
                    if self.examinations.is_stuck(self.clock.now) {
                        self.clients.waits_until = self.clients.sees_at;
                    }
                    fake = self.boot();
                }
            }
        }
        self.start(fake);
        self.wait(WRITTEN);
    }

    fn identity_remembered(&self) -> Option<StoreIdentity> {
        LastServices::load(&LastServices::path(&self.store_path()))
            .unwrap()?
            .identity
    }

    fn is_store_foreign(&self) -> bool {
        let found = Store::open(&self.store_path()).map(|store| store.identity());
        let remembered = self.identity_remembered();
        remembered.is_some() && found.is_ok_and(|found| found != remembered)
    }

    /// Puts the store of another gateway in the place of this one's: it has a service on a port of this one, one on its own, and
    /// later revisions.
    pub(super) fn put_foreign_store(&self) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let mut store = Store::open(&path).unwrap();
        let by = ChangeAuthor {
            uid: 0,
            pid: 1,
            what: "other".into(),
        };
        for port in [9003, 9101, 9102, 9103, 9104, 9105, 9106] {
            let service = json!({"name": format!("alien-{port}"), "port": port, "backends": ["10.9.0.99:80"]});
            let service = Arc::new(tcpgw_core::model::parse_service(service.to_string().as_bytes()).unwrap());
            let change = StoreChange {
                edits: vec![StoreEdit::Put(service, Expect::Absent)],
                ..StoreChange::default()
            };
            store.commit(&change, &by, Duration::ZERO).unwrap();
        }
        drop(store);
        fs::copy(&path, self.store_path()).unwrap();
    }

    /// Does the same with one that had a service of this name, and removed it.
    pub(super) fn put_foreign_store_that_removed(&self, name: &str) {
        self.put_foreign_store();
        let mut store = Store::open(&self.store_path()).unwrap();
        let service = json!({"name": name, "port": 9200, "backends": []}).to_string();
        let service = Arc::new(tcpgw_core::model::parse_service(service.as_bytes()).unwrap());
        let by = ChangeAuthor {
            uid: 0,
            pid: 1,
            what: "other".into(),
        };
        let edits = [
            StoreEdit::Put(service, Expect::Absent),
            StoreEdit::Delete(name.into(), Expect::Present),
        ];
        for edit in edits {
            let change = StoreChange {
                edits: vec![edit],
                ..StoreChange::default()
            };
            store.commit(&change, &by, Duration::ZERO).unwrap();
        }
    }

    /// Runs `tcpgw apply` of the state file, as far as the services of other providers do not prevent it: none is in the kernel.
    fn apply_alone(&self, fake: &mut Fake) {
        fake.remove().unwrap();
        let is_refused = !self.listening().is_empty()
            || !self.clients.moved.is_empty()
            || self.examinations.is_stuck(self.clock.now);
        let file = self
            .file
            .content
            .clone()
            .filter(|file| !file.services.is_empty() && !is_refused);
        let Some(wanted) = file else {
            return;
        };
        let desired = Desired::new(&wanted, &links());
        let records = self.record_file();
        let applied = ApplyNote {
            at: 1,
            origin: self.file.path.to_str().unwrap().into(),
            known: self.clock.passed(),
            store: None,
            provider: None,
        };
        let details = wanted.services.iter().map(|service| {
            let details = Details::new(Owner::File, service, service);
            (service.name.clone(), details)
        });
        let mut reconciler = Reconciler::new(fake, &records, NAMESPACE, FlowMark::default())
            .signed(applied)
            .detailed(details.collect());
        let known = reconciler.read_contents(&desired.summary).unwrap();
        let path = LastServices::path(&self.store_path());
        if let Some(mut last) = LastServices::load(&path).unwrap() {
            let missing = known.lost(&last).filter(|(_, name)| wanted.get(name).is_none());
            let missing: Vec<Box<str>> = missing.map(|(_, name)| name.into()).collect();
            last.unserved.extend(missing);
            last.save(&path).unwrap();
        }
        reconciler.apply(known, &desired, &ReconcileOptions::default()).unwrap();
    }

    fn other_version(&self) {
        let records = self.record_file();
        if let Some(mut record) = records.load() {
            record.head.program = "0.0.9, skeleton 3".into();
            records.save(&record.head, &record.ruleset).unwrap();
        }
    }
}

/// Removes all rows of these sets, as another program would.
fn flush(fake: &mut Fake, is_flushed: impl Fn(SetName) -> bool) {
    let ruleset = fake.ruleset();
    let left = ruleset.sets().iter().filter(|(name, _)| !is_flushed(**name));
    let left = left.map(|(name, rows)| (*name, rows.clone())).collect();
    let left = Ruleset::new(left, ruleset.round_robin_services().clone()).with_timeouts(*ruleset.timeouts());
    for step in &plan(&ruleset, &left).steps {
        let commit = Commit {
            generation: fake.generation(),
            mark: FlowMark::default(),
            build: None,
            step,
            forget: &[],
        };
        fake.commit(&commit).unwrap();
    }
}
