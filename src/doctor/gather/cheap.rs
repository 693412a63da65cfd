//! Reader of the facts for checks that are repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::checks::forwarding::is_link_local;
use super::super::checks::no_address::outer_families;
use super::super::checks::served::lost_clients;
use super::super::facts::{CheapFacts, CheckSubject, ClientRoutes, Effort, Fact, Firewall, RoutesByAddress};
use super::answers::{self, FoundAnswers};
use super::fact;
use super::lost::{AddressMemory, FamilyMemory};
use super::marks::refused_marks;
use super::memory::{KeptMemory, MemoryFile, Moment};
use super::probes::misrouted;
use super::route_query::{ClientInterface, FAR, PortsByAddress, far, is_open, ports_to};
use super::served::{self, REMEMBERED, ServedMemory};
use crate::view::UnmarkedFlows;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::conntrack::Conntrack;
use tcpgw_kernel::firewall::{self, FirewallChain, TableFamily};
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::nftables::table::generation;
use tcpgw_kernel::route::links::{self, LinkDetails};
use tcpgw_kernel::route::{IncomingRoute, LocalAddresses, RouteTo, Routes};
use tcpgw_kernel::xfrm::{self, Policies};

/// Pause between readings of data that grow with other programs' rules or with flows, as a multiple of the duration of
/// the last reading: they take 2 % of the time at most.
const PAUSE: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

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

/// Data as they were read last.
#[derive(Debug)]
struct CachedFact<T> {
    not_before: Instant,
    read: Fact<T>,
}

impl<T: Clone> CachedFact<T> {
    /// Reads, and sets the time of the next reading: after `now` and a multiple of the duration of this one.
    fn new(now: Instant, read: impl FnOnce() -> Fact<T>) -> Self {
        let begun = Instant::now();
        let read = read();
        let pause = begun.elapsed().saturating_mul(PAUSE).min(LONGEST_PAUSE);
        Self {
            not_before: now.checked_add(pause).unwrap_or(now),
            read,
        }
    }

    /// Reads again if it is time, and returns the last data.
    fn refreshed(known: &mut Option<Self>, now: Instant, read: impl FnOnce() -> Fact<T>) -> Fact<T> {
        if let Some(known) = known.as_ref().filter(|known| now < known.not_before) {
            return known.read.clone();
        }
        known.insert(Self::new(now, read)).read.clone()
    }
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
        // From now on the next daemon expects it.
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
            served::served(subject.mark).map(|connections| clients.read(connections, now))
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

/// Reads the settings. Links without an address that no route to a backend uses are left out: they are ports of
/// bridges, of which there may be a thousand.
fn sysctls(links: &[LinkDetails], backend_routes: Option<&RoutesByAddress>) -> BTreeMap<String, String> {
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

/// Returns the local addresses. Addresses that services name are looked up one by one: there are few.
fn local(services: &Summary) -> Result<LocalAddresses, NetlinkError> {
    let mut routes = Routes::open()?;
    let mut local = routes.local_addresses()?;
    let named = services.services.iter().flat_map(|service| {
        let sources = &service.settings.source_addresses;
        service.addresses.iter().chain(sources).copied()
    });
    routes.find_local(&mut local, named)?;
    Ok(local)
}

/// Returns the addresses of interfaces whose local routes are gone. tcpgw's rules, the answers to ARP requests and the
/// gateway's own programs ask for the route, and not for the address.
fn unrouted(links: &[LinkDetails], effort: Effort) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut routes = Routes::open()?;
    // A port of a VRF has its routes in another table.
    let links = links
        .iter()
        .filter(|link| link.up && !link.loopback && link.master.is_none());
    let addresses = links.flat_map(|link| {
        let in_use = link
            .addresses
            .iter()
            .filter(|(address, _)| !link.tentative.contains(address));
        in_use.map(|(address, _)| *address)
    });
    let mut found = BTreeSet::new();
    for address in addresses
        .filter(|address| !is_link_local(*address))
        .take(effort.most_routes())
    {
        if routes.route_of(address, None, None)?.is_none_or(|way| !way.local) {
            found.insert(address);
        }
    }
    Ok(found)
}

/// Returns the interfaces by which clients come in, as far as they can be known: by the route to remote clients, and
/// by the addresses that services listen on.
fn client_links(
    services: &Summary,
    links: &[LinkDetails],
    client_routes: Option<&ClientRoutes>,
) -> Vec<ClientInterface> {
    let by_way = Family::BOTH.into_iter().filter_map(|family| {
        let way = client_routes?.get(&(family, None))?.as_ref()?;
        Some((family, way.index))
    });
    let mut inputs: Vec<(Family, u32)> = by_way.collect();
    let chosen: BTreeSet<IpAddr> = services
        .services
        .iter()
        .flat_map(|service| service.addresses.iter().copied())
        .collect();
    for link in links.iter().filter(|link| !link.loopback) {
        let of_link = link.addresses.iter().filter(|(address, _)| chosen.contains(address));
        inputs.extend(of_link.map(|(address, _)| (Family::of(*address), link.index)));
    }
    let mut seen = BTreeSet::new();
    inputs.retain(|input| seen.insert(*input));
    inputs
        .into_iter()
        .map(|(family, index)| ClientInterface {
            family,
            index,
            is_open: is_open(links, far(family), index),
        })
        .collect()
}

/// Returns the backends whose routes are looked up, and the number of addresses that are left out. One backend of an
/// address stands for all of them, unless a rule of policy routing asks for ports.
fn routed_backends(services: &Summary, effort: Effort) -> (PortsByAddress, usize) {
    let mut all = PortsByAddress::new();
    for backend in services.services.iter().flat_map(ServiceSummary::backends) {
        all.entry(backend.ip()).or_default().insert(backend.port());
    }
    // Without an answer, more is looked up than would be necessary.
    let by_port = Routes::open().and_then(|mut routes| routes.routes_by_port());
    let most_ports = match by_port {
        Ok(false) => 1,
        Ok(true) | Err(_) => (effort.most_routes() / all.len().max(1)).max(1),
    };
    // The sample is spread over all addresses, since neighbours are mostly alike.
    let step = all.len().div_ceil(effort.most_routes()).max(1);
    let number = all.len();
    let sample: PortsByAddress = all
        .into_iter()
        .step_by(step)
        .map(|(address, ports)| (address, ports.into_iter().take(most_ports).collect()))
        .collect();
    let left_out = number - sample.len();
    (sample, left_out)
}

/// Returns the routes to backends' addresses, and the backends without one at addresses where others have one.
fn backend_routes(
    backends: &PortsByAddress,
    inputs: &[ClientInterface],
) -> Result<(RoutesByAddress, BTreeSet<SocketAddr>), NetlinkError> {
    let mut routes = Routes::open()?;
    let (mut backend_routes, mut refused) = (RoutesByAddress::new(), BTreeSet::new());
    for (address, ports) in backends {
        let (mut found, mut without) = (None, Vec::new());
        for port in ports {
            match way(&mut routes, SocketAddr::new(*address, *port), inputs)? {
                Some(way) => drop(found.get_or_insert(way)),
                None => without.push(SocketAddr::new(*address, *port)),
            }
        }
        if found.is_some() {
            refused.extend(without);
        }
        backend_routes.insert(*address, found);
    }
    Ok((backend_routes, refused))
}

/// Returns the route of a packet from a remote network, by the first interface from which there is one. If the kernel
/// does not tell it, this is the route of the gateway's own packets.
fn way(routes: &mut Routes, backend: SocketAddr, inputs: &[ClientInterface]) -> Result<Option<RouteTo>, NetlinkError> {
    let ports = Some(ports_to(backend.port()));
    let address = backend.ip();
    let family = Family::of(address);
    let mut told = false;
    for input in inputs.iter().filter(|input| input.family == family) {
        match routes.incoming_route(address, far(family), input.index, ports)? {
            IncomingRoute::Goes(route) => return Ok(Some(route)),
            IncomingRoute::NoRoute => told = true,
            IncomingRoute::Refused => told |= input.is_open,
        }
    }
    if told {
        Ok(None)
    } else {
        routes.route_of(address, None, ports)
    }
}

fn client_routes(local: Option<&LocalAddresses>) -> Fact<ClientRoutes> {
    let mut routes = Routes::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (family, far) in FAR {
        let own = local.into_iter().flat_map(|local| local.addresses.iter().copied());
        // Only IPv4 has a reverse path filter.
        let own = own.filter(|address| family == Family::V4 && address.is_ipv4() && !address.is_loopback());
        for from in own.map(Some).chain([None]) {
            let way = routes.route_of(far, from, None).map_err(|error| error.to_string())?;
            found.insert((family, from), way);
        }
    }
    Ok(found)
}

fn reverse_path_drops() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "IPReversePathFilter")?.1.parse().ok()
}
