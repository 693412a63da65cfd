//! Reads the conntrack table of the gateway.

use std::net::SocketAddr;

use super::{Net, plan};

/// A TCP entry of conntrack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracked {
    pub(crate) client: SocketAddr,
    /// Address that the client connected to: the public address.
    pub(crate) public: SocketAddr,
    /// Address of the backend, which answers.
    pub(crate) backend: SocketAddr,
    /// Destination of the backend's replies: the client, or the gateway.
    pub(crate) seen_as: SocketAddr,
    pub(crate) state: String,
    /// Seconds until the entry expires.
    pub(crate) timeout: u32,
    pub(crate) unreplied: bool,
    pub(crate) mark: u32,
}

impl Net {
    /// Reads all TCP entries of both families.
    pub(crate) fn conntrack(&self) -> Vec<Tracked> {
        let list = |family| {
            self.run("gateway", &["conntrack", "-L", "-p", "tcp", "-f", family])
                .ok()
        };
        ["ipv4", "ipv6"]
            .map(list)
            .iter()
            .flat_map(|list| list.lines())
            .map(parse)
            .collect()
    }

    /// Reads the TCP entries with this backend.
    pub(crate) fn flows_to(&self, backend: SocketAddr) -> Vec<Tracked> {
        self.conntrack()
            .into_iter()
            .filter(|tracked| tracked.backend == backend)
            .collect()
    }
}

fn parse(line: &str) -> Tracked {
    let values = |key: &str| -> Vec<&str> {
        line.split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .collect()
    };
    let end = |address: &str, port: &str, way: usize| {
        let port = values(port)[way]
            .parse()
            .unwrap_or_else(|_| panic!("no port in {line}"));
        plan::at(values(address)[way], port)
    };
    Tracked {
        client: end("src", "sport", 0),
        public: end("dst", "dport", 0),
        backend: end("src", "sport", 1),
        seen_as: end("dst", "dport", 1),
        state: line.split_whitespace().nth(3).unwrap_or_default().into(),
        timeout: line
            .split_whitespace()
            .nth(2)
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or_else(|| panic!("no timeout in {line}")),
        unreplied: line.contains("[UNREPLIED]"),
        mark: values("mark")
            .first()
            .map_or(0, |mark| mark.parse().expect("a mark is a number")),
    }
}
