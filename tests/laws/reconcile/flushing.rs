//! Flows that a run deletes, drains, or cannot delete.

use std::time::Duration;

use tcpgw::reconcile::ReconcileOptions;
use tcpgw_core::model::FlowMark;

use super::{Gateway, flow, small};

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
