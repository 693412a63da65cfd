//! Client ports that are used again while a backend still holds them: it closed first, so it is in `TIME_WAIT` for 60 s.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::faults::rounds;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect_from};
use crate::harness::conntrack::Tracked;
use crate::harness::plan::{self, BACKENDS, PUBLIC, PUBLIC_2, at};
use crate::harness::server::{Behaviour, listen_at};
use crate::harness::wire::{ACK, RST, SYN, lines};
use crate::harness::{Net, wait_until};

#[test]
fn a_client_that_comes_again_from_its_port_meets_the_same_backend() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Closes);
    net.apply(state([service("web", 2001, &BACKENDS, 3000, json!({}))]));
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let mut met = BTreeSet::new();
        for port in 40000..40004 {
            let client = SocketAddr::new(plan::addresses("client")[family], port);
            let backends: BTreeSet<SocketAddr> = (0..6).map(|_| met_by(&net, client, at(public, 2001))).collect();
            assert_eq!(backends.len(), 1, "{client} met {backends:?}");
            met.extend(backends);
        }
        assert!(met.len() > 1, "other ports meet others, not only {met:?}");
    }
}

#[test]
fn conntrack_holds_a_port_a_little_longer_than_a_backend_does() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Closes);
    net.apply(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let client = |port| SocketAddr::new(plan::addresses("client")[family], port);
        let mut flows = (40000..40010).filter_map(|port| visit(&net, client(port), at(public, 2001)));
        let closed = flows.find(|flow| flow.state == "TIME_WAIT").expect("an orderly end");
        assert!((1..=65).contains(&closed.timeout), "{closed:?}");
    }
}

/// A port whose connection was reset is free at once. A container that ends resets the connections that it cannot finish; if
/// conntrack remembered one of them, a SYN from the same port would go to the same backend, which is gone.
#[test]
fn a_port_whose_connection_was_reset_is_free_at_once() {
    let net = Net::new();
    let _b2 = net.serve("b2", 3000, Behaviour::Greet);
    net.apply(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    let clients: Vec<(SocketAddr, SocketAddr)> = PUBLIC
        .into_iter()
        .enumerate()
        .map(|(family, public)| {
            let client = SocketAddr::new(plan::addresses("client")[family], 40000);
            (client, at(public, 2001))
        })
        .collect();
    let connect = |(client, service)| net.within("client", || connect_from(Some(client), service, PATIENCE));
    let b1 = net.within("b1", || listen_at("[::]:3000")).expect("a listener");
    for pair in &clients {
        let mut conn = connect(*pair).expect("it listens");
        let (accepted, _) = b1.accept().expect("a connection");
        conn.send(b"nobody reads this").expect("it goes out");
        assert!(wait_until(PATIENCE, || accepted
            .peek(&mut [0; 8])
            .is_ok_and(|there| there > 0)));
        drop(accepted);
        assert_eq!(conn.receive().expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    }
    drop(b1);
    let [gone, gone6] = plan::addresses("b1");
    let [new, new6] = plan::addresses("b2");
    let leaving = |address: IpAddr| json!({"address": address, "port": 3000, "state": "draining"});
    let backends = json!([
        leaving(gone),
        leaving(gone6),
        SocketAddr::new(new, 3000).to_string(),
        SocketAddr::new(new6, 3000).to_string()
    ]);
    net.apply(state([json!({"name": "web", "port": 2001, "backends": backends})]));
    for pair in clients {
        let mut conn = connect(pair).unwrap_or_else(|e| panic!("{pair:?}: {e}"));
        assert_eq!(conn.greeting().expect("a greeting").backend, "b2");
    }
}

/// A port whose connection is reset again and again is balanced anew each time, even when the next connection begins right after
/// the reset. `TCPGW_RESETS` (default 10, times `TCPGW_SOAK`) says how often for each backend and family.
#[test]
fn a_port_that_is_reset_again_and_again_is_balanced_anew_each_time() {
    let net = Net::new();
    let serving = |host: &'static str| {
        let listener = net.within(host, || listen_at("[::]:3000")).expect("a listener");
        thread::spawn(move || {
            // Each says its name, and resets what it has not read.
            while let Ok((mut stream, _)) = listener.accept() {
                let mut first = [0; 1];
                if stream.read_exact(&mut first).is_err() || first == *b"!" {
                    break;
                }
                let _ = stream.write_all(host.as_bytes());
            }
        })
    };
    let servers = ["b1", "b2"].map(serving);
    // The other one drains, so that no flow of it is flushed.
    let apply = |active: &str| {
        let backend = |host: &str, address: IpAddr| {
            let state = if host == active { "active" } else { "draining" };
            json!({"address": address, "port": 3000, "state": state})
        };
        let backends: Vec<_> = ["b1", "b2"]
            .into_iter()
            .flat_map(|host| plan::addresses(host).map(|address| backend(host, address)))
            .collect();
        net.apply(state([json!({"name": "web", "port": 2001, "backends": backends})]));
    };
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let client = SocketAddr::new(plan::addresses("client")[family], 40000);
        for host in ["b1", "b2"].repeat(rounds("TCPGW_RESETS", 10)) {
            apply(host);
            let begin = Instant::now();
            let mut conn = net
                .within("client", || connect_from(Some(client), at(public, 2001), PATIENCE))
                .unwrap_or_else(|e| panic!("{client} to {host}: {e}"));
            assert!(begin.elapsed() < Duration::from_millis(900), "{host}: a SYN was lost");
            conn.send(b"?more than it reads").expect("it goes out");
            let told: Vec<u8> = conn.receive().expect("its name");
            assert_eq!(told, host.as_bytes());
            assert_eq!(conn.receive().expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        }
    }
    for (host, server) in ["b1", "b2"].into_iter().zip(servers) {
        let to = SocketAddr::new(plan::addresses(host)[0], 3000);
        let mut last = net.connect("gateway", to).expect("it listens");
        last.send(b"!").expect("it goes out");
        server.join().expect("it ends");
    }
}

/// A port that the backend still holds costs one repetition. Each client host has timestamps of its own, so that about every
/// second newcomer's are lower than those the backend remembers of the port; conntrack has forgotten the port, as after a restart
/// or a full table.
#[test]
fn a_port_that_the_backend_still_holds_costs_one_repetition_without_timestamps() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Closes);
    net.apply(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    for (family, (public, key)) in PUBLIC.into_iter().zip(["10.2.0.11", "fd00:2::11"]).enumerate() {
        let set = format!("reused_{}", ["v4", "v6"][family]);
        let counted = || net.tallied(&set, &format!("{key} . 3000"));
        let mut refused = 0;
        for newcomer in 1..=16 {
            net.sh("gateway", "conntrack -F").ok();
            let answers = net.capture("b1", |packet| packet.outgoing && packet.has(SYN | ACK));
            let (before, again) = (counted(), net.syns_again("client"));
            let client = SocketAddr::new(plan::crowd(newcomer)[family], 40000);
            visit(&net, client, at(public, 2001));
            let clashes = counted() - before;
            assert!(clashes <= 1, "{client} was refused {clashes} times");
            let repeated = net.syns_again("client") - again;
            assert_eq!(repeated, clashes, "{client}: SYNs repeated");
            refused += clashes;
            let answer = answers.wait_for(PATIENCE, |_| true);
            // The option takes 12 bytes, with its padding.
            let (with, without) = [(60, 52), (80, 72)][family];
            assert_eq!(answer.length, if clashes == 0 { with } else { without }, "{answer}");
        }
        assert!(refused > 0, "16 hosts in a row with ever higher timestamps");
    }
}

/// A client whose resets are lost gets in, too: its firewall may drop the reset, which fits no connection that the firewall
/// knows.
#[test]
fn a_client_whose_resets_are_lost_gets_in_too() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Closes);
    net.apply(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    net.nft(
        "client",
        "table inet foreign { chain out { type filter hook output priority 0; tcp flags rst / rst,ack drop; }; }",
    );
    for (family, (public, set)) in PUBLIC.into_iter().zip(["reused_v4", "reused_v6"]).enumerate() {
        let refused = || net.tally(set).values().sum::<u64>();
        let mut newcomers = 1..=16;
        let met = newcomers.find(|newcomer| {
            net.sh("gateway", "conntrack -F").ok();
            let client = SocketAddr::new(plan::crowd(*newcomer)[family], 40000);
            visit(&net, client, at(public, 2001));
            refused() > 0
        });
        assert!(met.is_some(), "16 hosts in a row with ever higher timestamps");
    }
}

/// An endpoint that moves to another service is reached at the second attempt at most, although the same client has other
/// timestamps towards another public address, as if it were another host.
#[test]
fn an_endpoint_that_moves_to_another_service_is_reached_at_the_second_try_at_most() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Closes);
    let swapped = |first: &[&str], second: &[&str]| {
        state([
            service("one", 2001, first, 3000, json!({"addresses": PUBLIC})),
            service("two", 2001, second, 3000, json!({"addresses": PUBLIC_2})),
        ])
    };
    let visitors = || {
        let from = |port| SocketAddr::new(plan::addresses("client")[0], port);
        let services = [PUBLIC[0], PUBLIC_2[0]].map(|public| at(public, 2001));
        (40000..40016).flat_map(move |port| services.map(|service| (from(port), service)))
    };
    net.apply(swapped(&["b1", "b2"], &["b3", "b4"]));
    for (client, service) in visitors() {
        visit(&net, client, service);
    }
    net.apply(swapped(&["b3", "b4"], &["b1", "b2"]));
    let mut refused = 0;
    for (client, service) in visitors() {
        let again = net.syns_again("client");
        visit(&net, client, service);
        let repeated = net.syns_again("client") - again;
        assert!(repeated <= 1, "{client} to {service}: {repeated} repetitions");
        refused += repeated;
    }
    assert_eq!(refused, net.tally("reused_v4").values().sum::<u64>());
    assert!(refused > 0, "one of the two has lower timestamps");
}

/// Connects, lets the backend close first, and gives conntrack's entry of the closed connection. `None`: an ACK that the backend
/// sent twice, as slow machines do, found no client any more; the reset that answers it makes conntrack forget.
fn visit(net: &Net, client: SocketAddr, service: SocketAddr) -> Option<Tracked> {
    let wire = net.capture("client", move |packet| packet.between(client, service));
    net.within("client", || {
        let mut conn = connect_from(Some(client), service, PATIENCE).unwrap_or_else(|e| panic!("{client}: {e}"));
        assert_eq!(conn.receive().expect("an orderly end"), b"");
    });
    let mut closed = None;
    let ended = wait_until(PATIENCE, || {
        let mut flows = net.conntrack().into_iter();
        let ended = |state: &str| ["TIME_WAIT", "CLOSE"].contains(&state);
        closed = flows.find(|flow| flow.client == client && flow.public == service && ended(&flow.state));
        closed.is_some() || wire.so_far().iter().any(|packet| packet.has(RST))
    });
    assert!(ended, "{client} to {service}:\n{}", lines(&wire.stop()));
    closed
}

/// Returns the backend that answers the client.
fn met_by(net: &Net, client: SocketAddr, service: SocketAddr) -> SocketAddr {
    let visits = (0..10).find_map(|_| visit(net, client, service));
    visits.expect("one of ten visits that no reset ended").backend
}
