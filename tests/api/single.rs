//! The part of the test's loop that answers requests for single services and deploys: it records orders, and answers as a test
//! has set it up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::addon::{AddonOutcome, AddonRequest, PortUse, Refusal, Resource, ResourceTarget, RestingPort, ServiceState};
use tcpgw::control::request::{
    AddonRefused, BackendView, BatchItem, BatchOrder, BindingView, DaemonRequest, DeployOrder, DeploySelector,
    DeployView, EditOrder, Edited, EditedBatch, ListedService, ListedServices, PauseOrder, PauseView, Refused,
    ResourceList, ResourceView, ServiceEdit, ServiceView, TargetView, UndoOrder,
};
use tcpgw::control::storage::{DeployRecord, Query, QueryError};
use tcpgw::store::{DeployPhase, Expect, HistoryEntry, HistoryFilter, StoreError, StoredDeploy, StoredService};
use tcpgw_core::model::{Endpoint, Service, parse_service, parse_service_named, patch_service};

/// Services of the routes for single services, and the orders that the routes sent.
pub(crate) struct Single {
    pub(crate) services: BTreeMap<String, ServiceView>,
    pub(crate) edits: Vec<EditOrder>,
    pub(crate) batches: Vec<BatchOrder>,
    pub(crate) pauses: Vec<PauseOrder>,
    pub(crate) orders: Vec<DeployOrder>,
    pub(crate) undos: Vec<UndoOrder>,
    pub(crate) views: Vec<DeployView>,
    pub(crate) records: BTreeMap<u64, StoredDeploy>,
    /// Phases and reasons of a deploy at successive requests. The last one is repeated.
    pub(crate) script: Vec<(DeployPhase, Option<&'static str>)>,
    pub(crate) filters: Vec<HistoryFilter>,
    /// True when the store cannot be read.
    pub(crate) unreadable: bool,
    /// Backends that the store remembers from before a switch.
    pub(crate) old: Vec<Endpoint>,
}

impl Default for Single {
    fn default() -> Self {
        let web = r#"{"name":"web","port":20003,"limit":{"pps":100},"backends":["10.2.0.1:80","10.2.0.2:80"]}"#;
        let mut web = view(service(web.as_bytes()), "api", Some(7));
        web.backends.push(backend("10.2.0.9:80", "gone"));
        let sick = r#"{"name":"sick","port":20004,"backends":["10.2.0.3:80"]}"#;
        let mut sick = view(service(sick.as_bytes()), "file", None);
        sick.backends[0].health = Some("unhealthy".into());
        sick.backends[0].reason = Some("refused".into());
        sick.backends[0].balanced = false;
        Self {
            services: BTreeMap::from([("web".into(), web), ("sick".into(), sick)]),
            edits: Vec::new(),
            batches: Vec::new(),
            pauses: Vec::new(),
            orders: Vec::new(),
            undos: Vec::new(),
            views: Vec::new(),
            records: BTreeMap::new(),
            script: Vec::new(),
            filters: Vec::new(),
            unreadable: false,
            old: vec!["10.2.0.1:80".parse().expect("an endpoint")],
        }
    }
}

/// Returns the only resource, which belongs to one app.
fn resource() -> Arc<Resource> {
    let text = r#"{"id":"baaaaaaaaaaa","dialect":"osb","app":"my-app","uuid":null,"owner":null,"plan":"small","port":20000,
        "status":"active","bindings":{},"created":{"secs":5,"nanos":0}}"#;
    Arc::new(serde_json::from_str(text).expect("a resource"))
}

fn resource_list() -> ResourceList {
    let resource = resource_view();
    let resting = RestingPort {
        port: resource.port,
        until: 5,
    };
    ResourceList {
        resources: vec![resource],
        ports: Some(PortUse {
            range: "20000-20001".into(),
            all: 2,
            used: 1,
            fenced: 0,
            resting: vec![resting],
        }),
    }
}

fn resource_view() -> ResourceView {
    let resource = resource();
    ResourceView {
        id: resource.id,
        app: resource.app.clone(),
        dialect: resource.dialect,
        plan: resource.plan.clone(),
        port: resource.port,
        url: Some("tcp://gateway.example.com:20000".into()),
        service: resource.id.service(),
        state: ServiceState::Waiting,
        created: 5,
        bindings: vec![BindingView {
            id: "binding".parse().expect("an id"),
            app: None,
        }],
        warning: None,
    }
}

fn known(target: &ResourceTarget) -> Result<(), AddonRefused> {
    match target {
        ResourceTarget::Any(app) if app.as_str() == "my-app" => Ok(()),
        _ => Err(AddonRefused::Resource(Refusal::NotFound)),
    }
}

fn resource_changed(request: &AddonRequest) -> AddonOutcome {
    match request {
        AddonRequest::Provision(_) => AddonOutcome::Created(resource()),
        AddonRequest::Deprovision(_) => AddonOutcome::Removed(resource()),
        _ => AddonOutcome::Changed(resource()),
    }
}

fn service(text: &[u8]) -> Arc<Service> {
    Arc::new(parse_service(text).expect("a good service"))
}

fn view(service: Arc<Service>, provider: &'static str, revision: Option<u64>) -> ServiceView {
    let backends = service.backends.iter();
    ServiceView {
        backends: backends
            .map(|there| backend(&there.endpoint.to_string(), "active"))
            .collect(),
        listed: ListedService {
            service,
            provider,
            revision,
            held_back: Vec::new(),
            paused: None,
            addon: None,
        },
        paused_for: None,
        in_kernel: true,
        deploy: None,
    }
}

fn backend(at: &str, desired: &'static str) -> BackendView {
    let is_active = desired == "active";
    BackendView {
        backend: at.parse().expect("an endpoint"),
        desired: desired.into(),
        balanced: is_active,
        health: is_active.then_some("healthy".into()),
        reason: None,
        leaving: !is_active,
        flows: (!is_active).then_some(3),
        seconds_left: (!is_active).then_some(12),
    }
}

impl Single {
    pub(crate) fn answer(&mut self, ask: DaemonRequest, refused: Option<Refused>) {
        let refused = refused.map_or(Ok(()), Err);
        match ask {
            DaemonRequest::Services(reply) => {
                let services = self.services.values().map(|view| view.listed.clone());
                let list = ListedServices {
                    revision: 9,
                    services: services.collect(),
                };
                drop(reply.send(list));
            }
            DaemonRequest::Service(name, reply) => drop(reply.send(self.services.get(&*name).cloned())),
            DaemonRequest::Edit(order, reply) => {
                let edited = refused.and_then(|()| self.edit(&order));
                self.edits.push(order);
                drop(reply.send(edited));
            }
            DaemonRequest::Batch(order, reply) => {
                let done = refused.and_then(|()| self.batch(&order));
                self.batches.push(order);
                drop(reply.send(done));
            }
            DaemonRequest::Pause(order, reply) => {
                let paused = refused.and_then(|()| {
                    let view = self.services.get_mut(&*order.name);
                    let view = view.ok_or(Refused::Missing("there is no such service".into()))?;
                    view.paused_for = order.time.map(|time| time.as_secs());
                    view.listed.paused = order.time.map(|time| PauseView {
                        since: 1_000_000,
                        until: 1_000_000 + time.as_secs(),
                        uid: order.by.uid,
                        browser: None,
                    });
                    Ok(Vec::new())
                });
                self.pauses.push(order);
                drop(reply.send(paused));
            }
            DaemonRequest::Deploy(order, reply) => {
                let begun = refused.and_then(|()| self.judge(&order)).map(|()| self.begin(&order));
                self.orders.push(order);
                drop(reply.send(begun));
            }
            DaemonRequest::Undo(order, reply) => {
                let undone = refused.and_then(|()| self.undo(&order));
                self.undos.push(order);
                drop(reply.send(undone));
            }
            DaemonRequest::Deploys(reply) => {
                self.step();
                drop(reply.send(self.views.clone()));
            }
            DaemonRequest::Query(query) => self.query(query),
            DaemonRequest::Addon(order, reply) => drop(reply.send(Ok(resource_changed(&order.request)))),
            DaemonRequest::Resource(target, reply) => drop(reply.send(known(&target).map(|()| resource()))),
            DaemonRequest::ServicesOfApp(app, reply) => {
                let services = known(&ResourceTarget::Any(app)).map(|()| vec![resource().id.service().into()]);
                drop(reply.send(services));
            }
            DaemonRequest::AppsOfServices(names, reply) => {
                let of_add_on = resource();
                let names = names.into_iter().filter(|name| **name == *of_add_on.id.service());
                drop(reply.send(names.map(|name| (name, of_add_on.app.clone())).collect()));
            }
            DaemonRequest::ResourceView(target, reply) => drop(reply.send(known(&target).map(|()| resource_view()))),
            DaemonRequest::Resources(reply) => drop(reply.send(Ok(resource_list()))),
            other => panic!("{other:?} is the harness' own"),
        }
    }

    fn batch(&mut self, order: &BatchOrder) -> Result<EditedBatch, Refused> {
        if order.revision.is_some_and(|revision| revision != 9) {
            return Err(Refused::Conflict("the store is not as expected".into(), None));
        }
        let one = |item: &BatchItem| {
            let order = EditOrder {
                name: item.name.clone(),
                edit: item.edit.clone(),
                expect: item.expect,
                take_over: order.take_over,
                drain: order.drain,
                by: order.by,
            };
            Ok((item.name.clone(), self.edit(&order)?))
        };
        let services = order.items.iter().map(one).collect::<Result<Vec<_>, Refused>>()?;
        Ok(EditedBatch {
            revision: 10,
            changed: true,
            services,
            warnings: vec!["it is odd".into()],
        })
    }

    fn edit(&self, order: &EditOrder) -> Result<Edited, Refused> {
        let current = self.services.get(&*order.name).map(|view| view.listed.clone());
        let stored = current.as_ref().and_then(|listed| {
            Some(Box::new(StoredService {
                service: Arc::clone(&listed.service),
                revision: listed.revision?,
            }))
        });
        let holds = match order.expect {
            Expect::Absent => stored.is_none(),
            Expect::Present if current.is_none() => {
                return Err(Refused::Missing(format!("there is no service {}", order.name)));
            }
            Expect::Anything | Expect::Present => true,
            Expect::Revision(expected) => stored.as_ref().is_some_and(|stored| stored.revision == expected),
        };
        if !holds {
            return Err(Refused::Conflict("the service is not as expected".into(), stored));
        }
        let service = match &order.edit {
            ServiceEdit::Put(text) => Some(parse_service_named(&order.name, text).map_err(Refused::Invalid)?),
            ServiceEdit::Patch(patch) => {
                let there = &current.as_ref().expect("it is there").service;
                Some(patch_service(there, patch).map_err(Refused::Invalid)?)
            }
            ServiceEdit::Delete => None,
            ServiceEdit::Drain(_) | ServiceEdit::Undrain(_) => {
                current.as_ref().map(|listed| Service::clone(&listed.service))
            }
        };
        Ok(Edited {
            service: service.map(Arc::new),
            revision: 10,
            created: current.is_none(),
            changed: true,
            warnings: vec!["it is odd".into()],
        })
    }

    /// Refuses a deploy to a service of the state file, or with invalid targets, as the daemon does.
    fn judge(&self, order: &DeployOrder) -> Result<(), Refused> {
        let Some(view) = self.services.get(&*order.service) else {
            return Ok(());
        };
        let patch = json!({"backends": order.targets}).to_string();
        let judged = patch_service(&view.listed.service, patch.as_bytes());
        judged.map(drop).map_err(Refused::Invalid)
    }

    fn begin(&mut self, order: &DeployOrder) -> u64 {
        let id = 41 + self.records.len() as u64;
        let of = |target: &Value| match target["address"].as_str() {
            Some(address) => Some(format!("{address}:{}", target["port"])),
            None => target.as_str().map(str::to_owned),
        };
        let targets: Vec<String> = order.targets.iter().filter_map(of).collect();
        let record = StoredDeploy {
            id,
            service: order.service.to_string(),
            targets: targets.iter().map(|at| at.parse().expect("an endpoint")).collect(),
            details: json!({"old": []}),
            uid: order.by.uid,
            pid: 0,
            what: "deploy".into(),
            phase: DeployPhase::Probing,
            reason: None,
            began: Duration::from_secs(1000),
            updated: Duration::from_secs(1000),
            revision: None,
        };
        self.records.insert(id, record);
        self.views.push(DeployView {
            id,
            service: order.service.to_string(),
            phase: "probing".into(),
            reason: None,
            targets: targets
                .iter()
                .map(|at| TargetView {
                    backend: at.parse().expect("an endpoint"),
                    health: "unknown".into(),
                    reason: None,
                })
                .collect(),
            old: self.old.iter().copied().map(Into::into).collect(),
            left: 0,
            flows: None,
            seconds_left: Some(30),
        });
        id
    }

    /// Moves the last deploy to the next phase of the script.
    fn step(&mut self) {
        if self.script.is_empty() || self.views.is_empty() {
            return;
        }
        let (phase, reason) = self.script.remove(0);
        self.enter(phase, reason);
    }

    fn enter(&mut self, phase: DeployPhase, reason: Option<&str>) {
        let Some(record) = self.records.values_mut().next_back() else {
            return;
        };
        record.phase = phase;
        record.reason = reason.map(str::to_owned);
        if phase.is_over() {
            self.views.clear();
        } else if phase == DeployPhase::Switched {
            // Before the kernel holds it, the view says `switching`.
            for view in &mut self.views {
                let next = if view.phase == "probing" {
                    "switching"
                } else {
                    "switched"
                };
                view.phase = next.into();
                view.flows = Some(2);
            }
        }
    }

    fn undo(&mut self, order: &UndoOrder) -> Result<u64, Refused> {
        let id = match &order.which {
            DeploySelector::Id(id) => self.records.contains_key(id).then_some(*id),
            DeploySelector::Last(name) => {
                let mut of = self.records.values().rev().filter(|record| *record.service == **name);
                of.next().map(|record| record.id)
            }
        };
        let id = id.ok_or(Refused::Missing("there is no deploy".into()))?;
        if self.views.is_empty() {
            return Err(Refused::Refused(format!("deploy {id} is over")));
        }
        self.enter(DeployPhase::Undone, Some("asked"));
        Ok(id)
    }

    fn query(&mut self, query: Query) {
        let lost = || {
            QueryError::from(StoreError::Io {
                path: "/store".into(),
                what: "it is gone".into(),
            })
        };
        let readable = if self.unreadable { Err(lost()) } else { Ok(()) };
        match query {
            Query::Deploy(id, reply) => {
                let recorded = self.records.get(&id).map(|deploy| DeployRecord {
                    deploy: deploy.clone(),
                    old: self.old.clone(),
                });
                drop(reply.send(readable.map(|()| recorded)));
            }
            Query::Deploys(service, most, reply) => {
                let fits = |record: &&StoredDeploy| service.as_ref().is_none_or(|name| *name == record.service);
                let records = self.records.values().rev().filter(fits).take(most).cloned().collect();
                drop(reply.send(readable.map(|()| records)));
            }
            Query::History(filter, reply) => {
                self.filters.push(filter);
                drop(reply.send(readable.map(|()| history())));
            }
        }
    }
}

fn history() -> Vec<HistoryEntry> {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.into()).ok();
    let entry = |id, deploy, old, new| HistoryEntry {
        id,
        revision: id + 1,
        at: Duration::from_millis(1_000_500),
        uid: 0,
        pid: 7,
        what: "service set".into(),
        deploy,
        service: "web".into(),
        old,
        new,
    };
    vec![
        entry(
            2,
            Some(41),
            raw(r#"{"name":"web","port":1,"backends":[]}"#),
            raw(r#"{"name":"web","port":2,"backends":[]}"#),
        ),
        entry(1, None, None, raw(r#"{"name":"web","port":1,"backends":[]}"#)),
    ]
}
