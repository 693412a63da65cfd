//! Programs that may write to the table: an owner that is a process with the library in it, the CLI, other programs.

use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::reconcile::{Desired, ReconcileError, ReconcileOptions, ReconcileReport, Reconciler};
use tcpgw::record::RecordFile;
use tcpgw_core::model::{FlowMark, parse};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::nftables::monitor::{NftablesMonitor, TableChange, TableNotification};
use tcpgw_kernel::nftables::ownership::{Adoption, Ownership};
use tcpgw_kernel::{Kernel, TableProperties};

use crate::harness::client::Conn;
use crate::harness::counters::without_connections;
use crate::harness::plan::{self, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const LIST: [&str; 5] = ["nft", "list", "table", "inet", "tcpgw"];
const SOON: Duration = Duration::from_secs(10);

/// Commands with which another program attacks a table that it does not own.
const ATTACKS: [&str; 6] = [
    "delete table inet tcpgw",
    "flush table inet tcpgw",
    "add element inet tcpgw services { tcp . 9 }",
    "delete element inet tcpgw services { tcp . 20003 }",
    "add rule inet tcpgw balance drop",
    "add chain inet tcpgw stray",
];

/// A process that writes to the gateway's table, as a daemon does.
struct Process<'a> {
    net: &'a Net,
    kernel: Linux,
    store: RecordFile,
    namespace: u64,
}

impl<'a> Process<'a> {
    fn new(net: &'a Net, ownership: Ownership) -> Self {
        let kernel = net.within("gateway", || Linux::open_for(ownership).expect("sockets"));
        let namespace = kernel.netns_cookie().expect("a cookie");
        std::fs::create_dir_all(net.file("run")).expect("a run directory");
        let store = RecordFile::new(&net.file("run"), namespace);
        Self {
            net,
            kernel,
            store,
            namespace,
        }
    }

    fn apply(&mut self, state: &Value) -> Result<ReconcileReport, ReconcileError> {
        let state = parse(state.to_string().as_bytes()).expect("a state");
        let desired = Desired::new(&state, &plan::gateway_links());
        let (kernel, store, namespace) = (&mut self.kernel, self.store.clone(), self.namespace);
        self.net.within("gateway", move || {
            let mut reconciler = Reconciler::new(kernel, &store, namespace, FlowMark::default());
            let known = reconciler.read_contents(&desired.summary)?;
            reconciler.apply(known, &desired, &ReconcileOptions::default())
        })
    }

    fn about(&mut self) -> TableProperties {
        self.kernel.about().expect("an answer").expect("a table")
    }

    fn ownership(&mut self) -> Ownership {
        Ownership::of(self.about().flags)
    }
}

#[test]
fn a_table_of_the_cli_persists_and_its_first_owner_takes_it_as_it_is() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let limited = json!({"version": 1, "services": [
        {"name": "my-app", "port": 20003, "limit": {"pps": 50, "burst": 50}, "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]}
    ]});
    net.apply(&limited);
    let mut conn = established(&net);
    // More than the limit lets through, so that there are counters.
    let _ = conn.send(&vec![7; 2_000_000]);
    assert!(wait_until(SOON, || !net.tally("over_to_v4").is_empty()));
    conn.reset().expect("it ends at once");
    let still = || {
        let seen = stateful(&net);
        std::thread::sleep(Duration::from_millis(500));
        seen == stateful(&net)
    };
    assert!(wait_until(SOON, still), "packets go on");

    let mut owner = Process::new(&net, Ownership::Owned);
    assert_eq!(owner.ownership(), Ownership::Persist);
    let before = (owner.about(), net.identity().generation, stateful(&net));
    let report = owner.apply(&limited).expect("an orphan is taken over");
    assert_eq!((report.rebuilt, report.transactions, report.elements), (None, 0, 0));
    let after = (owner.about(), net.identity().generation, stateful(&net));
    assert_eq!(after.0.handle, before.0.handle);
    assert_eq!(after.0.owner, Some(owner.kernel.port()));
    assert_eq!(after.0.flags, Ownership::Owned.flags());
    assert_eq!((after.1, &after.2), (before.1 + 1, &before.2), "nothing but the flags");

    let again = owner.apply(&limited).expect("it is ours");
    assert_eq!((again.transactions, net.identity().generation), (0, after.1));
    assert_eq!(
        owner.kernel.adopt(after.1).expect("an answer"),
        Adoption::Owned,
        "by the same socket"
    );
    let mut other = Process::new(&net, Ownership::Owned);
    let refused = other.apply(&limited).expect_err("it is owned");
    assert!(
        matches!(refused, ReconcileError::Foreign(port) if port == owner.kernel.port()),
        "{refused}"
    );
}

#[test]
fn nobody_else_writes_to_an_owned_table_and_it_outlives_its_owner() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [here, there] = [&["10.2.0.11:3000"][..], &["10.2.0.11:3000", "10.2.0.12:3000"]].map(state);
    let mut owner = Process::new(&net, Ownership::Owned);
    owner.apply(&here).expect("there was none");
    assert_eq!(owner.ownership(), Ownership::Owned);
    let (about, sound) = (owner.about(), listing(&net));
    let mut conn = established(&net);

    net.nft("gateway", "add table ip other");
    let ((), spread) = during(&net, || {
        net.nft("gateway", "flush ruleset");
        for attack in ATTACKS {
            let refused = net.sh("gateway", &format!("nft '{attack}'"));
            assert!(
                refused.stderr.contains("Operation not permitted"),
                "{attack}: {refused}"
            );
        }
    });
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    assert_eq!(listing(&net), sound);
    assert_eq!(
        net.run("gateway", &["nft", "list", "tables"]).ok(),
        "table inet tcpgw\n",
        "others are flushed"
    );
    for args in [&["apply", &net.state_file("there.json", &there)][..], &["teardown"]] {
        let refused = net.tcpgw(args).exits(1);
        assert!(
            refused.stderr.contains("is the table owned by another process"),
            "{refused}"
        );
    }
    assert_eq!((owner.about(), listing(&net)), (about.clone(), sound));
    let report = owner.apply(&there).expect("its owner may");
    assert_eq!(report.rebuilt, None);
    owner.apply(&here).expect("its owner may");
    conn.echo(b"goes on").expect("an echo");

    let generation = net.identity().generation;
    drop(owner);
    conn.echo(b"goes on").expect("an echo");
    net.spread("client", at(PUBLIC[0], 20003), 5);
    assert_eq!(net.identity().generation, generation, "nobody is told");
    let answer = net.tcpgw(&["apply", &net.state_file("there.json", &there)]).ok();
    assert!(!answer.contains("replaced"), "{answer}");
    let mut heir = Process::new(&net, Ownership::Owned);
    assert_eq!(
        (heir.ownership(), heir.about().handle),
        (Ownership::Persist, about.handle)
    );
    let report = heir.apply(&there).expect("an orphan again");
    assert_eq!((report.rebuilt, report.transactions), (None, 0));
    assert_eq!(
        (heir.ownership(), heir.about().handle),
        (Ownership::Owned, about.handle)
    );
    conn.echo(b"goes on").expect("an echo");
}

#[test]
fn a_plain_table_is_replaced_by_one_that_is_owned() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let state = state(&["10.2.0.11:3000", "10.2.0.12:3000"]);
    let mut old = Process::new(&net, Ownership::Plain);
    old.apply(&state).expect("there was none");
    assert_eq!(old.ownership(), Ownership::Plain);
    let mut conn = established(&net);
    let answer = net.tcpgw(&["apply", &net.state_file("state.json", &state)]).ok();
    assert!(!answer.contains("replaced"), "the CLI leaves it as it is: {answer}");

    // Without its hooks it would do nothing, whatever is in it.
    net.nft("gateway", "add table inet tcpgw { flags dormant; }");
    let answer = net.tcpgw(&["apply", &net.state_file("state.json", &state)]).ok();
    assert!(answer.contains("another program changed the rules"), "{answer}");
    net.tcpgw(&["teardown"]).ok();
    old.apply(&state).expect("there is none");
    conn = reconnected(&net, conn);

    let before = net.identity();
    let mut owner = Process::new(&net, Ownership::Owned);
    let (report, spread) = during(&net, || owner.apply(&state).expect("it is replaced"));
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    assert_eq!(
        report.rebuilt.as_deref(),
        Some("the table could not be taken over: it was made without the flag persist")
    );
    let after = net.identity();
    assert_eq!(after.generation, before.generation + 1);
    assert_ne!(after.table, before.table);
    assert_eq!(owner.ownership(), Ownership::Owned);
    conn.echo(b"goes on").expect("an echo");
    let again = owner.apply(&state).expect("it is ours");
    assert_eq!((again.rebuilt, again.transactions), (None, 0));
}

#[test]
fn it_is_heard_who_writes_to_a_table_that_nobody_owns() {
    let net = Net::new();
    let [here, there] = [&["10.2.0.11:3000"][..], &["10.2.0.12:3000"]].map(state);
    let mut process = Process::new(&net, Ownership::Persist);
    process.apply(&here).expect("there was none");
    let port = process.kernel.port();
    let mut drift = net.within("gateway", || NftablesMonitor::open(port).expect("a socket"));
    assert_eq!(drift.drain().expect("nothing yet"), TableNotification::default());

    process.apply(&there).expect("it is ours");
    net.nft(
        "gateway",
        "add table ip tcpgw; add table inet other; delete table ip tcpgw",
    );
    let heard = heard_of(&net, &mut drift);
    assert!(
        !heard.is_drift() && heard.who.is_empty(),
        "our own, and others' own: {heard:?}"
    );
    for (line, fate) in [
        ("add element inet tcpgw services { tcp . 9 }", TableChange::Touched),
        ("flush chain inet tcpgw balance", TableChange::Touched),
        ("add table inet other2; delete table inet tcpgw", TableChange::Gone),
    ] {
        let nft = net.spawn("gateway", &["nft", line]);
        let pid = nft.id();
        nft.wait().ok();
        let heard = heard_of(&net, &mut drift);
        assert_eq!((heard.table, heard.lost), (fate, false), "{line}: {heard:?}");
        assert_eq!(heard.by(), Some(format!("nft ({pid})")), "{line}");
        process.apply(&there).expect("it is repaired");
    }
    assert!(!heard_of(&net, &mut drift).is_drift(), "the last repair");
    net.nft("gateway", "flush ruleset");
    assert_eq!(heard_of(&net, &mut drift).table, TableChange::Gone);
    process.apply(&there).expect("it is repaired");
    net.tcpgw(&["apply", &net.state_file("here.json", &here)]).ok();
    let by = heard_of(&net, &mut drift).by().expect("a name");
    assert!(by.starts_with("tcpgw ("), "{by}");
}

#[test]
fn more_than_fits_is_lost_and_said_so() {
    let net = Net::new();
    let mut drift = net.within("gateway", || NftablesMonitor::open(0).expect("a socket"));
    net.nft("gateway", "add table ip x; add set ip x s { type ipv4_addr; }");
    for round in 0..4 {
        let elements = (0..50_000).map(|n| format!("10.{round}.{}.{}", n / 256, n % 256));
        let elements: Vec<_> = elements.collect();
        net.nft("gateway", &format!("add element ip x s {{ {} }}", elements.join(",")));
    }
    let first = drift.drain().expect("it goes on");
    let mut last = first.clone();
    while last.more {
        let later = drift.drain().expect("it goes on");
        last = TableNotification {
            lost: last.lost || later.lost,
            ..later
        };
    }
    println!("lost: {}", last.lost);
    let whole = last.generation == Some(net.identity().generation);
    assert!(last.lost || whole, "{last:?}");
    assert_eq!(first.table, TableChange::Untouched);
    net.nft("gateway", "delete table ip x");
    assert!(!heard_of(&net, &mut drift).lost, "it hears on");
}

fn state(backends: &[&str]) -> Value {
    json!({"version": 1, "services": [{"name": "my-app", "port": 20003, "backends": backends}]})
}

fn established(net: &Net) -> Conn {
    let mut conn = net.connect("client", at(PUBLIC[0], 20003)).expect("a connection");
    conn.greeting().expect("a greeting");
    conn
}

fn reconnected(net: &Net, old: Conn) -> Conn {
    drop(old);
    established(net)
}

fn during<T>(net: &Net, work: impl FnOnce() -> T) -> (T, crate::harness::client::Spread) {
    let (spread, done) = net.spread_during("client", at(PUBLIC[0], 20003), 4, work);
    (done, spread)
}

/// Lists the table without counters.
fn listing(net: &Net) -> String {
    let listed = net.run("gateway", &["nft", "-s", "list", "table", "inet", "tcpgw"]);
    without_connections(&listed.ok())
}

/// Lists the table with counters, without the lines of nft about the flags and the owner.
fn stateful(net: &Net) -> String {
    let listing = net.run("gateway", &LIST).ok();
    let (head, rest) = listing.split_once("\tcomment ").expect("a comment");
    assert!(
        head.starts_with("table inet tcpgw {") && head.contains("\tflags "),
        "{head}"
    );
    rest.to_owned()
}

/// Returns all changes that were notified up to the gateway's present generation.
fn heard_of(net: &Net, drift: &mut NftablesMonitor) -> TableNotification {
    let generation = net.identity().generation;
    let heard = drift.drain().expect("it can be read");
    assert!(!heard.more);
    assert_eq!(heard.generation.unwrap_or(generation), generation);
    heard
}
