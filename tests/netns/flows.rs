//! `tcpgw flows` lists exactly the flows that exist.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{self, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::state::FLOW_MARK;
use crate::harness::views::Held;
use crate::injector::{Injected, inject};

const ACCOUNTING: &str = "net.netfilter.nf_conntrack_acct";
const TIMESTAMPS: &str = "net.netfilter.nf_conntrack_timestamp";

#[test]
fn every_kind_of_client_is_listed_and_nobody_else() {
    let net = Net::new();
    let _servers = [3000, 3001].map(|port| net.serve_all(port, Behaviour::Greet));
    net.nft("gateway", FOREIGN);
    net.apply(state([
        service("web", 8000, &["b1", "b2"], 3000, json!({})),
        service(
            "keep",
            8001,
            &["b2", "b3"],
            3001,
            json!({"source": "preserve", "addresses": PUBLIC}),
        ),
    ]));
    let mut held = Vec::new();
    for host in ["client", "gateway", "b1", "peer", "routed"] {
        for public in PUBLIC {
            for (port, times) in [(8000, 3), (8001, 2)] {
                held.extend((0..times).map(|_| net.hold(host, at(public, port))));
            }
        }
    }
    let foreign = net.hold("client", at(PUBLIC[0], 8080));
    assert_eq!(foreign.greeting.backend, "b1");
    let truth = |wanted: &dyn Fn(&Held) -> bool| -> BTreeSet<String> {
        held.iter().filter(|held| wanted(held)).map(as_it_is).collect()
    };
    let listed = |args: &[&str]| -> BTreeSet<String> { net.flows(args).iter().map(as_told).collect() };
    assert_eq!(held.len(), 50);
    assert_eq!(listed(&[]), truth(&|_| true));

    let port = |port: u16| move |held: &Held| held.public.port() == port;
    for name in ["web", ":8000"] {
        assert_eq!(listed(&["--service", name]), truth(&port(8000)), "{name}");
    }
    let six = at(PUBLIC[1], 8001);
    assert_eq!(listed(&["--service", "keep"]), truth(&port(8001)));
    assert_eq!(
        listed(&["--service", &six.to_string()]),
        truth(&|held| held.public == six)
    );
    for endpoint in crate::harness::state::endpoints("b2", 3000) {
        let wanted = |held: &Held| port(8000)(held) && held.backend(3000) == endpoint;
        assert_eq!(
            listed(&["--backend", &endpoint.to_string()]),
            truth(&wanted),
            "{endpoint}"
        );
    }
    for address in plan::addresses("client") {
        let wanted = |held: &Held| held.client.ip() == address;
        assert_eq!(listed(&["--client", &address.to_string()]), truth(&wanted), "{address}");
    }
    let wanted = |held: &Held| ["b1", "peer"].contains(&held.host) && held.public.is_ipv4() && port(8001)(held);
    assert_eq!(
        listed(&["--client", "10.2.0.0/24", "--service", "keep"]),
        truth(&wanted)
    );
    assert!(listed(&["--client", "192.0.2.0/24"]).is_empty());
    assert!(
        listed(&["--client", "::1", "--backend", "10.2.0.11:3000"]).is_empty(),
        "of two families"
    );
    let nobody = net.tcpgw(&["flows", "--service", "nobody"]).exits(1);
    assert!(
        nobody.stderr.contains("there is no service named \"nobody\""),
        "{nobody}"
    );
    let table = net.tcpgw(&["flows", "--service", "keep"]).ok();
    assert_eq!(table.lines().count(), 1 + truth(&port(8001)).len(), "{table}");
}

/// Returns the expected entry of a flow, from what its client and its backend know.
fn as_it_is(held: &Held) -> String {
    let (name, port) = if held.public.port() == 8000 {
        ("web", 3000)
    } else {
        ("keep", 3001)
    };
    let answer = json!({
        "client": held.client, "public": held.public, "service": name, "backend": held.backend(port),
        "seen_as": held.greeting.seen_as, "verdict": "active", "state": "ESTABLISHED",
    });
    answer.to_string()
}

fn as_told(flow: &Value) -> String {
    let mut flow = flow.as_object().expect("an object").clone();
    assert!(flow["timeout_seconds"].is_u64(), "{flow:?}");
    for key in ["age_seconds", "timeout_seconds", "to_backend", "from_backend"] {
        flow.remove(key).expect("every key is there");
    }
    Value::Object(flow).to_string()
}

#[test]
fn packets_bytes_and_age_are_there_where_conntrack_notes_them() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    net.sysctl(ACCOUNTING, 0);
    net.sysctl(TIMESTAMPS, 0);
    let before = net.hold("client", at(PUBLIC[0], 8000));
    let output = net.tcpgw(&["flows", "-o", "wide"]).exits(0);
    for sysctl in [ACCOUNTING, TIMESTAMPS] {
        assert!(output.stderr.contains(&format!("`sysctl -w {sysctl}=1`")), "{output}");
    }
    assert_eq!(net.tcpgw(&["flows", "-o", "wide", "-q"]).exits(0).stderr, "");
    let output = net.tcpgw(&["flows"]).exits(0);
    assert_eq!(output.stderr, "");
    let titles: Vec<&str> = output
        .stdout
        .lines()
        .next()
        .expect("titles")
        .split_whitespace()
        .collect();
    assert_eq!(titles, ["CLIENT", "SERVICE", "BACKEND", "STATE"], "{output}");
    let listed = net.json(&["flows"], 0);
    assert_eq!(
        listed["hints"],
        json!([
            {"missing": ["packets", "bytes"], "sysctl": format!("{ACCOUNTING}=1")},
            {"missing": ["age"], "sysctl": format!("{TIMESTAMPS}=1")},
        ])
    );
    net.sysctl(ACCOUNTING, 1);
    net.sysctl(TIMESTAMPS, 1);
    let mut after = net.hold("client", at(PUBLIC[1], 8000));
    let bytes = 100_000;
    after.conn.echo(&vec![7; bytes]).expect("an echo");
    assert_eq!(net.json(&["flows"], 0)["hints"], json!([]));
    assert_eq!(net.tcpgw(&["flows"]).exits(0).stderr, "");
    let of = |held: &Held| net.flows(&["--client", &held.client.ip().to_string()]).remove(0);
    let flow = of(&before);
    for key in ["age_seconds", "to_backend", "from_backend"] {
        assert_eq!(flow[key], Value::Null, "it began before: {flow}");
    }
    let flow = of(&after);
    assert!(flow["age_seconds"].as_u64().is_some_and(|age| age < 60), "{flow}");
    for way in ["to_backend", "from_backend"] {
        let (packets, counted) = (flow[way]["packets"].as_u64(), flow[way]["bytes"].as_u64());
        // Three packets at least, and the headers of all of them.
        assert!(packets.is_some_and(|packets| packets > 3), "{flow}");
        // A part of it may be sent again.
        let most = 3 * bytes as u64 / 2 + 200 * packets.unwrap_or_default();
        assert!(
            counted.is_some_and(|counted| (bytes as u64..most).contains(&counted)),
            "{flow}"
        );
    }
}

#[test]
fn flows_of_no_backend_are_shown_as_stale_until_they_are_flushed() {
    let net = Net::new();
    let desired = state([
        service("web", 8000, &["b1"], 3000, json!({})),
        service(
            "drains",
            8001,
            &["b2"],
            3000,
            json!({"backends": [
                {"address": "10.2.0.12", "port": 3000, "state": "draining"}
            ]}),
        ),
    ]);
    net.apply(&desired);
    put(
        &net,
        [
            ("10.2.0.11:3000", 8000),
            ("10.2.0.14:3000", 8000),
            ("10.2.0.12:3000", 8001),
            ("10.2.0.11:3000", 8009),
        ],
    );
    let verdicts = || -> Vec<String> {
        let mut flows = net.flows(&[]);
        flows.sort_by_key(|flow| flow["client"].to_string());
        flows
            .iter()
            .map(|flow| format!("{} {}", flow["service"], flow["verdict"]))
            .collect()
    };
    let expected = [
        "\"web\" \"active\"",
        "\"web\" \"stale\"",
        "\"drains\" \"draining\"",
        "null \"stale\"",
    ];
    assert_eq!(verdicts(), expected);
    assert_eq!(net.flows(&["--service", ":8009"]).len(), 1, "of a service that is gone");
    // After another program's transaction the record no longer holds, but it still has the names.
    net.nft("gateway", "table inet foreign {}");
    assert_eq!(verdicts(), expected);
    net.forget();
    let nameless = [
        "null \"active\"",
        "null \"stale\"",
        "null \"draining\"",
        "null \"stale\"",
    ];
    assert_eq!(verdicts(), nameless, "a draining backend is known without the record");
    let nobody = net.tcpgw(&["flows", "--service", "web"]).exits(1);
    assert!(nobody.stderr.contains("the names of 2 are not known"), "{nobody}");
    assert_eq!(net.flows(&["--service", ":8000"]).len(), 2);
    net.apply(&desired);
    assert_eq!(verdicts(), [expected[0], expected[2]]);
}

#[test]
fn who_reads_a_few_of_many_and_leaves_is_no_error() {
    let net = Net::new();
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    put(&net, vec![("10.2.0.11:3000", 8000); 20_000]);
    for output in ["table", "json"] {
        let line = format!("set -o pipefail; {TCPGW} flows -q -o {output} | head -n 5");
        let ran = net.run("gateway", &["bash", "-c", &line]).exits(0);
        assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (5, ""), "{ran}");
    }
    assert_eq!(net.flows(&[]).len(), 20_000);
    let full = net.sh("gateway", &format!("{TCPGW} flows -q > /dev/full")).exits(1);
    assert!(full.stderr.contains("failed to write to standard output"), "{full}");
}

#[test]
fn looking_needs_a_privilege_and_says_which() {
    let net = Net::new();
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    for args in [&["flows"][..], &["who", "10.2.0.1:4000"], &["status"]] {
        let drop = [
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
            TCPGW,
        ];
        let refused = net.run("gateway", &[&drop, args].concat()).exits(1);
        assert!(refused.stderr.contains("(EPERM) (needs CAP_NET_ADMIN)"), "{refused}");
        assert_eq!(
            (refused.stdout.as_str(), refused.stderr.lines().count()),
            ("", 1),
            "{refused}"
        );
    }
}

/// Puts marked flows of the client's into the gateway's conntrack, from its port 1 on, to these backends and ports.
pub(crate) fn put<'a>(net: &Net, flows: impl IntoIterator<Item = (&'a str, u16)>) {
    let flows: Vec<_> = flows.into_iter().collect();
    let injected = (1_u16..).zip(flows).map(|(client, (backend, port))| Injected {
        client: SocketAddr::new(plan::addresses("client")[0], client),
        public: at(PUBLIC[0], port),
        backend: backend.parse().expect("an endpoint"),
        seen_as: at("10.2.0.1", client),
        mark: FLOW_MARK,
        zone: 0,
        translated: true,
        state: 3,
    });
    let injected: Vec<_> = injected.collect();
    net.within("gateway", || inject(injected));
}

/// Rules that publish a container, as a container engine writes them.
const FOREIGN: &str = "
table inet foreign {
    chain publish {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local tcp dport 8080 dnat ip to 10.2.0.11:3000
    }
    chain source {
        type nat hook postrouting priority srcnat; policy accept;
        meta l4proto tcp ct original proto-dst 8080 ct status dnat masquerade
    }
}";
