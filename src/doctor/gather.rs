//! Reads what the doctor looks at. Changes nothing, and asks for no lock.

mod cheap;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use self::cheap::CheapReader;
use super::facts::{Effort, Fact, Facts, Subject, TableFacts, TableState};
use crate::kernel::conntrack::stats::{Stats, can_filter};
use crate::kernel::firewall;
use crate::kernel::linux::Linux;
use crate::kernel::listeners::{listeners, process_of};
use crate::kernel::socket::Netlink;
use crate::kernel::{Kernel, Seen, links, probe};
use crate::model::FlowMark;
use crate::owner;
use crate::plan::plan;
use crate::problem::Problem;
use crate::record::{Record, Store, boot_id};
use crate::ruleset::name::{Family, SetName};
use crate::ruleset::rows::read_endpoint;
use crate::ruleset::skeleton;
use crate::summary::Summary;
use crate::view::Services;
use crate::view::problems::orphaned_services;

/// Looks at the network namespace that this thread is in.
pub fn gather(run_dir: &Path, mark: FlowMark, protect_backends: bool) -> Facts {
    let (table, services, orphaned) = table_and_services(run_dir, mark);
    let subject = Subject {
        services: Arc::new(services),
        mark,
        protect_backends,
    };
    let mut cheap = CheapReader::new(Effort::Thorough).read(&subject, Instant::now());
    if let Ok(links) = &mut cheap.links {
        links::read_offloads(links);
    }
    Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| String::new(), |text| text.trim().into()),
        table,
        idle_timeout: None,
        orphaned,
        neighbours: fact(links::neighbours()),
        learned: fact(links::learned()),
        stats: fact(Netlink::netfilter().and_then(|mut socket| Stats::read(&mut socket))),
        ports_in_use: ports_in_use(mark),
        reused: reused(),
        lacks: fact(Netlink::netfilter().and_then(|mut socket| probe::lacks(&mut socket, mark))),
        conntrack_filter: fact(Netlink::netfilter().and_then(|mut socket| can_filter(&mut socket))),
        listeners: listening(&cheap.services),
        cheap,
    }
}

fn fact<T, E: Display>(read: Result<T, E>) -> Fact<T> {
    read.map_err(|error| error.to_string())
}

fn table_and_services(run_dir: &Path, mark: FlowMark) -> (Fact<TableFacts>, Summary, Option<Problem>) {
    let mut kernel = match Linux::open() {
        Ok(kernel) => kernel,
        Err(error) => return (Err(error.to_string()), Summary::default(), None),
    };
    let namespace = kernel.netns_cookie().unwrap_or_default();
    let generation = kernel.identity().map(|identity| identity.generation);
    let record = Store::new(run_dir, namespace).load().map(|record| Record {
        head: record.head.at(generation.unwrap_or_default()),
        ..record
    });
    let record = record.filter(|record| record.head.boot == boot_id() && record.head.namespace == namespace);
    let (table, services) = match compare(&mut kernel, record.as_ref(), mark) {
        Ok((table, services)) => (Ok(table), services),
        Err(error) => {
            let recorded = record.as_ref().map(|record| record.head.summary.clone());
            (Err(error.to_string()), recorded.unwrap_or_default())
        }
    };
    let owners = record.and_then(|record| Some(owner::owners(record.head.details.as_ref()?)));
    let named = Services {
        summary: services,
        owners,
        ..Services::default()
    };
    let orphaned = orphaned_services(&named);
    (table, named.summary, orphaned)
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
