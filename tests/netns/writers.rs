//! Conflicts with other writers, and requests that are refused: locks, other instances of tcpgw, other nft users, the kernel
//! itself, missing capabilities.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::lock::Lock;
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::room::Room;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Build, Commit, Kernel, KernelError};

use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::{Ran, TCPGW};
use crate::harness::{Net, wait_until};

/// Table of another program with every kind of object, and with counters that have counted.
const FOREIGN: &str = "
table ip filter {
    counter pings { }
    set seen { type ipv4_addr; flags dynamic; counter; }
    chain input {
        type filter hook input priority filter; policy accept;
        ip protocol icmp counter name pings add @seen { ip saddr }
        ip protocol icmp counter accept
    }
}
table inet tcpgw2 {
    chain prerouting { type nat hook prerouting priority dstnat - 1; policy accept; tcp dport 9999 counter redirect to :9998; }
}
table ip6 docker { chain forward { type filter hook forward priority 0; policy accept; ip6 daddr fd00:9::/64 counter drop; }; }
table bridge tcpgw { chain forward { type filter hook forward priority 0; policy accept; ether type arp counter; }; }
table netdev early { chain in { type filter hook ingress device ext priority 0; policy accept; ip protocol icmp counter; }; }
";

#[test]
fn other_tables_are_not_touched() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.nft("gateway", FOREIGN);
    net.run("client", &["ping", "-c", "2", "-i", "0.2", PUBLIC[0]]).ok();
    let foreign = || -> Vec<String> {
        let tables = ["ip filter", "inet tcpgw2", "ip6 docker", "bridge tcpgw", "netdev early"];
        tables
            .map(|table| net.sh("gateway", &format!("nft -a list table {table}")).ok())
            .to_vec()
    };
    let before = foreign();
    assert!(before[0].contains("counter packets 2 bytes"), "{}", before[0]);
    let mut conn = None;
    for backends in [&["10.2.0.11:3000"][..], &["10.2.0.12:3000", "10.2.0.13:3000"], &[]] {
        net.apply(state(backends));
        if !backends.is_empty() {
            conn = net.connect("client", at(PUBLIC[0], 20003)).ok();
        }
        // Address resolution may happen at any time, and the bridge's table counts it.
        assert_eq!(without_arp(&foreign()), without_arp(&before));
    }
    net.nft("gateway", "add rule inet tcpgw known counter");
    net.apply(state(&["10.2.0.11:3000"]));
    net.tcpgw(&["teardown"]).ok();
    assert_eq!(without_arp(&foreign()), without_arp(&before));
    drop(conn);
}

#[test]
fn two_at_once_take_turns() {
    let net = Net::new();
    let files = [
        net.state_file("a.json", state(&["10.2.0.11:3000", "10.2.0.12:3000"])),
        net.state_file(
            "b.json",
            json!({"version": 1, "services": [
                {"name": "a", "port": 20003, "balance": "round-robin", "backends": ["10.2.0.13:3000"]},
                {"name": "b", "port": 20004, "limit": {"pps": 10}, "backends": ["10.2.0.14:3000", "[fd00:2::14]:3000"]}
            ]}),
        ),
    ];
    for _ in 0..8 {
        let both = [0, 1, 0, 1].map(|at| net.spawn("gateway", &[TCPGW, "apply", "--lock-timeout", "1m", &files[at]]));
        for running in both {
            running.wait().ok();
        }
        let holds = || files.each_ref().map(|file| net.tcpgw(&["diff", file]).status == 0);
        let by_record = holds();
        assert!(by_record[0] != by_record[1], "{by_record:?}");
        net.forget();
        assert_eq!(holds(), by_record);
    }
}

#[test]
fn one_writer_at_a_time_and_who_it_is() {
    let net = Net::new();
    let file = net.state_file("state.json", state(&["10.2.0.11:3000"]));
    let cookie = net.within("gateway", || {
        Linux::open().expect("a socket").netns_cookie().expect("a cookie")
    });
    let lock = Lock::take(&net.file("run"), cookie, Duration::ZERO).expect("nobody else");
    for command in [&["apply", file.as_str()][..], &["teardown"]] {
        let refused = net.tcpgw(&[command, &["--lock-timeout", "300ms"]].concat()).exits(1);
        assert!(refused.took >= Duration::from_millis(300));
        let holder = format!(
            "another tcpgw holds the lock of this network namespace: process {} (",
            std::process::id()
        );
        assert!(
            refused.stderr.contains(&holder) && refused.stderr.contains("--lock-timeout"),
            "{refused}"
        );
    }
    assert_eq!(net.run("gateway", &["nft", "list", "ruleset"]).ok(), "");
    net.tcpgw(&["diff", &file]).exits(1);
    net.tcpgw(&["apply", "--dry-run", &file]).exits(0);
    let elsewhere = net.run("peer", &[TCPGW, "apply", &file]);
    assert_eq!(elsewhere.status, 0, "another namespace has another lock: {elsewhere}");
    let waiting = net.spawn("gateway", &[TCPGW, "apply", "--lock-timeout", "1m", &file]);
    drop(lock);
    waiting.wait().ok();
    net.tcpgw(&["diff", &file]).exits(0);
}

#[test]
fn another_nft_user_commits_all_the_time() {
    let net = Net::new();
    let files = [&["10.2.0.11:3000"][..], &["10.2.0.11:3000", "10.2.0.12:3000"]];
    let files = [0, 1].map(|at| net.state_file(&format!("{at}.json"), state(files[at])));
    let noise = net.spawn(
        "gateway",
        &[
            "sh",
            "-c",
            "while :; do nft add table ip x; nft delete table ip x; done",
        ],
    );
    assert!(wait_until(PATIENCE, || net
        .run("gateway", &["nft", "list", "tables"])
        .stdout
        .contains("ip x")));
    let mut outdated = 0;
    for round in 0..20 {
        if round % 4 == 3 {
            net.forget();
        }
        let ran = net.tcpgw(&["-v", "apply", &files[round % 2]]).exits(0);
        outdated += usize::from(ran.stderr.contains("reading the kernel again"));
        assert!(net.tcpgw(&["diff", &files[round % 2]]).exits(0).stdout.is_empty());
    }
    println!("{outdated} of 20 had to read again");
    // It takes longer to read this than they leave in between.
    let services = (0..1500_u16).map(|i| {
        let backends = [11, 12].map(|n| format!("10.2.0.{n}:{}", 2000 + i));
        json!({"name": format!("s{i}"), "port": 2000 + i, "limit": {"pps": 1000}, "backends": backends})
    });
    let large = net.state_file(
        "large.json",
        json!({"version": 1, "services": services.collect::<Vec<_>>()}),
    );
    net.tcpgw(&["apply", &large]).exits(0);
    net.forget();
    assert_eq!(net.tcpgw(&["diff", &large]).exits(0).stdout, "");
    net.tcpgw(&["apply", &files[0]]).exits(0);
    drop(noise);
    net.forget();
    net.tcpgw(&["diff", &files[0]]).exits(0);
}

#[test]
fn a_plan_holds_while_others_write_elsewhere_and_not_longer() {
    let net = Net::new();
    net.within("gateway", || {
        let mut kernel = Linux::open().expect("sockets");
        let [first, second] = [&["10.2.0.11:3000"][..], &["10.2.0.12:3000"]].map(|backends| {
            let state = tcpgw_core::model::parse(state(backends).to_string().as_bytes()).expect("a state");
            compile(&state, &Links::default())
        });
        let mark = FlowMark::default();
        let mut commit = |have: &Ruleset, want: &Ruleset, build, meanwhile: &[&str]| {
            let generation = kernel.observe(mark).expect("a table").generation;
            for line in meanwhile {
                net.nft("gateway", line);
            }
            let plan = plan(have, want);
            let step = plan.steps.first().expect("a step");
            kernel.commit(&Commit {
                generation,
                mark,
                build,
                step,
                forget: &[],
            })
        };
        let elsewhere = [
            "add table ip tcpgw",
            "add table inet other",
            "add set inet other tcpgw { type mark; }",
        ];
        let nothing = Ruleset::default();
        commit(&nothing, &first, Some(Build::New(Room::default())), &[]).expect("nobody wrote");
        let outdated = commit(&first, &second, None, &elsewhere);
        assert!(
            matches!(outdated, Err(KernelError::Outdated)),
            "nothing was heard yet: {outdated:?}"
        );
        let generation = commit(&first, &second, None, &elsewhere).expect("they wrote elsewhere");
        assert_eq!(generation, net.identity().generation);
        for here in [
            "add element inet tcpgw services { tcp . 9 }",
            "add rule inet tcpgw known counter",
            "delete table inet tcpgw",
        ] {
            let outdated = commit(&second, &first, None, &[elsewhere[0], here, elsewhere[1]]);
            assert!(matches!(outdated, Err(KernelError::Outdated)), "{here}: {outdated:?}");
        }
    });
}

#[test]
fn what_the_kernel_refuses_changes_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [here, there] = [&["10.2.0.11:3000"][..], &["10.2.0.12:3000", "10.2.0.13:3000"]].map(state);
    let file = net.state_file("here.json", &here);
    let rules = net.tcpgw(&["render", &file]).ok();
    let rules = rules.replace("tcpgw {\n\tcomment", "tcpgw {\n\tflags owner\n\tcomment");
    fs::write(net.file("rules.nft"), rules).expect("a file");
    // The kernel lets only the socket that made such a table write to it.
    let mut owner = net
        .command("gateway", &["nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("nft runs");
    let mut stdin = owner.stdin.take().expect("a pipe");
    writeln!(stdin, "include \"{}\"", net.file("rules.nft").to_string_lossy()).expect("nft reads");
    let listing = || net.run("gateway", &["nft", "list", "ruleset"]).ok();
    assert!(wait_until(PATIENCE, || listing().contains("flags owner")));
    let mut conn = net.connect("client", at(PUBLIC[0], 20003)).expect("a connection");
    conn.greeting().expect("a greeting");
    // The connection is counted in it.
    let before = listing();

    let refused = net.apply_with(&[], &there).exits(1);
    assert!(
        refused
            .stderr
            .contains("the kernel refused the transaction; nothing was changed: "),
        "{refused}"
    );
    assert!(
        refused.stderr.contains("(EPERM)") && refused.stderr.contains("is the table owned by another process"),
        "{refused}"
    );
    assert_eq!(refused.stdout, "");
    assert_eq!(listing(), before);
    let refused = net.tcpgw(&["teardown"]).exits(1);
    assert!(refused.stderr.contains("(EPERM)"), "{refused}");
    assert_eq!(listing(), before);
    conn.echo(b"goes on").expect("an echo");

    drop(stdin);
    owner.wait().expect("nft ends");
    assert_eq!(listing(), "");
    net.apply(&there);
}

#[test]
fn without_the_capability_nothing_happens() {
    let net = Net::new();
    net.apply(state(&["10.2.0.11:3000"]));
    let file = net.state_file("other.json", state(&["10.2.0.12:3000"]));
    let before = net.run("gateway", &["nft", "list", "ruleset"]).ok();
    let without = |args: &[&str]| -> Ran {
        let drop = [
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
            TCPGW,
        ];
        net.run("gateway", &[&drop, args].concat())
    };
    for (args, status) in [
        (&["apply", &file][..], 1),
        (&["diff", &file], 2),
        (&["teardown"], 1),
        (&["apply", "--dry-run", &file], 1),
    ] {
        let refused = without(args).exits(status);
        assert!(refused.stderr.contains("(EPERM) (needs CAP_NET_ADMIN)"), "{refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    }
    without(&["check", &file]).exits(0);
    without(&["render", &file]).exits(0);
    assert_eq!(net.run("gateway", &["nft", "list", "ruleset"]).ok(), before);
}

#[test]
fn a_stranger_is_told_what_is_missing() {
    let net = Net::new();
    let file = net.state_file("state.json", state(&["10.2.0.11:3000"]));
    let drop = [
        "setpriv",
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        "env",
        "TCPGW_RUN_DIR=/proc/nowhere",
        TCPGW,
    ];
    let refused = net.run("gateway", &[&drop[..], &["apply", &file]].concat()).exits(1);
    assert!(refused.stderr.contains("needs CAP_NET_ADMIN"), "{refused}");
}

#[test]
fn teardown_leaves_nothing_of_ours_and_all_of_others() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    // Another program sends a port of its own to one of our containers.
    net.nft(
        "gateway",
        "table ip docker {
            chain prerouting { type nat hook prerouting priority dstnat - 5; tcp dport 9000 dnat to 10.2.0.11:3000; }
            chain postrouting { type nat hook postrouting priority srcnat - 5; ct status dnat tcp dport 3000 ct original proto-dst 9000 masquerade; }
        }",
    );
    let others = || net.run("gateway", &["nft", "list", "ruleset"]).ok();
    let before = others();
    net.apply(state(&["10.2.0.11:3000"]));
    let mut ours: Vec<_> = PUBLIC[..1]
        .iter()
        .map(|ip| net.connect("client", at(ip, 20003)).expect("a way"))
        .collect();
    let mut theirs = net.connect("client", at(PUBLIC[0], 9000)).expect("a way");
    let mut direct = net.connect("client", at("10.2.0.11", 3000)).expect("a way");
    for conn in ours.iter_mut().chain([&mut theirs, &mut direct]) {
        conn.greeting().expect("a greeting");
    }
    assert_eq!(net.conntrack().iter().filter(|flow| flow.mark != 0).count(), 1);

    let torn = net.tcpgw(&["teardown"]).ok();
    assert_eq!(torn, "table removed; 1 flow flushed\n");
    assert_eq!(others(), before);
    assert!(net.conntrack().iter().all(|flow| flow.mark == 0));
    assert_eq!(net.conntrack().len(), 2);
    let left: Vec<_> = fs::read_dir(net.file("run"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(
        left.iter()
            .all(|path| path.extension().is_some_and(|end| end == "lock")),
        "{left:?}"
    );
    ours[0].echo(b"?").expect_err("the flow is gone");
    theirs.echo(b"goes on").expect("an echo");
    direct.echo(b"goes on").expect("an echo");

    let again = net.tcpgw(&["teardown"]).ok();
    assert_eq!(again, "there was no table; 0 flows flushed\n");
    let again: Value = serde_json::from_str(&net.tcpgw(&["teardown", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(
        again,
        json!({"table_removed": false, "flows_flushed": 0, "flows_not_flushed": 0, "not_lasting": null})
    );
    theirs.echo(b"goes on").expect("an echo");
}

fn state(backends: &[&str]) -> Value {
    json!({"version": 1, "services": [{"name": "a", "port": 20003, "limit": {"pps": 100_000}, "backends": backends}]})
}

fn without_arp(tables: &[String]) -> Vec<String> {
    let keep = |line: &&str| !line.contains("ether type arp");
    tables
        .iter()
        .map(|table| table.lines().filter(keep).collect())
        .collect()
}
