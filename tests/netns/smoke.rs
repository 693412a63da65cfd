//! The harness itself, with a hand-written ruleset instead of tcpgw's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::client::{PATIENCE, connect};
use crate::harness::forge::Segment;
use crate::harness::plan::{self, BACKENDS, INTERNAL, NOBODY, PUBLIC, PUBLIC_2, at, ip};
use crate::harness::server::{Behaviour, Server};
use crate::harness::wire::{ACK, FIN, ICMP, ICMPV6, PSH, Packet, RST, SYN, lines};
use crate::harness::{Net, namespaces, wait_until};

/// Port 80 to all four backends, 81 to b1 and 84 to b4 alone, 90 to b2 at 1,000 packets/s.
const RULESET: &str = "
table inet hand {
    chain balance {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type != local return
        tcp dport 80 dnat ip to numgen random mod 4 map { 0 : 10.2.0.11, 1 : 10.2.0.12, 2 : 10.2.0.13, 3 : 10.2.0.14 }:3000
        tcp dport 80 dnat ip6 to numgen random mod 4 map { 0 : fd00:2::11, 1 : fd00:2::12, 2 : fd00:2::13, 3 : fd00:2::14 }:3000
        tcp dport 81 dnat ip to 10.2.0.11:3000
        tcp dport 81 dnat ip6 to [fd00:2::11]:3000
        tcp dport 84 dnat ip to 10.2.0.14:3000
        tcp dport 84 dnat ip6 to [fd00:2::14]:3000
        tcp dport 90 dnat ip to 10.2.0.12:3001
        tcp dport 90 dnat ip6 to [fd00:2::12]:3001
    }
    chain source {
        type nat hook postrouting priority srcnat; policy accept;
        ct status dnat masquerade
    }
    chain police {
        type filter hook forward priority filter; policy accept;
        tcp dport 3001 limit rate over 1000/second burst 1000 packets drop
    }
}";

#[test]
fn everyone_reaches_everyone() {
    let net = Net::new();
    let servers = ["client", "b1", "b4", "peer", "routed"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    let ways = [
        ("client", "b1"),
        ("client", "routed"),
        ("b4", "client"),
        ("peer", "b1"),
        ("gateway", "peer"),
        ("routed", "b4"),
        ("gateway", "client"),
    ];
    for (from, to) in ways {
        for address in plan::addresses(to) {
            let mut conn = net.connect(from, SocketAddr::new(address, 3000)).expect("a way");
            let greeting = conn.greeting().expect("a greeting");
            assert_eq!(greeting.backend, to);
            assert_eq!(greeting.seen_as, conn.local());
        }
    }
    assert_eq!(servers.map(|server| server.accepted()).iter().sum::<u64>(), 14);
    for address in [PUBLIC, PUBLIC_2, INTERNAL].concat() {
        net.run("client", &["ping", "-c", "1", "-W", "5", address]).ok();
    }
}

#[test]
fn a_crowd_lives_on_the_client() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    for n in [1, 300] {
        for (from, to) in plan::crowd(n).into_iter().zip(plan::addresses("b1")) {
            let mut conn = net
                .connect_from("client", from, SocketAddr::new(to, 3000))
                .expect("a way");
            assert_eq!(conn.greeting().expect("a greeting").seen_as.ip(), from);
        }
    }
}

#[test]
fn nets_do_not_meet() {
    let (one, other) = (Net::new(), Net::new());
    let _servers = [&one, &other].map(|net| net.serve_all(3000, Behaviour::Greet));
    one.nft("gateway", RULESET);
    assert!(other.sh("gateway", "nft list ruleset").ok().is_empty());
    assert_eq!(one.spread("client", at(PUBLIC[0], 80), 20).values().sum::<usize>(), 20);
    assert!(other.connect("client", at(PUBLIC[0], 80)).is_err());
}

#[test]
fn nothing_is_left_after_a_panic() {
    let mut prefix = String::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let net = Net::new();
        prefix = net.prefix().into();
        let _sleeper = net.spawn("b1", &["sleep", "1000"]);
        net.sh("b2", "sleep 1000 > /dev/null 2>&1 &").ok();
        let _server = net.serve("b1", 3000, Behaviour::Greet);
        assert_eq!(namespaces(net.prefix()).len(), 8);
        panic!("on purpose");
    }));
    assert!(outcome.is_err());
    assert_eq!(namespaces(&prefix), Vec::<String>::new());
}

#[test]
fn connections_spread_over_the_backends() {
    let net = Net::new();
    net.nft("gateway", RULESET);
    let servers = net.serve_all(3000, Behaviour::Greet);
    for address in PUBLIC {
        let counts = net.spread("client", at(address, 80), 200);
        assert_eq!(counts.keys().collect::<Vec<_>>(), BACKENDS.iter().collect::<Vec<_>>());
    }
    let parallel = net.spread_by("client", at(PUBLIC[0], 80), 2000, 50);
    assert!(parallel.failures.is_empty(), "{:?}", parallel.failures);
    assert_eq!(parallel.served(), 2000);
    assert!(parallel.longest < Duration::from_secs(5), "{:?}", parallel.longest);
    assert_eq!(servers.iter().map(Server::accepted).sum::<u64>(), 2400);
    let (during, ()) = net.spread_during("client", at(PUBLIC[1], 80), 4, || {
        assert!(wait_until(PATIENCE, || servers[0].accepted() > 1000));
    });
    assert!(during.failures.is_empty() && during.served() > 300, "{during:?}");
}

#[test]
fn servers_behave() {
    let net = Net::new();
    let b1 = plan::addresses("b1").map(|address| move |port| SocketAddr::new(address, port));
    let greet = net.serve("b1", 1, Behaviour::Greet);
    let mut conn = net.connect("client", b1[0](1)).expect("a connection");
    conn.greeting().expect("a greeting");
    assert!(conn.took < PATIENCE);
    conn.echo(&vec![7; 3 << 20]).expect("an echo");
    assert_eq!((greet.bytes_in(), greet.open(), greet.resets()), (3 << 20, 1, 0));
    conn.reset().expect("a reset");
    assert!(wait_until(PATIENCE, || greet.open() == 0 && greet.resets() == 1));

    let sink = net.serve("b1", 2, Behaviour::Sink);
    net.push("client", b1[1](2), Duration::from_millis(200))
        .expect("a push");
    assert!(sink.bytes_in() > 1 << 20);

    let source = net.serve("b1", 3, Behaviour::Source);
    let pulled = net
        .pull("client", b1[0](3), Duration::from_millis(200))
        .expect("a pull");
    assert!(pulled > 1 << 20, "{pulled}");
    assert!(
        wait_until(PATIENCE, || source.bytes_out() >= pulled),
        "{pulled}, {}",
        source.bytes_out()
    );

    let silent = net.serve("b1", 4, Behaviour::Silent);
    let mut conn = net.connect("client", b1[0](4)).expect("a connection");
    conn.send(b"hello").expect("a send");
    assert!(wait_until(PATIENCE, || silent.bytes_in() == 5));
    conn.patience(Duration::from_millis(50));
    assert!(conn.receive().is_err());

    let _closes = net.serve("b1", 5, Behaviour::Closes);
    let mut conn = net.connect("client", b1[0](5)).expect("a connection");
    assert_eq!(conn.receive().expect("an end"), b"");

    net.mute("b1");
    assert!(
        net.within("client", || connect(b1[0](1), Duration::from_millis(100)))
            .is_err()
    );
    net.unmute("b1");
    net.connect("client", b1[0](1)).expect("a connection");
}

#[test]
fn a_capture_sees_what_passed() {
    let net = Net::new();
    net.nft("gateway", RULESET);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let at_b1 = net.capture("b1", |packet| packet.dst.port() == 3000);
    let at_b2 = net.capture("b2", |packet| packet.dst.port() == 3000);
    let at_ext = net.capture_on("gateway", Some("ext"), Packet::opens);
    let before = net.counters("b1", "eth0");
    for address in PUBLIC {
        let mut conn = net.connect("client", at(address, 81)).expect("a connection");
        let seen_as = conn.greeting().expect("a greeting").seen_as;
        assert!(INTERNAL.map(ip).contains(&seen_as.ip()));
        let tracked = net.flows_to(SocketAddr::new(
            plan::addresses("b1")[usize::from(address.contains(':'))],
            3000,
        ));
        assert_eq!(tracked.len(), 1);
        assert_eq!((tracked[0].client, tracked[0].public), (conn.local(), at(address, 81)));
        assert_eq!(
            (tracked[0].seen_as, tracked[0].state.as_str()),
            (seen_as, "ESTABLISHED")
        );
        assert_eq!((tracked[0].mark, tracked[0].unreplied), (0, false));
    }
    let packets = at_b1.stop();
    assert!(packets.is_sorted_by_key(|packet| packet.at));
    assert_eq!(
        packets.iter().filter(|packet| packet.opens()).count(),
        2,
        "{}",
        lines(&packets)
    );
    assert!((net.counters("b1", "eth0") - before).received.packets >= packets.len() as u64);
    assert_eq!(at_b2.count(), 0);
    assert_eq!(at_ext.stop().len(), 2);
}

#[test]
fn a_forged_segment_arrives() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    for (from, to) in NOBODY.into_iter().zip(plan::addresses("b1")) {
        let (from, to) = (at(from, 1234), SocketAddr::new(to, 3000));
        let at_b1 = net.capture("b1", move |packet| packet.between(from, to));
        net.forge("client", &Segment::new(from, to, FIN | PSH).seq(5).payload(b"odd"));
        let packet = at_b1.wait_for(PATIENCE, |packet| !packet.outgoing);
        assert_eq!((packet.seq, packet.flags, packet.payload), (5, FIN | PSH, 3));
        // The host answers, so the checksum is right.
        net.forge("client", &Segment::new(from, to, ACK).ack(7));
        let reset = at_b1.wait_for(PATIENCE, |packet| packet.outgoing && packet.has(RST));
        assert_eq!(reset.seq, 7);
    }
}

#[test]
fn a_raw_flow_is_a_client() {
    let net = Net::new();
    net.nft("gateway", RULESET);
    let servers = net.serve_all(3000, Behaviour::Greet);
    for (from, to) in NOBODY.into_iter().zip(PUBLIC) {
        let mut flow = net.raw_connect("client", at(from, 5000), at(to, 81));
        let greeting = flow.arriving().wait_for(PATIENCE, |packet| packet.payload > 0);
        flow.acknowledge();
        assert_eq!(
            greeting
                .seq
                .wrapping_add(u32::try_from(greeting.payload).expect("short")),
            flow.ack
        );
        flow.send(PSH | ACK, b"echo");
        flow.arriving().wait_for(PATIENCE, |packet| packet.payload == 4);
        flow.acknowledge();
        flow.send(RST, &[]);
    }
    assert!(wait_until(PATIENCE, || servers[0].resets() == 2));
    let hanging = net.raw_syn("client", at(NOBODY[0], 5001), at(PUBLIC[0], 81));
    hanging.arriving().wait_for(PATIENCE, |packet| packet.has(SYN | ACK));
}

#[test]
fn a_packet_limit_can_be_measured() {
    for (from, to) in NOBODY.into_iter().zip(PUBLIC) {
        let net = Net::alone();
        net.nft("gateway", RULESET);
        let _server = net.serve("b2", 3001, Behaviour::Sink);
        let flow = net.raw_connect("client", at(from, 5000), at(to, 90));
        let at_b2 = net.capture("b2", |packet| packet.dst.port() == 3001);
        let time = Duration::from_secs(2);
        let since = Instant::now();
        let sent = flow.forger().blast(10_000, time, |_| flow.segment(ACK, &[]));
        let took = since.elapsed();
        assert_eq!(sent, 20_000);
        let passed = at_b2.stop().len();
        // The bucket's contents, and the rate of two seconds, or longer where the machine is busy; within 1 %.
        let due = |time: Duration| 1000 + usize::try_from(time.as_millis()).expect("seconds");
        let (least, most) = (due(time) * 99 / 100, due(took) * 101 / 100);
        assert!((least..=most).contains(&passed), "{passed} in {took:?}");
    }
}

#[test]
fn iperf_moves_bytes() {
    let net = Net::new();
    for args in [&[][..], &["-R"]] {
        let mut server = net.iperf_server("routed", 5201);
        let moved = net.iperf("client", SocketAddr::new(plan::addresses("routed")[1], 5201), 1, args);
        assert!(moved.bytes > 10 << 20 && moved.seconds > 0.5, "{moved:?}");
        assert!(wait_until(PATIENCE, || server.ended()));
        assert!(server.wait().ok().contains("Server listening"));
    }
}

#[test]
fn a_narrow_path_is_found_out() {
    let net = Net::new();
    net.nft("gateway", RULESET);
    let servers = net.serve_all(3000, Behaviour::Greet);
    net.narrow_path("b4", 1280);
    let errors = net.capture("client", |packet| {
        !packet.outgoing && (packet.protocol, packet.icmp) == (ICMP, (3, 4))
            || (packet.protocol, packet.icmp) == (ICMPV6, (2, 0))
    });
    for address in PUBLIC {
        let mut conn = net.connect("client", at(address, 84)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&vec![7; 1 << 20]).expect("an echo");
    }
    let families: BTreeSet<u8> = errors.stop().iter().map(|packet| packet.protocol).collect();
    assert_eq!(families, BTreeSet::from([ICMP, ICMPV6]));
    assert_eq!(servers[3].accepted(), 2);
    net.set_mtu("b3", 1280);
    assert!(net.sh("b3", "ip link show eth0").ok().contains("mtu 1280"));
    net.connect("client", at("10.2.0.13", 3000))
        .and_then(|mut conn| conn.greeting())
        .expect("a greeting");
}

#[test]
fn commands_run_where_they_should() {
    let net = Net::new();
    let failed = net.run("b1", &["sh", "-c", "echo out; echo err >&2; exit 3"]).exits(3);
    assert_eq!((failed.stdout.as_str(), failed.stderr.as_str()), ("out\n", "err\n"));
    assert!(failed.took < PATIENCE);
    assert_eq!(net.run_with("b1", &["cat"], "text").ok(), "text");
    let mut sleeper = net.spawn("b1", &["sleep", "1000"]);
    assert!(!sleeper.ended());
    sleeper.signal(Signal::SIGTERM);
    assert_eq!(sleeper.wait().status, 128 + 15);
    let _server = net.spawn("b1", &["iperf3", "-s"]);
    assert!(net.wait_for_listener("b1", 5201, PATIENCE));
}

#[test]
fn tcpgw_runs_in_the_gateway() {
    let net = Net::new();
    net.tcpgw(&["--version"]).ok();
    net.apply(serde_json::json!({"version": 1, "services": []}));
    assert!(net.file("state.json").exists());
}
