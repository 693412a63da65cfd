//! The invariants of the add-on.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::prelude::*;
use tcpgw::addon::id::ResourceId;
use tcpgw::addon::{Resource, ResourceStatus};
use tcpgw_core::model::{PacketRefusal, Service, State};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_kernel::fake::{ConnectOutcome, Fake};

use super::{APPS, Event, FIRST, LAST, LONG, PLANS, World, app};
use crate::states::desired;
use crate::world::kernel::syn;

impl World {
    /// Checks the invariants that hold whenever all requests have been answered.
    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        if !self.clients.asked.is_empty() {
            // A request may wait only for a kernel that failed, until the next attempt.
            prop_assert!(self.is_troubled, "a request is not answered");
            return Ok(());
        }
        let store = self.store();
        let (resources, services) = (store.resources().unwrap().resources, store.load().unwrap().services);
        let mut ports = BTreeSet::from([FIRST]);
        for resource in &resources {
            prop_assert!(
                ports.insert(resource.port.get()),
                "port {} is given twice",
                resource.port
            );
            prop_assert!((FIRST..=LAST).contains(&resource.port.get()));
            let name = resource.id.service();
            let service = services.iter().find(|stored| *stored.service.name == *name);
            let Some(service) = service else {
                return Err(TestCaseError::fail(format!("{name} has no service")));
            };
            let pps = PLANS.iter().find(|(plan, _)| *plan == resource.plan.as_str());
            prop_assert_eq!(service.service.port, resource.port);
            prop_assert_eq!(service.service.limit.map(|limit| limit.pps), pps.map(|(_, pps)| *pps));
        }
        let of_resources = services
            .iter()
            .filter(|stored| ResourceId::of_service(&stored.service.name).is_some());
        prop_assert_eq!(of_resources.count(), resources.len(), "a service has no resource");
        for at in 0..APPS {
            let there: Vec<&Resource> = resources.iter().filter(|one| one.app == app(at)).collect();
            prop_assert!(there.len() <= 1, "{} has two resources", app(at));
            if self.clients.uncertain.contains(&at) {
                continue;
            }
            let known = self.clients.known.get(&at).and_then(Option::as_deref);
            prop_assert_eq!(there.first().copied(), known, "{} is not as acknowledged", app(at));
        }
        Ok(())
    }

    /// Ends all trouble and checks that the core, the store and the kernel agree.
    pub(super) fn end(mut self) -> Result<(), TestCaseError> {
        self.heal();
        (self.storage().kill, self.storage().fail_change) = (None, None);
        self.clients.is_held = false;
        self.wait(LONG);
        prop_assert!(self.clients.asked.is_empty(), "a request is not answered");
        self.check()?;
        prop_assert!(self.core.in_sync());
        let resources = self.store().resources().unwrap().resources;
        let cores: Vec<Resource> = self.core.resources().iter().map(|one| Resource::clone(one)).collect();
        prop_assert_eq!(&cores, &resources);
        let suspended: BTreeSet<String> = resources
            .iter()
            .filter(|resource| resource.status == ResourceStatus::Suspended)
            .map(|resource| resource.id.service())
            .collect();
        let services = self.store().load().unwrap().services.into_iter().map(|stored| {
            let service = Service::clone(&stored.service);
            if suspended.contains(&*service.name) {
                Service {
                    backends: Vec::new(),
                    on_empty: PacketRefusal::Reset,
                    ..service
                }
            } else {
                service
            }
        });
        let want = State::new(services).unwrap();
        prop_assert_eq!(&self.kernel().ruleset(), &desired(&want).ruleset);
        for resource in &resources {
            let name = resource.id.service();
            let fate = self.connect_to(resource.port);
            let service = want.services.iter().find(|service| *service.name == *name);
            let is_empty = service.is_none_or(|service| service.backends.is_empty());
            match fate {
                ConnectOutcome::Backend(_) => prop_assert!(!is_empty),
                other => prop_assert!(
                    is_empty && other == (ConnectOutcome::Empty { reset: true }),
                    "{:?}",
                    other
                ),
            }
        }
        self.plans_change_in_place()
    }

    /// Returns what a client meets that connects to a port.
    pub(super) fn connect_to(&mut self, port: NonZeroU16) -> ConnectOutcome {
        self.kernel().connect(&syn(port.get()), 0)
    }

    /// Checks that a change of a plan touches no element that stays the same: buckets, counters and flows of others stay.
    fn plans_change_in_place(mut self) -> Result<(), TestCaseError> {
        for at in 0..APPS {
            for plan in 0..PLANS.len() {
                let before = self.kernel().ruleset();
                let born = born(self.kernel(), &before);
                self.happen(&Event::Plan(at, plan));
                self.wait(Duration::from_secs(1));
                let after = self.kernel().ruleset();
                let now = self::born(self.kernel(), &after);
                for (key, generation) in &born {
                    let is_same = row(&before, key) == row(&after, key);
                    prop_assert!(!is_same || now.get(key) == Some(generation), "{:?} was touched", key);
                }
            }
        }
        self.check()
    }
}

type Key = (tcpgw_core::ruleset::name::SetName, Vec<u8>);

fn born(kernel: &Fake, ruleset: &Ruleset) -> BTreeMap<Key, u32> {
    let mut all = BTreeMap::new();
    for (name, rows) in ruleset.sets() {
        let length = SetSpec::of(*name).identity_len();
        for row in rows {
            let identity = &row[..length];
            if let Some(generation) = kernel.born(*name, identity) {
                all.insert((*name, identity.to_vec()), generation);
            }
        }
    }
    all
}

fn row(ruleset: &Ruleset, (name, identity): &Key) -> Option<Vec<u8>> {
    ruleset
        .rows(*name)
        .and_then(|rows| rows.find(identity))
        .map(<[u8]>::to_vec)
}
