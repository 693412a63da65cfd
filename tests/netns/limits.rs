//! Limits of packets and of bytes.

mod bytes;
mod flow;

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use self::flow::{Flow, Passed};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::forge::Segment;
use crate::harness::plan::{self, NOBODY, PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::wire::SYN;

/// Load on each limit, and its duration.
struct Load {
    /// Rate of the limit, and its burst: a second's worth. A busy machine may keep the sender waiting for a second, and the
    /// bucket must not run over.
    pps: u32,
    offered: u32,
    time: Duration,
}

impl Load {
    /// Returns a load with fewer packets on a slow machine, and with a longer time, so that 2 % of them are still several
    /// packets.
    fn fitting(net: &Net, flows: u32) -> Self {
        let (pps, offered) = (500, 2500);
        let divisor = net.divisor(offered * flows);
        Self {
            pps: pps / divisor,
            offered: offered / divisor,
            time: Duration::from_secs(4) * divisor.min(6),
        }
    }

    /// Asserts that the packets which passed after the burst are within 2 % of those due for the time that passed. Where the
    /// machine was too busy to offer packets in time, at least those due for the planned time must have passed: the bucket does
    /// not grow while it is full.
    #[track_caller]
    fn within_two_percent(&self, passed: u64, seconds: f64) {
        let due = |seconds: f64| f64::from(self.pps) * seconds;
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let after_burst = passed as f64 - f64::from(self.pps);
        let (least, most) = (0.98 * due(seconds.min(self.time.as_secs_f64())), 1.02 * due(seconds));
        assert!(
            (least..=most).contains(&after_burst),
            "{after_burst} passed after the burst, {least} to {most} are due"
        );
    }
}

/// Packets stay within the limits, all at once: two backends of one service, both families, both directions, a shared bucket, and
/// clients of every kind, while traffic without a limit is not affected.
#[test]
fn packets_stay_within_the_limit_and_nobody_else_is_hurt() {
    const FLOWS: u32 = 11;
    let net = Net::alone();
    let load = Load::fitting(&net, FLOWS);
    let _servers = limited_and_free(&net, load.pps);
    let [v4, v6] = PUBLIC;
    let direct = |host: &str| SocketAddr::new(plan::addresses(host)[0], 3001);
    let shared = Flow::open(&net, "client", at(v4, 2004), "b4", 3004);
    let flows: [_; FLOWS as usize] = [
        shared.back(),
        shared,
        Flow::open(&net, "client", at(v4, 2001), "b1", 3001),
        Flow::open(&net, "client", at(v4, 2001), "b2", 3001),
        Flow::open(&net, "client", at(v6, 2001), "b1", 3001),
        Flow::open(&net, "gateway", at(v6, 2001), "b2", 3001),
        Flow::open(&net, "b4", at(v4, 2003), "b3", 3003),
        Flow::open(&net, "client", at(v6, 2003), "b3", 3003).turned(),
        Flow::open(&net, "client", at(v4, 2005), "b1", 3005).free(),
        Flow::open(&net, "client", direct("b1"), "b1", 3001).free(),
        Flow::open(&net, "client", direct("routed"), "routed", 3001).free(),
    ];
    for flow in &flows {
        flow.make_counter(load.pps);
    }
    // The buckets fill up again.
    thread::sleep(Duration::from_secs(2));
    let start = Barrier::new(flows.len());
    let together = || {
        start.wait();
    };
    let blast = |flow: &Flow<'_>| flow.send_once(together, load.offered, load.time);
    let passed: Vec<Passed> = thread::scope(|scope| {
        let threads = flows.each_ref().map(|flow| scope.spawn(|| blast(flow)));
        let passed = threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        passed.into()
    });
    for (flow, passed) in flows.iter().zip(&passed) {
        eprintln!(
            "{} to {}, over is in {:?}: {passed:?}",
            flow.from, flow.backend, flow.over
        );
    }
    let ([from, to], rest) = passed.split_first_chunk().expect("two share a bucket");
    load.within_two_percent(from.packets + to.packets, from.seconds.max(to.seconds));
    for (flow, passed) in flows[2..].iter().zip(rest) {
        match flow.over {
            Some(_) => load.within_two_percent(passed.packets, passed.seconds),
            None => assert_eq!(passed.packets, passed.sent, "{} to {}", flow.from, flow.backend),
        }
    }
}

#[test]
fn handshakes_are_under_the_limit_the_first_time_and_again() {
    let net = Net::alone();
    let load = Load::fitting(&net, 4);
    // A quarter of it is for handshakes.
    let limit = json!({"limit": {"pps": 4 * load.pps, "burst": 4 * load.pps}});
    net.apply(state([
        service("first", 2001, &["b1"], 3001, limit.clone()),
        service("again", 2002, &["b2"], 3001, limit),
    ]));
    // An answer would end the handshake.
    for host in ["b1", "b2"] {
        net.mute(host);
    }
    for (family, set) in ["over_to_v4", "over_to_v6"].into_iter().enumerate() {
        thread::scope(|scope| {
            for (port, backend, ports) in [(2001, "b1", 40_000), (2002, "b2", 1)] {
                let (net, load) = (&net, &load);
                scope.spawn(move || {
                    let syn = |number: u64| {
                        let from = 10_000 + u16::try_from(number % ports).expect("a port");
                        Segment::new(at(NOBODY[family], from), at(PUBLIC[family], port), SYN)
                    };
                    let begin = Instant::now();
                    let sent = net.forger("client").blast(load.offered, load.time, syn);
                    let seconds = begin.elapsed().as_secs_f64();
                    let endpoint = format!("{} . 3001", plan::addresses(backend)[family]);
                    let passed = sent - net.tallied(set, &endpoint);
                    eprintln!("{sent} SYNs to {endpoint} in {seconds:.3} s, {passed} passed");
                    load.within_two_percent(passed, seconds);
                });
            }
        });
    }
}

fn limited_and_free(net: &Net, pps: u32) -> Vec<Server> {
    let limit = |direction| json!({"limit": {"pps": pps, "burst": pps, "direction": direction}});
    net.apply(state([
        service("pair", 2001, &["b1", "b2"], 3001, limit("each")),
        service("one", 2003, &["b3"], 3003, limit("each")),
        service("shared", 2004, &["b4"], 3004, limit("shared")),
        service("free", 2005, &["b1"], 3005, json!({})),
    ]));
    let servers = [
        ("b1", 3001),
        ("b2", 3001),
        ("b3", 3003),
        ("b4", 3004),
        ("b1", 3005),
        ("routed", 3001),
    ];
    servers
        .map(|(host, port)| net.serve(host, port, Behaviour::Silent))
        .into()
}

#[test]
fn a_bucket_outlives_other_changes_and_a_new_limit_holds_at_once() {
    let net = Net::new();
    let mine = |pps: u32| {
        service(
            "mine",
            2001,
            &["b1"],
            3001,
            json!({"limit": {"pps": pps, "burst": 300}}),
        )
    };
    let other = |pps: u32| service("other", 2002, &["b2"], 3001, json!({"limit": {"pps": pps}}));
    let _servers = net.serve_all(3001, Behaviour::Silent);
    net.apply(state([mine(1), other(1000)]));
    for public in PUBLIC {
        let flow = Flow::open(&net, "client", at(public, 2001), "b1", 3001);
        flow.send(1000, Duration::from_secs(1)).is_about(300, 1);
        net.apply(state([mine(1), other(2000)]));
        net.apply(state([mine(1)]));
        net.apply(state([
            mine(1),
            other(1000),
            service("new", 2003, &["b3"], 3001, json!({"limit": {"pps": 5}})),
        ]));
        let second = flow.send(1000, Duration::from_millis(200));
        assert!(second.packets < 300 / 10, "{second:?}");

        net.apply(state([mine(400), other(1000)]));
        flow.send(2000, Duration::from_secs(1)).is_about(300, 400);
        net.apply(state([service("mine", 2001, &["b1"], 3001, json!({}))]));
        let free = flow.send(2000, Duration::from_millis(500));
        assert_eq!(free.packets, free.sent);
        net.apply(state([mine(1), other(1000)]));
        flow.send(1000, Duration::from_millis(500)).is_about(300, 1);
        // The next family begins afresh.
        net.apply(state([other(1000)]));
        net.apply(state([mine(1), other(1000)]));
        assert_eq!(net.tally("over_to_v4").len() + net.tally("over_to_v6").len(), 0);
    }
}

/// A limit with a bucket smaller than one offloaded packet lets large writes through.
#[test]
fn a_small_limit_lets_large_writes_through() {
    let net = Net::new();
    let server = net.serve("b1", 3001, Behaviour::Sink);
    net.apply(state([service(
        "slow",
        2001,
        &["b1"],
        3001,
        json!({"limit": {"pps": 20, "burst": 20}}),
    )]));
    let addresses: [IpAddr; 2] = PUBLIC.map(plan::ip);
    thread::scope(|scope| {
        for address in addresses {
            let to = SocketAddr::new(address, 2001);
            let net = &net;
            scope.spawn(move || net.push("client", to, Duration::from_secs(4)).expect("a way"));
        }
    });
    // 5 seconds' worth for each of two buckets is the most; half of it shows that it goes on.
    let most = 2 * 5 * 20 * 1500;
    assert!((most / 2..=most).contains(&server.bytes_in()), "{}", server.bytes_in());
}
