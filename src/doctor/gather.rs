//! Reads the facts for the doctor. It changes nothing, and takes no lock.

mod answers;
mod cached_fact;
mod cheap;
mod lost;
mod marks;
mod memory;
mod probes;
mod proc_files;
mod route_query;
mod routes;
mod served;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use self::cheap::CheapReader;
pub use self::memory::MemoryFile;
use self::table::{TableReading, read_table};
use super::facts::{CheckSubject, Effort, Fact, Facts};
use crate::config::Config;
use crate::record::{RecordFile, boot_id};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::rows::read_endpoint;
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Kernel;
use tcpgw_kernel::conntrack::stats::{Stats, can_filter};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::listeners::{listeners, process_of};
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::requirements;
use tcpgw_kernel::route::links;

/// Reads all facts in the network namespace of this thread.
pub fn gather(run_dir: &Path, config: &Config) -> Facts {
    let configured_mark = config.flow_mark;
    let TableReading {
        namespace,
        table,
        services,
        protects,
        orphaned,
        unserved,
    } = read_table(run_dir, config);
    // Flows have the mark of the table, whatever the configuration says now.
    let mark = table
        .as_ref()
        .ok()
        .and_then(|table| table.mark)
        .unwrap_or(configured_mark);
    let subject = CheckSubject {
        services: Arc::new(services),
        mark,
        protect_backends: protects,
        configured_to_protect: config.protect_backends,
        configuration: config.path().into(),
        is_probed: false,
        failing_probes: Arc::default(),
    };
    let now = Instant::now();
    let memory = MemoryFile::new(run_dir, namespace);
    let is_due = || RecordFile::new(run_dir, namespace).is_of_daemon(&boot_id());
    let mut reader = CheapReader::new(Effort::Thorough).recalling(&memory, is_due, now);
    let mut cheap = reader.read(&subject, now);
    if let Ok(links) = &mut cheap.links {
        links::read_offloads(links);
    }
    Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| String::new(), |text| text.trim().into()),
        table,
        configured_mark,
        idle_timeout: config.idle_timeout,
        orphaned,
        unserved: unserved.or_else(|| reader.lost_file(now)),
        neighbours: fact(links::neighbours()),
        learned: fact(links::learned()),
        stats: fact(Netlink::netfilter().and_then(|mut socket| Stats::read(&mut socket))),
        ports_in_use: ports_in_use(mark),
        reused: reused(),
        lacks: fact(Netlink::netfilter().and_then(|mut socket| requirements::lacks(&mut socket, mark))),
        conntrack_filter: fact(Netlink::netfilter().and_then(|mut socket| can_filter(&mut socket))),
        listeners: listening(&cheap.services),
        cheap,
    }
}

fn fact<T, E: Display>(read: Result<T, E>) -> Fact<T> {
    read.map_err(|error| error.to_string())
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

/// Returns the number of SYNs that met a connection which a backend still held; empty without a table of this version.
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

/// Returns the sockets that listen on ports of services; processes are looked up for these only.
fn listening(services: &Summary) -> Fact<Vec<(tcpgw_kernel::listeners::Listener, Option<String>)>> {
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
