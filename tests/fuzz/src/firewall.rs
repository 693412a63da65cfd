//! Other programs' rules, as nftables tells them and as `iptables-save` prints them, and what the doctor makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use tcpgw::doctor::{CheapFacts, Effort, Facts, Firewall, ServedClient, TableFacts, TableState, examine};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_kernel::conntrack::stats::Stats;
use tcpgw_kernel::firewall::{self, FirewallChain, RuleVerdict, TableFamily};
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::route::RouteTo;
use tcpgw_kernel::route::links::LinkDetails;

use super::messages;
use super::sample::sample;

/// Checks that any rules are read or refused, and that those that were read can be judged.
pub fn check(bytes: &[u8]) {
    if messages::kind(bytes).is_some() {
        black_box(&firewall::owner(&mut RecordedAnswers::new(bytes)));
        match firewall::read(&mut RecordedAnswers::new(bytes), || Ok(RecordedAnswers::new(bytes))) {
            Ok((chains, unread)) if can_be_walked(&chains) => {
                judge(|facts| {
                    facts.cheap.firewall = Ok(Arc::new(Firewall {
                        chains,
                        unjudged: unread.other_families,
                        own_table: unread.own_table,
                        changes_silently: unread.changes_silently,
                    }));
                });
            }
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        for family in [TableFamily::Ip, TableFamily::Ip6] {
            let chains: Vec<FirewallChain> = firewall::parse_save(family, text);
            if !can_be_walked(&chains) {
                continue;
            }
            judge(|facts| match family {
                TableFamily::Ip => facts.cheap.legacy = Ok(Arc::new(chains)),
                _ => facts.cheap.legacy6 = Ok(Arc::new(chains)),
            });
        }
    }
}

/// Largest number of jumps in chains: a packet's way through them is bounded, but takes seconds with many jumps.
const MOST_JUMPS: usize = 12;

fn can_be_walked(chains: &[FirewallChain]) -> bool {
    let leads_on = |verdict: &RuleVerdict| {
        matches!(
            verdict,
            RuleVerdict::Jump(_) | RuleVerdict::Goto(_) | RuleVerdict::Map(..)
        )
    };
    let rules = chains.iter().flat_map(|chain| &chain.rules);
    rules.filter(|rule| leads_on(&rule.verdict)).count() <= MOST_JUMPS
}

/// Runs the doctor's checks of a gateway with the sample's services and these rules.
fn judge(add: impl FnOnce(&mut Facts)) {
    let mut facts = gateway();
    add(&mut facts);
    for finding in examine(&facts).findings {
        assert!(!finding.seen.is_empty() && !finding.cause.is_empty());
    }
}

fn gateway() -> Facts {
    let public = ["203.0.113.1", "2001:db8:1::1"].map(|text| text.parse::<IpAddr>().expect("an address"));
    let way = |index| {
        Some(RouteTo {
            index,
            name: None,
            gateway: None,
            local: false,
            shared: false,
        })
    };
    let link = |index, name: &str| LinkDetails {
        index,
        name: name.to_owned(),
        up: true,
        mtu: 1500,
        ..LinkDetails::default()
    };
    let backends = sample().summary.services.iter().flat_map(ServiceSummary::backends);
    let families = [Family::V4, Family::V6];
    let cheap = CheapFacts {
        effort: Effort::Thorough,
        mark: FlowMark::default(),
        protect_backends: true,
        configured_to_protect: true,
        configuration: "/etc/tcpgw/config.toml".into(),
        is_probed: false,
        services: Arc::new(sample().summary.clone()),
        sysctls: BTreeMap::new(),
        links: Ok(vec![link(2, "ext"), link(3, "br0")]),
        local: Ok(public.into_iter().collect()),
        unrouted: Ok(BTreeSet::new()),
        backend_routes: Ok(backends.map(|backend| (backend.ip(), way(3))).collect()),
        refused_ports: BTreeSet::new(),
        routes_left_out: 0,
        served: (1..=3)
            .map(|last| ServedClient {
                client: ([198, 51, 100, last], 40_000).into(),
                public: (public[0], sample().summary.services[0].port).into(),
                backend: sample().summary.services[0].backends().next().expect("a backend"),
                link: Some(2),
                is_recent: true,
                is_banned: last == 3,
            })
            .collect(),
        answers: Ok(BTreeMap::new()),
        lost_answers: Ok(tcpgw::doctor::LostAnswers::default()),
        misrouted_probes: Ok(Vec::new()),
        client_routes: Ok(families.map(|family| ((family, None), way(2))).into()),
        firewall: Ok(Arc::default()),
        legacy: Ok(Arc::default()),
        legacy6: Ok(Arc::default()),
        ipsec: Ok(Arc::default()),
        unmarked: Ok(tcpgw::view::UnmarkedFlows::default()),
        lost_addresses: BTreeMap::new(),
        lost_families: BTreeSet::new(),
        refused_marks: Ok(std::collections::BTreeSet::from([
            (Family::V4, false, 5),
            (Family::V6, true, 6),
        ])),
        reverse_path_drops: Some(0),
    };
    Facts {
        idle_timeout: None,
        configured_mark: FlowMark::default(),
        cheap,
        release: "6.1.0".to_owned(),
        table: Ok(TableFacts {
            state: TableState::AsWritten,
            mark: Some(FlowMark::default()),
            owner: None,
            daemon: None,
        }),
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
