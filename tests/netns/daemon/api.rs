//! The API beside the state file, and hostile clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::request;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::state::FLOW_MARK;
use crate::harness::wait_until;
use crate::retire::open;

fn healthy(hosts: &[&str], name: &str, port: u16) -> Value {
    service(name, port, hosts, 3000, json!({"drain_timeout": "1s"}))
}

#[test]
fn the_api_applies_beside_the_file() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([healthy(&["b1"], "a", 2001)]));
    let mut daemon = net.daemon(&[]);
    daemon.settles(2);
    daemon
        .post("/v1/apply?origin=test", state([healthy(&["b2"], "b", 2002)]))
        .ok();
    daemon.settles(4);
    for (port, host) in [(2001, "b1"), (2002, "b2")] {
        for address in PUBLIC {
            assert_eq!(net.spread("client", at(address, port), 5)[host], 5);
        }
    }
    // The order is acknowledged, so it outlives the daemon.
    daemon.kill();
    daemon.start();
    daemon.settles(4);
    assert_eq!(net.spread("client", at(PUBLIC[0], 2002), 5)["b2"], 5);
    assert!(daemon.events_of("draining").is_empty(), "{:#?}", daemon.events());
    // Services of the file are changed in the file, whether they are named by name, port or endpoint.
    let file = net.wanted().to_string_lossy().into_owned();
    let refused = daemon.post("/v1/apply", state([healthy(&["b3"], "a", 2003)]));
    assert!(refused.status == 422 && refused.body.contains(&file), "{refused:?}");
    let mut other_terms = healthy(&["b1"], "c", 2003);
    other_terms["limit"] = json!({"pps": 100});
    for taken in [healthy(&["b3"], "c", 2001), other_terms] {
        let refused = daemon.post("/v1/apply", state([taken]));
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    // And the other way.
    let before = daemon.last();
    net.want(state([healthy(&["b1"], "a", 2001), healthy(&["b3"], "b", 2003)]));
    let rejected = daemon.hears(before, &json!({"event": "rejected"}));
    assert!(rejected["problems"].to_string().contains("API"), "{rejected}");
    net.want(state([healthy(&["b1"], "a", 2001)]));
    daemon.settles(4);
    let dry = daemon
        .post("/v1/apply?dry_run=true", state([healthy(&["b4"], "b", 2002)]))
        .ok();
    assert_eq!(dry["report"]["changed"], true, "{dry}");
    assert_eq!(net.spread("client", at(PUBLIC[0], 2002), 5)["b2"], 5);
    let refused = daemon.post("/v1/apply", state([]));
    assert_eq!(refused.status, 409, "{refused:?}");

    // A teardown removes everything, and a resume restores it.
    let _held = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let torn = daemon.post("/v1/teardown", "").ok();
    assert_eq!(torn["table_removed"], true, "{torn}");
    assert!(net.conntrack().iter().all(|flow| flow.mark & FLOW_MARK == 0), "{torn}");
    assert!(net.sh("gateway", "nft list tables").ok().is_empty());
    assert_eq!(daemon.get("/v1/daemon")["torn_down"], true);
    let before = daemon.last();
    net.want(state([healthy(&["b3"], "a", 2001)]));
    net.cli(&["resume"]).exits(0);
    daemon.hears(before, &json!({"event": "committed"}));
    daemon.settles(4);
    for (port, host) in [(2001, "b3"), (2002, "b2")] {
        assert_eq!(net.spread("client", at(PUBLIC[0], port), 5)[host], 5);
    }
    daemon.stop();
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 5)["b3"], 5);
}

#[test]
fn those_of_another_namespace_are_refused() {
    let net = Net::new();
    let _b1 = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([healthy(&["b1"], "a", 2001)]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    let mut elsewhere = net.relay("client", "elsewhere.sock");
    for (method, target) in [("GET", "/v1/status"), ("POST", "/v1/teardown")] {
        let refused = net
            .ask_by("elsewhere.sock", &request(method, target, ""))
            .expect("an answer");
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("another network namespace"), "{refused:?}");
    }
    drop(elsewhere.kill());
    drop(elsewhere.wait());
    assert!(daemon.is_settled(2));
}

#[test]
fn those_who_mean_harm_disturb_nobody() {
    let net = Net::new();
    let b1 = net.serve("b1", 3000, Behaviour::Greet);
    let fast = json!({"health": {"interval": "50ms", "timeout": "2s", "fall": 1}});
    net.want(state([service("a", 2001, &["b1"], 3000, fast)]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    let before = daemon.last();
    let send = |bytes: &[u8], patience: Duration| {
        let mut stream = UnixStream::connect(net.file("relay.sock")).expect("a relay");
        stream.set_read_timeout(Some(patience)).expect("a timeout");
        // The daemon may close the connection before all is sent.
        drop(stream.write_all(bytes));
        let mut answer = [0; 256];
        let length = stream.read(&mut answer).unwrap_or(0);
        (stream, String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let post = |length: &str| format!("POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let (spread, probes) = net.spread_during("client", at(PUBLIC[0], 2001), 2, || {
        let slow: Vec<_> = (0..100)
            .map(|_| send(format!("{}{{", post("1000")).as_bytes(), Duration::from_millis(1)))
            .collect();
        let (_, huge) = send(post("99999999999").as_bytes(), PATIENCE);
        assert!(huge.contains("413"), "{huge}");
        let endless = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let deep = [post("4000000").into_bytes(), vec![b'['; 4_000_000]].concat();
        let (_, deep) = send(&deep, PATIENCE * 2);
        assert!(deep.contains("422"), "{deep}");
        for nonsense in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"GET\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
        ] {
            let (_, answer) = send(nonsense, Duration::from_secs(1));
            assert!(answer.is_empty() || answer.contains("400"), "{answer}");
        }
        let half = [endless.as_bytes(), b"ffffff\r\n", &vec![b' '; 1 << 20]].concat();
        let more: Vec<_> = (0..10).map(|_| send(&half, Duration::from_millis(1))).collect();
        let probes = b1.accepted();
        assert!(wait_until(PATIENCE, || b1.accepted() > probes + 20));
        thread::sleep(Duration::from_millis(500));
        drop((slow, more));
        b1.accepted() - probes
    });
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    assert!(probes > 20);
    assert_eq!(net.syns_again("client"), 0);
    assert!(wait_until(PATIENCE, || daemon.is_settled(2)));
    assert_eq!(daemon.last(), before, "{:#?}", daemon.events());
}
