//! Tests of probes that take another route than packets of clients.

use super::*;
use tcpgw_kernel::route::RouteEntry;

fn misrouted(backend: &str, network: &str, table: u32) -> MisroutedProbe {
    MisroutedProbe {
        backend: ip(backend),
        source: None,
        way: None,
        clients: way(3).unwrap(),
        entry: Some(RouteEntry {
            network: network.parse().unwrap(),
            table,
        }),
    }
}

fn found(probes: Vec<MisroutedProbe>) -> Finding {
    only(
        &with(|facts| facts.cheap.misrouted_probes = Ok(probes)),
        "probes-misrouted",
        FindingSeverity::Warning,
    )
}

#[test]
fn each_network_is_mended_by_one_line() {
    let one = found(vec![misrouted("10.2.0.11", "10.2.0.0/24", 99)]);
    assert_eq!(line(&one), "ip rule add iif lo to 10.2.0.0/24 lookup 99");
    assert_eq!(
        one.seen,
        "probes to 1 address of backends do not go the way of clients' packets, and fail: 10.2.0.11 (to 10.2.0.11 clients' packets leave by \
         br0, and probes have no route, or one that refuses)"
    );
    let several = found(vec![
        misrouted("10.2.0.11", "10.2.0.0/24", 99),
        misrouted("10.2.0.12", "10.2.0.0/24", 99),
        misrouted("fd00:2::11", "fd00:2::/64", 254),
    ]);
    assert_eq!(
        line(&several),
        "ip -6 rule add iif lo to fd00:2::/64 lookup main; ip rule add iif lo to 10.2.0.0/24 lookup 99"
    );
    assert!(several.seen.contains("3 addresses of backends"), "{}", several.seen);
}

#[test]
fn a_way_by_another_router_is_described_and_a_table_that_is_not_known_is_asked_for() {
    let probe = MisroutedProbe {
        source: Some(ip("10.2.0.1")),
        way: way(2).map(|way| RouteTo {
            gateway: Some(ip("203.0.113.254")),
            ..way
        }),
        entry: None,
        ..misrouted("10.2.0.11", "10.2.0.0/24", 99)
    };
    let found = found(vec![probe]);
    assert!(
        found.seen.starts_with("probes from 10.2.0.1 to 1 address")
            && found.seen.ends_with("and probes by ext to the router 203.0.113.254)"),
        "{}",
        found.seen
    );
    let Some(Fix::Advice(words)) = &found.fix else {
        panic!("{found:?}")
    };
    assert!(
        words.contains("`ip rule add iif lo to 10.2.0.11 lookup TABLE`"),
        "{words}"
    );
}
