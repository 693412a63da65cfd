//! The values of the daemon's settings: the same rules in a file, on the command line and in the environment.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use thiserror::Error;

use tcpgw_core::model::duration::{self, DurationError};

/// Longest path of a socket, in bytes: `sizeof(sun_path)` without the zero at its end (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;
const MAX_GROUP_NAME: usize = 32;
const SHORTEST_CHECK: Duration = Duration::from_secs(1);
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PROBES: usize = 16_384;
const WORLD_WRITABLE: u32 = 0o002;

/// Reason why a setting is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// The value is not a file mode.
    #[error("must be a mode of octal digits, like \"0660\"")]
    Mode,
    /// The mode lets every user connect to the daemon.
    #[error(
        "would let every user of this machine use the socket; choose a group with socket_group (or socket_readonly_group)"
    )]
    WorldWritable,
    /// The path is not absolute.
    #[error("must be an absolute path")]
    Relative,
    /// The flow log has no such place.
    #[error("must be an absolute path, or \"journald\"")]
    FlowLog,
    /// The path is longer than the kernel accepts.
    #[error("is longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have")]
    LongPath,
    /// The text is empty.
    #[error("is empty; leave it out for the default")]
    Empty,
    /// The value is not a name of a group.
    #[error("must be the name of a group, at most {MAX_GROUP_NAME} characters without spaces, \":\" and \"/\"")]
    Group,
    /// The pause is outside of its range.
    #[error("must be 1s to 24h, or 0s for never")]
    Interval,
    /// The value is not a duration.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// The number of probes is out of range.
    #[error("must be a number from 1 to {MAX_PROBES}")]
    Probes,
}

/// The mode of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(pub(super) u32);

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl FromStr for SocketMode {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).map_err(|_| SettingError::Mode)?;
        if !is_octal || mode > 0o777 {
            return Err(SettingError::Mode);
        }
        if mode & WORLD_WRITABLE != 0 {
            return Err(SettingError::WorldWritable);
        }
        Ok(Self(mode))
    }
}

/// Path of the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPath(pub(super) PathBuf);

impl SocketPath {
    /// Creates a path that the kernel accepts.
    ///
    /// # Errors
    ///
    /// Fails when the path is empty or too long.
    pub fn new(path: PathBuf) -> Result<Self, SettingError> {
        match path.as_os_str().as_bytes().len() {
            0 => Err(SettingError::Empty),
            1..=MAX_SOCKET_PATH => Ok(Self(path)),
            _ => Err(SettingError::LongPath),
        }
    }

    /// Returns the path.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl FromStr for SocketPath {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::new(text.into())
    }
}

/// Place that the flow log is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowLogTarget {
    /// A file with an absolute path.
    File(PathBuf),
    /// The journal of systemd.
    Journald,
}

impl FromStr for FlowLogTarget {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let path = PathBuf::from(text);
        if text == "journald" {
            Ok(Self::Journald)
        } else if path.is_absolute() {
            Ok(Self::File(path))
        } else {
            Err(SettingError::FlowLog)
        }
    }
}

/// Name of a group; whether it exists is found out when the socket is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName(pub(super) String);

impl FromStr for GroupName {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/');
        if text.is_empty() || text.chars().count() > MAX_GROUP_NAME || text.contains(is_odd) {
            return Err(SettingError::Group);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The pause between full checks; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckInterval(pub(super) Option<Duration>);

impl Default for CheckInterval {
    fn default() -> Self {
        Self(Some(Duration::from_secs(60)))
    }
}

impl FromStr for CheckInterval {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match duration::parse(text)? {
            Duration::ZERO => Ok(Self(None)),
            pause if (SHORTEST_CHECK..=LONGEST_CHECK).contains(&pause) => Ok(Self(Some(pause))),
            _ => Err(SettingError::Interval),
        }
    }
}

/// Largest number of probes in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxProbes(pub(super) NonZeroUsize);

impl MaxProbes {
    fn new(number: Option<usize>) -> Result<Self, SettingError> {
        let number = number
            .filter(|number| *number <= MAX_PROBES)
            .and_then(NonZeroUsize::new);
        number.map(Self).ok_or(SettingError::Probes)
    }
}

impl Default for MaxProbes {
    fn default() -> Self {
        const DEFAULT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
        Self(DEFAULT)
    }
}

impl FromStr for MaxProbes {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::new(text.parse().ok())
    }
}

impl<'de> Deserialize<'de> for MaxProbes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Self::new(usize::try_from(number).ok()).map_err(D::Error::custom)
    }
}

/// Format of logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Level of logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Failures, and what may lead to them.
    Warn,
    /// Failures, causes of failures, and changes of state.
    #[default]
    Info,
    /// All of these, and the conditions that led to changes of state.
    Debug,
    /// All of these, and every message to the kernel.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Balance while all backends of a service fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AllFailed {
    /// The last ones that answered: the probes may be wrong, and there is no better backend.
    #[default]
    Keep,
    /// No backends: clients get the answer of `on_empty`.
    Empty,
}

/// Reads a path of a file, where the directory that the daemon happens to run in means nothing.
pub(super) fn deserialize_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(absolute(deserializer)?).map_err(D::Error::custom)
    }
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(D::Error::custom(SettingError::Relative))
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a mode in quotes, like \"0660\"")
    }
}

impl<'de> Deserialize<'de> for FlowLogTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "an absolute path, or \"journald\"")
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "the name of a group")
    }
}

impl<'de> Deserialize<'de> for CheckInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a duration in quotes, like \"60s\"")
    }
}

fn from_text<'de, T, D>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err = SettingError>,
    D: Deserializer<'de>,
{
    struct Text<T>(&'static str, std::marker::PhantomData<T>);

    impl<T: FromStr<Err = SettingError>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(expected, std::marker::PhantomData))
}
