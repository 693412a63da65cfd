//! `tcpgw daemon`: desired state in, kernel kept equal, health known, drift repaired.
//!
//! Data flows one way: providers and probes tell the loop; the loop works out what the kernel should hold; a thread of its
//! own talks to the kernel. Nothing is shared but messages.

pub(crate) mod adopt;
pub mod ask;
pub(crate) mod claimed;
pub mod core;
pub mod events;
pub mod handshakes;
pub mod keeper;
pub mod last;
pub mod leavers;
mod looker;
pub mod notify;
pub mod observer;
pub mod presence;
mod provider_task;
pub mod roster;
mod run;
pub mod start;
pub mod worker;

pub use self::run::{DaemonError, SetLevel, run};
