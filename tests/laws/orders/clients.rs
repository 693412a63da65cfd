//! The clients that give orders, and what they may expect of the answers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tcpgw::control::core::Order;
use tcpgw::control::request::{BatchItem, DeployOrder, DeploySelector, Edited, ServiceEdit, TornDown, UndoOrder};
use tcpgw::store::Expect;
use tcpgw_core::model::{Endpoint, State};
use tcpgw_kernel::fake::{Fake, KernelCall};
use tokio::sync::oneshot;

use super::{ENDPOINTS, Event, SERVICES, World, endpoint, service};
use crate::world;
use crate::world::clients::{Answer, Clients, PEER, still_waiting, take};
use crate::world::kernel::syn;
use crate::world::storage::{Kill, Writes};

/// Orders that wait for their answers.
#[derive(Default)]
pub(super) struct Orders {
    /// Edits, by the number of their service. The store must have an acknowledged edit, until a later one replaces it.
    pub(super) edits: Vec<(usize, Answer<Edited>)>,
    pub(super) deploys: Vec<Answer<u64>>,
    pauses: Vec<Answer<Vec<String>>>,
    teardowns: Vec<Answer<TornDown>>,
    /// Deploys that were acknowledged.
    pub(super) begun: BTreeSet<u64>,
    /// True while events happen at the same moment, so that they are carried out together.
    pub(super) is_held: bool,
    pub(super) waited_since: Option<Instant>,
}

impl Clients for Orders {
    fn hear(world: &mut World) {
        world.hear_edits();
        let Orders { deploys, begun, .. } = &mut world.clients;
        deploys.retain_mut(|answer| match take(answer) {
            Some(answer) => {
                begun.extend(answer.ok());
                false
            }
            None => true,
        });
        let now = world.clock.now;
        let clients = &mut world.clients;
        clients.waited_since = (clients.unanswered() > 0).then(|| clients.waited_since.unwrap_or(now));
    }

    // Requests without an answer by then never get one, and may have been carried out.
    fn lose_daemon(&mut self) {
        self.edits.clear();
        self.deploys.clear();
        self.pauses.clear();
        self.teardowns.clear();
    }
}

impl Orders {
    /// Returns the number of orders that wait for a response.
    pub(super) fn unanswered(&mut self) -> usize {
        still_waiting(&mut self.pauses) + still_waiting(&mut self.teardowns) + self.edits.len() + self.deploys.len()
    }
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = world::World::without_daemon(Orders::default());
        // Some have a state file, too, which says nothing of the services here.
        world.file.content = Some(State::default());
        world.start(Fake::default());
        world.run();
        world.happen(Event::Put(0, vec![1, 2]));
        world.happen(Event::Put(1, vec![7, 8]));
        world
    }

    fn hear_edits(&mut self) {
        let mut edits = std::mem::take(&mut self.clients.edits);
        edits.retain_mut(|(which, answer)| match take(answer) {
            Some(Ok(edited)) => {
                let loaded = self.store().load().unwrap();
                let there = loaded
                    .services
                    .iter()
                    .find(|stored| *stored.service.name == *SERVICES[*which]);
                // A later one may be there already; an earlier one may not.
                let revision = there.map_or(loaded.revision, |stored| stored.revision);
                assert!(revision >= edited.revision, "an acknowledged edit is not in the store");
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
        self.clients.edits = edits;
    }

    pub(super) fn edit(&mut self, which: usize, edit: ServiceEdit) {
        let answer = self.order_edit(SERVICES[which], edit);
        self.clients.edits.push((which, answer));
    }

    pub(super) fn deploy(&mut self, which: usize, targets: &[u8], min: Option<usize>) {
        self.deploy_as(which, targets, min, false);
    }

    pub(super) fn deploy_as(&mut self, which: usize, targets: &[u8], min: Option<usize>, supersede: bool) {
        let answer = self.order_deploy(DeployOrder {
            service: SERVICES[which].into(),
            min,
            targets: targets.iter().map(|last| endpoint(*last).to_string().into()).collect(),
            timeout: Duration::from_secs(30),
            drain: Some(Duration::from_secs(10)),
            supersede,
            by: PEER,
        });
        self.clients.deploys.push(answer);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Put(which, backends) => {
                let text = service(which, &backends).to_string().into_bytes();
                self.edit(which, ServiceEdit::Put(text));
            }
            Event::Patch(which, pps) => {
                let text = json!({"limit": {"pps": pps}}).to_string().into_bytes();
                self.edit(which, ServiceEdit::Patch(text));
            }
            Event::Batch(first, second) => {
                let put = |which: usize, backends: &[u8]| BatchItem {
                    name: SERVICES[which].into(),
                    edit: ServiceEdit::Put(service(which, backends).to_string().into_bytes()),
                    expect: Expect::Anything,
                };
                drop(self.order_batch(vec![put(0, &first), put(1, &second)]));
            }
            Event::Delete(which) => self.edit(which, ServiceEdit::Delete),
            Event::Drain(which, back, at) => {
                let last = u8::try_from(at.index(usize::from(ENDPOINTS))).unwrap() + 1;
                let which_one = vec![Endpoint::try_from(endpoint(last)).unwrap()];
                let edit = if back {
                    ServiceEdit::Undrain(which_one)
                } else {
                    ServiceEdit::Drain(which_one)
                };
                self.edit(which, edit);
            }
            Event::Deploy(which, targets, min, supersede) => {
                let min = (!targets.is_empty()).then(|| min.index(targets.len()) + 1);
                self.deploy_as(which, &targets, min, supersede);
            }
            Event::Undo(which) => {
                let (reply, answer) = oneshot::channel();
                let order = UndoOrder {
                    which: DeploySelector::Last(SERVICES[which].into()),
                    by: PEER,
                };
                self.core.order(Order::Undo(order, reply));
                self.clients.deploys.push(answer);
            }
            Event::Pause(which, time) => {
                let answer = self.order_pause(SERVICES[which], time.map(Duration::from_secs));
                self.clients.pauses.push(answer);
            }
            Event::Teardown => {
                let answer = self.order_teardown();
                self.clients.teardowns.push(answer);
            }
            Event::Flip(last) => self.containers.flip(endpoint(last)),
            Event::Wait(millis) => return self.wait(Duration::from_millis(millis)),
            Event::Connect(which, pick) => {
                self.connect(&syn(9001 + u16::try_from(which).unwrap()), pick);
            }
            Event::End(at) => self.end_flow(at),
            Event::Fail(fail) => self.fail_next(KernelCall::Commit, fail),
            Event::Full(seconds) => {
                self.storage().full_until = Some(self.clock.now + Duration::from_secs(seconds));
            }
            Event::Stuck(seconds) => self.examinations.stick(self.clock.now, Duration::from_secs(seconds)),
            Event::Kill(0, _) => self.restart(),
            Event::Kill(after, is_made) => {
                self.storage().kill = Some(Kill {
                    after,
                    of: Writes::All,
                    is_made,
                });
            }
        }
        if !self.clients.is_held {
            self.run();
        }
    }
}
