//! The local API: HTTP and JSON over a unix socket, for the command line, scripts and control planes of this machine.
//!
//! Asks the daemon's loop through a bounded queue, and reads the kernel by itself. Every client that may connect may do all of
//! it: the socket's mode and group decide who may. Everything that a client can make grow is bounded, see [`limits`].

pub mod answers;
mod asking;
mod body;
pub mod client;
mod error;
mod events;
pub mod hints;
mod lanes;
pub mod limits;
mod looks;
pub mod orders;
pub mod outbound;
mod params;
pub mod provider;
mod routes;
mod server;
pub mod socket;
mod stall;

use std::fmt;
use std::sync::Arc;

pub use self::error::{ApiError, NOT_FOUND};
pub use self::limits::Times;
pub use self::looks::Open;
pub use self::routes::{OPENAPI, routes};
pub use self::server::serve;
pub use self::socket::{Socket, SocketError, SocketSettings};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel, KernelError};

const JSON: &str = "application/json";

/// Settings of the API server.
#[derive(Clone)]
pub struct ApiSettings {
    /// Opens the kernel for a look; each look opens it anew, on a thread of its own.
    pub open: Open,
    /// Maximum times of the steps of a request.
    pub times: Times,
    /// Users with connections of their own, which no other user can use up.
    pub privileged: Vec<u32>,
}

impl fmt::Debug for ApiSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("times", &self.times)
            .field("privileged", &self.privileged)
            .finish_non_exhaustive()
    }
}

impl Default for ApiSettings {
    /// Returns settings for the kernel of this machine.
    fn default() -> Self {
        let open = || -> Result<Box<dyn Kernel>, _> { Ok(Box::new(Linux::open().map_err(KernelError::from)?)) };
        Self {
            open: Arc::new(open),
            times: Times::default(),
            privileged: vec![0, nix::unistd::geteuid().as_raw()],
        }
    }
}
