//! What is asked of a running daemon, and what it answers. The API asks; the daemon's loop answers, one after the other.

mod deploys;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use super::events::{After, Followed};
use crate::addon::id::{PlanName, PlatformId, ResourceId};
use crate::addon::{AddonOutcome, Dialect, PortUse, Refusal, Request, Resource, ServiceState, Target};
use crate::control::storage::Query;
use crate::report::AnyReport;
use crate::store::StoredService;
use crate::view::snapshot::Snapshot;
use tcpgw_core::model::{FlowMark, Problems, Service, Word as _};
use tcpgw_core::problem::Kind;

pub use self::deploys::{DeployOrder, DeployView, TargetView, UndoOrder, Which};
pub use self::services::{
    AddonView, BackendView, BatchItem, BatchOrder, EditOrder, Edited, EditedBatch, List, Listed, MAX_BATCH, PauseOrder,
    PauseView, ServiceEdit, ServiceView,
};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// One question or order.
#[derive(Debug)]
pub enum DaemonRequest {
    /// What the gateway is meant to do, and how it is, as far as the loop knows without asking the kernel.
    Snapshot(Reply<Snapshot>),
    /// Replace the services that came in through the API.
    Apply(Apply, Reply<Result<Applied, Refused>>),
    /// The events after that one that are still kept, and those that come.
    Follow(After, Reply<Followed>),
    /// Remove the table and our flows, and do nothing until something new is desired.
    Teardown(Peer, Reply<Result<TornDown, Refused>>),
    /// Serve again after a teardown; whether there had been one.
    Resume(Peer, Reply<Result<Resumed, Refused>>),
    /// All services, whoever they came from.
    Services(Reply<List>),
    /// One of them.
    Service(Box<str>, Reply<Option<ServiceView>>),
    /// Change one that came in through the API.
    Edit(EditOrder, Reply<Result<Edited, Refused>>),
    /// Change several that came in through the API, all or none.
    Batch(BatchOrder, Reply<Result<EditedBatch, Refused>>),
    /// Hold new connections of a service back for a time, or no longer.
    /// The answer: what is odd about it.
    Pause(PauseOrder, Reply<Result<Vec<String>, Refused>>),
    /// Begin a deploy; its id when that is on the disk.
    Deploy(DeployOrder, Reply<Result<u64, Refused>>),
    /// End a deploy that probes, or put back what was before it while the old backends drain; its id when that is on the
    /// disk and in the kernel.
    Undo(UndoOrder, Reply<Result<u64, Refused>>),
    /// The deploys that are not over.
    Deploys(Reply<Vec<DeployView>>),
    /// Provision, change or remove a resource of the add-on; what it came to when that is on the disk.
    Addon(AddonOrder, Reply<Result<AddonOutcome, AddonRefused>>),
    /// One resource of the add-on.
    Resource(Target, Reply<Result<Arc<Resource>, AddonRefused>>),
    /// The services that an app has and had, the newest first.
    ServicesOfApp(PlatformId, Reply<Result<Vec<Box<str>>, AddonRefused>>),
    /// The apps of those of these services that are, or were, the add-on's.
    AppsOfServices(BTreeSet<Box<str>>, Reply<BTreeMap<Box<str>, PlatformId>>),
    /// What the page of one resource shows.
    AppPage(ResourceId, Reply<Result<AppView, AddonRefused>>),
    /// One resource of the add-on, as the operator sees it.
    ResourceView(Target, Reply<Result<ResourceView, AddonRefused>>),
    /// All resources of the add-on, by id, as the operator sees them.
    Resources(Reply<Result<ResourceList, AddonRefused>>),
    /// Read the store.
    Query(Query),
}

/// Who asks: the process at the other end of the socket, as the kernel knew it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process number, where it is one in the daemon's own namespace of them.
    pub pid: Option<i32>,
}

/// A request about a resource of the add-on.
#[derive(Debug, Clone)]
pub struct AddonOrder {
    /// The request, with its values.
    pub request: Request,
    /// The provider API that it came through.
    pub through: Dialect,
    /// Random bits for the id of a new resource.
    pub random: u64,
    /// By whom.
    pub by: Peer,
}

impl AddonOrder {
    /// Returns an order with random bits of the system.
    ///
    /// # Errors
    /// The system gives none.
    pub fn new(request: Request, through: Dialect, by: Peer) -> Result<Self, getrandom::Error> {
        let random = getrandom::u64()?;
        Ok(Self {
            request,
            through,
            random,
            by,
        })
    }

    /// Returns what is ordered in a few words, for the history: `addon provision through heroku`.
    pub fn what(&self) -> String {
        let word = match &self.request {
            Request::Provision(_) => "provision",
            Request::ChangePlan(..) => "plan",
            Request::Suspend(_) => "suspend",
            Request::Resume(_) => "resume",
            Request::Deprovision(_) => "deprovision",
            Request::Bind(..) => "bind",
            Request::Unbind(..) => "unbind",
        };
        match self.through {
            Dialect::Local => format!("addon {word}"),
            through => format!("addon {word} through {}", through.word()),
        }
    }
}

/// All resources, and the ports that they get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceList {
    /// By id.
    pub resources: Vec<ResourceView>,
    /// The ports; `None` where the add-on is off.
    pub ports: Option<PortUse>,
}

/// A resource, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Our own id of the resource.
    pub id: ResourceId,
    /// The app that it is for, as the platform calls it.
    pub app: PlatformId,
    /// The provider API through which it was provisioned; `local` for the command line.
    pub dialect: Dialect,
    /// Its plan.
    pub plan: PlanName,
    /// Its public port.
    pub port: NonZeroU16,
    /// `TCP_URL`; `None` while the add-on is off.
    pub url: Option<String>,
    /// The name of its service.
    pub service: String,
    /// How that is.
    pub state: ServiceState,
    /// Seconds since 1970 when it was provisioned.
    pub created: u64,
    /// Its bindings.
    pub bindings: Vec<BindingView>,
    /// Why this may be out of date, in words; `None`: it is what the store holds.
    pub warning: Option<String>,
}

/// A binding of Open Service Broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// The binding's id, as the platform calls it.
    pub id: PlatformId,
    /// The app that it was made for.
    pub app: Option<PlatformId>,
}

/// What the owner of an app is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct AppView {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Its service.
    pub service: Option<ServiceView>,
    /// The service as new connections meet it now; `None`: it is not served.
    pub served: Option<Arc<Service>>,
    /// Whether the gateway was torn down, so that nothing is served.
    pub is_torn_down: bool,
    /// The kinds of errors of the whole gateway and of this service.
    pub errors: BTreeSet<Kind>,
    /// The mark of the gateway's flows.
    pub mark: FlowMark,
}

/// Why a request about a resource was not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonRefused {
    /// By the add-on's own rules.
    Resource(Refusal),
    /// By the daemon.
    Daemon(Refused),
    /// The configuration has no `[addon]`.
    Off,
}

/// `apply`, through the daemon.
#[derive(Debug, Clone)]
pub struct Apply {
    /// The state file's text.
    pub state: Vec<u8>,
    /// Where it came from, as the record says it.
    pub origin: String,
    /// How it is applied.
    pub options: ApplyOptions,
    /// By whom.
    pub by: Peer,
}

/// How a state is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ApplyOptions {
    /// Say what would change, and change nothing.
    pub dry_run: bool,
    /// Accept ports on which a local program listens.
    pub take_over: bool,
    /// Accept a state without services.
    pub allow_empty: bool,
    /// Remove services that no provider defines any more, unless the state defines them.
    pub prune: bool,
    /// Hold services back that are not possible here now, instead of refusing all.
    pub hold_back: bool,
    /// Instead of each service's `drain_timeout`.
    pub drain: Option<Duration>,
}

/// What an apply came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied<R = AnyReport> {
    /// What `tcpgw apply -o json` (or `diff -o json`, for a dry run) prints.
    pub report: R,
    /// The line that `tcpgw apply` (or the lines that `diff`) prints.
    pub text: String,
    /// Warnings about the state.
    pub warnings: Vec<String>,
}

/// What a teardown removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a table.
    pub table_removed: bool,
    /// Flows that were deleted.
    pub flows_flushed: u64,
    /// Flows that could not be deleted.
    pub flows_not_flushed: u64,
    /// Why it does not last: it could not be written, and the next daemon serves again.
    #[serde(default)]
    pub not_lasting: Option<String>,
}

/// What a resume came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Whether there had been a teardown.
    pub resumed: bool,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// Why the daemon did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The input is wrong: exit code 2, HTTP 422.
    Invalid(Problems),
    /// For the operator's own good, or because of another provider: exit code 1, HTTP 409.
    Refused(String),
    /// There is nothing of that name: exit code 1, HTTP 404.
    Missing(String),
    /// The service is not as expected: exit code 1, HTTP 409 with the service as it is, if it is there.
    Conflict(String, Option<Box<StoredService>>),
    /// The store does not take changes, and nothing was changed: exit code 1, HTTP 507.
    Store(String),
    /// Too much waits already, and nothing was changed: exit code 1, HTTP 503.
    Busy(String),
    /// The kernel did not do as asked: exit code 1, HTTP 500.
    Failed(String),
}
