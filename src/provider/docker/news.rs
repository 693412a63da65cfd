//! Message from the provider to the main loop: state of the engine, and its containers.

use std::sync::Arc;

use tcpgw_core::container::Container;

/// State of the engine and its containers, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DockerNews {
    /// The containers as they were last known; `None`: the engine has not answered yet.
    pub containers: Option<Arc<TrackedContainers>>,
    /// Reason why the engine is not followed now.
    pub trouble: Option<String>,
    /// Events that were left out, and why, as long as the reason lasts.
    pub left_out: Option<String>,
}

/// All containers with labels as they are known at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackedContainers {
    /// The containers.
    pub containers: Vec<Container>,
    /// Whether it is believed without containers: the engine has named some since it answers, or none for a while.
    pub is_certain: bool,
}
