//! State of the kernel after `apply`: the golden cases' witnesses, reading back, repair, replacement.

use std::path::Path;

use serde_json::{Value, json};
use tcpgw_core::model::FlowMark;

use crate::cases::{self, Case};
use crate::harness::Net;
use crate::harness::counters::without_connections;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;

const LIST: [&str; 5] = ["nft", "list", "table", "inet", "tcpgw"];

/// `TCPGW_CASES` (names between spaces) chooses some, for where a case takes a quarter of a minute.
#[test]
fn every_golden_case_is_what_the_kernel_gets() {
    let net = Net::new();
    // Only the gateway knows its links and their addresses, so `render` cannot say them. With two networks on each there are none.
    for (number, link) in ["ext", "br0", "far"].iter().enumerate() {
        let add = format!(
            "ip address add 10.251.{number}.1/24 dev {link} && ip address add fd00:251:{number}::1/64 dev {link} nodad"
        );
        net.sh("gateway", &add).ok();
    }
    for case in chosen() {
        let ruleset = case.ruleset();
        net.run_with("peer", &["nft", "-c", "-f", "-"], &ruleset).ok();
        net.nft("peer", &ruleset);
        apply_case(&net, &case);
        let (by_nft, by_tcpgw) = (net.run("peer", &LIST).ok(), loadable(&net.run("gateway", &LIST).ok()));
        let (links, rest) = without_links(&by_tcpgw);
        assert!(rest == by_nft, "{}: nft\n{by_nft}tcpgw\n{by_tcpgw}", case.name);
        let wanted = if case.name == "preserve" || case.name == "draining" {
            net.links()
        } else {
            vec![]
        };
        assert_eq!(links, wanted, "{}", case.name);

        assert_holds(&net, &case);
        net.nft("gateway", &format!("flush ruleset\n{by_tcpgw}"));
        assert_holds(&net, &case);
        net.tcpgw(&["teardown"]).ok();
    }
}

/// nft also accepts the rules for a gateway whose links have addresses of their own.
#[test]
fn nft_understands_the_rules_about_the_addresses_of_links() {
    let net = Net::new();
    for case in cases::all()
        .into_iter()
        .filter(|case| ["preserve", "source-addresses"].contains(&&*case.name))
    {
        let text = std::fs::read(case.state()).expect("a state");
        let state = tcpgw_core::model::parse(&text).expect("a state");
        let mut rendered = String::new();
        let ruleset = tcpgw_core::ruleset::compile::compile(&state, &net.own_links());
        tcpgw_core::render::table(&mut rendered, &ruleset, FlowMark::default()).expect("text");
        net.nft("peer", &rendered);
        apply_case(&net, &case);
        let (by_nft, by_tcpgw) = (net.run("peer", &LIST).ok(), loadable(&net.run("gateway", &LIST).ok()));
        assert!(by_tcpgw.contains("elements = { \"br0\" : 10.2.0.1,"), "{by_tcpgw}");
        assert_eq!(blocks(&by_tcpgw), blocks(&by_nft), "{}", case.name);
        assert_holds(&net, &case);
        net.nft("gateway", &format!("flush ruleset\n{by_tcpgw}"));
        assert_holds(&net, &case);
        net.tcpgw(&["teardown"]).ok();
    }
}

#[test]
fn every_case_becomes_every_other_one() {
    let net = Net::new();
    let all = cases::all();
    let listings: Vec<Vec<String>> = all
        .iter()
        .map(|case| {
            apply_case(&net, case);
            let blocks = blocks(&net.run("gateway", &LIST).ok());
            net.tcpgw(&["teardown"]).ok();
            blocks
        })
        .collect();
    for from in &all {
        for (to, listing) in all.iter().zip(&listings).filter(|(to, _)| to.name != from.name) {
            apply_case(&net, from);
            apply_case(&net, to);
            // New sets and chains come last in the kernel, so the order tells which case was first.
            let found = blocks(&net.run("gateway", &LIST).ok());
            assert!(found == *listing, "{} to {}:\n{}", from.name, to.name, found.concat());
        }
    }
}

#[test]
fn applying_twice_sends_nothing_the_second_time() {
    let net = Net::new();
    for case in cases::all() {
        apply_case(&net, &case);
        let before = net.identity();
        let again = apply_case(&net, &case);
        assert!(
            again.starts_with("services +0 ~0 -0; backends +0 ~0 -0; 0 flows flushed; 0 elements changed in "),
            "{again}"
        );
        assert_eq!(net.identity(), before, "{}, by the record", case.name);
        net.forget();
        apply_case(&net, &case);
        assert_eq!(net.identity(), before, "{}, by reading the table", case.name);
        let answer: Value = serde_json::from_str(&apply_with(&net, &case, &["-o", "json"])).expect("JSON");
        assert_eq!(answer["transactions"], 0, "{answer}");
        assert_eq!(net.identity(), before, "{}", case.name);
    }
}

/// A large table, which the kernel lists in many pieces, is read back as it was written.
#[test]
fn a_large_table_is_read_back_as_it_was_written() {
    let net = Net::new();
    let service = |i: u16, last: u8| {
        let backends = (1..=last).map(|n| format!("10.{}.{}.{n}:80", 3 + i / 256, i % 256));
        json!({"name": format!("s{i}"), "port": 2000 + i, "limit": {"pps": 1000}, "backends": backends.collect::<Vec<_>>(),
            "balance": if i.is_multiple_of(20) { "round-robin" } else { "random" }, "deny": [format!("192.0.2.{}", i % 256)]})
    };
    let state = |last| json!({"version": 1, "services": (0..2000).map(|i| service(i, last)).collect::<Vec<_>>()});
    for last in [4, 3] {
        let file = net.state_file("large.json", state(last));
        net.tcpgw(&["apply", &file]).ok();
        net.forget();
        assert_eq!(net.tcpgw(&["diff", &file]).exits(0).stdout, "");
    }
    let before = net.identity();
    net.apply(state(3));
    assert_eq!(net.identity(), before);
}

#[test]
fn another_skeleton_is_replaced_in_one_transaction_while_clients_connect() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let state = state(&["10.2.0.11:3000", "10.2.0.12:3000"]);
    net.apply(&state);
    let file = net.state_file("state.json", &state);
    let mine = net.run("gateway", &LIST).ok();
    let name = tcpgw_core::ruleset::skeleton::name();
    let of_version_0 = loadable(&mine).replace(&format!("comment \"{name},"), "comment \"tcpgw skeleton 0,");
    assert_ne!(of_version_0, mine);
    let mut conn = net.connect("client", at(PUBLIC[0], 20003)).expect("a connection");
    conn.greeting().expect("a greeting");
    for alteration in [
        "insert rule inet tcpgw balance counter".to_owned(),
        "add rule inet tcpgw known counter".to_owned(),
        "flush chain inet tcpgw source".to_owned(),
        format!(
            "delete rule inet tcpgw settle handle {}",
            handle(&net, "settle", "missed")
        ),
        "add chain inet tcpgw foreign".to_owned(),
        "add chain inet tcpgw foreign { type filter hook forward priority 0; }".to_owned(),
        "add set inet tcpgw foreign { type ipv4_addr; }".to_owned(),
        "add map inet tcpgw foreign { type ipv4_addr : verdict; }".to_owned(),
        "add set inet tcpgw width_7_v4 { type inet_proto . inet_service; }".to_owned(),
        "add counter inet tcpgw foreign".to_owned(),
        format!("delete table inet tcpgw\n{of_version_0}"),
    ] {
        net.nft("gateway", &alteration);
        let output = net.tcpgw(&["diff", &file]).exits(1).stdout;
        assert!(
            output.starts_with("! the table is replaced: "),
            "{alteration}: {output}"
        );
        let before = net.identity();
        let (spread, told) = net.spread_during("client", at(PUBLIC[0], 20003), 4, || {
            net.tcpgw(&["apply", &file]).exits(0).stdout
        });
        assert!(told.starts_with("the table was replaced: "), "{alteration}: {told}");
        assert!(
            spread.failures.is_empty() && spread.served() > 0,
            "{alteration}: {spread:?}"
        );
        let after = net.identity();
        assert_eq!(after.generation, before.generation + 1, "{alteration}");
        assert_ne!(after.table, before.table);
        conn.echo(b"goes on").expect(&alteration);
        assert_eq!(blocks(&net.run("gateway", &LIST).ok()), blocks(&mine), "{alteration}");
    }
    let output = net.tcpgw(&["apply", &file]).exits(0).stdout;
    assert!(!output.contains("replaced"), "{output}");
}

#[test]
fn a_hand_written_table_of_our_name_is_replaced() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.nft(
        "gateway",
        "table inet tcpgw { chain balance { type nat hook prerouting priority dstnat; tcp dport 20003 dnat ip to 10.2.0.11:3000; }; }",
    );
    let output = net.apply(state(&["10.2.0.11:3000"])).stdout;
    assert!(
        output.contains("the table was replaced: the table in the kernel has other rules\n"),
        "{output}"
    );
    net.spread("client", at(PUBLIC[0], 20003), 3);
}

#[test]
fn what_somebody_changed_is_shown_and_put_right() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let state = json!({"version": 1, "services": [
        {"name": "a", "port": 20003, "limit": {"pps": 1000}, "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]},
        {"name": "b", "port": 20004, "balance": "round-robin", "deny": ["192.0.2.0/24"], "backends": ["10.2.0.13:3000"]}
    ]});
    net.apply(&state);
    let file = net.state_file("state.json", &state);
    let mine = blocks(&net.run("gateway", &LIST).ok());
    for (alteration, shown) in [
        (
            "delete element inet tcpgw slots_v4 { 20003 . 1 }",
            "~ a :20003  10.2.0.12:3000 is active again",
        ),
        (
            "add element inet tcpgw slots_v4 { 20003 . 2 : 10.2.0.14 . 3000 }",
            "~ a :20003  - 10.2.0.14:3000",
        ),
        (
            "delete element inet tcpgw slots_v4 { 20003 . 1 }; add element inet tcpgw slots_v4 { 20003 . 1 : 10.2.0.14 . 3000 }",
            "~ a :20003  10.2.0.12:3000 is active again  - 10.2.0.14:3000",
        ),
        ("delete element inet tcpgw services { tcp . 20003 }", "+ a :20003"),
        ("add element inet tcpgw services { tcp . 20009 }", "- (unnamed) :20009"),
        (
            "delete element inet tcpgw limit_to_v4 { 10.2.0.11 . 3000 }; add element inet tcpgw limit_to_v4 { 10.2.0.11 . 3000 limit rate 5/second burst 5 packets limit rate 5 bytes/second burst 5 bytes }",
            "~ a :20003  limit 5 packets/s, burst 5, mtu 1 -> 1000 packets/s",
        ),
        ("delete element inet tcpgw limit_from_v4 { 10.2.0.12 . 3000 }", "~ "),
        (
            "flush set inet tcpgw denied_v4",
            "~ b :20004  deny nobody -> 192.0.2.0/24",
        ),
        (
            "delete element inet tcpgw turns_v4 { tcp . 20004 }",
            "~ the elements in the kernel differ",
        ),
        (
            "flush map inet tcpgw slots_v4",
            "~ a :20003  10.2.0.11:3000 is active again  10.2.0.12:3000 is active again\n~ b :20004  10.2.0.13:3000",
        ),
        ("add element inet tcpgw over_to_v4 { 10.9.9.9 . 9 }", ""),
        ("flush ruleset", "+ a :20003"),
    ] {
        net.nft("gateway", alteration);
        let diff = net.tcpgw(&["diff", &file]);
        if !shown.is_empty() {
            assert!(diff.stdout.starts_with(shown), "{alteration}: {diff}");
            assert_eq!(diff.status, 1, "{diff}");
        }
        net.tcpgw(&["apply", &file]).ok();
        assert_eq!(blocks(&net.run("gateway", &LIST).ok()), mine, "{alteration}");
        net.tcpgw(&["diff", &file]).exits(0);
        net.spread("client", at(PUBLIC[0], 20003), 2);
        net.spread("client", at(PUBLIC[0], 20004), 2);
    }
}

fn apply_case(net: &Net, case: &Case) -> String {
    apply_with(net, case, &[])
}

#[track_caller]
fn apply_with(net: &Net, case: &Case, args: &[&str]) -> String {
    let file = case.state();
    net.tcpgw(&[&["apply", "--allow-empty", path(&file)], args].concat())
        .ok()
}

/// Asserts that nothing is to be changed, neither with nor without the record.
#[track_caller]
/// Returns the golden cases that `TCPGW_CASES` names, or all.
fn chosen() -> Vec<Case> {
    let Ok(names) = std::env::var("TCPGW_CASES") else {
        return cases::all();
    };
    let names: Vec<&str> = names.split_whitespace().collect();
    let chosen: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| names.contains(&&*case.name))
        .collect();
    assert!(
        !chosen.is_empty() && chosen.len() == names.len(),
        "TCPGW_CASES: not all of {names:?} are cases"
    );
    chosen
}

fn assert_holds(net: &Net, case: &Case) {
    for _ in 0..2 {
        let diff = net.tcpgw(&["diff", path(&case.state())]);
        assert!(diff.status == 0 && diff.stdout.is_empty(), "{}: {diff}", case.name);
        net.forget();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of this project are text")
}

fn state(backends: &[&str]) -> Value {
    json!({"version": 1, "services": [{"name": "my-app", "port": 20003, "backends": backends}]})
}

/// Returns a listing as if the table had no flags: nft 1.0.6 prints `persist`, which it does not know, as `flags ` without a
/// name, which is a syntax error to it, and an empty line behind the comment.
fn loadable(listing: &str) -> String {
    match listing.replacen("{\n\tflags \n", "{\n", 1) {
        same if same == listing => same,
        plain => plain.replacen("\n\n", "\n", 1),
    }
}

/// Returns the links in a listing's `same_link`, and the listing without them.
fn without_links(listing: &str) -> (Vec<String>, String) {
    let (before, set) = listing.split_once("\tset same_link {\n").expect("the set is there");
    let (set, after) = set.split_once("\t}\n").expect("the set ends");
    let Some((kind, elements)) = set.split_once("\t\telements = { ") else {
        return (vec![], listing.to_owned());
    };
    let pairs = elements.trim_end().trim_end_matches(" }").split(',').map(str::trim);
    let mut links: Vec<String> = pairs
        .map(|pair| {
            let (from, to) = pair.split_once(" . ").expect("a pair");
            assert_eq!(from, to);
            from.trim_matches('"').to_owned()
        })
        .collect();
    links.sort();
    (links, format!("{before}\tset same_link {{\n{kind}\t}}\n{after}"))
}

/// Returns the sets and chains of a listing, in an order that does not tell which was made first, without the connections
/// that were counted.
fn blocks(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = without_connections(listing)
        .split("\n\n")
        .map(|block| block.trim_end_matches("}\n").to_owned())
        .collect();
    blocks.sort();
    blocks
}

/// Returns the handle of the rule of a chain that contains `text`.
fn handle(net: &Net, chain: &str, text: &str) -> String {
    let listing = net
        .run("gateway", &["nft", "-a", "list", "chain", "inet", "tcpgw", chain])
        .ok();
    let line = listing.lines().find(|line| line.contains(text)).expect("such a rule");
    line.rsplit(' ').next().expect("a handle").to_owned()
}

#[test]
fn a_table_that_is_full_is_made_anew_with_more_room() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let one = json!({"name": "one", "port": 20003, "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]});
    net.apply(json!({"version": 1, "services": [one]}));
    let mut open = net.connect("client", at(PUBLIC[0], 20003)).expect("a connection");
    open.greeting().expect("an answer");
    // 256 slots each: more than the 65,536 that there is room for at first.
    let many = (0..300_u16).map(|i| {
        json!({"name": format!("s{i}"), "port": 3000 + i, "balance": "source-hash", "backends": [format!("10.3.0.1:{}", 3000 + i)]})
    });
    let services: Vec<_> = many.chain([one.clone()]).collect();
    let large = json!({"version": 1, "services": services});
    let output = net.apply(&large).stdout;
    assert!(
        output.contains("set slots_v4 of the table in the kernel has too little room"),
        "{output}"
    );
    open.echo(b"still here").expect("the connection goes on");
    net.spread("client", at(PUBLIC[0], 20003), 2);
    let file = net.state_file("large.json", &large);
    net.tcpgw(&["diff", &file]).exits(0);
    net.forget();
    net.tcpgw(&["diff", &file]).exits(0);
    let output = net.apply(json!({"version": 1, "services": [one]})).stdout;
    assert!(!output.contains("replaced"), "{output}");
    open.echo(b"still here").expect("the connection goes on");
}
