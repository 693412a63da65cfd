//! The table in the kernel, compared with the one that was written last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::super::facts::{Fact, TableFacts, TableState};
use crate::config::Config;
use crate::record::{JournalEntry, Record, RecordFile, boot_id};
use crate::unserved;
use crate::view::ServicesView;
use crate::view::problems::orphaned_services;
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner;
use tcpgw_core::plan::plan;
use tcpgw_core::problem::Problem;
use tcpgw_core::ruleset::{Ruleset, skeleton};
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::firewall;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::{Kernel, KernelError, ObservedTable};

/// The last written record, and changes that were begun after it.
struct LastRecord {
    /// Record with the begun changes of the journal.
    record: Record,
    /// Services before these changes.
    before: Summary,
    /// The begun changes.
    changes: Vec<JournalEntry>,
    /// Whether the record was written before its table, whose number was not known yet.
    is_announced: bool,
}

impl LastRecord {
    /// Creates it for a kernel of this generation.
    fn new(record: Record, generation: u32) -> Self {
        let Record { head, ruleset } = record;
        let before = head.summary.clone();
        let changes = head.changes.iter().filter(|entry| entry.awaits != Some(generation));
        Self {
            changes: changes.cloned().collect(),
            is_announced: head.table == u64::MAX,
            record: Record {
                head: head.at(generation),
                ruleset,
            },
            before,
        }
    }

    /// Returns whether backends were protected.
    fn protects(&self) -> bool {
        self.record.ruleset.protects()
    }

    /// Returns the services that the kernel may hold.
    fn guide(&self) -> Summary {
        let mut guide = self.record.head.summary.clone();
        guide.complete_by_listen_keys(&self.record.head.left);
        guide
    }

    /// Returns whether tcpgw has written all that the kernel holds, as far as services show: services without a change
    /// are as in the record, and others have only old and new backends, and all of those that are active before and
    /// after each change. A process writes the journal before a change, and the record after it.
    fn explains(&self, kernel: &Ruleset) -> bool {
        if self.changes.is_empty() && !self.is_announced {
            return false;
        }
        let old = Summary::of_kernel(&self.record.ruleset, &self.before);
        let new = Summary::of_kernel(kernel, &self.guide());
        let (old, new) = (by_place(&old), by_place(&new));
        let places: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        places.into_iter().all(|place| {
            let (old, new) = (old.get(place), new.get(place));
            let name = new.or(old).and_then(|service| service.name.as_deref());
            match name.and_then(|name| self.backends_of(name)) {
                None => old == new,
                Some((known, always)) => {
                    let is_old = |backend| old.is_some_and(|old| old.backends().any(|known| known == backend));
                    let mut there = new.into_iter().flat_map(|new| new.backends());
                    let was_active = |backend| old.is_some_and(|old| old.active.contains_key(backend));
                    let is_active = |backend| new.is_some_and(|new| new.active.contains_key(backend));
                    there.all(|backend| known.contains(&backend) || is_old(backend))
                        && always.iter().filter(|backend| was_active(backend)).all(is_active)
                }
            }
        })
    }

    /// Returns the backends that a service was to get by its changes, and those that are active after each of them;
    /// `None`: no change is about it.
    fn backends_of(&self, name: &str) -> Option<(BTreeSet<SocketAddr>, BTreeSet<SocketAddr>)> {
        let services = self.changes.iter().flat_map(|entry| &entry.services);
        let about = services.filter(|service| &*service.name == name);
        let announced = self.record.head.summary.services.iter();
        let announced = announced.filter(|service| self.is_announced && service.name.as_deref() == Some(name));
        let states = about.map(|service| service.summary.as_ref()).chain(announced.map(Some));
        let states: Vec<Option<&ServiceSummary>> = states.collect();
        let active = |state: Option<&ServiceSummary>| -> BTreeSet<SocketAddr> {
            state
                .iter()
                .flat_map(|service| service.active.keys().copied())
                .collect()
        };
        let always = states
            .iter()
            .copied()
            .map(active)
            .reduce(|always, state| &always & &state)?;
        let all = states.iter().flatten().flat_map(|service| service.backends());
        Some((all.collect(), always))
    }
}

fn by_place(services: &Summary) -> BTreeMap<(u16, &BTreeSet<std::net::IpAddr>), &ServiceSummary> {
    services
        .services
        .iter()
        .map(|service| (service.listen_key(), service))
        .collect()
}

/// Reading of the table.
pub(super) struct TableReading {
    /// Cookie of the network namespace; 0 if it is not known.
    pub(super) namespace: u64,
    /// The table itself.
    pub(super) table: Fact<TableFacts>,
    /// Services of the table; if it is gone or cannot be read, those that were written last.
    pub(super) services: Summary,
    /// Whether it lets new connections from outside reach backends through services only.
    pub(super) protects: bool,
    /// Problem that some of the services are orphans.
    pub(super) orphaned: Option<Problem>,
    /// Problem that services are not served while no daemon runs.
    pub(super) unserved: Option<Problem>,
}

/// Reads the table of this network namespace, its services, and the problems of orphans and unserved services.
pub(super) fn read_table(run_dir: &Path, config: &Config) -> TableReading {
    let mark = config.flow_mark;
    let mut kernel = match Linux::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            return TableReading {
                namespace: 0,
                table: Err(error.to_string()),
                services: Summary::default(),
                protects: false,
                orphaned: None,
                unserved: None,
            };
        }
    };
    let namespace = kernel.netns_cookie().unwrap_or_default();
    let generation = kernel.identity().map(|identity| identity.generation);
    let record = RecordFile::new(run_dir, namespace).load();
    let record = record.filter(|record| record.head.boot == boot_id() && record.head.namespace == namespace);
    let written = record.map(|record| LastRecord::new(record, generation.unwrap_or_default()));
    let (table, services, protects) = match compare(&mut kernel, written.as_ref(), mark) {
        Ok((table, services, protects)) => (Ok(table), services, protects),
        Err(error) => {
            let recorded = written.as_ref().map(|written| written.record.head.summary.clone());
            let protects = written.as_ref().is_some_and(LastRecord::protects);
            (Err(error.to_string()), recorded.unwrap_or_default(), protects)
        }
    };
    let owners = written.and_then(|written| Some(owner::owners(written.record.head.details.as_ref()?)));
    let named = ServicesView {
        summary: services,
        owners,
        ..ServicesView::default()
    };
    let orphaned = orphaned_services(&named);
    let is_gone = |table: &TableFacts| matches!(table.state, TableState::Absent | TableState::Gone);
    let unserved = match &table {
        // The services that were written last are gone.
        Ok(table) if is_gone(table) => unserved::problem(
            config,
            namespace,
            &ServicesView {
                owners: named.owners.clone(),
                ..ServicesView::default()
            },
        ),
        Ok(_) => unserved::problem(config, namespace, &named),
        Err(_) => None,
    };
    TableReading {
        namespace,
        table,
        services: named.summary,
        protects,
        orphaned,
        unserved,
    }
}

fn compare(
    kernel: &mut Linux,
    written: Option<&LastRecord>,
    mark: FlowMark,
) -> Result<(TableFacts, Summary, bool), KernelError> {
    let comment = kernel.comment()?;
    let mark_in_kernel = comment.as_deref().and_then(skeleton::mark_of);
    let facts = |state, owner: Option<u32>| TableFacts {
        state,
        mark: mark_in_kernel,
        owner: owner.map(|port| (port, process_name(port))),
        daemon: None,
    };
    let owner = Netlink::netfilter().and_then(|mut socket| firewall::owner(&mut socket))?;
    let guide = written.map(LastRecord::guide).unwrap_or_default();
    let read = kernel.observe(mark_in_kernel.unwrap_or(mark))?;
    Ok(match read.table {
        ObservedTable::Absent => {
            let state = if written.is_some_and(|written| !written.is_announced) {
                TableState::Gone
            } else {
                TableState::Absent
            };
            // The other checks examine the services that should be there.
            (facts(state, None), guide, written.is_some_and(LastRecord::protects))
        }
        ObservedTable::Ours { ruleset, .. } => {
            let state = match written {
                Some(written) if plan(&ruleset, &written.record.ruleset).is_empty() => TableState::AsWritten,
                Some(written) if written.explains(&ruleset) => TableState::AsWritten,
                Some(_) => TableState::Changed,
                None => TableState::Unrecorded,
            };
            let services = Summary::of_kernel(&ruleset, &guide);
            (facts(state, owner), services, ruleset.protects())
        }
        ObservedTable::Other { comment, ruleset, .. } => (
            facts(TableState::Other(comment), owner),
            Summary::of_kernel(&ruleset, &guide),
            ruleset.protects(),
        ),
    })
}

/// Returns the process of a netlink port: the port id of a program's first socket is its process id.
fn process_name(port: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{port}/comm")).ok()?;
    let name = tcpgw_core::escape::text(String::from_utf8_lossy(&name).trim_end_matches('\n'));
    Some(format!("{name} ({port})"))
}
