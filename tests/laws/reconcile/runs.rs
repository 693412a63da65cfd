//! Runs from any state to any other one: what each makes right, ends, forgets and leaves alone.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use tcpgw::reconcile::ReconcileOptions;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{ListenScope, SetName};
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_kernel::conntrack::Flow;
use tcpgw_kernel::fake::{Crash, Fail, KernelCall};
use tcpgw_kernel::nftables::ownership::Ownership;

use super::{Gateway, edited, edits, flow, flows, is_ours, small, stays};
use crate::state;
use crate::states::desired;

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
