//! Findings of `doctor` about a healthy gateway, and about one with faults in its forwarding, table, routes or settings.
//!
//! Where something breaks traffic: it is broken for real, a connection shows that, and after the printed line was typed
//! another one shows that it passes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{INTERNAL, PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::state::FLOW_MARK;

pub(crate) const PORT: u16 = 20003;
/// Time to wait for a connection that is expected to fail.
pub(crate) const SHORT: Duration = Duration::from_millis(400);

/// Output of one run of `doctor`.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) json: Value,
}

impl Said {
    pub(crate) fn findings(&self, id: &str) -> Vec<&Value> {
        let all = self.json["findings"].as_array().expect("a list of findings");
        all.iter().filter(|finding| finding["id"] == id).collect()
    }

    /// Returns the findings other than notes.
    pub(crate) fn bad(&self) -> Vec<&Value> {
        let all = self.json["findings"].as_array().expect("a list of findings");
        all.iter().filter(|finding| finding["severity"] != "note").collect()
    }

    #[track_caller]
    pub(crate) fn one(&self, id: &str, severity: &str) -> &Value {
        let found = self.findings(id);
        let found = found.first().unwrap_or_else(|| panic!("no {id} in {:#}", self.json));
        assert_eq!(found["severity"], severity, "{found:#}");
        found
    }

    pub(crate) fn unchecked(&self) -> Vec<String> {
        let all = self.json["unchecked"].as_array().expect("a list of checks");
        all.iter()
            .map(|check| check["check"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

pub(crate) fn doctor(net: &Net) -> Said {
    let ran = net.tcpgw(&["-o", "json", "doctor"]);
    let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
    Said {
        status: ran.status,
        json,
    }
}

/// Returns the command line that a finding proposes.
#[track_caller]
pub(crate) fn line(finding: &Value) -> String {
    finding["fix"]["command"]
        .as_str()
        .unwrap_or_else(|| panic!("no command in {finding:#}"))
        .to_owned()
}

/// Applies `web` at b1 and b2, in both families, and starts their servers.
pub(crate) fn web(net: &Net) -> Vec<Server> {
    let servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.apply(state([service("web", PORT, &["b1", "b2"], 3000, json!({}))]));
    servers.into()
}

/// Returns true when a client outside gets a greeting from a backend.
pub(crate) fn reaches(net: &Net, family: usize, patience: Duration) -> bool {
    let to = at(PUBLIC[family], PORT);
    net.within("client", || {
        connect(to, patience).and_then(|mut conn| conn.greeting()).is_ok()
    })
}

#[track_caller]
pub(crate) fn passes(net: &Net, family: usize) {
    assert!(reaches(net, family, PATIENCE), "{} is not reached", PUBLIC[family]);
}

#[track_caller]
pub(crate) fn breaks(net: &Net, family: usize) {
    assert!(!reaches(net, family, SHORT), "{} is reached", PUBLIC[family]);
}

/// Breaks something, sees that it breaks traffic, sees the finding, types its line, sees both gone.
#[track_caller]
pub(crate) fn breaks_and_heals(net: &Net, family: usize, id: &str, provoke: &str) {
    passes(net, family);
    net.sh("gateway", provoke).ok();
    breaks(net, family);
    let mut report = doctor(net);
    assert_eq!(report.status, 1, "{:#}", report.json);
    report.one(id, "broken");
    // One cause may show in several places.
    for _ in 0..3 {
        let Some(finding) = report.findings(id).first().copied() else {
            break;
        };
        net.sh("gateway", &line(finding)).ok();
        report = doctor(net);
    }
    assert!(report.findings(id).is_empty(), "{:#}", report.json);
    passes(net, family);
    assert_eq!(report.status, 0, "{:#}", report.json);
}

#[test]
fn a_gateway_that_is_well_has_no_trouble_and_is_left_as_it_was() {
    let net = Net::new();
    let _servers = web(&net);
    let before = net.identity();
    let rules = net.sh("gateway", "nft -s list ruleset").ok();
    let report = doctor(&net);
    // Programs of this machine may reserve no ports; which range it has is the kernel's default, and 20003 not in it.
    assert!(report.bad().is_empty(), "{:#}", report.json);
    assert_eq!(report.status, 0);
    assert!(report.unchecked().is_empty(), "{:#}", report.json);
    assert_eq!(net.identity(), before, "nothing was committed");
    assert_eq!(net.sh("gateway", "nft -s list ruleset").ok(), rules);
    passes(&net, 0);
}

#[test]
fn forwarding_that_is_off_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    for (family, id, setting) in [
        (0, "ip-forward-off", "net.ipv4.ip_forward"),
        (1, "ipv6-forwarding-off", "net.ipv6.conf.all.forwarding"),
    ] {
        breaks_and_heals(&net, family, id, &format!("sysctl -qw {setting}=0"));
    }
    // IPv6 forwarding may be off when there is no IPv6 backend.
    let only4 = json!({"name": "web", "port": PORT, "backends": ["10.2.0.11:3000"]});
    net.apply(state([only4]));
    net.sh("gateway", "sysctl -qw net.ipv6.conf.all.forwarding=0").ok();
    assert!(doctor(&net).bad().is_empty());
}

#[test]
fn forwarding_is_judged_by_the_interfaces_that_are_used() {
    let net = Net::new();
    let _servers = web(&net);
    for link in ["ext", "br0"] {
        let off = format!("sysctl -qw net.ipv4.conf.{link}.forwarding=0");
        breaks_and_heals(&net, 0, "ip-forward-off", &off);
    }
    let set = |settings: &str| drop(net.sh("gateway", &format!("sysctl -qw {settings}")).ok());
    set("net.ipv4.ip_forward=0 net.ipv4.conf.ext.forwarding=1 net.ipv4.conf.br0.forwarding=1");
    passes(&net, 0);
    let report = doctor(&net);
    // Clients may come in by the third one, too.
    let other = line(report.one("ip-forward-off", "warning"));
    assert_eq!(other, "sysctl -w net.ipv4.conf.far.forwarding=1");
    net.sh("gateway", &other).ok();
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
    report.one("ip-forward-off", "note");
    let forced = "/proc/sys/net/ipv6/conf/ext/force_forwarding";
    if net.sh("gateway", &format!("test -e {forced}")).status != 0 {
        println!("this kernel has no force_forwarding: nothing more to test");
        return;
    }
    set("net.ipv6.conf.all.forwarding=0");
    for link in ["ext", "br0", "far"] {
        set(&format!("net.ipv6.conf.{link}.force_forwarding=1"));
    }
    passes(&net, 1);
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
    let off = "sysctl -qw net.ipv6.conf.br0.force_forwarding=0";
    breaks_and_heals(&net, 1, "ipv6-forwarding-off", off);
}

#[test]
fn a_table_that_is_gone_edited_or_not_recorded_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    let file = net.file("state.json").to_string_lossy().into_owned();
    let heal = |id: &str| {
        net.tcpgw(&["apply", &file]).ok();
        let report = doctor(&net);
        assert!(
            report.findings(id).is_empty() && report.status == 0,
            "{:#}",
            report.json
        );
        passes(&net, 0);
    };
    for (id, edit) in [
        ("table-missing", "nft flush ruleset"),
        ("table-changed", "nft flush map inet tcpgw slots_v4"),
        ("table-changed", "nft insert rule inet tcpgw guard tcp dport 20003 drop"),
    ] {
        net.sh("gateway", edit).ok();
        breaks(&net, 0);
        let report = doctor(&net);
        assert_eq!(report.status, 1);
        assert!(
            report.one(id, "broken")["fix"]["advice"]
                .as_str()
                .is_some_and(|text| text.contains("tcpgw apply"))
        );
        heal(id);
    }
    net.forget();
    doctor(&net).one("table-unrecorded", "note");
    heal("table-unrecorded");
    net.tcpgw(&["teardown"]).ok();
    let report = doctor(&net);
    report.one("table-missing", "note");
    assert_eq!(report.status, 0);
}

#[test]
fn another_mark_in_the_table_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    let config = net.file("config.toml");
    std::fs::write(&config, "flow_mark = \"0x01000000/0x01000000\"\n").expect("a file can be written");
    let ran = net.tcpgw(&["--config", &config.to_string_lossy(), "-o", "json", "doctor"]);
    assert!(ran.stdout.contains("table-of-another-mark"), "{ran}");
}

#[test]
fn what_may_not_be_read_is_named() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh("gateway", "sysctl -qw net.ipv4.ip_forward=0").ok();
    let argv = [
        "setpriv",
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        crate::harness::shell::TCPGW,
        "doctor",
    ];
    let ran = net.run("gateway", &argv).exits(1);
    for check in [
        "the table inet tcpgw",
        "other tables of nftables",
        "features of the kernel",
        "the counters of conntrack",
    ] {
        assert!(ran.stdout.contains(&format!("unchecked: {check}: ")), "{check}\n{ran}");
    }
    // The facts that can be read are reported.
    assert!(ran.stdout.contains("[ip-forward-off]"), "{ran}");
    assert!(ran.stdout.contains("checks could not be made"), "{ran}");
}

#[test]
fn settings_and_ports_are_looked_at() {
    let net = Net::new();
    let mut servers = web(&net);
    servers.push(net.serve("gateway", PORT, Behaviour::Greet));
    net.sh(
        "gateway",
        "sysctl -qw net.ipv4.ip_local_port_range='20000 30000' net.netfilter.nf_conntrack_acct=0",
    )
    .ok();
    net.sh("gateway", "ip address add 203.0.113.9/32 dev ext").ok();
    let chosen = json!({"name": "chosen", "port": 20004, "addresses": ["203.0.113.9"], "backends": ["10.2.0.13:1"]});
    net.apply(state([service("web", PORT, &["b1", "b2"], 3000, json!({})), chosen]));
    net.sh("gateway", "ip address del 203.0.113.9/32 dev ext").ok();
    let report = doctor(&net);
    report.one("port-with-listener", "note");
    report.one("address-not-local", "broken");
    assert_eq!(report.status, 1);
    net.json(&["status", "--interval", "0s"], 1);
    for (id, severity) in [("port-in-local-range", "warning"), ("conntrack-accounting-off", "note")] {
        net.sh("gateway", &line(report.one(id, severity))).ok();
        assert!(doctor(&net).findings(id).is_empty(), "{id}");
    }
    let reserved = net.sh("gateway", "sysctl -n net.ipv4.ip_local_reserved_ports").ok();
    assert_eq!(reserved.trim(), "20003-20004");
}

/// Exhausted source ports are found, when the flows of a crowd use every source port towards a backend.
#[test]
fn source_ports_that_run_out_are_found() {
    use std::fmt::Write;

    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let one = |fields: Value| state([service("web", PORT, &["b1"], 3000, fields)]);
    net.apply(one(json!({})));
    passes(&net, 0);
    let hold = |ports: std::ops::RangeInclusive<u16>| {
        let mut entries = String::new();
        for port in ports {
            let _ = writeln!(
                entries,
                "-A -t 600 -u SEEN_REPLY,ASSURED -p tcp -s 198.18.7.7 --sport {port} -d {} --dport {PORT} \
                 --src-nat {}:{port} --dst-nat 10.2.0.11:3000 --state ESTABLISHED -m {FLOW_MARK}",
                PUBLIC[0], INTERNAL[0]
            );
        }
        let file = net.file("entries");
        std::fs::write(&file, entries).expect("a file can be written");
        net.run("gateway", &["conntrack", "-R", &file.to_string_lossy()]);
    };
    hold(1024..=55_000);
    let report = doctor(&net);
    report.one("snat-ports-exhausted", "warning");
    assert_eq!(report.status, 0);
    passes(&net, 0);
    hold(55_001..=65_535);
    breaks(&net, 0);
    let report = doctor(&net);
    report.one("snat-ports-exhausted", "broken");
    assert_eq!(report.status, 1);
    net.apply(one(json!({"source": "preserve"})));
    passes(&net, 0);
    net.sh("gateway", "conntrack -D -s 198.18.7.7 >/dev/null").ok();
    assert!(doctor(&net).findings("snat-ports-exhausted").is_empty());
}
