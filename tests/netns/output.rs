//! Output of `apply`, `diff` and `teardown` as text and as JSON, and their exit codes.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::client::Conn;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::Ran;

#[test]
fn diff_and_apply_speak_of_services_backends_and_flows() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let file = net.state_file("state.json", my_app(&["10.2.0.11:3000"]));
    let answer = net.tcpgw(&["apply", &file]).ok();
    assert_said(
        &answer,
        "services +1 ~0 -0; backends +1 ~0 -0; 0 flows flushed; 10 elements changed in ",
    );
    let _flows = connections(&net, 12);

    let new = net.state_file("new.json", my_app(&["10.2.0.13:3000"]));
    let said = "~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (12 flows will be flushed)\n";
    let before = net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok();
    assert_eq!(net.tcpgw(&["diff", &new]).exits(1).stdout, said);
    assert_eq!(net.tcpgw(&["apply", "--dry-run", &new]).exits(0).stdout, said);
    let data = data(&net.tcpgw(&["diff", "-o", "json", &new]).exits(1));
    assert_eq!(
        data,
        json!({"changed": true, "rebuild": null, "flows": 12, "denied_flows": 0, "services": [{
            "kind": "changed", "name": "my-app", "port": 20003, "addresses": [], "settings": [], "flows": 12, "backends": [
                {"backend": "10.2.0.13:3000", "change": "added", "weight": 1, "flows": 0},
                {"backend": "10.2.0.11:3000", "change": "removed", "weight": 1, "flows": 12},
            ],
        }]})
    );
    assert_eq!(
        net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok(),
        before,
        "only apply changes anything"
    );
    assert_eq!(net.flows_to(at("10.2.0.11", 3000)).len(), 12);

    let answer = net.tcpgw(&["apply", &new]).ok();
    assert_said(&answer, "services +0 ~1 -0; backends +1 ~0 -1; 12 flows flushed; ");
    assert_eq!(net.tcpgw(&["diff", &new]).exits(0).stdout, "");
    let unchanged = json!({"changed": false, "rebuild": null, "flows": 0, "denied_flows": 0, "services": []});
    assert_eq!(
        self::data(&net.tcpgw(&["diff", "-o", "json", &new]).exits(0)),
        unchanged
    );
}

/// Rendered text loads over a table that was applied, whose flag on Linux 6.9 and newer makes nft refuse the first rendered line.
#[test]
fn what_is_rendered_loads_over_a_table_that_was_applied() {
    let net = Net::new();
    let file = net.state_file("state.json", my_app(&["10.2.0.11:3000"]));
    let check = |how: &str| {
        net.sh(
            "gateway",
            &format!("{} render {file} | {how} nft -c -f -", crate::harness::shell::TCPGW),
        )
    };
    check("").ok();
    net.tcpgw(&["apply", &file]).ok();
    check("sed 1d |").ok();
    net.tcpgw(&["diff", &file]).ok();
}

/// Commands for scripts print the same keys with a daemon and without one.
#[test]
fn what_scripts_read_has_the_same_keys_with_a_daemon_and_without() {
    let net = Net::new();
    let file = net.state_file("state.json", my_app(&["10.2.0.11:3000"]));
    let keys = |ran: &Ran| -> Vec<String> {
        let told = data(ran);
        told.as_object().expect("an object").keys().cloned().collect()
    };
    let commands: [&[&str]; 3] = [
        &["diff", "-o", "json", &file],
        &["apply", "--dry-run", "-o", "json", &file],
        &["apply", "-o", "json", &file],
    ];
    let alone = commands.map(|command| keys(&net.tcpgw(command)));
    assert_eq!(alone[0], ["changed", "denied_flows", "flows", "rebuild", "services"]);
    assert_eq!(alone[0], alone[1]);
    net.tcpgw(&["teardown"]).ok();
    let daemon = net.daemon_without_state(&[]);
    assert_eq!(commands.map(|command| keys(&net.cli(command))), alone);
    drop(daemon);
}

#[test]
fn what_scripts_read_has_the_documented_keys() {
    let net = Net::new();
    let file = net.state_file("state.json", my_app(&["10.2.0.11:3000"]));
    let output = data(&net.tcpgw(&["apply", "-o", "json", &file]).exits(0));
    assert_eq!(output["services"], json!({"added": 1, "changed": 0, "removed": 0}));
    assert_eq!(output["backends"], json!({"added": 1, "changed": 0, "removed": 0}));
    for (key, value) in [
        ("flows_flushed", json!(0)),
        ("handshakes_forgotten", json!(0)),
        ("flows_not_flushed", json!(0)),
        ("denied_flows", json!(0)),
        ("denied_flows_flushed", json!(0)),
        ("elements", json!(10)),
        ("transactions", json!(1)),
        ("rebuilt", json!(null)),
        ("kept", json!([])),
        ("draining", json!(0)),
    ] {
        assert_eq!(output[key], value, "{key} of {output}");
    }
    for key in ["milliseconds", "kernel_milliseconds", "flush_milliseconds"] {
        assert!(output[key].as_f64().is_some_and(|time| time > 0.0), "{key} of {output}");
    }
    assert_eq!(output.as_object().map(serde_json::Map::len), Some(15), "{output}");
    let torn = data(&net.tcpgw(&["teardown", "-o", "json"]).exits(0));
    assert_eq!(
        torn,
        json!({"table_removed": true, "flows_flushed": 0, "flows_not_flushed": 0, "not_lasting": null})
    );
    assert_eq!(net.tcpgw(&["apply", "-q", &file]).exits(0).stdout, "");
    assert_eq!(net.tcpgw(&["teardown", "-q"]).exits(0).stdout, "");
}

#[test]
fn every_kind_of_change_has_its_words() {
    let net = Net::new();
    let service = |name: &str, port: u16, members: Value| {
        let mut service = json!({"name": name, "port": port});
        let members = members.as_object().cloned().unwrap_or_default();
        service.as_object_mut().expect("an object").extend(members);
        service
    };
    net.apply(json!({"version": 1, "services": [
        service("drains", 20001, json!({"backends": ["10.2.0.11:1", "10.2.0.12:1"]})),
        service("weighs", 20002, json!({"backends": ["10.2.0.11:2", "10.2.0.12:2"]})),
        service("sets", 20003, json!({"backends": ["10.2.0.11:3"]})),
        service("goes", 20004, json!({"backends": ["10.2.0.11:4"], "addresses": ["203.0.113.1"]})),
        service("stays", 20005, json!({"backends": ["10.2.0.11:5"]})),
        service("old-name", 20006, json!({"backends": ["10.2.0.11:6"]})),
    ]}));
    let file = net.state_file("new.json", json!({"version": 1, "services": [
        service("drains", 20001, json!({"backends": ["10.2.0.11:1", {"address": "10.2.0.12", "port": 1, "state": "draining"}]})),
        service("weighs", 20002, json!({"backends": ["10.2.0.11:2", {"address": "10.2.0.12", "port": 2, "weight": 3}]})),
        service("sets", 20003, json!({"backends": ["10.2.0.11:3"], "balance": "source-hash", "limit": {"pps": 1000},
            "on_retire": "reset", "on_empty": "drop", "source": "preserve", "allow": ["198.18.0.0/15"], "deny": ["198.18.7.0/24"]})),
        service("stays", 20005, json!({"backends": ["10.2.0.11:5"]})),
        service("new-name", 20006, json!({"backends": ["10.2.0.11:6"]})),
        service("six", 20007, json!({"backends": ["[fd00:2::11]:7"], "addresses": ["2001:db8:1::1", "203.0.113.2"]})),
    ]}));
    let output = net.tcpgw(&["diff", &file]).exits(1).stdout;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines,
        [
            "~ drains :20001  10.2.0.12:1 drains",
            "~ weighs :20002  10.2.0.12:2 weight 3",
            "~ sets :20003  balance client-hash -> source-hash, limit none -> 1000 packets/s, on_retire drop -> reset, \
             on_empty reset -> drop, source masquerade -> preserve, allow everyone -> 198.18.0.0/15, \
             deny nobody -> 198.18.7.0/24",
            "- goes 203.0.113.1:20004  - 10.2.0.11:4",
            "~ new-name :20006  name old-name -> new-name",
            "+ six 203.0.113.2:20007,[2001:db8:1::1]:20007  + [fd00:2::11]:7  client-hash",
        ],
        "{output}"
    );
    let answer = net.tcpgw(&["apply", &file]).ok();
    assert_said(&answer, "services +1 ~4 -1; backends +1 ~2 -1; 0 flows flushed; ");
    net.tcpgw(&["diff", &file]).exits(0);
}

#[test]
fn what_would_wipe_or_break_a_gateway_is_refused() {
    let net = Net::new();
    let empty = net.state_file("empty.json", json!({"version": 1, "services": []}));
    net.tcpgw(&["apply", &empty]).exits(0);
    let file = net.state_file("state.json", my_app(&["10.2.0.11:3000"]));
    net.tcpgw(&["apply", &file]).exits(0);
    let before = net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok();

    let refused = net.tcpgw(&["apply", &empty]).exits(1);
    assert_eq!(
        refused.stderr,
        "error: the state has no services and the kernel has 1; --allow-empty removes them all\n"
    );
    let own = net.state_file(
        "own.json",
        my_app(&[
            "10.2.0.1:3000",
            "[2001:db8:1::2]:3000",
            "10.2.0.11:3000",
            "10.2.0.255:3000",
        ]),
    );
    for command in [
        &["apply", own.as_str()][..],
        &["diff", &own],
        &["apply", "--dry-run", &own],
    ] {
        let refused = net.tcpgw(command).exits(2);
        for backend in ["10.2.0.1:3000", "[2001:db8:1::2]:3000"] {
            let stderr =
                format!("own.json: service \"my-app\", backend {backend}: is one of the gateway's own addresses");
            assert!(refused.stderr.contains(&stderr), "{refused}");
        }
        assert!(
            refused
                .stderr
                .contains("backend 10.2.0.255:3000: is the broadcast or anycast address"),
            "{refused}"
        );
        assert_eq!(refused.stderr.lines().count(), 3, "{refused}");
    }
    net.tcpgw(&["check", &own]).exits(0);

    let _listener = net.serve("gateway", 20004, Behaviour::Silent);
    let taken = net.state_file(
        "taken.json",
        json!({"version": 1, "services": [{"name": "a", "port": 20004, "backends": []}]}),
    );
    let refused = net.tcpgw(&["apply", &taken]).exits(1);
    let process = "service \"a\": port 20004 is in use: ";
    assert!(
        refused.stderr.contains(process) && refused.stderr.contains(&std::process::id().to_string()),
        "{refused}"
    );
    assert_eq!(net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok(), before);

    net.tcpgw(&["apply", "--take-over", &taken]).exits(0);
    net.tcpgw(&["apply", &taken]).exits(0);
    net.tcpgw(&["apply", "--allow-empty", &empty]).exits(0);
    net.tcpgw(&["apply", &empty]).exits(0);
}

#[test]
fn what_is_odd_but_allowed_is_a_warning() {
    let net = Net::new();
    let state = json!({"version": 1, "services": [
        {"name": "a", "port": 20003, "addresses": ["203.0.113.1", "203.0.113.77", "2001:db8:1::77"],
            "backends": ["10.2.0.11:3000", "[fd00:2::11]:3000"]}
    ]});
    let ran = net.apply(&state);
    for address in ["203.0.113.77", "2001:db8:1::77"] {
        let text = format!("warning: service \"a\", address {address}: is not an address of this gateway (yet)");
        assert!(ran.stderr.contains(&text), "{ran}");
    }
    assert_eq!(ran.stderr.lines().count(), 2, "{ran}");
    net.sh(
        "gateway",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
    )
    .ok();
    let ran = net.apply(my_app(&["10.2.0.11:3000", "[fd00:2::11]:3000"]));
    for sysctl in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        let seen = format!(
            "warning: forwarding: {sysctl} is 0, and forwarding is off on br0 (answers of backends), ext (clients)"
        );
        let fix = format!("run `sysctl -w {sysctl}=1`");
        assert!(ran.stderr.contains(&seen) && ran.stderr.contains(&fix), "{ran}");
    }
    let ran = net.apply_with(&["-q"], my_app(&["10.2.0.11:3000"])).exits(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn the_operators_fences_and_flow_mark_hold() {
    let net = Net::new();
    let config = net.file("config.toml");
    let args = |command: &'static str, file: &str| -> Ran {
        net.tcpgw(&["--config", config.to_str().expect("text"), command, file])
    };
    fs::write(
        &config,
        "[fences]\nports = [\"20000-20999\"]\nbackends = [\"10.2.0.0/28\"]\nmax_services = 1\nmax_backends = 1\n",
    )
    .expect("a file");
    let bad = net.state_file("bad.json", json!({"version": 1, "services": [
        {"name": "a", "port": 19999, "backends": ["10.2.0.20:3000"]}, {"name": "b", "port": 20000, "backends": ["10.2.0.11:3000"]}
    ]}));
    for command in ["check", "render", "diff", "apply"] {
        let refused = args(command, &bad).exits(2);
        for fence in [
            "fences.ports",
            "fences.backends",
            "fences.max_services",
            "fences.max_backends",
        ] {
            assert!(
                refused
                    .stderr
                    .contains(&format!("{fence} in {}", config.to_string_lossy())),
                "{refused}"
            );
        }
        assert!(
            refused.stderr.contains("bad.json: service \"a\", port: 19999"),
            "{refused}"
        );
        assert_eq!(refused.stdout, "");
    }
    assert_eq!(net.run("gateway", &["nft", "list", "ruleset"]).ok(), "");
    let good = net.state_file("good.json", my_app(&["10.2.0.11:3000"]));
    args("apply", &good).exits(0);

    fs::write(&config, "flow_mark = \"0x01000000/0x01000000\"\n").expect("a file");
    let before = net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok();
    for (command, status) in [("apply", 1), ("diff", 2)] {
        let refused = args(command, &good).exits(status);
        assert!(refused.stderr.contains("run `tcpgw teardown` first"), "{refused}");
    }
    assert_eq!(net.run("gateway", &["nft", "-a", "list", "ruleset"]).ok(), before);
    args("teardown", "--quiet").exits(0);
    args("apply", &good).exits(0);
    assert!(
        net.run("gateway", &["nft", "list", "table", "inet", "tcpgw"])
            .ok()
            .contains("0x01000000")
    );
}

fn my_app(backends: &[&str]) -> Value {
    json!({"version": 1, "services": [{"name": "my-app", "port": 20003, "backends": backends}]})
}

fn connections(net: &Net, count: usize) -> Vec<Conn> {
    let to: SocketAddr = at(PUBLIC[0], 20003);
    let open = |_| {
        let mut conn = net.connect("client", to).expect("a connection");
        conn.greeting().expect("a greeting");
        conn
    };
    (0..count).map(open).collect()
}

#[track_caller]
fn assert_said(told: &str, beginning: &str) {
    assert!(
        told.starts_with(beginning) && told.ends_with(" ms\n") && told.lines().count() == 1,
        "{told}"
    );
}

#[track_caller]
fn data(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"))
}
