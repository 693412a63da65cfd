//! The add-on: what a platform provisions for an app, a public port with a plan.
//!
//! Owns the resources, their states, their plans and their ports. Pure: takes requests and the time, and returns decisions, which
//! the caller makes durable before it calls [`Registry::commit`]. Knows nothing of HTTP, sockets, the store or the kernel.

pub mod check;
mod compared_id;
pub mod credentials;
mod decision;
pub mod dialect;
pub mod digest;
mod fingerprint;
mod host;
pub mod id;
mod lifecycle;
mod plan;
pub mod platform_url;
mod ports;
mod refusal;
mod registry;
mod removed;
mod request;
mod resource;
mod resource_index;
pub mod settings;
pub mod sso;

pub use self::decision::{AddonOutcome, Decision, RegistryFacts, ResourceChange};
pub use self::fingerprint::Fingerprint;
pub use self::lifecycle::{Existence, LifecycleEvent, LifecycleStep, Tombstones, step};
pub use self::plan::{AddonPlan, PlanError, Plans, Price};
pub use self::ports::{BusyPorts, PortPool, PortRefusal, PortSet, PortUse, Quarantined, RestingPort};
pub use self::refusal::Refusal;
pub use self::registry::Registry;
pub use self::removed::{MAX_REMOVED, Removed};
pub use self::request::{AddonRequest, Provision, ResourceTarget, WantedPlan};
pub use self::resource::{Binding, Dialect, Resource, ResourceOwner, ResourceStatus, ServiceState};
