//! Arguments that several commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tcpgw_core::model::duration;

/// A state file.
#[derive(Debug, Args)]
pub(super) struct File {
    /// The state file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Locking {
    /// Longest time to wait for another tcpgw that holds the lock of this network namespace
    #[arg(long, value_name = "T", default_value = "10s", value_parser = parse_duration)]
    pub(super) lock_timeout: Duration,
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, duration::DurationError> {
    duration::parse(text)
}
