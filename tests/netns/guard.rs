//! Packets that belong to no connection, unwanted connections, and their counters.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::forge::Segment;
use crate::harness::plan::{self, NOBODY, PUBLIC, PUBLIC_2, at};
use crate::harness::server::Behaviour;
use crate::harness::wire::{ACK, FIN, PSH, Packet, RST, SYN, lines};
use crate::harness::{Net, wait_until};

#[test]
fn forged_segments_do_not_end_a_session() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    for source in ["masquerade", "preserve"] {
        net.apply(state([service(
            "a",
            2001,
            &["b1"],
            3000,
            json!({"source": source, "on_retire": "reset"}),
        )]));
        for (family, public) in PUBLIC.into_iter().enumerate() {
            let version = ["v4", "v6"][family];
            let backend = SocketAddr::new(plan::addresses("b1")[family], 3000);
            let syns = net.capture("b1", |packet| packet.has(SYN | ACK));
            let mut conn = greeted(&net, at(public, 2001));
            let answer = syns.wait_for(PATIENCE, |packet| packet.outgoing);
            let (client, server) = (answer.ack, answer.seq.wrapping_add(1));
            let (local, seen_as) = (conn.local(), answer.dst);
            let odd = |packet: &Packet| packet.payload == 3 || packet.has(RST) || packet.has(FIN);
            // The end of the session before may still be on its way.
            let at_b1 = net.capture("b1", move |packet| packet.src == seen_as && odd(packet));
            let at_client = net.capture("client", move |packet| packet.dst == local && odd(packet));
            let far = 1 << 30;
            let (invalid, from) = (format!("tcp . {}", 2001), format!("{} . 3000", backend.ip()));
            let counted = || {
                (
                    net.tallied("invalid", &invalid),
                    net.tallied(&format!("invalid_from_{version}"), &from),
                )
            };
            let before = counted();
            for flags in [PSH | ACK, RST, RST | ACK, FIN | ACK] {
                let payload: &[u8] = if flags & PSH > 0 { b"odd" } else { b"" };
                let forge = |host, src, dst, seq, ack| {
                    let segment = Segment::new(src, dst, flags).seq(seq).payload(payload);
                    net.forge(host, &if flags & ACK > 0 { segment.ack(ack) } else { segment });
                };
                forge("client", local, at(public, 2001), client.wrapping_add(far), server);
                forge("b1", backend, seen_as, server.wrapping_add(far), client);
            }
            let all = (before.0 + 4, before.1 + 4);
            assert!(
                wait_until(PATIENCE, || counted() == all),
                "{source} {public}: {:?}",
                counted()
            );
            conn.echo(b"on").expect("it goes on");
            for capture in [at_b1, at_client] {
                let passed: Vec<Packet> = capture.stop().into_iter().filter(|packet| !packet.outgoing).collect();
                assert!(passed.is_empty(), "{source}: {}", lines(&passed));
            }
        }
    }
}

#[test]
fn what_begins_no_connection_gets_no_answer_and_is_counted() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([
        service("drop", 2001, &["b1"], 3000, json!({})),
        service("reset", 2002, &["b1"], 3001, json!({"on_retire": "reset"})),
        service("at", 2003, &["b1"], 3002, json!({"addresses": PUBLIC})),
        service(
            "at_reset",
            2004,
            &["b1"],
            3003,
            json!({"addresses": PUBLIC, "on_retire": "reset"}),
        ),
    ]));
    let at_b1 = net.capture("b1", |packet| packet.src.port() >= 3000 || packet.dst.port() >= 3000);
    for (nobody, public) in NOBODY.into_iter().zip(PUBLIC) {
        let answers = net.capture("client", move |packet| !packet.outgoing && packet.dst.port() == 6000);
        let send = |port, flags| net.forge("client", &Segment::new(at(nobody, 6000), at(public, port), flags));
        for port in [2001, 2002, 2003, 2004] {
            // Conntrack takes none of these for the first packet of anything.
            for flags in [0, FIN, SYN | ACK, SYN | FIN, FIN | PSH | 0x20, RST] {
                send(port, flags);
            }
        }
        for port in [2001, 2003] {
            send(port, ACK);
        }
        assert_eq!(answers.count(), 0, "{}", lines(&answers.so_far()));
        for port in [2002, 2004] {
            send(port, ACK);
        }
        assert!(wait_until(PATIENCE, || answers.count() == 2));
        let answers = answers.stop();
        assert!(
            answers.len() == 2 && answers.iter().all(|packet| packet.has(RST)),
            "{}",
            lines(&answers)
        );
    }
    let at_family = |set: &str, address: &str, port: u16| {
        let version = if address.contains(':') { "v6" } else { "v4" };
        net.tallied(&format!("{set}_at_{version}"), &format!("{address} . {port}"))
    };
    for (set, each) in [("invalid", 6), ("stale", 1)] {
        for port in [2001, 2002] {
            assert_eq!(net.tallied(set, &format!("tcp . {port}")), 2 * each, "{set} {port}");
        }
        for port in [2003, 2004] {
            assert_eq!(
                PUBLIC.map(|address| at_family(set, address, port)),
                [each; 2],
                "{set} {port}"
            );
        }
    }
    assert_eq!(at_b1.count(), 0, "{}", lines(&at_b1.so_far()));
    assert_eq!(net.conntrack(), []);
}

#[test]
fn untracked_packets_reach_neither_a_backend_nor_the_gateways_stack() {
    let net = Net::new();
    let _servers = ["b1", "gateway"].map(|host| net.serve(host, 2001, Behaviour::Greet));
    let _server = net.serve("gateway", 2002, Behaviour::Greet);
    let services = [
        service("drop", 2001, &["b1"], 2001, json!({})),
        service("reset", 2002, &["b1"], 2002, json!({"on_retire": "reset"})),
    ];
    net.apply_with(&["--take-over"], state(services)).ok();
    net.nft(
        "gateway",
        "table inet foreign { chain raw { type filter hook prerouting priority raw; tcp dport { 2001, 2002 } notrack; }; }",
    );
    let at_b1 = net.capture("b1", |packet| packet.dst.port() == 2001 || packet.dst.port() == 2002);
    for (nobody, public) in NOBODY.into_iter().zip(PUBLIC) {
        let answers = net.capture("client", move |packet| !packet.outgoing && packet.dst.port() == 6000);
        for flags in [SYN, ACK, FIN | ACK, 0] {
            for port in [2001, 2002] {
                net.forge("client", &Segment::new(at(nobody, 6000), at(public, port), flags));
            }
        }
        assert!(wait_until(PATIENCE, || answers.count() == 4));
        let answers = answers.stop();
        let right = |packet: &Packet| packet.has(RST) && packet.src.port() == 2002;
        assert!(answers.iter().all(right), "{}", lines(&answers));
    }
    assert_eq!(
        ["tcp . 2001", "tcp . 2002"].map(|key| net.tallied("stale", key)),
        [8, 8]
    );
    assert_eq!(at_b1.count(), 0);
}

#[test]
fn lists_of_clients_judge_new_connections() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let allow = json!(["198.18.0.0/16", "198.18.1.0/24", "2001:db8:f::/112", "203.0.113.10"]);
    let deny = json!([
        "198.18.1.0/25",
        "198.18.1.7/32",
        "2001:db8:f::100/120",
        "2001:db8:f::/64"
    ]);
    let deny_some = json!(["198.18.1.0/25", "198.18.1.7/32", "2001:db8:f::100/120"]);
    let services = |more: Value| {
        state([
            service("both", 2001, &["b1"], 3000, json!({"allow": allow, "deny": deny_some})),
            service(
                "only",
                2002,
                &["b2"],
                3000,
                json!({"allow": ["198.18.3.0/24"], "addresses": PUBLIC}),
            ),
            service("deny", 2003, &["b3"], 3000, json!({"deny": deny})),
            service("more", 2004, &["b4"], 3000, more),
        ])
    };
    net.apply(services(json!({})));
    let enters = |n: u16, family: usize, port: u16| enters(&net, plan::crowd(n)[family], at(PUBLIC[family], port));
    // 0x0101 is 198.18.1.1 and 2001:db8:f::101, 0x0180 198.18.1.128.
    let cases = [
        (2001, 0, 0x0001, true),
        (2001, 0, 0x0180, true),
        (2001, 0, 0x0101, false),
        (2001, 0, 0x0107, false),
        (2001, 1, 0x0001, true),
        (2001, 1, 0x0101, false),
        (2002, 0, 0x0301, true),
        (2002, 0, 0x0401, false),
        (2002, 1, 0x0301, false),
        (2003, 0, 0x0201, true),
        (2003, 0, 0x0101, false),
        (2003, 1, 0x0201, false),
        (2004, 0, 0x0101, true),
        (2004, 1, 0x0101, true),
    ];
    for (port, family, n, expected) in cases {
        assert_eq!(enters(n, family, port), expected, "{port} {:?}", plan::crowd(n)[family]);
    }
    let mut inside = net
        .connect_from("client", plan::crowd(1)[0], at(PUBLIC[0], 2004))
        .expect("a connection");
    inside.greeting().expect("a greeting");
    net.apply(services(json!({"allow": ["192.0.2.0/24"]})));
    assert!(!enters(1, 0, 2004) && !enters(1, 1, 2004));
    inside.echo(b"on").expect("only new connections are judged");
    net.apply(services(json!({"deny": ["::/0"]})));
    assert!(enters(1, 0, 2004) && !enters(1, 1, 2004));
    let refused = |port: u16| net.tallied("refused", &format!("tcp . {port}"));
    assert_eq!([2001, 2003, 2004].map(refused), [3, 2, 3]);
    assert_eq!(net.tallied("refused_at_v4", &format!("{} . 2002", PUBLIC[0])), 1);
    assert_eq!(net.tallied("refused_at_v6", &format!("{} . 2002", PUBLIC[1])), 1);
}

/// Returns true when a SYN from that address gets in. Asserts that otherwise it gets no answer and the refusal is counted.
#[track_caller]
fn enters(net: &Net, from: IpAddr, to: SocketAddr) -> bool {
    let total = || -> u64 {
        let sets = ["refused", "refused_at_v4", "refused_at_v6"];
        sets.iter().flat_map(|set| net.tally(set).into_values()).sum()
    };
    let before = total();
    let from = SocketAddr::new(from, 6100);
    let answers = net.capture("client", move |packet| !packet.outgoing && packet.dst == from);
    net.forge("client", &Segment::new(from, to, SYN));
    assert!(wait_until(PATIENCE, || answers.count() > 0 || total() > before));
    match answers.so_far().first() {
        // The client's stack ends what it did not begin, so that the port is free again.
        Some(answer) => {
            assert!(answer.has(SYN | ACK), "{answer}");
            assert!(wait_until(PATIENCE, || net
                .conntrack()
                .iter()
                .all(|flow| { flow.client != from || flow.state == "CLOSE" })));
            true
        }
        None => false,
    }
}

#[test]
fn without_a_backend_a_syn_gets_what_on_empty_says() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let v4_only = |more: Value| {
        let mut service = json!({"name": "v4", "port": 2003, "backends": ["10.2.0.11:3000"]});
        service
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        service
    };
    net.apply(state([
        service("reset", 2001, &[], 3000, json!({})),
        service("drop", 2002, &[], 3000, json!({"on_empty": "drop"})),
        v4_only(json!({"addresses": PUBLIC})),
    ]));
    for (nobody, public) in NOBODY.into_iter().zip(PUBLIC) {
        let refused = net.connect("client", at(public, 2001)).expect_err("nobody is there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let silent = net.raw_syn("client", at(nobody, 6000), at(public, 2002));
        assert!(wait_until(PATIENCE, || net.tallied("no_backend", "tcp . 2002") > 0));
        assert_eq!(silent.arriving().count(), 0);
    }
    let _conn = greeted(&net, at(PUBLIC[0], 2003));
    let refused = net
        .connect("client", at(PUBLIC[1], 2003))
        .expect_err("it has no IPv6 backend");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(
        ["tcp . 2001", "tcp . 2002"].map(|key| net.tallied("no_backend", key)),
        [2, 2]
    );
    assert_eq!(net.tally("no_backend_at_v4").len(), 0);
    assert_eq!(net.tallied("no_backend_at_v6", &format!("{} . 2003", PUBLIC[1])), 1);

    // Counters of a removed service are removed with it; those of others stay.
    net.apply(state([service("drop", 2002, &[], 3000, json!({"on_empty": "drop"}))]));
    assert_eq!(
        net.tally("no_backend").into_iter().collect::<Vec<_>>(),
        [("tcp . 2002".to_string(), 2)]
    );
    assert_eq!(net.tally("no_backend_at_v6").len(), 0);
    net.apply(state([service("reset", 2001, &[], 3000, json!({}))]));
    assert_eq!(net.tally("no_backend").len(), 0);
}

#[test]
fn a_local_listener_is_not_shadowed_by_accident_and_never_answers_once_it_is() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let _loopback = net.spawn("gateway", &["iperf3", "-s", "-p", "2003", "-B", "127.0.0.1"]);
    let _everywhere = net.spawn("gateway", &["iperf3", "-s", "-p", "2001"]);
    let _second = net.spawn("gateway", &["iperf3", "-s", "-p", "2002", "-B", PUBLIC_2[0]]);
    for port in [2001, 2002, 2003] {
        assert!(net.wait_for_listener("gateway", port, PATIENCE));
    }
    let on = |port, more| service("a", port, &["b1"], 3000, more);
    for taken in [
        on(2001, json!({})),
        on(2001, json!({"addresses": PUBLIC})),
        on(2002, json!({})),
    ] {
        let refused = net.apply_with(&[], state([taken])).exits(1);
        assert!(
            refused.stderr.contains("iperf3") && refused.stderr.contains("--take-over"),
            "{refused}"
        );
    }
    assert!(net.sh("gateway", "nft list tables").ok().is_empty());
    net.apply(state([on(2003, json!({}))]));
    net.apply(state([on(2002, json!({"addresses": PUBLIC}))]));

    net.apply_with(&["--take-over"], state([on(2001, json!({"on_empty": "drop"}))]))
        .ok();
    for address in PUBLIC {
        greeted(&net, at(address, 2001));
    }
    // No more needed for what is in force already.
    net.apply(state([service("a", 2001, &["b2"], 3000, json!({"on_empty": "drop"}))]));
    net.apply(state([service("a", 2001, &[], 3000, json!({"on_empty": "drop"}))]));
    for (nobody, address) in NOBODY.into_iter().zip(PUBLIC) {
        let before = net.tallied("no_backend", "tcp . 2001");
        let silent = net.raw_syn("client", at(nobody, 6000), at(address, 2001));
        assert!(wait_until(PATIENCE, || net.tallied("no_backend", "tcp . 2001") > before));
        assert_eq!(silent.arriving().count(), 0);
    }
    // Loopback is not affected: the program there is still reached.
    let local = net.within("gateway", || {
        crate::harness::client::connect(at("127.0.0.1", 2001), PATIENCE)
    });
    local.expect("a way");
}

#[test]
fn a_flood_of_spoofed_handshakes_is_forgotten_soon() {
    const SYNS: u16 = 4000;
    let net = Net::new();
    let _servers = ["b1", "b3"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.apply(state([
        service("answers", 2001, &["b1"], 3000, json!({})),
        service("dead", 2002, &["b2"], 3000, json!({})),
    ]));
    net.mute("b2");
    let forger = net.forger("client");
    for n in 0..SYNS {
        for (family, nobody) in NOBODY.into_iter().enumerate() {
            let port = 2001 + n % 2;
            let from = at(nobody, 10_000 + n);
            forger
                .send(&Segment::new(from, at(PUBLIC[family], port), SYN))
                .expect("it can be sent");
        }
    }
    let mut conns: Vec<Conn> = PUBLIC.map(|address| greeted(&net, at(address, 2001))).into();
    let tracked = net.conntrack();
    let waiting: Vec<_> = tracked.iter().filter(|flow| flow.state.starts_with("SYN_")).collect();
    assert!(waiting.len() > usize::from(SYNS), "{}", waiting.len());
    for state in ["SYN_SENT", "SYN_RECV"] {
        let longest = waiting
            .iter()
            .filter(|flow| flow.state == state)
            .map(|flow| flow.timeout)
            .max();
        assert!(longest.is_some_and(|seconds| seconds <= 12), "{state} {longest:?}");
    }
    let open = tracked.iter().filter(|flow| flow.state == "ESTABLISHED");
    let shortest = open.map(|flow| flow.timeout).min();
    assert!(shortest.is_some_and(|seconds| seconds > 3600), "{shortest:?}");
    assert!(tracked.iter().all(|flow| flow.mark & 0x0080_0000 != 0));
    for conn in &mut conns {
        conn.echo(b"on").expect("it goes on");
    }
    net.unmute("b2");
    // The dead one's are gone by themselves.
    let unanswered = || net.conntrack().iter().any(|flow| flow.state == "SYN_SENT");
    assert!(wait_until(Duration::from_secs(20), || !unanswered()));
}

#[track_caller]
fn greeted(net: &Net, to: SocketAddr) -> Conn {
    let mut conn = net.connect("client", to).expect("a connection");
    conn.greeting().expect("a greeting");
    conn
}
