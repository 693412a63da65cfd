//! Many flows: a conntrack table that is full, and a million of them.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{assert_holds, leftovers, number, paced};
use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, connect};
use crate::harness::plan::{self, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::{Ran, TCPGW};
use crate::harness::state::FLOW_MARK;
use crate::harness::{Net, wait_until};
use crate::injector::{Injected, inject};
use crate::retire::until;

/// Port of the service that only injected flows have.
const PORT: u16 = 8001;
/// Hosts whose tables are walked too, since all namespaces share one.
const NEIGHBOURS: [&str; 4] = ["peer", "routed", "b3", "b4"];
/// Largest data segment, in bytes, of a run with a small state, whatever the number of flows.
const MOST_DATA: u64 = 64 << 20;

/// Returns the nth flow of a client to `PORT`, translated to that host.
fn flow(n: usize, host: &str) -> Injected {
    let [low, high] = [n % 50_000, n / 50_000].map(|part| u16::try_from(part).expect("16 bits"));
    let client = SocketAddr::new(plan::crowd(high)[0], 10_000 + low);
    Injected {
        client,
        public: at(PUBLIC[0], PORT),
        backend: SocketAddr::new(plan::addresses(host)[0], 3000),
        seen_as: SocketAddr::new(client.ip(), 10_000 + low),
        mark: FLOW_MARK,
        zone: 0,
        translated: true,
        state: 3,
    }
}

/// Reads a sysctl of conntrack in a host.
fn sysctl(net: &Net, host: &str, name: &str) -> usize {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let read = net.within(host, || fs::read_to_string(&path));
    let value = read.unwrap_or_else(|e| panic!("{path}: {e}"));
    value.trim().parse().expect("a number")
}

fn count(net: &Net) -> usize {
    sysctl(net, "gateway", "nf_conntrack_count")
}

/// Returns a state with `web` and the service of the injected flows.
fn with_many(host: &str) -> Value {
    let web = service("web", 8000, &["b1", "b2"], 3000, json!({"limit": {"pps": 100_000}}));
    state([web, service("many", PORT, &[host], 3000, json!({}))])
}

fn sessions(net: &Net) -> Vec<Conn> {
    let session = |(address, host)| until(net, at(address, 8000), host);
    [
        (PUBLIC[0], "b1"),
        (PUBLIC[0], "b2"),
        (PUBLIC[1], "b1"),
        (PUBLIC[1], "b2"),
    ]
    .map(session)
    .into()
}

fn all_go_on(conns: &mut [Conn]) {
    for conn in conns {
        conn.echo(b"on").expect("an established connection goes on");
    }
}

fn get_in(net: &Net, wait: Duration) -> bool {
    net.within("client", || connect(at(PUBLIC[0], 8000), wait)).is_ok()
}

#[test]
fn a_full_table_keeps_new_clients_out_and_is_emptied_by_an_apply() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(with_many("b3"));
    let mut held = sessions(&net);
    let most = sysctl(&net, "gateway", "nf_conntrack_max");
    let begin = Instant::now();
    let mut fill = 0;
    // Entries of before may end meanwhile, so that there is room again.
    let kept_out = wait_until(Duration::from_secs(30), || {
        let all = fill + most.saturating_sub(count(&net));
        net.within("gateway", || inject((fill..all).map(|n| flow(n, "b3"))));
        fill = all;
        !get_in(&net, Duration::from_millis(1500))
    });
    eprintln!("{fill} flows put into a table of {most} in {:?}", begin.elapsed());
    assert!(kept_out, "the table is full: {} of {most}", count(&net));
    all_go_on(&mut held);

    // A change that ends no flow: it works, and warns.
    let other = state([
        service("web", 8000, &["b1", "b2"], 3000, json!({"limit": {"pps": 90_000}})),
        service("many", PORT, &["b3"], 3000, json!({"on_retire": "reset"})),
    ]);
    let warned = net.apply(&other);
    assert_holds(&net, &other, "with a full table");
    let warning = warned
        .stderr
        .lines()
        .find(|line| line.starts_with("warning: "))
        .unwrap_or_default();
    assert!(warning.contains("net.netfilter.nf_conntrack_max"), "{warned}");
    eprintln!("{warning}");
    all_go_on(&mut held);

    let emptied = net.apply(with_many("b4"));
    assert_holds(&net, &with_many("b4"), "with a full table");
    assert!(emptied.stdout.contains(&format!("{fill} flows flushed")), "{emptied}");
    eprintln!("{}", emptied.stdout.trim_end());
    assert!(get_in(&net, Duration::from_secs(5)), "there is room again");
    let spread = net.spread("client", at(PUBLIC[0], 8000), 50);
    assert_eq!(spread.values().sum::<usize>(), 50);
    all_go_on(&mut held);
    let again = net.apply(with_many("b4"));
    assert!(!again.stderr.contains("nf_conntrack_max"), "{again}");
}

/// Runs a command and returns its result with the largest memory that it had, sampled every half millisecond.
fn measured(net: &Net, args: &[&str]) -> (Ran, u64) {
    let limit = format!("--data={MOST_DATA}");
    let mut run = net.spawn("gateway", &[&["prlimit", &limit, TCPGW], args].concat());
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    while !run.ended() {
        let lines = fs::read_to_string(&status).unwrap_or_default();
        let line = lines.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        thread::sleep(Duration::from_micros(500));
    }
    (run.wait(), peak)
}

/// A million flows cost a run time and no memory, under traffic. `TCPGW_FLOWS` changes their number.
#[test]
fn a_million_flows_cost_time_and_no_memory() {
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [b3, b4] = ["b3", "b4"].map(|host| net.state_file(&format!("{host}.json"), with_many(host)));
    let (_, few) = measured(&net, &["apply", &b3]);
    let mut held = sessions(&net);
    let here = inject_many(&net, number("TCPGW_FLOWS").unwrap_or(1_000_000));
    let (would_go, gone) = (format!("{here} flows will be flushed"), format!("{here} flows flushed"));
    let spread = paced(&net, at(PUBLIC[0], 8000), || {
        for (what, args, told) in [
            ("nothing changes", &["apply", &b3][..], " 0 elements changed"),
            ("a look at what would change", &["apply", "--dry-run", &b4], &would_go),
            ("the backend of all of them leaves", &["apply", &b4], &gone),
        ] {
            let (ran, peak) = measured(&net, args);
            assert_eq!(ran.status, 0, "{what}: {ran}");
            assert!(ran.stdout.contains(told), "{what}: {told:?} in {ran}");
            eprintln!("{what}: {:?}, at most {peak} KiB", ran.took);
            assert!(peak < few + (8 << 10), "{what}: {peak} KiB, where few flows took {few}");
            all_go_on(&mut held);
        }
    });
    assert_holds(&net, &with_many("b4"), "after a million flows");
    assert!(leftovers(&net, &with_many("b4")).is_empty());
    assert!(spread.failures.is_empty(), "{spread:?}");
    eprintln!(
        "{} short connections meanwhile, the longest {:?}",
        spread.served(),
        spread.longest
    );
}

/// Injects as many flows as fit into the gateway, and the rest into its neighbours. Returns the number in the gateway.
fn inject_many(net: &Net, all: usize) -> usize {
    let begin = Instant::now();
    let most = sysctl(net, "gateway", "nf_conntrack_max");
    // Clients need room, too.
    let here = all.min(most - count(net) - most / 20);
    let there = (all - here).div_ceil(NEIGHBOURS.len()).min(most);
    thread::scope(|scope| {
        scope.spawn(|| net.within("gateway", || inject((0..here).map(|n| flow(n, "b3")))));
        for host in NEIGHBOURS {
            scope.spawn(move || net.within(host, || inject((0..there).map(|n| flow(n, "b3")))));
        }
    });
    let all = here + there * NEIGHBOURS.len();
    eprintln!(
        "{all} flows, {here} of them in the gateway, put there in {:?}",
        begin.elapsed()
    );
    here
}
