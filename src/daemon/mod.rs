//! The process `tcpgw daemon`: its main loop, and the threads that use the kernel, the store and the service manager.
//!
//! It owns waiting, clocks and sockets, and decides nothing: the main loop passes its input to
//! [`control`](crate::control) and carries out the returned jobs. Threads share messages only.

mod completions;
pub mod kernel_thread;
mod listener_task;
mod looker;
pub mod observer;
pub mod presence;
mod provider_task;
mod run;
pub mod service_manager;
pub mod start;
pub mod store_thread;

pub use self::run::{DaemonError, SetLevel, run};
