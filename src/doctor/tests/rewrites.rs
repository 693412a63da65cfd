//! Findings about rules that change packets without conntrack.

use super::*;
use tcpgw_kernel::firewall::{Device, HeaderField, HeaderWrite, RuleField, Test};

fn to_port(port: u16) -> Test {
    is(RuleField::DestPort, &port.to_be_bytes())
}

fn from_port(port: u16) -> Test {
    is(RuleField::SourcePort, &port.to_be_bytes())
}

fn writing(hook: FirewallHook, priority: i32, tests: Vec<Test>, write: HeaderWrite) -> FirewallChain {
    let rule = Rule {
        tests,
        effects: vec![RuleEffect::Rewrite(write)],
        ..Rule::default()
    };
    let mut chain = chain(table(TableFamily::Ip, "mine", false), hook, priority, vec![rule], false);
    if hook.is_of_interfaces() {
        chain.table.family = TableFamily::Netdev;
        chain.devices = ["ext", "br0"]
            .map(|name| Device {
                name: name.into(),
                is_prefix: false,
            })
            .into();
    }
    chain
}

fn found(chain: FirewallChain) -> Vec<Finding> {
    with(nft(chain))
}

const fn port(field: HeaderField, value: u128) -> HeaderWrite {
    HeaderWrite::new(field, 0, value)
}

#[test]
fn a_port_or_address_that_is_changed_before_conntrack_is_an_error() {
    let (raw, prerouting) = (-310, FirewallHook::Prerouting);
    let finding = only(
        &found(writing(
            prerouting,
            raw,
            vec![to_port(20003)],
            port(HeaderField::DestPort, 8999),
        )),
        "packets-dropped",
        FindingSeverity::Broken,
    );
    assert_eq!(
        finding.seen,
        "rule 1 of chain c of table ip mine gives packets to services the destination port 8999"
    );
    for write in [
        port(HeaderField::DestAddress, 0x0a02_0063),
        port(HeaderField::SourceAddress, 0xc000_0209),
        HeaderWrite::unknown(HeaderField::SourcePort),
        HeaderWrite::new(HeaderField::DestAddress, 0xff, 0x0a02_0000),
        port(HeaderField::Protocol, 17),
        port(HeaderField::TcpFlags, 4),
        port(HeaderField::Version, 0x65),
        port(HeaderField::Window, 0),
    ] {
        let finding = found(writing(prerouting, raw, vec![to_port(20003)], write));
        only(&finding, "packets-dropped", FindingSeverity::Broken);
    }
    let conditional = vec![to_port(20003), Test::Unknown("a time".into())];
    let finding = only(
        &found(writing(prerouting, raw, conditional, port(HeaderField::DestPort, 8999))),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    assert!(
        finding.seen.contains("may give packets to services"),
        "{}",
        finding.seen
    );
}

#[test]
fn what_changes_nothing_that_matters_is_well() {
    let prerouting = FirewallHook::Prerouting;
    for (tests, write) in [
        (vec![to_port(81)], port(HeaderField::DestPort, 82)),
        (vec![to_port(20003)], port(HeaderField::DestPort, 20003)),
        (vec![], port(HeaderField::Fragment, 0x4000)),
        (vec![], port(HeaderField::Protocol, 6)),
        (vec![], HeaderWrite::new(HeaderField::TcpFlags, 0x3f, 0)),
        (vec![], HeaderWrite::new(HeaderField::Version, 0xff, 0)),
        (vec![], port(HeaderField::Window, 1000)),
        (vec![], port(HeaderField::LinkDest, 0)),
        (vec![], port(HeaderField::PacketType, 0)),
        // Some clients: intended.
        (
            vec![is(RuleField::Source4, &[198, 51, 100, 7]), to_port(20003)],
            port(HeaderField::DestPort, 8999),
        ),
        (
            vec![is(RuleField::Dest4, &[192, 0, 2, 1])],
            port(HeaderField::DestAddress, 0xcb00_7101),
        ),
    ] {
        let found = found(writing(prerouting, -310, tests.clone(), write));
        assert_eq!(found, [], "{tests:?} {write:?}");
    }
}

#[test]
fn conntrack_writes_its_own_translation_over_a_change() {
    use FirewallHook::{Egress, Forward, Ingress, Postrouting, Prerouting};
    let source = |value| port(HeaderField::SourcePort, value);
    let dest = |value| port(HeaderField::DestPort, value);
    for (hook, priority, tests, write, breaks) in [
        (Ingress, 0, vec![from_port(3000)], source(1), true),
        (Prerouting, -310, vec![from_port(3000)], source(1), true),
        (Prerouting, -150, vec![from_port(3000)], source(1), false),
        (Forward, 0, vec![from_port(3000)], source(1), false),
        (Forward, 0, vec![to_port(3000)], dest(1), true),
        (Forward, 0, vec![to_port(3000)], source(1), false),
        (Postrouting, 0, vec![from_port(3000)], source(1), false),
        (Postrouting, 300, vec![from_port(20003)], source(1), true),
        (Egress, 0, vec![to_port(3000)], source(1), true),
        (Prerouting, -150, vec![to_port(20003)], source(1), false),
        (Prerouting, -150, vec![to_port(20003)], dest(1), true),
    ] {
        let found = found(writing(hook, priority, tests.clone(), write));
        let is_told = found.iter().any(|of| of.severity == FindingSeverity::Broken);
        assert_eq!(is_told, breaks, "{hook:?} {priority} {tests:?} {write:?}: {found:#?}");
        assert!(breaks || found.is_empty(), "{found:#?}");
    }
    // Backends that see the clients' addresses answer to what they see.
    let preserved = with(|facts| {
        let state = STATE.replace(r#""limit""#, r#""source":"preserve","limit""#);
        facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
        nft(writing(Forward, 0, vec![to_port(3000)], source(1)))(facts);
    });
    assert!(
        preserved.iter().any(|of| of.severity == FindingSeverity::Broken),
        "{preserved:#?}"
    );
}

#[test]
fn a_change_that_another_rule_may_undo_is_a_warning() {
    let chains = |facts: &mut Facts| {
        let there = port(HeaderField::SourcePort, 443);
        let back = port(HeaderField::DestPort, 20003);
        nft(writing(FirewallHook::Postrouting, 300, vec![from_port(20003)], there))(facts);
        nft(writing(FirewallHook::Prerouting, -310, vec![to_port(443)], back))(facts);
    };
    only(&with(chains), "packets-dropped", FindingSeverity::Warning);
}
