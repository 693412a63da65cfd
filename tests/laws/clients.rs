//! Clients of those states, and the addresses that they connect to.

use std::net::{IpAddr, SocketAddr};

use tcpgw_kernel::fake::Syn;

use crate::states::{ENDPOINTS, FIRST_PORT, PORTS, endpoint_text};

/// Local addresses; no service is on the last of each family alone.
const LOCALS: [&str; 5] = ["192.0.2.1", "192.0.2.2", "192.0.2.9", "2001:db8::1", "2001:db8::9"];
const CLIENTS: [&str; 4] = ["198.51.100.7", "203.0.113.7", "2001:db8:5::7", "2001:db8:6::7"];

/// Returns SYNs of every client to every address and port.
pub(crate) fn syns() -> Vec<Syn> {
    let mut syns = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + PORTS {
        for local in LOCALS.map(address) {
            for client in CLIENTS.map(address).iter().filter(|c| c.is_ipv4() == local.is_ipv4()) {
                syns.push(Syn {
                    client: SocketAddr::new(*client, 40000),
                    public: SocketAddr::new(local, port),
                });
            }
        }
    }
    syns
}

/// Returns the endpoints that states are made of, and one that is in none.
pub(crate) fn endpoints() -> Vec<SocketAddr> {
    (0..=ENDPOINTS).map(|at| endpoint_text(at).parse().unwrap()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
