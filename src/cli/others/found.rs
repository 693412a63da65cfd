//! Services of other providers in the kernel.

use std::path::PathBuf;

use crate::store::last_services::LastServices;
use tcpgw_core::model::Service;
use tcpgw_core::owner::{AllDetails, Owner};

/// Services of other providers that stay, and those that are removed.
#[derive(Debug, Default)]
pub(in crate::cli) struct Others {
    /// The services as the kernel holds them, and as they stay.
    pub(in crate::cli) services: Vec<Service>,
    pub(super) details: AllDetails,
    pub(super) pruned: Vec<(Owner, Box<str>)>,
    pub(super) prunes: bool,
    /// Orphans that the state takes over, in words.
    pub(super) displaced: Vec<String>,
    /// Services of the API and orphans that the kernel does not hold, and that the state does not define.
    pub(super) waiting: Vec<(Owner, Box<str>)>,
    pub(super) last: Option<(PathBuf, LastServices)>,
    /// Whether nothing is left of the services, since the machine has booted.
    pub(super) is_all_lost: bool,
}
