//! Findings about routes to clients and backends.

use super::*;
use crate::doctor::facts::ClientOfService;

#[test]
fn routes_that_are_missing_are_an_error_where_clients_fail() {
    let severity = |lost: &[&str], is_probed| {
        let mut facts = well();
        let other: std::net::SocketAddr = "10.2.0.13:3000".parse().unwrap();
        Arc::make_mut(&mut facts.cheap.services)
            .services
            .iter_mut()
            .for_each(|service| {
                if service.port == 20003 {
                    service.active.insert(other, 1);
                }
            });
        facts.cheap.backend_routes.as_mut().unwrap().insert(other.ip(), way(3));
        for address in lost {
            facts.cheap.backend_routes.as_mut().unwrap().insert(ip(address), None);
        }
        facts.cheap.is_probed = is_probed;
        let diagnosis = examine_cheap(&facts.cheap);
        let problems = problems(&diagnosis);
        assert_eq!(
            FindingSeverity::of(problems[0].severity),
            diagnosis.findings[0].severity
        );
        problems[0].severity
    };
    assert_eq!(severity(&["10.2.0.11"], true), tcpgw_core::problem::Severity::Warning);
    assert_eq!(severity(&["10.2.0.11"], false), tcpgw_core::problem::Severity::Error);
    assert_eq!(
        severity(&["10.2.0.11", "10.2.0.13"], true),
        tcpgw_core::problem::Severity::Error
    );
}

#[test]
fn answers_without_a_way_are_an_error_where_nobody_gets_any() {
    let found = |backends: &[&str], clients: &[&str], reached: &[&str]| {
        let set = |of: &[&str]| of.iter().map(|client| of_web(client)).collect::<BTreeSet<_>>();
        let backends = backends.iter().map(|backend| (ip(backend), 3000).into()).collect();
        let (clients, reached) = (set(clients), set(reached));
        let found = with(|facts| {
            facts.cheap.lost_answers = Ok(LostAnswers {
                backends,
                clients,
                reached,
            });
        });
        assert!(found.iter().all(|finding| finding.id == "answers-without-route"));
        found.first().map(|finding| finding.severity)
    };
    assert_eq!(found(&[], &[], &["198.51.100.1"]), None);
    assert_eq!(found(&["10.2.0.11"], &[], &[]), Some(FindingSeverity::Broken));
    assert_eq!(
        found(&["10.2.0.11"], &["198.51.100.1"], &[]),
        Some(FindingSeverity::Broken)
    );
    // Containers may be kept from the Internet while clients are inside.
    assert_eq!(
        found(&["10.2.0.11"], &[], &["172.16.0.1"]),
        Some(FindingSeverity::Warning)
    );
    // One network may be blocked, or all networks.
    let some = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
    assert_eq!(found(&[], &some, &["172.16.0.1"]), Some(FindingSeverity::Warning));
    assert_eq!(found(&[], &some[..2], &[]), Some(FindingSeverity::Warning));
    assert_eq!(found(&[], &some, &[]), Some(FindingSeverity::Broken));
}

fn of_web(client: &str) -> ClientOfService {
    let client = ip(client);
    let public = if client.is_ipv4() {
        "203.0.113.1"
    } else {
        "2001:db8:1::1"
    };
    ClientOfService {
        client,
        public: (ip(public), 20003).into(),
    }
}

/// Routes of one family, and ports of one service, may be refused while all others are served.
#[test]
fn answers_without_a_way_are_an_error_for_a_family_and_a_service_by_itself() {
    let clients = |network: &str, port| {
        let client = |last| {
            let mut client = of_web(&format!("{network}{last}"));
            client.public.set_port(port);
            client
        };
        (1..=4).map(client).collect::<BTreeSet<_>>()
    };
    let found = |backends: &[&str], clients: BTreeSet<ClientOfService>, reached: BTreeSet<ClientOfService>| {
        let found = with(|facts| {
            let backends = backends.iter().map(|backend| (ip(backend), 3000).into()).collect();
            facts.cheap.lost_answers = Ok(LostAnswers {
                backends,
                clients,
                reached,
            });
        });
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].severity, found[0].seen.clone())
    };
    let (v4, v6) = (|| clients("198.51.100.", 20003), || clients("2001:db8:7::", 20003));
    for (lost, reached, words) in [(v4(), v6(), "4 of 4 IPv4 clients"), (v6(), v4(), "4 of 4 IPv6 clients")] {
        let (severity, seen) = found(&[], lost, reached);
        assert_eq!(severity, FindingSeverity::Broken);
        assert!(seen.contains(words), "{seen}");
    }
    let (severity, seen) = found(&[], v4(), clients("192.0.2.", 20004));
    assert_eq!(severity, FindingSeverity::Broken);
    assert!(
        seen.contains("4 of 4 clients of ") && seen.contains(":20003 that"),
        "{seen}"
    );
    let (severity, _) = found(&["10.2.0.11"], v4(), v6());
    assert_eq!(severity, FindingSeverity::Broken);
    let (severity, _) = found(&["10.2.0.11"], BTreeSet::new(), v6());
    assert_eq!(severity, FindingSeverity::Broken);
    // Others of the same service and family are served.
    let (severity, seen) = found(&[], v4(), &v6() | &clients("192.0.2.", 20003));
    assert_eq!(severity, FindingSeverity::Warning);
    assert!(seen.contains("4 of 12 clients that"), "{seen}");
}

#[test]
fn ways_to_backends() {
    let to = |address: &'static str, way: Option<RouteTo>| {
        move |facts: &mut Facts| drop(facts.cheap.backend_routes.as_mut().unwrap().insert(ip(address), way))
    };
    only(
        &with(to("10.2.0.11", None)),
        "backend-without-route",
        FindingSeverity::Broken,
    );
    let broadcast = way(3).map(|way| RouteTo { shared: true, ..way });
    let found = only(
        &with(to("10.2.0.11", broadcast)),
        "backend-without-route",
        FindingSeverity::Broken,
    );
    assert!(
        found
            .seen
            .contains("1 address of backends is that of a broadcast or anycast: 10.2.0.11"),
        "{}",
        found.seen
    );
    let own = way(1).map(|way| RouteTo { local: true, ..way });
    only(
        &with(to("10.2.0.11", own)),
        "backend-is-gateway",
        FindingSeverity::Broken,
    );
    let default = |address: &'static str| {
        move |facts: &mut Facts| {
            let by_router = way(2).map(|way| RouteTo {
                gateway: Some(ip("203.0.113.254")),
                ..way
            });
            let out = facts.cheap.client_routes.as_mut().unwrap();
            out.insert((Family::V4, None), by_router.clone());
            let backend_routes = facts.cheap.backend_routes.as_mut().unwrap();
            backend_routes.remove(&ip("10.2.0.11"));
            backend_routes.insert(ip(address), by_router);
        }
    };
    let found = only(
        &with(default("10.2.0.11")),
        "backend-by-default-route",
        FindingSeverity::Warning,
    );
    assert!(found.seen.contains("1 private address of backends"), "{}", found.seen);
    assert!(with(default("198.51.100.9")).is_empty(), "it may be anywhere");
    let both = with(|facts| {
        let backend_routes = facts.cheap.backend_routes.as_mut().unwrap();
        backend_routes.insert(ip("10.2.0.11"), None);
        backend_routes.insert(ip("10.2.0.12"), None);
    });
    let found = only(&both, "backend-without-route", FindingSeverity::Broken);
    assert!(
        found
            .seen
            .contains("2 addresses of backends, or one that refuses: 10.2.0.11, 10.2.0.12, of web :"),
        "{}",
        found.seen
    );
    let neighbour = |address: &'static str, link| {
        move |facts: &mut Facts| {
            facts.neighbours = Ok(vec![Neighbour {
                link,
                address: ip(address),
                hardware: None,
                failed: true,
            }]);
        }
    };
    only(
        &with(neighbour("10.2.0.11", 3)),
        "backend-unreachable",
        FindingSeverity::Warning,
    );
    assert!(with(neighbour("10.2.0.11", 2)).is_empty(), "on another link");
    assert!(with(neighbour("10.2.0.99", 3)).is_empty());
    let narrow = |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[1].mtu = 1400;
    only(&with(narrow), "path-mtu", FindingSeverity::Note);
    let mut facts = well();
    facts.cheap.routes_left_out = 7;
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn offloads() {
    let offloads = |offloads| move |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[0].offloads = offloads;
    let lro = Offloads {
        lro: true,
        ..Offloads::default()
    };
    let found = only(
        &with(offloads(Some(lro))),
        "large-receive-offload",
        FindingSeverity::Warning,
    );
    assert_eq!(line(&found), "ethtool -K ext lro off");
    let gro = Offloads {
        gro: true,
        ..Offloads::default()
    };
    only(&with(offloads(Some(gro))), "packets-merged", FindingSeverity::Note);
    let mut facts = well();
    offloads(None)(&mut facts);
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

/// The default route leads into the network of the containers.
#[test]
fn a_route_to_clients_that_leads_to_the_backends_is_found() {
    let via = |router: &str, index: u32| {
        let router = ip(router);
        Some(RouteTo {
            gateway: Some(router),
            ..way(index).unwrap()
        })
    };
    let found = |router: &str, index: u32, change: fn(&mut Facts)| {
        let family = Family::of(ip(router));
        let found = with(|facts| {
            facts
                .cheap
                .answers
                .as_mut()
                .unwrap()
                .insert((family, 3), via(router, index));
            facts
                .cheap
                .client_routes
                .as_mut()
                .unwrap()
                .insert((family, None), via(router, index));
            change(facts);
        });
        let mut found = found
            .into_iter()
            .filter(|finding| finding.id == "answers-without-route");
        found.next().map(|finding| (finding.severity, finding.seen))
    };
    let none: fn(&mut Facts) = |_| {};
    assert_eq!(
        found("203.0.113.10", 2, none),
        None,
        "the router of the clients' network"
    );
    let (severity, seen) = found("10.2.0.14", 3, none).unwrap();
    assert_eq!(severity, FindingSeverity::Warning);
    assert!(
        seen.contains("by br0 to 10.2.0.14") && seen.contains("though ext has a public address"),
        "{seen}"
    );
    assert_eq!(
        found("10.2.0.11", 3, none).unwrap().0,
        FindingSeverity::Broken,
        "a backend"
    );
    // A gateway with one link, and one whose other link is for its administrator.
    for other in [None, Some("192.168.7.1")] {
        let mut facts = well();
        facts.cheap.links.as_mut().unwrap()[0].addresses = other.map(|address| (ip(address), 24)).into_iter().collect();
        facts
            .cheap
            .answers
            .as_mut()
            .unwrap()
            .insert((Family::V4, 3), via("10.2.0.254", 3));
        let found = examine_cheap(&facts.cheap).findings;
        assert!(
            found.iter().all(|finding| finding.id != "answers-without-route"),
            "{found:#?}"
        );
    }
    // Backends behind a router of the clients' network.
    let routed: fn(&mut Facts) = |facts| {
        for way in facts.cheap.backend_routes.as_mut().unwrap().values_mut() {
            let way = way.as_mut().unwrap();
            (way.index, way.gateway) = (2, Some(ip("203.0.113.77")));
        }
        facts.cheap.answers = Ok([(
            (Family::V4, 2),
            Some(RouteTo {
                gateway: Some(ip("203.0.113.10")),
                ..way(2).unwrap()
            }),
        )]
        .into());
    };
    assert_eq!(found("203.0.113.10", 2, routed), None);
}
