//! `tcpgw who`: the client behind what a backend sees.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::flows::put;
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{self, INTERNAL, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::views::Held;

#[test]
fn each_of_two_hundred_connections_is_found() {
    let net = Net::new();
    let _servers = [3000, 3001].map(|port| net.serve_all(port, Behaviour::Greet));
    net.apply(state([
        service("web", 8000, &["b1", "b2", "b3"], 3000, json!({})),
        service("keep", 8001, &["b2", "b4"], 3001, json!({"source": "preserve"})),
    ]));
    let mut held = Vec::new();
    for host in ["client", "gateway", "b1", "peer", "routed"] {
        for public in PUBLIC {
            for port in [8000, 8001] {
                held.extend((0..10).map(|_| net.hold(host, at(public, port))));
            }
        }
    }
    assert_eq!(held.len(), 200);
    for held in &held {
        let (name, port) = if held.public.port() == 8000 {
            ("web", 3000)
        } else {
            ("keep", 3001)
        };
        let (seen_as, backend) = (held.greeting.seen_as.to_string(), held.backend(port).to_string());
        let who = net.json(&["who", &seen_as, "--backend", &backend], 0);
        assert_eq!((&who["seen_as"], &who["backend"]), (&json!(seen_as), &json!(backend)));
        let [flow] = found(&who).try_into().expect("one");
        assert_eq!((client(&flow), &flow["service"]), (held.client, &json!(name)), "{who}");
        assert_eq!(
            (&flow["state"], &flow["verdict"]),
            (&json!("ESTABLISHED"), &json!("active")),
            "{who}"
        );
    }
    // Without the backend: all that fit, of both families.
    for held in held.iter().step_by(7) {
        let who = net.json(&["who", &held.greeting.seen_as.to_string()], 0);
        let clients: BTreeSet<SocketAddr> = found(&who).iter().map(client).collect();
        assert_eq!(clients, seen_alike(&held_by(&held.greeting.seen_as, &net)), "{who}");
        assert!(clients.contains(&held.client), "{who}");
    }
}

/// Returns the clients of a backend according to conntrack.
fn held_by(seen_as: &SocketAddr, net: &Net) -> Vec<SocketAddr> {
    let flows = net.conntrack().into_iter().filter(|flow| flow.seen_as == *seen_as);
    flows.map(|flow| flow.client).collect()
}

fn seen_alike(clients: &[SocketAddr]) -> BTreeSet<SocketAddr> {
    clients.iter().copied().collect()
}

fn found(who: &Value) -> Vec<Value> {
    who["flows"].as_array().expect("a list").clone()
}

fn client(flow: &Value) -> SocketAddr {
    flow["client"].as_str().expect("text").parse().expect("an address")
}

#[test]
fn two_backends_may_see_the_same_and_others_none() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let keep = |name, port, host| service(name, port, &[host], 3000, json!({"source": "preserve"}));
    net.apply(state([keep("one", 8000, "b1"), keep("two", 8001, "b2")]));
    net.nft(
        "gateway",
        "table inet foreign { chain publish { type nat hook prerouting priority dstnat; \
        ip daddr 203.0.113.1 tcp dport 8080 dnat ip to 10.2.0.13:3000; }; }",
    );
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let from = SocketAddr::new(plan::addresses("client")[family], 7000);
        let held: Vec<Held> = [8000, 8001]
            .into_iter()
            .map(|port| net.hold_from("client", from, at(public, port)))
            .collect();
        assert!(held.iter().all(|held| held.greeting.seen_as == from));
        let ran = net.tcpgw(&["who", &from.to_string()]).exits(0);
        assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
        assert!(ran.stderr.contains("2 backends see"), "{ran}");
        let services: Vec<Value> = found(&net.json(&["who", &from.to_string()], 0))
            .iter()
            .map(|flow| flow["service"].clone())
            .collect();
        assert_eq!(services, ["one", "two"]);
        for held in &held {
            let who = net.json(
                &["who", &from.to_string(), "--backend", &held.backend(3000).to_string()],
                0,
            );
            let [flow] = found(&who).try_into().expect("one");
            assert_eq!(flow["public"], held.public.to_string());
        }
        let stranger = SocketAddr::new(plan::addresses("b3")[family], 3000).to_string();
        let nobody = net.tcpgw(&["who", &from.to_string(), "--backend", &stranger]).exits(1);
        assert!(nobody.stderr.contains("sees no connection through tcpgw"), "{nobody}");
        assert_eq!(nobody.stdout, "");
    }
    // A server that listens on both families writes it so.
    let mapped = net.json(&["who", "[::ffff:203.0.113.10]:7000", "--backend", "10.2.0.11:3000"], 0);
    assert_eq!(found(&mapped).len(), 1);
    let foreign = net.hold("client", at(PUBLIC[0], 8080));
    assert_eq!(foreign.greeting.backend, "b3");
    let seen_as = foreign.greeting.seen_as.to_string();
    let nobody = net.json(&["who", &seen_as, "--backend", "10.2.0.13:3000"], 1);
    assert_eq!(nobody["flows"], json!([]), "another program's");
    net.json(&["who", &seen_as], 1);
}

/// A request with the backend takes as many messages to and from the kernel with ten flows as with ten thousand.
#[test]
fn with_the_backend_one_entry_is_read() {
    let net = Net::new();
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    let log = net.file("calls");
    let log = log.to_str().expect("temporary paths are text");
    let calls = |args: &[&str]| {
        let strace = ["strace", "-f", "-o", log, "-e", "trace=sendmsg,recvmsg", TCPGW, "who"];
        let ran = net.run("gateway", &[&strace, args].concat()).exits(0);
        assert!(ran.stdout.contains("203.0.113.10:7"), "{ran}");
        fs::read_to_string(log)
            .expect("strace wrote it")
            .lines()
            .filter(|line| line.contains("msg("))
            .count()
    };
    let seen_as = at(INTERNAL[0], 7).to_string();
    let with = [seen_as.as_str(), "--backend", "10.2.0.11:3000"];
    put(&net, vec![("10.2.0.11:3000", 8000); 10]);
    let (few, few_without) = (calls(&with), calls(&[&seen_as]));
    net.run("gateway", &["conntrack", "-F"]).ok();
    put(&net, vec![("10.2.0.11:3000", 8000); 10_000]);
    let (many, many_without) = (calls(&with), calls(&[&seen_as]));
    eprintln!("messages: {few} of 10 flows, {many} of 10,000; without the backend {few_without} and {many_without}");
    assert_eq!(few, many);
}
