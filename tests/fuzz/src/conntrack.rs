//! Messages of conntrack about flows.

use std::hint::black_box;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::Kernel as _;
use tcpgw_kernel::conntrack::Flow;
use tcpgw_kernel::conntrack::{self, Pair};
use tcpgw_kernel::fake::Fake;
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::netlink::tlv::Messages;

use super::sample::sample;

/// Checks that any entry is read as a flow, skipped, or malformed, and that only flows with our mark are swept.
pub fn check(bytes: &[u8]) {
    let mark = FlowMark::default();
    let mut ours = Vec::new();
    let listed = conntrack::list(&mut RecordedAnswers::new(bytes), mark, None, |flow| {
        assert!(mark.matches(flow.mark) && flow.status.dnat());
        ours.push(flow.clone());
        Ok(())
    });
    if let Err(error) = listed {
        assert!(!error.to_string().is_empty());
    }
    let mut flows: Vec<Flow> = Vec::new();
    for message in Messages::new(bytes).map_while(Result::ok) {
        flows.extend(Flow::decode(&message).ok().flatten());
    }
    for flow in &flows {
        check_flow(flow);
    }
    let mut fake = Fake::default();
    fake.flows.clone_from(&flows);
    let swept = fake.sweep(mark, &mut |_| true).expect("it answers");
    assert!(
        fake.flows
            .iter()
            .all(|flow| !mark.matches(flow.mark) || !flow.status.dnat())
    );
    assert_eq!(fake.flows.len() as u64 + swept.deleted, flows.len() as u64);
}

fn check_flow(flow: &Flow) {
    let ends = [flow.client, flow.public, flow.backend, flow.seen_as];
    assert!(
        ends.iter().all(|end| end.is_ipv4() == flow.client.is_ipv4()),
        "{ends:?}"
    );
    black_box(&(flow.key().to_string(), flow.tcp_state.map(|state| state.to_string())));
    black_box(&sample().summary.verdict(flow.public, flow.backend));
    let pair = Pair {
        public: Some(flow.public.ip()),
        public_port: flow.public.port(),
        backend: flow.backend,
    };
    assert!(pair.matches(flow) && Pair { public: None, ..pair }.matches(flow));
}
