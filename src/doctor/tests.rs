mod addresses;
mod clients;
mod conntrack;
mod docker;
mod firewalls;
mod forwarding;
mod kernels;
mod neighbours;
mod packets;
mod places;
mod probe_routes;
mod rewrites;
mod routes;
mod served;

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
use tcpgw_kernel::firewall::{Load, Relation, RuleField, Test};
use tcpgw_kernel::listeners::Listener;
use tcpgw_kernel::nftables::nat_order::OlderChains;
use tcpgw_kernel::requirements::{Feature, MissingFeature};
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
    let client_routes = [
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
        backend_routes: Ok(backends.map(|address| (address, way(3))).into()),
        refused_ports: BTreeSet::new(),
        routes_left_out: 0,
        client_routes: Ok(client_routes.into()),
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
        lost_families: BTreeSet::new(),
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
    let told = |finding: &&Finding| finding.severity < FindingSeverity::Note && finding.id != "address-not-local";
    let ids: BTreeSet<&str> = found.findings.iter().filter(told).map(|finding| finding.id).collect();
    assert_eq!(kinds, ids);
    // The severity is the same there.
    for problem in &problems {
        let same = found.findings.iter().filter(|finding| finding.id == problem.kind.id());
        let worst = same.map(|finding| finding.severity).min();
        assert_eq!(worst, Some(FindingSeverity::of(problem.severity)), "{problem:?}");
    }
    diagnosis.findings
}

fn set(name: &str, value: &str) -> impl FnOnce(&mut Facts) + use<> {
    let (name, value) = (name.to_owned(), value.to_owned());
    move |facts| drop(facts.cheap.sysctls.insert(name, value))
}

#[track_caller]
fn only(findings: &[Finding], id: &str, severity: FindingSeverity) -> Finding {
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
    facts
        .cheap
        .backend_routes
        .as_mut()
        .unwrap()
        .insert(ip("10.2.0.11"), None);
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
        ("table-missing", ProblemKind::NoTable),
        ("table-of-another-mark", ProblemKind::OtherMark),
    ];
    let same = ProblemKind::ALL.iter().map(|kind| (kind.id(), *kind)).chain(others);
    let mut count = 0;
    for (name, kind) in same {
        if let Some((id, worst)) = FINDINGS.iter().find(|(id, _)| *id == name) {
            assert_eq!(*worst, FindingSeverity::of(kind.severity()), "{id}");
            count += 1;
        }
    }
    assert!(count > KINDS.len());
    for kind in KINDS {
        assert!(FINDINGS.iter().any(|(id, _)| *id == kind.id()), "{kind:?}");
    }
}

#[test]
fn what_the_daemon_tells_is_in_the_diagnosis_and_as_bad_as_there() {
    let well = examine(&well());
    for kind in ProblemKind::ALL {
        for severity in [problem::Severity::Error, problem::Severity::Warning] {
            let problem = Problem::new(*kind, "words").with_severity(severity);
            let expected = FindingSeverity::of(severity);
            let mut diagnosis = well.clone();
            add_of_daemon(&mut diagnosis, std::slice::from_ref(&problem));
            only(&diagnosis.findings, kind.id(), expected);
            // The doctor's own findings are one that is sure and one that is not, or none.
            for own in [FindingSeverity::Broken, FindingSeverity::Warning, FindingSeverity::Note] {
                let mut diagnosis = well.clone();
                for severity in [own, FindingSeverity::Warning] {
                    diagnosis.found(kind.id(), severity, "own words".into(), String::new(), None);
                }
                add_of_daemon(&mut diagnosis, std::slice::from_ref(&problem));
                let found: Vec<FindingSeverity> = diagnosis.findings.iter().map(|finding| finding.severity).collect();
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
    facts.cheap.backend_routes = Err(no());
    facts.cheap.client_routes = Err(no());
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
    only(&diagnosis.findings, "ip-forward-off", FindingSeverity::Broken);
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

/// Returns a change of the facts: a `filter` table with these rules in `FORWARD`, and with other chains.
fn saved(policy: &str, rules: &str) -> impl FnOnce(&mut Facts) + use<> {
    let text = format!("*filter\n:FORWARD {policy} [0:0]\n:OTHER - [0:0]\n{rules}\nCOMMIT\n");
    move |facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
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

/// Returns the test that a field of a packet has this value.
fn is(field: RuleField, value: &[u8]) -> Test {
    Test::Compare {
        load: Load {
            field,
            len: value.len(),
        },
        mask: None,
        relation: Relation::Equal,
        value: value.to_vec(),
    }
}
