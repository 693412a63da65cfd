//! Packets at the very moment of a change.
//!
//! A transaction that gives a key another value deletes the element and adds one. Before Linux 6.17 a packet that looks
//! for the key just then may find neither; `nft_lookup` looks again since, when the generation has changed, which leaves
//! a moment. Therefore `choose` looks for a slot twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::room::Room;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Build, Commit, Kernel};

use crate::harness::Net;
use crate::harness::brief::{endpoints, service, state};
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::wire::SYN;

const TIME: Duration = Duration::from_secs(5);
/// Ports of the services, which are many so that a change keeps the kernel busy for a while.
const PORTS: std::ops::Range<u16> = 8000..8032;

#[test]
fn a_syn_finds_a_slot_that_is_just_being_changed() {
    for balance in ["client-hash", "random", "source-hash", "round-robin"] {
        let net = Net::alone();
        let of = |hosts: [&str; 2]| {
            let to = |port| hosts.map(|host| endpoints(host, port)).concat();
            state(PORTS.map(|port| {
                service(
                    "",
                    port,
                    &[],
                    0,
                    json!({"name": format!("s{port}"), "balance": balance, "backends": to(port)}),
                )
            }))
        };
        let (syns, changes) = flood_during(&net, &of(["b1", "b2"]), &of(["b3", "b4"]));
        let missed = ["no_backend", "stale"].map(|set| net.tally(set).values().sum::<u64>());
        println!("{balance}: {syns} SYNs during {changes} changes");
        assert_eq!(missed, [0, 0], "{balance}: of {syns} SYNs during {changes} changes");
    }
}

#[test]
fn a_packet_finds_a_limit_that_is_just_being_changed() {
    let net = Net::alone();
    let of = |pps: u32, direction: &str| {
        let limit = json!({"limit": {"pps": pps, "burst": 4_000_000, "direction": direction}});
        state(PORTS.map(|port| service(&format!("s{port}"), port, &["b1", "b2"], port, limit.clone())))
    };
    for direction in ["each", "shared"] {
        let (syns, changes) = flood_during(&net, &of(1_000_000, direction), &of(999_999, direction));
        let over = ["over_to_v4", "over_to_v6"].map(|set| net.tally(set).values().sum::<u64>());
        println!("{direction}: {syns} SYNs during {changes} changes");
        assert_eq!(over, [0, 0], "{direction}: of {syns} SYNs during {changes} changes");
    }
}

/// Sends SYNs of ever new clients while two states alternate. Returns the number of SYNs and the number of changes.
fn flood_during(net: &Net, one: &Value, other: &Value) -> (u64, u64) {
    let over = AtomicBool::new(false);
    let (forger, over) = (net.forger("client"), &over);
    let [one, other] = [one, other].map(|state| {
        let state = tcpgw_core::model::parse(state.to_string().as_bytes()).expect("a state");
        compile(&state, &Links::default())
    });
    let mut kernel = net.within("gateway", || Linux::open().expect("sockets"));
    drop(kernel.remove());
    change(&mut kernel, &Ruleset::default(), &one);
    thread::scope(|scope| {
        let flood = scope.spawn(move || {
            let mut sent = 0;
            while !over.load(Relaxed) {
                forger.send(&syn(sent)).expect("failed to send a SYN");
                sent += 1;
            }
            sent
        });
        let begin = Instant::now();
        let mut changes = 0;
        while begin.elapsed() < TIME {
            change(&mut kernel, &one, &other);
            change(&mut kernel, &other, &one);
            changes += 2;
        }
        over.store(true, Relaxed);
        (flood.join().expect("the flood does not panic"), changes)
    })
}

fn change(kernel: &mut Linux, have: &Ruleset, want: &Ruleset) {
    let mark = FlowMark::default();
    let mut generation = kernel.identity().expect("an answer").generation;
    for step in &plan(have, want).steps {
        let build = have.is_empty().then_some(Build::New(Room::of(want)));
        let commit = Commit {
            generation,
            mark,
            build,
            step,
            forget: &[],
        };
        generation = kernel.commit(&commit).expect("nobody else writes");
    }
}

/// Returns the SYN of a running number, from an address that no host has, so that no client receives the answers.
fn syn(number: u64) -> Segment {
    let port = PORTS.start + u16::try_from(number % PORTS.len() as u64).expect("a port");
    let port_of_client = u16::try_from(1024 + number / 7 % 60000).expect("a port");
    let octet = |shift: u32| u8::try_from(number >> shift & 0x7f).expect("seven bits");
    let from = SocketAddr::new([198, 18 + octet(0) % 2, octet(3), octet(10)].into(), port_of_client);
    Segment::new(from, at(PUBLIC[0], port), SYN)
}
