//! A service as it is stored.

use std::sync::Arc;

use tcpgw_core::model::Service;

/// A service and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredService {
    /// The service itself.
    pub service: Arc<Service>,
    /// The store's revision that its last change made.
    pub revision: u64,
}
