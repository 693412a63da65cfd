//! Options of a rule as `iptables-save` prints them.

use std::net::IpAddr;

use super::mark::MarkWrite;
use super::rewrite::of_target;
use super::xt::{address_types, compare, masked_mark, numbers, state, tcp_flags};
use super::{Load, Relation, Rule, RuleEffect, RuleField, RuleVerdict, TableFamily, Test, stateful};

pub(super) const TCP: u8 = 6;

pub(super) const UDP: u8 = 17;

pub(super) struct RuleOptions<'a> {
    pub(super) family: TableFamily,
    pub(super) rest: Vec<&'a str>,
}

impl RuleOptions<'_> {
    pub(super) fn rule(self) -> Rule {
        let mut rule = Rule::default();
        let mut rest = self.rest.iter().copied().peekable();
        let mut negated = false;
        let mut counting: Option<Counting<'_>> = None;
        while let Some(option) = rest.next() {
            if option == "!" {
                negated = true;
                continue;
            }
            let mut values = Vec::new();
            while let Some(value) = rest.next_if(|word| *word != "!" && !(word.starts_with('-') && word.len() > 1)) {
                values.push(value);
            }
            let value = values.first().copied().unwrap_or_default();
            if let Some(counting) = counting.as_mut().filter(|_| option.starts_with("--")) {
                counting.options.push((option, value, negated));
                negated = false;
                continue;
            }
            rule.tests.extend(counting.take().and_then(Counting::test));
            if option == "-m" && stateful::COUNTING.contains(&value) {
                counting = Some(Counting {
                    name: value,
                    options: Vec::new(),
                });
                continue;
            }
            if option == "--tcp-flags" {
                let test = match *values.as_slice() {
                    [mask, flags] => flag_bits(mask).zip(flag_bits(flags)),
                    _ => None,
                };
                let unknown = || Test::Unknown(format!("{option} {}", values.join(" ")));
                let known = test.map(|(mask, flags)| tcp_flags(mask, flags, negated));
                rule.tests.push(known.unwrap_or_else(unknown));
                negated = false;
                continue;
            }
            self.option(&mut rule, option, value, negated);
            negated = false;
        }
        rule.tests.extend(counting.and_then(Counting::test));
        rule
    }

    fn option(&self, rule: &mut Rule, option: &str, value: &str, negated: bool) {
        let test = match option {
            "-j" => return target(rule, value),
            "-g" => {
                rule.verdict = RuleVerdict::Goto(value.into());
                return;
            }
            // What a target says more, and what only names an extension.
            "--comment" | "--notrack" | "--ttl-dec" | "--ttl-inc" | "--hl-dec" | "--hl-inc" => return,
            "-m" => return extension(rule, value),
            "--set-xmark" | "--set-mark" | "--save-mark" | "--restore-mark" | "--nfmask" | "--ctmask" | "--mask"
                if matches!(
                    rule.effects.last(),
                    Some(RuleEffect::CtMark(_) | RuleEffect::PacketMark(_))
                ) =>
            {
                return connmark(rule, option, value);
            }
            "--ttl-set" | "--hl-set" => {
                rule.effects.extend(value.parse().ok().map(RuleEffect::HopLimit));
                return;
            }
            _ if rule.verdict != RuleVerdict::Continue || !rule.effects.is_empty() => return,
            "-p" => protocol(value).map(|number| one_of(RuleField::Protocol, 1, vec![number], negated)),
            "-i" => Some(interface(RuleField::InName, value, negated)),
            "-o" => Some(interface(RuleField::OutName, value, negated)),
            "-s" => self.network([RuleField::Source4, RuleField::Source6], value, negated),
            "-d" => self.network([RuleField::Dest4, RuleField::Dest6], value, negated),
            "--dport" | "--dports" | "--destination-ports" => port_test(RuleField::DestPort, value, negated),
            "--sport" | "--sports" | "--source-ports" => port_test(RuleField::SourcePort, value, negated),
            "--icmpv6-type" => {
                let kind = value.split('/').next().and_then(|kind| kind.parse().ok());
                kind.map(|kind| one_of(RuleField::IcmpType, 1, vec![kind], negated))
            }
            "--ctstate" | "--state" => Some(state(state_bits(value), negated)),
            "--src-type" => route_types(RuleField::SourceType, value, negated),
            "--dst-type" => route_types(RuleField::DestType, value, negated),
            "--mark" => mark_test(rule, value, negated),
            "-f" | "--fragment" => Some(fragment(negated)),
            "--pkt-type" => packet_type(value, negated),
            "--ttl-eq" | "--hl-eq" => hop_limit(value, equal(negated)),
            "--ttl-lt" | "--hl-lt" => hop_limit(value, Relation::Less),
            "--ttl-gt" | "--hl-gt" => hop_limit(value, Relation::More),
            "--mss" => port_test(RuleField::SegmentSize, value, negated),
            // The word before named what it is: the list was taken for granted there.
            _ if rule.tests.last() == Some(&Test::Sometimes) => return,
            _ => None,
        };
        match test {
            Some(test) => {
                if let Some(at) = rule.tests.iter().position(is_connmark_hint) {
                    rule.tests.remove(at);
                }
                rule.tests.push(test);
            }
            None => rule.tests.push(Test::Unknown(format!("{option} {value}"))),
        }
    }

    fn network(&self, fields: [RuleField; 2], value: &str, negated: bool) -> Option<Test> {
        let (address, mask) = value.split_once('/').unwrap_or((value, ""));
        let address: IpAddr = address.parse().ok()?;
        let (field, bytes) = match address {
            IpAddr::V4(address) => (fields[0], address.octets().to_vec()),
            IpAddr::V6(address) => (fields[1], address.octets().to_vec()),
        };
        if (field == fields[1]) != (self.family == TableFamily::Ip6) {
            return None;
        }
        let bits = if mask.is_empty() {
            bytes.len() * 8
        } else if let Ok(IpAddr::V4(mask)) = mask.parse() {
            usize::try_from(mask.to_bits().leading_ones()).ok()?
        } else {
            mask.parse().ok()?
        };
        let mask: Vec<u8> = (0..bytes.len())
            .map(|at| match bits.saturating_sub(at * 8) {
                8.. => 0xff,
                0 => 0,
                bits => 0xff << (8 - bits),
            })
            .collect();
        Some(Test::Compare {
            load: Load {
                field,
                len: bytes.len(),
            },
            value: bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect(),
            mask: Some(mask),
            relation: equal(negated),
        })
    }
}

/// An iptables match that depends on earlier packets, with its options.
struct Counting<'a> {
    pub(super) name: &'a str,
    /// Options with their first value, and whether they are negated.
    pub(super) options: Vec<(&'a str, &'a str, bool)>,
}

impl Counting<'_> {
    /// Returns the condition; `None` if it holds for every packet.
    pub(super) fn test(self) -> Option<Test> {
        let of = |option: &str| self.options.iter().find(|(name, ..)| *name == option);
        let value = |option: &str| of(option).and_then(|(_, value, _)| value.parse::<u32>().ok());
        let unknown = || Some(Test::Unknown(format!("-m {}", self.name)));
        match self.name {
            "recent" => {
                let hits = value("--hitcount").unwrap_or(0);
                let does = u8::from(of("--set").is_some()) * stateful::RECENT_SET;
                let inverted = self.options.iter().any(|(_, _, negated)| *negated);
                stateful::recent(does, hits, inverted)
            }
            "statistic" => match (of("--probability"), of("--every")) {
                (Some((_, value, negated)), _) => {
                    let is = |of: &str| value.trim_end_matches('0') == of;
                    let probability = match (is("1.") || is("1"), is("0.") || is("")) {
                        (true, _) => stateful::CERTAIN,
                        (_, true) => 0,
                        _ => 1,
                    };
                    stateful::statistic(true, probability, *negated)
                }
                (None, Some((_, value, negated))) => {
                    match value.parse::<u32>().ok().and_then(|every| every.checked_sub(1)) {
                        Some(value) => stateful::statistic(false, value, *negated),
                        None => unknown(),
                    }
                }
                (None, None) => unknown(),
            },
            "connlimit" => {
                let of_all = value("--connlimit-mask") == Some(0);
                match (value("--connlimit-above"), value("--connlimit-upto")) {
                    (Some(limit), _) => stateful::connlimit(of_all, limit, false),
                    (_, Some(limit)) => stateful::connlimit(of_all, limit, true),
                    _ => unknown(),
                }
            }
            "hashlimit" => {
                let of_clients = of("--hashlimit-mode").is_some_and(|(_, value, _)| value.contains("src"));
                Some(stateful::hashlimit(of_clients, of("--hashlimit-above").is_some()))
            }
            _ => unknown(),
        }
    }
}

fn extension(rule: &mut Rule, name: &str) {
    match name {
        "set" | "geoip" => rule.tests.push(Test::Sometimes),
        "connmark" => rule.tests.push(Test::Unknown(CONNMARK.into())),
        _ => {}
    }
}

/// Text of the condition that stands for `-j CONNMARK` until all of its options were read.
pub(super) const CONNMARK: &str = "-m connmark";

fn is_connmark_hint(test: &Test) -> bool {
    matches!(test, Test::Unknown(what) if what == CONNMARK)
}

/// Adds an option of `-j CONNMARK`: what it writes is known only after the last one.
pub(super) fn connmark(rule: &mut Rule, option: &str, value: &str) {
    let (text, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
    let write = match rule.effects.last_mut() {
        Some(RuleEffect::CtMark(write)) => write,
        Some(RuleEffect::PacketMark(write)) => {
            if let (Some(value), Some(mask)) = (number(text), number(mask)) {
                *write = MarkWrite::set(value, mask);
            }
            return;
        }
        _ => return,
    };
    let value = text;
    match (option, number(value), number(mask)) {
        ("--set-xmark" | "--set-mark", Some(value), Some(mask)) => *write = MarkWrite::set(value, mask),
        ("--save-mark", ..) => *write = MarkWrite::save(u32::MAX, u32::MAX),
        ("--nfmask", Some(mask), _) => write.unknown = mask,
        ("--ctmask", Some(mask), _) => write.keep = !mask,
        ("--mask", Some(mask), _) => *write = MarkWrite::save(mask, mask),
        ("--restore-mark", ..) => drop(rule.effects.pop().map(|_| rule.effects.push(RuleEffect::RestoreMark))),
        _ => {}
    }
}

pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn mark_test(rule: &Rule, value: &str, negated: bool) -> Option<Test> {
    let field = if rule.tests.iter().any(is_connmark_hint) {
        RuleField::CtMark
    } else {
        RuleField::Mark
    };
    let (value, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
    Some(masked_mark(field, number(value)?, number(mask)?, negated))
}

pub(super) fn target(rule: &mut Rule, name: &str) {
    rule.verdict = match name {
        "ACCEPT" => RuleVerdict::Accept,
        "DROP" => RuleVerdict::Drop,
        "REJECT" => RuleVerdict::Reject,
        "RETURN" => RuleVerdict::Return,
        "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" => RuleVerdict::Unknown(name.into()),
        "DNAT" | "REDIRECT" => {
            rule.effects.push(RuleEffect::Dnat);
            RuleVerdict::Continue
        }
        "CT" | "NOTRACK" => {
            rule.effects.push(RuleEffect::Notrack);
            RuleVerdict::Continue
        }
        // The number follows.
        "TTL" | "HL" => RuleVerdict::Continue,
        "SNPT" | "DNPT" => {
            rule.effects.extend(of_target(name).map(RuleEffect::Rewrite));
            RuleVerdict::Continue
        }
        "MARK" => {
            rule.effects.push(RuleEffect::PacketMark(MarkWrite::UNKNOWN));
            RuleVerdict::Continue
        }
        "CONNMARK" => {
            rule.effects.push(RuleEffect::CtMark(MarkWrite::UNKNOWN));
            RuleVerdict::Continue
        }
        chain => RuleVerdict::Jump(chain.into()),
    };
}

pub(super) fn protocol(name: &str) -> Option<u8> {
    match name {
        "tcp" => Some(TCP),
        "udp" => Some(UDP),
        "icmp" => Some(1),
        "ipv6-icmp" | "icmpv6" => Some(58),
        "sctp" => Some(132),
        number => number.parse().ok(),
    }
}

const fn equal(negated: bool) -> Relation {
    if negated { Relation::Differs } else { Relation::Equal }
}

pub(super) fn one_of(field: RuleField, len: usize, value: Vec<u8>, negated: bool) -> Test {
    compare(field, len, equal(negated), value)
}

/// Returns the test for an interface's name, or for a prefix of names if it ends in `+`.
fn interface(field: RuleField, name: &str, negated: bool) -> Test {
    let mut bytes = name.trim_end_matches('+').as_bytes().to_vec();
    if !name.ends_with('+') {
        bytes.resize(16, 0);
    }
    compare(field, 16, equal(negated), bytes)
}

fn port_test(field: RuleField, value: &str, negated: bool) -> Option<Test> {
    let range = |part: &str| -> Option<(u16, u16)> {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let number = |text: &str, open| if text.is_empty() { Some(open) } else { text.parse().ok() };
        Some((number(from, 0)?, number(to, u16::MAX)?))
    };
    let ranges: Option<Vec<(u16, u16)>> = value.split(',').map(range).collect();
    ranges.map(|ranges| numbers(field, &ranges, negated))
}

/// Returns the condition of `-f`: a fragment that is not the first of its packet.
fn fragment(negated: bool) -> Test {
    Test::Compare {
        load: Load {
            field: RuleField::Fragment,
            len: 2,
        },
        mask: Some(vec![0x1f, 0xff]),
        relation: if negated { Relation::Equal } else { Relation::Differs },
        value: vec![0; 2],
    }
}

/// Returns the condition of `-m pkttype`.
fn packet_type(name: &str, negated: bool) -> Option<Test> {
    let kind = match name {
        "unicast" => 0,
        "broadcast" => 1,
        "multicast" => 2,
        number => number.parse().ok()?,
    };
    Some(one_of(RuleField::PacketType, 1, vec![kind], negated))
}

/// Returns the condition of `-m ttl` and `-m hl`.
fn hop_limit(value: &str, relation: Relation) -> Option<Test> {
    Some(compare(RuleField::HopLimit, 1, relation, vec![value.parse().ok()?]))
}

/// Returns the condition of `-m addrtype` that the route to the source or destination has one of these types.
fn route_types(field: RuleField, names: &str, negated: bool) -> Option<Test> {
    // In the order of `RTN_*`.
    const NAMES: [&str; 10] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
    ];
    let number = |name| NAMES.into_iter().zip(0..).find(|(of, _)| *of == name);
    let types: Option<Vec<u32>> = names.split(',').map(|name| Some(number(name)?.1)).collect();
    Some(address_types(field, types?.into_iter(), negated))
}

/// Returns the bits of flags such as `SYN,ACK`.
fn flag_bits(names: &str) -> Option<u8> {
    names.split(',').try_fold(0, |bits, name| {
        Some(
            bits | match name {
                "FIN" => 1,
                "SYN" => 2,
                "RST" => 4,
                "PSH" => 8,
                "ACK" => 16,
                "URG" => 32,
                "ALL" => 63,
                "NONE" => 0,
                _ => return None,
            },
        )
    })
}

/// Returns the bits of states as `xt_conntrack` defines them.
fn state_bits(value: &str) -> u32 {
    value
        .split(',')
        .map(|word| match word {
            "INVALID" => 1,
            "ESTABLISHED" => 2,
            "RELATED" => 4,
            "NEW" => 8,
            "DNAT" => 1 << 7,
            "UNTRACKED" => 1 << 8,
            _ => 0,
        })
        .fold(0, |bits, bit| bits | bit)
}
