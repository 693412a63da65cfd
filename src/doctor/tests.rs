mod clients;
mod packets;
mod places;
mod served;
mod ways_of_probes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{self, Problem};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::stats::Stats;
use tcpgw_kernel::firewall::{
    FirewallBase, FirewallChain, FirewallHook, ForeignTable, MarkWrite, OwnTable, Rule, RuleEffect, TableFamily,
    parse_save,
};
use tcpgw_kernel::listeners::Listener;
use tcpgw_kernel::nftables::nat_order::OlderChains;
use tcpgw_kernel::requirements::{Feature, Lack};
use tcpgw_kernel::route::links::{LinkDetails, Neighbour, Offloads};
use tcpgw_kernel::route::{LocalAddresses, RouteTo};

const STATE: &str = r#"{"version":1,"services":[
    {"name":"web","port":20003,"limit":{"pps":1000},"backends":["10.2.0.11:3000","[fd00:2::11]:3000"]},
    {"name":"chosen","port":20004,"addresses":["203.0.113.1"],"backends":["10.2.0.12:3000"]}]}"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "as the facts have it")]
fn way(index: u32) -> Option<RouteTo> {
    Some(RouteTo {
        index,
        name: None,
        gateway: None,
        local: false,
        shared: false,
    })
}

fn link(index: u32, name: &str, address: &str) -> LinkDetails {
    LinkDetails {
        index,
        name: name.into(),
        up: true,
        mtu: 1500,
        addresses: vec![(ip(address), 24)],
        offloads: Some(Offloads::default()),
        ..LinkDetails::default()
    }
}

/// Returns the facts of a healthy gateway: `ext` leads to the world, `br0` to the backends.
fn well() -> Facts {
    let sysctls = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.ip_local_port_range", "32768\t60999"),
        ("net.ipv4.ip_local_reserved_ports", ""),
        ("net.netfilter.nf_conntrack_max", "262144"),
        ("net.netfilter.nf_conntrack_count", "100"),
        ("net.netfilter.nf_conntrack_buckets", "262144"),
        ("net.netfilter.nf_conntrack_acct", "1"),
        ("net.netfilter.nf_conntrack_timestamp", "1"),
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "0"),
        ("net.netfilter.nf_conntrack_tcp_loose", "0"),
        ("net.netfilter.nf_conntrack_tcp_timeout_established", "7440"),
    ];
    let backends = ["10.2.0.11", "10.2.0.12", "fd00:2::11"].map(ip);
    let ways_out = [
        ((Family::V4, None), way(2)),
        ((Family::V6, None), way(2)),
        ((Family::V4, Some(ip("203.0.113.1"))), way(2)),
        ((Family::V4, Some(ip("10.2.0.1"))), way(2)),
    ];
    let cheap = CheapFacts {
        effort: Effort::Thorough,
        mark: FlowMark::default(),
        protect_backends: true,
        configured_to_protect: true,
        configuration: "/etc/gateway.toml".into(),
        is_probed: false,
        services: Arc::new(Summary::from(&tcpgw_core::model::parse(STATE.as_bytes()).unwrap())),
        sysctls: sysctls.map(|(name, value)| (name.into(), value.into())).into(),
        links: Ok(vec![
            link(2, "ext", "203.0.113.1"),
            LinkDetails {
                bridge: Some([false; 2]),
                ..link(3, "br0", "10.2.0.1")
            },
            LinkDetails {
                master: Some(3),
                hairpin: Some(false),
                addresses: Vec::new(),
                ..link(4, "port", "10.2.0.1")
            },
        ]),
        local: Ok(LocalAddresses::from_iter(["203.0.113.1", "10.2.0.1"].map(ip))),
        unrouted: Ok(BTreeSet::new()),
        ways: Ok(backends.map(|address| (address, way(3))).into()),
        refused_ports: BTreeSet::new(),
        ways_left_out: 0,
        ways_out: Ok(ways_out.into()),
        answers: Ok([((Family::V4, 3), way(2)), ((Family::V6, 3), way(2))].into()),
        served: Vec::new(),
        lost_answers: Ok(LostAnswers::default()),
        misrouted_probes: Ok(Vec::new()),
        firewall: Ok(Arc::default()),
        legacy: Ok(Arc::default()),
        legacy6: Ok(Arc::default()),
        refused_marks: Ok(BTreeSet::new()),
        ipsec: Ok(Arc::default()),
        unmarked: Ok(crate::view::UnmarkedFlows::default()),
        lost_addresses: BTreeMap::new(),
        reverse_path_drops: Some(0),
    };
    Facts {
        cheap,
        release: "6.1.0-18-amd64".into(),
        table: Ok(TableFacts {
            state: TableState::AsWritten,
            mark: Some(FlowMark::default()),
            owner: None,
            daemon: None,
        }),
        idle_timeout: None,
        configured_mark: FlowMark::default(),
        orphaned: None,
        unserved: None,
        neighbours: Ok(Vec::new()),
        learned: Ok(Vec::new()),
        stats: Ok(Stats::default()),
        ports_in_use: Ok(BTreeMap::new()),
        reused: Ok(BTreeMap::new()),
        lacks: Ok(Vec::new()),
        conntrack_filter: Ok(true),
        listeners: Ok(Vec::new()),
    }
}

#[test]
fn services_that_can_be_passed_by_are_named() {
    let open = |facts: &mut Facts| (facts.cheap.protect_backends, facts.cheap.configured_to_protect) = (false, false);
    let found = only(&with(open), "backends-exposed", Severity::Warning);
    assert_eq!(
        found.seen,
        "1 service with `allow`, `deny` or `limit` can be bypassed: web :20003"
    );
    let fix = found.fix.unwrap().to_string();
    assert!(
        fix.contains("`protect_backends = true` at the top of /etc/gateway.toml,"),
        "{fix}"
    );
    let fix = |file: &str, configured| {
        let found = with(|facts| {
            open(facts);
            facts.cheap.configured_to_protect = configured;
            facts.cheap.configuration = file.into();
        });
        only(&found, "backends-exposed", Severity::Warning)
            .fix
            .unwrap()
            .to_string()
    };
    let told = fix("/etc/gateway.toml", true);
    assert!(
        told.contains("of /etc/gateway.toml is not in effect yet: restart"),
        "{told}"
    );
    let told = fix("/dev/null", false);
    assert!(told.contains("name that with `--config`"), "{told}");
    let one_armed = |facts: &mut Facts| {
        open(facts);
        facts.cheap.ways_out = Ok(WaysOut::from([
            ((Family::V4, None), way(3)),
            ((Family::V6, None), way(3)),
        ]));
    };
    assert!(with(one_armed).iter().all(|finding| finding.id != "backends-exposed"));
}

fn firewall_of(facts: &mut Facts) -> &mut Firewall {
    Arc::make_mut(facts.cheap.firewall.as_mut().unwrap())
}

/// Returns the findings after a change of the facts.
fn with(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = well();
    change(&mut facts);
    let diagnosis = examine(&facts);
    for finding in &diagnosis.findings {
        let (_, worst) = FINDINGS
            .iter()
            .find(|(id, _)| *id == finding.id)
            .unwrap_or_else(|| panic!("{}", finding.id));
        assert!(
            finding.severity >= *worst,
            "{} is said to be {worst} at worst",
            finding.id
        );
    }
    // A finding that the daemon can make has a kind in its list.
    let found = examine_cheap(&facts.cheap);
    let problems = problems(&found);
    let kinds: BTreeSet<&str> = problems.iter().map(|problem| problem.kind.id()).collect();
    let told = |finding: &&Finding| finding.severity < Severity::Note && finding.id != "address-not-local";
    let ids: BTreeSet<&str> = found.findings.iter().filter(told).map(|finding| finding.id).collect();
    assert_eq!(kinds, ids);
    // The severity is the same there.
    for problem in &problems {
        let same = found.findings.iter().filter(|finding| finding.id == problem.kind.id());
        let worst = same.map(|finding| finding.severity).min();
        assert_eq!(worst, Some(Severity::of(problem.severity)), "{problem:?}");
    }
    diagnosis.findings
}

fn set(name: &str, value: &str) -> impl FnOnce(&mut Facts) + use<> {
    let (name, value) = (name.to_owned(), value.to_owned());
    move |facts| drop(facts.cheap.sysctls.insert(name, value))
}

#[track_caller]
fn only(findings: &[Finding], id: &str, severity: Severity) -> Finding {
    assert_eq!(
        findings.iter().map(|finding| finding.id).collect::<Vec<_>>(),
        [id],
        "{findings:#?}"
    );
    assert_eq!(findings[0].severity, severity, "{findings:#?}");
    findings[0].clone()
}

#[track_caller]
fn line(finding: &Finding) -> &str {
    match &finding.fix {
        Some(Fix::Command(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let diagnosis = examine(&well());
    // There is no note about merged packets either, since none are merged.
    assert_eq!(diagnosis, Diagnosis::default());
}

#[test]
fn cheap_checks_find_what_keeps_clients_from_being_served() {
    let mut facts = well();
    assert_eq!(examine_cheap(&facts.cheap), Diagnosis::default());
    set("net.ipv4.ip_forward", "0")(&mut facts);
    set("net.netfilter.nf_conntrack_count", "262144")(&mut facts);
    facts.cheap.ways.as_mut().unwrap().insert(ip("10.2.0.11"), None);
    facts.cheap.local.as_mut().unwrap().addresses.remove(&ip("203.0.113.1"));
    let drops = chain(
        table(TableFamily::Ip, "mine", false),
        FirewallHook::Forward,
        0,
        Vec::new(),
        true,
    );
    firewall_of(&mut facts).chains.push(drops);
    let found = examine_cheap(&facts.cheap).findings;
    for id in [
        "ip-forward-off",
        "conntrack-full",
        "backend-without-route",
        "address-not-local",
        "packets-dropped",
    ] {
        assert!(found.iter().any(|finding| finding.id == id), "{id} in {found:#?}");
    }
    let all = examine(&facts).findings;
    assert!(found.iter().all(|finding| all.contains(finding)), "{all:#?}");
}

#[test]
fn an_address_without_a_local_route_is_broken() {
    let found = only(
        &with(|facts| facts.cheap.unrouted = Ok([ip("203.0.113.1")].into())),
        "address-lost",
        Severity::Broken,
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
        Severity::Broken,
    );
    assert_eq!(found.seen, "ext answers no ARP requests: arp_ignore is 8");
    assert_eq!(
        found.fix.unwrap().to_string(),
        "sysctl -w net.ipv4.conf.ext.arp_ignore=0"
    );
    let found = only(
        &with(set("net.ipv4.conf.all.arp_ignore", "8")),
        "no-public-address",
        Severity::Broken,
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
fn a_lost_address_is_told_where_a_service_listens_on_all() {
    let lose = |facts: &mut Facts| facts.cheap.lost_addresses = BTreeMap::from([(ip("203.0.113.2"), 3)]);
    let found = only(&with(lose), "address-lost", Severity::Warning);
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
fn names_are_kebab_case_and_unique() {
    let names: BTreeSet<&str> = FINDINGS.iter().map(|(id, _)| *id).collect();
    assert_eq!(names.len(), FINDINGS.len());
    for name in names {
        assert!(
            name.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '-' || letter.is_ascii_digit())
        );
    }
}

#[test]
fn a_finding_is_as_bad_as_the_problem_that_tells_of_the_same() {
    // The problems have different names.
    let others = [
        ("table-missing", Kind::NoTable),
        ("table-of-another-mark", Kind::OtherMark),
    ];
    let same = Kind::ALL.iter().map(|kind| (kind.id(), *kind)).chain(others);
    let mut seen = 0;
    for (name, kind) in same {
        if let Some((id, worst)) = FINDINGS.iter().find(|(id, _)| *id == name) {
            assert_eq!(*worst, Severity::of(kind.severity()), "{id}");
            seen += 1;
        }
    }
    assert!(seen > KINDS.len());
    for kind in KINDS {
        assert!(FINDINGS.iter().any(|(id, _)| *id == kind.id()), "{kind:?}");
    }
}

#[test]
fn what_the_daemon_tells_is_in_the_diagnosis_and_as_bad_as_there() {
    let well = examine(&well());
    for kind in Kind::ALL {
        for severity in [problem::Severity::Error, problem::Severity::Warning] {
            let problem = Problem::new(*kind, "words").with_severity(severity);
            let expected = Severity::of(severity);
            let mut diagnosis = well.clone();
            add_of_daemon(&mut diagnosis, std::slice::from_ref(&problem));
            only(&diagnosis.findings, kind.id(), expected);
            // The doctor's own findings are one that is sure and one that is not, or none.
            for own in [Severity::Broken, Severity::Warning, Severity::Note] {
                let mut diagnosis = well.clone();
                for severity in [own, Severity::Warning] {
                    diagnosis.found(kind.id(), severity, "own words".into(), String::new(), None);
                }
                add_of_daemon(&mut diagnosis, std::slice::from_ref(&problem));
                let found: Vec<Severity> = diagnosis.findings.iter().map(|finding| finding.severity).collect();
                assert_eq!(
                    (found.len(), found.iter().min()),
                    (2, Some(&expected)),
                    "{kind:?} {own}"
                );
            }
        }
    }
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
        let told = told.iter().map(|problem| Severity::of(problem.severity)).min();
        assert_eq!(found.map(|finding| finding.severity), told, "{has:?}");
        told
    };
    assert_eq!(addresses(&["203.0.113.1", "203.0.113.2", "10.2.0.1"]), None);
    assert_eq!(addresses(&["203.0.113.2", "10.2.0.1"]), Some(Severity::Warning));
    assert_eq!(addresses(&["10.2.0.1"]), Some(Severity::Broken));
}

#[test]
fn the_manual_has_every_finding() {
    let manual = include_str!("../../docs/reference/doctor.md");
    for (id, severity) in FINDINGS {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{id}` |")));
        let row = row.unwrap_or_else(|| panic!("{id} is not in the manual"));
        assert!(row.contains(&severity.to_string()), "{row}");
    }
}

#[test]
fn what_could_not_be_read_is_named_and_the_rest_is_judged() {
    let mut facts = well();
    let no = || "needs CAP_NET_ADMIN".to_owned();
    facts.table = Err(no());
    facts.cheap.links = Err(no());
    facts.cheap.local = Err(no());
    facts.cheap.ways = Err(no());
    facts.cheap.ways_out = Err(no());
    facts.neighbours = Err(no());
    facts.learned = Err(no());
    facts.cheap.firewall = Err(no());
    facts.cheap.legacy = Err(no());
    facts.cheap.legacy6 = Err(no());
    facts.stats = Err(no());
    facts.ports_in_use = Err(no());
    facts.lacks = Err(no());
    facts.conntrack_filter = Err(no());
    facts.listeners = Err(no());
    facts.cheap.sysctls.insert("net.ipv4.ip_forward".into(), "0".into());
    let diagnosis = examine(&facts);
    only(&diagnosis.findings, "ip-forward-off", Severity::Broken);
    let checks: Vec<&str> = diagnosis
        .unchecked
        .iter()
        .map(|unchecked| unchecked.check.as_str())
        .collect();
    for check in [
        "the table inet tcpgw",
        "features of the kernel",
        "the filter of conntrack",
        "other tables of nftables",
        "tables of iptables-legacy",
        "tables of ip6tables-legacy",
        "routes to backends",
        "the reverse path filter",
        "bridge ports without hairpin mode",
        "the counters of conntrack",
        "source ports in use",
        "programs that listen on ports of services",
        "addresses of services",
        "segmentation offloads",
    ] {
        assert_eq!(
            checks.iter().filter(|known| **known == check).count(),
            1,
            "{check} in {checks:?}"
        );
    }
}

#[test]
fn forwarding_without_a_default_route_in_the_main_table() {
    type Routing = fn(&mut WaysOut, &mut WaysOfAnswers);
    let routings: [(&str, Routing); 3] = [
        ("from the public address", |out, answers| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            answers.insert((Family::V4, 3), None);
        }),
        ("from the bridge", |out, _| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            out.insert((Family::V4, Some(ip("203.0.113.1"))), None);
        }),
        ("none at all: clients are on the link", |out, answers| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            out.insert((Family::V4, Some(ip("203.0.113.1"))), None);
            answers.insert((Family::V4, 3), None);
        }),
    ];
    for (what, routing) in routings {
        for (off, is_broken) in [("ext", true), ("port", false)] {
            let found = with(|facts| {
                Arc::make_mut(&mut facts.cheap.services).services.remove(1);
                let out = facts.cheap.ways_out.as_mut().unwrap();
                out.insert((Family::V4, None), None);
                routing(out, facts.cheap.answers.as_mut().unwrap());
                set(&format!("net.ipv4.conf.{off}.forwarding"), "0")(facts);
            });
            let severity = found
                .iter()
                .find(|one| one.id == "ip-forward-off")
                .map(|one| one.severity);
            assert_eq!(severity, is_broken.then_some(Severity::Broken), "{what}: {off}");
        }
    }
}

#[test]
fn forwarding() {
    let found = only(
        &with(set("net.ipv4.ip_forward", "0")),
        "ip-forward-off",
        Severity::Broken,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.ip_forward=1");
    only(
        &with(set("net.ipv6.conf.all.forwarding", "0")),
        "ipv6-forwarding-off",
        Severity::Broken,
    );
    // Only the settings of used interfaces count; the switch for all does not for IPv4.
    for (link, severity) in [
        ("ext", Severity::Broken),
        ("br0", Severity::Broken),
        ("port", Severity::Note),
    ] {
        let found = with(set(&format!("net.ipv4.conf.{link}.forwarding"), "0"));
        if severity == Severity::Broken {
            let found = only(&found, "ip-forward-off", severity);
            assert_eq!(line(&found), format!("sysctl -w net.ipv4.conf.{link}.forwarding=1"));
            assert!(found.seen.contains(link), "{}", found.seen);
        } else {
            assert!(found.is_empty(), "{found:#?}");
        }
    }
    let each = |facts: &mut Facts| {
        set("net.ipv4.ip_forward", "0")(facts);
        set("net.ipv4.conf.ext.forwarding", "1")(facts);
        set("net.ipv4.conf.br0.forwarding", "1")(facts);
    };
    assert!(with(each).is_empty());
    let each_and_no_other = |facts: &mut Facts| {
        each(facts);
        set("net.ipv4.conf.default.forwarding", "0")(facts);
    };
    only(&with(each_and_no_other), "ip-forward-off", Severity::Note);
    let forced = |ext: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv6.conf.all.forwarding", "0")(facts);
            set("net.ipv6.conf.br0.force_forwarding", "1")(facts);
            set("net.ipv6.conf.ext.force_forwarding", ext)(facts);
        }
    };
    only(&with(forced("1")), "ipv6-forwarding-off", Severity::Note);
    let found = only(&with(forced("0")), "ipv6-forwarding-off", Severity::Broken);
    assert!(
        found.seen.contains("ext (clients)") && !found.seen.contains("br0"),
        "{}",
        found.seen
    );
    // A dot in a name is a slash for sysctl, and a name is quoted if a shell would not take it as one word.
    for (name, quoted) in [
        ("ext.100", "net.ipv4.conf.ext/100.forwarding"),
        ("e$x", "'net.ipv4.conf.e$x.forwarding'"),
    ] {
        let found = with(|facts| {
            facts.cheap.links.as_mut().unwrap()[0].name = name.into();
            set(&format!("net.ipv4.conf.{name}.forwarding"), "0")(facts);
        });
        assert_eq!(
            line(&only(&found, "ip-forward-off", Severity::Broken)),
            format!("sysctl -w {quoted}=1")
        );
    }
    only(
        &with(set("net.ipv6.conf.ext.accept_ra", "1")),
        "ipv6-router-advertisements",
        Severity::Note,
    );
    let only4 = |facts: &mut Facts| {
        Arc::make_mut(&mut facts.cheap.services).services.remove(0);
        set("net.ipv6.conf.all.forwarding", "0")(facts);
    };
    assert!(with(only4).is_empty());
}

#[test]
fn reverse_path() {
    assert!(
        with(set("net.ipv4.conf.all.rp_filter", "1")).is_empty(),
        "the ways are the same"
    );
    let elsewhere = |address: &'static str, mode: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv4.conf.ext.rp_filter", mode)(facts);
            let ways = facts.cheap.ways_out.as_mut().unwrap();
            ways.insert((Family::V4, Some(ip(address))), way(3));
        }
    };
    let found = only(
        &with(elsewhere("203.0.113.1", "1")),
        "reverse-path-filter",
        Severity::Broken,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.conf.ext.rp_filter=2");
    assert!(with(elsewhere("203.0.113.1", "2")).is_empty());
    // The value 2 for all interfaces exceeds 1 for one.
    let loose = |facts: &mut Facts| {
        elsewhere("203.0.113.1", "1")(facts);
        set("net.ipv4.conf.all.rp_filter", "2")(facts);
    };
    assert!(with(loose).is_empty());
    let everywhere = |facts: &mut Facts| {
        elsewhere("203.0.113.1", "1")(facts);
        Arc::make_mut(&mut facts.cheap.services)
            .services
            .retain(|service| service.addresses.is_empty());
    };
    only(&with(everywhere), "reverse-path-filter", Severity::Warning);
    let backend = |facts: &mut Facts| {
        set("net.ipv4.conf.br0.rp_filter", "1")(facts);
        facts.cheap.ways.as_mut().unwrap().insert(ip("10.2.0.11"), way(2));
    };
    let found = only(&with(backend), "reverse-path-filter", Severity::Warning);
    assert!(
        found.seen.contains("10.2.0.11") && found.seen.contains("ext"),
        "{}",
        found.seen
    );
}

#[test]
fn bridges() {
    let found = only(
        &with(set("net.bridge.bridge-nf-call-iptables", "1")),
        "bridge-without-hairpin",
        Severity::Warning,
    );
    assert_eq!(line(&found), "bridge link set dev port hairpin on");
    let hairpin = |facts: &mut Facts| {
        set("net.bridge.bridge-nf-call-iptables", "1")(facts);
        facts.cheap.links.as_mut().unwrap()[2].hairpin = Some(true);
    };
    assert!(with(hairpin).is_empty());
    let own = |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[1].bridge = Some([false, true]);
    only(&with(own), "bridge-without-hairpin", Severity::Warning);
}

#[test]
fn conntrack() {
    for (count, id, severity) in [
        ("209716", "conntrack-filling", Severity::Warning),
        ("249036", "conntrack-filling", Severity::Warning),
        ("249037", "conntrack-full", Severity::Broken),
    ] {
        let found = only(&with(set("net.netfilter.nf_conntrack_count", count)), id, severity);
        assert_eq!(line(&found), "sysctl -w net.netfilter.nf_conntrack_max=524288");
    }
    assert!(with(set("net.netfilter.nf_conntrack_count", "209715")).is_empty());
    only(
        &with(set("net.netfilter.nf_conntrack_buckets", "1024")),
        "conntrack-long-chains",
        Severity::Warning,
    );
    for (name, value, id) in [
        ("tcp_be_liberal", "1", "conntrack-liberal"),
        ("tcp_loose", "1", "conntrack-loose"),
        ("tcp_timeout_established", "432000", "conntrack-long-timeout"),
        ("acct", "0", "conntrack-accounting-off"),
        ("timestamp", "0", "conntrack-timestamps-off"),
    ] {
        only(
            &with(set(&format!("net.netfilter.nf_conntrack_{name}"), value)),
            id,
            Severity::Note,
        );
    }
    let bounded = with(|facts| {
        set("net.netfilter.nf_conntrack_tcp_timeout_established", "432000")(facts);
        facts.idle_timeout = Some(Duration::from_secs(7200));
    });
    assert!(bounded.is_empty(), "{bounded:?}");
    let stats = |stats| move |facts: &mut Facts| facts.stats = Ok(stats);
    let dropped = Stats {
        early_drop: 1,
        ..Stats::default()
    };
    only(&with(stats(dropped)), "conntrack-dropped", Severity::Warning);
    let raced = Stats {
        insert_failed: 1,
        ..Stats::default()
    };
    only(&with(stats(raced)), "conntrack-races", Severity::Note);
    let mut facts = well();
    facts.cheap.sysctls.remove("net.netfilter.nf_conntrack_max");
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn source_ports() {
    for (flows, severity) in [(51_610, Severity::Warning), (63_867, Severity::Broken)] {
        let used = |facts: &mut Facts| {
            let pair = ("10.2.0.11:3000".parse().unwrap(), ip("10.2.0.1"));
            facts.ports_in_use = Ok([(pair, flows)].into());
        };
        only(&with(used), "snat-ports-exhausted", severity);
    }
}

#[test]
fn source_ports_that_are_used_again() {
    let reused = |flows: u32| {
        move |facts: &mut Facts| {
            let backend = "10.2.0.11:3000".parse().unwrap();
            facts.reused = Ok([(backend, 7), ("10.2.0.12:3000".parse().unwrap(), 1)].into());
            facts.ports_in_use = Ok([((backend, ip("10.2.0.1")), flows)].into());
        }
    };
    let found = only(&with(reused(1000)), "snat-port-reuse", Severity::Note);
    assert!(
        found.seen.starts_with(
            "7 SYNs to backend 10.2.0.11:3000 met a connection that it still held, and others from 1 more backend"
        ),
        "{}",
        found.seen
    );
    assert_eq!(found.fix, None);
    let findings = with(reused(61_300));
    let found = findings
        .iter()
        .find(|finding| finding.id == "snat-port-reuse")
        .expect("it is found");
    assert_eq!(found.severity, Severity::Warning);
    assert!(
        found
            .seen
            .ends_with("the ports to 10.2.0.11:3000 are used up right now"),
        "{}",
        found.seen
    );
    assert!(
        found
            .fix
            .as_ref()
            .is_some_and(|fix| fix.to_string().contains("source_addresses"))
    );
    let unread = |facts: &mut Facts| facts.reused = Err("no".into());
    let mut facts = well();
    unread(&mut facts);
    assert_eq!(examine(&facts).unchecked.len(), 1);
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
        Severity::Broken,
    );
    assert!(found.seen.ends_with(": 10.2.0.9 of web"), "{}", found.seen);
}

#[test]
fn own_ports_and_addresses() {
    let found = only(
        &with(set("net.ipv4.ip_local_port_range", "10000 20003")),
        "port-in-local-range",
        Severity::Warning,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.ip_local_reserved_ports=20003");
    let some_reserved = |facts: &mut Facts| {
        set("net.ipv4.ip_local_port_range", "10000 30000")(facts);
        set("net.ipv4.ip_local_reserved_ports", "8080,20000-20003")(facts);
    };
    let found = only(&with(some_reserved), "port-in-local-range", Severity::Warning);
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
    only(&with(listens("0.0.0.0:20003")), "port-with-listener", Severity::Note);
    only(
        &with(listens("203.0.113.1:20004")),
        "port-with-listener",
        Severity::Note,
    );
    assert!(with(listens("10.2.0.1:20004")).is_empty());
    let gone =
        |facts: &mut Facts| facts.cheap.local = Ok(LocalAddresses::from_iter(["203.0.113.2", "10.2.0.1"].map(ip)));
    only(&with(gone), "address-not-local", Severity::Broken);
}

#[test]
fn no_address_for_clients() {
    let no_address = |facts: &mut Facts| {
        Arc::make_mut(&mut facts.cheap.services).services.remove(1);
        facts.cheap.local = Ok(LocalAddresses::from_iter(["10.2.0.1", "127.0.0.1"].map(ip)));
        facts.cheap.links.as_mut().unwrap()[0].addresses.clear();
        facts.cheap.ways_out = Ok([((Family::V4, None), None), ((Family::V6, None), None)].into());
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
            Severity::Broken,
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
    let one_armed = |facts: &mut Facts| facts.cheap.ways_out = Ok([((Family::V4, None), way(3))].into());
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
            Severity::Broken,
            "ext has no carrier, and clients of 2 services come in by it: chosen :20004, web :20003"
        )
    );
    // Clients may be on another link.
    let other = |links: &mut Vec<LinkDetails>| {
        cut(links);
        links.push(link(9, "lan", "192.168.7.1"));
    };
    assert_eq!(found(&other).unwrap().severity, Severity::Warning);
    // The backends' link is examined by probes.
    assert_eq!(found(&|links| links[1].no_carrier = true), None);
}

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
        facts.cheap.ways.as_mut().unwrap().insert(other.ip(), way(3));
        for address in lost {
            facts.cheap.ways.as_mut().unwrap().insert(ip(address), None);
        }
        facts.cheap.is_probed = is_probed;
        let diagnosis = examine_cheap(&facts.cheap);
        let problems = problems(&diagnosis);
        assert_eq!(Severity::of(problems[0].severity), diagnosis.findings[0].severity);
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
        let set = |of: &[&str]| of.iter().copied().map(ip).collect::<BTreeSet<_>>();
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
    assert_eq!(found(&["10.2.0.11"], &[], &[]), Some(Severity::Broken));
    assert_eq!(found(&["10.2.0.11"], &["198.51.100.1"], &[]), Some(Severity::Broken));
    // Containers may be kept from the Internet while clients are inside.
    assert_eq!(found(&["10.2.0.11"], &[], &["172.16.0.1"]), Some(Severity::Warning));
    // One network may be blocked, or all networks.
    let some = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
    assert_eq!(found(&[], &some, &["172.16.0.1"]), Some(Severity::Warning));
    assert_eq!(found(&[], &some[..2], &[]), Some(Severity::Warning));
    assert_eq!(found(&[], &some, &[]), Some(Severity::Broken));
}

#[test]
fn ways_to_backends() {
    let to = |address: &'static str, way: Option<RouteTo>| {
        move |facts: &mut Facts| drop(facts.cheap.ways.as_mut().unwrap().insert(ip(address), way))
    };
    only(&with(to("10.2.0.11", None)), "backend-without-route", Severity::Broken);
    let broadcast = way(3).map(|way| RouteTo { shared: true, ..way });
    let found = only(
        &with(to("10.2.0.11", broadcast)),
        "backend-without-route",
        Severity::Broken,
    );
    assert!(
        found
            .seen
            .contains("1 address of backends is that of a broadcast or anycast: 10.2.0.11"),
        "{}",
        found.seen
    );
    let own = way(1).map(|way| RouteTo { local: true, ..way });
    only(&with(to("10.2.0.11", own)), "backend-is-gateway", Severity::Broken);
    let default = |address: &'static str| {
        move |facts: &mut Facts| {
            let by_router = way(2).map(|way| RouteTo {
                gateway: Some(ip("203.0.113.254")),
                ..way
            });
            let out = facts.cheap.ways_out.as_mut().unwrap();
            out.insert((Family::V4, None), by_router.clone());
            let ways = facts.cheap.ways.as_mut().unwrap();
            ways.remove(&ip("10.2.0.11"));
            ways.insert(ip(address), by_router);
        }
    };
    let found = only(
        &with(default("10.2.0.11")),
        "backend-by-default-route",
        Severity::Warning,
    );
    assert!(found.seen.contains("1 private address of backends"), "{}", found.seen);
    assert!(with(default("198.51.100.9")).is_empty(), "it may be anywhere");
    let both = with(|facts| {
        let ways = facts.cheap.ways.as_mut().unwrap();
        ways.insert(ip("10.2.0.11"), None);
        ways.insert(ip("10.2.0.12"), None);
    });
    let found = only(&both, "backend-without-route", Severity::Broken);
    assert!(found.seen.contains("2 addresses of backends"), "{}", found.seen);
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
        Severity::Warning,
    );
    assert!(with(neighbour("10.2.0.11", 2)).is_empty(), "on another link");
    assert!(with(neighbour("10.2.0.99", 3)).is_empty());
    let narrow = |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[1].mtu = 1400;
    only(&with(narrow), "path-mtu", Severity::Note);
    let mut facts = well();
    facts.cheap.ways_left_out = 7;
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn offloads() {
    let offloads = |offloads| move |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[0].offloads = offloads;
    let lro = Offloads {
        lro: true,
        ..Offloads::default()
    };
    let found = only(&with(offloads(Some(lro))), "large-receive-offload", Severity::Warning);
    assert_eq!(line(&found), "ethtool -K ext lro off");
    let gro = Offloads {
        gro: true,
        ..Offloads::default()
    };
    only(&with(offloads(Some(gro))), "packets-merged", Severity::Note);
    let mut facts = well();
    offloads(None)(&mut facts);
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn kernels() {
    let lack = |fallback| Lack {
        feature: Feature {
            what: "dice",
            config: "CONFIG_NFT_NUMGEN",
            module: Some("nft_numgen"),
            since: None,
            fallback,
        },
        answer: "No such file or directory (ENOENT)".into(),
    };
    let lacks = |fallback| move |facts: &mut Facts| facts.lacks = Ok(vec![lack(fallback)]);
    let found = only(&with(lacks(None)), "kernel-feature-missing", Severity::Broken);
    assert!(found.seen.contains("CONFIG_NFT_NUMGEN"), "{}", found.seen);
    assert!(found.fix.unwrap().to_string().contains("modprobe nft_numgen"));
    only(&with(lacks(Some("coins"))), "kernel-fallback", Severity::Note);
    only(
        &with(|facts| facts.conntrack_filter = Ok(false)),
        "kernel-fallback",
        Severity::Note,
    );
    only(
        &with(|facts| facts.release = "5.15.0-91-generic".into()),
        "kernel-untested",
        Severity::Warning,
    );
    let mut facts = well();
    facts.release = "odd".into();
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn our_table() {
    let state = |state| move |facts: &mut Facts| facts.table.as_mut().unwrap().state = state;
    let ours = tcpgw_core::ruleset::skeleton::comment(FlowMark::default(), tcpgw_core::ruleset::room::Room::default());
    for (case, id, severity) in [
        (TableState::Absent, "table-missing", Severity::Note),
        (TableState::Gone, "table-missing", Severity::Broken),
        (TableState::Unrecorded, "table-unrecorded", Severity::Note),
        (TableState::Changed, "table-changed", Severity::Broken),
        (TableState::Other(Some(ours)), "table-changed", Severity::Broken),
        (
            TableState::Other(Some("tcpgw skeleton 0".into())),
            "table-of-another-version",
            Severity::Warning,
        ),
        (TableState::Other(None), "table-of-another-version", Severity::Warning),
    ] {
        only(&with(state(case)), id, severity);
    }
    let owned = |facts: &mut Facts| facts.table.as_mut().unwrap().owner = Some((77, None));
    only(&with(owned), "table-owned", Severity::Warning);
    let by_daemon = |facts: &mut Facts| {
        owned(facts);
        facts.table.as_mut().unwrap().daemon = Some(77);
    };
    only(&with(by_daemon), "table-owned", Severity::Note);
    let other = FlowMark::new(1, 1).unwrap();
    only(
        &with(|facts| facts.configured_mark = other),
        "table-of-another-mark",
        Severity::Warning,
    );
}

/// Returns a change of the facts: a `filter` table with these rules in `FORWARD`, and with other chains.
fn saved(policy: &str, rules: &str) -> impl FnOnce(&mut Facts) + use<> {
    let text = format!("*filter\n:FORWARD {policy} [0:0]\n:OTHER - [0:0]\n{rules}\nCOMMIT\n");
    move |facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
}

#[test]
fn rules_of_others_are_followed() {
    const ANSWERS: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n";
    for passing in [
        "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
        "-A FORWARD -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        "-A FORWARD -i ext -o br+ -p tcp -m multiport --dports 80,2999:3001 -j ACCEPT",
        "-A FORWARD -d 10.2.0.0/24 -j OTHER\n-A OTHER -p udp -j DROP\n-A OTHER -j ACCEPT",
        "-A FORWARD -g OTHER\n-A OTHER ! -d 10.3.0.0/255.255.0.0 -j ACCEPT",
        "-A FORWARD -j OTHER\n-A FORWARD -j ACCEPT\n-A OTHER ! -p udp -j RETURN\n-A OTHER -j DROP",
        "-A FORWARD -m set --match-set bad src -j DROP\n-A FORWARD -j ACCEPT",
        "-A FORWARD -s 192.0.2.0/24 -j REJECT\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m limit --limit 1/sec -j LOG\n-A FORWARD -j ACCEPT",
    ] {
        assert!(
            with(saved("DROP", &format!("{ANSWERS}{passing}"))).is_empty(),
            "{passing}"
        );
    }
    for dropping in [
        "",
        "-A FORWARD -o docker0 -j ACCEPT",
        "-A FORWARD -p tcp --dport 3001 -j ACCEPT",
        "-A FORWARD -d 10.2.0.0/24 -j OTHER\n-A OTHER -j RETURN",
        "-A FORWARD -j OTHER\n-A OTHER -j OTHER\n-A OTHER -j FORWARD\n-A OTHER -j OTHER",
        "-A FORWARD -g OTHER\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m conntrack ! --ctstate ESTABLISHED -j REJECT\n-A FORWARD -j ACCEPT",
    ] {
        let found = with(saved("DROP", &format!("{ANSWERS}{dropping}")));
        let found = only(&found, "packets-dropped", Severity::Broken);
        assert_eq!(
            line(&found),
            "iptables-legacy -I FORWARD -m connmark --mark 0x00800000/0x00800000 -j ACCEPT"
        );
    }
    for doubtful in [
        "-A FORWARD -s 198.18.0.0/15 -j ACCEPT",
        "-A FORWARD -m socket --transparent -j ACCEPT",
        "-A FORWARD -m socket --transparent -j DROP\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m socket --transparent -j RETURN\n-A FORWARD -j ACCEPT",
        "-A FORWARD -j NFQUEUE --queue-num 1",
    ] {
        let found = with(saved("DROP", &format!("{ANSWERS}{doubtful}")));
        only(&found, "packets-dropped", Severity::Warning);
    }
    // One of two backends is concerned.
    let found = with(saved("ACCEPT", "-A FORWARD -d 10.2.0.12/32 -j DROP"));
    let found = only(&found, "packets-dropped", Severity::Broken);
    assert!(
        found.seen.contains("1 of the 2 backends") && found.seen.contains("10.2.0.12:3000"),
        "{}",
        found.seen
    );
    // Only answers are dropped.
    let found = with(saved("DROP", "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"));
    assert!(
        only(&found, "packets-dropped", Severity::Broken)
            .seen
            .contains("answers from")
    );
}

fn table(family: TableFamily, name: &str, owned: bool) -> ForeignTable {
    ForeignTable {
        family,
        name: name.into(),
        legacy: false,
        owned,
        handle: Some(20),
    }
}

fn chain(table: ForeignTable, hook: FirewallHook, priority: i32, rules: Vec<Rule>, drops: bool) -> FirewallChain {
    let base = FirewallBase {
        hook,
        nat: false,
        priority,
        drops,
    };
    FirewallChain {
        handle: None,
        table,
        name: "c".into(),
        base: Some(base),
        devices: Vec::new(),
        rules,
    }
}

fn nft(chain: FirewallChain) -> impl FnOnce(&mut Facts) {
    move |facts| firewall_of(facts).chains.push(chain)
}

#[test]
fn fixes_are_lines_for_whoever_made_the_table() {
    let forward = |table| chain(table, FirewallHook::Forward, 0, Vec::new(), true);
    let found = with(nft(forward(table(TableFamily::Ip, "mine", false))));
    let found = only(&found, "packets-dropped", Severity::Broken);
    assert_eq!(
        line(&found),
        "nft insert rule ip mine c ct mark and 0x00800000 == 0x00800000 accept"
    );
    let found = with(nft(forward(table(TableFamily::Inet, "firewalld", true))));
    assert!(line(&found[0]).contains("StrictForwardPorts=no"), "{found:?}");
    let found = with(nft(forward(table(TableFamily::Inet, "other", true))));
    assert!(matches!(found[0].fix, Some(Fix::Advice(_))), "{found:?}");
    let early = chain(
        table(TableFamily::Ip, "mine", false),
        FirewallHook::Prerouting,
        -300,
        Vec::new(),
        true,
    );
    let found = with(nft(early));
    assert_eq!(
        line(&found[0]),
        "nft insert rule ip mine c tcp dport { 20003-20004 } accept"
    );
    // The effects of frames' rules are unknown.
    let mut facts = well();
    firewall_of(&mut facts)
        .unjudged
        .push(table(TableFamily::Bridge, "b", false));
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn what_goes_past_conntrack_or_limits_is_found() {
    let doing = |effect, hook, priority| {
        let rule = Rule {
            effects: vec![effect],
            ..Rule::default()
        };
        chain(table(TableFamily::Ip, "mine", false), hook, priority, vec![rule], false)
    };
    let found = with(nft(doing(RuleEffect::Notrack, FirewallHook::Prerouting, -300)));
    assert!(
        found
            .iter()
            .all(|finding| finding.id == "packets-untracked" && finding.severity == Severity::Broken)
    );
    let found = with(nft(doing(RuleEffect::Offload, FirewallHook::Forward, 0)));
    only(&found, "flows-offloaded", Severity::Warning);
}

#[test]
fn drops_of_probes_and_their_answers_are_found() {
    let drops = |hook, text: &str| {
        let (input, output) = if hook == "INPUT" {
            ("DROP", "ACCEPT")
        } else {
            ("ACCEPT", "DROP")
        };
        let text = format!("*filter\n:INPUT {input} [0:0]\n:OUTPUT {output} [0:0]\n{text}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    let id = "probes-dropped";
    let found = only(&with(drops("OUTPUT", "")), id, Severity::Warning);
    assert!(
        line(&found).contains("-I OUTPUT -p tcp -d 10.2.0.11 --dport 3000 -j ACCEPT"),
        "{found:?}"
    );
    let found = only(&with(drops("INPUT", "")), id, Severity::Warning);
    assert!(
        line(&found).contains("-I INPUT -p tcp -s 10.2.0.11 --sport 3000 -j ACCEPT"),
        "{found:?}"
    );
    for (hook, passing) in [
        ("INPUT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ("INPUT", "-A INPUT -i br0 -j ACCEPT"),
        ("OUTPUT", "-A OUTPUT -o br0 -p tcp -j ACCEPT"),
        ("OUTPUT", "-A OUTPUT -d 10.2.0.0/24 -j ACCEPT"),
    ] {
        let found = with(drops(hook, passing));
        assert!(found.is_empty(), "{passing}: {found:#?}");
    }
}

#[test]
fn the_chain_that_was_made_last_gets_the_connections() {
    let dnat = || Rule {
        effects: vec![RuleEffect::Dnat],
        ..Rule::default()
    };
    let other = || {
        let mut chain = chain(
            table(TableFamily::Ip, "nat", false),
            FirewallHook::Prerouting,
            -100,
            vec![dnat()],
            false,
        );
        chain.base = chain.base.map(|base| FirewallBase { nat: true, ..base });
        chain.handle = Some(3);
        chain
    };
    let older = |chain, complete| OlderChains {
        chains: [(TableFamily::Ip, 20, chain)].into(),
        complete,
        ..OlderChains::default()
    };
    let own = |handle, older| Some(OwnTable { handle, older });
    let id = "port-translated-elsewhere";
    for (own, severity, says) in [
        (own(21, Some(older(3, true))), Severity::Warning, "made before"),
        (own(21, Some(older(3, false))), Severity::Warning, "made before"),
        // The table is older, but the chain is not.
        (own(21, Some(older(2, true))), Severity::Broken, "made after"),
        (own(21, Some(older(2, false))), Severity::Warning, "cannot be seen here"),
        (own(21, None), Severity::Warning, "cannot be seen here"),
        (own(19, None), Severity::Broken, "made after"),
        (None, Severity::Warning, "cannot be seen here"),
    ] {
        let found = with(|facts| {
            firewall_of(facts).own_table = own.clone();
            firewall_of(facts).chains.push(other());
        });
        let found = only(&found, id, severity);
        assert!(found.cause.contains(says), "{own:?}: {}", found.cause);
    }
    // iptables-legacy has one chain, whose table existed before or did not.
    let docker =
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 20003 -j DNAT --to-destination 172.17.0.2:80\n";
    for (legacy4, severity) in [(true, Severity::Warning), (false, Severity::Broken)] {
        let found = with(|facts| {
            let older = OlderChains {
                legacy4,
                ..older(1, true)
            };
            firewall_of(facts).own_table = own(21, Some(older));
            facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, docker)));
        });
        only(&found, id, severity);
    }
}

#[test]
fn rules_that_overwrite_the_mark_are_found() {
    const SAVE: &str = "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff";
    let id = "flow-mark-overwritten";
    let mangle = |rules: &str| {
        let text =
            format!("*mangle\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:M - [0:0]\n{rules}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    for spares in [
        "-A POSTROUTING -j CONNMARK --set-xmark 0x1/0xff",
        "-A POSTROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
        "-A POSTROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-A POSTROUTING -p udp -j CONNMARK --set-xmark 0x1/0xffffffff",
        // The mark of tcpgw is already set, so this rule does not match.
        "-A POSTROUTING -m connmark --mark 0x0 -j CONNMARK --set-xmark 0x1/0xffffffff",
        // This rule runs before those of tcpgw write the mark.
        "-A PREROUTING -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x1/0xffffffff",
    ] {
        let found = with(mangle(spares));
        assert!(found.is_empty(), "{spares}: {found:#?}");
    }
    for (rules, line_to_type) in [
        (
            format!("-A POSTROUTING {SAVE}"),
            "POSTROUTING -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        ),
        (
            "-A POSTROUTING -j M\n-A M -j CONNMARK --set-xmark 0x1/0xffffffff".into(),
            "M -m connmark --mark 0x00800000/0x00800000 -j RETURN",
        ),
        (
            format!("-A PREROUTING {SAVE}"),
            "PREROUTING -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        ),
    ] {
        let found = with(mangle(&rules));
        let found = only(&found, id, Severity::Broken);
        assert_eq!(line(&found), format!("iptables-legacy -t mangle -I {line_to_type}"));
    }
    // The packet's mark may have the bits of tcpgw from the ct mark, or only some clients are concerned.
    for doubtful in [
        format!(
            "-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A POSTROUTING {SAVE}"
        ),
        "-A POSTROUTING -d 192.0.2.0/24 -j CONNMARK --set-xmark 0x1/0xffffffff".into(),
    ] {
        only(&with(mangle(&doubtful)), id, Severity::Warning);
    }
    let written = Rule {
        effects: vec![RuleEffect::CtMark(MarkWrite::constant(1))],
        ..Rule::default()
    };
    let early = chain(
        table(TableFamily::Inet, "mine", false),
        FirewallHook::Postrouting,
        -151,
        vec![written],
        false,
    );
    let found = only(&with(nft(early)), id, Severity::Broken);
    assert_eq!(
        line(&found),
        "nft insert rule inet mine c ct mark and 0x00800000 == 0x00800000 accept"
    );
    let lost = |facts: &mut Facts| {
        let example = Some(("203.0.113.1:20003".parse().unwrap(), "10.2.0.11:3000".parse().unwrap()));
        facts.cheap.unmarked = Ok(crate::view::UnmarkedFlows { count: 1, example });
    };
    let found = only(&with(lost), "flows-unmarked", Severity::Broken);
    assert!(found.seen.starts_with("1 flow from services"), "{}", found.seen);
}

#[test]
fn ports_that_another_table_translates() {
    let nat = |rules: &str| {
        let text = format!("*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n{rules}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    let id = "port-translated-elsewhere";
    let docker = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport";
    let to = "-j DNAT --to-destination 172.17.0.2:80";
    only(&with(nat(&format!("{docker} 20003 {to}"))), id, Severity::Warning);
    only(&with(nat(&format!("{docker} 20000:20010 {to}"))), id, Severity::Warning);
    assert!(with(nat(&format!("{docker} 8080 {to}"))).is_empty());
    assert!(
        with(nat(&format!(
            "-A PREROUTING -d 198.51.100.9/32 -p tcp --dport 20004 {to}"
        )))
        .is_empty()
    );
    let early = |facts: &mut Facts| {
        nat(&format!("-A PREROUTING -p tcp --dport 20003 {to}"))(facts);
        for chain in Arc::make_mut(facts.cheap.legacy.as_mut().unwrap()) {
            chain.base = chain.base.map(|base| FirewallBase { priority: -200, ..base });
        }
    };
    only(&with(early), id, Severity::Broken);
}

#[test]
fn many_services_and_rules_end_soon() {
    use std::fmt::Write;

    let mut services = String::new();
    for number in 0..5000 {
        let comma = if number > 0 { "," } else { "" };
        let (port, a, b) = (10_000 + number, number / 250, number % 250 + 1);
        let _ = write!(
            services,
            r#"{comma}{{"name":"s{number}","port":{port},"backends":["10.9.{a}.{b}:80"]}}"#
        );
    }
    let state = format!(r#"{{"version":1,"services":[{services}]}}"#);
    let mut rules = String::new();
    for number in 0..5000 {
        let _ = writeln!(
            rules,
            "-A FORWARD -d 10.8.{}.{}/32 -p tcp --dport 80 -j DROP",
            number / 250,
            number % 250
        );
    }
    let found = with(|facts| {
        facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
        saved("DROP", &rules)(facts);
    });
    let found = only(&found, "packets-dropped", Severity::Broken);
    assert!(
        found.seen.contains("of the 200 backends that were looked at"),
        "{}",
        found.seen
    );
}
