//! State machine of the daemon: takes messages and the time, and returns jobs, replies and events.
//!
//! It is pure: it uses no socket, no clock and no task. At most one job runs at a time; changes that arrive meanwhile
//! are merged, so that a burst of changes becomes one transaction.

mod acceptance;
mod addon;
mod addon_orders;
mod addon_views;
mod amendments;
mod api_services;
mod batch;
mod configuration;
mod deploys;
mod docker;
mod docker_problems;
mod docker_snapshot;
mod edits;
mod ending;
mod fences;
mod group_commit;
mod grouping;
mod held_back;
mod input;
mod jobs;
mod observation;
mod obstacles;
mod order;
mod order_queue;
mod orders;
mod orphans;
mod own_listeners;
mod pending;
mod pending_write;
mod problems;
mod provisioned;
mod record_contents;
mod reexamination;
mod rejected;
mod replies;
mod restored;
mod results;
mod serving;
mod start;
mod store_contents;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event_tap::EventTap;
use super::events::{Event, EventContent, Events};
use crate::config::Config;
use crate::config::daemon::DaemonSettings;
use crate::control::membership::Membership;
use crate::control::request::{Peer, Refused, TornDown};
use crate::control::storage::Continuity;
use crate::metrics::OwnMetrics;
use crate::reconcile::engine::ServicesByName;
use crate::record::{ApplyNote, RecordedPause, StoreRevision, TeardownNote};
use crate::store::last_services::LastServices;
use crate::store::{StoreEpoch, StoreIdentity, StoreLineage};
use crate::view::TableView;
use tcpgw_core::health::{Health, Probe};
use tcpgw_core::model::{Endpoint, FlowMark, Service, State};
use tcpgw_core::problem::{Problem, ProblemList};
use tcpgw_core::summary::Summary;
use tcpgw_core::words::count;

pub use self::acceptance::{GatewayCheck, GatewayCheckError, GatewayFindings};
use self::addon::Addon;
use self::api_services::ApiServices;
use self::deploys::Deploys;
use self::docker::DockerServices;
use self::held_back::HeldBack;
use self::jobs::RunningJob;
use self::observation::Observing;
pub use self::order::{ApplyOrder, Order};
pub use self::order_queue::MOST_ORDERS;
use self::order_queue::OrderQueue;
use self::orphans::{LastTrouble, Orphans};
use self::pending::PendingReply;
use self::problems::CheckTiming;
use self::rejected::Rejected;
use self::timers::Due;
use crate::control::name::Name;
use crate::control::reply::ReplySender;

/// Current time by the clocks that the core uses.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time.
    pub instant: Instant,
    /// Time since the Unix epoch; this clock may be set.
    pub unix: Duration,
    /// Time since the machine started (`CLOCK_BOOTTIME`), the same for all processes of one boot.
    pub boot: Duration,
}

/// Error for orders that need services to be served, while the gateway is torn down.
const TORN_DOWN: &str = "the gateway is torn down and serves nothing: `tcpgw resume` ends that";
/// Time that a backend has to answer handshakes in flight before it is taken out.
const GRACE: Duration = Duration::from_millis(50);
/// Delay before the kernel is tried again after a failure. It doubles with each further failure, up to [`RETRY_MOST`].
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Source of the definition of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// The state file.
    File,
    /// The API.
    Api,
    /// A Docker engine, whose containers become backends by their labels.
    Docker,
}

impl Provider {
    /// Returns the name in the API and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Docker => "docker",
        }
    }
}

/// Phase of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DaemonPhase {
    /// Waits until each provider has given its first state.
    Waiting,
    /// Reads the state of the kernel.
    Reading,
    /// Keeps the kernel equal to the desired state.
    Running,
    /// Torn down: serves nothing until it is resumed.
    TornDown,
}

/// The state machine of the daemon.
pub struct Core {
    settings: DaemonSettings,
    config: Config,
    /// `protect_backends` of the configuration as it was read last; `config` has the value in effect.
    configured_to_protect: bool,
    phase: DaemonPhase,
    /// Whether each provider has given its first state, or cannot.
    ready: bool,
    membership: Membership,
    health: Health,
    file: Option<Arc<State>>,
    /// File that `file` was read from.
    file_origin: Option<PathBuf>,
    docker: DockerServices,
    api: ApiServices,
    addon: Addon,
    orphans: Orphans,
    /// Desired state of an earlier daemon, until it has been compared with the store and the kernel.
    last: LastServices,
    last_trouble: LastTrouble,
    /// Boot id of the kernel.
    boot: String,
    /// Last change of the kernel.
    applied: Option<ApplyNote>,
    /// Author of the teardown, while the gateway is torn down.
    torn: Option<TeardownNote>,
    /// Services of the API that an order removed, as they were before.
    removed: BTreeMap<Name, Option<Service>>,
    held_back: HeldBack,
    /// Address of the listener for metrics that is in use.
    web_listens: Option<SocketAddr>,
    rejected: Rejected,
    /// Error of the last reload, if it failed.
    reload_failed: Option<String>,
    /// Whether the next state of the file is judged as a whole, not only its changes.
    judge_all: bool,
    order_queue: OrderQueue,
    deploys: Deploys,
    origin: String,
    events: Events,
    due: Due,
    /// The job that runs, and its purpose.
    out: Option<RunningJob>,
    waiting: Vec<PendingReply>,
    /// Services that changed without a change of the record; the next change of the kernel writes them there.
    unrecorded: BTreeSet<Name>,
    /// Error of the last write of the record, if it failed.
    record_trouble: Option<String>,
    /// Reason why the run directory cannot be written, found by a check that does not depend on writes.
    run_dir_trouble: Option<String>,
    /// Consequences of a record that was missing or damaged at the start, until a reload.
    record_lost: Option<String>,
    /// Identity of the open store, if it has one.
    store_identity: Option<StoreIdentity>,
    /// Last epoch of the open store, if it has one.
    store_epoch: Option<StoreEpoch>,
    /// Relation of the store to the one that was in use before, when it was opened.
    store_continuity: Continuity,
    /// Problem that the memory of earlier observations is lost, while that matters.
    memory_lost: Option<Problem>,
    /// Problem that the configuration at its default path is gone and has no copy, until a reload.
    configuration_lost: Option<Problem>,
    /// Pauses that would not be over yet, and that a boot, or the loss of the record and the table, has ended.
    ended_pauses: Vec<RecordedPause>,
    teardown: Vec<(Peer, ReplySender<Result<TornDown, Refused>>)>,
    /// Reason for a full run of the kernel, while one is due.
    full: Option<String>,
    /// Reason for the next change.
    cause: String,
    /// Time at which the first cause of the next change was received.
    known: Option<Instant>,
    failures: u32,
    problems: ProblemList,
    judgement: CheckTiming,
    observing: Observing,
    /// Time since when each backend has had its present state (Unix time in seconds).
    since: BTreeMap<SocketAddr, u64>,
    table: Option<TableView>,
    view: ProcessFacts,
    own: OwnMetrics,
    started: Duration,
    namespace: u64,
}

/// Facts about its own process.
#[derive(Debug, Clone, Default)]
struct ProcessFacts {
    owns_table: bool,
}

impl Core {
    /// Creates a core without any state of providers, store or kernel.
    pub fn new(settings: DaemonSettings, config: Config, namespace: u64, now: Now) -> Self {
        let membership = Membership::new(settings.all_failed);
        let health = Health::new(settings.max_probes);
        Self {
            phase: DaemonPhase::Waiting,
            ready: false,
            membership,
            health,
            file: None,
            file_origin: None,
            docker: DockerServices::default(),
            api: ApiServices::default(),
            addon: Addon::new(config.addon.clone()),
            orphans: Orphans::default(),
            last: LastServices::default(),
            last_trouble: LastTrouble::default(),
            boot: String::new(),
            applied: None,
            torn: None,
            removed: BTreeMap::new(),
            held_back: HeldBack::default(),
            web_listens: None,
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
            record_lost: None,
            store_identity: None,
            store_epoch: None,
            store_continuity: Continuity::Unknown,
            memory_lost: None,
            configuration_lost: None,
            ended_pauses: Vec::new(),
            teardown: Vec::new(),
            full: None,
            cause: String::new(),
            known: None,
            failures: 0,
            problems: ProblemList::default(),
            judgement: CheckTiming::default(),
            observing: Observing::new(now.instant),
            since: BTreeMap::new(),
            table: None,
            view: ProcessFacts::default(),
            own: OwnMetrics::default(),
            started: now.unix,
            namespace,
            settings,
            configured_to_protect: config.protect_backends,
            config,
        }
    }

    /// Returns the health checks of all backends.
    pub fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// Returns the probes to send now. Their source is an address that clients' connections get, too: the
    /// `source_addresses` of the service in turn.
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
        // Rounds are numbered over all endpoints: with two source addresses, an endpoint could otherwise always get
        // the same one.
        let round = usize::try_from(probe.round).unwrap_or_default();
        addresses().nth(round % addresses().count().max(1)).copied()
    }

    /// Returns the desired and the effective services.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the mark of tcpgw's flows.
    pub fn mark(&self) -> FlowMark {
        self.config.flow_mark
    }

    /// Returns whether the kernel holds the whole desired state and no problem says otherwise.
    pub fn in_sync(&self) -> bool {
        self.holds() && !self.problems.iter().any(|problem| problem.kind.is_out_of_sync())
    }

    /// Returns whether no change of the kernel is due or under way.
    fn holds(&self) -> bool {
        self.phase == DaemonPhase::Running
            && self.full.is_none()
            && !self.membership.is_dirty()
            && self.out.as_ref().is_none_or(|out| out.cause.is_empty())
    }

    /// Returns whether a job runs.
    pub fn is_busy(&self) -> bool {
        self.out.is_some()
    }

    /// Returns a summary of the state in one line.
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

    /// Returns whether the kernel has been made equal to the desired state at least once, or the gateway is torn down.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, DaemonPhase::Running | DaemonPhase::TornDown)
            && self.full.is_none()
            && self.table.is_some()
            || self.phase == DaemonPhase::TornDown
    }

    /// Returns whether the state of the kernel is known and has been compared with the last desired state.
    fn has_looked(&self) -> bool {
        matches!(self.phase, DaemonPhase::Running | DaemonPhase::TornDown)
    }

    /// Sends all further events to this channel, too.
    pub fn tap_events(&mut self, tap: EventTap<Event>) {
        self.events.tap(tap);
    }

    /// Records an event, and logs it.
    pub fn note(&mut self, what: EventContent, now: Now) -> Arc<Event> {
        let app = what.service().and_then(|service| self.app_of_service(service)).cloned();
        what.log(app.as_ref(), |names| self.naming_apps(names));
        self.events.note(what, app, now.unix)
    }

    /// Returns the last known revision of the store, by which an older copy of the store can be recognised.
    fn store_revision(&self) -> StoreRevision {
        let identity = self.known_identity();
        StoreRevision::new(
            &self.settings.store,
            self.known_revision(),
            identity,
            self.known_lineage(),
        )
    }

    fn known_revision(&self) -> u64 {
        if self.order_queue.lost {
            self.last.revision
        } else {
            self.api.revision()
        }
    }

    /// Returns the identity of the store, or of the one before it while it cannot be used.
    fn known_identity(&self) -> Option<StoreIdentity> {
        if self.order_queue.lost {
            self.last.identity
        } else {
            self.store_identity
        }
    }

    /// Returns the lineage of the store, or of the one before it while it cannot be used.
    fn known_lineage(&self) -> StoreLineage {
        if self.order_queue.lost {
            return self.last.lineage;
        }
        StoreLineage {
            epoch: self.store_epoch,
            contents: Some(self.api.contents()),
        }
    }

    /// Passes the desired services to the membership.
    fn want(&mut self, now: Instant) {
        let of_name = |service: &Arc<Service>| (service.name.clone(), Arc::clone(service));
        let wanted: ServicesByName = self.desired().map(of_name).collect();
        self.membership.want_all(&wanted, now);
    }

    /// Returns the services that rules in the kernel may belong to, for their names.
    fn wanted_summary(&self) -> Summary {
        // A service that is held back is in the kernel where it was before.
        let kept = self.last.kept.iter().filter(|kept| !kept.is_unserved);
        let mut summary: Summary = kept.map(|kept| &*kept.service).collect();
        summary.complete_from(&self.desired().map(AsRef::as_ref).collect());
        let last = self.last.services.iter().map(|(_, service)| &**service);
        summary.complete_from(&last.collect());
        // A service that was removed just now may still be in the kernel, and is in no record.
        summary.complete_from(&self.removed.values().flatten().collect());
        summary
    }
}

/// Returns the origin of changes that no order caused: the path of the state file, or "api".
fn origin(settings: &DaemonSettings) -> String {
    let path = settings.state.as_ref();
    path.map_or_else(|| "api".into(), |path| path.to_string_lossy().into_owned())
}
