//! Backends that leave: the end of their flows, while other flows go on.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::plan::{self, NOBODY, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::wire::{ACK, Packet, lines};
use crate::harness::{Net, wait_until};

/// Time within which a client gets in whose backend was dead and left.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn a_dropped_flow_meets_silence_and_a_reset_one_ends_at_once() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let services = |drop: &str, reset: &str| {
        state([
            service("drop", 2001, &[drop], 3000, json!({"on_retire": "drop"})),
            service("reset", 2002, &[reset], 3000, json!({"on_retire": "reset"})),
        ])
    };
    net.apply(services("b1", "b2"));
    let mut dropped = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let mut reset = PUBLIC.map(|address| open(&net, at(address, 2002), "b2"));
    let containers = plan::BACKENDS.map(|host| net.capture(host, of_an_old_flow));
    let output = net.apply(services("b3", "b4")).stdout;
    assert!(output.contains("4 flows flushed"), "{output}");
    assert_eq!(flows(&net, "b1") + flows(&net, "b2"), 0);

    for conn in &mut reset {
        conn.patience(SOON);
        ends_with(conn, ErrorKind::ConnectionReset);
    }
    for conn in &mut dropped {
        falls_silent(&net, conn);
    }
    for capture in containers {
        let packets = capture.stop();
        assert!(packets.is_empty(), "{}", lines(&packets));
    }
    assert!(net.tallied("stale", "tcp . 2001") >= 4 && net.tallied("stale", "tcp . 2002") >= 2);
    for address in PUBLIC {
        open(&net, at(address, 2001), "b3");
        open(&net, at(address, 2002), "b4");
    }
}

#[test]
fn services_that_swap_backends_do_not_swap_clients() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let services = |one: &str, other: &str| {
        state([
            service("one", 2001, &[one], 3000, json!({"on_retire": "reset"})),
            service("other", 2002, &[other], 3000, json!({})),
            service("still", 2003, &["b3"], 3000, json!({})),
        ])
    };
    net.apply(services("b1", "b2"));
    let mut one = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let mut other = PUBLIC.map(|address| open(&net, at(address, 2002), "b2"));
    let mut still = PUBLIC.map(|address| open(&net, at(address, 2003), "b3"));
    let containers = ["b1", "b2"].map(|host| net.capture(host, of_an_old_flow));
    net.apply(services("b2", "b1"));
    for conn in &mut one {
        ends_with(conn, ErrorKind::ConnectionReset);
    }
    for conn in &mut other {
        falls_silent(&net, conn);
    }
    for conn in &mut still {
        conn.echo(b"on").expect("it goes on");
    }
    for capture in containers {
        let packets = capture.stop();
        assert!(packets.is_empty(), "{}", lines(&packets));
    }
    for address in PUBLIC {
        open(&net, at(address, 2001), "b2");
        open(&net, at(address, 2002), "b1");
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_until_it_is_removed_or_its_service_is() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    net.apply(state([draining("a", 2001, "b1", &["b2"])]));
    for (conn, address) in conns.iter_mut().zip(PUBLIC) {
        conn.echo(b"on").expect("it goes on");
        assert_eq!(
            net.spread("client", at(address, 2001), 8).keys().collect::<Vec<_>>(),
            ["b2"]
        );
        conn.echo(b"and on").expect("it goes on");
    }
    let mut newer = PUBLIC.map(|address| open(&net, at(address, 2001), "b2"));
    net.apply(state([service("a", 2001, &["b2"], 3000, json!({}))]));
    assert_eq!(flows(&net, "b1"), 0);
    for conn in &mut conns {
        falls_silent(&net, conn);
    }
    for conn in &mut newer {
        conn.echo(b"on").expect("it goes on");
    }

    let removed = net.apply_with(&["--allow-empty", "-o", "json"], state([])).ok();
    let removed: Value = serde_json::from_str(&removed).expect("JSON");
    assert!(removed["flows_flushed"].as_u64() >= Some(2), "{removed}");
    assert_eq!(flows(&net, "b2"), 0);
    // No service has the port now, so the gateway's own stack answers.
    for conn in &mut newer {
        ends_with(conn, ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_drain_waits_for_flows_to_end_but_no_longer_than_it_may() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let limit = json!({"limit": {"pps": 50, "burst": 50}});
    let before = state([service("a", 2001, &["b1"], 3000, limit.clone())]);
    let after = state([service("a", 2001, &["b2"], 3000, limit)]);
    net.apply(&before);
    let mut conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let raw = net.raw_connect("client", at(NOBODY[0], 7000), at(PUBLIC[0], 2001));
    let limited = net.capture("b1", |packet| {
        !packet.outgoing && packet.payload == 0 && packet.src.is_ipv4()
    });
    let file = net.state_file("after.json", &after);
    let drain = |time: &str| net.spawn("gateway", &[TCPGW, "apply", "--drain", time, &file]);

    // A slow machine needs longer for the same packets.
    let seconds = 3 * u64::from(net.divisor(5_000).min(4));
    let mut run = drain(&format!("{seconds}s"));
    assert!(wait_until(PATIENCE, || switched(&net)));
    let since = Instant::now();
    let sent = raw
        .forger()
        .blast(1000, Duration::from_secs(2), |_| raw.segment(ACK, &[]));
    let (passed, took) = (limited.stop().len(), since.elapsed());
    let most = 100 + 50 * took.as_millis() / 1000;
    assert!(
        passed as u128 <= most && sent == 2000,
        "{passed} of {sent} passed in {took:?} while it drained"
    );
    assert!(net.tallied("over_to_v4", "10.2.0.11 . 3000") >= 1700);
    conns[1].echo(b"on").expect("it goes on while it drains");
    assert!(!run.ended());
    let ran = run.wait();
    assert!(ran.took >= Duration::from_secs(seconds), "{ran}");
    assert!(ran.ok().contains("3 flows flushed"));
    falls_silent(&net, &mut conns[1]);

    net.apply(&before);
    let conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let mut run = drain("1h");
    assert!(wait_until(PATIENCE, || switched(&net)));
    assert!(!run.ended());
    drop(conns);
    assert!(wait_until(PATIENCE, || run.ended()), "it waits though all have ended");
    run.wait().ok();
}

#[test]
fn a_client_that_hangs_at_a_dead_backend_gets_in_once_it_leaves() {
    let net = Net::new();
    let _servers = ["b2", "b3"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    // The host still answers ARP and neighbour solicitations: without, the client would get an error that the host is unreachable.
    net.nft(
        "b1",
        "table inet dead { chain in { type filter hook input priority 0; meta l4proto tcp drop; }; }",
    );
    let dead = || state([service("a", 2001, &["b1"], 3000, json!({}))]);
    let ways = [
        ("removed", state([service("a", 2001, &["b2"], 3000, json!({}))])),
        ("draining", state([draining("a", 2001, "b1", &["b2"])])),
        (
            "moved",
            state([
                service("a", 2001, &["b2"], 3000, json!({})),
                service("b", 2002, &["b1"], 3000, json!({})),
            ]),
        ),
    ];
    for (way, after) in ways {
        net.apply(dead());
        thread::scope(|scope| {
            let net = &net;
            let clients = PUBLIC.map(|address| {
                scope.spawn(move || {
                    let conn = net.connect("client", at(address, 2001));
                    (conn, Instant::now())
                })
            });
            let both = || flows(net, "b1") == 2;
            assert!(wait_until(PATIENCE, both));
            let left = Instant::now();
            net.apply(&after);
            for client in clients {
                let (conn, when) = client.join().expect("clients do not panic");
                let took = when - left;
                eprintln!("{way}: in {took:?} after its backend left");
                assert!(took < SOON, "{way}: {took:?}");
                assert_eq!(
                    conn.expect("a connection").greeting().expect("a greeting").backend,
                    "b2"
                );
            }
        });
    }
}

/// Flows of clients behind the gateway and on it end in the same way, in both source modes.
#[test]
fn flows_of_every_kind_of_client_end_in_the_same_way() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    for source in ["masquerade", "preserve"] {
        let services = |drop: &str, reset: &str| {
            let fields = |on_retire| json!({"on_retire": on_retire, "source": source});
            state([
                service("drop", 2001, &[drop], 3000, fields("drop")),
                service("reset", 2002, &[reset], 3000, fields("reset")),
            ])
        };
        net.apply(services("b1", "b2"));
        let hosts = ["client", "gateway", "b1", "b2", "peer"];
        let from_all =
            |port, backend| hosts.map(|host| PUBLIC.map(|address| open_from(&net, host, at(address, port), backend)));
        let (mut dropped, mut reset) = (from_all(2001, "b1"), from_all(2002, "b2"));
        let containers = ["b3", "b4"].map(|host| net.capture(host, of_an_old_flow));
        net.apply(services("b3", "b4"));
        for (conn, host) in reset
            .iter_mut()
            .zip(hosts)
            .flat_map(|(conns, host)| conns.iter_mut().map(move |c| (c, host)))
        {
            conn.patience(SOON);
            let ended = conn.echo(b"late").expect_err(host);
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{source} {host}");
        }
        for (conn, host) in dropped
            .iter_mut()
            .zip(hosts)
            .flat_map(|(conns, host)| conns.iter_mut().map(move |c| (c, host)))
        {
            conn.patience(Duration::from_millis(200));
            let ended = conn.echo(b"late").expect_err(host);
            assert_eq!(ended.kind(), ErrorKind::WouldBlock, "{source} {host}");
        }
        for capture in containers {
            let packets = capture.stop();
            assert!(packets.is_empty(), "{source}: {}", lines(&packets));
        }
        assert_eq!(flows(&net, "b1") + flows(&net, "b2"), 0);
    }
}

#[test]
fn a_server_that_talks_learns_that_its_flow_is_gone_and_its_client_never_sees_its_address() {
    let net = Net::new();
    let talking = net.serve("b1", 3000, Behaviour::Source);
    for source in ["masquerade", "preserve"] {
        for address in PUBLIC {
            // The host stays a backend, of another service: the gateway knows nothing of other hosts.
            let services = |one, other| {
                let fields = || json!({"source": source});
                state([
                    service("a", 2001, &[one], 3000, fields()),
                    service("b", 2002, &[other], 3000, fields()),
                ])
            };
            net.apply(services("b1", "b2"));
            let mut conn = net.connect("client", at(address, 2001)).expect("a connection");
            conn.receive().expect("it talks");
            let odd = net.capture("client", move |packet| {
                !packet.outgoing && packet.src != at(address, 2001)
            });
            let ended = talking.resets();
            thread::scope(|scope| {
                // The client goes on reading, so that data is always in flight.
                scope.spawn(move || {
                    conn.patience(Duration::from_millis(500));
                    let since = Instant::now();
                    while since.elapsed() < PATIENCE && conn.receive().is_ok_and(|bytes| !bytes.is_empty()) {}
                });
                net.apply(services("b2", "b1"));
                assert!(wait_until(PATIENCE, || talking.resets() > ended), "{source} {address}");
            });
            let odd = odd.stop();
            assert!(odd.iter().all(|packet| packet.src.port() != 3000), "{}", lines(&odd));
        }
    }
}

#[test]
fn no_connection_slips_through_to_a_backend_that_has_just_left() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let on = |hosts: &[&str]| state([service("a", 2001, hosts, 3000, json!({"on_retire": "reset"}))]);
    net.apply(on(&["b1", "b2"]));
    let slowness = net.divisor(10_000).min(3);
    let (spread, ()) = net.spread_during("client", at(PUBLIC[0], 2001), 2, || {
        for round in 0..8 {
            let (stays, leaves) = if round % 2 == 0 { ("b2", "b1") } else { ("b1", "b2") };
            net.apply(on(&["b3", stays]));
            assert_eq!(flows(&net, leaves), 0, "round {round}");
        }
    });
    eprintln!(
        "{} served, {} cut, longest {:?}",
        spread.served(),
        spread.failures.len(),
        spread.longest
    );
    assert!(spread.served() > 100);
    assert!(spread.longest < SOON * slowness, "{:?}", spread.longest);
}

/// Connects to that backend, which is the only one.
#[track_caller]
pub(crate) fn open(net: &Net, to: SocketAddr, backend: &str) -> Conn {
    open_from(net, "client", to, backend)
}

#[track_caller]
fn open_from(net: &Net, host: &str, to: SocketAddr, backend: &str) -> Conn {
    let mut conn = net.connect(host, to).expect("a connection");
    assert_eq!(conn.greeting().expect("a greeting").backend, backend);
    conn
}

/// Connects until the connection is to that backend.
#[track_caller]
pub(crate) fn until(net: &Net, to: SocketAddr, backend: &str) -> Conn {
    let attempt = |_| {
        let mut conn = net.connect("client", to).expect("a connection");
        (conn.greeting().expect("a greeting").backend == backend).then_some(conn)
    };
    (0..100).find_map(attempt).expect("a connection to that backend")
}

pub(crate) fn draining(name: &str, port: u16, leaving: &str, staying: &[&str]) -> Value {
    let staying = staying.iter().flat_map(|host| endpoints(host, 3000)).map(Value::from);
    let leaving =
        plan::addresses(leaving).map(|address| json!({"address": address, "port": 3000, "state": "draining"}));
    let backends: Vec<Value> = staying.chain(leaving).collect();
    json!({"name": name, "port": port, "backends": backends})
}

/// Sends, and reads the end.
#[track_caller]
fn ends_with(conn: &mut Conn, kind: ErrorKind) {
    let ended = conn.echo(b"late").expect_err("it should have ended");
    assert_eq!(ended.kind(), kind);
}

/// Sends, and sends again, and nothing comes back.
#[track_caller]
fn falls_silent(net: &Net, conn: &mut Conn) {
    let local = conn.local();
    let seen = net.capture("client", move |packet| packet.src == local || packet.dst == local);
    conn.send(b"late").expect("it can be sent");
    assert!(wait_until(PATIENCE, || seen
        .so_far()
        .iter()
        .filter(|packet| packet.payload == 4)
        .count()
        >= 3));
    let seen = seen.stop();
    assert!(seen.iter().all(|packet| packet.outgoing), "{}", lines(&seen));
}

/// Returns the number of flows to a container.
pub(crate) fn flows(net: &Net, host: &str) -> usize {
    let to = |address| net.flows_to(SocketAddr::new(address, 3000)).len();
    plan::addresses(host).map(to).iter().sum()
}

/// Returns true when a packet reached a container, or left it as an answer, and does not begin a new flow.
fn of_an_old_flow(packet: &Packet) -> bool {
    !packet.outgoing && packet.dst.port() == 3000 && !packet.opens()
}

/// Returns true when new connections go to b2 alone.
pub(crate) fn switched(net: &Net) -> bool {
    let slots = net.sh("gateway", "nft list map inet tcpgw slots_v4").ok();
    slots.contains("10.2.0.12") && !slots.contains("10.2.0.11")
}
