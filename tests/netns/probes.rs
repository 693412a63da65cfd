//! Handshake probes, on a bridge and over a router: their results, and the state that they leave.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tcpgw::probe::Prober;
use tcpgw_core::health::{Probe, ProbeOutcome};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::addresses;
use crate::harness::server::Behaviour;
use crate::harness::views::parsed;
use crate::harness::wire::{ACK, Packet, RST, SYN, lines};
use crate::harness::{Net, wait_until};

type Reports = UnboundedReceiver<Vec<tcpgw::probe::ProbeReport>>;

/// Starts a prober in the gateway.
fn prober(net: &Net) -> (Prober, Reports) {
    let (sender, reports) = unbounded_channel();
    let prober = net.within("gateway", || Prober::start(sender).expect("failed to start probing"));
    (prober, reports)
}

/// Asks all at once; their outcomes in this order.
fn ask(of: &mut (Prober, Reports), endpoints: &[SocketAddr], timeout: Duration) -> Vec<ProbeOutcome> {
    let probes = (0..).zip(endpoints).map(|(id, endpoint)| Probe {
        id,
        endpoint: *endpoint,
        timeout,
        round: 0,
        source: None,
        question: None,
    });
    of.0.probe(probes.collect()).expect("the prober lives");
    let mut all = Vec::new();
    while all.len() < endpoints.len() {
        all.extend(of.1.blocking_recv().expect("the prober lives"));
    }
    all.sort_unstable_by_key(|report| report.id);
    all.iter().map(|report| report.outcome).collect()
}

fn of(host: &str, port: u16) -> [SocketAddr; 2] {
    addresses(host).map(|address| SocketAddr::new(address, port))
}

/// Sockets of a host that wait for late packets.
fn time_waits(net: &Net, host: &str) -> String {
    net.sh(host, "ss -Htan state time-wait").ok()
}

#[test]
fn what_probes_find() {
    let net = Net::new();
    let mut prober = prober(&net);
    let _servers = ["b1", "b3", "routed"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    let hosts = ["b1", "b2", "routed"].map(|host| of(host, 3000)).concat();
    let [yes, no] = [ProbeOutcome::Accepted, ProbeOutcome::Refused];
    assert_eq!(ask(&mut prober, &hosts, PATIENCE), [yes, yes, no, no, yes, yes]);

    net.mute("b3");
    let silent = ask(&mut prober, &of("b3", 3000), Duration::from_secs(2));
    assert_eq!(silent, [ProbeOutcome::TimedOut; 2]);
    net.unmute("b3");
    // The kernel may have found meanwhile that its hardware address is gone, and says so once more.
    assert!(wait_until(PATIENCE, || ask(&mut prober, &of("b3", 3000), PATIENCE) == [yes; 2]));

    // The address was not resolved before: it takes the kernel 3 s to find that no host has it.
    net.sh("b4", "ip addr flush dev eth0").ok();
    for outcome in ask(&mut prober, &of("b4", 3000), PATIENCE) {
        assert_eq!(outcome.to_string(), "unreachable (no route to host)");
    }
    for address in addresses("routed") {
        net.sh("gateway", &format!("ip route add unreachable {address}")).ok();
    }
    for outcome in ask(&mut prober, &of("routed", 3000), PATIENCE) {
        assert_eq!(outcome.to_string(), "unreachable (no route to host)");
    }
}

/// An unreachable backend spoils no later probe: its ICMP error stays in the socket's queue, and the same socket probes other
/// backends afterwards.
#[test]
fn who_is_unreachable_spoils_no_later_probe() {
    let net = Net::new();
    let mut prober = prober(&net);
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.sh("b4", "ip addr flush dev eth0").ok();
    let unreachable = of("b4", 3000);
    for outcome in ask(&mut prober, &[unreachable, unreachable].concat(), PATIENCE) {
        assert_eq!(outcome.to_string(), "unreachable (no route to host)");
    }
    for _ in 0..3 {
        let healthy = [of("b1", 3000); 4].concat();
        assert_eq!(ask(&mut prober, &healthy, PATIENCE), [ProbeOutcome::Accepted; 8]);
    }
}

#[test]
fn nothing_is_left_and_nothing_is_counted() {
    const PROBES: usize = 200;
    let net = Net::new();
    net.apply(state([service(
        "limited",
        2001,
        &["b1"],
        3000,
        json!({"limit": {"pps": 1, "burst": 1}}),
    )]));
    let server = net.serve("b1", 3000, Behaviour::Greet);
    let mut prober = prober(&net);
    for backend in of("b1", 3000) {
        let wire = net.capture("b1", move |packet| packet.src == backend || packet.dst == backend);
        let outcomes = ask(&mut prober, &[backend; PROBES], PATIENCE);
        assert!(
            outcomes.iter().all(|outcome| *outcome == ProbeOutcome::Accepted),
            "{outcomes:?}"
        );
        let count = |flags: u8, outgoing: bool, packets: &[Packet]| {
            let is = |packet: &&Packet| packet.has(flags) && packet.outgoing == outgoing;
            packets.iter().filter(is).count()
        };
        let all_ended = || count(RST, false, &wire.so_far()) >= PROBES;
        assert!(wait_until(PATIENCE, all_ended), "{}", lines(&wire.so_far()));
        let packets = wire.stop();
        eprintln!("{backend}: {} packets, {} accepted", packets.len(), server.accepted());
        assert_eq!(count(SYN | ACK, true, &packets), PROBES, "{}", lines(&packets));

        assert_eq!(net.flows_to(backend), [], "conntrack forgets them at once");
    }
    for host in ["gateway", "b1"] {
        assert_eq!(time_waits(&net, host), "", "{host}");
        let open = || net.sh(host, "ss -Htan state connected").ok();
        assert!(wait_until(PATIENCE, || open().is_empty()), "{host}: {}", open());
    }
    let status = parsed(&net.tcpgw(&["status", "-o", "json"]));
    let backends = status["services"][0]["backends"].as_array().expect("backends");
    assert_eq!(backends.len(), 2);
    for backend in backends {
        let reasons = backend["drops"].as_object().expect("drops");
        assert!(reasons.len() >= 2, "{backend}");
        for (reason, drops) in reasons {
            assert_eq!(drops["packets"], 0, "{reason}: {backend}");
        }
    }
}

/// Probes do not fill conntrack where every third backend is silent. Other connections have long timeouts here, so conntrack's
/// own collector seldom runs.
#[test]
fn probes_do_not_fill_conntrack() {
    const ROUNDS: usize = 10;
    let net = Net::new();
    net.apply(state([service("web", 2001, &["b1", "b2", "b3"], 3000, json!({}))]));
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.mute("b3");
    let mut prober = prober(&net);
    let hosts = ["b1", "b2", "b3"].map(|host| of(host, 3000)).concat();
    let hosts: Vec<SocketAddr> = hosts.into_iter().cycle().take(120).collect();
    let mut most = 0;
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        ask(&mut prober, &hosts, Duration::from_millis(500));
        most = most.max(entries(&net));
    }
    let (sent, silent) = (ROUNDS * hosts.len(), hosts.len() / 3);
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{sent} probes in {seconds:.1} s, a third of them not answered: at most {most} entries");
    // 2 s after its last SYN an unanswered one may go; it is looked for 3 s after its end.
    assert!(most <= 8 * silent, "{most} entries");
    assert!(most < sent / 2, "{most} entries");
    assert!(wait_until(PATIENCE, || entries(&net) == 0), "{:?}", net.conntrack());
}

/// Returns the number of entries that conntrack counts, including expired ones.
fn entries(net: &Net) -> usize {
    let count = net.sh("gateway", "cat /proc/sys/net/netfilter/nf_conntrack_count").ok();
    count.trim().parse().expect("a number")
}

/// Probes have the source addresses of their service: a container that accepts no other addresses is healthy.
#[test]
fn probes_come_from_where_clients_come_from() {
    let net = Net::new();
    let sources = ["10.2.0.101", "10.2.0.102", "fd00:2::101"];
    // An IPv6 route takes the newest address.
    for address in ["10.2.0.101/24", "10.2.0.102/24", "fd00:2::101/64", "fd00:2::102/64"] {
        net.sh("gateway", &format!("ip address add {address} dev br0")).ok();
    }
    net.nft(
        "b1",
        "table inet picky { chain input { type filter hook input priority 0;
            tcp dport 3000 ip saddr != { 10.2.0.101, 10.2.0.102 } drop
            tcp dport 3000 ip6 saddr != fd00:2::101 drop; }; }",
    );
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let of_b1 = of("b1", 3000);
    let mut prober = prober(&net);
    let silence = ask(&mut prober, &of_b1, Duration::from_millis(500));
    assert_eq!(silence, [ProbeOutcome::TimedOut; 2]);
    drop(prober);

    let health = json!({"interval": "100ms", "timeout": "1s", "fall": 1});
    let fields = json!({"source_addresses": sources, "health": health});
    net.want(state([service("picky", 2001, &["b1"], 3000, fields)]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    let seen = net.capture("b1", |packet| !packet.outgoing && packet.opens());
    let all_came = |packets: &[Packet]| {
        sources
            .iter()
            .all(|source| packets.iter().any(|packet| packet.src.ip().to_string() == *source))
    };
    assert!(
        wait_until(PATIENCE, || all_came(&seen.so_far())),
        "{}",
        lines(&seen.so_far())
    );
    seen.stop();
    // One that is gone does not keep the others from answering.
    net.sh("gateway", "ip address del 10.2.0.101/24 dev br0").ok();
    let v4 = of_b1[0];
    let answers = net.capture("b1", move |packet| {
        packet.outgoing && packet.has(SYN | ACK) && packet.src == v4
    });
    answers.wait_for(PATIENCE, |packet| packet.dst.ip().to_string() == "10.2.0.102");
}
