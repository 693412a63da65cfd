//! Services of any containers.

use proptest::prelude::*;

use super::*;

fn any_container() -> impl Strategy<Value = Container> {
    let key = prop_oneof![
        6 => prop::sample::select(LABELS.to_vec()).prop_map(|name| format!("tcpgw.{name}")),
        1 => Just("com.docker.compose.service".to_owned()),
        1 => "tcpgw\\..{0,9}",
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec!["2001", "2002", "2003"]).prop_map(ToOwned::to_owned),
        2 => prop::sample::select(vec!["a", "b", "web", "reset", "random", "5m", "10.0.0.0/8"]).prop_map(ToOwned::to_owned),
        1 => any::<String>(),
    ];
    let labels = prop::collection::btree_map(key, value, 0..5);
    let port = prop::option::weighted(0.9, prop::sample::select(vec!["2001", "2002", "2003"]));
    let reach =
        prop_oneof![6 => Just(NetworkReach::Routed), 1 => Just(NetworkReach::Macvlan), 1 => Just(NetworkReach::Host)];
    let address = prop_oneof![
        6 => (1..20_u8).prop_map(|last| std::net::IpAddr::from([172, 30, 0, last])),
        1 => any::<std::net::IpAddr>(),
    ];
    let networks = (
        prop::sample::select(vec!["web", "a", "\u{1b}"]),
        reach,
        prop::collection::vec(address, 0..3),
    );
    let networks = prop::collection::vec(networks, 0..3);
    let state = prop::sample::select(vec![
        RunState::Running,
        RunState::Running,
        RunState::Paused,
        RunState::Down,
    ]);
    let health = prop::sample::select(vec![
        ContainerHealth::Unchecked,
        ContainerHealth::Starting,
        ContainerHealth::Healthy,
        ContainerHealth::Unhealthy,
    ]);
    let about = (
        0..40_u8,
        any::<bool>(),
        prop::collection::btree_set(1..5_u16, 0..3),
        0..3_i64,
    );
    let name = prop_oneof![3 => "[a-c](-[0-9])?", 1 => any::<String>()];
    (name, labels, port, networks, state, health, about).prop_map(
        |(name, mut labels, port, networks, state, health, (id, is_stopping, exposed, created))| {
            labels.extend(port.map(|port| ("tcpgw.port".to_owned(), port.to_owned())));
            Container {
                id: format!("{id}").into(),
                name: name.into(),
                labels,
                exposed: exposed.into_iter().filter_map(|port| port.try_into().ok()).collect(),
                networks: networks
                    .into_iter()
                    .map(|(name, reach, addresses)| ContainerNetwork {
                        name: name.into(),
                        reach,
                        addresses,
                    })
                    .collect(),
                state,
                health,
                created,
                is_stopping,
                start: 0,
            }
        },
    )
}

/// Returns the containers with ids of their own, as an engine has them.
fn distinct(containers: Vec<Container>) -> Vec<Container> {
    let by_id: BTreeMap<Box<str>, Container> = containers.into_iter().map(|of| (of.id.clone(), of)).collect();
    by_id.into_values().collect()
}

proptest! {
    #[test]
    fn whatever_containers_say_the_services_are_valid_together(
        containers in prop::collection::vec(any_container(), 0..12),
        seed in any::<u64>(),
    ) {
        let containers = distinct(containers);
        let found = of(&containers);
        State::new(found.services.iter().cloned()).map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        let mut text = Vec::new();
        for service in &found.services {
            prop_assert!(Fences::default().allow_port(service.port));
            text.push(crate::model::write::service_text(service));
            for backend in &service.backends {
                let of = &found.backends[&backend.endpoint];
                let container = containers.iter().find(|container| container.id == of.id);
                let networks = container.iter().flat_map(|container| &container.networks);
                let mut addresses = networks.flat_map(|network| &network.addresses);
                prop_assert!(addresses.any(|address| *address == backend.endpoint.address), "its own");
            }
        }
        for problem in &found.problems {
            prop_assert_eq!(crate::escape::text(&problem.message), problem.message.clone());
            prop_assert!(problem.message.len() < 4000, "{}", problem.message.len());
        }
        // The order of the list does not matter.
        let mut other = containers.clone();
        other.sort_by_key(|container| seed.wrapping_mul(container.id.len() as u64 + u64::from(container.id.as_bytes()[0])) % 7);
        prop_assert_eq!(of(&other), found);
        // A list without one that is no backend and defines nothing leaves the others alone.
        let without: Vec<Container> = containers.iter().filter(|container| is_addressed(container)).cloned().collect();
        prop_assert_eq!(of(&without).services.len(), of(&containers).services.len());
    }
}
