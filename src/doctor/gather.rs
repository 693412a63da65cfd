//! Reads what the doctor looks at. Changes nothing, and asks for no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::facts::{Fact, Facts, Firewall, TableFacts, TableState, Ways, WaysOut};
use crate::kernel::conntrack::stats::{Stats, can_filter};
use crate::kernel::firewall::{self, TableFamily};
use crate::kernel::linux::Linux;
use crate::kernel::listeners::{listeners, process_of};
use crate::kernel::route::Routes;
use crate::kernel::socket::{Netlink, NetlinkError};
use crate::kernel::{Kernel, Seen, links, probe};
use crate::model::FlowMark;
use crate::plan::plan;
use crate::record::{Record, Store, boot_id};
use crate::ruleset::name::{Family, SetName};
use crate::ruleset::rows::read_endpoint;
use crate::ruleset::skeleton;
use crate::summary::{ServiceSummary, Summary};

/// Addresses of backends whose ways are looked for; each takes the kernel some microseconds.
const MOST_WAYS: usize = 50_000;
/// Addresses of documentation, which nobody has: the way to them is the way to clients far away.
const FAR: [(Family, IpAddr); 2] = [
    (Family::V4, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    (
        Family::V6,
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    ),
];

/// Looks at the network namespace that this thread is in.
pub fn gather(run_dir: &Path, mark: FlowMark) -> Facts {
    let (table, services) = table_and_services(run_dir, mark);
    let (ways, ways_left_out) = ways(&services);
    let links = fact(links::links());
    let local = fact(Routes::open().and_then(|mut routes| routes.local_addresses()));
    Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| String::new(), |text| text.trim().into()),
        mark,
        table,
        sysctls: sysctls(links.as_deref().unwrap_or_default()),
        ways_out: ways_out(local.as_ref().ok()),
        links,
        local,
        ways,
        ways_left_out,
        neighbours: fact(links::neighbours()),
        learned: fact(links::learned()),
        firewall: fact(Netlink::netfilter().and_then(|mut socket| firewall::read(&mut socket))).map(
            |(chains, unread)| Firewall {
                chains,
                unjudged: unread.other_families,
            },
        ),
        legacy: fact(firewall::legacy(TableFamily::Ip)),
        legacy6: fact(firewall::legacy(TableFamily::Ip6)),
        stats: fact(Netlink::netfilter().and_then(|mut socket| Stats::read(&mut socket))),
        ports_in_use: ports_in_use(mark),
        reused: reused(),
        lacks: fact(Netlink::netfilter().and_then(|mut socket| probe::lacks(&mut socket, mark))),
        conntrack_filter: fact(Netlink::netfilter().and_then(|mut socket| can_filter(&mut socket))),
        listeners: listening(&services),
        services,
        reverse_path_drops: reverse_path_drops(),
    }
}

fn fact<T, E: Display>(read: Result<T, E>) -> Fact<T> {
    read.map_err(|error| error.to_string())
}

fn table_and_services(run_dir: &Path, mark: FlowMark) -> (Fact<TableFacts>, Summary) {
    let mut kernel = match Linux::open() {
        Ok(kernel) => kernel,
        Err(error) => return (Err(error.to_string()), Summary::default()),
    };
    let namespace = kernel.netns_cookie().unwrap_or_default();
    let record = Store::new(run_dir, namespace).load();
    let record = record.filter(|record| record.head.boot == boot_id() && record.head.namespace == namespace);
    match compare(&mut kernel, record.as_ref(), mark) {
        Ok((table, services)) => (Ok(table), services),
        Err(error) => (
            Err(error.to_string()),
            record.map(|record| record.head.summary).unwrap_or_default(),
        ),
    }
}

fn compare(
    kernel: &mut Linux,
    record: Option<&Record>,
    mark: FlowMark,
) -> Result<(TableFacts, Summary), crate::kernel::KernelError> {
    let identity = kernel.identity()?;
    let comment = kernel.comment()?;
    let mark_in_kernel = comment.as_deref().and_then(skeleton::mark_of);
    let facts = |state, owner: Option<u32>| TableFacts {
        state,
        mark: mark_in_kernel,
        owner: owner.map(|port| (port, process_name(port))),
        daemon: None,
    };
    let owner = Netlink::netfilter().and_then(|mut socket| firewall::owner(&mut socket))?;
    if let Some(record) = record.filter(|record| {
        record.head.holds(identity)
            && record.head.program == env!("CARGO_PKG_VERSION")
            && record.head.mark == mark.to_string()
    }) {
        return Ok((facts(TableState::AsWritten, owner), record.head.summary.clone()));
    }
    let guide = record.map(|record| record.head.summary.clone()).unwrap_or_default();
    let read = kernel.observe(mark_in_kernel.unwrap_or(mark))?;
    Ok(match read.table {
        Seen::Absent => {
            let state = if record.is_some() {
                TableState::Gone
            } else {
                TableState::Absent
            };
            // What should be there is what all other checks are about.
            (facts(state, None), guide)
        }
        Seen::Ours { ruleset, .. } => {
            let state = match record {
                Some(record) if plan(&ruleset, &record.ruleset).is_empty() => TableState::AsWritten,
                Some(_) => TableState::Changed,
                None => TableState::Unrecorded,
            };
            (facts(state, owner), Summary::of_kernel(&ruleset, &guide))
        }
        Seen::Other { comment, ruleset, .. } => (
            facts(TableState::Other(comment), owner),
            Summary::of_kernel(&ruleset, &guide),
        ),
    })
}

/// A socket's port id is the process id of the program that made it, unless it has several.
fn process_name(port: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{port}/comm")).ok()?;
    let name = crate::escape::text(String::from_utf8_lossy(&name).trim_end_matches('\n'));
    Some(format!("{name} ({port})"))
}

fn sysctls(links: &[links::Link]) -> BTreeMap<String, String> {
    const PLAIN: &[&str] = &[
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        "net.ipv4.conf.all.rp_filter",
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
    for link in links {
        for (family, setting) in [("ipv4", "rp_filter"), ("ipv6", "accept_ra")] {
            let name = &link.name;
            add(
                format!("net.{family}.conf.{name}.{setting}"),
                format!("/proc/sys/net/{family}/conf/{name}/{setting}"),
            );
        }
    }
    read
}

fn ways(services: &Summary) -> (Fact<Ways>, usize) {
    let addresses: BTreeSet<IpAddr> = services
        .services
        .iter()
        .flat_map(ServiceSummary::backends)
        .map(|backend| backend.ip())
        .collect();
    let left_out = addresses.len().saturating_sub(MOST_WAYS);
    (fact(read_ways(addresses.iter().take(MOST_WAYS))), left_out)
}

fn read_ways<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Result<Ways, NetlinkError> {
    let mut routes = Routes::open()?;
    addresses
        .map(|address| Ok((*address, routes.way_to(*address, None)?)))
        .collect()
}

fn ways_out(local: Option<&BTreeSet<IpAddr>>) -> Fact<WaysOut> {
    let mut routes = Routes::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (family, far) in FAR {
        let own = local.into_iter().flatten().copied();
        // Only IPv4 has a reverse path filter.
        let own = own.filter(|address| family == Family::V4 && address.is_ipv4() && !address.is_loopback());
        for from in own.map(Some).chain([None]) {
            let way = routes.way_to(far, from).map_err(|error| error.to_string())?;
            found.insert((family, from), way);
        }
    }
    Ok(found)
}

fn ports_in_use(mark: FlowMark) -> Fact<BTreeMap<(SocketAddr, IpAddr), u32>> {
    let mut found = BTreeMap::new();
    let mut kernel = Linux::open().map_err(|error| error.to_string())?;
    let listed = kernel.flows(mark, &mut |flow| {
        if flow.status.snat() {
            *found.entry((flow.backend, flow.seen_as.ip())).or_default() += 1;
        }
    });
    fact(listed).map(|()| found)
}

/// Nothing where there is no table, or one of another version.
fn reused() -> Fact<BTreeMap<SocketAddr, u64>> {
    let mut kernel = Linux::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    if !kernel
        .comment()
        .map_err(|error| error.to_string())?
        .is_some_and(|comment| comment.starts_with(&skeleton::name()))
    {
        return Ok(found);
    }
    for family in Family::BOTH {
        let counted = kernel
            .counted(SetName::Reused(family))
            .map_err(|error| error.to_string())?;
        let backends = counted
            .iter()
            .filter_map(|one| Some((read_endpoint(family, &one.key)?, one.packets)));
        found
            .extend(backends.map(|(backend, packets)| (SocketAddr::new(backend.address, backend.port.get()), packets)));
    }
    Ok(found)
}

/// Who listens on a service's port; processes are looked up for those only.
fn listening(services: &Summary) -> Fact<Vec<(crate::kernel::listeners::Listener, Option<String>)>> {
    let ports: BTreeSet<u16> = services.services.iter().map(|service| service.port).collect();
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let all = listeners().map_err(|error| error.to_string())?;
    let named = all
        .into_iter()
        .filter(|listener| ports.contains(&listener.addr.port()) && !listener.addr.ip().is_loopback())
        .map(|listener| (listener, process_of(listener.inode)));
    Ok(named.collect())
}

fn reverse_path_drops() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "IPReversePathFilter")?.1.parse().ok()
}
