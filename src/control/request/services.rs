//! Orders about one service, and what is told of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Peer;
use crate::addon::ServiceState;
use crate::addon::id::{PlanName, PlatformId, ResourceId};
use crate::store::Expect;
use tcpgw_core::model::{Endpoint, Service};

/// One service shall be otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct EditOrder {
    /// Its name.
    pub name: Box<str>,
    /// How.
    pub edit: ServiceEdit,
    /// As it has to be for that.
    pub expect: Expect,
    /// Accept a port on which a local program listens.
    pub take_over: bool,
    /// For backends that begin to drain by this, instead of the service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// By whom.
    pub by: Peer,
}

/// Most services that one [`BatchOrder`] may change.
pub const MAX_BATCH: usize = 1024;

/// Several services shall be otherwise: all of them, in one transaction, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOrder {
    /// The changes, each of another service; at most [`MAX_BATCH`].
    pub items: Vec<BatchItem>,
    /// Revision that the store has to have; `None`: any.
    pub revision: Option<u64>,
    /// Accept ports on which a local program listens.
    pub take_over: bool,
    /// For backends that begin to drain by this, instead of each service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// By whom.
    pub by: Peer,
}

/// The change of one service of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchItem {
    /// Name of the service.
    pub name: Box<str>,
    /// How it changes.
    pub edit: ServiceEdit,
    /// As it has to be for that.
    pub expect: Expect,
}

/// What has become of a batch. It is on the disk and in the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct EditedBatch {
    /// Revision of the store.
    pub revision: u64,
    /// Whether something is not as it was.
    pub changed: bool,
    /// The services, in the batch's order, each by its name; without warnings of their own.
    pub services: Vec<(Box<str>, Edited)>,
    /// What is odd about them.
    pub warnings: Vec<String>,
}

/// How a service shall be otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceEdit {
    /// So, whatever it was: the JSON of a service, as in the state file. A name in it must be the order's.
    Put(Vec<u8>),
    /// As it is but for this JSON (RFC 7396).
    Patch(Vec<u8>),
    /// Not at all.
    Delete,
    /// These backends, or all if there are none, get no new connections any more (`draining`).
    Drain(Vec<Endpoint>),
    /// These backends, or all if there are none, get new connections again (`active`).
    Undrain(Vec<Endpoint>),
}

/// What has become of an edit. It is on the disk and in the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// As it is now; `None`: it is not there any more.
    pub service: Option<Arc<Service>>,
    /// Of the service's last change; of the store's if it is gone.
    pub revision: u64,
    /// It was not there before.
    pub created: bool,
    /// Something is not as it was.
    pub changed: bool,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A service, whoever it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// As it is desired.
    pub service: Arc<Service>,
    /// Whose: `api` or `file`.
    pub provider: &'static str,
    /// Of its last change; `None` for another provider's.
    pub revision: Option<u64>,
    /// Why it is not possible here now, and held back; empty if it is not.
    pub held_back: Vec<String>,
    /// Its new connections are held back by this.
    pub paused: Option<PauseView>,
    /// The resource of the add-on that it belongs to.
    pub addon: Option<AddonView>,
}

/// The resource that a service belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddonView {
    /// Our own id of the resource.
    pub id: ResourceId,
    /// The app that it is for, as the platform calls it.
    pub app: PlatformId,
    /// Its plan.
    pub plan: PlanName,
    /// How the service is.
    pub state: ServiceState,
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// When it was ordered, in seconds since 1970.
    pub since: u64,
    /// When new connections are accepted again, in seconds since 1970.
    pub until: u64,
    /// The user who ordered it.
    pub uid: u32,
}

/// All services by name, and the revision of the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct List {
    /// Of the store: grows by one with each change.
    pub revision: u64,
    /// By name.
    pub services: Vec<Listed>,
}

/// All that is known of one service without asking the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    /// The service.
    pub listed: Listed,
    /// New connections are dropped for so many seconds more.
    pub paused_for: Option<u64>,
    /// Its backends, those that leave among them, by endpoint.
    pub backends: Vec<BackendView>,
    /// Whether the kernel holds all that is desired of it.
    pub in_kernel: bool,
    /// The deploy that is not over, if there is one.
    pub deploy: Option<super::DeployView>,
}

/// One backend of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Where.
    pub backend: SocketAddr,
    /// As desired: `active`, `draining`, or `gone` (it is not desired any more and has flows still).
    pub desired: Cow<'static, str>,
    /// Whether it gets new connections.
    pub balanced: bool,
    /// What probes say: see [`HealthView::state`](super::HealthView::state).
    pub health: Option<Cow<'static, str>>,
    /// Why the last probe failed, if it did.
    pub reason: Option<String>,
    /// Whether it leaves: it has flows to end, or waits for a replacement.
    pub leaving: bool,
    /// Flows that are left, of the last count, if it leaves.
    pub flows: Option<u64>,
    /// Seconds until they are flushed.
    pub seconds_left: Option<u64>,
}

impl BackendView {
    /// Returns whether probes let it serve.
    pub fn is_serving(&self) -> bool {
        matches!(self.health.as_deref(), Some("healthy" | "failing"))
    }
}

impl ServiceView {
    /// Whether every backend that shall be active is healthy and gets new connections, and there is one.
    pub fn is_healthy(&self) -> bool {
        let mut active = self
            .backends
            .iter()
            .filter(|backend| backend.desired == "active")
            .peekable();
        active.peek().is_some() && self.in_kernel && active.all(|backend| backend.balanced && backend.is_serving())
    }

    /// Whether no backend leaves.
    pub fn is_drained(&self) -> bool {
        self.in_kernel && !self.backends.iter().any(|backend| backend.leaving)
    }
}

/// New connections of a service are dropped for a time, so that clients wait; or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseOrder {
    /// The service, whoever it came from.
    pub name: Box<str>,
    /// How long; `None`: no longer.
    pub time: Option<Duration>,
    /// By whom.
    pub by: Peer,
}
