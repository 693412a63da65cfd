//! The reconciler over a kernel in memory: whatever fails, and wherever a run dies, the next run reaches the wanted state.

mod failures;
mod flushing;
mod runs;
mod tables;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use tcpgw::reconcile::{Desired, ReconcileError, ReconcileOptions, ReconcileReport, Reconciler};
use tcpgw::record::RecordFile;
use tcpgw_core::model::{FlowMark, Service, State};
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{CtStatus, Flow};
use tcpgw_kernel::fake::{Fake, Syn};

use crate::clients::{endpoints, syns};
use crate::states::desired;

const NAMESPACE: u64 = 7;
const SEEN_REPLY: u32 = 2;

struct Gateway {
    fake: Fake,
    store: RecordFile,
    table: Option<u64>,
    _directory: tempfile::TempDir,
}

impl Gateway {
    fn with(have: &State, flows: &[Sketch]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut gateway = Self {
            fake: Fake::default(),
            store: RecordFile::new(directory.path(), NAMESPACE),
            table: None,
            _directory: directory,
        };
        gateway.apply(have).unwrap();
        for (id, sketch) in (1..).zip(flows) {
            let flow = sketch.flow(id);
            // Flows that the rules would not have made belong to others, or were missed by a run that died: then no record holds.
            let fits = desired(have).summary.verdict(flow.public, flow.backend) != FlowVerdict::Stale;
            if fits || !is_ours(&flow) {
                gateway.fake.flows.push(flow);
            }
        }
        gateway.forget_unanswered(have);
        gateway.table = gateway.fake_table();
        gateway.fake.restart();
        gateway
    }

    fn forget_unanswered(&mut self, have: &State) {
        let summary = desired(have).summary;
        self.fake.flows.retain(|flow| {
            !is_ours(flow)
                || flow.status.seen_reply()
                || summary.verdict(flow.public, flow.backend) == FlowVerdict::Active
        });
    }

    fn fake_table(&mut self) -> Option<u64> {
        tcpgw_kernel::Kernel::identity(&mut self.fake).unwrap().table
    }

    fn counted(&mut self, set: SetName) -> BTreeSet<Box<[u8]>> {
        let counted = tcpgw_kernel::Kernel::counted(&mut self.fake, set).unwrap();
        counted.into_iter().map(|counted| counted.key).collect()
    }

    fn reconciler(&mut self) -> Reconciler<'_, Fake> {
        Reconciler::new(&mut self.fake, &self.store, NAMESPACE, FlowMark::default())
    }

    fn apply(&mut self, want: &State) -> Result<ReconcileReport, ReconcileError> {
        self.apply_with(want, &ReconcileOptions::default())
    }

    fn apply_with(&mut self, want: &State, options: &ReconcileOptions) -> Result<ReconcileReport, ReconcileError> {
        let desired = desired(want);
        let mut reconciler = self.reconciler();
        let known = reconciler.read_contents(&desired.summary)?;
        reconciler.apply(known, &desired, options)
    }

    /// Checks that the kernel agrees with the state and that exactly the flows of its backends are left. Returns their number.
    fn check(&self, want: &State, before: &[Flow]) -> Result<usize, TestCaseError> {
        let Desired { summary, ruleset } = desired(want);
        prop_assert_eq!(&self.fake.ruleset(), &ruleset);
        let left = before.iter().filter(|flow| stays(&summary, flow));
        let left: Vec<Flow> = left.cloned().collect();
        prop_assert_eq!(&self.fake.flows, &left);
        Ok(left.len())
    }
}

/// Returns true when a sweep for these services keeps the flow.
fn stays(summary: &Summary, flow: &Flow) -> bool {
    !is_ours(flow)
        || match summary.verdict(flow.public, flow.backend) {
            FlowVerdict::Active => true,
            FlowVerdict::Draining => flow.status.seen_reply(),
            FlowVerdict::Stale => false,
        }
}

fn is_ours(flow: &Flow) -> bool {
    FlowMark::default().matches(flow.mark) && flow.status.dnat()
}

#[derive(Debug, Clone)]
struct Sketch {
    syn: Syn,
    backend: SocketAddr,
    seen_reply: bool,
    marked: bool,
    dnat: bool,
}

impl Sketch {
    fn flow(&self, id: u32) -> Flow {
        let mark = if self.marked {
            FlowMark::default().value() | 1
        } else {
            1
        };
        let mut flow = self.syn.flow(self.backend, FlowMark::default(), id);
        let without = if self.dnat { 0 } else { 32 };
        flow.mark = mark;
        flow.status = CtStatus((flow.status.0 | if self.seen_reply { SEEN_REPLY } else { 0 }) & !without);
        flow
    }
}

fn flows() -> impl Strategy<Value = Vec<Sketch>> {
    let sketch = (
        prop::sample::select(syns()),
        prop::sample::select(endpoints()),
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.9),
    );
    let sketch = sketch.prop_map(|(syn, backend, seen_reply, marked, dnat)| Sketch {
        syn,
        backend,
        seen_reply,
        marked,
        dnat,
    });
    prop::collection::vec(sketch, 0..200)
}

type Edit = (prop::sample::Index, prop::sample::Index, u8);

/// Generates small changes.
fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6_u8),
        1..3,
    )
}

fn edited(state: &State, edits: &[Edit]) -> State {
    let mut services = state.services.clone();
    for (service, backend, what) in edits {
        if services.is_empty() {
            break;
        }
        let service = service.index(services.len());
        if *what == 0 {
            services.remove(service);
            continue;
        }
        let backends = &mut Arc::make_mut(&mut services[service]).backends;
        if backends.is_empty() {
            continue;
        }
        let at = backend.index(backends.len());
        match what {
            1 => backends[at].state = tcpgw_core::model::BackendState::Draining,
            2 => backends[at].state = tcpgw_core::model::BackendState::Active,
            3 => {
                let moved = backends.remove(at);
                let to = backend.index(services.len());
                let there = &mut Arc::make_mut(&mut services[to]).backends;
                there.retain(|backend| backend.endpoint != moved.endpoint);
                there.push(moved);
                there.sort_unstable();
            }
            _ => drop(backends.remove(at)),
        }
    }
    shared_on_the_same_terms(services)
}

/// Leaves out of a service what it has on other terms than one before it.
fn shared_on_the_same_terms(mut services: Vec<Arc<Service>>) -> State {
    for at in 0..services.len() {
        let (before, rest) = services.split_at_mut(at);
        let service = Arc::make_mut(&mut rest[0]);
        let alone = |backends| Service {
            backends,
            ..Service::clone(service)
        };
        let fits = |backend: &tcpgw_core::model::Backend| {
            let mut one = alone(vec![*backend]);
            one.name = "one".into();
            one.port = std::num::NonZeroU16::MAX;
            let others = before.iter().cloned();
            State::new(others.chain([Arc::new(one)])).is_ok()
        };
        let backends = service
            .backends
            .iter()
            .filter(|backend| fits(backend))
            .copied()
            .collect();
        service.backends = backends;
    }
    State::new(services).unwrap()
}

fn small(backend: &str) -> State {
    let text = format!(r#"{{"version":1,"services":[{{"name":"my-app","port":20003,"backends":["{backend}"]}}]}}"#);
    tcpgw_core::model::parse(text.as_bytes()).unwrap()
}

fn flow(backend: &str, mark: u32, seen_reply: bool) -> Flow {
    let syn = Syn {
        client: "198.51.100.7:40000".parse().unwrap(),
        public: "192.0.2.1:20003".parse().unwrap(),
    };
    let mut flow = syn.flow(backend.parse().unwrap(), FlowMark::default(), 1);
    flow.mark = mark;
    flow.status = CtStatus(flow.status.0 | if seen_reply { SEEN_REPLY } else { 0 });
    flow
}
