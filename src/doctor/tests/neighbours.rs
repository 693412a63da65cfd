//! Findings about messages by which hosts of a link find each other.

use super::*;
use tcpgw_kernel::firewall::{Device, Load, Relation, RuleField, RuleVerdict, Test};

fn rule(tests: Vec<Test>, verdict: RuleVerdict) -> Rule {
    Rule {
        tests,
        verdict,
        ..Rule::default()
    }
}

fn at(family: TableFamily, hook: FirewallHook, rules: Vec<Rule>, drops: bool) -> FirewallChain {
    chain(table(family, "fw", false), hook, 0, rules, drops)
}

/// Returns the findings with a chain, except those about probes.
fn found(chain: FirewallChain) -> Vec<Finding> {
    let mut found = with(nft(chain));
    found.retain(|finding| finding.id != "probes-dropped");
    found
}

fn name(name: &str) -> Test {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    is(RuleField::InName, &value)
}

fn kind(kind: u8) -> Vec<Test> {
    vec![is(RuleField::Protocol, &[58]), is(RuleField::IcmpType, &[kind])]
}

fn ct_state(bits: u32) -> Test {
    Test::Compare {
        load: Load {
            field: RuleField::CtState,
            len: 4,
        },
        mask: Some(bits.to_ne_bytes().to_vec()),
        relation: Relation::Differs,
        value: vec![0; 4],
    }
}

/// The rules of a firewall that forgot ICMPv6.
fn forgetful() -> Vec<Rule> {
    vec![
        rule(vec![ct_state(6)], RuleVerdict::Accept),
        rule(vec![name("br0")], RuleVerdict::Accept),
        rule(
            vec![is(RuleField::Protocol, &[6]), is(RuleField::DestPort, &[0, 22])],
            RuleVerdict::Accept,
        ),
    ]
}

#[test]
fn a_firewall_that_accepts_no_neighbour_discovery_is_an_error() {
    let finding = only(
        &found(at(TableFamily::Inet, FirewallHook::Input, forgetful(), true)),
        "packets-dropped",
        FindingSeverity::Broken,
    );
    assert_eq!(
        finding.seen,
        "chain c of table inet fw drops neighbour solicitations and advertisements that come in by ext: its policy is drop, and no rule \
         lets them pass"
    );
    assert_eq!(
        line(&finding),
        "nft insert rule inet fw c icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    );
    for (hook, number, says) in [
        (
            FirewallHook::Input,
            135,
            "drops neighbour solicitations that come in by br0, ext",
        ),
        (FirewallHook::Prerouting, 135, "that come in by br0, ext"),
        (
            FirewallHook::Output,
            136,
            "drops neighbour advertisements that leave by br0, ext",
        ),
    ] {
        let drops = vec![rule(kind(number), RuleVerdict::Drop)];
        let finding = only(
            &found(at(TableFamily::Ip6, hook, drops, false)),
            "packets-dropped",
            FindingSeverity::Broken,
        );
        assert!(
            finding.seen.contains(says) || finding.seen.contains(&says.replace("br0, ext", "ext, br0")),
            "{}",
            finding.seen
        );
    }
}

#[test]
fn a_firewall_that_accepts_it_under_whatever_condition_is_well() {
    let unknown = || Test::Unknown("hop limit".into());
    for accepts in [
        vec![is(RuleField::Protocol, &[58])],
        vec![is(RuleField::Protocol, &[58]), Test::Unknown("a limit".into())],
        [kind(135), vec![unknown()]].concat(),
        vec![ct_state(64)],
    ] {
        let both = [
            rule(accepts.clone(), RuleVerdict::Accept),
            rule(kind(136), RuleVerdict::Accept),
        ];
        let rules = [forgetful(), both.to_vec()].concat();
        let found = found(at(TableFamily::Inet, FirewallHook::Input, rules, true));
        assert_eq!(found, [], "{accepts:?}");
    }
    // Rules about others: echo requests, some addresses, IPv4.
    for tests in [
        kind(128),
        vec![is(RuleField::Source6, &[0x20; 16])],
        vec![unknown()],
        vec![is(RuleField::Family, &[2])],
        vec![ct_state(1)],
    ] {
        let drops = vec![rule(tests.clone(), RuleVerdict::Drop)];
        assert_eq!(
            found(at(TableFamily::Inet, FirewallHook::Input, drops, false)),
            [],
            "{tests:?}"
        );
    }
    // No backend has an IPv6 address.
    let alone = with(|facts| {
        let state = STATE.replace(r#","[fd00:2::11]:3000""#, "");
        facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
        nft(at(TableFamily::Ip6, FirewallHook::Input, Vec::new(), true))(facts);
    });
    assert_eq!(alone, []);
}

#[test]
fn a_rule_that_may_drop_it_is_a_warning() {
    let exceeds = [kind(135), vec![Test::Exceeds]].concat();
    let drops = vec![rule(exceeds, RuleVerdict::Drop)];
    let finding = only(
        &found(at(TableFamily::Ip6, FirewallHook::Input, drops, false)),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    assert!(
        finding.seen.contains("may drop neighbour solicitations"),
        "{}",
        finding.seen
    );
}

#[test]
fn a_table_that_drops_arp_is_an_error() {
    let arp = |hook, rules, drops| found(at(TableFamily::Arp, hook, rules, drops));
    for hook in [FirewallHook::Input, FirewallHook::Output] {
        let finding = only(&arp(hook, Vec::new(), true), "packets-dropped", FindingSeverity::Broken);
        assert!(
            finding.seen.contains("drops requests and answers of ARP"),
            "{}",
            finding.seen
        );
        assert_eq!(
            line(&finding),
            "nft insert rule arp fw c arp operation { request, reply } accept"
        );
    }
    let requests = || vec![is(RuleField::ArpOperation, &[0, 1])];
    let finding = only(
        &arp(FirewallHook::Input, vec![rule(requests(), RuleVerdict::Drop)], false),
        "packets-dropped",
        FindingSeverity::Broken,
    );
    assert!(
        finding.seen.contains("drops requests of ARP that come in by"),
        "{}",
        finding.seen
    );
    let some = [requests(), vec![Test::Unknown("an address".into())]].concat();
    only(
        &arp(FirewallHook::Input, vec![rule(some, RuleVerdict::Drop)], false),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    // One link-layer address is meant; all but one may be a fault.
    let drops = |test| vec![rule(vec![test], RuleVerdict::Drop)];
    let hardware = |relation| Test::Compare {
        load: Load {
            field: RuleField::Other,
            len: 6,
        },
        mask: None,
        relation,
        value: vec![2, 0, 0, 0, 0, 1],
    };
    assert_eq!(arp(FirewallHook::Input, drops(hardware(Relation::Equal)), false), []);
    for test in [hardware(Relation::Differs), Test::Unknown("a limit".into())] {
        let found = arp(FirewallHook::Input, drops(test), false);
        only(&found, "packets-dropped", FindingSeverity::Warning);
    }
    assert_eq!(arp(FirewallHook::Other, Vec::new(), true), []);
}

fn on(mut chain: FirewallChain, devices: &[&str]) -> FirewallChain {
    let device = |name: &&str| Device {
        name: (*name).into(),
        is_prefix: false,
    };
    chain.devices = devices.iter().map(device).collect();
    chain
}

#[test]
fn a_firewall_of_an_interface_sees_messages_of_both_families() {
    let accepts = |tests| rule(tests, RuleVerdict::Accept);
    let tcp = |kind: [u8; 2]| accepts(vec![is(RuleField::EtherType, &kind), is(RuleField::Protocol, &[6])]);
    let strict = || vec![tcp([8, 0]), tcp([0x86, 0xdd])];
    let ingress = |table, rules, devices: &[&str]| found(on(at(table, FirewallHook::Ingress, rules, true), devices));
    let findings = ingress(TableFamily::Netdev, strict(), &["ext"]);
    let texts: Vec<&str> = findings.iter().map(|finding| finding.seen.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(
        texts[0].contains("requests and answers of ARP that come in by ext"),
        "{texts:#?}"
    );
    assert!(
        texts[1].contains("neighbour solicitations and advertisements that come in by ext"),
        "{texts:#?}"
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity == FindingSeverity::Broken)
    );
    assert_eq!(
        line(&findings[0]),
        "nft insert rule netdev fw c arp operation { request, reply } accept"
    );
    // Other interfaces, and ARP in the family inet, which does not see it.
    assert_eq!(ingress(TableFamily::Netdev, strict(), &["eth9"]), []);
    let other = accepts(vec![is(RuleField::Protocol, &[58])]);
    assert_eq!(
        ingress(TableFamily::Inet, [strict(), vec![other]].concat(), &["ext"]),
        []
    );
    let of_ethernet = is(RuleField::OutType, &1_u16.to_ne_bytes());
    let arp = vec![rule(
        vec![of_ethernet, is(RuleField::FrameType, &[8, 6])],
        RuleVerdict::Drop,
    )];
    let of = |table| found(on(at(table, FirewallHook::Egress, arp.clone(), false), &["br0"]));
    let finding = only(&of(TableFamily::Netdev), "packets-dropped", FindingSeverity::Broken);
    assert!(finding.seen.contains("ARP that leave by br0"), "{}", finding.seen);
    assert_eq!(of(TableFamily::Inet), []);
}

#[test]
fn rules_about_addresses_are_judged_with_those_of_the_gateway_and_its_neighbours() {
    let drops = |hook, tests: Vec<Test>| found(at(TableFamily::Arp, hook, vec![rule(tests, RuleVerdict::Drop)], false));
    let (input, output) = (FirewallHook::Input, FirewallHook::Output);
    let is_answer = || is(RuleField::ArpOperation, &[0, 2]);
    for (hook, tests, says) in [
        (
            output,
            vec![is(RuleField::ArpSource, &[203, 0, 113, 1])],
            "drops requests and answers of ARP that leave by ext",
        ),
        (
            input,
            vec![
                is(RuleField::ArpFormat(0), &[0, 1, 8, 0]),
                is(RuleField::ArpTarget, &[203, 0, 113]),
            ],
            "drops requests and answers of ARP that come in by ext",
        ),
        // All backends.
        (
            input,
            vec![is_answer(), is(RuleField::ArpSource, &[10, 2, 0])],
            "drops answers of ARP that come in by br0",
        ),
    ] {
        let finding = only(&drops(hook, tests), "packets-dropped", FindingSeverity::Broken);
        assert!(finding.seen.contains(says), "{}", finding.seen);
    }
    let one = vec![is_answer(), is(RuleField::ArpSource, &[10, 2, 0, 11])];
    only(&drops(input, one), "packets-dropped", FindingSeverity::Warning);
    for tests in [
        vec![is(RuleField::ArpSource, &[203, 0, 113, 77])],
        vec![is(RuleField::ArpTarget, &[192, 0, 2, 1])],
        vec![is(RuleField::ArpFormat(0), &[0, 6]), is_answer()],
    ] {
        assert_eq!(drops(input, tests.clone()), [], "{tests:?}");
    }
}

#[test]
fn one_of_several_addresses_is_an_error_where_clients_use_it() {
    let with_second = |change: fn(&mut Facts)| {
        let mut found = with(|facts| {
            facts.cheap.links.as_mut().unwrap()[0]
                .addresses
                .push((ip("203.0.113.2"), 24));
            facts.cheap.local.as_mut().unwrap().addresses.insert(ip("203.0.113.2"));
            let state = STATE.replace(r#""addresses":["203.0.113.1"],"#, "");
            facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
            let drops = rule(vec![is(RuleField::ArpSource, &[203, 0, 113, 2])], RuleVerdict::Drop);
            nft(at(TableFamily::Arp, FirewallHook::Output, vec![drops], false))(facts);
            change(facts);
        });
        found.retain(|finding| finding.id == "packets-dropped");
        found
    };
    only(&with_second(|_| {}), "packets-dropped", FindingSeverity::Warning);
    let served = |facts: &mut Facts| {
        facts.cheap.served = vec![ServedClient {
            client: ([198, 51, 100, 7], 40_000).into(),
            public: (ip("203.0.113.2"), 20003).into(),
            backend: (ip("10.2.0.11"), 3000).into(),
            link: Some(2),
            is_recent: true,
            is_banned: false,
        }];
    };
    only(&with_second(served), "packets-dropped", FindingSeverity::Broken);
}

#[test]
fn multicast_that_is_dropped_hides_the_gateway() {
    let multicast = rule(vec![is(RuleField::Dest6, &[0xff])], RuleVerdict::Drop);
    let mut findings = with(|facts| {
        facts.cheap.links.as_mut().unwrap()[0]
            .addresses
            .push((ip("2001:db8::1"), 64));
        nft(at(TableFamily::Ip6, FirewallHook::Input, vec![multicast], false))(facts);
    });
    findings.retain(|finding| finding.id == "packets-dropped");
    let finding = only(&findings, "packets-dropped", FindingSeverity::Broken);
    assert!(
        finding
            .seen
            .contains("drops neighbour solicitations that come in by ext"),
        "{}",
        finding.seen
    );
}

/// Accepts neighbour discovery as ufw does, by types and hop limits of ICMPv6.
#[test]
fn rules_of_ip6tables_are_understood() {
    let saved = |rules: &str| {
        let text = format!("*filter\n:INPUT DROP [0:0]\n:B - [0:0]\n-A INPUT -j B\n{rules}\nCOMMIT\n");
        let mut found = with(|facts| facts.cheap.legacy6 = Ok(Arc::new(parse_save(TableFamily::Ip6, &text))));
        found.retain(|finding| finding.id != "probes-dropped");
        found
    };
    let accepts = |kind| format!("-A B -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255 -j ACCEPT\n");
    assert_eq!(saved(&(accepts(135) + &accepts(136))), []);
    let finding = only(&saved(&accepts(136)), "packets-dropped", FindingSeverity::Broken);
    assert!(
        finding.seen.contains("drops neighbour solicitations that"),
        "{}",
        finding.seen
    );
    assert_eq!(
        line(&finding),
        "ip6tables-legacy -I INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT && ip6tables-legacy -I INPUT -p ipv6-icmp -m icmp6 \
         --icmpv6-type 136 -j ACCEPT"
    );
}
