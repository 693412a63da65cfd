//! What is read about addresses, links, routes and listeners, in a network namespace of its own. Needs root.

use std::{
    net::{IpAddr, TcpListener},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, unshare};
use tcpgw::kernel::{
    listeners::listeners,
    route::{Link, RouteTo, Routes},
};

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
];

#[test]
fn addresses_links_and_routes_are_those_of_the_namespace() {
    in_namespace(|| {
        let mut routes = Routes::open().unwrap();
        let own = routes.local_addresses().unwrap();
        for address in ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "198.51.100.5"] {
            assert!(own.contains(&ip(address)), "{address} is missing: {own:?}");
        }
        assert!(
            !own.contains(&ip("203.0.113.0")) && !own.contains(&ip("192.0.2.255")),
            "{own:?}"
        );

        let links = routes.links().unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let index = link("gw0").index;
        let gw0 = Link {
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
