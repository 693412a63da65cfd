//! Tests of other programs' rules that concern all clients, though they name some.

use super::*;
use tcpgw_kernel::firewall::{Load, Relation, RuleField, RuleVerdict, SetElement, Test};

const fn load(field: RuleField, len: usize) -> Load {
    Load { field, len }
}

fn element(from: &[u8], to: &[u8]) -> SetElement {
    SetElement {
        from: from.to_vec(),
        to: to.to_vec(),
    }
}

fn within(key: &[Load], elements: &[SetElement], negated: bool) -> Test {
    Test::In {
        key: key.to_vec(),
        elements: Some(elements.to_vec()),
        negated,
    }
}

/// Returns the findings about rules that drop packets to backends on these conditions.
fn said(tests: Vec<Test>) -> Vec<Finding> {
    let to_backends = within(&[PORT], &[element(&[0x0b, 0xb8], &[0x0b, 0xb8])], false);
    let rule = |test| Rule {
        tests: vec![to_backends.clone(), test],
        verdict: RuleVerdict::Drop,
        ..Rule::default()
    };
    let rules = tests.into_iter().map(rule).collect();
    let table = table(TableFamily::Ip, "mine", false);
    with(nft(chain(table, FirewallHook::Forward, 0, rules, false)))
}

const SOURCE: Load = load(RuleField::Source4, 4);
const PORT: Load = load(RuleField::DestPort, 2);
/// Port 3000, padded as in a set of several fields.
const THREE_THOUSAND: [u8; 4] = [0x0b, 0xb8, 0, 0];

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn sets_that_have_all_clients_drop_all() {
    let ports =
        |from: [u8; 4], to: [u8; 4]| element(&joined(&[&from, &THREE_THOUSAND]), &joined(&[&to, &THREE_THOUSAND]));
    let all = ports([0; 4], [255; 4]);
    let halves = [ports([0; 4], [127, 255, 255, 255]), ports([128, 0, 0, 0], [255; 4])];
    let mut name = b"ext".to_vec();
    name.resize(16, 0);
    let by_link = element(&joined(&[&name, &[0; 4]]), &joined(&[&name, &[255; 4]]));
    for test in [
        within(&[SOURCE, PORT], &[all], false),
        within(&[SOURCE, PORT], &halves, false),
        within(&[load(RuleField::InName, 16), SOURCE], &[by_link], false),
        within(&[SOURCE], &[element(&[1, 0, 0, 0], &[223, 255, 255, 255])], false),
        // The list of admitted clients is empty.
        within(&[SOURCE], &[], true),
        Test::Compare {
            load: SOURCE,
            mask: Some(vec![0; 4]),
            relation: Relation::Equal,
            value: vec![0; 4],
        },
        Test::Compare {
            load: SOURCE,
            mask: None,
            relation: Relation::Differs,
            value: vec![0; 4],
        },
    ] {
        only(&said(vec![test]), "packets-dropped", FindingSeverity::Broken);
    }
    only(
        &said(vec![within(
            &[load(RuleField::SourcePort, 2)],
            &[element(&[4, 0], &[255; 2])],
            false,
        )]),
        "packets-dropped",
        FindingSeverity::Warning,
    );
    for test in [
        within(&[SOURCE, PORT], &halves[..1], false),
        within(&[SOURCE], &[element(&[0; 4], &[127, 255, 255, 255])], true),
        within(&[SOURCE], &[], false),
    ] {
        let found = said(vec![test]);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn rules_that_spare_a_few_clients_are_told() {
    let one = element(&[203, 0, 113, 1], &[203, 0, 113, 1]);
    let private = element(&[10, 0, 0, 0], &[10, 255, 255, 255]);
    let differs = |mask, value: [u8; 4]| Test::Compare {
        load: SOURCE,
        mask,
        relation: Relation::Differs,
        value: value.to_vec(),
    };
    for test in [
        within(&[SOURCE], std::slice::from_ref(&one), true),
        within(&[SOURCE], &[one, private], true),
        differs(None, [203, 0, 113, 1]),
        differs(Some(vec![255, 255, 255, 0]), [203, 0, 113, 0]),
    ] {
        let found = said(vec![test]);
        let found = only(&found, "packets-dropped", FindingSeverity::Warning);
        assert!(found.seen.contains("lets only a few"), "{}", found.seen);
    }
    // Half of all clients are admitted, or a few are dropped.
    for test in [
        differs(Some(vec![0x80, 0, 0, 0]), [0; 4]),
        within(&[SOURCE], &[element(&[203, 0, 113, 1], &[203, 0, 113, 1])], false),
    ] {
        let found = said(vec![test]);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn a_map_that_drops_all_clients_is_told() {
    let map = |elements: &[(u8, u8, RuleVerdict)]| {
        let elements = elements.iter().map(|(from, to, verdict)| {
            let of = element(&[*from, 0, 0, 0], &[*to, 255, 255, 255]);
            (of, verdict.clone())
        });
        let rule = Rule {
            // The source address of answers is that of the backend.
            tests: vec![within(&[PORT], &[element(&[0x0b, 0xb8], &[0x0b, 0xb8])], false)],
            verdict: RuleVerdict::Map(vec![SOURCE], Some(elements.collect())),
            ..Rule::default()
        };
        let table = table(TableFamily::Ip, "mine", false);
        with(nft(chain(table, FirewallHook::Forward, 0, vec![rule], false)))
    };
    let halves = map(&[(0, 127, RuleVerdict::Drop), (128, 255, RuleVerdict::Drop)]);
    let found = only(&halves, "packets-dropped", FindingSeverity::Broken);
    assert!(found.seen.contains("packets to"), "{}", found.seen);
    for elements in [
        [(0, 127, RuleVerdict::Accept), (128, 255, RuleVerdict::Drop)],
        [(0, 127, RuleVerdict::Accept), (128, 255, RuleVerdict::Accept)],
        [(0, 9, RuleVerdict::Drop), (10, 19, RuleVerdict::Drop)],
    ] {
        let found = map(&elements);
        assert!(found.is_empty(), "{elements:?}: {found:#?}");
    }
}

#[test]
fn rules_that_together_drop_all_clients_are_told() {
    let network = |first: u8, bits: u8| Test::Compare {
        load: SOURCE,
        mask: Some(vec![bits, 0, 0, 0]),
        relation: Relation::Equal,
        value: vec![first, 0, 0, 0],
    };
    let halves = || vec![network(0, 0x80), network(0x80, 0x80)];
    let found = only(&said(halves()), "packets-dropped", FindingSeverity::Broken);
    assert!(found.seen.contains("by its rule 2"), "{}", found.seen);
    assert!(said(halves()[..1].to_vec()).is_empty());
    assert!(said(vec![network(0, 0x80), network(0xc0, 0xc0)]).is_empty());
}

#[test]
fn matches_that_count_are_errors_or_warnings() {
    for (option, severity) in [
        ("-m recent --set --name x --rsource", Some(FindingSeverity::Broken)),
        (
            "-m statistic --mode random --probability 1.00000000000",
            Some(FindingSeverity::Broken),
        ),
        (
            "-m connlimit --connlimit-above 0 --connlimit-mask 32 --connlimit-saddr",
            Some(FindingSeverity::Broken),
        ),
        (
            "-m statistic --mode random --probability 0.50000000000",
            Some(FindingSeverity::Warning),
        ),
        (
            "-m time --timestart 00:00:00 --timestop 23:59:00",
            Some(FindingSeverity::Warning),
        ),
        ("-m quota --quota 1000000", Some(FindingSeverity::Warning)),
        ("-m limit --limit 100/sec", Some(FindingSeverity::Warning)),
        (
            "-m connlimit --connlimit-above 9 --connlimit-mask 32 --connlimit-saddr",
            None,
        ),
        ("-m recent --update --seconds 60 --hitcount 5 --name x --rsource", None),
        ("-m statistic --mode random --probability 0.00000000000", None),
    ] {
        let found = with(saved(
            "ACCEPT",
            &format!("-A FORWARD -p tcp -m tcp --dport 3000 {option} -j DROP"),
        ));
        match severity {
            Some(severity) => drop(only(&found, "packets-dropped", severity)),
            None => assert!(found.is_empty(), "{option}: {found:#?}"),
        }
    }
}
