//! Tests of other programs' rules for clients that were served.

use super::*;
use tcpgw_kernel::firewall::{Load, Relation, RuleField, RuleVerdict, SetElement, Test};

const SOURCE: Load = Load {
    field: RuleField::Source4,
    len: 4,
};
const SOURCE_PORT: Load = Load {
    field: RuleField::SourcePort,
    len: 2,
};

/// Returns clients of 198.51.100.0/24 with the service `web`.
fn clients(last: std::ops::RangeInclusive<u8>, port: u16) -> Vec<ServedClient> {
    let client = |last| ServedClient {
        client: ([198, 51, 100, last], port).into(),
        public: (ip("203.0.113.1"), 20003).into(),
        backend: (ip("10.2.0.11"), 3000).into(),
        link: Some(2),
        is_recent: true,
        is_banned: false,
    };
    last.map(client).collect()
}

fn within(load: Load, from: &[u8], to: &[u8]) -> Test {
    Test::In {
        key: vec![load],
        elements: Some(vec![SetElement {
            from: from.to_vec(),
            to: to.to_vec(),
        }]),
        negated: false,
    }
}

fn those_up_to(last: u8) -> Test {
    within(SOURCE, &[198, 51, 100, 2], &[198, 51, 100, last])
}

fn hooked(hook: FirewallHook, priority: i32, test: Test) -> FirewallChain {
    let rule = Rule {
        tests: vec![test],
        verdict: RuleVerdict::Drop,
        ..Rule::default()
    };
    chain(table(TableFamily::Ip, "mine", false), hook, priority, vec![rule], false)
}

/// Returns the findings for these clients with a chain.
fn found(served: Vec<ServedClient>, chain: FirewallChain) -> Vec<Finding> {
    with(|facts| {
        facts.cheap.served = served;
        nft(chain)(facts);
    })
}

fn forward(served: Vec<ServedClient>, test: Test) -> Vec<Finding> {
    found(served, hooked(FirewallHook::Forward, 0, test))
}

#[test]
fn a_rule_that_drops_all_who_were_served_is_an_error() {
    let finding = only(
        &forward(clients(2..=7, 40_000), those_up_to(7)),
        "packets-dropped",
        FindingSeverity::Broken,
    );
    assert_eq!(
        finding.seen,
        "chain c of table ip mine drops packets of 6 of 6 clients that were served a moment ago (198.51.100.2, 198.51.100.3, \
         198.51.100.4, 198.51.100.5, 198.51.100.6 and 1 more): by its rule 1"
    );
    let network = Test::Compare {
        load: Load {
            field: RuleField::Source4,
            len: 3,
        },
        mask: None,
        relation: Relation::Equal,
        value: vec![198, 51, 100],
    };
    let hooks = [
        (FirewallHook::Prerouting, -300),
        (FirewallHook::Forward, 0),
        (FirewallHook::Postrouting, 0),
    ];
    for (hook, priority) in hooks {
        only(
            &found(clients(2..=7, 40_000), hooked(hook, priority, network.clone())),
            "packets-dropped",
            FindingSeverity::Broken,
        );
    }
    // The source address is one of the gateway's own there.
    assert_eq!(
        found(clients(2..=7, 40_000), hooked(FirewallHook::Postrouting, 200, network)),
        []
    );
    let saved = with(|facts| {
        facts.cheap.served = clients(2..=7, 40_000);
        saved("ACCEPT", "-A FORWARD -s 198.51.100.0/24 -j DROP")(facts);
    });
    only(&saved, "packets-dropped", FindingSeverity::Broken);
}

#[test]
fn a_rule_that_drops_some_who_were_served_is_a_warning_and_one_is_a_ban() {
    let finding = only(
        &forward(clients(2..=7, 40_000), those_up_to(4)),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    assert!(finding.seen.contains("3 of 6 clients"), "{}", finding.seen);
    assert_eq!(forward(clients(2..=7, 40_000), those_up_to(2)), []);
    assert_eq!(forward(clients(2..=2, 40_000), those_up_to(7)), []);
    only(
        &forward(clients(2..=3, 40_000), those_up_to(7)),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    // Rules about others.
    assert_eq!(forward(clients(8..=15, 40_000), those_up_to(7)), []);
    // Two chains that drop a half each.
    let halves = with(|facts| {
        facts.cheap.served = clients(2..=7, 40_000);
        nft(hooked(FirewallHook::Forward, 0, those_up_to(4)))(facts);
        let rest = within(SOURCE, &[198, 51, 100, 5], &[198, 51, 100, 7]);
        let mut other = hooked(FirewallHook::Prerouting, -300, rest);
        other.table.name = "other".into();
        nft(other)(facts);
    });
    assert_eq!(halves.len(), 2, "{halves:#?}");
    assert!(halves.iter().all(|finding| finding.severity == FindingSeverity::Broken));
}

/// Returns clients beside the backends, which come in and are answered by `br0`.
fn inner(last: std::ops::RangeInclusive<u8>) -> Vec<ServedClient> {
    let mut clients = clients(last, 40_000);
    for (client, last) in clients.iter_mut().zip(150..) {
        client.client.set_ip([10, 2, 0, last].into());
        client.link = Some(3);
    }
    clients
}

/// Clients behind the gateway pass other interfaces than remote ones, so that a rule may drop all of them and no other.
#[test]
fn a_rule_that_drops_all_clients_behind_the_gateway_is_an_error_if_nobody_else_was_served() {
    let named = |field, name: &str| Test::Compare {
        load: Load { field, len: 16 },
        mask: None,
        relation: Relation::Equal,
        value: {
            let mut name = name.as_bytes().to_vec();
            name.resize(16, 0);
            name
        },
    };
    let between = |hook, priority| {
        let mut chain = hooked(hook, priority, named(RuleField::InName, "br0"));
        if hook == FirewallHook::Forward {
            chain.rules[0].tests.push(named(RuleField::OutName, "br0"));
        } else {
            let port = 20003_u16.to_be_bytes();
            let load = Load {
                field: RuleField::DestPort,
                len: 2,
            };
            chain.rules[0].tests.push(within(load, &port, &port));
        }
        chain
    };
    let addresses = || {
        let test = within(SOURCE, &[10, 2, 0, 150], &[10, 2, 0, 160]);
        hooked(FirewallHook::Forward, 0, test)
    };
    let chains = || {
        [
            between(FirewallHook::Forward, 0),
            between(FirewallHook::Prerouting, -300),
            addresses(),
        ]
    };
    for chain in chains() {
        // A gateway may have no such clients on purpose.
        assert_eq!(found(clients(2..=7, 40_000), chain.clone()), []);
        assert_eq!(found(Vec::new(), chain.clone()), []);
        let finding = only(
            &found(inner(2..=5), chain.clone()),
            "packets-dropped",
            FindingSeverity::Broken,
        );
        assert!(finding.seen.contains("4 of 4 clients"), "{}", finding.seen);
        assert_eq!(found(inner(2..=2), chain.clone()), [], "a ban of one");
        let both = [clients(2..=7, 40_000), inner(2..=5)].concat();
        let finding = only(&found(both, chain), "packets-dropped", FindingSeverity::Warning);
        assert!(finding.seen.contains("4 of 10 clients"), "{}", finding.seen);
    }
}

fn clients6(port: u16) -> Vec<ServedClient> {
    let mut clients = clients(2..=7, 40_000);
    for (client, last) in clients.iter_mut().zip(2_u16..) {
        client
            .client
            .set_ip(std::net::Ipv6Addr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, last]).into());
        client.public = (ip("2001:db8:1::1"), port).into();
        client.backend = (ip("fd00:2::11"), 3000).into();
    }
    clients
}

/// Clients of the other family, or of other services, come by other addresses and ports.
#[test]
fn a_rule_that_drops_all_of_a_family_or_a_service_is_an_error_whoever_else_is_served() {
    for family in [TableFamily::Inet, TableFamily::Ip] {
        let mut chain = hooked(FirewallHook::Forward, 0, those_up_to(7));
        chain.table.family = family;
        let both = [clients(2..=7, 40_000), clients6(20003)].concat();
        let told = only(&found(both, chain), "packets-dropped", FindingSeverity::Broken);
        let what = if family == TableFamily::Inet {
            "6 of 6 IPv4 clients"
        } else {
            "6 of 6 clients"
        };
        assert!(told.seen.contains(what), "{}", told.seen);
    }
    // The same clients and others, of another service.
    let mut others = clients(8..=15, 40_000);
    others.extend(clients(2..=7, 40_000));
    for client in &mut others {
        client.public.set_port(20004);
    }
    let of_service = |test: Test| {
        let port = 20003_u16.to_be_bytes();
        let load = Load {
            field: RuleField::DestPort,
            len: 2,
        };
        let mut chain = hooked(FirewallHook::Prerouting, -300, test);
        chain.rules[0].tests.push(within(load, &port, &port));
        let served = [clients(2..=7, 40_000), others.clone()].concat();
        with(|facts| {
            facts.cheap.served = served.clone();
            nft(chain)(facts);
        })
    };
    let told = only(&of_service(those_up_to(7)), "packets-dropped", FindingSeverity::Broken);
    assert!(told.seen.contains("6 of 6 clients of "), "{}", told.seen);
    let told = only(&of_service(those_up_to(4)), "packets-dropped", FindingSeverity::Warning);
    assert!(told.seen.contains("3 of 14 clients that"), "{}", told.seen);
    assert_eq!(of_service(those_up_to(2)), [], "a ban of one");
}

#[test]
fn who_is_lost_while_others_are_served_is_banned() {
    let with_state = |is_recent, is_banned| {
        let mut served = clients(2..=7, 40_000);
        for client in &mut served {
            (client.is_recent, client.is_banned) = (is_recent, is_banned);
        }
        let found = forward(served, those_up_to(7));
        found.first().map(|finding| finding.severity)
    };
    assert_eq!(with_state(true, false), Some(FindingSeverity::Broken));
    assert_eq!(with_state(false, false), Some(FindingSeverity::Broken));
    assert_eq!(with_state(true, true), Some(FindingSeverity::Warning));
    assert_eq!(with_state(false, true), None);
}

#[test]
fn ports_are_those_that_clients_use_next() {
    let linux = || within(SOURCE_PORT, &32768_u16.to_be_bytes(), &60999_u16.to_be_bytes());
    let severities = |port, test: Test| {
        // Answers have the port of the backend.
        let to_backend = within(
            Load {
                field: RuleField::DestPort,
                len: 2,
            },
            &3000_u16.to_be_bytes(),
            &3000_u16.to_be_bytes(),
        );
        let mut chain = hooked(FirewallHook::Forward, 0, test);
        chain.rules[0].tests.push(to_backend);
        let found = found(clients(2..=7, port), chain);
        found.into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
    };
    assert_eq!(
        severities(40_000, linux()),
        [FindingSeverity::Broken, FindingSeverity::Warning]
    );
    // Others may use them.
    assert_eq!(severities(61_000, linux()), [FindingSeverity::Warning]);
    let high = || within(SOURCE_PORT, &1024_u16.to_be_bytes(), &u16::MAX.to_be_bytes());
    assert_eq!(
        severities(40_000, high()),
        [FindingSeverity::Broken, FindingSeverity::Warning]
    );
    let few = within(SOURCE_PORT, &40_000_u16.to_be_bytes(), &50_000_u16.to_be_bytes());
    assert_eq!(severities(40_000, few), []);
}
