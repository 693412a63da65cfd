//! Backends that clients reach and the daemon's probes do not, because these take another route.

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const OPTIONS: &[&str] = &["--check-interval", "1s"];
const QUICK: &str = "200ms";

/// Returns a service at these backends, with frequent probes.
fn probed(name: &str, port: u16, backends: Value, more: Value) -> Value {
    let health = json!({"interval": QUICK, "timeout": QUICK, "rise": 1, "fall": 1});
    let mut service = service(name, port, &[], 3000, more);
    (service["backends"], service["health"]) = (backends, health);
    service
}

fn problem(net: &Net, kind: &str) -> Option<Value> {
    let ran = net.cli(&["status", "-o", "json", "--interval", "0s"]);
    let output: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let problems = output["problems"].as_array().expect("a list");
    problems.iter().find(|problem| problem["kind"] == kind).cloned()
}

/// Waits until `status` and `doctor` report misrouted probes with all of these words. Returns the line that repairs it.
#[track_caller]
fn told(net: &Net, words: &[&str]) -> String {
    let has_all = |problem: &Value| {
        let message = problem["message"].as_str().expect("a message");
        words.iter().all(|word| message.contains(word))
    };
    let found = || problem(net, "probes_misrouted").filter(has_all);
    assert!(
        wait_until(PATIENCE, || found().is_some()),
        "{}",
        net.cli(&["status", "--interval", "0s"])
    );
    let found = found().expect("it stays");
    assert_eq!(found["severity"], "warning");
    let doctor = net.cli(&["doctor"]).stdout;
    let message = found["message"].as_str().expect("a message").to_owned();
    assert!(
        doctor.contains("warning [probes-misrouted]") && doctor.contains(&message),
        "{doctor}"
    );
    let line = message
        .split("as root: `")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    line.unwrap_or_else(|| panic!("no line in {message}")).to_owned()
}

#[track_caller]
fn is_over(net: &Net, why: &str) {
    let is_well = || net.cli(&["status", "--interval", "0s"]).status == 0 && problem(net, "probes_misrouted").is_none();
    assert!(
        wait_until(PATIENCE, is_well),
        "{why}: {}",
        net.cli(&["status", "--interval", "0s"])
    );
}

fn is_served(net: &Net, family: usize, port: u16) -> bool {
    net.within("client", || {
        connect(at(PUBLIC[family], port), PATIENCE).and_then(|mut conn| conn.greeting().map(drop))
    })
    .is_ok()
}

#[test]
fn a_route_for_an_incoming_interface_alone_is_told_with_the_line_that_mends_it() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.sh(
        "b1",
        "ip address add 10.77.0.5/32 dev lo && ip address add fd00:77::5/128 dev lo",
    )
    .ok();
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route add 10.77.0.0/24 via 10.2.0.11 table 99 && ip rule add iif ext lookup 99 prio 90");
    sh("ip -6 route add fd00:77::/64 via fd00:2::11 table 99 && ip -6 rule add iif ext lookup 99 prio 90");
    let services = [
        probed("web", 20003, json!(["10.77.0.5:3000"]), json!({})),
        probed("web6", 20006, json!(["[fd00:77::5]:3000"]), json!({})),
    ];
    net.apply(state(services.clone()));
    assert!(is_served(&net, 0, 20003) && is_served(&net, 1, 20006), "without probes");
    assert!(
        !net.tcpgw(&["doctor"]).stdout.contains("probes-misrouted"),
        "none are sent"
    );
    net.want(state(services));
    let mut daemon = net.daemon(OPTIONS);
    let line = told(
        &net,
        &[
            "2 addresses of backends",
            "10.77.0.5, fd00:77::5",
            "leave by br0 to the router 10.2.0.11",
            "probes by ext to the router 203.0.113.10",
        ],
    );
    assert_eq!(
        line,
        "ip -6 rule add iif lo to fd00:77::/64 lookup 99; ip rule add iif lo to 10.77.0.0/24 lookup 99"
    );
    sh(&line);
    is_over(&net, &line);
    assert!(is_served(&net, 0, 20003) && is_served(&net, 1, 20006), "with probes");
    // Where the gateway's own packets are refused: `connect` fails, and nothing is sent.
    for end in ["prohibit", "unreachable"] {
        sh(&format!(
            "ip rule del iif lo lookup 99 && ip route add {end} 10.77.0.0/24"
        ));
        daemon.stop();
        sh("nft delete table inet tcpgw");
        daemon.start();
        let line = told(&net, &["probes have no route, or one that refuses"]);
        sh(&line);
        is_over(&net, end);
        sh(&format!("ip route del {end} 10.77.0.0/24"));
    }
}

#[test]
fn the_route_of_a_source_address_that_leads_elsewhere_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip address add 10.2.0.101/24 dev br0 && ip rule add from 10.2.0.101 lookup 78 prio 90");
    sh("ip route add default via 198.51.100.20 dev far table 78");
    let backends = json!(["10.2.0.11:3000"]);
    net.want(state([
        probed("other", 20002, json!(["10.2.0.12:3000"]), json!({})),
        probed(
            "web",
            20003,
            backends,
            json!({"source_addresses": ["10.2.0.101"], "source": "masquerade"}),
        ),
    ]));
    let _daemon = net.daemon(OPTIONS);
    let line = told(
        &net,
        &["probes from 10.2.0.101 to 1 address of backends", ": 10.2.0.11 ("],
    );
    assert_eq!(line, "ip rule add iif lo to 10.2.0.11/32 lookup main");
    sh(&line);
    is_over(&net, &line);
    assert!(is_served(&net, 0, 20003));
}

#[test]
fn dead_backends_on_ordinary_routes_are_not_said_to_be_misrouted() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.sh("b1", "ip address add 10.77.0.5/32 dev lo").ok();
    net.sh("b3", "ip link set eth0 down").ok();
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route add 10.77.0.0/24 via 10.2.0.11 table 99 && ip rule add iif ext lookup 99 prio 90");
    sh("ip rule add iif lo lookup 99 prio 91");
    let backends = json!([
        "10.2.0.11:3000",
        "10.2.0.12:3000",
        "10.2.0.13:3000",
        "[fd00:2::11]:3000",
        "[fd00:2::12]:3000",
        "[fd00:2::13]:3000",
    ]);
    net.want(state([
        probed("web", 20003, backends, json!({})),
        probed("by-rule", 20004, json!(["10.77.0.5:3000"]), json!({})),
    ]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(3);
    for setting in [
        "true",
        // As the guide to networks has it, where the second uplink is `far`.
        "ip route add default via 198.51.100.20 dev far table 102 && ip rule add fwmark 0x2/0x2 lookup 102 priority 1000",
        "ip rule add from 198.51.100.1 lookup 102 priority 1001",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "sysctl -qw net.ipv4.conf.all.rp_filter=2 && ip route add blackhole 192.0.2.0/24",
    ] {
        is_over(&net, setting);
        sh(setting);
        // One that is misrouted, so that a check is known to have been made: the dead ones are not named beside it.
        sh("ip rule del iif lo lookup 99");
        let line = told(&net, &[" 1 address of backends ", ": 10.77.0.5 ("]);
        sh(&line);
        is_over(&net, setting);
        sh("ip rule del iif lo lookup 99 && ip rule add iif lo lookup 99 prio 91");
    }
}
