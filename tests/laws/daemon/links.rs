//! Links of containers that come and go.

use serde_json::json;
use tcpgw_kernel::fake::{Fail, KernelCall};

use super::{Event, World};

/// A link of a container that comes or goes causes no read of the whole table.
#[test]
fn links_that_come_and_go_cause_no_read_of_the_table() {
    let service = json!({"name": "a", "port": 20001, "backends": ["10.2.0.11:3000"], "source": "preserve"});
    let state = json!({"version": 1, "services": [service]});
    let mut world = World::new(tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap());
    world.run();
    world.kernel().fail_next(KernelCall::Observe, Fail::Netlink);
    for count in [3, 1, 2] {
        world.happen(Event::Links(count));
        world.check().unwrap();
        assert!(world.core.in_sync());
    }
    // After a write to another table the kernel is examined.
    world.kernel().disturb();
    world.happen(Event::Links(0));
    assert!(!world.core.in_sync());
    world.end().unwrap();
}
