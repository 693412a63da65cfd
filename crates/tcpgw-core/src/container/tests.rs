mod any;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{BackendState, Balance, Fences, MAX_ACTIVE, PacketRefusal, Service, SourceMode, State};

/// Returns a container that runs in a bridge network and exposes port 3000, with these labels.
fn container(name: &str, number: u8, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("{number:064x}").into(),
        name: name.into(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        exposed: [3000.try_into().unwrap()].into(),
        networks: vec![network("web", NetworkReach::Routed, &[&format!("172.30.0.{number}")])],
        state: RunState::Running,
        health: ContainerHealth::Unchecked,
        created: i64::from(number),
        is_stopping: false,
        start: 1,
    }
}

fn network(name: &str, reach: NetworkReach, addresses: &[&str]) -> ContainerNetwork {
    ContainerNetwork {
        name: name.into(),
        reach,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn of(containers: &[Container]) -> ContainerServices {
    services_of(containers, &Fences::default())
}

/// Returns the services as `name:port` with their backends.
fn shown(found: &ContainerServices) -> Vec<String> {
    let rendered = |service: &Service| {
        let backends = service.backends.iter().map(|backend| match backend.state {
            BackendState::Active => format!(" {}", backend.endpoint),
            BackendState::Draining => format!(" ({})", backend.endpoint),
        });
        format!("{}:{}{}", service.name, service.port, backends.collect::<String>())
    };
    found.services.iter().map(rendered).collect()
}

/// Returns the only problem.
#[track_caller]
fn problem(containers: &[Container]) -> String {
    let found = of(containers);
    let [problem] = found.problems.as_slice() else {
        panic!("{:?}", found.problems);
    };
    problem.message.clone()
}

#[track_caller]
fn is_told(containers: &[Container], parts: &[&str]) {
    let message = problem(containers);
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn one_label_makes_a_service_with_all_its_containers() {
    let found = of(&[
        container("app-2", 12, &[("tcpgw.port", "20003")]),
        container("app-1", 11, &[("tcpgw.port", "20003")]),
        container("db-1", 13, &[("com.example", "x")]),
    ]);
    assert_eq!(shown(&found), ["app:20003 172.30.0.11:3000 172.30.0.12:3000"]);
    assert_eq!(found.problems, []);
    let backend = &found.backends[&"172.30.0.12:3000".parse().unwrap()];
    assert!(backend.id.ends_with("0c") && backend.start == 1);
    assert_eq!(&*found.examples["app"], "app-1");
}

#[test]
fn every_label_is_the_field_of_its_name() {
    let labels = [
        ("tcpgw.port", "20003"),
        ("tcpgw.service", "mqtt"),
        ("tcpgw.target", "1883"),
        ("tcpgw.network", "back"),
        ("tcpgw.limit.pps", "500"),
        ("tcpgw.balance", "source-hash"),
        ("tcpgw.source", "preserve"),
        ("tcpgw.on_retire", "reset"),
        ("tcpgw.on_empty", "drop"),
        ("tcpgw.drain_timeout", "5m"),
        ("tcpgw.allow", "10.0.0.0/8, 2001:db8::/32"),
        ("tcpgw.deny", "10.1.0.0/16"),
    ];
    let names = labels.map(|(name, _)| name.trim_start_matches("tcpgw."));
    assert_eq!(BTreeSet::from(names), BTreeSet::from(LABELS));
    let mut broker = container("x", 1, &labels);
    broker.networks = vec![
        network("back", NetworkReach::Routed, &["172.31.0.9", "fd00::9"]),
        network("front", NetworkReach::Routed, &["172.32.0.9"]),
    ];
    let found = of(&[broker]);
    assert_eq!(shown(&found), ["mqtt:20003 172.31.0.9:1883 [fd00::9]:1883"]);
    let service = &found.services[0];
    assert_eq!(service.limit.map(|limit| (limit.pps, limit.burst)), Some((500, 5000)));
    assert_eq!(
        (
            service.balance,
            service.source,
            service.on_retire,
            service.on_empty,
            service.drain_timeout.as_secs()
        ),
        (
            Balance::SourceHash,
            SourceMode::Preserve,
            PacketRefusal::Reset,
            PacketRefusal::Drop,
            300
        )
    );
    assert_eq!(service.access.allow.as_ref().map(Vec::len), Some(2));
    assert_eq!(service.access.deny.len(), 1);
}

#[test]
fn the_name_is_that_of_compose_or_of_the_container_without_its_number() {
    for (name, compose, service) in [
        ("app-1", None, "app"),
        ("shop_app_12", None, "shop_app"),
        ("web2", None, "web"),
        ("7", None, "7"),
        ("Web-Front.1", None, "web-front"),
        ("shop-app-1", Some("app"), "app"),
        ("x", Some("MQTT"), "mqtt"),
    ] {
        let mut one = container(name, 1, &[("tcpgw.port", "20003")]);
        let compose = compose.map(|name: &str| ("com.docker.compose.service".to_owned(), name.to_owned()));
        one.labels.extend(compose);
        assert_eq!(&*of(&[one]).services[0].name, service, "{name}");
    }
}

/// Two projects of Compose serve one port together, where their labels agree: a new one beside the old one.
#[test]
fn two_projects_with_the_same_service_share_it_or_contradict_each_other() {
    let project = |project: &str, number: u8, port: &str| {
        let labels = [
            ("tcpgw.port", port),
            ("com.docker.compose.project", project),
            ("com.docker.compose.service", "app"),
        ];
        container(&format!("{project}-app-1"), number, &labels)
    };
    let found = of(&[project("blue", 1, "20003"), project("green", 2, "20003")]);
    assert_eq!(shown(&found), ["app:20003 172.30.0.1:3000 172.30.0.2:3000"]);
    let both = [project("blue", 1, "20003"), project("green", 2, "20004")];
    assert_eq!(shown(&of(&both)), ["app:20003 172.30.0.1:3000"]);
    is_told(
        &both,
        &[
            "\"green-app-1\"",
            "\"blue-app-1\"",
            "tcpgw.port is \"20004\" here and \"20003\" there",
            "tcpgw.service",
        ],
    );
}

#[test]
fn of_contradicting_labels_the_first_stay_whatever_the_order() {
    let labels = |pps: &'static str| {
        [
            ("tcpgw.port", "20003"),
            ("tcpgw.service", "app"),
            ("tcpgw.limit.pps", pps),
        ]
    };
    let (old, new) = (container("b", 1, &labels("5")), container("a", 2, &labels("6")));
    for order in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        assert_eq!(shown(&of(&order)), ["app:20003 172.30.0.1:3000"]);
        is_told(
            &order,
            &[
                "container \"a\"",
                "container \"b\"",
                "tcpgw.limit.pps is \"6\" here and \"5\" there",
            ],
        );
    }
    // Of two that were created in the same second, the id decides.
    let twin = Container {
        created: 1,
        ..new.clone()
    };
    is_told(&[twin, old.clone()], &["container \"a\": its labels contradict"]);
    // The one that was told to stop gives way to its successor, and neither is a problem.
    let leaving = Container {
        is_stopping: true,
        ..old.clone()
    };
    let found = of(&[leaving, new.clone()]);
    assert_eq!(
        (shown(&found), found.problems.len()),
        (vec!["app:20003 172.30.0.2:3000".to_owned()], 0)
    );
    assert_eq!(found.services[0].limit.map(|limit| limit.pps), Some(6));
    let ended = Container {
        state: RunState::Down,
        ..old
    };
    assert_eq!(of(&[ended, new]).problems, []);
}

#[test]
fn a_port_belongs_to_the_first_service() {
    let both = [
        container("a", 2, &[("tcpgw.port", "20003")]),
        container("b", 1, &[("tcpgw.port", "20003")]),
    ];
    assert_eq!(shown(&of(&both)), ["b:20003 172.30.0.1:3000"]);
    is_told(
        &both,
        &[
            "container \"a\": tcpgw.port: 20003 is the port of service \"b\"",
            "container \"b\"",
        ],
    );
    assert_eq!(of(&both).problems[0].service.as_deref(), Some("a"));
}

/// The containers of a service may all be created anew while another one waits.
#[test]
fn a_port_stays_with_the_service_that_holds_it() {
    let port = 20003.try_into().unwrap();
    let holds = EarlierServices {
        holders: [(port, "app".into())].into(),
        ..EarlierServices::default()
    };
    let thief = container("thief", 1, &[("tcpgw.port", "20003")]);
    let app = Container {
        state: RunState::Down,
        ..container("app-2", 2, &[("tcpgw.port", " 20003")])
    };
    let found = services_after(&[thief.clone(), app.clone()], &Fences::default(), &holds);
    assert_eq!(shown(&found), ["app:20003"]);
    let message = &found.problems[0].message;
    assert!(
        message.starts_with(
            "container \"thief\": tcpgw.port: 20003 is the port of service \"app\", which has served it before"
        ) && message.contains("container \"app-2\""),
        "{message}"
    );
    let found = services_after(std::slice::from_ref(&thief), &Fences::default(), &holds);
    assert_eq!((found.services.len(), found.problems.len()), (0, 1));
    assert_eq!(
        claims_of(&[thief, app]),
        [(port, "app".into()), (port, "thief".into())].into()
    );
}

#[test]
fn the_state_and_health_of_a_container_decide_about_its_backend() {
    use ContainerHealth::{Healthy, Starting, Unchecked, Unhealthy};
    use RunState::{Down, Paused, Running};
    for (state, health, is_stopping, backends) in [
        (Running, Unchecked, false, " 172.30.0.1:3000"),
        (Running, Healthy, false, " 172.30.0.1:3000"),
        (Running, Starting, false, ""),
        (Running, Unhealthy, false, " (172.30.0.1:3000)"),
        (Paused, Healthy, false, " (172.30.0.1:3000)"),
        (Running, Healthy, true, " (172.30.0.1:3000)"),
        (Running, Starting, true, " (172.30.0.1:3000)"),
        (Down, Unchecked, false, ""),
        (Down, Unhealthy, true, ""),
    ] {
        let one = Container {
            state,
            health,
            is_stopping,
            ..container("app", 1, &[("tcpgw.port", "20003")])
        };
        // A service exists as long as one of its containers does.
        assert_eq!(
            shown(&of(&[one])),
            [format!("app:20003{backends}")],
            "{state:?} {health:?} {is_stopping}"
        );
    }
}

/// The address is not known, and may be that of another container later.
#[test]
fn a_container_that_does_not_run_has_no_problem_with_its_network() {
    let down = Container {
        state: RunState::Down,
        networks: Vec::new(),
        exposed: BTreeSet::new(),
        ..container("app", 1, &[("tcpgw.port", "20003")])
    };
    let found = of(&[down]);
    assert_eq!((shown(&found), found.problems), (vec!["app:20003".to_owned()], vec![]));
}

#[test]
fn networks_that_cannot_work_are_told_with_the_reason() {
    let with = |networks: Vec<ContainerNetwork>, labels: &[(&str, &str)]| {
        let labels = [&[("tcpgw.port", "20003")], labels].concat();
        [Container {
            networks,
            ..container("app", 1, &labels)
        }]
    };
    let (web, back) = (
        network("shop_web", NetworkReach::Routed, &["172.30.0.1"]),
        network("back", NetworkReach::Routed, &["172.31.0.1"]),
    );
    let macvlan = network("lan", NetworkReach::Macvlan, &["192.168.1.9"]);
    for (reach, part) in [
        (NetworkReach::Host, "shares the gateway's own network"),
        (NetworkReach::Nothing, "has no network"),
        (NetworkReach::Shared, "network of another container"),
        (NetworkReach::Macvlan, "macvlan network"),
        (NetworkReach::Ipvlan, "ipvlan network"),
        (NetworkReach::Overlay, "overlay network"),
    ] {
        let one = with(vec![network("n", reach, &[])], &[]);
        is_told(&one, &["container \"app\"", part, "(network \"n\")"]);
        assert_eq!(shown(&of(&one)), ["app:20003"]);
    }
    is_told(&with(vec![], &[]), &["it is in no network"]);
    is_told(
        &with(vec![back.clone(), web.clone()], &[]),
        &["several networks: \"back\", \"shop_web\"", "set tcpgw.network"],
    );
    let chosen = with(vec![back.clone(), web.clone()], &[("tcpgw.network", "shop_web")]);
    assert_eq!(shown(&of(&chosen)), ["app:20003 172.30.0.1:3000"]);
    let short = [("tcpgw.network", "web"), ("com.docker.compose.project", "shop")];
    assert_eq!(
        shown(&of(&with(vec![back.clone(), web.clone()], &short))),
        ["app:20003 172.30.0.1:3000"]
    );
    // One that cannot be used is none to choose from, unless it is named.
    assert_eq!(
        shown(&of(&with(vec![macvlan.clone(), web.clone()], &[]))),
        ["app:20003 172.30.0.1:3000"]
    );
    let named = with(vec![macvlan, web], &[("tcpgw.network", "lan")]);
    is_told(&named, &["tcpgw.network: \"lan\" cannot be used"]);
    is_told(
        &with(vec![back], &[("tcpgw.network", "x\u{1b}")]),
        &["no network \"x\\u{1b}\"; it is in \"back\""],
    );
    is_told(
        &with(vec![network("web", NetworkReach::Routed, &[])], &[]),
        &["has no address in network \"web\""],
    );
    is_told(
        &with(vec![network("web", NetworkReach::Routed, &["127.0.0.1"])], &[]),
        &["127.0.0.1", "loopback"],
    );
}

#[test]
fn the_single_exposed_port_is_the_target() {
    let exposing = |ports: &[u16], labels: &[(&str, &str)]| {
        let labels = [&[("tcpgw.port", "20003")], labels].concat();
        [Container {
            exposed: ports.iter().map(|port| (*port).try_into().unwrap()).collect(),
            ..container("app", 1, &labels)
        }]
    };
    assert_eq!(shown(&of(&exposing(&[80], &[]))), ["app:20003 172.30.0.1:80"]);
    is_told(&exposing(&[], &[]), &["exposes no TCP port", "tcpgw.target"]);
    is_told(
        &exposing(&[80, 443], &[]),
        &["several TCP ports: 80, 443", "tcpgw.target"],
    );
    assert_eq!(
        shown(&of(&exposing(&[80, 443], &[("tcpgw.target", "5")]))),
        ["app:20003 172.30.0.1:5"]
    );
}

#[test]
fn wrong_labels_are_told_by_their_names() {
    for (labels, parts) in [
        (
            &[("tcpgw.port", "http")][..],
            &["tcpgw.port: must be a number from 1 to 65535, not the string \"http\""][..],
        ),
        (&[("tcpgw.port", "+5")], &["tcpgw.port: must be a number"]),
        (
            &[("tcpgw.port", "99999")],
            &["tcpgw.port: must be a number from 1 to 65535, not 99999"],
        ),
        (&[("tcpgw.port", "80")], &["tcpgw.port: 80 is outside of the fences"]),
        (
            &[("tcpgw.prot", "20003")],
            &[
                "label \"tcpgw.prot\" is unknown; known are tcpgw.port",
                "tcpgw.port: is missing",
            ],
        ),
        (
            &[("tcpgw.port", "20003"), ("tcpgw.target", "x")],
            &["tcpgw.target: must be a number"],
        ),
        (
            &[("tcpgw.port", "20003"), ("tcpgw.limit.pps", "0")],
            &["tcpgw.limit.pps: must be a number from 1 to 1000000"],
        ),
        (
            &[("tcpgw.port", "20003"), ("tcpgw.balance", "best")],
            &["tcpgw.balance: must be client-hash or random"],
        ),
        (
            &[("tcpgw.port", "20003"), ("tcpgw.drain_timeout", "5")],
            &["tcpgw.drain_timeout: "],
        ),
        (&[("tcpgw.port", "20003"), ("tcpgw.allow", "")], &["tcpgw.allow[0]: "]),
        (
            &[("tcpgw.port", "20003"), ("tcpgw.service", "A B")],
            &["tcpgw.service: must be 1 to 63"],
        ),
    ] {
        let found = of(&[container("app", 1, labels)]);
        assert!(found.services.is_empty(), "{labels:?}");
        is_told(&[container("app", 1, labels)], parts);
    }
    let unnamed = container("_", 1, &[("tcpgw.port", "20003")]);
    is_told(&[unnamed], &["the service's name", "set tcpgw.service"]);
    let long = "9".repeat(5000);
    is_told(&[container("app", 1, &[("tcpgw.port", &long)])], &["has 5000 bytes"]);
}

#[test]
fn containers_of_a_single_command_are_no_backends() {
    let labels = [("tcpgw.port", "20003"), ("com.docker.compose.oneoff", "True")];
    assert_eq!(of(&[container("app-run-1", 1, &labels)]), ContainerServices::default());
}

#[test]
fn fences_and_sizes_hold_for_containers() {
    let fences = Fences {
        backends: Some(vec!["172.30.0.0/30".parse().unwrap()]),
        ..Fences::default()
    };
    let both = [1, 9].map(|number| container("app", number, &[("tcpgw.port", "20003")]));
    let found = services_of(&both, &fences);
    assert_eq!(shown(&found), ["app:20003 172.30.0.1:3000"]);
    assert!(
        found.problems[0]
            .message
            .contains("172.30.0.9 is outside of the fences"),
        "{:?}",
        found.problems
    );
    let many: Vec<Container> = (0..=MAX_ACTIVE)
        .map(|number| Container {
            id: format!("{number:04}").into(),
            networks: vec![network(
                "web",
                NetworkReach::Routed,
                &[&format!("172.30.{}.{}", 1 + number / 200, 1 + number % 200)],
            )],
            ..container("app", 1, &[("tcpgw.port", "20003")])
        })
        .collect();
    let found = of(&many);
    assert_eq!(
        (found.services[0].backends.len(), found.problems.len()),
        (MAX_ACTIVE, 1)
    );
}

/// An engine says so of containers in networks that overlap.
#[test]
fn an_address_belongs_to_one_container() {
    let twins = [
        container("a", 1, &[("tcpgw.port", "20003")]),
        container("b", 2, &[("tcpgw.port", "20004")]),
    ];
    let twins = twins.map(|twin| Container {
        networks: vec![network("web", NetworkReach::Routed, &["172.30.0.5"])],
        ..twin
    });
    is_told(
        &twins,
        &["container \"b\": its address 172.30.0.5 is that of container \"a\", too"],
    );
}
