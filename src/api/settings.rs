//! Settings of the API server.

use std::fmt;
use std::sync::Arc;

use super::kernel_queries::OpenKernel;
use super::limits::Times;
use crate::traffic::totals::TotalsSource;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel, KernelError};

/// Settings of the API server.
#[derive(Clone)]
pub struct ApiSettings {
    /// Opens the kernel for a look; each look opens it anew, on a thread of its own.
    pub open: OpenKernel,
    /// Answers with the totals of services; `None` where nobody keeps them.
    pub totals: Option<TotalsSource>,
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
            totals: None,
            times: Times::default(),
            privileged: vec![0, nix::unistd::geteuid().as_raw()],
        }
    }
}
