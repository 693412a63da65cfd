//! Tests of the known properties of packets: flags, marks, interfaces, and the addresses of answers.

use super::*;
use tcpgw_kernel::firewall::{Load, Relation, RuleField, RuleVerdict, Test};

#[test]
fn the_flags_of_a_handshake_are_known() {
    const SYN: &str = "--tcp-flags FIN,SYN,RST,ACK SYN";
    let drops = |flags: &str| saved("ACCEPT", &format!("-A FORWARD -p tcp -m tcp {flags} -j DROP"));
    for (flags, whose) in [
        (SYN.to_owned(), "drops packets to"),
        (format!("--dport 3000 {SYN}"), "drops packets to"),
        ("--tcp-flags SYN,ACK SYN,ACK".into(), "drops answers from"),
        (
            "--dport 3000 --tcp-flags SYN,ACK ACK".into(),
            "drops later packets of connections to",
        ),
        ("--sport 3000 ! --tcp-flags SYN SYN".into(), "drops later answers from"),
    ] {
        let found = only(&with(drops(&flags)), "packets-dropped", FindingSeverity::Broken);
        assert!(found.seen.contains(whose), "{flags}: {}", found.seen);
    }
    for flags in [
        format!("! {SYN} -m conntrack --ctstate NEW"),
        "--tcp-flags ALL NONE".into(),
        "--tcp-flags SYN,FIN SYN,FIN".into(),
        "--tcp-flags RST RST".into(),
    ] {
        let found = with(drops(&flags));
        assert!(found.is_empty(), "{flags}: {found:#?}");
    }
}

#[test]
fn packets_that_nobody_marks_have_no_mark() {
    const MARKS: &str = "-A OTHER -s 192.0.2.1 -j MARK --set-xmark 0x77/0xffffffff\n";
    const ANSWERS: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n";
    const RESTORES: &str = "-A OTHER -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff\n";
    let drops = |test: &str, more: &str| saved("ACCEPT", &format!("{ANSWERS}{more}-A FORWARD -m mark {test} -j DROP"));
    for test in ["--mark 0x0", "! --mark 0x77", "--mark 0x0/0xff"] {
        only(&with(drops(test, "")), "packets-dropped", FindingSeverity::Broken);
        only(&with(drops(test, MARKS)), "packets-dropped", FindingSeverity::Warning);
        only(
            &with(drops(test, RESTORES)),
            "packets-dropped",
            FindingSeverity::Warning,
        );
    }
    for test in ["--mark 0x77", "! --mark 0x0"] {
        assert!(with(drops(test, "")).is_empty(), "{test}");
        assert!(with(drops(test, MARKS)).is_empty(), "{test}");
    }
    let classified = |facts: &mut Facts| {
        drops("--mark 0x0", "")(facts);
        facts.cheap.links.as_mut().unwrap()[0].classifies = true;
    };
    only(&with(classified), "packets-dropped", FindingSeverity::Warning);
}

/// Returns whether the findings are that packets of some kinds may be dropped.
fn may_drop(found: &[Finding]) -> bool {
    let is_such = |of: &Finding| of.id == "packets-dropped" && of.severity == FindingSeverity::Warning;
    !found.is_empty() && found.iter().all(is_such)
}

/// Rules for packets that practically no client sends are no finding; those for packets that all send are errors.
#[test]
fn rules_about_headers_are_judged_by_what_packets_have() {
    let of = |field, len, mask: Option<&[u8]>, relation, value: &[u8]| Test::Compare {
        load: Load { field, len },
        mask: mask.map(<[u8]>::to_vec),
        relation,
        value: value.to_vec(),
    };
    let found = |family, hook, priority, test: &Test| {
        let rule = Rule {
            tests: vec![test.clone()],
            verdict: RuleVerdict::Drop,
            ..Rule::default()
        };
        let table = table(family, "mine", false);
        with(nft(chain(table, hook, priority, vec![rule], false)))
    };
    let fragment = of(RuleField::Fragment, 2, Some(&[0x1f, 0xff]), Relation::Differs, &[0, 0]);
    let one = 1_u32.to_ne_bytes();
    let broadcast = 3_u32.to_ne_bytes();
    let harmless = [
        is(RuleField::PacketType, &[1]),
        of(RuleField::IpVersion, 1, Some(&[0xf0]), Relation::Differs, &[0x40]),
        is(RuleField::HopLimit, &[0]),
        of(RuleField::HopLimit, 1, None, Relation::Less, &[2]),
        of(RuleField::DataOffset, 1, Some(&[0xf0]), Relation::Less, &[0x50]),
        of(
            RuleField::OrderedLength,
            4,
            None,
            Relation::More,
            &65535_u32.to_be_bytes(),
        ),
        is(RuleField::DestType, &broadcast),
        fragment.clone(),
        is(RuleField::IpOption, &[131]),
        is(RuleField::HasIpOption, &[1]),
        is(RuleField::HasExtensionHeader, &[1]),
        of(RuleField::SegmentSize, 2, None, Relation::Less, &501_u16.to_be_bytes()),
        is(RuleField::Generated { first: 0, count: 2 }, &5_u32.to_ne_bytes()),
    ];
    for hook in [
        FirewallHook::Prerouting,
        FirewallHook::Forward,
        FirewallHook::Postrouting,
    ] {
        for test in &harmless {
            let found = found(TableFamily::Ip, hook, 0, test);
            assert!(found.is_empty(), "{hook:?} {test:?}: {found:#?}");
        }
        let found = found(TableFamily::Ip, hook, 0, &is(RuleField::SocketOwner, &one));
        assert!(found.is_empty(), "{hook:?}: {found:#?}");
    }
    // Before conntrack puts fragments together, too.
    assert!(found(TableFamily::Ip, FirewallHook::Prerouting, -500, &fragment).is_empty());
    for test in [
        of(RuleField::IpVersion, 1, Some(&[0xf0]), Relation::Equal, &[0x40]),
        of(RuleField::IpVersion, 1, Some(&[0x0f]), Relation::Equal, &[0x05]),
        is(RuleField::Fragment, &[0x40, 0]),
        is(RuleField::Generated { first: 0, count: 1 }, &[0; 4]),
        is(RuleField::PacketType, &[0]),
        of(RuleField::DataOffset, 1, Some(&[0xf0]), Relation::AtLeast, &[0x50]),
        of(RuleField::HopLimit, 1, None, Relation::More, &[1]),
        is(RuleField::HasIpOption, &[0]),
        is(RuleField::HasSegmentSize, &[1]),
    ] {
        let found = found(TableFamily::Ip, FirewallHook::Forward, 0, &test);
        only(&found, "packets-dropped", FindingSeverity::Broken);
    }
    for test in [
        of(RuleField::HopLimit, 1, None, Relation::Less, &[64]),
        of(
            RuleField::OrderedLength,
            4,
            None,
            Relation::More,
            &1400_u32.to_be_bytes(),
        ),
        of(RuleField::SegmentSize, 2, None, Relation::Less, &1000_u16.to_be_bytes()),
        is(RuleField::Generated { first: 0, count: 2 }, &[0; 4]),
    ] {
        let found = found(TableFamily::Ip, FirewallHook::Forward, 0, &test);
        assert!(may_drop(&found), "{test:?}: {found:#?}");
    }
}

#[test]
fn options_of_iptables_about_headers_are_judged() {
    let drops = |options: &str| with(saved("ACCEPT", &format!("-A FORWARD {options} -j DROP")));
    for options in [
        "-m pkttype --pkt-type broadcast",
        "-m addrtype --dst-type BROADCAST,MULTICAST",
        "-f",
        "-m ttl --ttl-lt 2",
        "-p tcp -m tcpmss --mss 1:500",
    ] {
        let found = drops(options);
        assert!(found.is_empty(), "{options}: {found:#?}");
    }
    for options in ["-m pkttype --pkt-type unicast", "! -f", "-m ttl --ttl-gt 1"] {
        only(&drops(options), "packets-dropped", FindingSeverity::Broken);
    }
    assert!(may_drop(&drops("-m ttl --ttl-lt 64")));
}

#[test]
fn without_a_default_route_clients_are_near() {
    let near = |facts: &mut Facts| {
        for way in facts.cheap.client_routes.as_mut().unwrap().values_mut() {
            *way = None;
        }
    };
    let docker = "-A FORWARD -i docker0 -j ACCEPT\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT";
    let found = with(|facts| {
        near(facts);
        saved("DROP", docker)(facts);
    });
    only(&found, "packets-dropped", FindingSeverity::Broken);
    let found = with(|facts| {
        near(facts);
        facts.cheap.protect_backends = false;
    });
    only(&found, "backends-exposed", FindingSeverity::Warning);
    // One of two networks of clients is admitted.
    let found = with(|facts| {
        near(facts);
        let links = facts.cheap.links.as_mut().unwrap();
        links.push(link(7, "lan", "198.51.100.1"));
        saved("DROP", &format!("{docker}\n-A FORWARD -i lan -j ACCEPT"))(facts);
    });
    only(&found, "packets-dropped", FindingSeverity::Warning);
}

/// After the translation of sources, answers have the public address and port.
#[test]
fn answers_on_their_last_way_are_judged() {
    let drops = |port: u16, priority: i32| {
        let rule = Rule {
            tests: vec![Test::Compare {
                load: Load {
                    field: RuleField::SourcePort,
                    len: 2,
                },
                mask: None,
                relation: Relation::Equal,
                value: port.to_be_bytes().to_vec(),
            }],
            verdict: RuleVerdict::Drop,
            ..Rule::default()
        };
        let table = table(TableFamily::Ip, "mine", false);
        nft(chain(table, FirewallHook::Postrouting, priority, vec![rule], false))
    };
    for (port, priority) in [(20003, 200), (3000, 0), (3000, 100)] {
        let found = only(&with(drops(port, priority)), "packets-dropped", FindingSeverity::Broken);
        assert!(found.seen.contains("drops answers from"), "{}", found.seen);
    }
    for (port, priority) in [(3000, 200), (20003, 0)] {
        assert!(with(drops(port, priority)).is_empty(), "{port} {priority}");
    }
}

/// Tests an app of `tcpgw up` beside other programs' rules: its packets to and from the outside are judged apart from
/// services.
#[test]
fn packets_of_apps_are_judged() {
    const SERVICES: &str = "-A FORWARD -m connmark --mark 0x00800000/0x00800000 -j ACCEPT\n";
    let with_app = |policy: &'static str, rules: &'static str| {
        with(|facts| {
            let links = facts.cheap.links.as_mut().unwrap();
            links.push(link(8, "tcpup0123abcd", "10.213.7.1"));
            links.push(LinkDetails {
                addresses: Vec::new(),
                ..link(9, "tu0123abcd-0", "10.213.7.1")
            });
            saved(policy, &format!("{SERVICES}{rules}"))(facts);
        })
    };
    for passing in [
        "-A FORWARD -i tu0123abcd-+ -j ACCEPT\n-A FORWARD -o tu0123abcd-+ -j ACCEPT",
        "-A FORWARD -s 10.213.0.0/16 -j ACCEPT\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    ] {
        assert!(with_app("DROP", passing).is_empty(), "{passing}");
    }
    assert!(with_app("ACCEPT", "-A FORWARD -p tcp --dport 25 -j DROP").is_empty());
    // The network may be the source of some answers.
    let found = with_app("DROP", "-A FORWARD -s 10.213.0.0/16 -j ACCEPT");
    assert!(
        only(&found, "packets-dropped", FindingSeverity::Warning)
            .seen
            .contains("may drop what")
    );
    for dropping in [
        "",
        "-A FORWARD -i tu0123abcd-+ -j ACCEPT",
        "-A FORWARD -o tu0123abcd-+ -j ACCEPT",
        "-A FORWARD -i tu9999abcd-+ -j ACCEPT\n-A FORWARD -o tu9999abcd-+ -j ACCEPT",
    ] {
        let found = with_app("DROP", dropping);
        let found = only(&found, "packets-dropped", FindingSeverity::Warning);
        assert_eq!(
            line(&found),
            "iptables-legacy -I FORWARD -i tu0123abcd-+ -j ACCEPT && iptables-legacy -I FORWARD -o tu0123abcd-+ -j ACCEPT"
        );
        assert!(found.seen.contains("drops what processes"), "{}", found.seen);
    }
    // Services are not reached either, which is a finding of its own.
    let found = with(|facts| {
        let links = facts.cheap.links.as_mut().unwrap();
        links.push(link(8, "tcpup0123abcd", "10.213.7.1"));
        links.push(link(9, "tu0123abcd-0", "10.213.7.1"));
        saved("DROP", "")(facts);
    });
    let severities: Vec<FindingSeverity> = found.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [FindingSeverity::Broken, FindingSeverity::Warning]);
}

#[test]
fn marks_with_which_routing_refuses_are_told() {
    let marks = |rule: &str, reply: bool| {
        let text = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n");
        with(move |facts| {
            facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)));
            facts.cheap.refused_marks = Ok([(Family::V4, reply, 5)].into());
        })
    };
    let found = marks("-i ext -p tcp -j MARK --set-xmark 0x5/0xffffffff", false);
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert!(
        found.seen.contains("packets to services the mark 0x5"),
        "{}",
        found.seen
    );
    let found = marks("-i br0 -j MARK --set-xmark 0x5/0xff", true);
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert!(found.seen.contains("answers of backends"), "{}", found.seen);
    let found = marks("-s 192.0.2.7/32 -j MARK --set-xmark 0x5/0xffffffff", false);
    only(&found, "packets-dropped", FindingSeverity::Warning);
    for other in [
        "-i ext -j MARK --set-xmark 0x6/0xffffffff",
        "-i br0 -j MARK --set-xmark 0x5/0xffffffff",
        "-i ext -j MARK --set-xmark 0x5/0xffffffff\n-A PREROUTING -j MARK --set-xmark 0x0/0xffffffff",
    ] {
        assert!(marks(other, false).is_empty(), "{other}");
    }
}
