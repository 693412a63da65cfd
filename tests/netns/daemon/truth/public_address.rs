//! Public addresses that the gateway has lost.

use std::time::Duration;

use serde_json::{Value, json};

use super::{OPTIONS, breaks_and_mends, daemon_of, daemon_with_metrics, is_served, problem};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, PUBLIC_2, at};
use crate::harness::{Net, wait_until};

#[test]
fn a_public_address_that_is_gone_is_told() {
    let net = Net::new();
    let (_servers, daemon) = daemon_with_metrics(&net, json!({"addresses": [PUBLIC_2[0]]}));
    let commands = [
        "ip address del 203.0.113.2/24 dev ext",
        "ip address add 203.0.113.2/24 dev ext",
    ];
    breaks_and_mends(
        &net,
        &daemon,
        at(PUBLIC_2[0], 2001),
        "address_not_local",
        "gateway",
        commands,
    );
}

/// A lost public address is reported when clients used it: a service that listens on all addresses does not name it, but the
/// connections of its clients do.
#[test]
fn one_of_several_public_addresses_that_is_gone_is_told() {
    let net = Net::new();
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
    let remove = "ip address del 203.0.113.2/24 dev ext";
    let add = "ip address add 203.0.113.2/24 dev ext";
    // No service used it.
    net.sh("gateway", remove).ok();
    let to = at(PUBLIC[0], 2001);
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    net.sh("gateway", add).ok();
    let to = at(PUBLIC_2[0], 2001);
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    // The daemon has to have seen it: it looks each second, and less often on a busy machine.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(problem(&net, "address_lost"), None);
    let before = daemon.last();
    net.sh("gateway", remove).ok();
    let lost = || problem(&net, "address_lost");
    assert!(wait_until(PATIENCE * 6, || lost().is_some()));
    let told = lost().expect("it stays");
    assert_eq!(told["severity"], "warning");
    let words = told["message"].as_str().expect("words");
    assert!(words.contains("203.0.113.2 ("), "{words}");
    daemon.hears(before, &json!({"event": "problem", "kind": "address_lost"}));
    net.cli(&["status", "--interval", "0s"]).exits(0);
    let doctor = net.cli(&["doctor"]);
    assert!(doctor.stdout.contains("address-lost"), "{doctor}");
    let before = daemon.last();
    net.sh("gateway", add).ok();
    daemon.hears(before, &json!({"event": "problem_ended", "kind": "address_lost"}));
}

#[test]
fn a_gateway_without_a_public_address_is_told() {
    let net = Net::new();
    let (_servers, daemon) = daemon_with_metrics(&net, json!({"backends": ["10.2.0.11:3000"]}));
    let to = at(PUBLIC[0], 2001);
    net.sh("gateway", "ip address del 198.51.100.1/24 dev far").ok();
    let addresses = [
        "ip -4 address flush dev ext",
        "ip address add 203.0.113.1/24 dev ext && ip route replace default via 203.0.113.10",
    ];
    breaks_and_mends(&net, &daemon, to, "no_public_address", "gateway", addresses);
    let link = [
        "ip link set ext down",
        "ip link set ext up && ip route replace default via 203.0.113.10",
    ];
    breaks_and_mends(&net, &daemon, to, "no_public_address", "gateway", link);
}

/// A container's link is created first and attached to its bridge afterwards: in between it is a link of the gateway without an
/// address, as that of clients may be.
#[test]
fn a_link_that_is_just_being_made_is_no_error() {
    let net = Net::new();
    let clients = "ip link delete ext && ip link delete far";
    net.sh("gateway", clients).ok();
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(problem(&net, "no_public_address"), None);
    let before = daemon.last();
    let add = format!(
        "ip link add made type veth peer name eth1 netns {}",
        net.namespace("client")
    );
    // Longer than the pause before a check, and shorter than that before the second one.
    for _ in 0..8 {
        let made = format!("{add} && sleep 0.35 && ip link set made master br0 up");
        net.sh("gateway", &made).ok();
        std::thread::sleep(Duration::from_millis(1500));
        net.sh("gateway", "ip link delete made").ok();
        std::thread::sleep(Duration::from_millis(1500));
    }
    let of_it = |event: &Value| event["kind"] == "no_public_address";
    let events = daemon.events();
    assert!(!events.iter().any(of_it), "{events:?}");
    // One that stays is an error.
    net.sh("gateway", &add).ok();
    daemon.hears(before, &json!({"event": "problem", "kind": "no_public_address"}));
    net.cli(&["status", "--interval", "0s"]).exits(1);
    net.sh("gateway", "ip link set made master br0 up").ok();
    daemon.hears(before, &json!({"event": "problem_ended", "kind": "no_public_address"}));
}
