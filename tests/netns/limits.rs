//! Limits, in bytes with the offloads on, and in packets.

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::forge::{Forger, Segment};
use crate::harness::plan::{self, NOBODY, PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::wire::{ACK, Capture, Packet, SYN};
use crate::harness::{Net, wait_until};

#[test]
fn bytes_stay_within_the_limit_with_offloads_on() {
    const PPS: u64 = 1000;
    const BURST: u64 = 1500;
    let limit = |direction| json!({"limit": {"pps": PPS, "burst": BURST, "direction": direction}});
    let net = Net::alone();
    net.apply(state([
        service("to", 2001, &["b1"], 3001, limit("each")),
        service("from", 2002, &["b2"], 3001, limit("each")),
        service("local", 2003, &["b3"], 3001, limit("each")),
        service("shared", 2004, &["b4"], 3001, limit("shared")),
    ]));
    let runs = [
        Run::new("client", 2001, "b1", &[]),
        Run::new("client", 2002, "b2", &["-R"]),
        Run::new("gateway", 2003, "b3", &[]),
        Run::new("client", 2004, "b4", &["--bidir"]),
    ];
    for (family, public) in PUBLIC.into_iter().enumerate() {
        thread::scope(|scope| {
            let runs = runs.each_ref().map(|run| scope.spawn(|| run.bytes(&net, family)));
            for run in runs {
                let (run, passed, seconds) = run.join().unwrap_or_else(|panic| resume_unwind(panic));
                #[expect(clippy::cast_precision_loss, reason = "megabytes")]
                let of_due = |bytes: u64| bytes as f64 / (1500.0 * (BURST as f64 + PPS as f64 * seconds));
                let [counted, on_the_wire] = passed.map(of_due);
                eprintln!(
                    "{run:?} {public}: {passed:?} bytes in {seconds:.3} s, {counted:.4} and {on_the_wire:.4} of what is due"
                );
                assert!((0.95..=1.05).contains(&counted), "{run:?}");
                // The kernel sees the headers of merged packets once; they are 1 / 20.8 of a full IPv6 packet.
                assert!((0.95..=1.06).contains(&on_the_wire), "{run:?}");
            }
        });
    }
}

/// An iperf3 run through a service.
#[derive(Debug)]
struct Run {
    from: &'static str,
    port: u16,
    backend: &'static str,
    args: &'static [&'static str],
}

impl Run {
    const fn new(from: &'static str, port: u16, backend: &'static str, args: &'static [&'static str]) -> Self {
        Self {
            from,
            port,
            backend,
            args,
        }
    }

    /// The bytes that passed the limit, as the kernel counts them and as they would be on a wire without offloads, and
    /// in how many seconds.
    fn bytes(&self, net: &Net, family: usize) -> (&Self, [u64; 2], f64) {
        let _server = net.iperf_server(self.backend, 3001);
        let to = at(PUBLIC[family], self.port);
        let backend = SocketAddr::new(plan::addresses(self.backend)[family], 3001);
        let sent = net.capture(self.backend, move |packet| !packet.outgoing && packet.dst == backend);
        let answered = net.capture(self.from, move |packet| !packet.outgoing && packet.src == to);
        let args = [self.args, &["-P", "4"]].concat();
        net.iperf(self.from, to, 5, &args);
        let (sent, answered) = (sent.stop(), answered.stop());
        let counted: Vec<Packet> = match self.args {
            [] => sent,
            ["-R"] => answered,
            _ => [sent, answered].concat(),
        };
        let first = counted.iter().map(|packet| packet.at).min().expect("packets");
        let last = counted.iter().map(|packet| packet.at).max().expect("packets");
        let bytes = [
            counted.iter().map(|packet| packet.length as u64).sum(),
            counted.iter().map(on_the_wire).sum(),
        ];
        (self, bytes, (last - first).as_secs_f64())
    }
}

/// The IP bytes of the packets that this one stands for.
fn on_the_wire(packet: &Packet) -> u64 {
    let header = packet.length - packet.payload;
    let segments = packet.payload.div_ceil(1500 - header).max(1);
    u64::try_from(packet.payload + segments * header).expect("packets are short")
}

const PPS: u32 = 500;
/// A second's worth: a busy machine may keep the sender waiting for so long, and the bucket must not run over.
const BURST: u32 = 500;
const OFFERED: u32 = 2500;
const TIME: Duration = Duration::from_secs(4);

/// All at once: two backends of one service, both families, both directions, a shared bucket, clients of every kind, and
/// beside them what must not be limited.
#[test]
fn packets_stay_within_the_limit_and_nobody_else_is_hurt() {
    let net = Net::alone();
    let _servers = limited_and_free(&net);
    let [v4, v6] = PUBLIC;
    let direct = |host: &str| SocketAddr::new(plan::addresses(host)[0], 3001);
    let shared = Flow::open(&net, "client", at(v4, 2004), "b4", 3004);
    let flows = [
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
    let start = Barrier::new(flows.len());
    let blast = |flow: &Flow<'_>| {
        start.wait();
        flow.send(OFFERED, TIME)
    };
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
    within_two_percent(from.packets + to.packets, from.seconds.max(to.seconds));
    for (flow, passed) in flows[2..].iter().zip(rest) {
        match flow.over {
            Some(_) => within_two_percent(passed.packets, passed.seconds),
            None => assert_eq!(passed.packets, passed.sent, "{} to {}", flow.from, flow.backend),
        }
    }
}

#[test]
fn handshakes_are_under_the_limit_the_first_time_and_again() {
    let net = Net::alone();
    let limit = json!({"limit": {"pps": PPS, "burst": BURST}});
    net.apply(state([
        service("first", 2001, &["b1"], 3001, limit.clone()),
        service("again", 2002, &["b2"], 3001, limit),
    ]));
    // Who answered would end the handshake.
    for host in ["b1", "b2"] {
        net.mute(host);
    }
    for (family, set) in ["over_to_v4", "over_to_v6"].into_iter().enumerate() {
        thread::scope(|scope| {
            for (port, backend, ports) in [(2001, "b1", 40_000), (2002, "b2", 1)] {
                let net = &net;
                scope.spawn(move || {
                    let syn = |number: u64| {
                        let from = 10_000 + u16::try_from(number % ports).expect("a port");
                        Segment::new(at(NOBODY[family], from), at(PUBLIC[family], port), SYN)
                    };
                    let begin = Instant::now();
                    let sent = net.forger("client").blast(OFFERED, TIME, syn);
                    let seconds = begin.elapsed().as_secs_f64();
                    let endpoint = format!("{} . 3001", plan::addresses(backend)[family]);
                    let passed = sent - net.tallied(set, &endpoint);
                    eprintln!("{sent} SYNs to {endpoint} in {seconds:.3} s, {passed} passed");
                    within_two_percent(passed, seconds);
                });
            }
        });
    }
}

#[track_caller]
/// Of what is due for the time that it took. Where the machine was too busy to offer packets in time, at least what is due for
/// the planned time: the bucket does not grow while it is full.
fn within_two_percent(passed: u64, seconds: f64) {
    let due = |seconds: f64| f64::from(PPS) * seconds;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let after_burst = passed as f64 - f64::from(BURST);
    let (least, most) = (0.98 * due(seconds.min(TIME.as_secs_f64())), 1.02 * due(seconds));
    assert!(
        (least..=most).contains(&after_burst),
        "{after_burst} passed after the burst, {least} to {most} are due"
    );
}

fn limited_and_free(net: &Net) -> Vec<Server> {
    let limit = |direction| json!({"limit": {"pps": PPS, "burst": BURST, "direction": direction}});
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

/// What passed of what was sent; the rest was counted as over the limit.
#[derive(Debug)]
struct Passed {
    sent: u64,
    packets: u64,
    seconds: f64,
}

/// An open connection through which duplicates of one empty segment go, which nobody answers.
struct Flow<'a> {
    net: &'a Net,
    from: &'static str,
    backend: SocketAddr,
    /// The other end, as the backend sees it.
    seen_as: SocketAddr,
    conn: Option<Conn>,
    forger: Forger,
    segment: Segment,
    arriving: Capture,
    /// What counts what is over, if anything does.
    over: Option<&'static str>,
}

impl<'a> Flow<'a> {
    /// Connects until the connection is to that backend.
    #[track_caller]
    fn open(net: &'a Net, from: &'static str, to: SocketAddr, host: &str, port: u16) -> Self {
        let family = usize::from(to.is_ipv6());
        let backend = SocketAddr::new(plan::addresses(host)[family], port);
        let answers = net.capture(host, move |packet| packet.src == backend && packet.has(SYN | ACK));
        let (conn, answer) = (0..100)
            .find_map(|_| {
                let conn = net.connect(from, to).expect("a connection");
                wait_until(Duration::from_millis(200), || answers.count() > 0);
                Some((conn, answers.so_far().pop()?))
            })
            .expect("a connection to that backend");
        let seen_as = answer.dst;
        Self {
            net,
            from,
            backend,
            seen_as,
            forger: net.forger(from),
            segment: Segment::new(conn.local(), to, ACK)
                .seq(answer.ack)
                .ack(answer.seq.wrapping_add(1)),
            arriving: net.capture(host, move |packet| (packet.src, packet.dst) == (seen_as, backend)),
            conn: Some(conn),
            over: Some(["over_to_v4", "over_to_v6"][family]),
        }
    }

    fn free(self) -> Self {
        Self { over: None, ..self }
    }

    fn turned(mut self) -> Self {
        let conn = self.conn.take();
        let mut back = self.back();
        back.conn = conn;
        back
    }

    /// The same connection, seen from the backend.
    fn back(&self) -> Self {
        let (client, public) = (self.segment.src, self.segment.dst);
        let host = plan::BACKENDS
            .into_iter()
            .find(|host| plan::addresses(host).contains(&self.backend.ip()));
        Self {
            net: self.net,
            from: self.from,
            backend: self.backend,
            seen_as: self.seen_as,
            conn: None,
            forger: self.net.forger(host.expect("a backend")),
            segment: Segment::new(self.backend, self.seen_as, ACK)
                .seq(self.segment.ack)
                .ack(self.segment.seq),
            arriving: self
                .net
                .capture(self.from, move |packet| (packet.src, packet.dst) == (public, client)),
            over: Some(["over_from_v4", "over_from_v6"][usize::from(public.is_ipv6())]),
        }
    }

    /// Waits until every packet that was sent has either arrived or been counted as over.
    #[track_caller]
    fn send(&self, pps: u32, time: Duration) -> Passed {
        let since = Instant::now();
        let (arrived, dropped) = (self.arriving.count(), self.dropped());
        let sent = self.forger.blast(pps, time, |_| self.segment.clone());
        let seconds = since.elapsed().as_secs_f64();
        let mut packets = 0;
        let all = wait_until(PATIENCE, || {
            packets = u64::try_from(self.arriving.count() - arrived).expect("some packets");
            packets + self.dropped() - dropped == sent
        });
        let dropped = self.dropped() - dropped;
        assert!(
            all,
            "{} to {}: {packets} passed, {dropped} over, of {sent}",
            self.from, self.backend
        );
        Passed { sent, packets, seconds }
    }

    fn dropped(&self) -> u64 {
        let key = format!("{} . {}", self.backend.ip(), self.backend.port());
        self.over.map_or(0, |set| self.net.tallied(set, &key))
    }
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
        let first = flow.send(1000, Duration::from_secs(1));
        assert!((295..=305).contains(&first.packets), "{first:?}");
        net.apply(state([mine(1), other(2000)]));
        net.apply(state([mine(1)]));
        net.apply(state([
            mine(1),
            other(1000),
            service("new", 2003, &["b3"], 3001, json!({"limit": {"pps": 5}})),
        ]));
        let second = flow.send(1000, Duration::from_millis(200));
        assert!(second.packets < 30, "{second:?}");

        net.apply(state([mine(400), other(1000)]));
        let third = flow.send(2000, Duration::from_secs(1));
        assert!((680..=720).contains(&third.packets), "{third:?}");
        net.apply(state([service("mine", 2001, &["b1"], 3001, json!({}))]));
        let free = flow.send(2000, Duration::from_millis(500));
        assert_eq!(free.packets, free.sent);
        net.apply(state([mine(1), other(1000)]));
        let again = flow.send(1000, Duration::from_millis(500));
        assert!((295..=305).contains(&again.packets), "{again:?}");
        // The next family begins afresh.
        net.apply(state([other(1000)]));
        net.apply(state([mine(1), other(1000)]));
        assert_eq!(net.tally("over_to_v4").len() + net.tally("over_to_v6").len(), 0);
    }
}

/// The bucket of packets is smaller than one offloaded packet.
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
