//! The daemon without its edges: what it knows, and what it does about what it hears.
//!
//! Pure: takes messages and the time, and gives jobs, answers and events. No socket, no clock, no task. One job is out at a
//! time; what comes meanwhile is put together, so that a burst of changes becomes one transaction.

mod addon;
mod addon_orders;
mod addon_views;
mod api_services;
mod batch;
mod configuration;
mod deploys;
mod edits;
mod fences;
mod held_back;
mod in_record;
mod input;
mod jobs;
mod judge;
mod observation;
mod order_queue;
mod orders;
mod orphans;
mod pending;
mod problems;
mod rejected;
mod replies;
mod restored;
mod results;
mod serving;
mod start;
mod store_contents;
mod surroundings;
mod timers;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{Event, Events, What};
use crate::config::Config;
use crate::config::daemon::DaemonSettings;
use crate::control::membership::{Membership, Name};
use crate::control::request::{Peer, Refused, Reply, TornDown};
use crate::reconcile::engine::ServicesByName;
use crate::record::{Applied, StoreRevision, TornDown as TornDownBy};
use crate::store::last::Last;
use crate::view::Table;
use tcpgw_core::diff::count;
use tcpgw_core::health::{Health, Probe};
use tcpgw_core::model::{Endpoint, FlowMark, Service, State};
use tcpgw_core::problem::ProblemList;
use tcpgw_core::summary::Summary;

use self::addon::Addon;
use self::api_services::Held;
use self::deploys::Deploys;
use self::held_back::HeldBack;
use self::jobs::Out;
pub use self::judge::{Unvetted, Vet, Vetted};
use self::observation::Observing;
use self::order_queue::OrderQueue;
pub use self::order_queue::{ApplyOrder, MOST_ORDERS, Order};
use self::orphans::{LastTrouble, Orphans};
use self::pending::PendingReply;
use self::problems::Judgement;
use self::rejected::Rejected;
use self::timers::Due;

/// The time, by the clocks that matter.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// That only goes forward.
    pub instant: Instant,
    /// Since 1970; somebody may set this clock.
    pub unix: Duration,
    /// Since the machine has started (`CLOCK_BOOTTIME`): the same clock for each process until it starts anew.
    pub boot: Duration,
}

/// What an order is told while nothing is served.
const TORN_DOWN: &str = "the gateway is torn down and serves nothing: `tcpgw resume` ends that";
/// Handshakes in flight to a backend that leaves get so long to be answered.
const GRACE: Duration = Duration::from_millis(50);
/// After a failure the kernel is tried again after this, and then after twice as long each time, up to a minute.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Who says what a service should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// The state file.
    File,
    /// The API.
    Api,
}

impl Provider {
    /// As people and the API call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for the providers' first word.
    Waiting,
    /// It looks what the kernel has.
    Looking,
    /// It keeps the kernel as it should be.
    Running,
    /// It was torn down, and serves nothing until somebody says so.
    TornDown,
}

/// What it knows and does.
pub struct Core {
    settings: DaemonSettings,
    config: Config,
    /// What the configuration, as it was read last, says of `protect_backends`; `config` has what is in effect.
    configured_to_protect: bool,
    phase: Phase,
    /// Every provider has said its first word.
    ready: bool,
    membership: Membership,
    health: Health,
    file: Option<Arc<State>>,
    /// Where `file` was read from.
    file_origin: Option<PathBuf>,
    api: Held,
    addon: Addon,
    orphans: Orphans,
    /// What an earlier daemon wanted, until that has been looked at.
    last: Last,
    last_trouble: LastTrouble,
    /// The kernel's name for this boot.
    boot: String,
    /// The last change of the kernel.
    applied: Option<Applied>,
    /// Who tore the gateway down, if it is.
    torn: Option<TornDownBy>,
    /// Services of the API that were removed by an order, as they were before.
    removed: BTreeMap<Name, Option<Service>>,
    held_back: HeldBack,
    rejected: Rejected,
    /// Why the last reload left the old configuration in place, if it did.
    reload_failed: Option<String>,
    /// What the file says next is judged as a whole.
    judge_all: bool,
    order_queue: OrderQueue,
    deploys: Deploys,
    origin: String,
    events: Events,
    due: Due,
    /// The job that is out, by what it is for.
    out: Option<Out>,
    waiting: Vec<PendingReply>,
    /// Services of which something has changed that the record does not know: the next change of the kernel writes it down.
    unrecorded: BTreeSet<Name>,
    /// What of the record could not be written the last time, and why.
    record_trouble: Option<String>,
    /// Why nothing can be written into the run directory, as was seen there, whether anything had to be written since or not.
    run_dir_trouble: Option<String>,
    teardown: Vec<(Peer, Reply<Result<TornDown, Refused>>)>,
    /// A full run is due, and why.
    full: Option<String>,
    /// Why the next change happens.
    cause: String,
    /// When it was known.
    known: Option<Instant>,
    failures: u32,
    problems: ProblemList,
    judgement: Judgement,
    observing: Observing,
    /// When backends were found to be as they are.
    since: BTreeMap<SocketAddr, u64>,
    table: Option<Table>,
    view: View,
    started: Duration,
    namespace: u64,
}

/// What only the process knows of itself.
#[derive(Debug, Clone, Default)]
struct View {
    owns_table: bool,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(settings: DaemonSettings, config: Config, namespace: u64, now: Now) -> Self {
        let membership = Membership::new(settings.all_failed);
        let health = Health::new(settings.max_probes);
        Self {
            phase: Phase::Waiting,
            ready: false,
            membership,
            health,
            file: None,
            file_origin: None,
            api: Held::default(),
            addon: Addon::new(config.addon.clone()),
            orphans: Orphans::default(),
            last: Last::default(),
            last_trouble: LastTrouble::default(),
            boot: String::new(),
            applied: None,
            torn: None,
            removed: BTreeMap::new(),
            held_back: HeldBack::default(),
            rejected: Rejected::default(),
            reload_failed: None,
            judge_all: false,
            order_queue: OrderQueue::default(),
            deploys: Deploys::default(),
            origin: origin(&settings),
            // No other daemon has both.
            events: Events::new(&format!("{:x}.{}", now.unix.as_nanos(), std::process::id())),
            due: Due::new(settings.check_interval),
            out: None,
            waiting: Vec::new(),
            unrecorded: BTreeSet::new(),
            record_trouble: None,
            run_dir_trouble: None,
            teardown: Vec::new(),
            full: None,
            cause: String::new(),
            known: None,
            failures: 0,
            problems: ProblemList::default(),
            judgement: Judgement::default(),
            observing: Observing::new(now.instant),
            since: BTreeMap::new(),
            table: None,
            view: View::default(),
            started: now.unix,
            namespace,
            settings,
            configured_to_protect: config.protect_backends,
            config,
        }
    }

    /// The probes that are to be made.
    pub fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// Probes to send now. They come from where clients' connections come from: a service's `source_addresses`, in turn.
    pub fn due_probes(&mut self, now: Now) -> Vec<Probe> {
        let mut probes = self.health.due(now.instant);
        for probe in &mut probes {
            probe.source = self.probe_source(probe);
        }
        probes
    }

    fn probe_source(&self, probe: &Probe) -> Option<IpAddr> {
        let endpoint = Endpoint::try_from(probe.endpoint).ok()?;
        let of_deploy = || self.membership.wanted().get(self.deploys.service_of(endpoint)?);
        let service = self.membership.probed_for(endpoint).or_else(of_deploy)?;
        let is_of_family = |address: &&IpAddr| address.is_ipv4() == endpoint.address.is_ipv4();
        let addresses = || service.source_addresses.iter().filter(is_of_family);
        // Numbers of probes go by all endpoints: with two of them one would always get the even ones.
        let round = usize::try_from(probe.round).unwrap_or_default();
        addresses().nth(round % addresses().count().max(1)).copied()
    }

    /// Who serves, and who shall.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The mark of our flows.
    pub fn mark(&self) -> FlowMark {
        self.config.flow_mark
    }

    /// Whether the kernel holds what is desired, all of it, as far as is known.
    pub fn in_sync(&self) -> bool {
        self.holds() && !self.problems.iter().any(|problem| problem.kind.is_out_of_sync())
    }

    /// Whether the kernel holds what is desired, as far as is known.
    fn holds(&self) -> bool {
        self.phase == Phase::Running
            && self.full.is_none()
            && !self.membership.is_dirty()
            && self.out.as_ref().is_none_or(|out| out.cause.is_empty())
    }

    /// Whether a job is out.
    pub fn is_busy(&self) -> bool {
        self.out.is_some()
    }

    /// How it is, in a line.
    pub fn status_line(&self) -> String {
        let leaving = match self.membership.draining_backends().len() {
            0 => String::new(),
            some => format!(", {} draining", count(some, "backend")),
        };
        let problem = self.problems.line();
        let problem = problem.map(|problem| format!("; {problem}")).unwrap_or_default();
        let services = count(self.membership.wanted().len(), "service");
        format!("{services}{leaving}{problem}")
    }

    /// Whether it has made the kernel equal to what is desired once.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::TornDown) && self.full.is_none() && self.table.is_some()
            || self.phase == Phase::TornDown
    }

    /// Whether it is known what the kernel holds: what was desired before has been compared with it.
    fn has_looked(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::TornDown)
    }

    /// Notes an event, and logs it.
    pub fn note(&mut self, what: What, now: Now) -> Arc<Event> {
        let app = what.service().and_then(|service| self.app_of_service(service)).cloned();
        what.log(app.as_ref(), |names| self.naming_apps(names));
        self.events.note(what, app, now.unix)
    }

    /// How far the store has got, as far as is known: one that is older can be told from it.
    fn store_revision(&self) -> StoreRevision {
        StoreRevision::new(&self.settings.store, self.known_revision())
    }

    fn known_revision(&self) -> u64 {
        if self.order_queue.lost {
            self.last.revision
        } else {
            self.api.revision()
        }
    }

    /// Puts that into the membership.
    fn want(&mut self, now: Instant) {
        let of_name = |service: &Arc<Service>| (service.name.clone(), Arc::clone(service));
        let wanted: ServicesByName = self.desired().map(of_name).collect();
        self.membership.want_all(&wanted, now);
    }

    /// What services may be called that only the kernel tells of.
    fn wanted_summary(&self) -> Summary {
        // A service that is held back is in the kernel where it was before.
        let kept = self.last.kept.iter().filter(|kept| !kept.is_unserved);
        let mut summary: Summary = kept.map(|kept| &*kept.service).collect();
        summary.complete_from(&self.desired().map(AsRef::as_ref).collect());
        let last = self.last.services.iter().map(|(_, service)| &**service);
        summary.complete_from(&last.collect());
        // One that was removed a moment ago may be there still, and no record knows it.
        summary.complete_from(&self.removed.values().flatten().collect());
        summary
    }
}

/// Where changes that nobody ordered come from.
fn origin(settings: &DaemonSettings) -> String {
    let path = settings.state.as_ref();
    path.map_or_else(|| "api".into(), |path| path.to_string_lossy().into_owned())
}
