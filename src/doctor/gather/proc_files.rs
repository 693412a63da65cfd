//! Settings and counters of the kernel that are read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::super::facts::RoutesByAddress;
use tcpgw_kernel::route::links::LinkDetails;

/// Reads the settings. Links without an address that no route to a backend uses are left out: they are ports of
/// bridges, of which there may be a thousand.
pub(super) fn sysctls(links: &[LinkDetails], backend_routes: Option<&RoutesByAddress>) -> BTreeMap<String, String> {
    const PLAIN: &[&str] = &[
        "net.ipv4.ip_forward",
        "net.ipv4.conf.default.forwarding",
        "net.ipv6.conf.all.forwarding",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.all.arp_ignore",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_count",
        "net.netfilter.nf_conntrack_buckets",
        "net.netfilter.nf_conntrack_acct",
        "net.netfilter.nf_conntrack_timestamp",
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        "net.netfilter.nf_conntrack_tcp_loose",
        "net.netfilter.nf_conntrack_tcp_timeout_established",
    ];
    let mut read = BTreeMap::new();
    let mut add = |name: String, path: String| {
        if let Ok(value) = fs::read_to_string(path) {
            read.insert(name, value.trim().to_owned());
        }
    };
    for name in PLAIN {
        add((*name).to_owned(), format!("/proc/sys/{}", name.replace('.', "/")));
    }
    let used: BTreeSet<u32> = backend_routes
        .into_iter()
        .flatten()
        .filter_map(|(_, way)| Some(way.as_ref()?.index))
        .collect();
    let matter = |link: &&LinkDetails| !link.addresses.is_empty() || used.contains(&link.index);
    for link in links.iter().filter(matter) {
        for (family, setting) in [
            ("ipv4", "forwarding"),
            ("ipv4", "rp_filter"),
            ("ipv4", "arp_ignore"),
            ("ipv6", "force_forwarding"),
            ("ipv6", "accept_ra"),
        ] {
            let name = &link.name;
            add(
                format!("net.{family}.conf.{name}.{setting}"),
                format!("/proc/sys/net/{family}/conf/{name}/{setting}"),
            );
        }
    }
    read
}

/// Returns the number of packets that the kernel has dropped because of their reverse path; `None`: it does not tell.
pub(super) fn reverse_path_drops() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "IPReversePathFilter")?.1.parse().ok()
}
