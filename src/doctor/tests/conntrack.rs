//! Findings about conntrack and source ports.

use super::*;

#[test]
fn conntrack() {
    for (count, id, severity) in [
        ("209716", "conntrack-filling", FindingSeverity::Warning),
        ("249036", "conntrack-filling", FindingSeverity::Warning),
        ("249037", "conntrack-full", FindingSeverity::Broken),
    ] {
        let found = only(&with(set("net.netfilter.nf_conntrack_count", count)), id, severity);
        assert_eq!(line(&found), "sysctl -w net.netfilter.nf_conntrack_max=524288");
    }
    assert!(with(set("net.netfilter.nf_conntrack_count", "209715")).is_empty());
    only(
        &with(set("net.netfilter.nf_conntrack_buckets", "1024")),
        "conntrack-long-chains",
        FindingSeverity::Warning,
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
            FindingSeverity::Note,
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
    only(&with(stats(dropped)), "conntrack-dropped", FindingSeverity::Warning);
    let raced = Stats {
        insert_failed: 1,
        ..Stats::default()
    };
    only(&with(stats(raced)), "conntrack-races", FindingSeverity::Note);
    let mut facts = well();
    facts.cheap.sysctls.remove("net.netfilter.nf_conntrack_max");
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn source_ports() {
    for (flows, severity) in [(51_610, FindingSeverity::Warning), (63_867, FindingSeverity::Broken)] {
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
    let found = only(&with(reused(1000)), "snat-port-reuse", FindingSeverity::Note);
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
    assert_eq!(found.severity, FindingSeverity::Warning);
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
            .all(|finding| finding.id == "packets-untracked" && finding.severity == FindingSeverity::Broken)
    );
    let found = with(nft(doing(RuleEffect::Offload, FirewallHook::Forward, 0)));
    only(&found, "flows-offloaded", FindingSeverity::Warning);
}
