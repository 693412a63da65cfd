//! Limits of packets, and of bytes with the offloads on.

use std::collections::BTreeMap;
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
    let net = Net::alone();
    // Less on a slow machine, for longer: its senders pause for longer when they have lost something, and that must not fill
    // the bucket.
    let divisor = net.divisor(8_000);
    let (pps, burst, time) = (1000 / divisor, 1500, 5 * divisor.min(4));
    let limit = |direction| json!({"limit": {"pps": pps, "burst": burst, "direction": direction}});
    // As many bytes, and room for their acknowledgements: a slow machine merges little, and what the bucket of bytes drops
    // has been taken out of that of packets before.
    let shared = json!({"limit": {"pps": 2 * pps, "burst": 2 * burst, "mtu": 750, "direction": "shared"}});
    net.apply(state([
        service("to", 2001, &["b1"], 3001, limit("each")),
        service("from", 2002, &["b2"], 3001, limit("each")),
        service("local", 2003, &["b3"], 3001, limit("each")),
        service("shared", 2004, &["b4"], 3001, shared),
    ]));
    let runs = [
        Run::new("client", 2001, "b1", &[]),
        Run::new("client", 2002, "b2", &["-R"]),
        Run::new("gateway", 2003, "b3", &[]),
        Run::new("client", 2004, "b4", &["--bidir"]),
    ];
    for (family, public) in PUBLIC.into_iter().enumerate() {
        thread::scope(|scope| {
            let runs = runs.each_ref().map(|run| scope.spawn(|| run.bytes(&net, family, time)));
            for run in runs {
                let (run, [used_up, all]) = run.join().unwrap_or_else(|panic| resume_unwind(panic));
                let of_due = |bytes: u64, seconds: f64| {
                    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
                    let bytes = bytes as f64;
                    bytes / (1500.0 * (f64::from(burst) + f64::from(pps) * seconds))
                };
                let least = of_due(used_up.bytes, used_up.seconds);
                let [counted, on_the_wire] = [all.bytes, all.on_the_wire].map(|bytes| of_due(bytes, all.seconds));
                eprintln!(
                    "{run:?} {public}: {all:?}, {counted:.4} and {on_the_wire:.4} of what is due; at the last loss {used_up:?}, {least:.4}"
                );
                assert!(
                    used_up.seconds > f64::from(time) / 2.0,
                    "{run:?}: it is offered more to the end"
                );
                assert!(least >= 0.95, "{run:?}");
                assert!(counted <= 1.05, "{run:?}");
                // The kernel sees the headers of merged packets once; they are 1 / 20.8 of a full IPv6 packet.
                assert!(on_the_wire <= 1.06, "{run:?}");
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

    /// Measures what passed the limit until the last loss, when the bucket was empty, and what passed in all.
    fn bytes(&self, net: &Net, family: usize, time: u32) -> (&Self, [Moved; 2]) {
        let _server = net.iperf_server(self.backend, 3001);
        let to = at(PUBLIC[family], self.port);
        let backend = SocketAddr::new(plan::addresses(self.backend)[family], 3001);
        let sent = net.capture(self.backend, move |packet| !packet.outgoing && packet.dst == backend);
        let answered = net.capture(self.from, move |packet| !packet.outgoing && packet.src == to);
        let args = [self.args, &["-P", "4"]].concat();
        net.iperf(self.from, to, time, &args);
        let (sent, answered) = (sent.stop(), answered.stop());
        let mut counted: Vec<Packet> = match self.args {
            [] => sent,
            ["-R"] => answered,
            _ => [sent, answered].concat(),
        };
        counted.sort_by_key(|packet| packet.at);
        // Packets that the host's own rules drop are sent again by its stack in the same place, so that none is missing.
        let last_loss = after_losses(&counted).last().unwrap_or(counted.len());
        (self, [&counted[..last_loss], &counted].map(Moved::by))
    }
}

/// Amount of data in packets: bytes as the kernel counts them, and as they would be on a wire without offloads.
#[derive(Debug)]
struct Moved {
    bytes: u64,
    on_the_wire: u64,
    seconds: f64,
}

impl Moved {
    fn by(packets: &[Packet]) -> Self {
        let (first, last) = (packets.first().expect("packets"), packets.last().expect("packets"));
        Self {
            bytes: packets.iter().map(|packet| packet.length as u64).sum(),
            on_the_wire: packets.iter().map(on_the_wire).sum(),
            seconds: (last.at - first.at).as_secs_f64(),
        }
    }
}

/// Returns the positions in a capture before which a packet of the same connection is missing. Packets are not reordered here.
fn after_losses(packets: &[Packet]) -> impl Iterator<Item = usize> {
    let mut next = BTreeMap::new();
    let gap = move |packet: &Packet| {
        let end = packet
            .seq
            .wrapping_add(u32::try_from(packet.payload).expect("packets are short"));
        let expected = next.entry((packet.src, packet.dst)).or_insert(end);
        let ahead = |of: u32| (1..1 << 31).contains(&packet.seq.wrapping_sub(of));
        let missing = packet.payload > 0 && ahead(*expected);
        if end.wrapping_sub(*expected) < 1 << 31 {
            *expected = end;
        }
        missing
    };
    let missing: Vec<bool> = packets.iter().map(gap).collect();
    missing
        .into_iter()
        .enumerate()
        .filter_map(|(at, missing)| missing.then_some(at))
}

/// Returns the bytes on the wire of the packets that a captured packet stands for.
fn on_the_wire(packet: &Packet) -> u64 {
    let header = packet.length - packet.payload;
    let segments = packet.payload.div_ceil(1500 - header).max(1);
    u64::try_from(packet.payload + segments * header).expect("packets are short")
}

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

/// Packets that passed, of those that were sent. The rest was counted as over the limit.
#[derive(Debug)]
struct Passed {
    sent: u64,
    packets: u64,
    seconds: f64,
}

impl Passed {
    /// Asserts that as many packets passed as a full bucket and its rate allow for the time, to within 2 % and a few packets.
    #[track_caller]
    fn is_about(&self, burst: u32, pps: u32) {
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let passed = self.packets as f64;
        let due = f64::from(burst) + f64::from(pps) * self.seconds;
        assert!(
            (0.98 * due - 5.0..=1.02 * due + 5.0).contains(&passed),
            "{self:?}, due are {due}"
        );
    }
}

/// An open connection through which duplicates of one empty segment are sent, which its other end does not answer.
struct Flow<'a> {
    net: &'a Net,
    from: &'static str,
    backend: SocketAddr,
    /// Address of the other end, as the backend sees it.
    seen_as: SocketAddr,
    conn: Option<Conn>,
    forger: Forger,
    segment: Segment,
    arriving: Capture,
    /// Set that counts the packets over the limit, if there is one.
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

    /// Returns the same connection as the backend sees it.
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

    /// Sends more than the bucket holds until the first of it was counted as over: the packet that is to add the counter's
    /// element adds none while the kernel has no memory ready for it, and is dropped all the same.
    #[track_caller]
    fn make_counter(&self, burst: u32) {
        let made = wait_until(PATIENCE, || {
            let send = || self.forger.send(&self.segment).expect("failed to send a segment");
            (0..2 * burst).for_each(|_| send());
            self.over.is_none() || self.dropped() > 0
        });
        assert!(made, "{} to {}: nothing was over", self.from, self.backend);
    }

    /// Waits until every packet that was sent has either arrived or been counted as over.
    #[track_caller]
    fn send(&self, pps: u32, time: Duration) -> Passed {
        self.send_once(|| (), pps, time)
    }

    /// Sends packets once `ready` has returned.
    #[track_caller]
    fn send_once(&self, ready: impl FnOnce(), pps: u32, time: Duration) -> Passed {
        let (arrived, dropped) = (self.arriving.count(), self.dropped());
        ready();
        let since = Instant::now();
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
