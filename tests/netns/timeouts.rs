//! Timeouts that conntrack applies to flows of services.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::conntrack::Tracked;
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::{Behaviour, listen_at};
use crate::harness::wire::ACK;
use crate::harness::{Net, wait_until};
use crate::retire::open;

fn limited() -> Value {
    state([service("web", 8000, &["b1"], 3000, json!({"limit": {"pps": 1000}}))])
}

/// Waits until the only flow is in that state, and returns it.
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
    // nft can list the table.
    net.sh("gateway", "nft list table inet tcpgw > /dev/null").ok();
    // Established connections go on, by the kernel's own timeouts.
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

/// A half-closed session may be silent as long as any other: the kernel's 60 s for `CLOSE_WAIT` do not apply.
#[test]
fn a_half_closed_session_may_be_silent_as_long_as_any_other() {
    let net = Net::new();
    net.apply(limited()).ok();
    let listener = net.within("b1", || listen_at("[::]:3000")).expect("a listener");
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

/// Opens sessions through a service, of both families.
fn sessions(net: &Net, port: u16) -> [Conn; 2] {
    PUBLIC.map(|address| open(net, at(address, port), "b1"))
}

fn timeouts_of(net: &Net, conns: &[Conn; 2]) -> [u32; 2] {
    let tracked = net.conntrack();
    [0, 1].map(|of| {
        let flow = tracked.iter().find(|flow| flow.client == conns[of].local());
        flow.unwrap_or_else(|| panic!("no flow of {} in {tracked:?}", conns[of].local()))
            .timeout
    })
}

fn ends(conn: &mut Conn, kind: ErrorKind) {
    conn.patience(Duration::from_millis(700));
    let ended = conn.echo(b"late").expect_err("it should have ended");
    let kinds = match kind {
        // The system's error for a read that takes too long.
        ErrorKind::TimedOut => [ErrorKind::TimedOut, ErrorKind::WouldBlock],
        kind => [kind, kind],
    };
    assert!(kinds.contains(&ended.kind()), "{ended:?}");
}

/// Seconds that a session may be silent in these tests: more than an emulated machine needs between two packets.
const SILENT: u32 = 5;
/// Longest time until a session that is silent from now on has ended.
const OVER: Duration = Duration::from_secs(20);

fn is_tracked(net: &Net, conns: &[Conn]) -> bool {
    let tracked = net.conntrack();
    let mut locals = conns.iter().map(Conn::local);
    locals.any(|local| tracked.iter().any(|flow| flow.client == local))
}

/// Sessions of one container in four services end after the idle timeout of their own service.
#[test]
fn a_silent_session_ends_after_the_idle_timeout_of_its_service() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let short = |refusal: &str| json!({"idle_timeout": format!("{SILENT}s"), "on_retire": refusal});
    net.apply(state([
        service("reset", 2001, &["b1"], 3000, short("reset")),
        service("drop", 2002, &["b1"], 3000, short("drop")),
        service("longer", 2003, &["b1"], 3000, json!({"idle_timeout": "1h"})),
        service("default", 2004, &["b1"], 3000, json!({})),
    ]));
    let [mut longer, mut default] = [2003, 2004].map(|port| sessions(&net, port));
    assert!(
        timeouts_of(&net, &longer)
            .iter()
            .all(|left| (3500..=3600).contains(left))
    );
    assert!(timeouts_of(&net, &default).iter().all(|left| *left > 400_000));
    let [mut speaking, mut reset, mut drop] = [2001, 2001, 2002].map(|port| sessions(&net, port));
    let begin = Instant::now();
    let over = wait_until(OVER, || {
        for conn in &mut speaking {
            conn.echo(b"alive").expect("it is not silent");
        }
        !is_tracked(&net, &reset) && !is_tracked(&net, &drop)
    });
    assert!(over, "they are silent, and go on: {:?}", net.conntrack());
    assert!(
        begin.elapsed() >= Duration::from_secs(u64::from(SILENT) - 1),
        "they end too early"
    );
    for conn in longer.iter_mut().chain(&mut default).chain(&mut speaking) {
        conn.echo(b"on").expect("it goes on");
    }
    for conn in &mut reset {
        ends(conn, ErrorKind::ConnectionReset);
    }
    for conn in &mut drop {
        ends(conn, ErrorKind::TimedOut);
    }
    assert!(net.tallied("stale", "tcp . 2001") >= 2 && net.tallied("stale", "tcp . 2002") >= 2);
    assert_eq!(
        net.tallied("stale", "tcp . 2003") + net.tallied("stale", "tcp . 2004"),
        0
    );
}

#[test]
fn every_balance_heeds_the_idle_timeout() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let balances = ["client-hash", "random", "source-hash", "round-robin"];
    let of = |scope: &Value| {
        let services = balances.iter().zip(2001..).map(|(balance, port)| {
            let mut more = json!({"balance": balance, "idle_timeout": "90s"});
            more["addresses"].clone_from(scope);
            if scope.is_null() {
                more.as_object_mut().expect("an object").remove("addresses");
            }
            service(balance, port, &["b1"], 3000, more)
        });
        state(services)
    };
    for scope in [Value::Null, json!(PUBLIC)] {
        net.apply(of(&scope)).ok();
        for (port, balance) in (2001..).zip(balances) {
            let sessions = sessions(&net, port);
            let left = timeouts_of(&net, &sessions);
            assert!(left.iter().all(|left| (60..=90).contains(left)), "{balance}: {left:?}");
        }
        // The table is read back as it was written.
        net.forget();
        let file = net.state_file("same.json", of(&scope));
        net.tcpgw(&["diff", &file]).exits(0);
    }
}

#[test]
fn a_half_closed_session_is_as_long_lived_as_its_service_says() {
    let net = Net::new();
    net.apply(state([service(
        "web",
        8000,
        &["b1"],
        3000,
        json!({"idle_timeout": format!("{SILENT}s"), "on_retire": "reset"}),
    )]));
    let listener = net.within("b1", || listen_at("[::]:3000")).expect("a listener");
    let mut halves = PUBLIC.map(|public| {
        let client = net.within("client", || TcpStream::connect(at(public, 8000)));
        let (server, _) = listener.accept().expect("a connection");
        server.shutdown(std::net::Shutdown::Write).expect("half of it ends");
        (client.expect("a connection"), server)
    });
    assert!(flow(&net, "CLOSE_WAIT").timeout <= SILENT);
    for (client, _) in &mut halves {
        client.write_all(b"the other half goes on").expect("sent");
    }
    let half_closed = || net.conntrack().iter().any(|flow| flow.state == "CLOSE_WAIT");
    assert!(half_closed());
    assert!(wait_until(OVER, || !half_closed()), "{:?}", net.conntrack());
    for (client, _) in &mut halves {
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(client.read(&mut [0]).expect("its end"), 0);
        client.write_all(b"late").expect("sent");
        let reset = || {
            let error = client.take_error().expect("a socket");
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            error.is_some_and(|error| kinds.contains(&error.kind()))
        };
        assert!(wait_until(PATIENCE, reset), "a late packet is reset");
    }
    assert!(net.tallied("stale", "tcp . 8000") >= 2);
}

#[test]
fn a_changed_idle_timeout_concerns_new_sessions_of_its_service_only() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let of = |a: &str, b: &str| {
        let more = |idle: &str| json!({"idle_timeout": idle, "limit": {"pps": 1000}, "on_retire": "reset"});
        state([
            service("a", 2001, &["b1"], 3000, more(a)),
            service("b", 2002, &["b1"], 3000, more(b)),
        ])
    };
    net.apply(of("60s", "60s")).ok();
    let (mut a, mut b) = (sessions(&net, 2001), sessions(&net, 2002));
    let late = |port| {
        for (from, address) in addresses("client").into_iter().zip(PUBLIC) {
            let segment = Segment::new(SocketAddr::new(from, 4000), at(address, port), ACK);
            net.forge("client", &segment);
        }
    };
    late(2001);
    late(2002);
    let counted = || ["tcp . 2001", "tcp . 2002"].map(|service| net.tallied("stale", service));
    assert!(wait_until(PATIENCE, || counted() == [2, 2]), "{:?}", counted());
    let table = net.identity().table;
    let file = net.state_file("longer.json", of("2m", "60s"));
    let output = net.tcpgw(&["diff", &file]).exits(1).stdout;
    assert!(output.contains("idle_timeout 1m -> 2m"), "{output}");
    net.apply(of("2m", "60s")).ok();
    assert_eq!((net.identity().table, counted()), (table, [2, 2]), "counters stay");
    for conn in a.iter_mut().chain(&mut b) {
        conn.echo(b"on").expect("it goes on");
    }
    // The object that both had is still needed by the other service.
    for up in [&a, &b] {
        assert!(timeouts_of(&net, up).iter().all(|left| (30..=60).contains(left)));
    }
    let new = sessions(&net, 2001);
    assert!(timeouts_of(&net, &new).iter().all(|left| (90..=120).contains(left)));

    net.apply(of("2m", "2m")).ok();
    assert_eq!((net.identity().table, counted()), (table, [2, 2]), "counters stay");
    let listed = net.sh("gateway", "nft list table inet tcpgw").ok();
    assert!(
        listed.contains("idle_120_v4") && !listed.contains("idle_60_v4"),
        "{listed}"
    );
    for conn in a.iter_mut().chain(&mut b) {
        conn.echo(b"on").expect("it goes on");
    }
    // No service needs it any more: flows that began with it go by the sysctls.
    for up in [&a, &b] {
        assert!(timeouts_of(&net, up).iter().all(|left| *left > 400_000));
    }
    assert!(timeouts_of(&net, &new).iter().all(|left| (60..=120).contains(left)));
}

#[test]
fn a_daemon_changes_an_idle_timeout_and_follows_the_sysctls_beside_it() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let daemon = net.daemon_without_state(&["--check-interval", "1s"]);
    for (name, port, balance) in [("a", "2001", "round-robin"), ("b", "2002", "client-hash")] {
        let [backend, _] = endpoints("b1", 3000);
        let args = [
            "service",
            "add",
            name,
            "--port",
            port,
            "--backend",
            &backend,
            "--balance",
            balance,
            "--idle-timeout",
            "1m",
        ];
        net.cli(&args).ok();
    }
    daemon.settles(1);
    let (table, public) = (net.identity().table, PUBLIC[0]);
    let left = |port| {
        let conn = open(&net, at(public, port), "b1");
        let tracked = net.conntrack();
        let flow = tracked.iter().find(|flow| flow.client == conn.local());
        flow.expect("a flow").timeout
    };
    assert!((30..=60).contains(&left(2001)) && (30..=60).contains(&left(2002)));
    net.cli(&["service", "set", "a", "--idle-timeout", "5m"]).ok();
    let answer = net.cli(&["service", "show", "a"]).ok();
    assert!(answer.contains("idle_timeout") && answer.contains("5m"), "{answer}");
    assert!(wait_until(PATIENCE, || (200..=300).contains(&left(2001))));
    assert!((30..=60).contains(&left(2002)), "the other one's is its own");
    net.sysctl("net.netfilter.nf_conntrack_tcp_timeout_fin_wait", 77);
    let followed = |name: &str| {
        net.sh("gateway", &format!("nft list ct timeout inet tcpgw {name}"))
            .ok()
            .contains("fin_wait : 77")
    };
    for name in ["timeouts_v4", "idle_60_v4", "idle_300_v4"] {
        assert!(wait_until(PATIENCE, || followed(name)), "{name}: {}", daemon.logged());
    }
    assert!((200..=300).contains(&left(2001)) && (30..=60).contains(&left(2002)));
    net.cli(&["service", "set", "a", "--reset", "idle_timeout"]).ok();
    assert!(wait_until(PATIENCE, || left(2001) > 400_000));
    assert_eq!(net.identity().table, table, "counters and buckets stay");
    assert_eq!(
        daemon.events_of("repaired"),
        Vec::<Value>::new(),
        "nobody wrote to the table"
    );
}

#[test]
fn the_configuration_says_it_for_services_that_do_not() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let config = net.file("config.toml");
    std::fs::write(&config, "idle_timeout = \"2h\"").expect("failed to write a configuration");
    let config = config.to_string_lossy().into_owned();
    let services = state([
        service("default", 2001, &["b1"], 3000, json!({})),
        service("own", 2002, &["b1"], 3000, json!({"idle_timeout": "48h"})),
    ]);
    let left = |port| timeouts_of(&net, &sessions(&net, port));
    let file = net.state_file("state.json", &services);
    net.tcpgw(&["apply", &file]).ok();
    assert!(left(2001).iter().all(|left| *left > 400_000));
    let table = net.identity().table;
    let diff = net.tcpgw(&["--config", &config, "diff", &file]).exits(1).stdout;
    assert!(diff.contains("may be silent for 120h -> 2h"), "{diff}");
    net.tcpgw(&["--config", &config, "apply", &file]).ok();
    assert!(left(2001).iter().all(|left| (7000..=7200).contains(left)));
    assert!(left(2002).iter().all(|left| (172_000..=172_800).contains(left)));
    net.forget();
    net.tcpgw(&["--config", &config, "diff", &file]).exits(0);
    // The sysctl does not matter then.
    net.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 1000);
    net.tcpgw(&["--config", &config, "diff", &file]).exits(0);

    net.want(&services);
    let daemon = net.daemon(&["--config", &config, "--check-interval", "1s"]);
    daemon.settles(1);
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(net.identity().table, table, "counters and buckets stay");
    assert!(left(2001).iter().all(|left| (7000..=7200).contains(left)));
}
