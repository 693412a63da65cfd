//! Recorded answers of a real kernel, read again without the kernel, give the same result.
//!
//! `TCPGW_SEEDS=DIRECTORY` writes the answers there, in small pieces: what fuzzing begins with (`scripts/fuzz`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tcpgw_core::model::{self, FlowMark};
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::ObservedTable;
use tcpgw_kernel::conntrack::{self, Flow};
use tcpgw_kernel::firewall;
use tcpgw_kernel::linux;
use tcpgw_kernel::netlink::exchange::NetlinkExchange;
use tcpgw_kernel::netlink::recorded::{RecordedAnswers, Recorder};
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::netlink::tlv::{Attrs, Header, Messages, NetfilterHeader, Writer};
use tcpgw_kernel::nftables::{elements, table};
use tcpgw_kernel::route::Routes;

use crate::harness::Net;
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::Behaviour;
use crate::harness::wait_until;
use tcpgw_kernel::netlink::error::NetlinkError;

const SAMPLE: &str = include_str!("../fuzz/sample.json");

#[test]
fn answers_mean_the_same_when_they_are_read_again() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(SAMPLE);
    let mut conns = Vec::new();
    for address in PUBLIC {
        conns.push(net.connect("client", at(address, 2001)).expect("a connection"));
    }
    net.run("client", &["ping", "-c", "1", PUBLIC[0]]).ok();
    net.within("gateway", || {
        tables();
        counters();
        flows();
        routes();
        refusals();
    });
    notifications(&net);
    firewalls(&net);
}

fn netfilter() -> Recorder<Netlink> {
    Recorder::new(Netlink::netfilter().expect("a socket"))
}

fn tables() {
    let mark = FlowMark::default();
    let mut kernel = netfilter();
    let generation = table::generation(&mut kernel).expect("an answer");
    let answers = kernel.take();
    assert_eq!(
        table::generation(&mut RecordedAnswers::new(&answers)).expect("the same"),
        generation
    );
    keep("table", "generation", &answers);

    let live = linux::read(&mut kernel, mark).expect("an answer");
    let answers = kernel.take();
    let mut recorded = RecordedAnswers::new(&answers);
    assert_eq!(linux::read(&mut recorded, mark).expect("the same"), live);
    assert!(recorded.rest().is_empty());
    let ObservedTable::Ours { ruleset, .. } = live else {
        panic!("{live:?}")
    };
    let state = model::parse(SAMPLE.as_bytes()).expect("a state");
    assert_eq!(
        ruleset,
        compile(
            &state,
            &Routes::open().expect("a socket").own_links().expect("an answer")
        )
    );
    for (name, piece) in pieces(&answers) {
        keep("table", &name, &piece);
    }
}

fn counters() {
    let mut kernel = netfilter();
    for set in SetName::fixed().into_iter().filter(|set| set.is_counter()) {
        let live = elements::counted(&mut kernel, set).expect("an answer");
        let answers = kernel.take();
        assert_eq!(
            elements::counted(&mut RecordedAnswers::new(&answers), set).expect("the same"),
            live
        );
        keep("table", &format!("counted-{set}"), &answers);
    }
}

fn flows() {
    let list = |from: &mut dyn FnMut(&mut Vec<Flow>)| {
        let mut flows = Vec::new();
        from(&mut flows);
        flows
    };
    let mut kernel = netfilter();
    let take = |from: &mut Recorder<Netlink>, flows: &mut Vec<Flow>| {
        conntrack::list(from, FlowMark::default(), None, |flow| {
            flows.push(flow.clone());
            Ok(())
        })
    };
    let live = list(&mut |flows| take(&mut kernel, flows).expect("an answer"));
    let answers = kernel.take();
    let again = list(&mut |flows| {
        let each = |flow: &Flow| {
            flows.push(flow.clone());
            Ok(())
        };
        conntrack::list(&mut RecordedAnswers::new(&answers), FlowMark::default(), None, each).expect("the same");
    });
    assert_eq!(again, live);
    assert!(live.len() >= 2, "{live:?}");
    keep("conntrack", "ours", &answers);
    // Flows of any program and any protocol.
    let all = |writer: &mut Writer, seq| {
        let header = Header {
            kind: 0x101,
            flags: 0x301,
            seq,
        };
        writer.message(header, NetfilterHeader::default(), |_| {});
    };
    kernel.dump("list all flows", all, |_| Ok(())).expect("an answer");
    keep("conntrack", "all", &kernel.take());
}

fn routes() {
    let mut kernel = Routes(Recorder::new(Netlink::route().expect("a socket")));
    let links = kernel.links().expect("an answer");
    let answers = kernel.0.take();
    assert_eq!(Routes(RecordedAnswers::new(&answers)).links().expect("the same"), links);
    keep("route", "links", &answers);
    let own = kernel.local_addresses().expect("an answer");
    let answers = kernel.0.take();
    assert_eq!(
        Routes(RecordedAnswers::new(&answers))
            .local_addresses()
            .expect("the same"),
        own
    );
    keep("route", "addresses", &answers);
    let links = kernel.own_links().expect("an answer");
    let answers = kernel.0.take();
    assert_eq!(
        Routes(RecordedAnswers::new(&answers)).own_links().expect("the same"),
        links
    );
    keep("route", "own-links", &answers);
    for host in ["b1", "client", "gateway"] {
        for address in addresses(host) {
            let to = kernel.route_to(address).expect("an answer");
            let answers = kernel.0.take();
            assert_eq!(
                Routes(RecordedAnswers::new(&answers))
                    .route_to(address)
                    .expect("the same"),
                to
            );
            let family = if address.is_ipv4() { 4 } else { 6 };
            keep("route", &format!("to-{host}-{family}"), &answers);
        }
    }
}

fn refusals() {
    let mut kernel = netfilter();
    // A table that is not there; an attribute that makes no sense, of which the kernel tells the place.
    for (name, attr, value) in [("absent", 1, &b"nothing\0"[..]), ("odd", 2, &[1])] {
        let ask = |writer: &mut Writer, seq| {
            let header = Header {
                kind: 0xa01,
                flags: 5,
                seq,
            };
            let family = NetfilterHeader {
                family: 1,
                ..NetfilterHeader::default()
            };
            writer.message(header, family, |writer| writer.attr(attr, value));
        };
        let refused = kernel.request("ask", ask, |_| Ok(()));
        assert!(matches!(refused, Err(NetlinkError::Refused { .. })), "{refused:?}");
        let answers = kernel.take();
        let again = RecordedAnswers::new(&answers).request("ask", |_, _| {}, |_| Ok(()));
        assert_eq!(
            again.expect_err("the same").to_string(),
            refused.expect_err("it was").to_string()
        );
        keep("answers", name, &answers);
    }
}

/// Rules of other programs, which together contain each kind of expression that the doctor understands.
const FIREWALLS: [(&str, &str); 6] = [
    (
        "drop",
        "table inet filter { chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname \"ext\" oifname \"br0\" tcp dport { 3000, 4000-4100 } accept; }; }",
    ),
    (
        "jumps",
        "table ip filter { chain users { return; }; chain forward { type filter hook forward priority filter; jump users; ip saddr 203.0.113.0/24 ip daddr != 10.2.0.12 goto users; meta mark and 0xff == 1 drop; counter reject; }; }",
    ),
    (
        "maps",
        "table inet verdicts { map ports { type inet_service : verdict; flags interval; elements = { 22 : accept, 3000-3999 : drop }; }; chain pre { type filter hook prerouting priority raw; tcp dport vmap @ports; iifname vmap { \"ext\" : drop, \"lo\" : accept }; ct state vmap { invalid : drop, new : accept }; }; }",
    ),
    (
        "nat",
        "table ip nat { chain pre { type nat hook prerouting priority dstnat - 1; fib daddr type local tcp dport 2001 dnat to 10.2.0.13:80; }; chain post { type nat hook postrouting priority srcnat; oifname \"ext\" masquerade; }; }",
    ),
    (
        "six",
        "table ip6 filter { set seen { type ipv6_addr; flags interval; elements = { 2001:db8:1::/64 }; }; chain out { type filter hook postrouting priority 0; ip6 saddr @seen tcp flags & (syn|ack) == syn drop; meta l4proto { tcp, udp } notrack; }; }",
    ),
    (
        "frames",
        "table bridge br { chain forward { type filter hook forward priority 0; ether type arp drop; }; }; table netdev in { chain in { type filter hook ingress device eth0 priority 0; drop; }; }",
    ),
];

const IPTABLES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:USERS - [0:0]
-A FORWARD -j USERS
-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -d 10.2.0.11/32 ! -i br0 -o br0 -p tcp -m tcp --dport 3000:3100 -j ACCEPT
-A FORWARD -p tcp -m multiport --dports 80,443 -m mark --mark 0x1/0xff -j ACCEPT
-A USERS -j RETURN
COMMIT
";

fn firewalls(net: &Net) {
    let mut kernel = net.within("peer", netfilter);
    let mut read = |name: &str| {
        // Sets with a name are read by sockets of their own.
        let closed = || Err::<RecordedAnswers<'_>, _>(NetlinkError::Timeout);
        let live = firewall::read(&mut kernel, closed).expect("an answer");
        let answers = kernel.take();
        assert_eq!(
            firewall::read(&mut RecordedAnswers::new(&answers), closed).expect("the same"),
            live
        );
        assert!(!live.0.is_empty() || !live.1.other_families.is_empty(), "{name}");
        keep("firewall", name, &answers);
        net.nft("peer", "flush ruleset");
    };
    for (name, rules) in FIREWALLS {
        net.nft("peer", rules);
        read(name);
    }
    net.run_with("peer", &["iptables-nft-restore"], IPTABLES).ok();
    read("iptables");
    keep("firewall", "save", IPTABLES.as_bytes());
}

fn notifications(net: &Net) {
    let heard = net.within("gateway", || {
        let socket = Netlink::netfilter().expect("a socket");
        socket.join(7).expect("notifications");
        socket
    });
    let mut heard = Recorder::new(heard);
    let sample: serde_json::Value = serde_json::from_str(SAMPLE).expect("JSON");
    let few = serde_json::json!({"version": 1, "services": [sample["services"][2]]});
    net.apply(few);
    let mut collected = Vec::new();
    assert!(wait_until(PATIENCE, || {
        heard.recv().expect("a notification");
        collected.extend(heard.take());
        Messages::new(&collected)
            .map_while(Result::ok)
            .any(|message| message.kind == 0xa0f)
    }));
    for (name, piece) in pieces(&collected) {
        keep("answers", &format!("told-{name}"), &piece);
    }
}

/// Returns the answers by their subject, each piece with an end. A few messages are as good as many.
fn pieces(answers: &[u8]) -> BTreeMap<String, Vec<u8>> {
    const MOST: usize = 6;
    let mut pieces: BTreeMap<String, Vec<(u16, Vec<u8>)>> = BTreeMap::new();
    for message in Messages::new(answers) {
        let message = message.expect("a whole message");
        if message.kind >> 8 != 0xa {
            continue;
        }
        let text = |kind| {
            let attr = Attrs::new(message.payload.get(4..)?).first(kind).ok()??;
            attr.str().ok().map(str::to_owned)
        };
        let about = if message.kind & 0xff == 15 {
            None
        } else {
            text(2).or_else(|| text(1))
        };
        let name = format!("{}-{}", message.kind & 0xff, about.unwrap_or_default());
        let piece = pieces.entry(name.trim_end_matches('-').to_owned()).or_default();
        if piece.len() < MOST {
            piece.push((message.kind, message.payload.to_vec()));
        }
    }
    pieces
        .into_iter()
        .map(|(name, messages)| (name, dump(&messages)))
        .collect()
}

fn dump(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (kind, payload) in messages.iter().chain([&(3, vec![0; 4])]) {
        let header = Header {
            kind: *kind,
            flags: 2,
            seq: 1,
        };
        let open = writer.begin_plain(header);
        writer.raw(payload);
        writer.end(open);
    }
    writer.finish().expect("it was received like that")
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    if let Some(directory) = std::env::var_os("TCPGW_SEEDS") {
        let directory = PathBuf::from(directory).join(target);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(name), bytes).expect("a file");
    }
}
