//! Requests to the thread that counts traffic, and what it shares with others.

use std::sync::{Arc, Mutex, mpsc as requests};

use crate::config::daemon::{DaemonSettings, FlowLogTarget};
use crate::traffic::{Totals, TotalsAge};

/// Settings for what is done with flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrafficSettings {
    /// Whether packets, bytes and handshakes are counted.
    pub(super) counts_traffic: bool,
    pub(super) flow_log: Option<FlowLogTarget>,
}

impl From<&DaemonSettings> for TrafficSettings {
    fn from(settings: &DaemonSettings) -> Self {
        Self {
            counts_traffic: settings.count_traffic,
            flow_log: settings.flow_log.clone(),
        }
    }
}

/// Request to the thread.
pub(super) enum TrafficRequest {
    /// Totals that were written to the file, if possible of a sample of that age.
    Totals(TotalsAge, requests::SyncSender<Arc<Totals>>),
    /// Other settings.
    Configure(TrafficSettings),
    /// The file of the flow log is opened anew.
    Reopen,
}

/// Reason why connections are missing in the flow log.
pub(super) type SharedTrouble = Arc<Mutex<Option<String>>>;

/// Totals that are shown while the thread is too busy to answer; `None`: the file was not read yet.
pub(super) type ShownTotals = Arc<Mutex<Option<Arc<Totals>>>>;

impl std::fmt::Debug for TrafficRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Totals(..) => "Totals",
            Self::Configure(_) => "Configure",
            Self::Reopen => "Reopen",
        })
    }
}
