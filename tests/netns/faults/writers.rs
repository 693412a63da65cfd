//! Other programs that write to nftables all the time: this process plays them, by netlink, for speed.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::netlink::tlv::{Header, NetfilterHeader, Writer};
use tcpgw_kernel::nftables::transaction::Transaction;

use super::{SetOnDrop, assert_holds, filler, leftovers, wanted};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::retire::open;

/// Time after which a run that never succeeds gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn web(hosts: &[&str], more: Value) -> Value {
    service("web", 8000, hosts, 3000, more)
}

/// Returns the transactions that change one ruleset into another; they apply to any generation.
fn transactions(have: &Ruleset, want: &Ruleset) -> Vec<Vec<u8>> {
    let steps = plan(have, want).steps;
    let encode = |step| {
        let mut transaction = Transaction::begin(None, 0);
        transaction.step(step, FlowMark::default());
        let sealed = transaction.seal().expect("it fits");
        sealed.parts().iter().flat_map(|part| part.iter().copied()).collect()
    };
    steps.iter().map(encode).collect()
}

/// Returns a transaction that adds a table `ip other`, and one that deletes it.
fn elsewhere() -> Vec<Vec<u8>> {
    // `NFT_MSG_NEWTABLE` and `NFT_MSG_DELTABLE` with `NFTA_TABLE_NAME`, between the beginning and the end of a batch.
    const NEW: u16 = 0xa00;
    const DELETE: u16 = 0xa02;
    let of = |kind: u16, flags: u16| {
        let mut writer = Writer::new();
        let nftables = NetfilterHeader {
            res_id: 10,
            ..NetfilterHeader::default()
        };
        let ipv4 = NetfilterHeader {
            family: 2,
            ..NetfilterHeader::default()
        };
        writer.message(
            Header {
                kind: 0x10,
                flags: 1,
                seq: 1,
            },
            nftables,
            |_| {},
        );
        writer.message(
            Header {
                kind,
                flags: 1 | flags,
                seq: 2,
            },
            ipv4,
            |writer| writer.str(1, "other"),
        );
        writer.message(
            Header {
                kind: 0x11,
                flags: 1,
                seq: 3,
            },
            nftables,
            |_| {},
        );
        writer.finish().expect("it fits")
    };
    vec![of(NEW, 0x400), of(DELETE, 0)]
}

/// Sends these again and again, with a pause, until `over`; how many were sent.
fn write_until(net: &Net, writes: &[Vec<u8>], pause: Duration, over: &AtomicBool, sent: &AtomicU64) {
    net.within("gateway", || {
        let mut netlink = Netlink::netfilter().expect("a socket");
        while !over.load(Relaxed) {
            for write in writes {
                netlink.send("write", &[IoSlice::new(write)]).expect("it is sent");
                while netlink.try_recv().is_ok_and(|answers| answers.is_some()) {}
                sent.fetch_add(1, Relaxed);
                if !pause.is_zero() {
                    thread::sleep(pause);
                }
            }
        }
    });
}

/// Runs `work` while another program writes.
fn beside<T>(net: &Net, writes: &[Vec<u8>], pause: Duration, work: impl FnOnce() -> T) -> (T, u64) {
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let other = scope.spawn(|| write_until(net, writes, pause, &over, &sent));
        while sent.load(Relaxed) == 0 && !other.is_finished() {
            thread::yield_now();
        }
        let end = SetOnDrop(&over);
        let done = work();
        drop(end);
        (done, sent.load(Relaxed))
    })
}

/// A run outlasts another program that adds a service to the table and removes it all the time, or names it.
#[test]
fn another_writer_of_our_table_is_outlasted_or_named() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [one, two] = [&["b1", "b2"][..], &["b2", "b3"]].map(|hosts| state([web(hosts, json!({"on_retire": "reset"}))]));
    let with_theirs = state([
        web(&["b1", "b2"], json!({"on_retire": "reset"})),
        service("theirs", 9999, &["b4"], 3000, json!({})),
    ]);
    net.apply(&one);
    let mut still = crate::retire::until(&net, at(PUBLIC[0], 8000), "b2");
    let adding = transactions(&wanted(&one), &wanted(&with_theirs));
    let removing = transactions(&wanted(&with_theirs), &wanted(&one));
    let writes = [adding, removing].concat();
    // As rare as 100 ms are where a run takes 30 or less.
    let rare = Duration::from_millis(100).max(net.apply_with(&[], &one).exits(0).took * 3);
    let patience = PATIENCE * net.divisor(10_000).min(8);
    for (pause, times) in [(Duration::ZERO, 1), (Duration::from_millis(2), 2), (rare, 5)] {
        let (outcomes, sent) = beside(&net, &writes, pause, || {
            let mut outcomes = Vec::new();
            for n in 0..times {
                let ran = net.apply_with(&["-v"], if n % 2 == 0 { &two } else { &one });
                still.echo(b"on").expect("its backend was there throughout");
                assert!(ran.took < patience, "{ran}");
                let again = ran.stderr.matches("reading the kernel again").count();
                if ran.status == 1 {
                    let error = ran
                        .stderr
                        .lines()
                        .find(|line| line.starts_with("error: "))
                        .unwrap_or_default();
                    eprintln!("{error}");
                    assert!(error.contains("others changed"), "{ran}");
                } else {
                    assert_eq!(ran.status, 0, "{ran}");
                }
                outcomes.push((ran.status, again, ran.took));
            }
            outcomes
        });
        eprintln!("a write every {pause:?}, {sent} of them: {outcomes:?}");
        let through = outcomes.iter().any(|(status, ..)| *status == 0);
        assert!(through || pause < rare, "nothing got through: {outcomes:?}");
        net.apply(&two);
        assert_holds(&net, &two, "without the other one");
        net.apply(&one);
        assert_holds(&net, &one, "without the other one");
        assert!(leftovers(&net, &one).is_empty());
    }
}

/// Another program's table that changes five hundred times a second does not disturb a run.
#[test]
fn another_table_that_changes_all_the_time_hinders_nobody() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [one, two] = [&["b1"][..], &["b2", "b3"]]
        .map(|hosts| state([web(hosts, json!({})), service("still", 8001, &["b4"], 3000, json!({}))]));
    let large = state([filler(10_000, 200), vec![web(&["b1"], json!({}))]].concat());
    net.apply(&one);
    let mut still = open(&net, at(PUBLIC[0], 8001), "b4");
    let writes = elsewhere();
    let ((), sent) = beside(&net, &writes, Duration::from_millis(2), || {
        for (n, next) in [&two, &one, &two, &large, &two, &one].into_iter().enumerate() {
            if n % 2 == 1 {
                net.forget();
            }
            let ran = net.apply_with(&[], next).exits(0);
            eprintln!("{n}: {:?}", ran.took);
            still.echo(b"on").ok();
        }
    });
    eprintln!("{sent} writes to another table meanwhile");
    assert_holds(&net, &one, "beside another table");
    net.forget();
    let file = net.state_file("one.json", &one);
    net.tcpgw(&["diff", &file]).exits(0);
}
