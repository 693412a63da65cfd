//! Arguments that several commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use tcpgw_core::model::duration;

/// A state file.
#[derive(Debug, Args)]
pub(super) struct FileArgument {
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

#[derive(Debug, Args)]
pub(super) struct HelpArguments {
    /// A command, and one below it, or `options` for those of all commands [default: the list of commands]
    #[arg(value_name = "COMMAND")]
    pub(super) topic: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManualArguments {
    /// The command whose page is printed [default: the page of tcpgw as a whole]
    #[arg(value_name = "COMMAND", conflicts_with = "to")]
    pub(super) command: Option<String>,
    /// Write the pages of all commands into this directory, each into a file of its own (`tcpgw-apply.8`)
    #[arg(long, value_name = "DIR")]
    pub(super) to: Option<PathBuf>,
}
