//! Rules of other programs about kinds of packets: TCP flags, marks, answers that leave, clients that are near.

use crate::doctor::{PORT, breaks_and_heals, doctor, passes, web};
use crate::harness::Net;

const DROPPED: &str = "packets-dropped";

fn chain(hook: &str, rule: &str) -> String {
    format!("nft 'table inet mine {{ chain c {{ type filter hook {hook}; {rule}; }}; }}'")
}

#[test]
fn rules_about_flags_and_marks_are_judged() {
    let net = Net::new();
    let _servers = web(&net);
    for (provoke, mend) in [
        (
            "iptables-nft -I FORWARD -p tcp --syn -j DROP".to_owned(),
            "iptables-nft -F FORWARD",
        ),
        (
            "iptables-legacy -I FORWARD -p tcp --dport 3000 --syn -j DROP".into(),
            "iptables-legacy -F FORWARD",
        ),
        (
            chain("forward priority 0", "tcp flags syn drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "tcp flags & (syn|ack) == syn drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "tcp sport 3000 tcp flags & (syn|ack) == ack drop"),
            "nft delete table inet mine",
        ),
        // The handshake passes, and no byte after it.
        (
            chain("forward priority 0", "tcp flags & psh == psh drop"),
            "nft delete table inet mine",
        ),
        (
            "iptables-legacy -I FORWARD -p tcp --tcp-flags PSH,ACK PSH,ACK -j DROP".into(),
            "iptables-legacy -F FORWARD",
        ),
        (
            chain("forward priority 0", "meta mark 0 drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "meta mark != 0x77 drop"),
            "nft delete table inet mine",
        ),
        (
            chain(
                "postrouting priority 200",
                &format!("oifname \"ext\" tcp sport {PORT} drop"),
            ),
            "nft delete table inet mine",
        ),
    ] {
        breaks_and_heals(&net, 0, DROPPED, &provoke);
        net.sh("gateway", mend).ok();
    }
    // Rules for packets that no handshake has.
    let harmless = [
        "tcp flags & (fin|syn) == (fin|syn) drop",
        "tcp flags & (fin|syn|rst|ack) != syn ct state new drop",
        "meta mark 0x77 drop",
    ];
    net.sh("gateway", &chain("forward priority 0", &harmless.join("; ")))
        .ok();
    passes(&net, 0);
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
}

#[test]
fn drops_are_found_on_a_gateway_without_a_default_route() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh(
        "gateway",
        "ip link set far down; ip route flush default; ip -6 route flush default",
    )
    .ok();
    passes(&net, 0);
    assert_eq!(doctor(&net).status, 0);
    let ingress = format!(
        "nft 'table netdev mine {{ chain c {{ type filter hook ingress device \"ext\" priority 0; tcp dport {PORT} drop; }}; }}'"
    );
    breaks_and_heals(&net, 0, DROPPED, &ingress);
    net.sh("gateway", "nft delete table netdev mine").ok();
    let docker = "iptables-nft -A FORWARD -i docker0 -j ACCEPT; iptables-nft -A FORWARD -m conntrack --ctstate \
                  ESTABLISHED,RELATED -j ACCEPT; iptables-nft -P FORWARD DROP";
    breaks_and_heals(&net, 0, DROPPED, docker);
}
