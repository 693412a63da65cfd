use proptest::prelude::*;

use super::*;
use crate::firewall::rewrite::{HeaderField, HeaderWrite};
use crate::netlink::tlv::Writer;

/// An attribute: its kind, what it holds, and bytes for that.
type Odd = (u16, u8, Vec<u8>);

/// Expressions that the kernel could list, with numbers, texts and values where they may be.
fn listed(expressions: &[(usize, Vec<Odd>)]) -> Vec<u8> {
    const NAMES: [&str; 15] = [
        "meta",
        "ct",
        "payload",
        "fib",
        "bitwise",
        "cmp",
        "range",
        "lookup",
        "immediate",
        "match",
        "target",
        "hash",
        "exthdr",
        "byteorder",
        "numgen",
    ];
    let mut writer = Writer::new();
    for (name, attrs) in expressions {
        writer.nest(LIST_ELEM, |writer| {
            writer.str(expr::NAME, NAMES[name % NAMES.len()]);
            writer.nest(expr::DATA, |writer| {
                for (kind, number, bytes) in attrs {
                    match number % 4 {
                        0 => writer.be32(*kind, u32::from(*number / 4)),
                        1 => writer.nest(*kind, |writer| writer.attr(elem::VALUE, bytes)),
                        2 => writer.str(*kind, "conntrack"),
                        _ => writer.attr(*kind, bytes),
                    }
                }
            });
        });
    }
    writer.finish().unwrap_or_default()
}

fn field(from: RuleField, len: usize, value: &[u8]) -> Test {
    xt::compare(from, len, Relation::Equal, value.to_vec())
}

#[test]
fn a_prefix_is_a_shorter_load() {
    let mut writer = Writer::new();
    let mut push = |name: &str, fill: &dyn Fn(&mut Writer)| {
        writer.nest(LIST_ELEM, |writer| {
            writer.str(expr::NAME, name);
            writer.nest(expr::DATA, fill);
        });
    };
    push("payload", &|writer| {
        for (kind, number) in [(1, 1), (2, 1), (3, 16), (4, 3)] {
            writer.be32(kind, number);
        }
    });
    push("cmp", &|writer| {
        writer.be32(1, 1);
        writer.be32(2, 0);
        writer.nest(3, |writer| writer.attr(elem::VALUE, &[10, 2, 0]));
    });
    push("immediate", &|writer| {
        writer.be32(1, 0);
        writer.nest(2, |writer| {
            writer.nest(elem::VERDICT, |writer| writer.be32(elem::VERDICT_CODE, 1));
        });
    });
    let bytes = writer.finish().unwrap();
    let rule = rule(TableFamily::Ip, &bytes, &|_| None).unwrap().rule;
    assert_eq!(rule.tests, [field(RuleField::Dest4, 3, &[10, 2, 0])]);
    assert_eq!(rule.verdict, RuleVerdict::Accept);
}

/// nft loads adjacent fields together: addresses, ports, and a link-layer address with the type of the frame.
#[test]
fn adjacent_fields_are_told_apart() {
    let rule_of = |family: TableFamily, (base, offset, len): (u32, u32, u32), value: &[u8]| {
        let mut writer = Writer::new();
        let mut push = |name: &str, numbers: &[(u16, u32)], value: Option<&[u8]>| {
            writer.nest(LIST_ELEM, |writer| {
                writer.str(expr::NAME, name);
                writer.nest(expr::DATA, |writer| {
                    for (kind, number) in numbers {
                        writer.be32(*kind, *number);
                    }
                    if let Some(value) = value {
                        writer.nest(3, |writer| writer.attr(elem::VALUE, value));
                    }
                });
            });
        };
        push("payload", &[(1, 1), (2, base), (3, offset), (4, len)], None);
        push("cmp", &[(1, 1), (2, 0)], Some(value));
        let bytes = writer.finish().unwrap();
        rule(family, &bytes, &|_| None).unwrap().rule.tests
    };
    assert_eq!(
        rule_of(TableFamily::Ip, (1, 12, 8), &[192, 0, 2, 7, 203, 0, 113, 1]),
        [
            field(RuleField::Source4, 4, &[192, 0, 2, 7]),
            field(RuleField::Dest4, 4, &[203, 0, 113, 1])
        ]
    );
    assert_eq!(
        rule_of(TableFamily::Ip6, (2, 0, 4), &[0x0b, 0xb8, 0, 80]),
        [
            field(RuleField::SourcePort, 2, &[0x0b, 0xb8]),
            field(RuleField::DestPort, 2, &[0, 80])
        ]
    );
    assert_eq!(
        rule_of(TableFamily::Netdev, (0, 6, 8), &[2, 0, 0, 0, 0, 1, 8, 6]),
        [
            field(RuleField::Other, 6, &[2, 0, 0, 0, 0, 1]),
            field(RuleField::FrameType, 2, &[8, 6])
        ]
    );
    // A single field stays one.
    assert_eq!(
        rule_of(TableFamily::Netdev, (0, 6, 6), &[2, 0, 0, 0, 0, 1]),
        [field(RuleField::Other, 6, &[2, 0, 0, 0, 0, 1])]
    );
}

/// `ether type arp`, `arp saddr ip` and a write to the payload, in a table of interfaces.
#[test]
fn arp_and_writes_are_understood_in_chains_of_interfaces() {
    let mut writer = Writer::new();
    let mut push = |name: &str, numbers: &[(u16, u32)], value: Option<(u16, &[u8])>| {
        writer.nest(LIST_ELEM, |writer| {
            writer.str(expr::NAME, name);
            writer.nest(expr::DATA, |writer| {
                for (kind, number) in numbers {
                    writer.be32(*kind, *number);
                }
                if let Some((kind, value)) = value {
                    writer.nest(kind, |writer| writer.attr(elem::VALUE, value));
                }
            });
        });
    };
    push("payload", &[(1, 1), (2, 0), (3, 12), (4, 2)], None);
    push("cmp", &[(1, 1), (2, 0)], Some((3, &[8, 6])));
    push("payload", &[(1, 1), (2, 1), (3, 14), (4, 4)], None);
    push("cmp", &[(1, 1), (2, 0)], Some((3, &[203, 0, 113, 1])));
    let arp = writer.finish().unwrap();
    let rule_of = |bytes: &[u8]| rule(TableFamily::Netdev, bytes, &|_| None).unwrap().rule;
    assert_eq!(
        rule_of(&arp).tests,
        [
            field(RuleField::FrameType, 2, &[8, 6]),
            field(RuleField::ArpSource, 4, &[203, 0, 113, 1])
        ]
    );
    let mut writer = Writer::new();
    let mut push = |name: &str, fill: &dyn Fn(&mut Writer)| {
        writer.nest(LIST_ELEM, |writer| {
            writer.str(expr::NAME, name);
            writer.nest(expr::DATA, fill);
        });
    };
    push("immediate", &|writer| {
        writer.be32(1, 1);
        writer.nest(2, |writer| writer.attr(elem::VALUE, &[0x23, 0x27]));
    });
    push("payload", &|writer| {
        for (kind, number) in [(5, 1), (2, 2), (3, 2), (4, 2)] {
            writer.be32(kind, number);
        }
    });
    let write = HeaderWrite::new(HeaderField::DestPort, 0, 8999);
    assert_eq!(rule_of(&writer.finish().unwrap()).effects, [RuleEffect::Rewrite(write)]);
}

/// Loads that nft writes for `exthdr rt exists`, `ip option lsrr exists`, `tcp option maxseg size`, `numgen random mod 1 offset 7`,
/// `meta length`, before a comparison with a bound as well, and for fields of headers.
#[test]
fn extensions_numbers_and_lengths_are_fields() {
    let loaded = |family: TableFamily, expressions: &[(&str, &[(u16, u32)])]| {
        let mut writer = Writer::new();
        for (name, numbers) in expressions.iter().copied().chain([("cmp", &[(1, 1), (2, 0)][..])]) {
            writer.nest(LIST_ELEM, |writer| {
                writer.str(expr::NAME, name);
                writer.nest(expr::DATA, |writer| {
                    for (kind, number) in numbers {
                        match (name, kind) {
                            ("exthdr", 2) => writer.attr(2, &[u8::try_from(*number).unwrap()]),
                            _ => writer.be32(*kind, *number),
                        }
                    }
                });
            });
        }
        let tests = rule(family, &writer.finish().unwrap(), &|_| None).unwrap().rule.tests;
        match tests.as_slice() {
            [Test::Compare { load, .. }] => (load.field, load.len),
            other => panic!("{other:?}"),
        }
    };
    let exthdr = |operation: u32, kind: u32, (offset, len): (u32, u32), flags: u32| {
        let numbers = [(1, 1), (2, kind), (3, offset), (4, len), (5, flags), (6, operation)];
        loaded(TableFamily::Ip, &[("exthdr", &numbers)])
    };
    assert_eq!(exthdr(0, 43, (0, 1), 1), (RuleField::HasExtensionHeader, 1));
    assert_eq!(exthdr(0, 43, (2, 1), 0), (RuleField::ExtensionHeader, 1));
    assert_eq!(exthdr(2, 131, (0, 1), 1), (RuleField::HasIpOption, 1));
    assert_eq!(exthdr(1, 2, (2, 2), 0), (RuleField::SegmentSize, 2));
    assert_eq!(exthdr(1, 2, (0, 1), 1), (RuleField::HasSegmentSize, 1));
    assert_eq!(exthdr(1, 8, (2, 4), 0).0, RuleField::Other);
    let generated = RuleField::Generated { first: 7, count: 1 };
    let numbers = [(1, 1), (2, 1), (3, 1), (4, 7)];
    assert_eq!(loaded(TableFamily::Ip, &[("numgen", &numbers)]).0, generated);
    let numbers = [(1, 2), (2, 1), (3, 4), (4, 1), (6, 7)];
    assert_eq!(loaded(TableFamily::Ip, &[("hash", &numbers)]).0, generated);
    let length: (&str, &[(u16, u32)]) = ("meta", &[(1, 1), (2, 0)]);
    let order: (&str, &[(u16, u32)]) = ("byteorder", &[(1, 1), (2, 1), (3, 1), (4, 4), (5, 4)]);
    assert_eq!(loaded(TableFamily::Ip, &[length]).0, RuleField::Length);
    assert_eq!(loaded(TableFamily::Ip, &[length, order]).0, RuleField::OrderedLength);
    assert_eq!(
        loaded(TableFamily::Ip, &[("meta", &[(1, 1), (2, 3)]), order]).0,
        RuleField::Other
    );
    let payload = |family, base: u32, offset: u32, len: u32| {
        loaded(family, &[("payload", &[(1, 1), (2, base), (3, offset), (4, len)])]).0
    };
    assert_eq!(payload(TableFamily::Ip, 1, 0, 1), RuleField::IpVersion);
    assert_eq!(payload(TableFamily::Ip, 1, 6, 2), RuleField::Fragment);
    assert_eq!(payload(TableFamily::Ip, 1, 8, 1), RuleField::HopLimit);
    assert_eq!(payload(TableFamily::Ip6, 1, 7, 1), RuleField::HopLimit);
    assert_eq!(payload(TableFamily::Ip, 2, 12, 1), RuleField::DataOffset);
}

fn looks_up(load: &[(u16, u32)], expression: &str, to_verdict: bool, content: &SetContent) -> Decoded {
    let mut writer = Writer::new();
    let mut push = |name: &str, fill: &dyn Fn(&mut Writer)| {
        writer.nest(LIST_ELEM, |writer| {
            writer.str(expr::NAME, name);
            writer.nest(expr::DATA, fill);
        });
    };
    push(expression, &|writer| {
        for (kind, number) in load {
            writer.be32(*kind, *number);
        }
    });
    push("lookup", &|writer| {
        writer.str(1, "s");
        writer.be32(2, 1);
        if to_verdict {
            writer.be32(3, 0);
        }
    });
    rule(TableFamily::Ip, &writer.finish().unwrap(), &|_| Some(content)).unwrap()
}

#[test]
fn sets_are_asked_for_where_they_tell_something() {
    const DEST: [(u16, u32); 4] = [(1, 1), (2, 1), (3, 16), (4, 4)];
    const MARK: [(u16, u32); 2] = [(1, 1), (2, 3)];
    let mut content = SetContent {
        key_len: 4,
        ..SetContent::default()
    };
    assert_eq!(looks_up(&DEST, "payload", false, &content).unread, ["s"]);
    assert!(looks_up(&MARK, "ct", false, &content).unread.is_empty());
    content.elements = Some(Vec::new());
    let decoded = looks_up(&DEST, "payload", false, &content);
    assert!(decoded.unread.is_empty());
    assert!(matches!(&decoded.rule.tests[..], [Test::In { elements: Some(all), .. }] if all.is_empty()));
    // An element that stands for all others.
    content.catch_all = true;
    let decoded = looks_up(&DEST, "payload", false, &content);
    assert!(matches!(&decoded.rule.tests[..], [Test::In { elements: Some(all), .. }]
        if all[..] == [SetElement { from: vec![0; 4], to: vec![0xff; 4] }]));
    let decoded = looks_up(&DEST, "payload", true, &content);
    assert!(matches!(decoded.rule.verdict, RuleVerdict::Map(_, None)));
}

proptest! {
    #[test]
    fn decoding_is_total(bytes: Vec<u8>) {
        let _ = rule(TableFamily::Inet, &bytes, &|_| None);
        let _ = read_verdict(&bytes);
    }

    #[test]
    fn decoding_odd_expressions_is_total(
        expressions in prop::collection::vec(
            (0..15_usize, prop::collection::vec((0..8_u16, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6)),
            0..8,
        ),
        element in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let content = SetContent {
            key_len: element.len(),
            elements: Some(vec![(SetElement { from: element.clone(), to: element }, RuleVerdict::Drop)]),
            catch_all: false,
        };
        let _ = rule(TableFamily::Inet, &listed(&expressions), &|_| Some(&content));
    }

    #[test]
    fn matches_are_total(name in "tcp|udp|multiport|conntrack|state|connmark|mark|pkttype|ttl|hl|tcpmss", revision in 0..4_u32, info: Vec<u8>) {
        let _ = xt::matches(&name, revision, &info);
    }
}
