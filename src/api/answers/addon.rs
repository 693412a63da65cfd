//! Answers about resources of the add-on.

use serde::{Deserialize, Serialize};

use crate::control::request::ResourceView;

/// The answer to `GET /v1/addon/resources`, as far as commands read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ResourceListAnswer {
    /// The resources.
    pub resources: Vec<ResourceView>,
}

/// Result of a request that changes a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceAnswer {
    /// The resource as it is now; `None`: it was deprovisioned.
    pub resource: Option<ResourceView>,
    /// Whether the resource did not exist before.
    pub created: bool,
    /// Whether the order changed anything.
    pub changed: bool,
}
