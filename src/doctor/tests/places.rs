//! Tests of drops at interfaces, before conntrack, and by the elements of sets.

use super::*;
use tcpgw_kernel::firewall::{Device, Load, Relation, RuleField, RuleVerdict, SetElement, Test, ct_state};

fn load(field: RuleField, len: usize) -> Load {
    Load { field, len }
}

fn is_in(key: Vec<Load>, elements: Option<&[&[u8]]>) -> Test {
    let single = |key: &&[u8]| SetElement {
        from: key.to_vec(),
        to: key.to_vec(),
    };
    Test::In {
        key,
        elements: elements.map(|elements| elements.iter().map(single).collect()),
        negated: false,
    }
}

fn drops(tests: Vec<Test>) -> Vec<Rule> {
    vec![Rule {
        tests,
        effects: Vec::new(),
        verdict: RuleVerdict::Drop,
    }]
}

fn at_interface(
    family: TableFamily,
    hook: FirewallHook,
    devices: &[&str],
    rules: Vec<Rule>,
    drops: bool,
) -> FirewallChain {
    let device = |name: &&str| Device {
        name: name.trim_end_matches('*').into(),
        is_prefix: name.ends_with('*'),
    };
    FirewallChain {
        devices: devices.iter().map(device).collect(),
        ..chain(table(family, "mine", false), hook, 0, rules, drops)
    }
}

#[test]
fn what_a_set_holds_decides() {
    let address = || vec![load(RuleField::Dest4, 4)];
    let port = || vec![load(RuleField::DestPort, 2)];
    let endpoint = || vec![load(RuleField::Dest4, 4), load(RuleField::DestPort, 2)];
    let [backend, other] = [&[10, 2, 0, 11][..], &[10, 2, 0, 99]];
    let (served, unserved) = (3000_u16.to_be_bytes(), 9_u16.to_be_bytes());
    for (key, elements, severity) in [
        (address(), Some(&[other, backend][..]), Some(FindingSeverity::Broken)),
        (address(), Some(&[other]), None),
        (address(), Some(&[]), None),
        (address(), None, Some(FindingSeverity::Warning)),
        (port(), Some(&[&unserved, &served]), Some(FindingSeverity::Broken)),
        (port(), Some(&[&unserved]), None),
        (
            endpoint(),
            Some(&[&[10, 2, 0, 11, served[0], served[1], 0, 0]]),
            Some(FindingSeverity::Broken),
        ),
        (
            endpoint(),
            Some(&[&[10, 2, 0, 11, unserved[0], unserved[1], 0, 0]]),
            None,
        ),
    ] {
        let rules = drops(vec![is_in(key.clone(), elements)]);
        let found = with(nft(chain(
            table(TableFamily::Ip, "mine", false),
            FirewallHook::Forward,
            0,
            rules,
            false,
        )));
        let worst = found.iter().map(|finding| finding.severity).min();
        assert_eq!(worst, severity, "{key:?} {elements:?}: {found:#?}");
    }
}

/// Before the translation a packet has a public address: one that the service names, or one of the outer interface.
#[test]
fn addresses_that_clients_connect_to_are_known() {
    let drops_at = |address: [u8; 4]| {
        let test = Test::Compare {
            load: load(RuleField::Dest4, 4),
            mask: None,
            relation: Relation::Equal,
            value: address.to_vec(),
        };
        chain(
            table(TableFamily::Ip, "mine", false),
            FirewallHook::Prerouting,
            -300,
            drops(vec![test]),
            false,
        )
    };
    let found = only(
        &with(nft(drops_at([203, 0, 113, 1]))),
        "packets-dropped",
        FindingSeverity::Broken,
    );
    assert!(
        found.seen.contains("2 of the 2 backends") && found.seen.contains("packets to"),
        "{}",
        found.seen
    );
    assert!(with(nft(drops_at([203, 0, 113, 2]))).is_empty());
    // With a second address, services on all addresses can still be reached.
    let second = |facts: &mut Facts| {
        let address = (ip("203.0.113.2"), 24);
        facts.cheap.links.as_mut().unwrap()[0].addresses.push(address);
        facts.cheap.local.as_mut().unwrap().addresses.insert(address.0);
    };
    let found = with(|facts| {
        second(facts);
        nft(drops_at([203, 0, 113, 2]))(facts);
    });
    only(&found, "packets-dropped", FindingSeverity::Warning);
    let found = with(|facts| {
        second(facts);
        nft(drops_at([203, 0, 113, 1]))(facts);
    });
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert!(
        found.seen.contains("1 of the 2 backends") && found.seen.contains("10.2.0.12:3000"),
        "{}",
        found.seen
    );
}

#[test]
fn drops_at_interfaces_are_found_where_clients_and_backends_are() {
    use FirewallHook::{Egress, Ingress};
    use RuleField::{DestPort, SourcePort};

    let port = |port: u16, field| {
        let test = Test::Compare {
            load: load(field, 2),
            mask: None,
            relation: Relation::Equal,
            value: port.to_be_bytes().to_vec(),
        };
        drops(vec![test])
    };
    let (netdev, inet) = (TableFamily::Netdev, TableFamily::Inet);
    for (chain, says, fix) in [
        (
            at_interface(netdev, Ingress, &["lan", "ext"], port(20003, DestPort), false),
            "packets to",
            "nft insert rule netdev mine c tcp dport { 20003-20004 } accept",
        ),
        (
            at_interface(inet, Ingress, &["ex*"], Vec::new(), true),
            "packets to",
            "nft insert rule inet mine c tcp dport { 20003-20004 } accept",
        ),
        (
            at_interface(netdev, Egress, &["br0"], port(3000, DestPort), false),
            "packets to",
            "nft insert rule netdev mine c ip daddr . tcp dport { 10.2.0.11 . 3000, 10.2.0.12 . 3000 } accept",
        ),
        (
            at_interface(netdev, Ingress, &["br0"], port(3000, SourcePort), false),
            "answers from",
            "nft insert rule netdev mine c ip saddr . tcp sport { 10.2.0.11 . 3000, 10.2.0.12 . 3000 } accept",
        ),
        (
            at_interface(netdev, Egress, &["ext"], port(20003, SourcePort), false),
            "answers from",
            "nft insert rule netdev mine c tcp sport { 20003-20004 } accept",
        ),
    ] {
        let found = with(|facts| {
            Arc::make_mut(&mut facts.cheap.services)
                .services
                .iter_mut()
                .for_each(|service| {
                    service.active.retain(|backend, _| backend.is_ipv4());
                });
            nft(chain.clone())(facts);
        });
        let found = only(&found, "packets-dropped", FindingSeverity::Broken);
        assert!(found.seen.contains(says), "{}", found.seen);
        assert_eq!(line(&found), fix);
    }
    // These rules concern other families, ports without a service, or unused interfaces.
    let ether = |value: [u8; 2]| {
        drops(vec![Test::Compare {
            load: load(RuleField::EtherType, 2),
            mask: None,
            relation: Relation::Equal,
            value: value.to_vec(),
        }])
    };
    for chain in [
        at_interface(netdev, Ingress, &["ext"], ether([0x88, 0xcc]), false),
        at_interface(netdev, Ingress, &["ext"], port(3000, DestPort), false),
        at_interface(netdev, Egress, &["br0"], port(20003, DestPort), false),
        at_interface(netdev, Egress, &["port"], Vec::new(), false),
    ] {
        let mut facts = well();
        nft(chain)(&mut facts);
        assert_eq!(examine(&facts), Diagnosis::default());
    }
    let mut facts = well();
    nft(at_interface(netdev, Ingress, &["lan"], Vec::new(), true))(&mut facts);
    let diagnosis = examine(&facts);
    assert!(diagnosis.findings.is_empty());
    assert_eq!(diagnosis.unchecked.len(), 1);
    assert!(
        with(nft(at_interface(netdev, Ingress, &["ext"], ether([0x08, 0x00]), false)))
            .iter()
            .all(|finding| finding.severity == FindingSeverity::Broken)
    );
}

/// A packet without an entry in conntrack is invalid to a rule.
#[test]
fn at_ingress_conntrack_knows_nothing() {
    let state = |bits: u32| {
        let test = Test::Compare {
            load: load(RuleField::CtState, 4),
            mask: Some(bits.to_ne_bytes().to_vec()),
            relation: Relation::Differs,
            value: vec![0; 4],
        };
        at_interface(
            TableFamily::Inet,
            FirewallHook::Ingress,
            &["ext"],
            drops(vec![test]),
            false,
        )
    };
    let found = with(nft(state(ct_state::INVALID)));
    assert!(!found.is_empty() && found.iter().all(|finding| finding.severity == FindingSeverity::Broken));
    assert!(with(nft(state(ct_state::NEW))).is_empty());
}

/// Tests the link of a VLAN, and all ports of a bridge or a bond.
#[test]
fn drops_below_interfaces_are_found_where_all_packets_pass() {
    let hooked = |hook, devices: &[&str], rules| {
        let policy = rules == Vec::new();
        at_interface(TableFamily::Netdev, hook, devices, rules, policy)
    };
    // `ext` is a VLAN of `bond`, which has two ports; the bridge has one port, and then another.
    let below = |chain: FirewallChain, second_port: bool| {
        with(|facts| {
            let links = facts.cheap.links.as_mut().unwrap();
            links[0].parent = Some(10);
            let bare = |index, name: &str, master| LinkDetails {
                master,
                addresses: Vec::new(),
                ..link(index, name, "10.2.0.1")
            };
            links.extend([
                bare(10, "bond", None),
                bare(11, "eth0", Some(10)),
                bare(12, "eth1", Some(10)),
            ]);
            links.extend(second_port.then(|| bare(13, "port2", Some(3))));
            nft(chain)(facts);
        })
    };
    let broken = |found: &[Finding]| {
        let dropped = found.iter().filter(|finding| finding.id == "packets-dropped");
        dropped
            .filter(|finding| finding.severity == FindingSeverity::Broken)
            .count()
    };
    for (devices, hook, second_port, expected) in [
        (&["bond"][..], FirewallHook::Ingress, false, true),
        (&["eth0", "eth1"], FirewallHook::Ingress, false, true),
        (&["eth0"], FirewallHook::Ingress, false, false),
        (&["eth*"], FirewallHook::Egress, false, true),
        (&["port"], FirewallHook::Egress, false, true),
        (&["port"], FirewallHook::Ingress, true, false),
        (&["port", "port2"], FirewallHook::Ingress, true, true),
    ] {
        let found = below(hooked(hook, devices, Vec::new()), second_port);
        assert_eq!(broken(&found) > 0, expected, "{devices:?}: {found:#?}");
        assert_eq!(found.is_empty(), !expected, "{devices:?}: {found:#?}");
    }
    // The name of the lower interface differs from that of the upper one.
    let name = |name: &str| {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        let test = Test::Compare {
            load: load(RuleField::InName, 16),
            mask: None,
            relation: Relation::Equal,
            value,
        };
        hooked(FirewallHook::Ingress, &["bond"], drops(vec![test]))
    };
    let found = below(name("bond"), false);
    assert!(
        !found.is_empty() && found.iter().all(|finding| finding.severity == FindingSeverity::Warning),
        "{found:#?}"
    );
}

/// Tests a second uplink without a default route, by which clients come in, too.
#[test]
fn what_drops_clients_of_one_interface_only_is_told() {
    let by_name = |name: &str| Test::Compare {
        load: load(RuleField::InName, 16),
        mask: None,
        relation: Relation::Equal,
        value: {
            let mut value = name.as_bytes().to_vec();
            value.resize(16, 0);
            value
        },
    };
    let second = |facts: &mut Facts, tests: Vec<Test>| {
        let links = facts.cheap.links.as_mut().unwrap();
        links.push(link(6, "lan", "198.51.100.1"));
        links.push(LinkDetails {
            up: false,
            ..link(7, "off", "198.18.0.1")
        });
        let table = table(TableFamily::Ip, "mine", false);
        let forward = chain(table, FirewallHook::Forward, 0, drops(tests), false);
        nft(forward)(facts);
    };
    let found = only(
        &with(|facts| second(facts, vec![by_name("lan")])),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    assert!(
        found
            .seen
            .contains("drops packets of clients that come by lan to any backend"),
        "{}",
        found.seen
    );
    assert!(with(|facts| second(facts, vec![by_name("off")])).is_empty());
    // Dropped remote clients are an error, and the other ones are not reported again.
    for tests in [vec![by_name("ext")], Vec::new()] {
        let found = with(|facts| second(facts, tests));
        only(&found, "packets-dropped", FindingSeverity::Broken);
    }
    // Admitting only the first uplink is intended, unless the other one leads to remote networks.
    let only_ext = |facts: &mut Facts| {
        second(facts, vec![by_name("off")]);
        let chain = firewall_of(facts).chains.last_mut().unwrap();
        chain.base.as_mut().unwrap().drops = true;
        chain.rules = drops(vec![by_name("ext")]);
        chain.rules[0].verdict = RuleVerdict::Accept;
        chain.rules.push(Rule {
            tests: vec![by_name("br0")],
            verdict: RuleVerdict::Accept,
            ..Rule::default()
        });
    };
    only(&with(only_ext), "packets-dropped", FindingSeverity::Note);
    let uplink = |facts: &mut Facts| {
        only_ext(facts);
        let by_router = way(6).map(|way| RouteTo {
            gateway: Some(ip("198.51.100.254")),
            ..way
        });
        let out = facts.cheap.client_routes.as_mut().unwrap();
        out.insert((Family::V4, Some(ip("198.51.100.1"))), by_router);
    };
    only(&with(uplink), "packets-dropped", FindingSeverity::Warning);
    // A service on an address of another interface is not for these clients.
    let chosen = Test::Compare {
        load: load(RuleField::Dest4, 4),
        mask: None,
        relation: Relation::Equal,
        value: vec![10, 2, 0, 12],
    };
    assert!(with(|facts| second(facts, vec![by_name("lan"), chosen])).is_empty());
}
