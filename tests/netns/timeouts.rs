//! How long conntrack keeps flows of services.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::conntrack::Tracked;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

fn limited() -> Value {
    state([service("web", 8000, &["b1"], 3000, json!({"limit": {"pps": 1000}}))])
}

/// The one flow that there is, once it is in that state.
fn flow(net: &Net, wanted: &str) -> Tracked {
    let found = || net.conntrack().into_iter().find(|flow| flow.state == wanted);
    assert!(wait_until(PATIENCE, || found().is_some()), "{:?}", net.conntrack());
    found().expect("it was there")
}

#[test]
fn flows_follow_the_sysctls_of_conntrack() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(limited()).ok();
    let table = net.identity().table;
    let mut conn = net.connect("client", at(PUBLIC[0], 8000)).expect("a connection");
    conn.greeting().expect("a greeting");
    assert!(flow(&net, "ESTABLISHED").timeout > 400_000);
    net.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 1000);
    net.sysctl("net.netfilter.nf_conntrack_tcp_timeout_max_retrans", 222);
    net.apply(limited()).ok();
    assert_eq!(net.identity().table, table, "counters and buckets stay");
    let generation = net.identity().generation;
    net.apply(limited()).ok();
    assert_eq!(net.identity().generation, generation, "there was nothing more to do");
    let listed = net.sh("gateway", "nft list ct timeout inet tcpgw timeouts_v6").ok();
    for wanted in ["established : 1000", "close_wait : 1000", "retrans : 222", "close : 0"] {
        assert!(listed.contains(wanted), "{wanted}: {listed}");
    }
    // What nft lists, it can load; and that is ours, too.
    net.sh("gateway", "nft list table inet tcpgw > /dev/null").ok();
    // Those that are up go on, by the kernel's own timeouts.
    conn.echo(b"on").expect("it goes on");
    drop(conn);
    for public in PUBLIC {
        let mut conn = net.connect("client", at(public, 8000)).expect("a connection");
        conn.greeting().expect("a greeting");
        assert!(wait_until(PATIENCE, || {
            let established = net.conntrack();
            let mut established = established.iter().filter(|flow| flow.state == "ESTABLISHED");
            established.any(|flow| (900..=1000).contains(&flow.timeout))
        }));
    }
}

#[test]
fn a_daemon_follows_them_while_it_runs() {
    let net = Net::new();
    net.want(limited());
    let daemon = net.daemon(&["--check-interval", "1s"]);
    assert!(wait_until(PATIENCE, || net.identity().table.is_some()));
    let table = net.identity().table;
    net.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 7200);
    let follows = || {
        let listed = net.sh("gateway", "nft list ct timeout inet tcpgw timeouts_v4").ok();
        listed.contains("established : 7200, close_wait : 7200")
    };
    assert!(wait_until(PATIENCE, follows), "{}", daemon.logged());
    assert_eq!(net.identity().table, table, "counters and buckets stay");
    assert_eq!(
        daemon.events_of("repaired"),
        Vec::<Value>::new(),
        "nobody wrote to the table"
    );
}

/// The kernel's 60 s of `CLOSE_WAIT` would cut it.
#[test]
fn a_half_closed_session_may_be_silent_as_long_as_any_other() {
    let net = Net::new();
    net.apply(limited()).ok();
    let listener = net
        .within("b1", || std::net::TcpListener::bind("[::]:3000"))
        .expect("a listener");
    let [first, _] = PUBLIC;
    let client = net
        .within("client", || TcpStream::connect(at(first, 8000)))
        .expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    server.shutdown(std::net::Shutdown::Write).expect("half of it ends");
    assert!(flow(&net, "CLOSE_WAIT").timeout > 400_000);
    thread::sleep(Duration::from_millis(10));
    drop((client, server));
}
