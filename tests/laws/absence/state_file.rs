//! State files that shrink, change their place, or are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::control::events::EventContent;
use tcpgw::control::request::{After, ServiceEdit};
use tcpgw_core::problem::ProblemKind;

use super::services::{OF_API, owned, service, state};
use super::{Event, WRITTEN, World, restart};

/// A service that a valid state file lacks is removed, also when the file shrank while no daemon ran.
#[test]
fn services_that_a_valid_file_lacks_are_removed() {
    let mut world = World::new();
    world.write_file(Some([0].into()));
    world.happen(Event::Restart([].into()));
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9003, 9004].into());
    // Another file says nothing about the services of this one.
    world.file.path = "/other.json".into();
    world.write_file(Some([1].into()));
    world.happen(Event::Restart([].into()));
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9002, 9003, 9004].into());
    assert_eq!(world.providers()[2], owned(("f1", "orphan")));
}

/// The providers of services are recorded even when the kernel need not change for that.
#[test]
fn another_file_that_comes_back_removes_no_service_of_the_first() {
    let mut world = World::new();
    for (path, file) in [
        ("/b.json", Some([1].into())),
        ("/state.json", Some([0, 1].into())),
        ("/b.json", None),
    ] {
        world.file.path = path.into();
        world.write_file(file);
        world.happen(restart([]));
        world.check().unwrap();
    }
    world.write_file(Some([1].into()));
    world.tell_file();
    world.wait(Duration::from_secs(40));
    world.check().unwrap();
    assert_eq!(world.providers()[2], owned(("f1", "orphan")));
}

/// The result of an examination for one state file does not apply to another file that the daemon follows meanwhile.
#[test]
fn a_look_for_one_file_does_not_apply_to_another() {
    let mut world = World::new();
    world.write_file(Some([0].into()));
    world.tell_file();
    world.file.path = "/other.json".into();
    world.reload();
    assert!(world.core.judges_again().is_none());
    world.write_file(Some([].into()));
    world.tell_file();
    world.wait(Duration::from_secs(40));
    world.check().unwrap();
}

fn rejected(world: &World) -> Option<String> {
    let problem = world.core.problems().get(ProblemKind::RejectedState);
    problem.map(|problem| problem.message.clone())
}

fn put(world: &mut World, name: &str, port: u16, backend: &str, health: &Value) {
    let service = json!({"name": name, "port": port, "backends": [backend], "health": health});
    assert!(world.order(name, ServiceEdit::Put(service.to_string().into_bytes())));
}

/// A refused state file is accepted as soon as the API service that conflicted with it is removed or changed.
#[test]
fn a_refused_file_is_accepted_when_its_conflict_is_gone() {
    let health = json!({"interval": "30s"});
    // A name, a port, and an endpoint that would be probed in two ways.
    for (name, port, backend) in [
        ("f2", 9010, "10.9.0.10:80"),
        ("x", 9002, "10.9.0.10:80"),
        ("x", 9010, "10.9.0.2:80"),
    ] {
        for at_start in [false, true] {
            for by_removal in [false, true] {
                let mut world = World::new();
                world.happen(Event::File([0].into()));
                world.wait(Duration::from_secs(60));
                put(&mut world, name, port, backend, &health);
                world.clients.ports.remove(&9002);
                if at_start {
                    world.write_file(Some([0, 1].into()));
                    world.happen(Event::Restart([].into()));
                } else {
                    world.happen(Event::File([0, 1].into()));
                }
                assert!(rejected(&world).is_some(), "{name} {port} {backend} {at_start}");
                if by_removal {
                    assert!(world.order(name, ServiceEdit::Delete));
                } else if name == "x" {
                    put(&mut world, name, 9011, "10.9.0.11:80", &health);
                } else {
                    assert!(world.apply(&state(OF_API.map(service)), false));
                }
                world.wait(WRITTEN);
                assert_eq!(rejected(&world), None, "{name} {port} {backend} {at_start}");
                let owners: BTreeMap<String, String> = world.providers().into_iter().collect();
                assert_eq!(owners["f2"], "file");
                world.clients.ports.insert(9002);
                world.wait(Duration::from_secs(60));
                world.check().unwrap();
            }
        }
    }
}

/// The refusal of a state file is reported once, however long it lasts.
#[test]
fn a_refusal_of_the_file_is_reported_once() {
    let mut world = World::new();
    world.happen(Event::File([0].into()));
    put(&mut world, "f2", 9010, "10.9.0.10:80", &json!({}));
    world.happen(Event::File([0, 1].into()));
    let reported = |world: &World| {
        let events = world.core.follow(&After::Start).kept;
        let rejected = events
            .iter()
            .filter(|event| matches!(event.what, EventContent::Rejected { .. }));
        rejected.count()
    };
    assert_eq!(reported(&world), 1);
    for most in 1..5 {
        let patch = json!({"max_flows": most}).to_string();
        assert!(world.order("a1", ServiceEdit::Patch(patch.into_bytes())));
        world.wait(Duration::from_secs(100));
    }
    assert_eq!(reported(&world), 1);
    assert!(rejected(&world).unwrap().contains("tcpgw service rm f2"));
}

/// The refusal of an empty state file names the daemon's own setting: `tcpgw apply` and its options would change the API's
/// services.
#[test]
fn an_empty_state_file_is_refused_with_the_daemons_own_key() {
    let mut world = World::new();
    world.happen(Event::File([].into()));
    let message = rejected(&world).unwrap();
    assert!(!message.contains("--allow-empty"), "{message}");
    for part in [
        "/state.json has no services",
        "`allow_empty = true` under [daemon] in /etc/tcpgw/config.toml",
        "2 services",
    ] {
        assert!(message.contains(part), "{message}");
    }
    world.clients.ports.extend([9001, 9002]);
    world.check().unwrap();
}
