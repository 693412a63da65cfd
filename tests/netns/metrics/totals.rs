//! Totals and other counters: they are what was sent, and do not fall.

use super::*;

#[test]
fn totals_are_what_was_sent_and_do_not_fall_over_a_restart() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let servers = net.serve_all(3000, Behaviour::Greet);
    let _sink = net.serve("b3", 3001, Behaviour::Sink);
    net.want(state([
        service("plain", 2001, &["b1", "b2"], 3000, json!({})),
        service(
            "limited",
            2002,
            &["b3"],
            3001,
            json!({"limit": {"pps": 100, "burst": 100}}),
        ),
        service("empty", 2003, &[], 3000, json!({})),
    ]));
    let config = configure(
        &net,
        &format!("listen = \"{}\"\n[daemon]\ncount_traffic = true", loopback()),
    );
    let mut daemon = net.daemon(&["--config", &config]);
    listens(&net);
    daemon.settles(6);
    let bytes = vec![b'x'; 20_000];
    for number in 0..12 {
        let mut conn = net
            .connect("client", at(PUBLIC[number % 2], 2001))
            .expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&bytes).expect("an echo");
    }
    net.push("client", at(PUBLIC[0], 2002), Duration::from_secs(1))
        .expect("a push");
    assert!(net.connect("client", at(PUBLIC[0], 2003)).is_err());
    let accepted: u64 = servers.iter().map(Server::accepted).sum();
    assert_eq!(accepted, 12);
    let seen = series(&scrape(&net, ""));
    let of = |name: &str| value(&seen, name);
    assert_eq!(of("tcpgw_service_connections_total{service=\"plain\"}"), 12);
    let of_backends = |family: &str| {
        let start = format!("tcpgw_backend_{family}{{service=\"plain\"");
        let values = seen
            .iter()
            .filter(|(name, _)| name.starts_with(&start))
            .map(|(_, value)| *value);
        whole(values.sum())
    };
    assert_eq!(of_backends("connections_total"), 12);
    let sent = 12 * 20_000;
    for way in ["received", "sent"] {
        let total = of(&format!("tcpgw_service_{way}_bytes_total{{service=\"plain\"}}"));
        // Headers, greetings, and segments that were sent again.
        assert!((sent..sent * 3 / 2).contains(&total), "{way}: {total}");
        assert_eq!(of_backends(&format!("{way}_bytes_total")), total);
        let packets = of(&format!("tcpgw_service_{way}_packets_total{{service=\"plain\"}}"));
        assert!((12 * 3..total / 40).contains(&packets), "{way}: {packets}");
    }
    // A service without a backend is a problem.
    let status = net.cli(&["status", "--interval", "0s", "-o", "json"]).exits(1).stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let services = status["services"].as_array().expect("services");
    let of_status = |name: &str| {
        services
            .iter()
            .find(|service| service["name"] == name)
            .expect("a service")
            .clone()
    };
    let dropped = "tcpgw_service_dropped_packets_total{service=\"limited\",reason=\"over_limit_to\"}";
    let counted: u64 = of_status("limited")["backends"]
        .as_array()
        .expect("backends")
        .iter()
        .filter_map(|backend| backend["drops"]["over_limit_to"]["packets"].as_u64())
        .sum();
    assert!(
        counted > 0 && of(dropped) > 0 && of(dropped) <= counted,
        "{} of {counted}",
        of(dropped)
    );
    assert_eq!(
        Some(of(
            "tcpgw_service_dropped_packets_total{service=\"empty\",reason=\"no_backend\"}"
        )),
        of_status("empty")["drops"]["no_backend"]["packets"].as_u64()
    );
    // Killed: what was shown is not forgotten.
    daemon.kill();
    daemon.start();
    listens(&net);
    daemon.settles(6);
    let later = series(&scrape(&net, ""));
    let counters = seen
        .iter()
        .filter(|(name, _)| name.contains("_total") || name.contains("_count") || name.contains("_bucket"));
    let mut compared = 0;
    for (name, before) in counters {
        let after = later.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        assert!(after >= before, "{name}: {before}, then {after}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

/// Connects, sends a few bytes, and resets.
fn load(net: &Net, port: u16, times: usize) {
    for number in 0..times {
        let mut conn = net
            .connect("client", at(PUBLIC[number % 2], port))
            .expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&[7; 3000]).expect("an echo");
        conn.reset().expect("a reset");
    }
}

/// Asserts that no counter is smaller than it was. Returns the number of those that were compared.
#[track_caller]
fn none_fell(before: &Series, after: &Series) -> usize {
    let is_counter = |name: &str| {
        ["_total", "_count", "_bucket", "_sum"]
            .iter()
            .any(|part| name.contains(part))
    };
    let counters = before.iter().filter(|(name, _)| is_counter(name));
    let compared = counters.map(|(name, before)| {
        let after = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        assert!(after >= before, "{name}: {before}, then {after}");
    });
    compared.count()
}

#[test]
fn no_counter_falls_when_a_daemon_is_killed_right_after_a_scrape() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1", "b2"], 3000, json!({}))]));
    let config = configure(
        &net,
        &format!("listen = \"{}\"\n[daemon]\ncount_traffic = true", loopback()),
    );
    let mut daemon = net.daemon(&["--config", &config]);
    listens(&net);
    daemon.settles(4);
    let mut seen = series(&scrape(&net, ""));
    for round in 0..3 {
        // Two scrapes within the time for which a sample that nobody asks for may stay unwritten.
        for _ in 0..2 {
            load(&net, 2001, 10);
            let now = series(&scrape(&net, ""));
            assert!(none_fell(&seen, &now) > 40);
            seen = now;
        }
        daemon.kill();
        if round == 1 {
            net.sh("gateway", "nft delete table inet tcpgw").ok();
        }
        daemon.start();
        listens(&net);
        daemon.settles(4);
        let now = series(&scrape(&net, ""));
        assert!(none_fell(&seen, &now) > 40);
        seen = now;
    }
    // Nor when the listener moves.
    configure(&net, "listen = \"127.0.0.1:9465\"\n[daemon]\ncount_traffic = true");
    daemon.signal(Signal::SIGHUP);
    let moved = at("127.0.0.1", 9465);
    assert!(wait_until(PATIENCE, || get(&net, moved, "/metrics", "").is_ok()));
    let answer = get(&net, moved, "/metrics", "").expect("an answer");
    assert!(none_fell(&seen, &series(&answer.body)) > 40);
}

#[test]
fn what_comes_without_a_daemon_and_before_a_teardown_counts() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let config = configure(
        &net,
        &format!("listen = \"{}\"\n[daemon]\ncount_traffic = true", loopback()),
    );
    let mut daemon = net.daemon(&["--config", &config]);
    listens(&net);
    daemon.settles(2);
    let connect = |bytes: usize| {
        let mut conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&vec![b'x'; bytes]).expect("an echo");
        conn
    };
    let value_of = |name: &str| {
        value(
            &series(&scrape(&net, "")),
            &format!("tcpgw_service_{name}_total{{service=\"a\"}}"),
        )
    };
    let long = connect(400_000);
    let is_counted = || wait_until(PATIENCE, || value_of("sent_bytes") >= 400_000);
    assert!(is_counted(), "{}", value_of("sent_bytes"));
    let before = value_of("sent_bytes");
    daemon.kill();
    // Its end is not reported to anybody, and must not hide what the others gain.
    long.reset().expect("a reset");
    let open: Vec<_> = (0..5).map(|_| connect(20_000)).collect();
    daemon.start();
    listens(&net);
    daemon.settles(2);
    let is_whole = || value_of("sent_bytes") >= before + 100_000;
    assert!(
        wait_until(PATIENCE, is_whole),
        "{before}, then {}",
        value_of("sent_bytes")
    );
    assert_eq!(value_of("connections"), 6);
    drop(open);
    for _ in 0..7 {
        connect(10).reset().expect("a reset");
    }
    net.cli(&["teardown"]).ok();
    net.cli(&["resume"]).ok();
    daemon.settles(2);
    assert!(
        wait_until(PATIENCE, || value_of("connections") == 13),
        "{}",
        value_of("connections")
    );
}
