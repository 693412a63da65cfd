//! Tables that a run finds: with other rules, of another owner, orphaned, or at the end of the generation's range.

use tcpgw::reconcile::ReconcileError;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::fake::{Fail, KernelCall};
use tcpgw_kernel::nftables::ownership::Ownership;

use super::{Gateway, flow, small};
use crate::states::desired;

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
