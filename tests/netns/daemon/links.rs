//! Links that change while the daemon runs.

use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const SAME_LINK: &str = "nft list set inet tcpgw same_link";

/// A client beside its backend is masqueraded, though the service preserves addresses: else the answer would not come back
/// by the gateway.
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
