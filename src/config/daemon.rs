//! Settings of the daemon: from its command line, the environment, and `[daemon]` in the configuration.
//!
//! Owns the keys, their ranges and defaults, and which of them wait for a restart.

mod value;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use self::value::{
    AllFailed, CheckInterval, FlowLogTarget, GroupName, LogFormat, LogLevel, MaxProbes, SettingError, SocketMode,
    SocketPath,
};

/// Default path of the daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/tcpgw/tcpgw.sock";
/// Default path of the daemon's store.
pub const DEFAULT_STORE: &str = "/var/lib/tcpgw/tcpgw.db";

/// Default path of the state file, which the daemon follows if it exists.
pub const DEFAULT_STATE: &str = "/etc/tcpgw/state.json";

/// Settings from one source: the file, or the command line with the environment. `None` if the source does not set it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonSection {
    /// The state file.
    #[serde(default, deserialize_with = "value::deserialize_path")]
    pub state: Option<PathBuf>,
    /// The socket of the API.
    #[serde(default)]
    pub socket: Option<SocketPath>,
    /// The group that may use the socket.
    #[serde(default)]
    pub socket_group: Option<GroupName>,
    /// The mode of the socket.
    #[serde(default)]
    pub socket_mode: Option<SocketMode>,
    /// The read-only socket.
    #[serde(default)]
    pub socket_readonly: Option<SocketPath>,
    /// The group that may use the read-only socket.
    #[serde(default)]
    pub socket_readonly_group: Option<GroupName>,
    /// The mode of the read-only socket.
    #[serde(default)]
    pub socket_readonly_mode: Option<SocketMode>,
    /// Format of logs.
    #[serde(default)]
    pub log_format: Option<LogFormat>,
    /// Level of logs.
    #[serde(default)]
    pub log_level: Option<LogLevel>,
    /// Whether the table is owned.
    #[serde(default)]
    pub owner: Option<bool>,
    /// The pause between full checks.
    #[serde(default)]
    pub check_interval: Option<CheckInterval>,
    /// Balance while all backends of a service fail.
    #[serde(default)]
    pub all_failed: Option<AllFailed>,
    /// Largest number of probes in flight.
    #[serde(default)]
    pub max_probes: Option<MaxProbes>,
    /// Whether a file without services is accepted.
    #[serde(default)]
    pub allow_empty: Option<bool>,
    /// Whether ports of local programs are accepted.
    #[serde(default)]
    pub take_over: Option<bool>,
    /// Whether packets and bytes of services are counted.
    #[serde(default)]
    pub count_traffic: Option<bool>,
    /// Place of the flow log.
    #[serde(default)]
    pub flow_log: Option<FlowLogTarget>,
    /// Path of the store.
    #[serde(default, deserialize_with = "value::deserialize_path")]
    pub store: Option<PathBuf>,
}

impl DaemonSection {
    /// Returns these settings, completed by `other` where they are not set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            state: self.state.or(other.state),
            socket: self.socket.or(other.socket),
            socket_group: self.socket_group.or(other.socket_group),
            socket_mode: self.socket_mode.or(other.socket_mode),
            socket_readonly: self.socket_readonly.or(other.socket_readonly),
            socket_readonly_group: self.socket_readonly_group.or(other.socket_readonly_group),
            socket_readonly_mode: self.socket_readonly_mode.or(other.socket_readonly_mode),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            owner: self.owner.or(other.owner),
            check_interval: self.check_interval.or(other.check_interval),
            all_failed: self.all_failed.or(other.all_failed),
            max_probes: self.max_probes.or(other.max_probes),
            allow_empty: self.allow_empty.or(other.allow_empty),
            take_over: self.take_over.or(other.take_over),
            count_traffic: self.count_traffic.or(other.count_traffic),
            flow_log: self.flow_log.or(other.flow_log),
            store: self.store.or(other.store),
        }
    }
}

/// All settings of the daemon, with the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct DaemonSettings {
    /// The state file, absolute; `None`: only the API provides services.
    pub state: Option<PathBuf>,
    /// The socket of the API.
    pub socket: PathBuf,
    /// The group that may use the socket; `None`: that of the process.
    pub socket_group: Option<String>,
    /// Mode of the socket, never writable for all users.
    pub socket_mode: u32,
    /// The socket for monitoring, which answers requests that change nothing; `None`: there is none.
    pub socket_readonly: Option<PathBuf>,
    /// The group that may use the read-only socket; `None`: that of the process.
    pub socket_readonly_group: Option<String>,
    /// Mode of the read-only socket, never writable for all users.
    pub socket_readonly_mode: u32,
    /// Format of logs.
    pub log_format: LogFormat,
    /// Level of logs.
    pub log_level: LogLevel,
    /// Whether the daemon owns the table where the kernel supports it, so that no other program changes it.
    pub owner: bool,
    /// The pause between full checks of the kernel, 1 s to 24 h; `None`: never without a reason.
    pub check_interval: Option<Duration>,
    /// Balance while all backends of a service fail.
    pub all_failed: AllFailed,
    /// Largest number of probes in flight, 1 to 16384.
    pub max_probes: NonZeroUsize,
    /// Whether a state without services is accepted over a gateway that has some.
    pub allow_empty: bool,
    /// Whether ports are accepted on which a local program listens.
    pub take_over: bool,
    /// Whether packets, bytes and handshakes of services are counted.
    pub count_traffic: bool,
    /// Place of the flow log; `None`: there is none.
    pub flow_log: Option<FlowLogTarget>,
    /// Path of the store.
    pub store: PathBuf,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self::from(DaemonSection::default())
    }
}

impl From<DaemonSection> for DaemonSettings {
    fn from(section: DaemonSection) -> Self {
        Self {
            state: section.state,
            socket: section.socket.map_or_else(|| DEFAULT_SOCKET.into(), |socket| socket.0),
            socket_group: section.socket_group.map(|group| group.0),
            socket_mode: section.socket_mode.unwrap_or_default().0,
            socket_readonly: section.socket_readonly.map(|socket| socket.0),
            socket_readonly_group: section.socket_readonly_group.map(|group| group.0),
            socket_readonly_mode: section.socket_readonly_mode.unwrap_or_default().0,
            log_format: section.log_format.unwrap_or_default(),
            log_level: section.log_level.unwrap_or_default(),
            owner: section.owner.unwrap_or(true),
            check_interval: section.check_interval.unwrap_or_default().0,
            all_failed: section.all_failed.unwrap_or_default(),
            max_probes: section.max_probes.unwrap_or_default().0,
            allow_empty: section.allow_empty.unwrap_or(false),
            take_over: section.take_over.unwrap_or(false),
            count_traffic: section.count_traffic.unwrap_or(false),
            flow_log: section.flow_log,
            store: section.store.unwrap_or_else(|| DEFAULT_STORE.into()),
        }
    }
}

impl DaemonSettings {
    /// Returns the settings in effect after `new` was read while the daemon runs, and the keys whose new values wait
    /// for a restart.
    #[must_use]
    pub fn reloaded(&self, new: Self) -> (Self, Vec<&'static str>) {
        let waiting = [
            ("socket", self.socket != new.socket),
            ("socket_group", self.socket_group != new.socket_group),
            ("socket_mode", self.socket_mode != new.socket_mode),
            ("log_format", self.log_format != new.log_format),
            ("owner", self.owner != new.owner),
            ("max_probes", self.max_probes != new.max_probes),
            ("store", self.store != new.store),
        ];
        let waiting = waiting.into_iter().filter_map(|(key, changed)| changed.then_some(key));
        let now = Self {
            socket: self.socket.clone(),
            socket_group: self.socket_group.clone(),
            socket_mode: self.socket_mode,
            log_format: self.log_format,
            owner: self.owner,
            max_probes: self.max_probes,
            store: self.store.clone(),
            ..new
        };
        (now, waiting.collect())
    }
}

#[cfg(test)]
mod tests;
