//! What the doctor looks at: plain data, gathered elsewhere.

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
use tcpgw_kernel::firewall::{Chain, ForeignTable, OwnTable};
use tcpgw_kernel::listeners::Listener;
use tcpgw_kernel::requirements::Lack;
use tcpgw_kernel::route::links::{Learned, Link, Neighbour};
use tcpgw_kernel::route::{LocalAddresses, RouteEntry, RouteTo};

/// Something that was read, or why it could not be.
pub type Fact<T> = Result<T, String>;

/// The way to each address; `None` where there is none, or one that refuses.
pub type Ways = BTreeMap<IpAddr, Option<RouteTo>>;

/// The way far away, by the address that packets come from.
pub type WaysOut = BTreeMap<(Family, Option<IpAddr>), Option<RouteTo>>;

/// The way far away, by the interface that answers of backends come in by.
pub type WaysOfAnswers = BTreeMap<(Family, u32), Option<RouteTo>>;

/// Answers that have no way, or one that refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostAnswers {
    /// Backends whose answers have no way to any client far away, though the gateway's own packets have one.
    pub backends: BTreeSet<IpAddr>,
    /// Clients that were served, to whom there is no way now.
    pub clients: BTreeSet<IpAddr>,
    /// Clients that were served, to whom there is one.
    pub reached: BTreeSet<IpAddr>,
}

/// Addresses of backends whose last probe failed, with the source addresses of their probes; none: those that the routes select.
pub type FailingProbes = BTreeMap<IpAddr, BTreeSet<IpAddr>>;

/// Probes to a backend that do not go where packets of clients go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisroutedProbe {
    /// The backend.
    pub backend: IpAddr,
    /// The address that such probes are sent from; `None`: the one that the route selects.
    pub source: Option<IpAddr>,
    /// Their way; `None` where there is none, or one that refuses.
    pub way: Option<RouteTo>,
    /// The way of clients' packets.
    pub clients: RouteTo,
    /// The table that has the clients' way, and packets to which addresses may be sent by it.
    pub entry: Option<RouteEntry>,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A sample, for checks that are repeated every few seconds: at most some milliseconds of work.
    Quick,
    /// As much as somebody who waits for the answer wants to know.
    Thorough,
}

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Services whose surroundings are looked at.
    pub services: Arc<Summary>,
    /// The mark of our flows.
    pub mark: FlowMark,
    /// Whether the table in the kernel lets new connections from outside reach backends through services only.
    pub protect_backends: bool,
    /// Whether the configuration says that it shall, for people.
    pub configured_to_protect: bool,
    /// The file of the configuration, for people: [`crate::config::Config::path`].
    pub configuration: Arc<str>,
    /// Whether a daemon takes backends out of the balance that do not answer its probes.
    pub is_probed: bool,
    /// What a daemon knows of probes that fail.
    pub failing_probes: Arc<FailingProbes>,
}

impl Default for Subject {
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
/// A reading is about three system calls for each sysctl (17, and 4 for each interface with an address) and two for each backend
/// address (at most [`Effort::most_ways`]), and two to six netlink dumps. What grows with other programs' rules or with flows, and
/// what a program has to be started for, [`super::CheapReader`] reads again only when what the last reading took allows it;
/// other tables of nftables only after their generation has changed, too, unless their rules look into sets whose elements end by
/// themselves.
#[derive(Debug, Clone)]
pub struct CheapFacts {
    /// How much was, and is, looked at.
    pub effort: Effort,
    /// The mark of our flows.
    pub mark: FlowMark,
    /// Whether the table in the kernel lets new connections from outside reach backends through services only.
    pub protect_backends: bool,
    /// Whether the configuration says that it shall, for people.
    pub configured_to_protect: bool,
    /// The file of the configuration, for people: [`crate::config::Config::path`].
    pub configuration: Arc<str>,
    /// Whether a daemon takes backends out of the balance that do not answer its probes.
    pub is_probed: bool,
    /// The services, as the kernel or the last `apply` tells them.
    pub services: Arc<Summary>,
    /// Settings by their names, `net.ipv4.ip_forward`; what this kernel does not have is missing.
    pub sysctls: BTreeMap<String, String>,
    /// The interfaces.
    pub links: Fact<Vec<Link>>,
    /// All addresses that the gateway takes for its own.
    pub local: Fact<LocalAddresses>,
    /// The way to each backend's address, of packets that come in where clients do; `None` where there is none, or one that
    /// refuses.
    pub ways: Fact<Ways>,
    /// Backends whose ways were not looked for, because there are too many.
    pub ways_left_out: usize,
    /// The way to clients far away, for packets from each of the gateway's own addresses, or from any (`None`).
    pub ways_out: Fact<WaysOut>,
    /// The way to clients far away, for answers that come in by each interface behind which there are backends. One that could
    /// not be found out is missing.
    pub answers: Fact<WaysOfAnswers>,
    /// Answers that have no way.
    pub lost_answers: Fact<LostAnswers>,
    /// Probes that fail, and do not go where packets of clients go: some, where there are many.
    pub misrouted_probes: Fact<Vec<MisroutedProbe>>,
    /// Other tables of nftables, with those of iptables-nft.
    pub firewall: Fact<Arc<Firewall>>,
    /// Tables of iptables-legacy.
    pub legacy: Fact<Arc<Vec<Chain>>>,
    /// Tables of ip6tables-legacy.
    pub legacy6: Fact<Arc<Vec<Chain>>>,
    /// Marks that other programs' rules give packets, and with which routing refuses packets to backends that it lets pass without
    /// one; or answers of backends (`true`).
    pub refused_marks: Fact<BTreeSet<(Family, bool, u32)>>,
    /// Flows to our backends without our mark.
    pub unmarked: Fact<UnmarkedFlows>,
    /// Addresses that the gateway had at an earlier look, and has no more, with the connections of clients that there were then to services
    /// that listen on all addresses.
    pub lost_addresses: BTreeMap<IpAddr, u64>,
    /// `IPReversePathFilter`: packets that the reverse path filter has dropped.
    pub reverse_path_drops: Option<u64>,
}

/// Everything that the doctor knows.
///
/// What is not among the [`CheapFacts`] may take a second on a large gateway: flows and neighbours are listed, descriptors of
/// all processes searched.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What costs little to read.
    pub cheap: CheapFacts,
    /// The kernel's release, `6.1.0-18-amd64`.
    pub release: String,
    /// Our table.
    pub table: Fact<TableFacts>,
    /// How long flows live in silence, if the configuration says it.
    pub idle_timeout: Option<Duration>,
    /// The flow mark of the configuration; that of the table is the one that flows bear.
    pub configured_mark: FlowMark,
    /// Services that no provider defines any more, as the record says.
    pub orphaned: Option<Problem>,
    /// Services that are not served while no daemon runs.
    pub unserved: Option<Problem>,
    /// Who was seen on the links.
    pub neighbours: Fact<Vec<Neighbour>>,
    /// What bridges learned.
    pub learned: Fact<Vec<Learned>>,
    /// What conntrack counts.
    pub stats: Fact<Stats>,
    /// Flows by backend and by the address that it sees them come from.
    pub ports_in_use: Fact<BTreeMap<(SocketAddr, IpAddr), u32>>,
    /// SYNs that met a connection which the backend still held, by backend.
    pub reused: Fact<BTreeMap<SocketAddr, u64>>,
    /// What this kernel lacks.
    pub lacks: Fact<Vec<Lack>>,
    /// Whether conntrack filters flows in the kernel.
    pub conntrack_filter: Fact<bool>,
    /// Sockets that listen, with their processes where these are known.
    pub listeners: Fact<Vec<(Listener, Option<String>)>>,
}

/// Other tables of nftables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Their chains.
    pub chains: Vec<Chain>,
    /// Tables whose chains see frames, which nobody judged.
    pub unjudged: Vec<ForeignTable>,
    /// Our own table.
    pub own_table: Option<OwnTable>,
    /// Whether their rules look into sets that change without news of it.
    pub changes_silently: bool,
}

/// Our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// How it compares with what was written.
    pub state: TableState,
    /// The mark in its comment.
    pub mark: Option<FlowMark>,
    /// The port id of the socket that owns it, and the process that this is as a rule.
    pub owner: Option<(u32, Option<String>)>,
    /// The process of the daemon that says, by its socket, that it is the owner.
    pub daemon: Option<u32>,
}

/// How our table compares with what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// There is none, and none is on record.
    Absent,
    /// It is on record, and gone.
    Gone,
    /// It is what was written last.
    AsWritten,
    /// It is one of this program, and there is no record of it.
    Unrecorded,
    /// Its rules are ours, and its elements are not those that were written.
    Changed,
    /// It has other rules than this program makes. Its comment.
    Other(Option<String>),
}

impl Effort {
    /// Backend addresses whose ways are looked for; each takes the kernel some microseconds.
    pub const fn most_ways(self) -> usize {
        match self {
            Self::Quick => 500,
            Self::Thorough => 50_000,
        }
    }

    /// Rules of other tables that are looked at in all, some tens of nanoseconds each.
    pub const fn most_rules(self) -> usize {
        match self {
            Self::Quick => 50_000,
            Self::Thorough => 1_000_000,
        }
    }
}

impl CheapFacts {
    /// A setting that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name)?.trim().parse().ok()
    }

    /// Returns the chains of other programs that could be read, those of one tool at a time.
    pub fn known_chains(&self) -> impl Iterator<Item = &[Chain]> + '_ {
        let nft = self.firewall.iter().map(|firewall| firewall.chains.as_slice());
        let legacy = [&self.legacy, &self.legacy6].into_iter().flatten();
        nft.chain(legacy.map(|chains| chains.as_slice()))
    }

    /// Every backend's endpoint.
    pub fn backends(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.services.services.iter().flat_map(ServiceSummary::backends)
    }

    /// Whether a family has backends, or no family has any.
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

    /// The interface of that number.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.as_ref().ok()?.iter().find(|link| link.index == index)
    }
}
