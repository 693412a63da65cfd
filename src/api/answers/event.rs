//! Events, as the command line reads them. Those of a newer daemon are shown as well, so only what all events have is a
//! field of its own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::AnswerWithJson;

/// Answer to `GET /v1/events` of a client that does not follow.
#[derive(Debug, Clone, Deserialize)]
pub struct EventList {
    /// Number of events between the requested one and the first of `events` that are no longer kept; `None`: not known, since
    /// the requested one is of another daemon.
    pub missed: Option<u64>,
    /// The events, the oldest first.
    pub events: Vec<AnswerWithJson<EventAnswer>>,
}

/// An event, or a note `lagged` where some are missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventAnswer {
    /// Id of the event; `lagged` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Time of the event, in seconds since 1970; `lagged` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    /// Kind of the event: `committed`, `health`, ...
    pub event: String,
    /// Further members of the event, by name: those of its kind in `EventContent`, and those of later versions.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl EventAnswer {
    /// Creates the note that events are missing, with their number if it is known.
    pub fn lagged(missed: Option<u64>) -> Self {
        let members = [("missed".to_owned(), missed.into())];
        Self {
            id: None,
            at: None,
            event: "lagged".into(),
            members: members.into_iter().collect(),
        }
    }

    /// Returns the number of missing events that the note `lagged` has, if it is known.
    pub fn missed(&self) -> Option<u64> {
        self.members.get("missed").and_then(Value::as_u64)
    }
}
