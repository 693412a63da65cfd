//! Settings of `tcpgw up`.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::client::Client;

/// Settings of `tcpgw up`.
pub struct UpSettings<'a> {
    /// Path of the Procfile.
    pub procfile: PathBuf,
    /// The files of variables, the later before the earlier; `None`: `.env` beside the Procfile, if it is there.
    pub env_files: Option<Vec<PathBuf>>,
    /// Number of instances as given on the command line; empty: one of each type.
    pub formation: Vec<String>,
    /// The plan, if one is asked for.
    pub plan: Option<String>,
    /// The public port, if one is asked for.
    pub port: Option<NonZeroU16>,
    /// Time from SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Whether lines are coloured.
    pub colors: bool,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The cookie of this network namespace.
    pub namespace: u64,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The store of a daemon that is started.
    pub store: PathBuf,
    /// Quarantine of the ports of that store.
    pub rest: Duration,
    /// The operator's configuration, if there is one.
    pub config: Option<PathBuf>,
    /// Text of the configuration.
    pub text: String,
    /// Whether that has a section `[addon]`.
    pub has_addon: bool,
    /// Looks for the daemon.
    pub find: &'a dyn Fn() -> Result<Option<Client>, String>,
    /// Removes the gateway's table, where no daemon runs.
    pub teardown: &'a dyn Fn() -> Result<(), String>,
}
