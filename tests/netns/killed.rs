//! Runs that are killed in the middle.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};
use crate::retire::{draining, flows, open, switched, until};

/// A run that is killed at a system call which writes to the kernel or to a file is finished by the next: one run for each such
/// call at the end, where a run commits and flushes.
#[test]
fn a_run_that_is_killed_anywhere_is_finished_by_the_next() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let still = || service("still", 2002, &["b4"], 3000, json!({}));
    let before = state([service("a", 2001, &["b1", "b3"], 3000, json!({})), still()]);
    let few = state([service("a", 2001, &["b2", "b3"], 3000, json!({})), still()]);
    let many = state([draining("a", 2001, "b3", &["b2"]), still()]);
    net.apply(&before);
    let mut still = open(&net, at(PUBLIC[1], 2002), "b4");
    let mut killed = 0;
    for (call, after) in [("sendmsg", &few), ("sendmsg", &many), ("rename", &many)] {
        let file = net.state_file("after.json", after);
        net.apply(&before);
        let log = net.file("calls");
        let log = log.to_str().expect("temporary paths are text");
        let trace = format!("trace={call}");
        net.run(
            "gateway",
            &["strace", "-f", "-o", log, "-e", &trace, TCPGW, "apply", &file],
        )
        .ok();
        let calls = fs::read_to_string(log).expect("strace wrote it").matches(call).count();
        // Most of the first calls only read.
        for nth in (1..=calls).filter(|nth| nth % 5 == 1 || nth + 12 > calls) {
            net.apply(&before);
            let mut old = PUBLIC.map(|address| until(&net, at(address, 2001), "b1"));
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let argv = ["strace", "-f", "-o", "/dev/null", "-e", &inject, TCPGW, "apply", &file];
            let run = net.run("gateway", &argv);
            // The number of calls varies from run to run.
            assert!([0, 137].contains(&run.status), "{call} {nth}: {run}");
            killed += usize::from(run.status == 137);
            still.echo(b"on").expect("others go on");
            for address in PUBLIC {
                net.spread("client", at(address, 2001), 4);
            }
            net.apply(after);
            assert_eq!(flows(&net, "b1"), 0, "{call} {nth}");
            for conn in &mut old {
                assert!(conn.send(b"late").is_ok());
            }
            net.tcpgw(&["diff", &file]).exits(0);
        }
    }
    eprintln!("killed {killed} times");
    assert!(killed >= 20, "{killed}");
    still.echo(b"on").expect("others go on");
}

#[test]
fn a_drain_or_a_teardown_that_is_killed_is_finished_by_the_next_run() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let before = state([service("a", 2001, &["b1"], 3000, json!({"limit": {"pps": 100}}))]);
    let after = state([service("a", 2001, &["b2"], 3000, json!({}))]);
    net.apply(&before);
    let mut conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let file = net.state_file("after.json", &after);
    let run = net.spawn("gateway", &[TCPGW, "apply", "--drain", "1h", &file]);
    assert!(wait_until(PATIENCE, || switched(&net)));
    run.signal(Signal::SIGKILL);
    run.wait().exits(137);
    for conn in &mut conns {
        conn.echo(b"on").expect("it goes on");
    }
    let differs = net.tcpgw(&["diff", &file]).exits(1).stdout;
    // The record had the run's changes before the kernel did.
    assert!(
        differs.contains("! 2 stale flows of earlier backends will be flushed"),
        "{differs}"
    );
    net.apply(&after);
    assert_eq!((flows(&net, "b1"), net.tally("over_to_v4").len()), (0, 0));
    net.tcpgw(&["diff", &file]).exits(0);

    for nth in 1.. {
        net.apply(&after);
        let _conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b2"));
        let inject = format!("inject=sendmsg:signal=KILL:when={nth}");
        let run = net.run(
            "gateway",
            &["strace", "-f", "-o", "/dev/null", "-e", &inject, TCPGW, "teardown"],
        );
        net.tcpgw(&["teardown"]).ok();
        assert_eq!(flows(&net, "b2"), 0, "{nth}");
        assert!(net.sh("gateway", "nft list tables").ok().is_empty());
        if run.status == 0 {
            assert!(nth > 3, "it was never killed");
            break;
        }
    }
}
