//! Flows that are to be deleted, at once or when their backend has drained.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{Event, World};
use crate::world::kernel::syn;

/// Flows that cannot be deleted are reported and tried at ever longer intervals, and only flows are read for that.
#[test]
fn flows_that_cannot_be_deleted_are_tried_ever_more_rarely() {
    let file = |backends: &[&str]| {
        let service = json!({"name": "a", "port": 20001, "backends": backends, "drain_timeout": "1s"});
        let state = json!({"version": 1, "services": [service]});
        tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
    };
    let mut world = World::new(file(&["10.2.0.11:3000"]));
    world.run();
    assert!(matches!(world.connect(&syn(20_001), 0), ConnectOutcome::Backend(_)));
    let kernel = world.kernel();
    let id = kernel.flows.last().unwrap().id;
    kernel.stuck.insert(id);
    world.happen(Event::File(Box::new(file(&["10.2.0.12:3000"]))));
    world.wait(Duration::from_secs(10));
    let problems = |world: &World| world.core.problems().line().unwrap_or_default();
    assert!(
        problems(&world).contains("1 flow of backends that are gone could not be deleted"),
        "{}",
        problems(&world)
    );
    let before = (world.jobs.whole_table, world.jobs.flushes);
    world.wait(Duration::from_secs(3600));
    assert_eq!(world.jobs.whole_table, before.0, "the table is not read for a flow");
    let tries = world.jobs.flushes - before.1;
    assert!((50..=80).contains(&tries), "{tries} in an hour");
    assert!(!world.core.problems().is_ok());
    world.kernel().stuck.clear();
    world.wait(Duration::from_secs(61));
    assert_eq!(problems(&world), "");
    assert!(world.core.in_sync());
    assert!(world.kernel().flows.is_empty());
    world.check().unwrap();
}

/// Draining backends keep their time when the daemon is killed before the record has their deadlines.
#[test]
fn draining_backends_keep_their_time_though_it_was_not_recorded() {
    let file = |backends: &[SocketAddr]| {
        let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
        let service = json!({
            "name": "a", "port": 20001, "backends": backends, "drain_timeout": "100s",
        });
        let state = json!({"version": 1, "services": [service]});
        tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
    };
    let [leaves, stays]: [SocketAddr; 2] = ["10.2.0.11:3000", "10.2.0.12:3000"].map(|at| at.parse().unwrap());
    let mut world = World::new(file(&[leaves, stays]));
    world.run();
    for pick in 0..16 {
        assert!(matches!(world.connect(&syn(20_001), pick), ConnectOutcome::Backend(_)));
    }
    let left = |world: &mut World| {
        let flows = &world.kernel().flows;
        flows.iter().filter(|flow| flow.backend == leaves).count()
    };
    let before = left(&mut world);
    assert!(before > 0);
    world.happen(Event::File(Box::new(file(&[stays]))));
    for entry in fs::read_dir(world.record_path().parent().unwrap()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    world.happen(Event::Restart);
    assert_eq!(left(&mut world), before);
    // Across restarts the deadline is kept by a clock that cannot be set.
    world.wait(Duration::from_millis(40_100));
    world.happen(Event::Clock(3600));
    world.happen(Event::Restart);
    world.wait(Duration::from_secs(20));
    world.happen(Event::Clock(-7200));
    world.happen(Event::Restart);
    world.wait(Duration::from_millis(39_800));
    assert_eq!(left(&mut world), before);
    world.wait(Duration::from_millis(200));
    assert_eq!(left(&mut world), 0);
    world.check().unwrap();
}
