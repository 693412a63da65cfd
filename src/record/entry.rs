//! Entries of the journal: changes of the services.

use serde::{Deserialize, Serialize};

use super::{ApplyNote, Deadline, RecordedPause};
use tcpgw_core::owner::Details;
use tcpgw_core::summary::ServiceSummary;

/// A change of the services, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The generation on top of which it is sent to the kernel; `None`: the kernel has nothing to learn.
    pub awaits: Option<u32>,
    /// Origin and time of the change.
    pub applied: Option<ApplyNote>,
    /// The services that it touches.
    pub services: Vec<ServiceEntry>,
}

/// A service after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// Name of the service.
    #[serde(rename = "n")]
    pub name: Box<str>,
    /// Summary of the service; `None` if it was removed.
    #[serde(rename = "s")]
    pub summary: Option<ServiceSummary>,
    /// Owner, and what only its provider knows.
    #[serde(rename = "d", default, skip_serializing_if = "Details::is_default")]
    pub details: Details,
    /// Ends of its drains.
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    pub deadlines: Vec<Deadline>,
    /// The pause of its new connections.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<RecordedPause>,
}

impl ServiceEntry {
    /// Returns the entry of a service that was removed.
    pub fn gone(name: &str) -> Self {
        Self {
            name: name.into(),
            summary: None,
            details: Details::default(),
            deadlines: Vec::new(),
            pause: None,
        }
    }
}
