//! Settings of the API server.

use std::fmt;
use std::sync::Arc;

use super::descriptors::DescriptorBudget;
use super::kernel_queries::OpenKernel;
use super::limits::{LaneSizes, Times};
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::totals::TotalsSource;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel, KernelError};

/// Requests that a socket answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SocketScope {
    /// All requests.
    #[default]
    Full,
    /// Requests of monitoring only, which change nothing and show no secrets.
    ReadOnly,
}

impl SocketScope {
    /// Returns the numbers of connections that are served at once where there are descriptors enough.
    fn lanes(self) -> LaneSizes {
        match self {
            Self::Full => LaneSizes::FULL,
            Self::ReadOnly => LaneSizes::READ_ONLY,
        }
    }
}

/// Settings of the API server.
#[derive(Clone)]
pub struct ApiSettings {
    /// Opens the kernel for a query: each query opens it anew, in a thread of its own.
    pub open: OpenKernel,
    /// Answers with the totals of services; `None` where nobody keeps them.
    pub totals: Option<TotalsSource>,
    /// Traffic of the last hour; `None` where nobody keeps it.
    pub hour: Option<SharedHour>,
    /// Maximum times of the steps of a request.
    pub times: Times,
    /// Users with connections of their own, which no other user can use up.
    pub privileged: Vec<u32>,
    /// Requests that are answered.
    pub scope: SocketScope,
    /// Numbers of connections and queries of the kernel that the limit of open files allows.
    pub descriptors: DescriptorBudget,
}

impl ApiSettings {
    /// Returns the numbers of connections that are served at once.
    pub(super) fn lanes(&self) -> LaneSizes {
        self.descriptors.lanes(self.scope.lanes())
    }
}

impl fmt::Debug for ApiSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("times", &self.times)
            .field("privileged", &self.privileged)
            .field("scope", &self.scope)
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
            hour: None,
            times: Times::default(),
            privileged: vec![0, nix::unistd::geteuid().as_raw()],
            scope: SocketScope::default(),
            descriptors: DescriptorBudget::of_this_process(),
        }
    }
}
