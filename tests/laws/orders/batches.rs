//! Changes of several services at once.

use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::{BatchItem, ServiceEdit};
use tcpgw::store::Expect;

use super::World;

/// Several services change together or not at all, and an error of one change names its service.
#[test]
fn a_batch_happens_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    let ports = |world: &World| -> Vec<u16> {
        world
            .core
            .services()
            .services
            .iter()
            .map(|listed| listed.service.port.get())
            .collect()
    };
    let item = |name: &str, edit: ServiceEdit, expect: Expect| BatchItem {
        name: name.into(),
        edit,
        expect,
    };
    let port = |port: u16| ServiceEdit::Patch(json!({"port": port}).to_string().into_bytes());
    let before = world.core.services().revision;
    // Neither could be done alone: each takes the other's port.
    let mut answer = world.order_batch(vec![
        item("a", port(9002), Expect::Present),
        item("b", port(9001), Expect::Present),
    ]);
    world.run();
    let done = answer.try_recv().unwrap().unwrap();
    assert_eq!(
        (done.revision, done.changed, done.services.len()),
        (before + 1, true, 2)
    );
    assert!(
        done.services
            .iter()
            .all(|(_, edited)| edited.changed && edited.revision == before + 1)
    );
    assert_eq!(ports(&world), [9002, 9001]);
    for (items, told) in [
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("b", port(0), Expect::Present),
            ],
            "services[1].port: ",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("c", port(9004), Expect::Present),
            ],
            "no service \"c\"",
        ),
        (
            vec![
                item("a", port(9003), Expect::Revision(1)),
                item("b", ServiceEdit::Delete, Expect::Present),
            ],
            "not as expected",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("b", port(9003), Expect::Present),
            ],
            "9003",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("a", port(9004), Expect::Present),
            ],
            "services[1].name: ",
        ),
        (vec![], "services: "),
    ] {
        let mut answer = world.order_batch(items);
        world.run();
        let refused = answer.try_recv().unwrap().unwrap_err().lines().join("; ");
        assert!(refused.contains(told), "{told}: {refused}");
        assert_eq!(
            (ports(&world), world.core.services().revision),
            (vec![9002, 9001], before + 1)
        );
    }
    // One change and one removal, in one entry each of the same revision.
    let mut answer = world.order_batch(vec![
        item("a", port(9001), Expect::Revision(before + 1)),
        item("b", ServiceEdit::Delete, Expect::Present),
    ]);
    world.run();
    assert_eq!(answer.try_recv().unwrap().unwrap().services[1].1.service, None);
    assert_eq!(ports(&world), [9001]);
    world.wait(Duration::from_secs(60));
    world.check().unwrap();
    world.end().unwrap();
}
