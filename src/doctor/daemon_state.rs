//! The doctor beside a daemon that runs.

use std::path::Path;

use super::facts::{Facts, TableState};
use super::finding::Diagnosis;
use super::{add_of_daemon, examine, gather};
use crate::config::Config;
use tcpgw_core::problem::Problem;

/// State of a running daemon, as it tells it.
#[derive(Debug, Clone, Copy)]
pub struct RunningDaemon<'a> {
    /// Process id; `None`: the daemon does not know it.
    pub pid: Option<u32>,
    /// Whether the daemon owns the table, so that other programs cannot change it.
    pub owns_table: bool,
    /// Whether the kernel holds the desired state.
    pub in_sync: bool,
    /// Problems that the daemon knows.
    pub problems: &'a [Problem],
}

impl Facts {
    /// Corrects the facts about the table by what its daemon tells.
    pub fn beside(&mut self, daemon: &RunningDaemon<'_>) {
        self.cheap.is_probed = true;
        let Ok(table) = &mut self.table else { return };
        table.daemon = daemon.pid.filter(|_| daemon.owns_table && table.owner.is_some());
        // The daemon records its own writes a moment later, and learns at once of other programs' writes.
        if daemon.in_sync && matches!(table.state, TableState::Changed | TableState::Unrecorded) {
            table.state = TableState::AsWritten;
        }
    }
}

/// Returns the findings of all checks, in the network namespace of this thread, and the problems of the daemon that runs there. It
/// takes long: a second and more where there are many flows or rules.
pub fn examine_beside(run_dir: &Path, config: &Config, daemon: &RunningDaemon<'_>) -> Diagnosis {
    let mut facts = gather(run_dir, config);
    facts.beside(daemon);
    let mut diagnosis = examine(&facts);
    add_of_daemon(&mut diagnosis, daemon.problems);
    diagnosis
}
