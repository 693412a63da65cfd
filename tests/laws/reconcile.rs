//! The reconciler over a kernel in memory: whatever fails, and wherever a run dies, the next run reaches the wanted state.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use tcpgw::reconcile::{Desired, ReconcileError, ReconcileOptions, ReconcileReport, Reconciler};
use tcpgw::record::RecordFile;
use tcpgw_core::model::{FlowMark, Service, State};
use tcpgw_core::ruleset::name::{ListenScope, SetName};
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::KernelError;
use tcpgw_kernel::conntrack::{CtStatus, Flow};
use tcpgw_kernel::fake::{Crash, Fail, Fake, KernelCall, Syn};
use tcpgw_kernel::nftables::ownership::Ownership;

use crate::clients::{endpoints, syns};
use crate::state;
use crate::states::desired;

const NAMESPACE: u64 = 7;
const SEEN_REPLY: u32 = 2;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_was_there_is_made_right(
        have in state(), want in state(), flows in flows(), trusted: bool, drain in 0..3_u64,
    ) {
        let mut gateway = Gateway::with(&have, &flows);
        if !trusted {
            gateway.store.remove().unwrap();
        }
        let before = gateway.fake.flows.clone();
        let options = ReconcileOptions { drain: Duration::from_secs(drain) };
        let report = gateway.apply_with(&want, &options).unwrap();
        let after = gateway.check(&want, &before)?;
        prop_assert_eq!(report.flushed + report.forgotten, (before.len() - after) as u64);
        let again = gateway.apply(&want).unwrap();
        prop_assert_eq!((again.transactions, again.flushed, again.forgotten), (0, 0, 0));
    }

    /// The quick sweep, which reads the flows of a few pairs according to the record, ends the same flows as the full one.
    #[test]
    fn the_quick_sweep_ends_what_the_full_one_does(have in state(), edits in edits(), flows in flows()) {
        let want = edited(&have, &edits);
        let mut quick = Gateway::with(&have, &flows);
        let mut full = Gateway::with(&have, &flows);
        full.store.remove().unwrap();
        quick.apply(&want).unwrap();
        full.apply(&want).unwrap();
        prop_assert_eq!(&quick.fake.flows, &full.fake.flows);
    }

    /// The next run takes over the table of an owner that died at any call.
    #[test]
    fn an_owner_that_died_has_an_heir(
        have in state(), want in state(), flows in flows(), call in 0..12_usize, done: bool, plain: bool,
    ) {
        let mut gateway = Gateway::with(&have, &flows);
        if plain {
            gateway.fake.ownership = Ownership::Plain;
            gateway.reconciler().teardown(None).unwrap();
            gateway.apply(&have).unwrap();
            gateway.fake.restart();
        }
        gateway.fake.ownership = Ownership::Owned;
        let before = gateway.fake.flows.clone();
        gateway.fake.crash_at(Crash { call, done });
        let _ = gateway.apply(&want);
        gateway.fake.restart();
        gateway.apply(&want).unwrap();
        gateway.check(&want, &before)?;
        prop_assert_eq!(gateway.fake.owner(), Some((Ownership::Owned, Some(gateway.fake.port()))));
        prop_assert_eq!(gateway.apply(&want).unwrap().transactions, 0);
    }

    /// A run that died does not matter to the next one, even if that wants a third state.
    #[test]
    fn a_run_that_died_does_not_matter_to_another(
        have in state(), half in state(), want in state(), flows in flows(), call in 0..12_usize, done: bool,
    ) {
        let mut gateway = Gateway::with(&have, &flows);
        let before = gateway.fake.flows.clone();
        gateway.fake.crash_at(Crash { call, done });
        let _ = gateway.apply(&half);
        gateway.fake.restart();
        // It may have got as far as to flush what its own state did not explain.
        let left = gateway.fake.flows.clone();
        let summary = desired(&half).summary;
        for flow in before.iter().filter(|flow| !left.contains(flow)) {
            prop_assert!(!stays(&summary, flow), "{:?} was flushed", flow);
        }
        gateway.apply(&want).unwrap();
        gateway.check(&want, &left)?;
    }

    #[test]
    fn others_who_write_and_answers_that_are_lost_cost_a_retry(
        have in state(), want in state(), flows in flows(),
        fails in prop::collection::vec(
            prop::sample::select(vec![Fail::Outdated, Fail::UnknownBefore, Fail::UnknownAfter]), 0..6),
    ) {
        let mut gateway = Gateway::with(&have, &flows);
        let before = gateway.fake.flows.clone();
        for fail in fails {
            gateway.fake.fail_next(KernelCall::Commit, fail);
        }
        gateway.apply(&want).unwrap();
        gateway.check(&want, &before)?;
    }

    #[test]
    fn a_failure_is_told_and_the_next_run_repairs(
        have in state(), want in state(), flows in flows(),
        call in prop::sample::select(vec![
            KernelCall::Identity, KernelCall::Observe, KernelCall::Commit, KernelCall::Counted, KernelCall::Sweep, KernelCall::Settle]),
        refused: bool,
    ) {
        let mut gateway = Gateway::with(&have, &flows);
        let before = gateway.fake.flows.clone();
        gateway.fake.fail_next(call, if refused { Fail::Refused(Errno::ENOMEM) } else { Fail::Netlink });
        let ruleset = gateway.fake.ruleset();
        let told = gateway.apply(&want);
        if matches!(call, KernelCall::Commit | KernelCall::Identity) && told.is_err() {
            prop_assert_eq!(gateway.fake.ruleset(), ruleset);
        }
        gateway.fake.restart();
        gateway.apply(&want).unwrap();
        gateway.check(&want, &before)?;
    }

    #[test]
    fn counters_of_what_is_gone_are_forgotten_and_others_kept(have in state(), want in state()) {
        let mut gateway = Gateway::with(&have, &[]);
        let counters = || SetName::fixed().into_iter().filter(|set| set.is_counter());
        let owned = |ruleset: &tcpgw_core::ruleset::Ruleset, set: SetName| -> BTreeSet<Box<[u8]>> {
            let rows = set.owners().into_iter().filter_map(|owner| ruleset.rows(owner));
            rows.flat_map(Rows::iter).map(Into::into).collect()
        };
        let had = gateway.fake.ruleset();
        for set in counters() {
            for key in owned(&had, set) {
                gateway.fake.count(set, &key);
            }
        }
        let pairs = |ruleset: &tcpgw_core::ruleset::Ruleset, scope: ListenScope| -> BTreeSet<Box<[u8]>> {
            let family = scope.family();
            let services = ruleset.rows(SetName::Services(scope.scope()));
            let backends = [SetName::Limited(family), SetName::Unlimited(family)];
            let backends: Vec<_> = backends.into_iter().filter_map(|set| ruleset.rows(set)).collect();
            let skip = if matches!(scope, ListenScope::Any(_)) { 4 } else { 0 };
            services
                .into_iter()
                .flat_map(Rows::iter)
                .flat_map(|service| backends.iter().flat_map(|set| set.iter()).map(move |backend| (service, backend)))
                .map(|(service, backend)| [&service[skip..], backend].concat().into())
                .collect()
        };
        for scope in ListenScope::ALL {
            for key in pairs(&had, scope) {
                gateway.fake.count(SetName::Connections(scope), &key);
            }
        }
        gateway.apply(&want).unwrap();
        let has = gateway.fake.ruleset();
        for set in counters() {
            let left: BTreeSet<_> = gateway.counted(set);
            let kept = match set {
                SetName::Connections(scope) => &pairs(&had, scope) & &pairs(&has, scope),
                _ => &owned(&had, set) & &owned(&has, set),
            };
            prop_assert_eq!(left, kept);
        }
    }

    #[test]
    fn a_teardown_leaves_nothing_of_ours(have in state(), flows in flows(), call in 0..6_usize, done: bool) {
        let mut gateway = Gateway::with(&have, &flows);
        let before = gateway.fake.flows.clone();
        gateway.fake.crash_at(Crash { call, done });
        let _ = gateway.reconciler().teardown(None);
        gateway.fake.restart();
        let torn = gateway.reconciler().teardown(None).unwrap();
        prop_assert_eq!(torn.failed, 0);
        let foreign: Vec<Flow> = before.into_iter().filter(|flow| !is_ours(flow)).collect();
        prop_assert_eq!(&gateway.fake.flows, &foreign);
        prop_assert_eq!(gateway.fake_table(), None);
        prop_assert!(gateway.store.load().is_none());
    }
}

proptest! {
    // Each case is a run for every call.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_run_that_dies_anywhere_is_finished_by_the_next(
        have in state(), want in state(), flows in flows(), drain: bool, done: bool,
    ) {
        let options = ReconcileOptions { drain: Duration::from_secs(u64::from(drain)) };
        for call in 0.. {
            let mut gateway = Gateway::with(&have, &flows);
            let before = gateway.fake.flows.clone();
            gateway.fake.crash_at(Crash { call, done });
            let died = gateway.apply_with(&want, &options).is_err();
            gateway.fake.restart();
            gateway.apply(&want).unwrap();
            gateway.check(&want, &before)?;
            prop_assert_eq!(gateway.fake_table(), gateway.table, "the table was made anew");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_second_run_sends_nothing() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    let generation = gateway.fake.generation();
    let report = gateway.apply(&small("10.2.0.11:3000")).unwrap();
    assert_eq!((report.transactions, gateway.fake.generation()), (0, generation));
    gateway.store.remove().unwrap();
    let report = gateway.apply(&small("10.2.0.11:3000")).unwrap();
    assert_eq!((report.transactions, gateway.fake.generation()), (0, generation));
}

#[test]
fn a_syn_that_was_on_its_way_is_caught() {
    let (have, want) = (small("10.2.0.11:3000"), small("10.2.0.12:3000"));
    for (trusted, blind) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut gateway = Gateway::with(&have, &[]);
        gateway.fake.blind = blind;
        if !trusted {
            gateway.store.remove().unwrap();
        }
        gateway
            .fake
            .late
            .push(flow("10.2.0.11:3000", FlowMark::default().value(), false));
        gateway.apply(&want).unwrap();
        assert_eq!(
            (gateway.fake.flows.len(), gateway.fake.late.len()),
            (0, 0),
            "{trusted} {blind}"
        );
    }
}

#[test]
fn a_flow_that_cannot_be_deleted_is_told_until_it_is_gone() {
    let (have, want) = (small("10.2.0.11:3000"), small("10.2.0.12:3000"));
    for trusted in [true, false] {
        let mut gateway = Gateway::with(&have, &[]);
        if !trusted {
            gateway.store.remove().unwrap();
        }
        gateway
            .fake
            .flows
            .push(flow("10.2.0.11:3000", FlowMark::default().value(), true));
        gateway.fake.stuck.insert(1);
        for _ in 0..2 {
            let report = gateway.apply(&want).unwrap();
            assert_eq!((report.failed, report.flushed), (1, 0));
        }
        gateway.fake.stuck.clear();
        let report = gateway.apply(&want).unwrap();
        assert_eq!((report.failed, report.flushed, gateway.fake.flows.len()), (0, 1, 0));
    }
}

#[test]
fn a_drain_lets_flows_end_and_forgets_handshakes() {
    let (have, want) = (small("10.2.0.11:3000"), small("10.2.0.12:3000"));
    let mark = FlowMark::default().value();
    let mut gateway = Gateway::with(&have, &[]);
    gateway.fake.flows = vec![flow("10.2.0.11:3000", mark, true), flow("10.2.0.11:3000", mark, false)];
    let options = ReconcileOptions {
        drain: Duration::from_secs(30),
    };
    let begin = tcpgw_kernel::Kernel::now(&gateway.fake);
    let report = gateway.apply_with(&want, &options).unwrap();
    assert_eq!((report.flushed, report.forgotten), (1, 1));
    assert!(tcpgw_kernel::Kernel::now(&gateway.fake) - begin >= options.drain);

    let mut gateway = Gateway::with(&have, &[]);
    let begin = tcpgw_kernel::Kernel::now(&gateway.fake);
    gateway.apply_with(&want, &options).unwrap();
    assert!(
        tcpgw_kernel::Kernel::now(&gateway.fake) - begin < options.drain,
        "nothing to wait for"
    );
}

#[test]
fn a_refusal_changes_nothing_and_names_the_service() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    let before = gateway.fake.ruleset();
    gateway.fake.fail_next(KernelCall::Commit, Fail::Refused(Errno::ENOSPC));
    let error = gateway.apply(&small("10.2.0.12:3000")).unwrap_err();
    let ReconcileError::Kernel {
        source: KernelError::Refused(_),
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(gateway.fake.ruleset(), before);
}

#[test]
fn who_writes_all_the_time_is_given_up_on() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    for _ in 0..100 {
        gateway.fake.fail_next(KernelCall::Commit, Fail::Outdated);
    }
    let error = gateway.apply(&small("10.2.0.12:3000")).unwrap_err();
    assert!(matches!(error, ReconcileError::Busy), "{error}");
}

#[test]
fn other_rules_are_replaced_and_another_mark_is_not() {
    let (have, want) = (small("10.2.0.11:3000"), small("10.2.0.12:3000"));
    let mut gateway = Gateway::with(&have, &[]);
    gateway
        .fake
        .tamper(Some("tcpgw skeleton 0, flow mark 0x00800000/0x00800000"));
    gateway
        .fake
        .flows
        .push(flow("10.2.0.11:3000", FlowMark::default().value(), true));
    let report = gateway.apply(&want).unwrap();
    assert!(report.rebuilt.is_some_and(|why| why.contains("skeleton 0")));
    assert_eq!(
        (gateway.fake.ruleset(), gateway.fake.flows.len()),
        (desired(&want).ruleset, 0)
    );

    gateway
        .fake
        .tamper(Some("tcpgw skeleton 1, flow mark 0x00000001/0x00000001"));
    let error = gateway.apply(&want).unwrap_err();
    assert!(matches!(error, ReconcileError::OtherMark { .. }), "{error}");
    assert!(
        gateway.reconciler().teardown(None).unwrap().table,
        "which teardown ends"
    );
}

#[test]
fn an_orphan_is_taken_over_as_it_is() {
    let want = small("10.2.0.11:3000");
    let mut gateway = Gateway::with(&want, &[]);
    assert_eq!(gateway.fake.owner(), Some((Ownership::Persist, None)));
    gateway.fake.ownership = Ownership::Owned;
    for (fail, transactions) in [(None, 0), (Some(Fail::Outdated), 0), (Some(Fail::UnknownAfter), 0)] {
        gateway.fake.restart();
        gateway.fake.owned_by(None);
        if let Some(fail) = fail {
            gateway.fake.fail_next(KernelCall::Adopt, fail);
        }
        let before = gateway.fake_table();
        let report = gateway.apply(&want).unwrap();
        assert_eq!((report.transactions, report.rebuilt), (transactions, None), "{fail:?}");
        let owner = gateway.fake.port();
        assert_eq!(gateway.fake.owner(), Some((Ownership::Owned, Some(owner))));
        assert_eq!(gateway.fake_table(), before);
        // The record holds from there on.
        let generation = gateway.fake.generation();
        let known = gateway.reconciler().read_contents(&desired(&want).summary).unwrap();
        assert_eq!(known.rebuild(), None);
        assert_eq!(gateway.apply(&want).unwrap().transactions, 0);
        assert_eq!(gateway.fake.generation(), generation);
    }
}

#[test]
fn a_table_that_cannot_be_owned_is_replaced_and_an_old_kernel_has_none() {
    let want = small("10.2.0.11:3000");
    let mut gateway = Gateway::with(&want, &[]);
    gateway.fake.old = true;
    gateway.fake.ownership = Ownership::Owned;
    gateway.reconciler().teardown(None).unwrap();
    gateway.apply(&want).unwrap();
    assert_eq!(gateway.fake.owner(), Some((Ownership::Plain, None)));
    assert_eq!(gateway.apply(&want).unwrap().transactions, 0, "as good as it gets");

    gateway.fake.old = false;
    let before = gateway.fake_table();
    let report = gateway.apply(&want).unwrap();
    assert!(
        report
            .rebuilt
            .is_some_and(|why| why.contains("without the flag persist"))
    );
    assert_eq!(report.transactions, 1);
    assert_ne!(gateway.fake_table(), before);
    assert_eq!(
        gateway.fake.owner(),
        Some((Ownership::Owned, Some(gateway.fake.port())))
    );
    assert_eq!(gateway.fake.ruleset(), desired(&want).ruleset);
    let again = gateway.apply(&want).unwrap();
    assert_eq!((again.transactions, again.rebuilt), (0, None));
}

#[test]
fn what_another_process_owns_is_left_alone() {
    let (have, want) = (small("10.2.0.11:3000"), small("10.2.0.12:3000"));
    for ownership in [Ownership::Persist, Ownership::Owned] {
        let mut gateway = Gateway::with(&have, &[]);
        gateway.fake.ownership = ownership;
        gateway.fake.owned_by(Some(4711));
        let error = gateway.apply(&want).unwrap_err().to_string();
        assert!(
            error.contains("owned by another") && (ownership == Ownership::Persist || error.contains("4711")),
            "{error}"
        );
        assert!(gateway.reconciler().teardown(None).is_err());
        assert_eq!(gateway.fake.ruleset(), desired(&have).ruleset);
        gateway.fake.owned_by(None);
        gateway.apply(&want).unwrap();
        assert_eq!(gateway.fake.ruleset(), desired(&want).ruleset);
    }
}

#[test]
fn the_generation_wraps_past_zero() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    gateway.fake.set_generation(u32::MAX);
    gateway.apply(&small("10.2.0.12:3000")).unwrap();
    assert_eq!(gateway.fake.generation(), 1);
    let report = gateway.apply(&small("10.2.0.12:3000")).unwrap();
    assert_eq!((report.transactions, gateway.fake.generation()), (0, 1));
}

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
