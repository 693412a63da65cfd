//! Floods of handshakes: the bandwidth that they leave to established connections and to other services.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::forge::Segment;
use crate::harness::plan::{self, NOBODY, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::wire::SYN;

/// Returns a function that makes the SYN of a running number, from ports of an address that no host has.
fn syn(family: usize, port: u16) -> impl FnMut(u64) -> Segment {
    move |number| {
        let from = 1024 + u16::try_from(number % 60_000).expect("a port");
        Segment::new(at(NOBODY[family], from), at(PUBLIC[family], port), SYN)
    }
}

/// SYNs leave most of the limit to established connections. Without a bucket of their own they take nearly all of it, and each
/// round trip of the established connection waits for several retransmissions.
#[test]
fn syns_leave_most_of_the_limit_to_established_connections() {
    const ROUNDS: usize = 50;
    let net = Net::alone();
    let divisor = net.divisor(5_000);
    let (pps, offered, time) = (800 / divisor, 5_000 / divisor, Duration::from_secs(4));
    for direction in ["each", "shared"] {
        net.apply(state([service(
            "limited",
            2001,
            &["b1"],
            3001,
            json!({"limit": {"pps": pps, "burst": pps, "direction": direction}}),
        )]));
        let _server = net.serve("b1", 3001, Behaviour::Greet);
        for family in [0, 1] {
            let backend = SocketAddr::new(plan::addresses("b1")[family], 3001);
            let mut conn = net.connect("client", at(PUBLIC[family], 2001)).expect("connects");
            conn.greeting().expect("a greeting");
            let arriving = net.capture("b1", move |packet| !packet.outgoing && packet.dst == backend);
            let begin = Instant::now();
            let (sent, rounds) = thread::scope(|scope| {
                let flood = scope.spawn(|| net.forger("client").blast(offered, time, syn(family, 2001)));
                // The bucket of handshakes is used up by then.
                thread::sleep(Duration::from_millis(1500));
                let round = |_| {
                    let since = Instant::now();
                    conn.echo(b"still here").expect("an answer");
                    thread::sleep(Duration::from_millis(40 / u64::from(divisor.min(4))));
                    since.elapsed()
                };
                let rounds: Vec<Duration> = (0..ROUNDS).map(round).collect();
                (flood.join().expect("the flood does not panic"), rounds)
            });
            let seconds = begin.elapsed().as_secs_f64();
            let packets = arriving.stop();
            let syns = packets.iter().filter(|packet| packet.opens()).count();
            // A lost segment is sent again after 200 ms at the earliest.
            let slow = rounds
                .iter()
                .filter(|took| **took >= Duration::from_millis(200))
                .count();
            let longest = rounds.iter().max();
            eprintln!(
                "{direction} {family}: {sent} SYNs in {seconds:.2} s, {syns} of {} packets arrived; {slow} slow rounds, {longest:?}",
                packets.len()
            );
            assert!(slow <= ROUNDS / 10, "{slow} of {ROUNDS} rounds were slow: {rounds:?}");
            let most = f64::from(pps) / 4.0 * (seconds + 1.0) * 1.05;
            #[expect(clippy::cast_precision_loss, reason = "thousands")]
            let syns = syns as f64;
            assert!(syns <= most, "{syns} SYNs arrived, {most} may");
            assert!(
                syns >= f64::from(pps) / 4.0,
                "{syns} SYNs arrived: handshakes have their share"
            );
        }
    }
}

#[test]
fn other_services_do_not_notice_a_flood_on_one() {
    let net = Net::alone();
    let divisor = net.divisor(20_000);
    net.apply(state([
        service("flooded", 2001, &["b1"], 3001, json!({})),
        service("other", 2002, &["b2"], 3002, json!({})),
    ]));
    let _servers = [("b1", 3001), ("b2", 3002)].map(|(host, port)| net.serve(host, port, Behaviour::Greet));
    for family in [0, 1] {
        let other = at(PUBLIC[family], 2002);
        let spread = thread::scope(|scope| {
            let flood = || {
                net.forger("client")
                    .blast(10_000 / divisor, Duration::from_secs(3), syn(family, 2001))
            };
            let flood = scope.spawn(flood);
            let spread = net.spread_by("client", other, 300, 4);
            assert!(flood.join().expect("the flood does not panic") > 0);
            spread
        });
        eprintln!(
            "{} served during the flood, the longest took {:?}",
            spread.served(),
            spread.longest
        );
        assert!(spread.failures.is_empty(), "{spread:?}");
        assert_eq!(spread.served(), 300);
    }
}
