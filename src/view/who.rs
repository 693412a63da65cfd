//! The client behind a connection that a backend sees.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Hint;
use super::flows::FlowView;

/// Output of `tcpgw who`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhoView<'a> {
    /// Address that the backend sees.
    pub seen_as: SocketAddr,
    /// The backend, if it was named.
    pub backend: Option<SocketAddr>,
    /// Matching flows: several if several backends see the same address.
    pub flows: Vec<FlowView<'a>>,
    /// Hints about data that conntrack does not record.
    pub hints: Vec<Hint>,
}

impl WhoView<'_> {
    /// Returns the message for no matching flow, with possible reasons.
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
