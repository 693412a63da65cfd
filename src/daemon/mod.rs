//! The process `tcpgw daemon`: its main loop, and the threads that use the kernel, the store and the service manager.
//!
//! It owns waiting, clocks and sockets, and decides nothing: the main loop passes its input to
//! [`control`](crate::control) and carries out the returned jobs. Threads share messages only.

mod api_socket;
mod clock;
mod completions;
mod docker_thread;
mod error;
mod flow_log;
mod gateway_check_thread;
mod hook_delivery;
mod hook_events;
mod hook_process;
mod hooks_thread;
pub mod kernel_thread;
mod limits;
mod listener_task;
mod names_teller;
mod parsed;
pub mod presence;
pub mod problem_observer;
mod provider_task;
mod readonly_task;
mod run;
mod runtime;
mod served_task;
pub mod service_manager;
mod signals;
pub mod start;
pub mod store_opening;
pub mod store_thread;
pub mod store_work;
mod table_counters;
mod traffic_request;
mod traffic_sampler;
mod traffic_thread;
mod watched_file;
mod web_task;

pub use self::error::DaemonError;
pub use self::run::{SetLevel, run};
