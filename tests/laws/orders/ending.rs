//! A daemon that is told to end answers all orders, and its answers are true.

use std::collections::BTreeMap;

use nix::errno::Errno;
use proptest::prelude::*;
use serde_json::json;
use tcpgw::control::core::GatewayFindings;
use tcpgw::control::request::{Edited, Refused, ServiceEdit};
use tcpgw_core::model::Service;
use tcpgw_kernel::fake::{Fail, KernelCall};

use super::{SERVICES, World};
use crate::world::clients::Answer;

/// Generates orders: the number of a service, and a limit, which identifies the order.
fn orders() -> impl Strategy<Value = Vec<(usize, u32)>> {
    prop::collection::vec((0..SERVICES.len(), 1..1000_u32), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_order_before_the_end_gets_a_true_answer(
        early in orders(), late in orders(), written in 0..3_usize, is_refused in any::<bool>(),
    ) {
        let mut world = World::new();
        world.clients.is_held = true;
        let mut waiting: Vec<_> = early.into_iter().map(|order| world.ask(order)).collect();
        let now = world.time();
        // So many writes are with the store, or wait for the kernel.
        let mut out = None;
        for _ in 0..written {
            if let Some(write) = out.take() {
                prop_assert!(world.write(write));
            }
            out = world.core.next_write(&mut |_, _| Ok(GatewayFindings::default()), now);
        }
        if is_refused {
            world.fail_next(KernelCall::Commit, Fail::Refused(Errno::ENOMEM));
        }
        world.core.refuse_orders();
        waiting.extend(late.into_iter().map(|order| world.ask(order)));
        if let Some(write) = out.take() {
            prop_assert!(world.write(write));
        }
        while world.core.owes_answers() {
            prop_assert!(world.core.next_write(&mut |_, _| Ok(GatewayFindings::default()), now).is_none());
            let Some(job) = world.core.next_job(now) else { break };
            world.perform(job);
        }
        world.core.give_up(now);
        let loaded = world.store().load().unwrap();
        let mut last = BTreeMap::new();
        for (which, pps, mut answer) in waiting {
            match answer.try_recv() {
                Ok(Ok(_)) => drop(last.insert(which, pps)),
                Ok(Err(Refused::Ending)) => {}
                Ok(Err(Refused::Failed(text))) if is_refused => {
                    prop_assert!(text.contains("not in effect in the kernel yet"), "{}", text);
                    last.insert(which, pps);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        for (which, pps) in last {
            let stored = loaded.services.iter().find(|stored| *stored.service.name == *SERVICES[which]);
            prop_assert_eq!(stored.and_then(|stored| limit(&stored.service)), Some(pps));
        }
    }
}

fn limit(service: &Service) -> Option<u32> {
    service.limit.as_ref().map(|limit| limit.pps)
}

type Asked = (usize, u32, Answer<Edited>);

impl World {
    fn ask(&mut self, (which, pps): (usize, u32)) -> Asked {
        self.edit(
            which,
            ServiceEdit::Patch(json!({"limit": {"pps": pps}}).to_string().into_bytes()),
        );
        let (_, answer) = self.clients.edits.pop().unwrap();
        (which, pps, answer)
    }
}

/// An order that the kernel does not take in time is reported as such, and stays in the store.
#[test]
fn an_order_that_the_kernel_does_not_take_in_time_is_reported() {
    let mut world = World::new();
    world.clients.is_held = true;
    let (_, _, mut answer) = world.ask((0, 77));
    let now = world.time();
    let write = world
        .core
        .next_write(&mut |_, _| Ok(GatewayFindings::default()), now)
        .unwrap();
    assert!(world.write(write));
    world.core.refuse_orders();
    assert!(world.core.owes_answers());
    world.core.give_up(now);
    assert!(!world.core.owes_answers());
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert!(
        matches!(&refused, Refused::Failed(text) if text.contains("the next one puts it into effect")),
        "{refused:?}"
    );
    let loaded = world.store().load().unwrap();
    assert!(loaded.services.iter().any(|stored| limit(&stored.service) == Some(77)));
}
