//! Who is behind what a backend sees.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Hint;
use super::flows::FlowView;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Who<'a> {
    /// What the backend sees.
    pub seen_as: SocketAddr,
    /// The backend, if it was named.
    pub backend: Option<SocketAddr>,
    /// Every flow that fits. Several, if several backends see the same.
    pub flows: Vec<FlowView<'a>>,
    /// What conntrack does not note.
    pub hints: Vec<Hint>,
}

impl Who<'_> {
    /// Why there may be none.
    pub fn nobody(&self) -> String {
        let who = match self.backend {
            Some(backend) => format!("{backend} sees no connection"),
            None => "no backend sees a connection".into(),
        };
        format!(
            "{who} through tcpgw as coming from {}: it may have ended and been forgotten, or it did not come through tcpgw",
            self.seen_as
        )
    }
}
