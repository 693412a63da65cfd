//! The add-on: what a platform provisions for an app, a public port with a plan.
//!
//! Owns the resources, their states, their plans and their ports. Pure: takes requests and the time, and returns decisions, which
//! the caller makes durable before it calls [`Registry::commit`]. Knows nothing of HTTP, sockets, the store or the kernel.

pub mod check;
pub mod credentials;
pub mod dialect;
mod fingerprint;
pub mod id;
mod lifecycle;
mod plan;
pub mod platform_url;
mod ports;
mod registry;
mod resource;
pub mod settings;
pub mod sso;
pub mod throttle;

pub use self::fingerprint::Fingerprint;
pub use self::lifecycle::{Event, Existence, LifecycleStep, Tombstones, step};
pub use self::plan::{Plan, PlanError, Plans, Price};
pub use self::ports::{BusyPorts, PortPool, PortRefusal, PortSet, PortUse, Quarantined, RestingPort};
pub use self::registry::{
    AddonOutcome, Decision, Facts, MAX_REMOVED, Provision, Refusal, Registry, Removed, Request, ResourceChange, Target,
    WantedPlan,
};
pub use self::resource::{Binding, Dialect, Owner, Resource, ServiceState, Status};
