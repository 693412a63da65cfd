//! The apps that get resources from the add-on, and what their platforms may expect of the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcpgw::addon::{
    AddonOutcome, AddonRequest, Binding, Dialect, Provision, Refusal, Resource, ResourceOwner, ResourceTarget,
    WantedPlan,
};
use tcpgw::control::core::Order;
use tcpgw::control::request::{AddonOrder, AddonRefused, Edited, Refused, ServiceEdit};
use tcpgw_kernel::fake::{Fake, KernelCall};
use tokio::sync::oneshot;

use super::{Event, FIRST, QUARANTINE, World, app, config, plan_named, target};
use crate::world;
use crate::world::clients::{Answer, Clients, PEER, take};
use crate::world::storage::{Kill, Writes};

/// The answer to a request, when it has come.
type AddonAnswer = oneshot::Receiver<Result<AddonOutcome, AddonRefused>>;

/// A request without an answer yet.
pub(super) struct Asked {
    app: usize,
    request: AddonRequest,
    answer: AddonAnswer,
}

/// Apps, and what they know from the answers to their requests.
#[derive(Default)]
pub(super) struct Apps {
    pub(super) asked: Vec<Asked>,
    pub(super) edits: Vec<Answer<Edited>>,
    /// Edits that were refused.
    pub(super) refused: Vec<Refused>,
    /// Last acknowledged resource of each app, or `None` when its absence was acknowledged.
    pub(super) known: BTreeMap<usize, Option<Arc<Resource>>>,
    /// Apps of which a request was not answered, or with an error of the store.
    pub(super) uncertain: BTreeSet<usize>,
    /// The last request for a resource that was acknowledged.
    pub(super) provisions: BTreeMap<usize, Provision>,
    /// Ports that came back, and when.
    pub(super) back: BTreeMap<NonZeroU16, Duration>,
    /// Number of requests so far.
    requests: u64,
    /// True while events happen at the same moment, so that they are carried out together.
    pub(super) is_held: bool,
}

impl Clients for Apps {
    // In the order of the requests.
    fn hear(world: &mut World) {
        let mut asked = std::mem::take(&mut world.clients.asked);
        asked.retain_mut(|asked| match take(&mut asked.answer) {
            Some(answer) => {
                world.heard(asked.app, &asked.request, answer);
                false
            }
            None => true,
        });
        world.clients.asked = asked;
        let Apps { edits, refused, .. } = &mut world.clients;
        edits.retain_mut(|answer| match take(answer) {
            Some(answer) => {
                refused.extend(answer.err());
                false
            }
            None => true,
        });
    }

    // A client without an answer does not know whether its request was carried out.
    fn lose_daemon(&mut self) {
        self.uncertain.extend(self.asked.drain(..).map(|asked| asked.app));
        self.edits.clear();
    }
}

pub(super) fn owner() -> ResourceOwner {
    ResourceOwner {
        organization: "org".parse().unwrap(),
        space: "space".parse().unwrap(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = world::World::without_daemon(Apps::default());
        world.config = config();
        world.start(Fake::default());
        world.run();
        // A service that is no resource's has a port of the range.
        let text = json!({"name": "own", "port": FIRST, "limit": {"pps": 5}, "backends": ["10.9.9.9:80"]}).to_string();
        world.edit("own", ServiceEdit::Put(text.into_bytes()));
        world.run();
        world
    }

    /// Returns the resource that an app has got.
    pub(super) fn resource(&self, app: usize) -> &Arc<Resource> {
        self.clients.known[&app].as_ref().expect("the app has a resource")
    }

    pub(super) fn does(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.happen(&event);
            self.run();
        }
    }

    pub(super) fn edit(&mut self, name: &str, edit: ServiceEdit) {
        let answer = self.order_edit(name, edit);
        self.clients.edits.push(answer);
    }

    pub(super) fn request(&mut self, app: usize, request: AddonRequest) {
        let answer = self.order_request(request.clone());
        self.clients.asked.push(Asked { app, request, answer });
    }

    /// Sends a request of which [`Apps`] are not told.
    pub(super) fn order_request(&mut self, request: AddonRequest) -> AddonAnswer {
        let (reply, answer) = oneshot::channel();
        // Ids that collide are made distinct: every fourth one is that of the request before.
        self.clients.requests += 1;
        let order = AddonOrder {
            request,
            through: Dialect::Local,
            random: self.clients.requests - self.clients.requests / 4,
            by: PEER,
        };
        self.core.order(Order::Addon(order, reply));
        answer
    }

    pub(super) fn happen(&mut self, event: &Event) {
        match *event {
            Event::Provision(dialect, at, plan, port) => {
                let provision = Provision {
                    dialect,
                    app: app(at),
                    uuid: None,
                    owner: (dialect == Dialect::Osb).then(owner),
                    plan: plan_named(plan),
                    port: port.and_then(NonZeroU16::new),
                    asked: None,
                };
                self.request(at, AddonRequest::Provision(provision));
            }
            Event::Again(at) => {
                if let Some(provision) = self.clients.provisions.get(&at) {
                    self.request(at, AddonRequest::Provision(provision.clone()));
                }
            }
            Event::Plan(at, plan) => {
                self.request(at, AddonRequest::ChangePlan(target(at), plan_named(plan)));
            }
            Event::Suspend(at) => self.request(at, AddonRequest::Suspend(target(at))),
            Event::Resume(at) => self.request(at, AddonRequest::Resume(target(at))),
            Event::Deprovision(at) => self.request(at, AddonRequest::Deprovision(target(at))),
            Event::Bind(at, id) => {
                let id = format!("binding-{id}").parse().unwrap();
                let binding = Binding {
                    app: Some("bound".parse().unwrap()),
                    asked: None,
                };
                let known = self.clients.known.get(&at).cloned().flatten();
                // As a platform asks, which names its own plan; and as the command line does, of which there is none.
                let request = match known {
                    Some(known) => AddonRequest::Bind(
                        ResourceTarget::App(known.dialect, app(at)),
                        id,
                        known.plan.clone().into(),
                        binding,
                    ),
                    None => AddonRequest::Bind(target(at), id, WantedPlan::Id(None), binding),
                };
                self.request(at, request);
            }
            Event::Unbind(at, id) => {
                self.request(
                    at,
                    AddonRequest::Unbind(target(at), format!("binding-{id}").parse().unwrap()),
                );
            }
            Event::Register(at, count) => {
                if let Some(Some(resource)) = self.clients.known.get(&at) {
                    let backends: Vec<String> = (0..count).map(|n| format!("10.9.{at}.{}:80", n + 1)).collect();
                    let name = resource.id.service();
                    let patch = json!({"backends": backends}).to_string();
                    self.edit(&name, ServiceEdit::Patch(patch.into_bytes()));
                }
            }
            Event::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Event::Fail(fail) => self.fail_next(KernelCall::Commit, fail),
            Event::Store(is_made) => self.storage().fail_change = Some(is_made),
            Event::Kill(is_made) => {
                self.storage().kill = Some(Kill {
                    after: 1,
                    of: Writes::Changes,
                    is_made,
                });
            }
        }
    }

    fn heard(&mut self, app: usize, request: &AddonRequest, answer: Result<AddonOutcome, AddonRefused>) {
        let before = self.clients.known.get(&app).cloned().flatten();
        let is_certain = !self.clients.uncertain.contains(&app);
        match answer {
            Ok(AddonOutcome::Removed(resource)) => {
                self.clients.back.insert(resource.port, self.clock.unix);
                self.clients.known.insert(app, None);
                self.clients.provisions.remove(&app);
                self.clients.uncertain.remove(&app);
            }
            Ok(
                AddonOutcome::Created(resource) | AddonOutcome::Changed(resource) | AddonOutcome::Unchanged(resource),
            ) => {
                match (&before, request) {
                    // The same id, app, port and birth for as long as it lives.
                    (Some(before), _) if is_certain => {
                        assert_eq!(
                            (before.id, before.port, before.created),
                            (resource.id, resource.port, resource.created)
                        );
                    }
                    (None, AddonRequest::Provision(_)) if is_certain => {
                        let back = self.clients.back.get(&resource.port);
                        assert!(
                            back.is_none_or(|back| *back + QUARANTINE <= self.clock.unix),
                            "port {} rests",
                            resource.port
                        );
                    }
                    (None, _) if is_certain => panic!("{request:?} of nothing came to {resource:?}"),
                    _ => {}
                }
                if let AddonRequest::Provision(provision) = request {
                    assert_eq!(provision.plan, resource.plan.clone().into());
                    assert!(provision.port.is_none_or(|port| port == resource.port));
                    self.clients.provisions.insert(app, provision.clone());
                }
                // After a change of plan, also one that was made though its write failed, the old request asks for another plan.
                self.clients
                    .provisions
                    .retain(|of, provision| *of != app || provision.plan == resource.plan.clone().into());
                self.clients.known.insert(app, Some(resource));
                self.clients.uncertain.remove(&app);
            }
            Err(AddonRefused::Resource(refusal)) => {
                let is_repeated =
                    self.clients.provisions.get(&app).is_some_and(
                        |provision| matches!(request, AddonRequest::Provision(wanted) if wanted == provision),
                    );
                assert!(
                    !(is_repeated && is_certain && before.is_some()),
                    "the same request again is refused: {refusal}"
                );
                if refusal == Refusal::NotFound && is_certain {
                    assert_eq!(before, None);
                }
            }
            Err(AddonRefused::Daemon(Refused::Store(_))) => drop(self.clients.uncertain.insert(app)),
            Err(other) => panic!("{request:?}: {other:?}"),
        }
    }
}
