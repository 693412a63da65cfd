//! Limits of bytes, with the offloads on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::thread;

use serde_json::json;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{self, PUBLIC, at};
use crate::harness::wire::Packet;

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
