//! Reading of addresses, links, routes and listeners, in a network namespace of its own. Needs root.

use std::{
    io::Write as _,
    net::{IpAddr, TcpListener},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use tcpgw_kernel::listeners::listeners;
use tcpgw_kernel::route::monitor::{self as route_monitor, Notification};
use tcpgw_kernel::route::{IncomingRoute, LinkEntry, RouteEntry, RouteTo, Routes};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// `gw0` with one address of each family, a default route over it, one more address in the table `local`.
const TOPOLOGY: &[&str] = &[
    "link set lo up",
    "link add gw0 type veth peer name gw1",
    "link set gw0 up",
    "link set gw1 up",
    "link add off0 type veth peer name off1",
    "address add 192.0.2.1/24 dev gw0",
    "address add 2001:db8::1/64 dev gw0 nodad",
    "route add default via 192.0.2.254",
    "route add default via 2001:db8::fe",
    "route add local 198.51.100.5/32 dev lo",
    "route add local 203.0.113.0/24 dev lo",
    "route add blackhole 10.9.0.0/16",
    "rule add to 10.77.0.0/16 lookup 77",
    "route add local 10.77.0.0/16 dev lo table 77",
    "rule add iif gw1 lookup 78",
    "route add 10.79.0.0/16 dev gw0 table 78",
    "-6 rule add iif gw1 lookup 1078",
    "-6 route add fd00:79::/32 dev gw0 table 1078",
];

#[test]
fn addresses_links_and_routes_are_those_of_the_namespace() {
    in_namespace(|| {
        let mut routes = Routes::open().unwrap();
        let own = routes.local_addresses().unwrap();
        for address in ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "198.51.100.5"] {
            assert!(own.contains(&ip(address)), "{address} is missing: {own:?}");
        }
        // Every address of a local network is, and one that only a rule's table has is asked for.
        assert!(
            own.contains(&ip("203.0.113.0")) && !own.contains(&ip("192.0.2.255")),
            "{own:?}"
        );
        let [by_rule, other] = ["10.77.0.9", "10.78.0.9"].map(ip);
        let mut own = own;
        routes.find_local(&mut own, [by_rule, other]).unwrap();
        assert!(own.contains(&by_rule) && !own.contains(&other), "{own:?}");

        let links = routes.links().unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let index = link("gw0").index;
        let gw0 = LinkEntry {
            index,
            name: "gw0".into(),
            kind: Some("veth".into()),
            up: true,
            loopback: false,
        };
        assert_eq!(*link("gw0"), gw0);
        assert!(!link("off0").up && link("lo").loopback);

        let gw0 = |gateway: Option<&str>| RouteTo {
            index,
            name: Some("gw0".into()),
            gateway: gateway.map(ip),
            local: false,
            shared: false,
        };
        assert_eq!(routes.route_to(ip("192.0.2.7")).unwrap(), Some(gw0(None)));
        assert_eq!(
            routes.route_to(ip("10.2.0.11")).unwrap(),
            Some(gw0(Some("192.0.2.254")))
        );
        assert_eq!(
            routes.route_to(ip("2001:db8:5::1")).unwrap(),
            Some(gw0(Some("2001:db8::fe")))
        );
        assert_eq!(routes.route_to(ip("10.9.0.1")).unwrap(), None);
        // A rule for what comes in by `gw1`; the kernel says nothing while that interface does not forward.
        let behind_rule = ip("10.79.0.1");
        let gw1 = links.iter().find(|link| link.name == "gw1").unwrap().index;
        let set =
            |setting: &str, value: &str| std::fs::write(format!("/proc/sys/net/ipv4/conf/{setting}"), value).unwrap();
        set("all/rp_filter", "0");
        set("gw1/rp_filter", "0");
        set("gw1/forwarding", "0");
        let mut incoming_route = || routes.incoming_route(behind_rule, ip("192.0.2.77"), gw1, None).unwrap();
        assert_eq!(incoming_route(), IncomingRoute::Refused);
        set("gw1/forwarding", "1");
        let direct = RouteTo {
            name: None,
            ..gw0(None)
        };
        assert_eq!(incoming_route(), IncomingRoute::Goes(direct));
        assert_eq!(
            routes.route_to(behind_rule).unwrap(),
            Some(gw0(Some("192.0.2.254"))),
            "the gateway's own packets take another way"
        );
        let mut entry = |address: &str, from: &str| routes.entry_in(ip(address), ip(from), gw1, None).unwrap();
        let of = |network: &str, table| {
            let network = network.parse().unwrap();
            Some(RouteEntry { network, table })
        };
        assert_eq!(entry("10.79.0.1", "192.0.2.77"), of("10.79.0.0/16", 78));
        assert_eq!(entry("10.2.0.11", "192.0.2.77"), of("0.0.0.0/0", 254));
        assert_eq!(entry("fd00:79::1", "2001:db8::77"), of("fd00:79::/32", 1078));
        assert_eq!(entry("2001:db8:5::1", "2001:db8::77"), of("::/0", 254));
        assert_eq!(entry("10.9.0.1", "192.0.2.77"), None, "it refuses");
        for address in ["192.0.2.1", "2001:db8::1", "203.0.113.77", "127.0.0.9"] {
            assert!(routes.route_to(ip(address)).unwrap().unwrap().local, "{address}");
        }
    });
}

#[test]
fn listeners_are_those_of_the_namespace() {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    in_namespace(move || {
        assert_eq!(listeners().unwrap(), []);
        let sockets = ["192.0.2.1:20003", "[2001:db8::1]:20004"].map(|at| TcpListener::bind(at).unwrap());
        let found: Vec<_> = listeners().unwrap().into_iter().map(|listener| listener.addr).collect();
        assert_eq!(found, sockets.map(|socket| socket.local_addr().unwrap()));
        assert!(!found.contains(&outside));
    });
}

/// Time that is longer than any burst on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time without a notification after which no more are expected.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn changes_of_links_addresses_routes_and_rules_are_heard() {
    in_namespace(|| {
        runtime().block_on(async {
            let mut changes = route_monitor::follow();
            hear_all(&mut changes).await;
            for (commands, links, addresses, routes, rules) in [
                ("link add br7 type bridge", true, false, false, false),
                ("link set br7 name br8", true, false, false, false),
                ("address add 10.7.0.1/24 dev gw0", false, true, false, false),
                ("address del 10.7.0.1/24 dev gw0", false, true, false, false),
                ("address add fd00:7::1/64 dev gw0 nodad", false, true, false, false),
                ("route add local 10.8.0.0/24 dev lo", false, true, false, false),
                ("route add 10.9.9.0/24 via 192.0.2.254", false, false, true, false),
                ("-6 route add fd00:9::/64 via 2001:db8::fe", false, false, true, false),
                ("rule add iif gw0 table 77", false, false, false, true),
                ("-6 rule del pref 32766", false, false, false, true),
                ("link del br8", true, false, false, false),
            ] {
                run_ip(commands);
                let change = hear(&mut changes).await;
                let asked = [
                    (links, change.links),
                    (addresses, change.addresses),
                    (routes, change.routes),
                    (rules, change.rules),
                ];
                // Others come along: an address has a route to its network.
                assert!(
                    asked.iter().all(|(asked, change)| change >= asked),
                    "{commands}: {change:?}"
                );
                assert!(
                    !change.lost && change.rules == rules && change.links == links,
                    "{commands}: {change:?}"
                );
            }
        });
    });
}

#[test]
fn more_than_the_socket_holds_is_anything() {
    in_namespace(|| {
        runtime().block_on(async {
            let mut changes = route_monitor::follow();
            hear_all(&mut changes).await;
            // The task does not run meanwhile.
            let line = |n| format!("route add 10.10.{}.{}/32 via 192.0.2.254", n / 250, n % 250);
            let lines: Vec<String> = (0..2000).map(line).collect();
            let mut batch = Command::new("ip");
            let mut batch = batch.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            batch
                .stdin
                .take()
                .unwrap()
                .write_all(lines.join("\n").as_bytes())
                .unwrap();
            assert!(batch.wait().unwrap().success());
            assert_eq!(hear(&mut changes).await, Notification::LOST);
            // It goes on.
            run_ip("link add br7 type bridge");
            let change = hear(&mut changes).await;
            assert!(change.links && !change.lost, "{change:?}");
        });
    });
}

/// Puts together what is told until it is quiet.
async fn hear_all(changes: &mut Receiver<Notification>) -> Notification {
    let mut all = Notification::default();
    while let Ok(told) = timeout(QUIET, changes.recv()).await {
        all.add(told.expect("it goes on"));
    }
    all
}

/// Puts together what is told from the first notification until it is quiet.
async fn hear(changes: &mut Receiver<Notification>) -> Notification {
    let received = timeout(PATIENCE, changes.recv()).await.expect("a notification");
    let mut all = received.expect("it goes on");
    all.add(hear_all(changes).await);
    all
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn run_ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: it needs root"
    );
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace (it needs CAP_SYS_ADMIN)");
        for arguments in TOPOLOGY {
            let family: &[&str] = if arguments.contains("2001:") { &["-6"] } else { &[] };
            let status = Command::new("ip")
                .args(family)
                .args(arguments.split(' '))
                .status()
                .unwrap();
            assert!(status.success(), "ip {arguments}");
        }
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
