//! Events, as the command line reads them: those that a newer daemon tells are shown as well, so that only what every event has is
//! told apart.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Reply;

/// The answer to `GET /v1/events` of whoever does not follow.
#[derive(Debug, Clone, Deserialize)]
pub struct EventList {
    /// How many between the asked one and the first of `events` are not kept any more; `None`: that is not known, since the asked one
    /// is of another daemon.
    pub missed: Option<u64>,
    /// The oldest first.
    pub events: Vec<Reply<EventAnswer>>,
}

/// One event, or `lagged` where some are missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventAnswer {
    /// Its id; `lagged` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it happened, in seconds since 1970; `lagged` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    /// What happened: `committed`, `health`, ...
    pub event: String,
    /// What else is told of it, by name.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl EventAnswer {
    /// Tells that some events are missing.
    pub fn lagged(missed: Option<u64>) -> Self {
        let members = [("missed".to_owned(), missed.into())];
        Self {
            id: None,
            at: None,
            event: "lagged".into(),
            members: members.into_iter().collect(),
        }
    }
}
