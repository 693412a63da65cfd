//! Tables of other programs with tcpgw's name, in all forms: each is replaced completely, or refused with a clear message and
//! left unchanged.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

fn shapes(own_comment: &str, rendered: &str) -> Vec<(&'static str, String)> {
    let table = |inside: &str| format!("table inet tcpgw {{\n{inside}\n}}");
    let many: Vec<String> = (0..500)
        .map(|number| format!("set s{number} {{ type inet_service; }}; "))
        .collect();
    vec![
        ("empty", table("")),
        (
            "maps and sets of other types",
            table(
                "map slots_v4 { type ipv4_addr : verdict; }; set services { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }",
            ),
        ),
        (
            "our chains at other hooks",
            table(
                "chain guard { type filter hook forward priority 0; policy drop; }; chain balance { type nat hook postrouting priority 0; }; \
                 chain known { jump guard_more; }; chain guard_more { drop; }",
            ),
        ),
        (
            "our comment, and nothing else",
            table(&format!("comment \"{own_comment}\";")),
        ),
        (
            "a comment that is nearly ours",
            table("comment \"tcpgw skeleton 99999999999999999999, flow mark 0xzz/-1, room 18446744073709551616\";"),
        ),
        (
            "dormant",
            table("flags dormant; chain guard { type filter hook prerouting priority 0; policy drop; }"),
        ),
        (
            "ours, and a chain besides",
            format!(
                "{rendered}\ntable inet tcpgw {{ chain more {{ type filter hook forward priority 10; policy drop; }}; }}"
            ),
        ),
        ("hundreds of sets", table(&many.concat())),
        (
            "objects of other kinds",
            table(
                "counter services { }; quota slots_v4 { 1 mbytes; }; limit guard { rate 1/second; }; chain balance { counter name services; }",
            ),
        ),
    ]
}

#[test]
fn each_shape_is_replaced_whole() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let wanted = || state([service("a", 2001, &["b1"], 3000, json!({}))]);
    let file = net.state_file("state.json", wanted());
    let served = |what: &str| {
        for family in [0, 1] {
            let conn = net
                .connect("client", at(PUBLIC[family], 2001))
                .and_then(|mut conn| conn.greeting());
            conn.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    net.apply(wanted());
    let listed = net.sh("gateway", "nft list table inet tcpgw").ok();
    let comment = listed
        .split("comment \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let comment = comment.expect("our table has a comment").to_owned();
    let rendered = net.tcpgw(&["render", &file]).ok();
    net.tcpgw(&["teardown"]).ok();
    net.want(wanted());
    let mut daemon = net.daemon(&[]);
    daemon.stop();
    net.tcpgw(&["teardown"]).ok();
    for (what, shape) in shapes(&comment, &rendered) {
        net.nft("gateway", &shape);
        for looks in [
            &["status", "--interval", "0s"][..],
            &["doctor"],
            &["flows"],
            &["diff", &file],
        ] {
            let ran = net.tcpgw(looks);
            assert!(ran.status <= 2 && !ran.stderr.contains("panicked"), "{what}: {ran}");
        }
        let applied = net.tcpgw(&["apply", &file]).exits(0);
        assert!(!applied.stderr.contains("panicked"), "{what}: {applied}");
        assert_eq!(net.tcpgw(&["diff", &file]).status, 0, "{what}: half of it is left");
        let now = net.sh("gateway", "nft list table inet tcpgw").ok();
        for foreign in ["chain more", "guard_more", "set s1 ", "quota", "dormant"] {
            assert!(!now.contains(foreign), "{what}: {now}");
        }
        served(what);
        net.tcpgw(&["teardown"]).ok();

        net.nft("gateway", &shape);
        daemon.start();
        daemon.settles(2);
        served(what);
        daemon.stop();
        net.tcpgw(&["teardown"]).ok();
    }
}

#[test]
fn one_that_another_program_owns_is_left_to_it() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut owner = net.command("gateway", &["nft", "-i"]);
    let mut owner = owner
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nft runs");
    let mut input = owner.stdin.take().expect("a pipe");
    writeln!(input, "table inet tcpgw {{ flags owner; chain mine {{ }}; }}").expect("it reads");
    let list = || net.sh("gateway", "nft list table inet tcpgw");
    let is_there = wait_until(PATIENCE, || list().stdout.contains("mine"));
    let before = list().stdout;
    let refused = net.apply_with(&[], state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let looks = [&["status", "--interval", "0s"][..], &["doctor"]].map(|looks| net.tcpgw(looks));
    let after = list().stdout;
    drop(input);
    drop(owner.kill());
    drop(owner.wait());
    if !is_there {
        println!("this kernel, or this nft, has no owners of tables: nothing to test");
        return;
    }
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("own"), "{refused}");
    assert_eq!(before, after, "nothing of it has changed");
    for looks in looks {
        assert!(looks.status <= 1 && !looks.stderr.contains("panicked"), "{looks}");
    }
}
