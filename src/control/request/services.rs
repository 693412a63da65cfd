//! Orders about services, and views of them.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Peer;
use crate::addon::ServiceState;
use crate::addon::id::{PlanName, PlatformId, ResourceId};
use crate::store::Expect;
use tcpgw_core::model::{Endpoint, Service};

/// An order that changes one service.
#[derive(Debug, Clone, PartialEq)]
pub struct EditOrder {
    /// Name of the service.
    pub name: Box<str>,
    /// Fields to change, and their new values.
    pub edit: ServiceEdit,
    /// Condition on the present service.
    pub expect: Expect,
    /// Whether to accept a port on which a local program listens.
    pub take_over: bool,
    /// Drain time of backends that begin to drain by this, in place of the service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// Author.
    pub by: Peer,
}

/// Maximum number of services that one [`BatchOrder`] may change.
pub const MAX_BATCH: usize = 1024;

/// An order that changes several services in one transaction: all of them, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOrder {
    /// The changes, each of another service; at most [`MAX_BATCH`].
    pub items: Vec<BatchItem>,
    /// Revision that the store must have; `None`: any.
    pub revision: Option<u64>,
    /// Whether to accept ports on which a local program listens.
    pub take_over: bool,
    /// Drain time of backends that begin to drain by this, in place of each service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// Author.
    pub by: Peer,
}

/// The change of one service of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchItem {
    /// Name of the service.
    pub name: Box<str>,
    /// Fields to change, and their new values.
    pub edit: ServiceEdit,
    /// Condition on the present service.
    pub expect: Expect,
}

/// Result of a batch. It is stored and in the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct EditedBatch {
    /// Revision of the store.
    pub revision: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// Results by service, in the batch's order; without warnings of their own.
    pub services: Vec<(Box<str>, Edited)>,
    /// Warnings about them.
    pub warnings: Vec<String>,
}

/// A change of a service.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceEdit {
    /// Replaces the service by this JSON, as in the state file. The name may be left out, and must be the order's
    /// otherwise.
    Put(Vec<u8>),
    /// Changes the fields in this JSON merge patch (RFC 7396).
    Patch(Vec<u8>),
    /// Removes the service.
    Delete,
    /// Drains these backends, or all if none is given: they get no new connections any more.
    Drain(Vec<Endpoint>),
    /// Activates these backends, or all if none is given: they get new connections again.
    Undrain(Vec<Endpoint>),
}

/// Result of an edit. It is stored and in the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// The service now; `None`: it was removed.
    pub service: Option<Arc<Service>>,
    /// Revision of the service's last change; that of the store if it was removed.
    pub revision: u64,
    /// Whether the service did not exist before.
    pub created: bool,
    /// Whether anything changed.
    pub changed: bool,
    /// Warnings about the service.
    pub warnings: Vec<String>,
}

/// A service of any provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedService {
    /// The desired service.
    pub service: Arc<Service>,
    /// Name of its provider: `file`, `api`, `docker` or `orphan`.
    pub provider: &'static str,
    /// Revision of its last change; `None` for another provider's.
    pub revision: Option<u64>,
    /// Reasons why it is held back; empty if it is not.
    pub held_back: Vec<String>,
    /// Pause of its new connections, if it is paused.
    pub paused: Option<PauseView>,
    /// Resource of the add-on that it belongs to.
    pub addon: Option<AddonView>,
}

/// The resource that a service belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddonView {
    /// Id that tcpgw gave the resource.
    pub id: ResourceId,
    /// App of the resource, by the platform's id.
    pub app: PlatformId,
    /// Plan of the resource.
    pub plan: PlanName,
    /// State of the service.
    pub state: ServiceState,
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// Begin, in seconds since the Unix epoch.
    pub since: u64,
    /// End, in seconds since the Unix epoch.
    pub until: u64,
    /// User id of the client that ordered it.
    pub uid: u32,
    /// Address of the browser, if it was ordered through the dashboard.
    #[serde(skip)]
    pub browser: Option<IpAddr>,
}

/// The services of all providers by name, and the revision of the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListedServices {
    /// Revision of the store; it grows by one with each change.
    pub revision: u64,
    /// Services by name.
    pub services: Vec<ListedService>,
}

/// A service with all that is known of it without a query of the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    /// The service.
    pub listed: ListedService,
    /// Seconds for which new connections are still dropped; `None`: it is not paused.
    pub paused_for: Option<u64>,
    /// Backends of the service by endpoint, including draining ones.
    pub backends: Vec<BackendView>,
    /// Whether the kernel holds its desired form.
    pub in_kernel: bool,
    /// The deploy that has not ended, if there is one.
    pub deploy: Option<super::DeployView>,
}

/// A backend of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Desired state: `active`, `draining`, or `gone` (not defined any more, and still with flows).
    pub desired: Cow<'static, str>,
    /// Whether it gets new connections.
    pub balanced: bool,
    /// State by probes: see [`HealthView::state`](crate::view::snapshot::HealthView::state).
    pub health: Option<Cow<'static, str>>,
    /// Reason why the last probe failed, if it did.
    pub reason: Option<String>,
    /// Whether it is being removed: its flows have to end, or it waits for a replacement.
    pub leaving: bool,
    /// Number of its flows at the last count, while it drains.
    pub flows: Option<u64>,
    /// Seconds until its flows are deleted.
    pub seconds_left: Option<u64>,
}

impl BackendView {
    /// Returns whether its health allows new connections.
    pub fn is_serving(&self) -> bool {
        matches!(self.health.as_deref(), Some("healthy" | "failing"))
    }
}

impl ServiceView {
    /// Returns whether there are active backends, and all of them are healthy and get new connections.
    pub fn is_healthy(&self) -> bool {
        let mut active = self
            .backends
            .iter()
            .filter(|backend| backend.desired == "active")
            .peekable();
        active.peek().is_some() && self.in_kernel && active.all(|backend| backend.balanced && backend.is_serving())
    }

    /// Returns whether no backend drains and the kernel holds the desired form.
    pub fn is_drained(&self) -> bool {
        self.in_kernel && !self.backends.iter().any(|backend| backend.leaving)
    }
}

/// An order that pauses a service's new connections, so that clients wait, or resumes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseOrder {
    /// Name of the service, of any provider.
    pub name: Box<str>,
    /// Duration; `None`: resume.
    pub time: Option<Duration>,
    /// Author.
    pub by: Peer,
}
