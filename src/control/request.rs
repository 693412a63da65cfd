//! Requests to a running daemon, and its answers. The API sends them; the daemon's main loop answers them one by one.

mod deploys;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::events::{After, Followed};
use super::reply::ReplySender;
use crate::addon::id::{PlanName, PlatformId, ResourceId};
use crate::addon::{AddonOutcome, AddonRequest, Dialect, PortUse, Refusal, Resource, ResourceTarget, ServiceState};
use crate::apply_report::AnyReport;
use crate::control::storage::Query;
use crate::metrics::OwnMetrics;
use crate::record::author;
use crate::store::StoredService;
use crate::view::snapshot_parts::SnapshotParts;
use tcpgw_core::model::{FlowMark, InputProblems, Service, Word as _};
use tcpgw_core::problem::ProblemKind;

pub use self::deploys::{DeployOrder, DeploySelector, DeployView, TargetView, UndoOrder};
pub use self::services::{
    AddonView, BackendView, BatchItem, BatchOrder, EditOrder, Edited, EditedBatch, ListedService, ListedServices,
    MAX_BATCH, PauseOrder, PauseView, ServiceEdit, ServiceView,
};

/// A query or an order.
#[derive(Debug)]
pub enum DaemonRequest {
    /// Return the parts of the desired state and the present one, as far as the main loop knows them without a query of the kernel.
    Snapshot(ReplySender<SnapshotParts>),
    /// Return the mark of flows.
    FlowMark(ReplySender<FlowMark>),
    /// Replace the services of the API.
    Apply(Apply, ReplySender<Result<Applied, Refused>>),
    /// Return the events after the given position that are still kept, and a receiver of future ones.
    Follow(After, ReplySender<Followed>),
    /// Remove the table and the flows of tcpgw, and serve nothing until a resume.
    Teardown(Peer, ReplySender<Result<TornDown, Refused>>),
    /// Serve again after a teardown.
    Resume(Peer, ReplySender<Result<Resumed, Refused>>),
    /// Return all services, of all providers.
    Services(ReplySender<ListedServices>),
    /// Return one service.
    Service(Box<str>, ReplySender<Option<ServiceView>>),
    /// Change one service of the API.
    Edit(EditOrder, ReplySender<Result<Edited, Refused>>),
    /// Change several services of the API, all or none.
    Batch(BatchOrder, ReplySender<Result<EditedBatch, Refused>>),
    /// Pause new connections of a service for a time, or resume them. The answer contains warnings.
    Pause(PauseOrder, ReplySender<Result<Vec<String>, Refused>>),
    /// Begin a deploy. The answer is its id, when it is stored.
    Deploy(DeployOrder, ReplySender<Result<u64, Refused>>),
    /// End a deploy that probes, or restore the old backends while they drain. The answer is its id, when that is
    /// stored and in the kernel.
    Undo(UndoOrder, ReplySender<Result<u64, Refused>>),
    /// Return the deploys that have not ended.
    Deploys(ReplySender<Vec<DeployView>>),
    /// Provision, change or remove a resource of the add-on. The answer comes when that is stored.
    Addon(AddonOrder, ReplySender<Result<AddonOutcome, AddonRefused>>),
    /// Return one resource of the add-on.
    Resource(ResourceTarget, ReplySender<Result<Arc<Resource>, AddonRefused>>),
    /// Return the services that an app has and had, the newest first.
    ServicesOfApp(PlatformId, ReplySender<Result<Vec<Box<str>>, AddonRefused>>),
    /// Return the apps of those services that belong, or belonged, to the add-on.
    AppsOfServices(BTreeSet<Box<str>>, ReplySender<BTreeMap<Box<str>, PlatformId>>),
    /// Return the data of the page of one resource.
    AppPage(ResourceId, ReplySender<Result<AppView, AddonRefused>>),
    /// Return one resource of the add-on, as the operator sees it.
    ResourceView(ResourceTarget, ReplySender<Result<ResourceView, AddonRefused>>),
    /// Return all resources of the add-on by id, as the operator sees them.
    Resources(ReplySender<Result<ResourceList, AddonRefused>>),
    /// Return what metrics show of the daemon.
    Metrics(ReplySender<MetricsView>),
    /// Read from the store.
    Query(Query),
}

/// Values of the daemon that metrics show.
#[derive(Debug, Clone, Default)]
pub struct MetricsView {
    /// State of the daemon and its services.
    pub parts: SnapshotParts,
    /// Plans of the add-on's services, by name.
    pub plans: BTreeMap<Box<str>, PlanName>,
    /// Counters of the daemon's own work.
    pub own: OwnMetrics,
}

/// The client: the process at the other end of the socket, as the kernel knew it when it connected, or the daemon itself for a
/// listener over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, if it has one in the daemon's process namespace.
    pub pid: Option<i32>,
    /// Address of the browser, if it asked through the dashboard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<IpAddr>,
}

impl Peer {
    /// Returns the way by which an order came, if not by the socket: `web (192.0.2.7)`.
    pub fn through(&self) -> Option<String> {
        self.browser.map(|_| self.author())
    }

    /// Returns the author of an order, for people: `uid 0`, `web (192.0.2.7)`.
    pub fn author(&self) -> String {
        author(self.uid, self.browser)
    }
}

/// A request about a resource of the add-on.
#[derive(Debug, Clone)]
pub struct AddonOrder {
    /// The request, with its values.
    pub request: AddonRequest,
    /// The provider API that it came through.
    pub through: Dialect,
    /// Random bits for the id of a new resource.
    pub random: u64,
    /// Author.
    pub by: Peer,
}

impl AddonOrder {
    /// Returns an order with random bits of the system.
    ///
    /// # Errors
    /// Fails when the system returns no random bits.
    pub fn new(request: AddonRequest, through: Dialect, by: Peer) -> Result<Self, getrandom::Error> {
        let random = getrandom::u64()?;
        Ok(Self {
            request,
            through,
            random,
            by,
        })
    }

    /// Returns a description for the history: `addon provision through heroku`.
    pub fn what(&self) -> String {
        let word = match &self.request {
            AddonRequest::Provision(_) => "provision",
            AddonRequest::ChangePlan(..) => "plan",
            AddonRequest::Suspend(_) => "suspend",
            AddonRequest::Resume(_) => "resume",
            AddonRequest::Deprovision(_) => "deprovision",
            AddonRequest::Bind(..) => "bind",
            AddonRequest::Unbind(..) => "unbind",
        };
        match self.through {
            Dialect::Local => format!("addon {word}"),
            through => format!("addon {word} through {}", through.word()),
        }
    }
}

/// The resources of the add-on, and the use of their ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceList {
    /// Resources by id.
    pub resources: Vec<ResourceView>,
    /// Use of the ports; `None`: the add-on is off.
    pub ports: Option<PortUse>,
}

/// A resource, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Id that tcpgw gave the resource.
    pub id: ResourceId,
    /// App of the resource, by the platform's id.
    pub app: PlatformId,
    /// The provider API through which it was provisioned; `local` for the command line.
    pub dialect: Dialect,
    /// Plan of the resource.
    pub plan: PlanName,
    /// Public port of the service.
    pub port: NonZeroU16,
    /// `TCP_URL`; `None` while the add-on is off.
    pub url: Option<String>,
    /// Name of its service.
    pub service: String,
    /// State of its service.
    pub state: ServiceState,
    /// Time at which it was provisioned, in seconds since the Unix epoch.
    pub created: u64,
    /// Bindings of Open Service Broker.
    pub bindings: Vec<BindingView>,
    /// Reason why this may be out of date; `None`: it is as in the store.
    pub warning: Option<String>,
}

/// A binding of Open Service Broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// Id of the binding, by the platform.
    pub id: PlatformId,
    /// App that it was made for.
    pub app: Option<PlatformId>,
}

/// Data for the page of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppView {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Service of the resource.
    pub service: Option<ServiceView>,
    /// The service as new connections meet it now; `None`: it is not served.
    pub served: Option<Arc<Service>>,
    /// Whether the gateway was torn down, so that nothing is served.
    pub is_torn_down: bool,
    /// Backends that another service has as well, such as one from which a container with the same address is just removed:
    /// what the kernel counts for the endpoint is not of this service alone.
    pub shared_backends: BTreeSet<SocketAddr>,
    /// Kinds of errors of the whole gateway and of this service.
    pub errors: BTreeSet<ProblemKind>,
    /// The mark of the gateway's flows.
    pub mark: FlowMark,
}

/// Reason why a request about a resource was not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonRefused {
    /// The rules of the add-on refuse it.
    Resource(Refusal),
    /// The daemon refuses it.
    Daemon(Refused),
    /// The configuration has no `[addon]`.
    Off,
}

/// An `apply` through the daemon.
#[derive(Debug, Clone)]
pub struct Apply {
    /// Text of the state file.
    pub state: Vec<u8>,
    /// Origin of the state, as the record names it.
    pub origin: String,
    /// Options.
    pub options: ApplyOptions,
    /// Author.
    pub by: Peer,
}

/// Options of an apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ApplyOptions {
    /// Whether to report the changes without making them.
    pub dry_run: bool,
    /// Whether to accept ports on which a local program listens.
    pub take_over: bool,
    /// Whether to accept a state without services.
    pub allow_empty: bool,
    /// Whether to remove services that no provider defines any more, unless the state defines them.
    pub prune: bool,
    /// Whether to hold services back that are not possible here now, instead of refusing all.
    pub hold_back: bool,
    /// Drain time in place of each service's `drain_timeout`.
    pub drain: Option<Duration>,
}

/// Result of an apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Report of the apply, or of the dry run.
    pub report: AnyReport,
    /// Warnings about the state.
    pub warnings: Vec<String>,
}

/// Result of a teardown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a table.
    pub table_removed: bool,
    /// Number of flows deleted.
    pub flows_flushed: u64,
    /// Number of flows that could not be deleted.
    pub flows_not_flushed: u64,
    /// Reason why the teardown ends with the daemon: it could not be written down.
    #[serde(default)]
    pub not_lasting: Option<String>,
}

/// Result of a resume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Whether the gateway had been torn down.
    pub resumed: bool,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Reason why the daemon refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The input is wrong: exit code 2, HTTP 422.
    Invalid(InputProblems),
    /// The request is refused to prevent damage, or because of another provider: exit code 1, HTTP 409.
    Refused(String),
    /// The service or deploy does not exist: exit code 1, HTTP 404.
    Missing(String),
    /// The service is not as expected: exit code 1, HTTP 409 with the present service, if it exists.
    Conflict(String, Option<Box<StoredService>>),
    /// The store does not take changes, and nothing was changed: exit code 1, HTTP 507.
    Store(String),
    /// Too many orders wait, or the daemon is starting, and nothing was changed: exit code 1, HTTP 503.
    Busy(String),
    /// The daemon is ending, and nothing was changed: exit code 1, HTTP 503.
    Ending,
    /// The kernel or the system failed: exit code 1, HTTP 500.
    Failed(String),
}
