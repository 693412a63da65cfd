//! Answers of Docker's engine, and labels of containers.

use tcpgw::provider::docker::{read_containers, read_event};
use tcpgw_core::container::services_of;
use tcpgw_core::model::{Fences, State};

/// Checks that any answer is refused, or has containers whose services are valid together, with backends of their own addresses and
/// problems that a terminal can show.
pub fn check(bytes: &[u8]) {
    let _ = read_event(bytes);
    let Ok(containers) = read_containers(bytes) else {
        return;
    };
    let found = services_of(&containers, &Fences::default());
    // More services than can have the balance round-robin are refused later, one by one.
    if found.services.len() <= 256 {
        State::new(found.services.iter().cloned()).expect("valid together");
    }
    for service in &found.services {
        for backend in &service.backends {
            let of = &found.backends[&backend.endpoint];
            let mut own = containers.iter().filter(|container| container.id == of.id);
            let has = own.any(|container| {
                let mut networks = container.networks.iter();
                networks.any(|network| network.addresses.contains(&backend.endpoint.address))
            });
            assert!(has, "{backend:?}");
        }
    }
    for problem in &found.problems {
        assert_eq!(tcpgw_core::escape::text(&problem.message), problem.message);
        assert!(problem.message.len() < 10_000, "{}", problem.message.len());
    }
    let mut other = containers;
    other.reverse();
    let of_other = services_of(&other, &Fences::default());
    assert_eq!(of_other.services, found.services);
}
