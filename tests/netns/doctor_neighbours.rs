//! Firewalls of other programs that keep the hosts of a link from finding the gateway (neighbour discovery, ARP), as
//! `doctor` judges them.

use crate::doctor::{SHORT, doctor, line, reaches, web};
use crate::harness::client::PATIENCE;
use crate::harness::plan::PUBLIC;
use crate::harness::{Net, wait_until};

const DROPPED: &str = "packets-dropped";

/// Lets client and gateway forget each other's link-layer addresses.
fn forget_neighbours(net: &Net) {
    for (host, link) in [("client", "eth0"), ("gateway", "ext"), ("gateway", "br0")] {
        for family in ["-4", "-6"] {
            net.sh(host, &format!("ip {family} neigh flush dev {link}")).ok();
        }
    }
}

/// Returns true when a client that does not know the gateway's link-layer address fails to connect.
///
/// What is left of an earlier connection, such as its FIN, may make the gateway look for the client, which learns the
/// gateway's address from the question. So the addresses are forgotten until nobody has done that.
fn is_hidden(net: &Net, family: usize) -> bool {
    wait_until(PATIENCE, || {
        forget_neighbours(net);
        !reaches(net, family, SHORT)
    })
}

#[test]
fn firewalls_that_hide_the_gateway_from_its_neighbours_are_errors() {
    let net = Net::new();
    let _servers = web(&net);
    for (family, table, chain) in [
        (
            1,
            "inet",
            "type filter hook input priority 0; policy drop; ct state established,related accept; \
             iifname { \"lo\", \"br0\" } accept; tcp dport 22 accept; icmp type echo-request accept;",
        ),
        (
            1,
            "ip6",
            "type filter hook input priority 0; iifname \"ext\" icmpv6 type nd-neighbor-solicit drop;",
        ),
        (
            1,
            "ip6",
            "type filter hook output priority 0; oifname \"ext\" icmpv6 type nd-neighbor-advert drop;",
        ),
        (0, "arp", "type filter hook input priority 0; policy drop;"),
        (
            0,
            "arp",
            "type filter hook output priority 0; arp operation reply drop;",
        ),
        (
            0,
            "arp",
            "type filter hook output priority 0; arp saddr ip 203.0.113.1 drop;",
        ),
        (
            0,
            "arp",
            "type filter hook input priority 0; arp daddr ip { 203.0.113.0/28, 192.0.2.1 } drop;",
        ),
        (
            1,
            "netdev",
            "type filter hook ingress device \"ext\" priority 0; meta l4proto ipv6-icmp drop;",
        ),
        (
            1,
            "inet",
            "type filter hook ingress device \"ext\" priority 0; icmpv6 type nd-neighbor-solicit drop;",
        ),
        (1, "ip6", "type filter hook input priority 0; ip6 daddr ff00::/8 drop;"),
        (
            1,
            "ip6",
            "type filter hook prerouting priority mangle; iifname \"ext\" ip6 hoplimit set 64;",
        ),
        (
            1,
            "inet",
            "type filter hook output priority mangle; oifname \"ext\" icmpv6 type nd-neighbor-advert ip6 hoplimit set 64;",
        ),
        (
            0,
            "netdev",
            "type filter hook ingress device \"ext\" priority 0; ether type arp drop;",
        ),
        (
            0,
            "netdev",
            "type filter hook egress device \"ext\" priority 0; arp operation reply drop;",
        ),
        (
            0,
            "netdev",
            "type filter hook egress device \"ext\" priority 0; ether type arp drop;",
        ),
        (
            0,
            "netdev",
            "type filter hook ingress device \"ext\" priority 0; policy drop; ether type { ip, ip6 } accept;",
        ),
    ] {
        assert!(wait_until(PATIENCE, || reaches(&net, family, PATIENCE)), "{chain}");
        net.nft("gateway", &format!("table {table} fw {{ chain f {{ {chain} }}; }}"));
        assert!(is_hidden(&net, family), "{chain}: {} is reached", PUBLIC[family]);
        let report = doctor(&net);
        let found = report.one(DROPPED, "broken");
        assert!(found["seen"].to_string().contains("ext: "), "{found:#}");
        assert_eq!(report.status, 1);
        net.json(&["status", "--interval", "0s"], 1);
        net.sh("gateway", &line(found)).ok();
        // A resolution that is under way may end first, and fail connections that wait for it.
        let is_reached = || reaches(&net, family, PATIENCE);
        assert!(wait_until(PATIENCE, is_reached), "{chain}");
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{chain}: {:#}", report.json);
        net.sh("gateway", &format!("nft delete table {table} fw")).ok();
    }
}

/// A firewall of an interface that lets only TCP and echo requests pass hides the gateway in both families.
#[test]
fn a_firewall_of_an_interface_that_forgot_neighbours_is_told_of_both_families() {
    let net = Net::new();
    let _servers = web(&net);
    let chain = "type filter hook ingress device \"ext\" priority 0; policy drop; ip protocol tcp accept; \
                 ip protocol icmp accept; ip6 nexthdr tcp accept;";
    net.nft("gateway", &format!("table netdev fw {{ chain f {{ {chain} }}; }}"));
    for family in [0, 1] {
        assert!(is_hidden(&net, family), "{} is reached", PUBLIC[family]);
    }
    let report = doctor(&net);
    let told = report.findings(DROPPED);
    let of = |words: &str| {
        let of = told.iter().filter(|found| found["seen"].to_string().contains(words));
        of.map(|found| found["severity"].as_str().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("requests and answers of ARP that come in by ext"),
        ["broken"],
        "{:#}",
        report.json
    );
    assert_eq!(
        of("neighbour solicitations and advertisements that come in by ext"),
        ["broken"],
        "{:#}",
        report.json
    );
    assert_eq!(told.len(), 2, "{:#}", report.json);
    let lines: Vec<String> = told.into_iter().map(line).collect();
    for line in lines {
        net.sh("gateway", &line).ok();
    }
    for family in [0, 1] {
        assert!(wait_until(PATIENCE, || reaches(&net, family, PATIENCE)));
    }
    assert!(doctor(&net).bad().is_empty());
}

/// Whom a limit or a list of link-layer addresses spares is not known; a rule about one host is meant.
#[test]
fn rules_that_may_drop_arp_are_warnings() {
    let net = Net::new();
    let _servers = web(&net);
    let ingress = "type filter hook ingress device \"ext\" priority 0;";
    for (table, rule, is_told) in [
        (
            "netdev",
            format!("{ingress} meta protocol arp limit rate over 1/minute burst 1 packets drop;"),
            true,
        ),
        (
            "netdev",
            format!("{ingress} ether saddr != 02:00:00:00:00:01 ether type arp drop;"),
            true,
        ),
        (
            "netdev",
            format!("{ingress} ether saddr 02:00:00:00:00:01 ether type arp drop;"),
            false,
        ),
        (
            "arp",
            "type filter hook input priority 0; arp saddr ether != 02:00:00:00:00:01 drop;".into(),
            true,
        ),
        (
            "arp",
            "type filter hook input priority 0; arp saddr ether 02:00:00:00:00:01 drop;".into(),
            false,
        ),
    ] {
        net.nft("gateway", &format!("table {table} fw {{ chain f {{ {rule} }}; }}"));
        let said = doctor(&net);
        let severities: Vec<_> = said.findings(DROPPED).iter().map(|of| of["severity"].clone()).collect();
        let expected: Vec<_> = is_told
            .then(|| "warning".into())
            .into_iter()
            .collect::<Vec<serde_json::Value>>();
        assert_eq!(severities, expected, "{rule}: {:#}", said.json);
        net.sh("gateway", &format!("nft delete table {table} fw")).ok();
    }
}

/// Ingress of the family inet sees no ARP, and ARP rules about other hosts are meant.
#[test]
fn rules_about_arp_that_hide_nobody_are_well() {
    let net = Net::new();
    let _servers = web(&net);
    for (table, chain) in [
        (
            "inet",
            "type filter hook ingress device \"ext\" priority 0; ether type arp drop;",
        ),
        (
            "inet",
            "type filter hook ingress device \"ext\" priority 0; policy drop; meta protocol { ip, ip6 } accept;",
        ),
        (
            "arp",
            "type filter hook input priority 0; arp saddr ip 203.0.113.77 drop;",
        ),
        (
            "arp",
            "type filter hook output priority 0; arp saddr ip != { 203.0.113.1, 203.0.113.2, 10.2.0.1 } drop;",
        ),
        (
            "netdev",
            "type filter hook ingress device \"ext\" priority 0; arp daddr ip 203.0.113.77 drop;",
        ),
    ] {
        net.nft("gateway", &format!("table {table} fw {{ chain f {{ {chain} }}; }}"));
        forget_neighbours(&net);
        for family in [0, 1] {
            assert!(wait_until(PATIENCE, || reaches(&net, family, PATIENCE)), "{chain}");
        }
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{chain}: {:#}", report.json);
        net.sh("gateway", &format!("nft delete table {table} fw")).ok();
    }
    // Those of the only backends are an error of their link.
    net.nft(
        "gateway",
        "table arp fw { chain f { type filter hook input priority 0; arp operation reply arp saddr ip 10.2.0.0/24 drop; }; }",
    );
    let report = doctor(&net);
    let seen = report.one(DROPPED, "broken")["seen"].to_string();
    assert!(seen.contains("answers of ARP that come in by br0"), "{seen}");
}

/// Usual firewalls accept neighbour discovery, some with conditions that the doctor cannot evaluate.
#[test]
fn firewalls_that_accept_neighbour_discovery_are_well() {
    let net = Net::new();
    let _servers = web(&net);
    let begin = "type filter hook input priority 0; policy drop; ct state established,related accept; iifname \"lo\" accept; \
                 icmpv6 type echo-request limit rate over 10/second drop;";
    for accepts in [
        "meta l4proto ipv6-icmp accept;",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } ip6 hoplimit 255 accept;",
        "ip6 saddr { fe80::/10, 2001:db8::/32, fd00:2::/64 } icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } limit rate 100/second accept;",
        "ct state untracked accept;",
    ] {
        net.nft(
            "gateway",
            &format!("table inet fw {{ chain f {{ {begin} {accepts} }}; }}"),
        );
        forget_neighbours(&net);
        assert!(wait_until(PATIENCE, || reaches(&net, 1, PATIENCE)), "{accepts}");
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{accepts}: {:#}", report.json);
        net.sh("gateway", "nft delete table inet fw").ok();
    }
    for program in ["ip6tables-nft", "ip6tables-legacy"] {
        let accept =
            |kind: u8| format!("{program} -A INPUT -p ipv6-icmp --icmpv6-type {kind} -m hl --hl-eq 255 -j ACCEPT && ");
        let established = format!("{program} -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT && ");
        let rules = format!("{established}{}{}{program} -P INPUT DROP", accept(135), accept(136));
        net.sh("gateway", &rules).ok();
        forget_neighbours(&net);
        assert!(wait_until(PATIENCE, || reaches(&net, 1, PATIENCE)), "{program}");
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{program}: {:#}", report.json);
        net.sh("gateway", &format!("{program} -P INPUT ACCEPT && {program} -F INPUT"))
            .ok();
    }
}
