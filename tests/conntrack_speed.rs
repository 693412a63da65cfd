//! How long it takes to delete 50,000 of 1,000,000 flows, against `conntrack -D`.
//!
//! A measurement, so it runs only when asked for, alone, in a release build, as root, with room for that many flows
//! (`sysctl net.netfilter.nf_conntrack_max=2000000`; about 500 MB of memory):
//! `cargo test --release --test conntrack_speed -- --ignored --nocapture`.
#![expect(clippy::print_stderr, reason = "the figures are what this is for")]

mod injector;

use std::{
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use injector::{Injected, in_namespace, inject};
use tcpgw::kernel::{
    conntrack::{Conntrack, MarkFilter, Pair, PairFilter},
    socket::Netlink,
    tlv::{Family, Header, Writer},
};

const OURS: u32 = 0x80_0000;
const FLOWS: u32 = 1_000_000;
const RETIRED: u32 = 50_000;
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 0)), 3000);

#[test]
#[ignore = "a measurement of a minute"]
fn flushing_beats_the_conntrack_tool_five_times() {
    in_namespace(|| {
        inject((0..FLOWS).map(flow));
        let tool = best(|| {
            let args = ["-D", "-p", "tcp", "--reply-src", "10.2.0.0", "--reply-port-src", "3000"];
            let output = Command::new("conntrack").args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        });
        report("conntrack -D", tool);

        let raw = best(delete_with_filter);
        report("one DELETE with a filter", raw);

        let pair = Pair {
            public: Some(PUBLIC.into()),
            public_port: 20000,
            backend: OLD,
        };
        let ours = MarkFilter::new(OURS, OURS).unwrap();
        for filter in [PairFilter::Kernel, PairFilter::UserSpace] {
            let time = best(|| {
                let deletion = Conntrack::with(filter).unwrap().flush_pairs(ours, &[pair]).unwrap();
                assert_eq!((deletion.deleted, deletion.failed), (u64::from(RETIRED), 0));
            });
            report(&format!("flush_pairs, {filter:?}"), time);
            if filter == PairFilter::Kernel {
                assert!(time * 5 <= tool, "{time:?} is not five times faster than {tool:?}");
            }
        }
        let start = Instant::now();
        let none = Pair { public_port: 1, ..pair };
        assert_eq!(
            Conntrack::open().unwrap().flush_pairs(ours, &[none]).unwrap().deleted,
            0
        );
        report("filtered pass that finds nothing", start.elapsed());

        let mut conntrack = Conntrack::open().unwrap();
        let start = Instant::now();
        let rounds = 10_000;
        for n in 0..rounds {
            let flow = flow(n * 7 + RETIRED);
            assert!(conntrack.who(ours, flow.backend, flow.seen_as).unwrap().is_some());
        }
        report("who", start.elapsed() / rounds);

        let start = Instant::now();
        let deletion = conntrack.sweep(ours, |_| true).unwrap();
        assert_eq!(deletion.deleted, u64::from(FLOWS));
        report("sweep that deletes all", start.elapsed());
    });
}

/// The best of three, with the flows put back in between.
fn best(mut run: impl FnMut()) -> Duration {
    let one = || {
        let start = Instant::now();
        run();
        let time = start.elapsed();
        inject((0..RETIRED).map(flow));
        time
    };
    std::iter::repeat_with(one).take(3).min().unwrap()
}

fn report(what: &str, time: Duration) {
    eprintln!("{what:<34} {:>12.6} s", time.as_secs_f64());
}

/// 20 services and backends; the first has the first flows.
fn flow(n: u32) -> Injected {
    let [_, a, b, c] = (n / 60_000).to_be_bytes();
    let port = u16::try_from(n % 60_000).unwrap() + 1024;
    let service = u8::try_from(n / RETIRED).unwrap();
    let at = |a, b, c, d, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port);
    Injected {
        client: at(100, a, b, c, port),
        public: SocketAddr::new(PUBLIC.into(), 20_000 + u16::from(service)),
        backend: at(10, 2, 0, service, 3000),
        seen_as: at(10, 3, service, c, port),
        mark: OURS,
        zone: 0,
        translated: true,
    }
}

/// What the program does not do: here only to compare. The flags are of the reply's source address, protocol and port.
fn delete_with_filter() {
    let mut netlink = Netlink::netfilter().unwrap();
    let mut writer = Writer::new();
    let seq = netlink.next_seq();
    writer.message(
        Header {
            kind: 0x102,
            flags: 1 | 4,
            seq,
        },
        Family {
            family: 2,
            ..Family::default()
        },
        |w| {
            w.be32(8, OURS);
            w.be32(21, OURS);
            w.nest(2, |w| {
                w.nest(1, |w| w.attr(1, &[10, 2, 0, 0]));
                w.nest(2, |w| {
                    w.u8(1, 6);
                    w.be16(2, 3000);
                });
            });
            w.nest(25, |w| w.ne32(2, 1 | 8 | 16));
        },
    );
    netlink
        .send("delete flows", &[IoSlice::new(writer.bytes().unwrap())])
        .unwrap();
    netlink.acks(seq, |nack| panic!("{nack}")).unwrap();
}
