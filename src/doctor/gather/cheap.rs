//! Reader of the facts for checks that are repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::checks::no_address::outer_families;
use super::super::checks::served::lost_clients;
use super::super::facts::{CheapFacts, CheckSubject, Effort, Fact, Firewall};
use super::answers::{self, FoundAnswers};
use super::cached_fact::CachedFact;
use super::fact;
use super::lost::{AddressMemory, FamilyMemory};
use super::marks::refused_marks;
use super::memory::{KeptMemory, MemoryFile, Moment};
use super::probes::misrouted;
use super::proc_files::{reverse_path_drops, sysctls};
use super::routes::{backend_routes, client_links, client_routes, local, routed_backends, unrouted};
use super::served::{self, REMEMBERED, ServedMemory};
use crate::view::UnmarkedFlows;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::conntrack::Conntrack;
use tcpgw_kernel::firewall::{self, FirewallChain, TableFamily};
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::nftables::table::generation;
use tcpgw_kernel::route::{LocalAddresses, Routes, links};
use tcpgw_kernel::xfrm::{self, Policies};

/// Reader of [`CheapFacts`] that keeps data which need not be read again.
#[derive(Debug)]
pub struct CheapReader {
    effort: Effort,
    /// Other tables, with their generation.
    firewall: Option<(u32, CachedFact<Arc<Firewall>>)>,
    legacy: Option<CachedFact<Arc<Vec<FirewallChain>>>>,
    legacy6: Option<CachedFact<Arc<Vec<FirewallChain>>>>,
    ipsec: Option<CachedFact<Arc<Policies>>>,
    unmarked: Option<CachedFact<UnmarkedFlows>>,
    clients_read: Option<CachedFact<()>>,
    clients: ServedMemory,
    families: FamilyMemory,
    addresses: AddressMemory,
    /// File for the memory of clients, families and addresses.
    file: Option<MemoryFile>,
    /// The file that was missing or damaged when it was needed, in words, and the time of that.
    lost_file: Option<(String, Instant)>,
}

impl CheapReader {
    /// Creates a reader without data.
    pub const fn new(effort: Effort) -> Self {
        Self {
            effort,
            firewall: None,
            legacy: None,
            legacy6: None,
            ipsec: None,
            unmarked: None,
            clients_read: None,
            clients: ServedMemory::new(),
            families: FamilyMemory::new(),
            addresses: AddressMemory::new(),
            file: None,
            lost_file: None,
        }
    }

    /// Returns a reader that remembers what an earlier one has kept in this file. `is_due` tells whether a daemon has run in
    /// this boot, so that there has to be one.
    #[must_use]
    pub fn recalling(self, file: &MemoryFile, is_due: impl FnOnce() -> bool, now: Instant) -> Self {
        let moment = Moment::at(now);
        match file.load(moment) {
            Ok(Some(kept)) => {
                let lost_at = kept.lost_file.and_then(|at| moment.instant(at));
                Self {
                    clients: ServedMemory::restored(&kept, moment),
                    families: FamilyMemory::restored(&kept, moment),
                    addresses: AddressMemory::restored(&kept, moment),
                    lost_file: lost_at.map(|at| (file.was_lost(), at)),
                    ..self
                }
            }
            Err(lost) if is_due() => Self {
                lost_file: Some((lost, now)),
                ..self
            },
            Ok(None) | Err(_) => self,
        }
    }

    /// Returns a reader that also keeps what it remembers in the file.
    #[must_use]
    pub fn kept_in(self, file: MemoryFile, is_due: impl FnOnce() -> bool, now: Instant) -> Self {
        let recalled = self.recalling(&file, is_due, now);
        let mut keeping = Self {
            file: Some(file),
            ..recalled
        };
        // A daemon that starts later in this boot expects the file.
        keeping.keep(now);
        keeping
    }

    /// Returns the problem that the file was missing or damaged, for the time for which clients that were served are remembered.
    pub fn lost_file(&self, now: Instant) -> Option<Problem> {
        let (what, since) = self.lost_file.as_ref()?;
        let is_over = now.saturating_duration_since(*since) >= REMEMBERED;
        let ends = match self.file {
            Some(_) => "10 minutes after the loss was found, or when the daemon is reloaded",
            None => "when a daemon is started, or 10 minutes later",
        };
        (!is_over).then(|| {
            Problem::new(
                ProblemKind::Record,
                format!(
                    "{what}, though a daemon has run since the machine booted: which clients were served, and which addresses there were, is not \
                     known for the time before, so that clients who cannot connect any more are not missed; check that clients are served; this \
                     message ends {ends}"
                ),
            )
        })
    }

    fn keep(&mut self, now: Instant) {
        let Some(file) = &mut self.file else { return };
        let moment = Moment::at(now);
        let mut kept = KeptMemory::default();
        self.addresses.keep(&mut kept, moment);
        self.families.keep(&mut kept, moment);
        self.clients.keep(&mut kept, moment);
        let is_over = |at: Instant| now.saturating_duration_since(at) >= REMEMBERED;
        let lost_at = self.lost_file.as_ref().map(|(_, at)| *at).filter(|at| !is_over(*at));
        kept.lost_file = lost_at.map(|at| moment.kept(at));
        file.keep(kept, moment);
    }

    /// Reads the facts in the network namespace of this thread.
    pub fn read(&mut self, subject: &CheckSubject, now: Instant) -> CheapFacts {
        let clients = &mut self.clients;
        let read = CachedFact::refreshed(&mut self.clients_read, now, || {
            let services = &subject.services;
            served::served(subject.mark, services).map(|connections| clients.read(connections, services, now))
        });
        if let Err(error) = read {
            tracing::debug!(error, "failed to read which clients were served");
        }
        let legacy = |family| fact(firewall::legacy(family).map(Arc::new));
        let facts = CheapFacts {
            firewall: self.firewall(now),
            legacy: CachedFact::refreshed(&mut self.legacy, now, || legacy(TableFamily::Ip)),
            legacy6: CachedFact::refreshed(&mut self.legacy6, now, || legacy(TableFamily::Ip6)),
            ipsec: CachedFact::refreshed(&mut self.ipsec, now, || fact(xfrm::policies().map(Arc::new))),
            unmarked: CachedFact::refreshed(&mut self.unmarked, now, || unmarked_flows(subject)),
            ..self.read_routes_of(subject, &self.clients.known())
        };
        let mut lost = lost_clients(&facts);
        lost.extend(facts.lost_answers.iter().flat_map(|lost| lost.clients.iter().copied()));
        self.clients.judged(&lost, now);
        let facts = CheapFacts {
            refused_marks: fact(refused_marks(&facts)),
            lost_addresses: self.lost_addresses(subject, &facts.local, now),
            lost_families: self.families.lost(outer_families(&facts), now),
            ..facts
        };
        self.keep(now);
        facts
    }

    /// Reads the facts of [`CheapReader::read`] without other programs' tables and without flows.
    pub fn read_routes(&self, subject: &CheckSubject) -> CheapFacts {
        self.read_routes_of(subject, &[])
    }

    /// Reads the facts of [`CheapReader::read_routes`], and the routes to clients that are served.
    fn read_routes_of(&self, subject: &CheckSubject, served: &[served::RememberedPair]) -> CheapFacts {
        let services = &subject.services;
        let not_read = || "this was not read".to_owned();
        let links = fact(links::links());
        let some_links = links.as_deref().unwrap_or_default();
        let local = fact(local(services));
        let client_routes = client_routes(local.as_ref().ok());
        let inputs = client_links(services, some_links, client_routes.as_ref().ok());
        let (ports, routes_left_out) = routed_backends(services, self.effort);
        let (backend_routes, refused_ports) = match fact(backend_routes(&ports, &inputs)) {
            Ok((backend_routes, refused)) => (Ok(backend_routes), refused),
            Err(error) => (Err(error), BTreeSet::new()),
        };
        let answers = backend_routes.as_ref().map_err(Clone::clone);
        let answers =
            answers.and_then(|backend_routes| fact(answers::answers(backend_routes, &ports, some_links, served)));
        let (answers, lost_answers, served) = match answers {
            Ok(FoundAnswers {
                backend_routes,
                lost,
                served,
            }) => (Ok(backend_routes), Ok(lost), served),
            Err(error) => (Err(error.clone()), Err(error), Vec::new()),
        };
        let misrouted_probes = local
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|local| fact(misrouted(&subject.failing_probes, &inputs, some_links, local)));
        CheapFacts {
            effort: self.effort,
            mark: subject.mark,
            protect_backends: subject.protect_backends,
            configured_to_protect: subject.configured_to_protect,
            configuration: Arc::clone(&subject.configuration),
            is_probed: subject.is_probed,
            services: Arc::clone(services),
            sysctls: sysctls(some_links, backend_routes.as_ref().ok()),
            client_routes,
            unrouted: fact(unrouted(some_links, self.effort)),
            links,
            local,
            answers,
            served,
            lost_answers,
            misrouted_probes,
            backend_routes,
            refused_ports,
            routes_left_out,
            firewall: Err(not_read()),
            legacy: Err(not_read()),
            legacy6: Err(not_read()),
            refused_marks: Err(not_read()),
            ipsec: Err(not_read()),
            unmarked: Err(not_read()),
            lost_addresses: BTreeMap::new(),
            lost_families: BTreeSet::new(),
            reverse_path_drops: reverse_path_drops(),
        }
    }

    fn lost_addresses(
        &mut self,
        subject: &CheckSubject,
        local: &Fact<LocalAddresses>,
        now: Instant,
    ) -> BTreeMap<IpAddr, u64> {
        if let Ok(mut local) = local.clone() {
            let missing = self.addresses.missing(&local);
            let found = if missing.is_empty() {
                Ok(())
            } else {
                Routes::open().and_then(|mut routes| routes.find_local(&mut local, missing))
            };
            match found {
                Ok(()) => self.addresses.compare(&local, now, |each| connections(subject, each)),
                Err(error) => tracing::warn!(%error, "failed to look for addresses that are gone"),
            }
        }
        self.addresses.lost()
    }

    fn firewall(&mut self, now: Instant) -> Fact<Arc<Firewall>> {
        let mut socket = Netlink::netfilter().map_err(|error| error.to_string())?;
        let generation = generation(&mut socket).map_err(|error| error.to_string())?;
        if let Some((of, known)) = &self.firewall
            && (now < known.not_before
                || (*of == generation && known.read.as_ref().is_ok_and(|read| !read.changes_silently)))
        {
            return known.read.clone();
        }
        let known = CachedFact::new(now, || {
            fact(firewall::read(&mut socket, Netlink::netfilter)).map(|(chains, unread)| {
                Arc::new(Firewall {
                    chains,
                    unjudged: unread.other_families,
                    own_table: unread.own_table,
                    changes_silently: unread.changes_silently,
                })
            })
        });
        let read = known.read.clone();
        self.firewall = Some((generation, known));
        read
    }
}

/// Finds flows to backends without tcpgw's mark. The kernel walks its whole table for this, as for a list of tcpgw's
/// flows (some 0.4 s for a million entries), and returns only translated flows without the mark: usually none.
fn unmarked_flows(subject: &CheckSubject) -> Fact<UnmarkedFlows> {
    let mut found = UnmarkedFlows::default();
    let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
    let read = conntrack.unmarked(subject.mark, |flow| found.add(&subject.services, flow));
    fact(read).map(|()| found)
}

/// Passes the public address of each connection of a client to a service that listens on all addresses.
fn connections(subject: &CheckSubject, mut each: impl FnMut(IpAddr)) -> Fact<()> {
    let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
    let read = conntrack.for_each(subject.mark, |flow| {
        let service = subject.services.service_at(flow.public);
        if flow.status.assured() && service.is_some_and(|service| service.addresses.is_empty()) {
            each(flow.public.ip());
        }
    });
    fact(read)
}
