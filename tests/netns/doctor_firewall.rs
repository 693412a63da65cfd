//! Firewalls of other programs that drop forwarded packets: `doctor` finds them and proposes the command that lets the packets
//! pass.

use crate::doctor::{PORT, SHORT, breaks, breaks_and_heals, doctor, line, passes, web};
use crate::harness::Net;
use crate::harness::client::connect;
use crate::harness::plan::{addresses, at};

const DROPPED: &str = "packets-dropped";

#[test]
fn a_policy_of_drop_in_iptables_is_found_in_both_kinds_and_families() {
    let net = Net::new();
    let _servers = web(&net);
    for (family, program) in [
        (0, "iptables-nft"),
        (1, "ip6tables-nft"),
        (0, "iptables-legacy"),
        (1, "ip6tables-legacy"),
    ] {
        breaks_and_heals(&net, family, DROPPED, &format!("{program} -P FORWARD DROP"));
    }
}

/// Output of `iptables-save` on a machine with Docker and one published container.
const DOCKER: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";

#[test]
fn docker_is_told_in_the_chain_that_it_keeps_for_users() {
    let net = Net::new();
    let _servers = web(&net);
    for program in ["iptables-nft", "iptables-legacy"] {
        let rules = net.file("docker.rules");
        std::fs::write(&rules, DOCKER).expect("a file can be written");
        breaks_and_heals(
            &net,
            0,
            DROPPED,
            &format!("{program}-restore {}", rules.to_string_lossy()),
        );
        let user = net.sh("gateway", &format!("{program} -S DOCKER-USER")).ok();
        assert!(user.contains("connmark"), "{user}");
    }
}

/// The forwarding part of what ufw loads when it is enabled.
const UFW: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-forward - [0:0]
:ufw-after-forward - [0:0]
:ufw-after-logging-forward - [0:0]
:ufw-reject-forward - [0:0]
:ufw-user-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-after-logging-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"
COMMIT
";

#[test]
fn ufw_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    let rules = net.file("ufw.rules");
    std::fs::write(&rules, UFW).expect("a file can be written");
    breaks_and_heals(
        &net,
        0,
        DROPPED,
        &format!("iptables-nft-restore {}", rules.to_string_lossy()),
    );
    let answer = net.sh("gateway", "iptables-nft -D FORWARD 1").ok();
    drop(answer);
    let found = doctor(&net);
    let cause = found.one(DROPPED, "broken")["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("ufw default allow routed"), "{cause}");
}

/// Returns the forwarding part of firewalld's table. By default firewalld accepts each connection with a translated destination,
/// whichever program translated it.
fn firewalld(translated: &str) -> String {
    format!(
        "table inet firewalld {{
            chain filter_FORWARD {{
                type filter hook forward priority filter + 10; policy accept;
                ct state {{ established, related }} accept
                {translated}
                iifname \"lo\" accept
                ct state invalid drop
                ip6 daddr {{ ::/96, 2002::/24 }} reject with icmpv6 type addr-unreachable
                jump filter_FORWARD_POLICIES
                reject with icmpx type admin-prohibited
            }}
            chain filter_FORWARD_POLICIES {{
                iifname \"ext\" oifname \"ext\" jump filter_FWD_public
                iifname \"ext\" reject with icmpx type admin-prohibited
            }}
            chain filter_FWD_public {{ meta l4proto {{ icmp, ipv6-icmp }} accept; }}
            chain raw_PREROUTING {{
                type filter hook prerouting priority raw + 10; policy accept;
                icmpv6 type {{ nd-neighbor-solicit, nd-router-advert }} accept
                meta nfproto ipv6 fib saddr . mark . iif oif missing drop
            }}
        }}"
    )
}

#[test]
fn firewalld_is_found_where_it_is_strict_and_no_trouble_where_it_is_not() {
    let net = Net::new();
    let _servers = web(&net);
    net.nft("gateway", &firewalld("ct status dnat accept"));
    for family in [0, 1] {
        passes(&net, family);
    }
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
    net.nft("gateway", "delete table inet firewalld");
    let rules = net.file("strict.nft");
    std::fs::write(&rules, firewalld("")).expect("a file can be written");
    for family in [0, 1] {
        breaks_and_heals(&net, family, DROPPED, &format!("nft -f {}", rules.to_string_lossy()));
        net.nft("gateway", "delete table inet firewalld");
    }
}

#[test]
fn tables_by_hand_are_judged_by_what_they_do_to_our_packets() {
    let net = Net::new();
    let _servers = web(&net);
    let table = |rules: &str| {
        format!("table inet mine {{ chain forward {{ type filter hook forward priority 0; policy drop; {rules}; }}; }}")
    };
    // Let pass in ways that can be followed.
    for rules in [
        "ct status dnat accept; ct state established accept",
        "ct state vmap { established : accept, related : accept, invalid : drop }; iifname \"ext\" oifname \"br0\" accept",
        "ct mark & 0x00800000 == 0x00800000 accept",
        "ip daddr 10.2.0.0/24 accept; ip saddr 10.2.0.8/29 accept; ip6 daddr fd00:2::/64 accept; ip6 saddr fd00:2::/64 accept",
        "tcp dport 3000-3010 accept; tcp sport { 80, 3000 } accept",
        "ip daddr . tcp dport { 10.2.0.11 . 3000, 10.2.0.12 . 3000 } accept; meta nfproto ipv6 accept; ct state established accept",
        "udp dport 53 drop; ip saddr 192.0.2.0/24 drop; oifname \"br*\" accept; iifname \"br0\" accept",
        "iifname { \"ext\", \"br0\" } jump more; }; chain more { ct state { new, established } accept",
    ] {
        net.nft("gateway", &table(rules));
        passes(&net, 0);
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{rules}: {:#}", report.json);
        net.nft("gateway", "delete table inet mine");
    }
    // Not let pass.
    for rules in [
        "",
        "ct state established,related accept",
        "ct state new drop; accept",
        "tcp dport 22 accept; ip daddr 10.3.0.0/16 accept; iifname \"eth9\" accept",
        "oifname != \"br0\" accept",
        "tcp dport != 3000 accept",
        "ip daddr 10.2.0.0/24 goto sink; accept; }; chain sink { counter; reject",
    ] {
        let line = format!("nft -f - <<'END'\n{}\nEND", table(rules));
        breaks_and_heals(&net, 0, DROPPED, &line);
        net.nft("gateway", "delete table inet mine");
    }
    // Only answers are dropped: the handshake is.
    let answers = table("ct state new accept");
    breaks_and_heals(&net, 0, DROPPED, &format!("nft -f - <<'END'\n{answers}\nEND"));
    net.nft("gateway", "delete table inet mine");
    // Only some clients get through: that may be meant.
    net.nft(
        "gateway",
        &table("ip saddr 198.18.0.0/15 accept; ct state established accept; meta nfproto ipv6 accept"),
    );
    breaks(&net, 0);
    let report = doctor(&net);
    report.one(DROPPED, "warning");
}

#[test]
fn drops_before_translation_are_found_by_the_public_port() {
    let net = Net::new();
    let _servers = web(&net);
    let table = format!(
        "table ip early {{ chain pre {{ type filter hook prerouting priority raw; tcp dport {PORT} drop; }}; }}"
    );
    breaks_and_heals(&net, 0, DROPPED, &format!("nft -f - <<'END'\n{table}\nEND"));
    breaks_and_heals(
        &net,
        0,
        DROPPED,
        "iptables-legacy -t mangle -P PREROUTING DROP && iptables-legacy -t mangle -A PREROUTING ! -i ext -j ACCEPT",
    );
}

#[test]
fn drops_of_the_gateways_own_connections_to_backends_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let [backend, _] = addresses("b1");
    let own = || {
        net.within("gateway", || {
            connect(at(&backend.to_string(), 3000), std::time::Duration::from_millis(400))
        })
        .is_ok()
    };
    for rule in [
        "iptables-nft -A OUTPUT -o br0 -p tcp -j DROP",
        "iptables-legacy -P INPUT DROP",
        "nft 'table ip mine { chain out { type filter hook output priority 0; policy drop; oifname \"lo\" accept; }; }'",
    ] {
        assert!(own());
        net.sh("gateway", rule).ok();
        assert!(!own(), "{rule}");
        passes(&net, 0);
        let report = doctor(&net);
        assert_eq!(report.status, 0, "{:#}", report.json);
        for _ in 0..2 {
            if let Some(finding) = doctor(&net).findings("probes-dropped").first() {
                net.sh("gateway", &line(finding)).ok();
            }
        }
        assert!(own(), "{rule}");
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{:#}", report.json);
    }
}

#[test]
fn packets_off_conntrack_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let id = "packets-untracked";
    let line = format!("iptables-nft -t raw -A PREROUTING -p tcp --dport {PORT} -j CT --notrack");
    breaks_and_heals(&net, 0, id, &line);
    let table =
        "table inet bare { chain pre { type filter hook prerouting priority raw; ip saddr 10.2.0.0/24 notrack; }; }";
    breaks_and_heals(&net, 0, id, &format!("nft -f - <<'END'\n{table}\nEND"));
}

#[test]
fn flows_that_are_sent_past_the_limits_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let table = "table inet fast {
        flowtable short { hook ingress priority filter; devices = { ext, br0 }; }
        chain forward { type filter hook forward priority filter; meta l4proto tcp flow add @short; }
    }";
    if net.run_with("gateway", &["nft", "-f", "-"], table).status != 0 {
        println!("this kernel has no flowtables: nothing to test");
        return;
    }
    let report = doctor(&net);
    let line = line(report.one("flows-offloaded", "warning"));
    net.sh("gateway", &line).ok();
    assert!(doctor(&net).findings("flows-offloaded").is_empty());
}

#[test]
fn drops_at_interfaces_are_found_and_healed() {
    let net = Net::new();
    let _servers = web(&net);
    // Every port of the bridge.
    let ports = net
        .sh(
            "gateway",
            "ip -o link show master br0 | sed 's/^[0-9]*: //; s/[@:].*//' | paste -sd,",
        )
        .ok();
    let ports = ports.trim();
    for (family, chain) in [
        (0, format!("hook ingress device ext priority 0; tcp dport {PORT} drop")),
        (
            1,
            "hook ingress device ext priority 0; meta protocol ip6 meta l4proto tcp drop".to_owned(),
        ),
        (
            0,
            "hook egress device br0 priority 0; ip daddr 10.2.0.0/24 drop".to_owned(),
        ),
        (
            0,
            "hook ingress device br0 priority 0; ip saddr { 10.2.0.11, 10.2.0.12 } drop".to_owned(),
        ),
        (0, "hook egress device ext priority 0; ip protocol tcp drop".to_owned()),
        (
            0,
            format!("hook egress devices = {{ {ports} }} priority 0; tcp dport 3000 drop"),
        ),
    ] {
        let line = format!("nft 'table netdev mine {{ chain c {{ type filter {chain}; }}; }}'");
        breaks_and_heals(&net, family, DROPPED, &line);
        net.nft("gateway", "delete table netdev mine");
    }
}

/// Drops on the link below a VLAN are found, because all packets of the VLAN pass that link.
#[test]
fn drops_below_a_vlan_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh("gateway", "ip link add under type bridge && ip link set under up")
        .ok();
    let vlan = "ip link add link under name over type vlan id 5";
    if net.sh("gateway", vlan).status != 0 {
        println!("this kernel has no VLANs: nothing to test");
        return;
    }
    net.sh(
        "gateway",
        "ip link set over up && ip address add 192.0.2.1/24 dev over && ip route replace default via 192.0.2.2",
    )
    .ok();
    assert!(doctor(&net).findings(DROPPED).is_empty());
    net.nft(
        "gateway",
        "table netdev mine { chain c { type filter hook ingress device under priority 0; ip protocol tcp drop; }; }",
    );
    let report = doctor(&net);
    report.one(DROPPED, "broken");
    assert!(report.unchecked().is_empty(), "{:#}", report.json);
}

#[test]
fn tables_of_frames_are_said_to_be_left_out() {
    let net = Net::new();
    let _servers = web(&net);
    net.nft(
        "gateway",
        "table bridge mine { chain forward { type filter hook forward priority 0; }; }",
    );
    assert_eq!(doctor(&net).unchecked(), ["table bridge mine"]);
    // Programs and filters before all rules are not examined either.
    net.sh("gateway", "tc qdisc add dev ext clsact").ok();
    assert_eq!(
        doctor(&net).unchecked(),
        ["table bridge mine", "filters of traffic control at ext"]
    );
}

/// Drops on a second uplink without a default route are a warning, because only clients near it come that way.
#[test]
fn what_drops_clients_of_a_second_uplink_only_is_a_warning() {
    let net = Net::new();
    let _servers = web(&net);
    let is_served = || {
        let near = || connect(at("198.51.100.1", PORT), SHORT).and_then(|mut client| client.greeting());
        net.within("routed", near).is_ok()
    };
    assert!(is_served());
    let rule = "iifname far tcp dport 3000 drop";
    net.sh(
        "gateway",
        &format!("nft 'table inet mine {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}'"),
    )
    .ok();
    passes(&net, 0);
    assert!(!is_served());
    let report = doctor(&net);
    assert_eq!(report.status, 0, "{:#}", report.json);
    let found = report.one(DROPPED, "warning");
    let seen = found["seen"].as_str().unwrap_or_default();
    assert!(seen.contains("packets of clients that come by far to"), "{seen}");
    net.sh("gateway", &line(found)).ok();
    assert!(doctor(&net).findings(DROPPED).is_empty());
    assert!(is_served());
}

#[test]
fn a_rate_that_is_exceeded_is_a_warning_and_a_dormant_table_is_none() {
    let net = Net::new();
    let _servers = web(&net);
    let table = |flags: &str, policy: &str, rule: &str| {
        let chain = format!("chain c {{ type filter hook forward priority 0; policy {policy}; {rule} }}");
        let table = format!("table inet other {{ {flags} limit slow {{ rate over 1/minute; }}; {chain}; }}");
        net.sh("gateway", &format!("nft '{table}'")).ok();
        passes(&net, 0);
        let report = doctor(&net);
        net.sh("gateway", "nft delete table inet other").ok();
        report
    };
    let over = table("", "accept", "limit rate over 1000/second drop;");
    let seen = over.one(DROPPED, "warning")["seen"].to_string();
    assert!(
        seen.contains("may drop packets to") && seen.contains("it drops what exceeds its rate"),
        "{seen}"
    );
    assert_eq!(over.status, 0, "{:#}", over.json);
    // A rule with a named limit does not contain the limit's purpose.
    table("", "accept", "tcp flags syn limit name slow drop;").one(DROPPED, "warning");
    let dormant = table("flags dormant;", "drop", "");
    assert!(dormant.bad().is_empty(), "{:#}", dormant.json);
}
