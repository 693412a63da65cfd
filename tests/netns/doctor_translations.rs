//! Tables of other programs that translate the port of a service, as `doctor` judges them.

use serde_json::json;

use crate::doctor::{PORT, doctor, passes, web};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::Behaviour;

#[test]
fn a_port_that_another_table_translates_too_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    let other = net.serve("b3", 80, Behaviour::Greet);
    let [address, _] = addresses("b3");
    let publish = "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; \
         iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport";
    net.sh(
        "gateway",
        &format!("{publish} 8080 -j DNAT --to-destination {address}:80"),
    )
    .ok();
    assert!(doctor(&net).bad().is_empty(), "another port is nobody's business");
    net.sh(
        "gateway",
        &format!("iptables-nft -t nat -A DOCKER -p tcp --dport {PORT} -j DNAT --to-destination {address}:80"),
    )
    .ok();
    let mut conn = net
        .within("client", || connect(at(PUBLIC[0], PORT), PATIENCE))
        .expect("a connection");
    assert_eq!(
        conn.greeting().expect("a greeting").backend,
        "b3",
        "whoever was loaded last gets it"
    );
    let report = doctor(&net);
    // Docker's chain stands for all interfaces but its own: it is sure who gets the connections.
    let found = report.one("port-translated-elsewhere", "broken");
    assert!(
        found["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("made after")),
        "{found:#}"
    );
    assert_eq!(report.findings("port-translated-elsewhere").len(), 1);
    // Once our table is made anew, ours does.
    net.tcpgw(&["teardown"]).ok();
    let file = net.file("state.json").to_string_lossy().into_owned();
    net.tcpgw(&["apply", &file]).ok();
    let greeted = || {
        let to = at(PUBLIC[0], PORT);
        net.within("client", || connect(to, PATIENCE).and_then(|mut conn| conn.greeting()))
            .expect("a greeting")
    };
    assert_ne!(greeted().backend, "b3");
    let report = doctor(&net);
    let found = report.one("port-translated-elsewhere", "warning");
    assert!(
        found["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("made before")),
        "{found:#}"
    );
    // Another port for the service, as it says.
    net.apply(state([service("web", PORT + 1, &["b1", "b2"], 3000, json!({}))]));
    assert!(doctor(&net).findings("port-translated-elsewhere").is_empty());
    assert!(other.accepted() > 0);
}

/// A chain that is newer than its table gets the connections: chains of the same priority run in reverse order of their creation,
/// however old their tables are.
#[test]
fn a_chain_that_is_newer_than_its_table_gets_the_connections() {
    let net = Net::new();
    let masquerades = "iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE";
    net.sh("gateway", masquerades).ok();
    let [address, _] = addresses("b3");
    // A chain that is older than ours, too, of a table that is.
    let older = format!(
        "nft 'table inet older {{ chain pre {{ type nat hook prerouting priority dstnat; tcp dport {PORT} dnat ip to \
         {address}:80; }}; }}'"
    );
    net.sh("gateway", &older).ok();
    let _servers = web(&net);
    let _other = net.serve("b3", 80, Behaviour::Greet);
    let greeted = || {
        let to = at(PUBLIC[0], PORT);
        let greeting = net.within("client", || connect(to, PATIENCE).and_then(|mut conn| conn.greeting()));
        greeting.expect("a greeting").backend
    };
    let cause = |severity: &str| {
        let report = doctor(&net);
        let found = report.one("port-translated-elsewhere", severity);
        found["cause"].as_str().expect("a cause").to_owned()
    };
    assert_ne!(greeted(), "b3");
    assert!(cause("warning").contains("it was made before tcpgw's"));
    net.sh("gateway", "nft delete table inet older").ok();
    assert!(doctor(&net).findings("port-translated-elsewhere").is_empty());
    net.tcpgw(&["status", "--interval", "0s"]).exits(0);
    let publishes =
        format!("iptables-nft -t nat -A PREROUTING -p tcp --dport {PORT} -j DNAT --to-destination {address}:80");
    net.sh("gateway", &publishes).ok();
    assert_eq!(greeted(), "b3");
    assert!(cause("broken").contains("it was made after tcpgw's"));
    let status = net.tcpgw(&["status", "--interval", "0s"]).exits(1);
    assert!(
        status.stdout.contains("translates 1 port of services, too"),
        "{}",
        status.stdout
    );
    // The owner's details are in the kernel, with the table: the record may be gone.
    std::fs::remove_dir_all(net.file("run")).expect("a directory");
    assert!(cause("broken").contains("it was made after tcpgw's"));
    // A table that is loaded from a listing knows nothing of others, and nothing is claimed.
    let saved = net.file("saved");
    let saved = saved.to_str().expect("text");
    // nft 1.0.6 prints a flag that it does not know as an empty word, which it does not load.
    let list = format!("nft list table inet tcpgw | sed '/^\tflags/d' > {saved}");
    let again = format!("{list} && nft delete table inet tcpgw && nft -f {saved}");
    net.sh("gateway", &again).ok();
    assert_ne!(greeted(), "b3");
    assert!(cause("warning").contains("cannot be seen here"));
}

/// Translation in a chain that only the gateway's own connections meet is a warning: clients outside do not meet it, but local
/// programs and the daemon's probes do.
#[test]
fn what_translates_the_gateways_own_connections_is_a_warning() {
    let net = Net::new();
    let _servers = web(&net);
    for (rule, id) in [
        ("ip daddr 10.2.0.11 tcp dport 3000 redirect to :9", "probes-dropped"),
        ("tcp dport 20003 redirect to :9", "port-translated-elsewhere"),
    ] {
        let table = format!("table ip other {{ chain o {{ type nat hook output priority -100; {rule}; }}; }}");
        net.sh("gateway", &format!("nft '{table}'")).ok();
        passes(&net, 0);
        let report = doctor(&net);
        assert_eq!((report.status, report.bad().len()), (0, 1), "{:#}", report.json);
        let seen = report.one(id, "warning")["seen"].to_string();
        assert!(seen.contains("translates the gateway's own connections"), "{seen}");
        net.sh("gateway", "nft delete table ip other").ok();
    }
}
