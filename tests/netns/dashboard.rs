//! The dashboard of a daemon that serves real traffic: each page shows what the gateway does, and text of others stays text.

mod browser;

use std::thread;

use serde_json::{Value, json};

use crate::addon::platform;
use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::metrics::{SHOWN, get, listens, loopback};

const HOSTILE: &str = "</td><script>window.acted = 1</script><img src=x onerror='window.acted = 2'>";

/// Returns a page, as it is after a new reading.
#[track_caller]
fn page(net: &Net, path: &str) -> String {
    thread::sleep(SHOWN);
    let answer = get(net, loopback(), path, "").expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    for header in ["content-type: text/html", "content-security-policy: default-src 'none'"] {
        assert!(answer.head.contains(header), "{path}: {}", answer.head);
    }
    for bad in ["<script>", "<img", "http:", "https:"] {
        assert!(!answer.body.contains(bad), "{path}: {bad}: {}", answer.body);
    }
    answer.body
}

#[track_caller]
fn shows(page: &str, expected: &[&str]) {
    for expected in expected {
        assert!(page.contains(expected), "no {expected:?}: {page}");
    }
}

#[test]
fn the_dashboard_shows_what_the_gateway_does() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let web = format!("[web]\nlisten = \"{}\"\n[daemon]\ncount_traffic = true\n", loopback());
    let config = platform::configure(&net, "20000-20009", &web);
    let daemon = net.daemon_without_state(&["--config", &config]);
    listens(&net);
    let more = json!({"limit": {"pps": 1000}, "drain_timeout": "1h", "labels": {"team": HOSTILE}});
    daemon
        .post(
            "/v1/apply?prune=true",
            state([
                service("shop", 2001, &["b1"], 3000, more),
                service("down", 2002, &["b3"], 3999, json!({})),
            ]),
        )
        .ok();
    daemon.settles(2);
    let down = || page(&net, "/services?state=down").contains("href=\"/services/down\"");
    assert!(wait_until(PATIENCE * 2, down));
    let mut held = Vec::new();
    for public in PUBLIC {
        for _ in 0..3 {
            let mut conn = net.connect("client", at(public, 2001)).expect("a connection");
            conn.greeting().expect("a greeting");
            held.push(conn);
        }
    }
    let overview = page(&net, "/");
    shows(
        &overview,
        &[
            "class=\"state up\">in sync<",
            "[no_healthy_backend]",
            "<a href=\"/services/down\">",
            "2 services",
            "4 backends",
            "Conntrack entries",
            "New connections",
            "To backends",
        ],
    );
    let table = page(&net, "/services?q=shop&sort=flows");
    shows(
        &table,
        &[
            "1 service of 2",
            "class=\"state up\"",
            ">2 of 2<",
            ">6<",
            "class=\"meter below\"",
        ],
    );
    assert!(!table.contains("/services/down"), "{table}");
    let shop = page(&net, "/services/shop");
    let backends = endpoints("b1", 3000);
    let client = format!("{}", held[0].local());
    shows(
        &shop,
        &[
            "<h1>Service shop</h1>",
            &backends[0],
            &backends[1],
            &client,
            "6 in conntrack",
            "ESTABLISHED",
            "Each backend may receive and send 1,000 packets",
            "&lt;/td&gt;&lt;script&gt;window.acted = 1",
            "added",
            "<td data-label=\"Event\">",
        ],
    );

    let deploy = deploy_is_shown(&net, &backends);
    drop(held);
    let is_over = || page(&net, &deploy).contains("The old backends have left.");
    assert!(wait_until(PATIENCE * 3, is_over));
    app_is_shown(&net);
    shows(&page(&net, "/doctor"), &["<h1>Doctor</h1>", "no-healthy-backend"]);
    bad_addresses_are_refused(&net);
    assert!(!daemon.logged().contains("panicked"), "{}", daemon.logged());
}

/// Switches `shop` to other backends, and returns the path of the deploy's page, while the old backends drain.
#[track_caller]
fn deploy_is_shown(net: &Net, backends: &[String; 2]) -> String {
    let targets = endpoints("b2", 3000);
    let deploy = [
        "deploy",
        "shop",
        "--target",
        &targets[0],
        "--target",
        &targets[1],
        "--until",
        "switched",
    ];
    let id = net.told(&deploy)["id"].as_u64().expect("an id");
    let path = format!("/deploys/{id}");
    shows(
        &page(net, &path),
        &[
            "<li aria-current=\"step\"><strong>switched</strong>",
            &targets[0],
            &backends[1],
            "0 of 2 have drained",
            "class=\"state leaving\">draining<",
        ],
    );
    let shop = page(net, "/services/shop");
    let link = format!("href=\"{path}\"");
    shows(
        &shop,
        &[
            &link,
            "is under way: switched",
            "Backends that drain",
            "ends in at most 5",
        ],
    );
    path
}

#[track_caller]
fn app_is_shown(net: &Net) {
    let made: Value = net.told(&["addon", "provision", "my-app", "--plan", "small"]);
    let app = made["resource"]["id"].as_str().expect("an id");
    shows(
        &page(net, &format!("/apps/{app}")),
        &[
            "<h1>App my-app</h1>",
            "TCP_URL=tcp://gateway.example.com:20000",
            ">waiting<",
        ],
    );
}

#[track_caller]
fn bad_addresses_are_refused(net: &Net) {
    for (path, status) in [
        ("/services/nobody", 404),
        ("/services/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/deploys/4711", 404),
        ("/apps/aaaaaaaaaaaa", 404),
        ("/services?sort=colour", 400),
        ("/services?page=0", 400),
        ("/services?page=9", 404),
    ] {
        let answer = get(net, loopback(), path, "").expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(!answer.body.contains("<script>"), "{path}: {}", answer.body);
    }
}
