//! The services that clients expect to be served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use proptest::prelude::*;
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::{ConnectOutcome, Fake, Syn};

use super::services::{ELSEWHERE, OF_API, OF_FILE, backends, port, state};
use super::{Event, LISTENERS, WRITTEN, World};
use crate::world;

/// What the clients of services expect, and why they may be refused.
pub(super) struct Expected {
    /// Services in the state file, or `None` when the file is absent.
    pub(super) file: Option<BTreeSet<usize>>,
    /// Services that their providers want on another port, where a local program listens.
    pub(super) moved: BTreeSet<&'static str>,
    /// The ports that have to be served.
    pub(super) ports: BTreeSet<u16>,
    /// The ports that local programs had first.
    pub(super) theirs: BTreeSet<u16>,
    /// Time by which an examination of the gateway that is stuck has ended.
    pub(super) sees_at: Instant,
    pub(super) is_record_stuck: bool,
    /// Time until which services may be held back, because the machine booted while the gateway could not be examined.
    pub(super) waits_until: Instant,
}

impl world::Clients for Expected {}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut world = world::World::without_daemon(Expected {
            file: None,
            moved: BTreeSet::new(),
            ports: [9001, 9002].into(),
            theirs: BTreeSet::new(),
            sees_at: now,
            is_record_stuck: false,
            waits_until: now,
        });
        world.boot = "1".into();
        world.file.is_named = true;
        world.write_file(Some([0, 1].into()));
        world.listen_elsewhere(true);
        world.start(Fake::default());
        world.wait(WRITTEN);
        for at in 0..OF_API.len() {
            world.happen(Event::Put(at));
        }
        world.check().unwrap();
        assert_eq!(world.clients.ports.len(), 4);
        world
    }

    /// Writes these services into the state file, as their provider wants them, or removes it.
    pub(super) fn write_file(&mut self, which: Option<BTreeSet<usize>>) {
        let wanted = which.as_ref();
        self.file.content = wanted.map(|which| state(which.iter().map(|at| self.wanted(OF_FILE[*at]))));
        self.clients.file = which;
    }

    /// Lets local programs listen on the ports where some providers want their services, or end.
    pub(super) fn listen_elsewhere(&mut self, begins: bool) {
        let elsewhere = (9001..=9004).map(|port| port + ELSEWHERE);
        if begins {
            self.surroundings.listening.extend(elsewhere);
        } else {
            let elsewhere: BTreeSet<u16> = elsewhere.collect();
            self.surroundings.listening.retain(|port| !elsewhere.contains(port));
        }
    }

    /// Returns the ports of services on which local programs listen.
    pub(super) fn listening(&self) -> BTreeSet<u16> {
        let listening = self.surroundings.listening.iter().copied();
        listening.filter(|port| *port <= 9004).collect()
    }

    /// Waits until the gateway can be examined, if an examination is stuck now.
    pub(super) fn see(&mut self) {
        if self.examinations.is_stuck(self.clock.now) {
            self.wait(self.clients.sees_at - self.clock.now + LISTENERS);
        }
    }

    pub(super) fn nobody_listens(&mut self) {
        self.surroundings.listening.retain(|port| *port > 9004);
        self.clients.theirs.clear();
        self.see();
        self.wait(LISTENERS);
    }

    /// Returns the ports where clients reach a backend.
    pub(super) fn served(&mut self) -> BTreeSet<u16> {
        self.reached().into_keys().collect()
    }

    /// Returns the backends that clients reach, by port.
    pub(super) fn reached(&mut self) -> BTreeMap<u16, BTreeSet<SocketAddr>> {
        let kernel = self.kernel();
        let mut reached: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (port, client) in (9001..=9004).flat_map(|port| (0..20_u16).map(move |client| (port, client))) {
            let syn = Syn {
                client: ([198, 51, 100, 7], 40_000 + 20 * (port - 9000) + client).into(),
                public: ([192, 0, 2, 1], port).into(),
            };
            if let ConnectOutcome::Backend(backend) = kernel.connect(&syn, client.into()) {
                reached.entry(port).or_default().insert(backend);
            }
        }
        kernel.flows.clear();
        reached
    }

    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        let reached = self.reached();
        let providers: BTreeMap<String, String> = self.providers().into_iter().collect();
        let all = OF_FILE.into_iter().chain(OF_API);
        for name in all.filter(|name| self.clients.ports.contains(&port(name))) {
            if let Some(reached) = reached.get(&port(name)) {
                let wanted: BTreeSet<SocketAddr> = backends(name).into_iter().collect();
                prop_assert_eq!(reached, &wanted, "backends of {}; {:?}", name, providers);
            } else {
                let may_be_held_back =
                    self.surroundings.listening.contains(&port(name)) || self.clock.now < self.clients.waits_until;
                prop_assert!(may_be_held_back, "{} is served no more; {:?}", name, providers);
            }
        }
        let taken: Vec<&u16> = self
            .clients
            .theirs
            .iter()
            .filter(|port| reached.contains_key(port))
            .collect();
        prop_assert!(taken.is_empty(), "local programs lose {:?}", taken);
        Ok(())
    }
}

/// Returns the problems of a kind: service and message.
pub(super) fn problem_of(world: &World, kind: ProblemKind) -> Vec<(String, String)> {
    let problems = world.core.problems().iter().filter(|problem| problem.kind == kind);
    problems
        .map(|problem| (problem.service.clone().unwrap(), problem.message.clone()))
        .collect()
}
