//! `tcpgw daemon`, the process: its event loop, and the threads that talk to the kernel, the store and the service manager.
//!
//! Owns what waits, reads clocks and listens. Decides nothing: the loop hands what came to [`control`](crate::control), and does what
//! that says. Nothing is shared but messages.

mod completions;
pub mod kernel_thread;
mod looker;
pub mod observer;
pub mod presence;
mod provider_task;
mod run;
pub mod service_manager;
pub mod start;
pub mod store_thread;

pub use self::run::{DaemonError, SetLevel, run};
