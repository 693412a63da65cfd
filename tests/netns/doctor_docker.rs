//! Docker's own firewall, as its engines write it: `doctor` finds what keeps clients from services, and the line that it
//! proposes lets them through. The link `far` stands for a second network of Docker, `br0` for the first.

use serde_json::json;

use crate::doctor::{PORT, SHORT, breaks, breaks_and_heals, doctor, line, passes, reaches, web};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::{Behaviour, Server};

const DROPPED: &str = "packets-dropped";
/// Port of the service whose backend is in the other network.
const OTHER: u16 = PORT + 1;

/// Returns `web` in the first network and another service in the second one, and their servers.
fn two_networks(net: &Net) -> Vec<Server> {
    let servers = ["b1", "b2", "routed"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.apply(state([
        service("web", PORT, &["b1", "b2"], 3000, json!({})),
        service("other", OTHER, &["routed"], 3000, json!({})),
    ]));
    servers.into()
}

/// Returns whether a container of the second network reaches the service of the first one through the public address.
fn crosses(net: &Net, from: &str, family: usize, port: u16) -> bool {
    let to = at(PUBLIC[family], port);
    let ask = || connect(to, SHORT).and_then(|mut conn| conn.greeting()).is_ok();
    net.within(from, ask)
}

/// Rules of engine 20.10 for two networks, on a machine that forwarded before Docker came: the policy is left alone.
const ENGINE_20: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br0 -j DOCKER
-A FORWARD -i br0 ! -o br0 -j ACCEPT
-A FORWARD -i br0 -o br0 -j ACCEPT
-A FORWARD -o far -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o far -j DOCKER
-A FORWARD -i far ! -o far -j ACCEPT
-A FORWARD -i far -o far -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i far ! -o far -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o br0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -o far -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";

/// Rules of engine 28 and later for two networks: what is not published is dropped, whatever the policy. A container of the second
/// network has the port 8080 published.
const ENGINE_28: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 198.51.100.20/32 ! -i far -o far -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i br0 -o br0 -j DROP
-A DOCKER ! -i far -o far -j DROP
-A DOCKER-BRIDGE -o br0 -j DOCKER
-A DOCKER-BRIDGE -o far -j DOCKER
-A DOCKER-CT -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o far -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i br0 -j ACCEPT
-A DOCKER-FORWARD -i far -j ACCEPT
COMMIT
";

/// Rules of engine 28 for IPv6: as those for IPv4.
fn engine_28_ipv6() -> String {
    ENGINE_28.replace("198.51.100.20/32", "2001:db8:3::20/128")
}

fn load(net: &Net, program: &str, rules: &str) -> String {
    let file = net.file("docker.rules");
    std::fs::write(&file, rules).expect("a file can be written");
    format!("{program}-restore {}", file.to_string_lossy())
}

/// Docker's isolation drops what a container sends to the public address of a service in another network, also where it lets clients
/// from outside through.
#[test]
fn isolation_between_networks_is_found_where_it_meets_clients_of_services() {
    let net = Net::new();
    let _servers = two_networks(&net);
    for program in ["iptables-nft", "iptables-legacy"] {
        assert!(crosses(&net, "routed", 0, PORT) && crosses(&net, "b1", 0, OTHER));
        net.sh("gateway", &load(&net, program, ENGINE_20)).ok();
        passes(&net, 0);
        assert!(!crosses(&net, "routed", 0, PORT) && !crosses(&net, "b1", 0, OTHER));
        // It is found whether such a client was served before or not.
        net.sh("gateway", "conntrack -F 2>&1").ok();
        let said = doctor(&net);
        assert_eq!((said.status, said.bad().len()), (0, 1), "{:#}", said.json);
        let found = said.one(DROPPED, "warning");
        let text = found.to_string();
        for part in [
            "chain DOCKER-ISOLATION-STAGE-2",
            "clients that come by",
            "br0",
            "far",
            "from one of its networks to another",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let line = line(found);
        assert!(line.contains(&format!("{program} -I DOCKER-USER ")), "{line}");
        net.sh("gateway", &line).ok();
        assert!(crosses(&net, "routed", 0, PORT) && crosses(&net, "b1", 0, OTHER));
        let said = doctor(&net);
        assert!(said.bad().is_empty(), "{:#}", said.json);
        // Containers do not reach each other past the services, as before.
        let direct = || connect(at(&addresses("b1")[0].to_string(), 3000), SHORT).is_ok();
        assert!(!net.within("routed", direct));
        net.sh(
            "gateway",
            &format!("{program} -P FORWARD ACCEPT && {program} -F && {program} -X"),
        )
        .ok();
    }
}

#[test]
fn engines_that_drop_what_is_not_published_are_found_in_both_kinds_and_families() {
    let net = Net::new();
    let _servers = two_networks(&net);
    for (family, program, rules) in [
        (0, "iptables-nft", ENGINE_28),
        (1, "ip6tables-nft", &engine_28_ipv6()),
        (0, "iptables-legacy", ENGINE_28),
        (1, "ip6tables-legacy", &engine_28_ipv6()),
    ] {
        breaks_and_heals(&net, family, DROPPED, &load(&net, program, rules));
        assert!(crosses(&net, "routed", family, PORT) && crosses(&net, "b1", family, OTHER));
        let user = net.sh("gateway", &format!("{program} -S DOCKER-USER")).ok();
        assert!(user.contains("connmark"), "{user}");
        net.sh("gateway", &format!("{program} -F && {program} -X")).ok();
    }
}

/// Without communication between containers (`icc=false`) those of one network do not reach each other by a service, either, whether
/// the bridge asks the rules or not.
#[test]
fn containers_that_may_not_talk_to_each_other_are_clients_of_services() {
    let net = Net::new();
    let _servers = two_networks(&net);
    let rules = ENGINE_20.replace("-A FORWARD -i br0 -o br0 -j ACCEPT", "-A FORWARD -i br0 -o br0 -j DROP");
    let asks = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    for filtering in ["0", "1"] {
        let is_set = net.sh("gateway", &format!("echo {filtering} > {asks}")).status == 0;
        if !is_set && filtering == "1" {
            println!("this kernel has no br_netfilter: nothing more to test");
            break;
        }
        // b3 is no backend, so that the bridge sends nothing back by the port that it came in by.
        assert!(crosses(&net, "b3", 0, PORT));
        net.sh("gateway", &load(&net, "iptables-nft", &rules)).ok();
        assert!(!crosses(&net, "b3", 0, PORT));
        let said = doctor(&net);
        net.sh("gateway", &line(said.one(DROPPED, "warning"))).ok();
        assert!(crosses(&net, "b3", 0, PORT));
        let said = doctor(&net);
        assert!(said.findings(DROPPED).is_empty(), "{:#}", said.json);
        net.sh("gateway", "iptables-nft -F && iptables-nft -X").ok();
    }
}

/// The tables of Docker's nftables backend (engine 29) for one network, for both families. `accepts` is what the option
/// `bridge-accept-fwmark` adds.
fn docker_bridges(accepts: &str) -> String {
    let table = |family: &str, loopback: &str, container: &str| {
        format!(
            "table {family} docker-bridges
delete table {family} docker-bridges
table {family} docker-bridges {{
    map filter-forward-in-jumps {{ type ifname : verdict; elements = {{ \"br0\" : jump filter-forward-in__br0 }}; }}
    map filter-forward-out-jumps {{ type ifname : verdict; elements = {{ \"br0\" : jump filter-forward-out__br0 }}; }}
    map nat-postrouting-in-jumps {{ type ifname : verdict; elements = {{ \"br0\" : jump nat-postrouting-in__br0 }}; }}
    map nat-postrouting-out-jumps {{ type ifname : verdict; elements = {{ \"br0\" : jump nat-postrouting-out__br0 }}; }}
    chain filter-FORWARD {{
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
        iifname vmap @filter-forward-out-jumps
    }}
    chain nat-OUTPUT {{
        type nat hook output priority -100; policy accept;
        {family} daddr != {loopback} fib daddr type local counter jump nat-prerouting-and-output
    }}
    chain nat-POSTROUTING {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname vmap @nat-postrouting-out-jumps
        oifname vmap @nat-postrouting-in-jumps
    }}
    chain nat-PREROUTING {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump nat-prerouting-and-output
    }}
    chain nat-prerouting-and-output {{
        iifname != \"br0\" tcp dport 8080 counter dnat to {container}:80 comment \"DNAT\"
    }}
    chain raw-PREROUTING {{
        type filter hook prerouting priority raw; policy accept;
        {family} daddr {container} iifname != \"br0\" counter drop comment \"DROP DIRECT ACCESS\"
    }}
    chain filter-forward-in__br0 {{
        ct state established,related counter accept
        {accepts}
        iifname \"br0\" counter accept comment \"ICC\"
        {family} daddr {container} tcp dport 80 counter accept
        counter drop comment \"UNPUBLISHED PORT DROP\"
    }}
    chain filter-forward-out__br0 {{
        ct state established,related counter accept
        counter accept comment \"OUTGOING\"
    }}
    chain nat-postrouting-in__br0 {{ }}
    chain nat-postrouting-out__br0 {{
        oifname != \"br0\" {family} saddr {container} counter masquerade comment \"MASQUERADE\"
    }}
}}
"
        )
    };
    let [container, container6] = addresses("b3");
    let six = table("ip6", "::1", &format!("[{container6}]"));
    let six = six.replace(&format!("addr [{container6}]"), &format!("addr {container6}"));
    format!("{}{six}", table("ip", "127.0.0.0/8", &container.to_string()))
}

/// Docker's tables of nftables drop what another table accepts, and are Docker's alone: only a mark that Docker was told to accept
/// helps, and the line gives it to the flows of services.
#[test]
fn the_nftables_backend_accepts_marked_packets_when_it_is_told_to() {
    let net = Net::new();
    let _servers = web(&net);
    let published = net.serve("b3", 80, Behaviour::Greet);
    let start = |accepts: &str| net.nft("gateway", &docker_bridges(accepts));
    let is_published = || {
        let ask = || connect(at(PUBLIC[0], 8080), PATIENCE).and_then(|mut conn| conn.greeting());
        net.within("client", ask).is_ok_and(|greeting| greeting.backend == "b3")
    };
    start("");
    breaks(&net, 0);
    breaks(&net, 1);
    // Accepted in a table of its own, a packet still meets Docker's.
    net.nft(
        "gateway",
        "table inet mine { chain c { type filter hook forward priority -1; ct mark and 0x00800000 == 0x00800000 accept; }; }",
    );
    breaks(&net, 0);
    net.nft("gateway", "delete table inet mine");
    let said = doctor(&net);
    assert_eq!(said.status, 1);
    let found = said.one(DROPPED, "broken");
    let (text, fix) = (found.to_string(), found["fix"]["advice"].as_str().expect("advice"));
    assert!(
        text.contains("chain filter-forward-in__br0") && text.contains("This one is Docker's"),
        "{text}"
    );
    let option = "\"bridge-accept-fwmark\": \"0x00800000/0x00800000\"";
    assert!(fix.contains(option), "{fix}");
    // Docker is started with this option; then the line is one that can be typed.
    start("meta mark & 0x00800000 == 0x00800000 counter accept comment \"ALLOW FW MARK\"");
    breaks(&net, 0);
    let said = doctor(&net);
    let typed = line(said.one(DROPPED, "broken"));
    assert!(fix.contains(&typed), "{fix}\n{typed}");
    net.sh("gateway", &typed).ok();
    for family in [0, 1] {
        passes(&net, family);
    }
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
    // A mark of somebody else's choice, where Docker accepts that; with the rest of the mark as it was.
    net.nft("gateway", "delete table inet docker-user");
    start("meta mark & 0x00000003 == 0x00000002 counter accept comment \"ALLOW FW MARK\"");
    breaks(&net, 0);
    net.sh("gateway", &line(doctor(&net).one(DROPPED, "broken"))).ok();
    assert!(reaches(&net, 0, PATIENCE) && reaches(&net, 1, PATIENCE));
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
    assert!(is_published() && published.accepted() > 0);
}

/// A container's published port of the same number is Docker's: the finding says so, and how to find the container.
#[test]
fn a_published_port_of_the_same_number_is_docker_s() {
    let net = Net::new();
    let _servers = web(&net);
    let [container, _] = addresses("b3");
    let rules = docker_bridges("").replace("dport 8080", &format!("dport {PORT}"));
    let published = format!(
        "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; \
         iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport {PORT} -j DNAT --to-destination {container}:80"
    );
    let file = net.file("published.nft");
    std::fs::write(&file, rules).expect("a file can be written");
    let file = file.to_string_lossy();
    for (publish, withdraw) in [
        (published, "iptables-nft -t nat -F".to_owned()),
        (
            format!("nft -f {file}"),
            "nft delete table ip docker-bridges; nft delete table ip6 docker-bridges".to_owned(),
        ),
    ] {
        net.sh("gateway", &publish).ok();
        let said = doctor(&net);
        let found = said.one("port-translated-elsewhere", "broken").to_string();
        assert!(found.contains("Docker publishes them"), "{found}");
        assert!(
            found.contains(&format!("`docker ps --filter publish={PORT}` names the container")),
            "{found}"
        );
        net.sh("gateway", &withdraw).ok();
        assert!(doctor(&net).findings("port-translated-elsewhere").is_empty());
        passes(&net, 0);
    }
}
