//! Facts for the doctor: plain data, read elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::view::UnmarkedFlows;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::Problem;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::conntrack::stats::Stats;
use tcpgw_kernel::firewall::{FirewallChain, ForeignTable, OwnTable};
use tcpgw_kernel::listeners::Listener;
use tcpgw_kernel::requirements::MissingFeature;
use tcpgw_kernel::route::links::{BridgeEntry, LinkDetails, Neighbour};
use tcpgw_kernel::route::{LocalAddresses, RouteEntry, RouteTo};
use tcpgw_kernel::xfrm::Policies;

/// Data that were read, or the error that prevented it.
pub type Fact<T> = Result<T, String>;

/// Routes by destination; `None`: there is no route, or one that refuses.
pub type RoutesByAddress = BTreeMap<IpAddr, Option<RouteTo>>;

/// Routes to remote clients, by the source address of packets.
pub type ClientRoutes = BTreeMap<(Family, Option<IpAddr>), Option<RouteTo>>;

/// Routes to remote clients, for each interface on which the backends' answers arrive.
pub type AnswerRoutes = BTreeMap<(Family, u32), Option<RouteTo>>;

/// A client that was served: a minute ago, or last before nobody was served any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedClient {
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Address and port that it connected to.
    pub public: SocketAddr,
    /// Backend that served it.
    pub backend: SocketAddr,
    /// Interface by which answers to it leave.
    pub link: Option<u32>,
    /// Whether conntrack still has its connection.
    pub is_recent: bool,
    /// Whether others of the same service and family were served after its packets began to be lost, so that this is
    /// probably intended.
    pub is_banned: bool,
}

/// A client, and the address and port that it connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientOfService {
    pub client: IpAddr,
    pub public: SocketAddr,
}

impl ClientOfService {
    /// Returns the client of a connection, without its port.
    pub const fn new(client: SocketAddr, public: SocketAddr) -> Self {
        Self {
            client: client.ip(),
            public,
        }
    }
}

impl ServedClient {
    /// Returns the client without its port and backend.
    pub const fn of_service(&self) -> ClientOfService {
        ClientOfService::new(self.client, self.public)
    }
}

/// Answers without a route, or with one that refuses or leads to the gateway itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostAnswers {
    /// Backends whose answers have no route to any remote client, though the gateway's own packets have one.
    pub backends: BTreeSet<SocketAddr>,
    /// Clients that were served, and to whom there is no route now.
    pub clients: BTreeSet<ClientOfService>,
    /// Clients that were served, and to whom there is a route.
    pub reached: BTreeSet<ClientOfService>,
}

/// Backends whose last probe failed, with the source addresses of their probes; empty: those that the routes select.
pub type FailingProbes = BTreeMap<SocketAddr, BTreeSet<IpAddr>>;

/// Probes to a backend that do not take the route of clients' packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisroutedProbe {
    /// Address of the backend.
    pub backend: IpAddr,
    /// Source address of such probes; `None`: the one that the route selects.
    pub source: Option<IpAddr>,
    /// Route of the probes; `None`: there is none, or one that refuses.
    pub way: Option<RouteTo>,
    /// Route of clients' packets.
    pub clients: RouteTo,
    /// Table with the clients' route, and the network that it may be used for.
    pub entry: Option<RouteEntry>,
}

/// Amount of data to examine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A sample, for checks that are repeated every few seconds: at most some milliseconds of work.
    Quick,
    /// The full data, for a user who waits for the answer.
    Thorough,
}

/// Subject of the checks.
#[derive(Debug, Clone)]
pub struct CheckSubject {
    /// Services whose surroundings are checked.
    pub services: Arc<Summary>,
    /// Mark of tcpgw's flows.
    pub mark: FlowMark,
    /// Whether the table in the kernel lets new connections from outside reach backends through services only.
    pub protect_backends: bool,
    /// Whether the configuration has this setting on, for people.
    pub configured_to_protect: bool,
    /// Path of the configuration, for people: [`crate::config::Config::path`].
    pub configuration: Arc<str>,
    /// Whether a daemon takes backends out of use that do not answer its probes.
    pub is_probed: bool,
    /// Failing probes that a daemon knows.
    pub failing_probes: Arc<FailingProbes>,
}

impl Default for CheckSubject {
    fn default() -> Self {
        Self {
            services: Arc::default(),
            mark: FlowMark::default(),
            protect_backends: false,
            configured_to_protect: false,
            configuration: crate::config::DEFAULT_PATH.into(),
            is_probed: false,
            failing_probes: Arc::default(),
        }
    }
}

/// Facts that cost little to read.
///
/// A reading takes about three system calls for each sysctl (17, and 4 for each interface with an address), four for
/// each backend address (at most [`Effort::most_routes`]; for each backend, if policy routing asks for ports), and three
/// to seven netlink dumps. Data that grow with other
/// programs' rules or with flows, and data for which a program has to be started, are read again by
/// [`super::CheapReader`] only when the duration of the last reading allows it; other tables of nftables only after
/// their generation has changed, too, unless their rules use sets whose elements expire by themselves.
#[derive(Debug, Clone)]
pub struct CheapFacts {
    /// Amount of data to examine.
    pub effort: Effort,
    /// Mark of tcpgw's flows.
    pub mark: FlowMark,
    /// Whether the table in the kernel lets new connections from outside reach backends through services only.
    pub protect_backends: bool,
    /// Whether the configuration has this setting on, for people.
    pub configured_to_protect: bool,
    /// Path of the configuration, for people: [`crate::config::Config::path`].
    pub configuration: Arc<str>,
    /// Whether a daemon takes backends out of use that do not answer its probes.
    pub is_probed: bool,
    /// The services, by the kernel or the last `apply`.
    pub services: Arc<Summary>,
    /// Settings by name, such as `net.ipv4.ip_forward`; settings that this kernel does not have are missing.
    pub sysctls: BTreeMap<String, String>,
    /// The interfaces.
    pub links: Fact<Vec<LinkDetails>>,
    /// Addresses that the gateway takes as its own.
    pub local: Fact<LocalAddresses>,
    /// Addresses of interfaces that are up to which the kernel accepts no packets, since their local routes are gone.
    pub unrouted: Fact<BTreeSet<IpAddr>>,
    /// Routes to backends' addresses, for packets that come in where clients do; `None`: there is none to any backend
    /// there, or one that refuses.
    pub backend_routes: Fact<RoutesByAddress>,
    /// Backends without a route, or with one that refuses, at addresses where other backends have one: policy routing
    /// may ask for ports.
    pub refused_ports: BTreeSet<SocketAddr>,
    /// Number of backends whose routes were not looked up, because there are too many.
    pub routes_left_out: usize,
    /// Routes to remote clients, for packets from each of the gateway's own addresses, or from any (`None`).
    pub client_routes: Fact<ClientRoutes>,
    /// Routes to remote clients, for answers that come in by each interface that leads to backends; unknown ones are
    /// missing.
    pub answers: Fact<AnswerRoutes>,
    /// Clients that were served, with routes; those on the gateway itself are not contained.
    pub served: Vec<ServedClient>,
    /// Answers without a route.
    pub lost_answers: Fact<LostAnswers>,
    /// Failing probes that do not take the route of clients' packets: some of them, if there are many.
    pub misrouted_probes: Fact<Vec<MisroutedProbe>>,
    /// Other tables of nftables, including those of iptables-nft.
    pub firewall: Fact<Arc<Firewall>>,
    /// Tables of iptables-legacy.
    pub legacy: Fact<Arc<Vec<FirewallChain>>>,
    /// Tables of ip6tables-legacy.
    pub legacy6: Fact<Arc<Vec<FirewallChain>>>,
    /// Marks that other programs' rules give packets, and with which routing refuses packets to backends that it
    /// forwards without a mark; or answers of backends (`true`).
    pub refused_marks: Fact<BTreeSet<(Family, bool, u32)>>,
    /// Policies of IPsec.
    pub ipsec: Fact<Arc<Policies>>,
    /// Flows to backends without tcpgw's mark.
    pub unmarked: Fact<UnmarkedFlows>,
    /// Addresses that the gateway had at an earlier reading and has lost, with the number of connections of clients to
    /// services on all addresses at that time.
    pub lost_addresses: BTreeMap<IpAddr, u64>,
    /// Families in which the gateway had an address for clients in the last hour, as far as an earlier reading saw it,
    /// and may have none now.
    pub lost_families: BTreeSet<Family>,
    /// Number of packets that the reverse path filter has dropped (`IPReversePathFilter`).
    pub reverse_path_drops: Option<u64>,
}

/// The facts for all checks of the doctor.
///
/// Those that are not among the [`CheapFacts`] may take a second on a large gateway: flows and neighbours are listed,
/// and the descriptors of all processes searched.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Facts that cost little to read.
    pub cheap: CheapFacts,
    /// Release of the kernel, such as `6.1.0-18-amd64`.
    pub release: String,
    /// The table of tcpgw.
    pub table: Fact<TableFacts>,
    /// Idle timeout of flows in the configuration, if set.
    pub idle_timeout: Option<Duration>,
    /// Flow mark of the configuration; flows have that of the table.
    pub configured_mark: FlowMark,
    /// Problem of services that no provider defines any more, by the record.
    pub orphaned: Option<Problem>,
    /// Problem of services that are not served while no daemon runs.
    pub unserved: Option<Problem>,
    /// Neighbours on the links.
    pub neighbours: Fact<Vec<Neighbour>>,
    /// Entries that bridges have learned.
    pub learned: Fact<Vec<BridgeEntry>>,
    /// Counters of conntrack.
    pub stats: Fact<Stats>,
    /// Number of flows by backend and source address.
    pub ports_in_use: Fact<BTreeMap<(SocketAddr, IpAddr), u32>>,
    /// Number of SYNs that met a connection which the backend still held, by backend.
    pub reused: Fact<BTreeMap<SocketAddr, u64>>,
    /// Features that this kernel lacks.
    pub lacks: Fact<Vec<MissingFeature>>,
    /// Whether conntrack filters flows in the kernel.
    pub conntrack_filter: Fact<bool>,
    /// Listening sockets, with their processes if known.
    pub listeners: Fact<Vec<(Listener, Option<String>)>>,
}

/// Other tables of nftables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Chains of these tables.
    pub chains: Vec<FirewallChain>,
    /// Tables whose chains see frames of bridges, which are not judged.
    pub unjudged: Vec<ForeignTable>,
    /// The table of tcpgw.
    pub own_table: Option<OwnTable>,
    /// Whether rules use sets that change without a notification.
    pub changes_silently: bool,
}

/// The table of tcpgw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Comparison with the table that was written.
    pub state: TableState,
    /// Flow mark in its comment.
    pub mark: Option<FlowMark>,
    /// Port id of the socket that owns it, and the process that usually has this id.
    pub owner: Option<(u32, Option<String>)>,
    /// Process id of the daemon that claims, by its socket, to be the owner.
    pub daemon: Option<u32>,
}

/// Comparison of the table of tcpgw with the one that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// The table does not exist, and is not recorded.
    Absent,
    /// The table is recorded, and does not exist.
    Gone,
    /// The table is as it was written last.
    AsWritten,
    /// The table is of this program, and not recorded.
    Unrecorded,
    /// The rules are as written, but the elements are not.
    Changed,
    /// The rules are not those of this program; with the table's comment.
    Other(Option<String>),
}

impl Effort {
    /// Returns the maximum number of backend addresses whose routes are looked up, in some microseconds each.
    pub const fn most_routes(self) -> usize {
        match self {
            Self::Quick => 500,
            Self::Thorough => 50_000,
        }
    }

    /// Returns the maximum number of evaluations of other tables' rules, in some tens of nanoseconds each.
    pub const fn most_rules(self) -> usize {
        match self {
            Self::Quick => 50_000,
            Self::Thorough => 1_000_000,
        }
    }
}

impl CheapFacts {
    /// Returns a setting that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name)?.trim().parse().ok()
    }

    /// Returns the chains of other programs that could be read, one tool at a time.
    pub fn known_chains(&self) -> impl Iterator<Item = &[FirewallChain]> + '_ {
        let nft = self.firewall.iter().map(|firewall| firewall.chains.as_slice());
        let legacy = [&self.legacy, &self.legacy6].into_iter().flatten();
        nft.chain(legacy.map(|chains| chains.as_slice()))
    }

    /// Returns the endpoints of all backends.
    pub fn backends(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.services.services.iter().flat_map(ServiceSummary::backends)
    }

    /// Returns whether there are backends of the family; without any backend, true for IPv4.
    pub fn uses(&self, family: Family) -> bool {
        let mut any = false;
        for backend in self.backends() {
            if Family::of(backend.ip()) == family {
                return true;
            }
            any = true;
        }
        !any && family == Family::V4
    }

    /// Returns the interface with this index.
    pub fn link(&self, index: u32) -> Option<&LinkDetails> {
        self.links.as_ref().ok()?.iter().find(|link| link.index == index)
    }
}
