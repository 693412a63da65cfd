//! Links that change, with a daemon that follows them and without one.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE, connect};
use crate::harness::plan::{INTERNAL, PUBLIC, at, ip};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const LINK_SOURCES: &str = "nft list map inet tcpgw link_sources_v4; nft list map inet tcpgw link_sources_v6";
/// Command that restores the bridge's IPv6 address, because the kernel removes IPv6 addresses of a link that goes down.
const SIXTH: &str = "ip address replace fd00:2::1/64 dev br0 nodad";
const SAME_LINK: &str = "nft list set inet tcpgw same_link";

/// A bridge that is renamed is known at once: a client beside its backend is masqueraded although the service preserves
/// addresses, because the answer would not return through the gateway otherwise.
#[test]
fn a_bridge_that_is_renamed_is_known_at_once() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"source": "preserve"}),
    )]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    assert_eq!(net.spread("peer", at(PUBLIC[0], 2001), 5)["b1"], 5);
    let table = net.identity().table;
    net.sh(
        "gateway",
        "ip link set br0 down && ip link set br0 name br7 && ip link set br7 up",
    )
    .ok();
    net.sh("gateway", "ip address replace fd00:2::1/64 dev br7 nodad").ok();
    let is_known = || net.sh("gateway", SAME_LINK).ok().contains("\"br7\" . \"br7\"");
    assert!(wait_until(PATIENCE, is_known), "{}", net.sh("gateway", SAME_LINK));
    assert!(!net.sh("gateway", SAME_LINK).ok().contains("br0"));
    for public in PUBLIC {
        assert_eq!(net.spread("peer", at(public, 2001), 5)["b1"], 5);
    }
    assert_eq!(net.identity().table, table);
    assert!(daemon.events_of("repaired").is_empty(), "it is no drift");
}

/// Opens a session of each family, through a service that shows the gateway's address.
fn sessions(net: &Net) -> Vec<Conn> {
    let open = |(public, internal): (&str, &str)| {
        let mut conn = net.connect("client", at(public, 2001)).expect("a connection");
        assert_eq!(conn.greeting().expect("a greeting").seen_as.ip(), ip(internal));
        conn
    };
    PUBLIC.into_iter().zip(INTERNAL).map(open).collect()
}

fn go_on(sessions: &mut [Conn], after: &str) {
    for conn in sessions {
        conn.echo(b"still there")
            .unwrap_or_else(|error| panic!("after {after:?}: {error}"));
    }
}

fn knows_sources_of(net: &Net, link: &str) -> bool {
    let listed = net.sh("gateway", LINK_SOURCES).ok();
    INTERNAL
        .iter()
        .all(|own| listed.contains(&format!("\"{link}\" : {own}")))
}

#[test]
fn sessions_live_through_what_happens_to_their_link() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    assert!(wait_until(PATIENCE, || knows_sources_of(&net, "br0")));
    let mut all = sessions(&net);
    for change in [
        &format!("ip link set br0 down && ip link set br0 up && {SIXTH}"),
        "ip address del 10.2.0.1/24 dev br0 && ip address del fd00:2::1/64 dev br0 && sleep 0.3 \
         && ip address add 10.2.0.1/24 dev br0 && ip address add fd00:2::1/64 dev br0 nodad",
        "ip link set b1 nomaster && sleep 0.3 && ip link set b1 master br0",
        &format!(
            "ip link set br0 down && ip link set br0 name br7 && ip link set br7 name br0 && ip link set br0 up && {SIXTH}"
        ),
    ] {
        net.sh("gateway", change).ok();
        go_on(&mut all, change);
        assert!(wait_until(PATIENCE, || knows_sources_of(&net, "br0")), "{change}");
        all.extend(sessions(&net));
    }
    let rename = "ip link set br0 down && ip link set br0 name br7 && ip link set br7 up \
                  && ip address replace fd00:2::1/64 dev br7 nodad";
    net.sh("gateway", rename).ok();
    go_on(&mut all, rename);
    assert!(wait_until(PATIENCE, || knows_sources_of(&net, "br7")));
    all.extend(sessions(&net));
    let flap = "ip link set br7 down && ip link set br7 up && ip address replace fd00:2::1/64 dev br7 nodad";
    net.sh("gateway", flap).ok();
    go_on(&mut all, flap);
    assert!(daemon.events_of("repaired").is_empty(), "it is no drift");
}

/// Links may change while no daemon runs: sessions go on with the rules alone, and an address that the gateway has lost is not
/// used for new ones, although the rules still contain it.
#[test]
fn links_may_change_while_nobody_watches() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    assert!(knows_sources_of(&net, "br0"));
    let mut all = sessions(&net);
    let flap = format!("ip link set br0 down && ip link set br0 up && {SIXTH}");
    net.sh("gateway", &flap).ok();
    go_on(&mut all, &flap);
    let seen = |host: &str, public| {
        let mut conn = net.connect(host, at(public, 2001)).expect("a connection");
        conn.greeting().expect("a greeting").seen_as.ip()
    };
    net.sh(
        "gateway",
        "ip address del 10.2.0.1/24 dev br0 && ip address del fd00:2::1/64 dev br0 \
         && ip address add 10.2.0.9/24 dev br0 && ip address add fd00:2::9/64 dev br0 nodad",
    )
    .ok();
    for host in ["client", "gateway"] {
        assert_eq!(
            PUBLIC.map(|public| seen(host, public)),
            ["10.2.0.9", "fd00:2::9"].map(ip),
            "{host}"
        );
    }
    // Another bridge, which the rules have never heard of.
    net.sh(
        "gateway",
        "ip link del br0 && ip link add br1 type bridge stp_state 0 mcast_snooping 0 && ip link set b1 master br1 \
         && ip link set br1 up && ip address add 10.2.0.8/24 dev br1 && ip address add fd00:2::8/64 dev br1 nodad",
    )
    .ok();
    for host in ["client", "gateway"] {
        assert_eq!(
            PUBLIC.map(|public| seen(host, public)),
            ["10.2.0.8", "fd00:2::8"].map(ip),
            "{host}"
        );
    }
    assert!(knows_sources_of(&net, "br0"), "nobody has told the rules");
    let file = net.state_file("same.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    assert_eq!(
        net.tcpgw(&["diff", &file]).exits(1).stdout,
        "~ the gateway's links or their addresses have changed, and the rules will follow\n"
    );
    net.tcpgw(&["apply", &file]).ok();
    assert!(net.sh("gateway", LINK_SOURCES).ok().contains("\"br1\" : 10.2.0.8"));
    assert_eq!(net.tcpgw(&["diff", &file]).exits(0).stdout, "");
}

#[test]
fn a_link_whose_name_is_no_text_hides_no_other() {
    let net = Net::new();
    net.sh("gateway", "ip link add \"$(printf 'odd\\377\"')\" type bridge")
        .ok();
    net.apply(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"source": "preserve"}),
    )]));
    assert!(knows_sources_of(&net, "br0"));
    assert!(net.sh("gateway", SAME_LINK).ok().contains("\"br0\" . \"br0\""));
    let seen = net.tcpgw(&["doctor"]);
    assert!(!seen.stdout.contains("unchecked: "), "{seen}");
}

/// Handshakes that were sent elsewhere are sent again when the link is back: while the bridge is down, the gateway's default
/// route sends them from the address of another link, which the backend could not answer.
#[test]
fn handshakes_that_were_sent_elsewhere_are_sent_again_when_the_link_is_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    net.sh("b1", "ip route del default").ok();
    net.sh("gateway", "ip link set br0 down").ok();
    let mut conn = thread::scope(|scope| {
        let connecting = scope.spawn(|| net.within("client", || connect(at(PUBLIC[0], 2001), Duration::from_secs(30))));
        let is_sent = || !net.flows_to(at("10.2.0.11", 3000)).is_empty();
        assert!(wait_until(PATIENCE, is_sent));
        thread::sleep(Duration::from_millis(1500));
        net.sh("gateway", "ip link set br0 up").ok();
        let since = Instant::now();
        let conn = connecting.join().expect("no panic").expect("a connection");
        // SYNs come again after 1 s, 2 s, 4 s.
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
        conn
    });
    assert_eq!(conn.greeting().expect("a greeting").seen_as.ip(), ip(INTERNAL[0]));
}
