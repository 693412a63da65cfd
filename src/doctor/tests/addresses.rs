//! Findings about the addresses and ports of the gateway.

use super::*;

#[test]
fn an_address_without_a_local_route_is_broken() {
    let found = only(
        &with(|facts| facts.cheap.unrouted = Ok([ip("203.0.113.1")].into())),
        "address-lost",
        FindingSeverity::Broken,
    );
    assert!(
        found.seen.starts_with("1 address is on an interface, and ") && found.seen.ends_with(" is gone: 203.0.113.1"),
        "{}",
        found.seen
    );
    let v4_only = |facts: &mut Facts| {
        facts.cheap.unrouted = Ok([ip("2001:db8:1::1")].into());
        for service in &mut Arc::make_mut(&mut facts.cheap.services).services {
            service.active.retain(|backend, _| backend.is_ipv4());
        }
    };
    assert_eq!(with(v4_only), []);
}

#[test]
fn interfaces_that_answer_no_arp_requests_are_broken() {
    let found = only(
        &with(set("net.ipv4.conf.ext.arp_ignore", "8")),
        "no-public-address",
        FindingSeverity::Broken,
    );
    assert_eq!(found.seen, "ext answers no ARP requests: arp_ignore is 8");
    assert_eq!(
        found.fix.unwrap().to_string(),
        "sysctl -w net.ipv4.conf.ext.arp_ignore=0"
    );
    let found = only(
        &with(set("net.ipv4.conf.all.arp_ignore", "8")),
        "no-public-address",
        FindingSeverity::Broken,
    );
    assert!(
        found.seen.starts_with("ext, br0 answer no ARP requests"),
        "{}",
        found.seen
    );
    assert!(found.fix.unwrap().to_string().contains(".all."));
    for (name, value) in [("ext", "2"), ("port", "8")] {
        assert_eq!(with(set(&format!("net.ipv4.conf.{name}.arp_ignore"), value)), []);
    }
    let is_tunnel = |facts: &mut Facts| {
        set("net.ipv4.conf.ext.arp_ignore", "8")(facts);
        facts.cheap.links.as_mut().unwrap()[0].no_arp = true;
    };
    assert_eq!(with(is_tunnel), []);
}

#[test]
fn links_of_ethernet_without_arp_are_broken() {
    let found = only(
        &with(|facts| facts.cheap.links.as_mut().unwrap()[0].arp_off = true),
        "no-public-address",
        FindingSeverity::Broken,
    );
    assert!(
        found.seen.starts_with("ext neither answers nor sends ARP requests"),
        "{}",
        found.seen
    );
    assert_eq!(line(&found), "ip link set ext arp on");
    // A port of the bridge is no link on which hosts ask.
    assert_eq!(with(|facts| facts.cheap.links.as_mut().unwrap()[2].arp_off = true), []);
}

#[test]
fn addresses_of_services_for_which_no_arp_request_is_answered_are_broken() {
    let named = |address: &'static str, level: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv4.conf.ext.arp_ignore", level)(facts);
            facts.cheap.local.as_mut().unwrap().addresses.insert(ip(address));
            for service in &mut Arc::make_mut(&mut facts.cheap.services).services {
                service.addresses = [ip(address)].into();
            }
        }
    };
    for level in ["1", "2"] {
        let found = only(
            &with(named("203.0.113.9", level)),
            "no-public-address",
            FindingSeverity::Broken,
        );
        assert!(
            found.seen.contains("203.0.113.9, on another link than ext"),
            "{}",
            found.seen
        );
        assert_eq!(line(&found), "sysctl -w net.ipv4.conf.ext.arp_ignore=0");
        // Others may be routed to the gateway.
        let found = only(
            &with(named("192.0.2.9", level)),
            "no-public-address",
            FindingSeverity::Warning,
        );
        assert!(found.seen.contains("192.0.2.9"), "{}", found.seen);
        assert_eq!(with(named("203.0.113.1", level)), [], "it is on the link");
    }
    for level in ["0", "3"] {
        assert_eq!(with(named("203.0.113.9", level)), [], "{level}");
    }
}

/// The service listens on all addresses, and its clients use one that is on another link than the one by which they come in.
#[test]
fn addresses_that_clients_use_and_for_which_no_arp_request_is_answered_are_broken() {
    let used = |address: &'static str, level: &'static str| {
        with(move |facts| {
            set("net.ipv4.conf.ext.arp_ignore", level)(facts);
            facts.cheap.local.as_mut().unwrap().addresses.insert(ip(address));
            facts.cheap.served = vec![ServedClient {
                client: "203.0.113.77:40000".parse().unwrap(),
                public: (ip(address), 20003).into(),
                backend: "10.2.0.11:3000".parse().unwrap(),
                link: Some(facts.cheap.links.as_ref().unwrap()[0].index),
                is_recent: true,
                is_banned: false,
            }];
        })
    };
    for level in ["1", "2"] {
        let found = only(
            &used("203.0.113.9", level),
            "no-public-address",
            FindingSeverity::Broken,
        );
        assert!(
            found.seen.contains("connect to 203.0.113.9, on another link than ext"),
            "{}",
            found.seen
        );
        assert!(found.seen.contains(":20003"), "{}", found.seen);
        assert_eq!(line(&found), "sysctl -w net.ipv4.conf.ext.arp_ignore=0");
        assert_eq!(used("192.0.2.9", level), [], "a router sends it to another address");
        assert_eq!(used("203.0.113.1", level), [], "it is on the link");
    }
    for level in ["0", "3"] {
        assert_eq!(used("203.0.113.9", level), [], "{level}");
    }
}

#[test]
fn a_router_whose_arp_requests_may_not_be_answered_is_a_warning() {
    let by = |router: &'static str, level: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv4.conf.ext.arp_ignore", level)(facts);
            for way in facts.cheap.client_routes.as_mut().unwrap().values_mut().flatten() {
                way.gateway = Some(ip(router));
            }
        }
    };
    assert_eq!(with(by("203.0.113.10", "2")), []);
    assert_eq!(with(by("192.0.2.10", "1")), []);
    let found = only(
        &with(by("192.0.2.10", "2")),
        "no-public-address",
        FindingSeverity::Warning,
    );
    assert!(
        found
            .seen
            .starts_with("ext answers only ARP requests of hosts in its own networks"),
        "{}",
        found.seen
    );
}

#[test]
fn the_only_public_address_of_a_family_that_is_lost_is_broken() {
    let lose = |facts: &mut Facts| facts.cheap.lost_families = [Family::V6].into();
    let found = only(&with(lose), "no-public-address", FindingSeverity::Broken);
    assert!(
        found.seen.starts_with("the gateway has lost its only IPv6 address") && found.seen.ends_with(": web :20003"),
        "{}",
        found.seen
    );
    let is_back = |facts: &mut Facts| {
        lose(facts);
        facts
            .cheap
            .local
            .as_mut()
            .unwrap()
            .addresses
            .insert(ip("2001:db8:1::1"));
    };
    assert_eq!(with(is_back), []);
}

#[test]
fn a_lost_address_is_told_where_a_service_listens_on_all() {
    let lose = |facts: &mut Facts| facts.cheap.lost_addresses = BTreeMap::from([(ip("203.0.113.2"), 3)]);
    let found = only(&with(lose), "address-lost", FindingSeverity::Warning);
    assert_eq!(
        found.seen,
        "the gateway has lost an address on which clients had connections: 203.0.113.2 (3 connections)"
    );
    let found = with(|facts| {
        lose(facts);
        for service in &mut Arc::make_mut(&mut facts.cheap.services).services {
            service.addresses = [ip("203.0.113.1")].into();
        }
    });
    assert!(found.iter().all(|finding| finding.id != "address-lost"), "{found:#?}");
}

#[test]
fn an_address_that_is_gone_is_as_bad_as_status_says() {
    let addresses = |has: &[&str]| {
        let mut facts = well();
        let chosen = &mut Arc::make_mut(&mut facts.cheap.services).services;
        let chosen = chosen.iter_mut().find(|service| service.port == 20004).unwrap();
        chosen.addresses.insert(ip("203.0.113.2"));
        facts.cheap.local = Ok(has.iter().copied().map(ip).collect());
        let found = examine(&facts).findings;
        let found = found.iter().find(|finding| finding.id == "address-not-local");
        let mut is_local = |address| Ok::<_, ()>(facts.cheap.local.as_ref().unwrap().contains(&address));
        let told = absent_addresses(&facts.cheap.services, &mut is_local).unwrap();
        let told = told.iter().map(|problem| FindingSeverity::of(problem.severity)).min();
        assert_eq!(found.map(|finding| finding.severity), told, "{has:?}");
        told
    };
    assert_eq!(addresses(&["203.0.113.1", "203.0.113.2", "10.2.0.1"]), None);
    assert_eq!(addresses(&["203.0.113.2", "10.2.0.1"]), Some(FindingSeverity::Warning));
    assert_eq!(addresses(&["10.2.0.1"]), Some(FindingSeverity::Broken));
}

#[test]
fn source_addresses_that_are_gone() {
    let with_sources = |addresses: &str| {
        let state = format!(
            r#"{{"version":1,"services":[{{"name":"web","port":20003,"backends":["10.2.0.11:3000"],
            "source_addresses":[{addresses}]}}]}}"#
        );
        move |facts: &mut Facts| {
            facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
        }
    };
    assert_eq!(with(with_sources(r#""10.2.0.1","203.0.113.1""#)), []);
    let found = only(
        &with(with_sources(r#""10.2.0.1","10.2.0.9""#)),
        "source-address-not-local",
        FindingSeverity::Broken,
    );
    assert!(found.seen.ends_with(": 10.2.0.9 of web"), "{}", found.seen);
}

#[test]
fn own_ports_and_addresses() {
    let found = only(
        &with(set("net.ipv4.ip_local_port_range", "10000 20003")),
        "port-in-local-range",
        FindingSeverity::Warning,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.ip_local_reserved_ports=20003");
    let some_reserved = |facts: &mut Facts| {
        set("net.ipv4.ip_local_port_range", "10000 30000")(facts);
        set("net.ipv4.ip_local_reserved_ports", "8080,20000-20003")(facts);
    };
    let found = only(&with(some_reserved), "port-in-local-range", FindingSeverity::Warning);
    assert_eq!(
        line(&found),
        "sysctl -w net.ipv4.ip_local_reserved_ports=8080,20000-20004"
    );
    let listens = |address: &str| {
        let listener = Listener {
            addr: address.parse().unwrap(),
            inode: 1,
        };
        move |facts: &mut Facts| facts.listeners = Ok(vec![(listener, Some("sshd (1)".into()))])
    };
    only(
        &with(listens("0.0.0.0:20003")),
        "port-with-listener",
        FindingSeverity::Note,
    );
    only(
        &with(listens("203.0.113.1:20004")),
        "port-with-listener",
        FindingSeverity::Note,
    );
    assert!(with(listens("10.2.0.1:20004")).is_empty());
    let gone =
        |facts: &mut Facts| facts.cheap.local = Ok(LocalAddresses::from_iter(["203.0.113.2", "10.2.0.1"].map(ip)));
    only(&with(gone), "address-not-local", FindingSeverity::Broken);
}

#[test]
fn no_address_for_clients() {
    let no_address = |facts: &mut Facts| {
        Arc::make_mut(&mut facts.cheap.services).services.remove(1);
        facts.cheap.local = Ok(LocalAddresses::from_iter(["10.2.0.1", "127.0.0.1"].map(ip)));
        facts.cheap.links.as_mut().unwrap()[0].addresses.clear();
        facts.cheap.client_routes = Ok([((Family::V4, None), None), ((Family::V6, None), None)].into());
        facts.cheap.answers = Ok([((Family::V4, 3), None), ((Family::V6, 3), None)].into());
    };
    let is_found = |change: &dyn Fn(&mut Facts)| {
        let found = with(|facts| {
            no_address(facts);
            change(facts);
        });
        found.into_iter().find(|finding| finding.id == "no-public-address")
    };
    let found = is_found(&|_| ()).unwrap();
    assert_eq!(
        (found.severity, found.seen.as_str()),
        (
            FindingSeverity::Broken,
            "the gateway has no address but those on the way to its backends, and 1 service listens on all addresses: web :20003"
        )
    );
    let is_down = |facts: &mut Facts| {
        let link = &mut facts.cheap.links.as_mut().unwrap()[0];
        link.up = false;
        link.addresses.push((ip("203.0.113.1"), 24));
        facts.cheap.local.as_mut().unwrap().addresses.insert(ip("203.0.113.1"));
    };
    assert!(is_found(&is_down).is_some());
    // Tests an announced loopback address, one of the other family, and a gateway with one interface.
    assert_eq!(
        is_found(&|facts| facts
            .cheap
            .local
            .as_mut()
            .unwrap()
            .addresses
            .extend([ip("203.0.113.9")])),
        None
    );
    assert_eq!(
        is_found(&|facts| facts
            .cheap
            .local
            .as_mut()
            .unwrap()
            .addresses
            .extend([ip("2001:db8::9")])),
        None
    );
    assert_eq!(
        is_found(&|facts| drop(facts.cheap.links.as_mut().unwrap().remove(0))),
        None
    );
    let one_armed = |facts: &mut Facts| facts.cheap.client_routes = Ok([((Family::V4, None), way(3))].into());
    assert_eq!(is_found(&one_armed), None);
}

#[test]
fn a_link_to_the_clients_without_a_carrier() {
    let found = |change: &dyn Fn(&mut Vec<LinkDetails>)| {
        let found = with(|facts| change(facts.cheap.links.as_mut().unwrap()));
        found.into_iter().find(|finding| finding.id == "no-carrier")
    };
    assert_eq!(found(&|_| ()), None);
    let cut = |links: &mut Vec<LinkDetails>| links[0].no_carrier = true;
    let finding = found(&cut).unwrap();
    assert_eq!(
        (finding.severity, finding.seen.as_str()),
        (
            FindingSeverity::Broken,
            "ext has no carrier, and clients of 2 services come in by it: chosen :20004, web :20003"
        )
    );
    // Clients may be on another link.
    let other = |links: &mut Vec<LinkDetails>| {
        cut(links);
        links.push(link(9, "lan", "192.168.7.1"));
    };
    assert_eq!(found(&other).unwrap().severity, FindingSeverity::Warning);
    // The backends' link is examined by probes.
    assert_eq!(found(&|links| links[1].no_carrier = true), None);
    // Without a default route clients are on networks of the gateway's own.
    let private = |client: Option<&str>, change: &dyn Fn(&mut Vec<LinkDetails>)| {
        let found = with(|facts| {
            facts.cheap.client_routes = Ok([((Family::V4, None), None), ((Family::V6, None), None)].into());
            facts.cheap.answers = Ok([].into());
            facts.cheap.served = Vec::from_iter(client.map(|client| ServedClient {
                client: client.parse().unwrap(),
                public: "203.0.113.1:20003".parse().unwrap(),
                backend: "10.2.0.11:3000".parse().unwrap(),
                link: Some(facts.cheap.links.as_ref().unwrap()[usize::from(client.starts_with("10."))].index),
                is_recent: true,
                is_banned: false,
            }));
            change(facts.cheap.links.as_mut().unwrap());
        });
        let found = found.into_iter().find(|finding| finding.id == "no-carrier");
        found.map(|finding| finding.severity)
    };
    let served = Some("203.0.113.10:40000");
    assert_eq!(private(served, &|_| ()), None);
    assert_eq!(private(served, &cut), Some(FindingSeverity::Broken));
    assert_eq!(private(None, &cut), Some(FindingSeverity::Warning));
    // They are on the backends' link.
    assert_eq!(private(Some("10.2.0.77:40000"), &cut), None);
}
