//! Policies of IPsec that drop packets, as `doctor` judges them.

use serde_json::json;

use crate::doctor::{PORT, breaks, doctor, passes};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::server::Behaviour;

#[test]
fn policies_of_ipsec_that_drop_packets_are_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10 && ip -6 route replace default via 2001:db8:1::10");
    let is_well = |of: &str| {
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{of}: {:#}", report.json);
        for family in 0..2 {
            passes(&net, family);
        }
        report
    };
    let add = |line: &str| sh(&format!("ip xfrm policy add {line}"));
    is_well("no policy");
    // Policies for other packets, and one for all that goes after another one.
    add("src 172.16.0.0/12 dst 192.168.0.0/16 dir fwd action block");
    add("src 198.51.100.0/24 dst 0.0.0.0/0 dir in action block");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dir fwd action block");
    add("src 10.2.0.0/24 dst 0.0.0.0/0 proto tcp sport 3001 dir fwd action block");
    is_well("others");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd action block priority 100");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 proto tcp dir fwd action allow priority 50");
    is_well("allowed");
    sh("ip xfrm policy flush");
    let all = "src 0.0.0.0/0 dst 0.0.0.0/0";
    let cases = [
        (0, "setdefault fwd block".to_owned()),
        (1, "setdefault out block".to_owned()),
        (0, format!("add {all} dir fwd action block")),
        (0, format!("add {all} dir out action block priority 9")),
        (0, format!("add {all} proto tcp dport {PORT} dir fwd action block")),
        (0, "add src 10.2.0.0/24 dst 0.0.0.0/0 dir fwd action block".to_owned()),
        (0, "add src 0.0.0.0/0 dst 10.2.0.0/24 dir out action block".to_owned()),
        (1, "add src ::/0 dst ::/0 dir fwd action block".to_owned()),
    ];
    for (family, policy) in cases {
        sh(&format!("ip xfrm policy {policy}"));
        let report = doctor(&net);
        assert!(
            !report.findings("packets-dropped").is_empty(),
            "{policy}: {:#}",
            report.json
        );
        let mut found = report.findings("packets-dropped").into_iter();
        assert!(
            found.any(|finding| finding["severity"] == "broken"),
            "{policy}: {:#}",
            report.json
        );
        net.json(&["status", "--interval", "0s"], 1);
        breaks(&net, family);
        sh("ip xfrm policy flush; ip xfrm policy setdefault fwd accept out accept");
        sh("conntrack -F 2>/dev/null");
        is_well(&policy);
    }
    // Some clients only.
    add("src 203.0.113.10/32 dst 0.0.0.0/0 dir fwd action block");
    doctor(&net).one("packets-dropped", "warning");
    breaks(&net, 0);
    sh("ip xfrm policy flush");
    add("src 198.18.0.0/15 dst 0.0.0.0/0 dir fwd tmpl proto esp mode tunnel level required");
    let report = is_well("encrypted");
    assert!(
        report.json["unchecked"].to_string().contains("policies of IPsec"),
        "{:#}",
        report.json
    );
}
