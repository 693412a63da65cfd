//! The whole command line, as it is parsed.

use clap::{Parser, Subcommand};

use super::arguments::{self, FileArgument, Locking};
use super::global::Global;
use super::{
    addon, apply, daemon, deploy, deploys, diff, drain, events, flows, history, pause, service, status, top, up, wait,
    who,
};

/// The widest that help is, in columns.
pub(super) const WIDEST: usize = 100;

/// A TCP gateway in front of containers, done by nftables in the kernel.
///
/// tcpgw turns a state file (public ports, their backends and limits) into one nftables table, `inet tcpgw`, and flushes
/// the flows of backends that were removed. The kernel forwards: tcpgw itself forwards no packet and may end at any time.
#[derive(Debug, Parser)]
#[command(name = "tcpgw", version, propagate_version = true,
    disable_help_subcommand = true, disable_version_flag = true, max_term_width = WIDEST)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    /// Print the version
    #[arg(
        id = "version",
        short = 'V',
        long = "version",
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        action = clap::ArgAction::Version
    )]
    _version: Option<bool>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Validate a state file; needs no privilege and no kernel
    Check(FileArgument),
    /// Print the ruleset of a state file as text for `nft -f`; needs no privilege
    ///
    /// The first line of the text creates the table, so that the second line can delete it. Where `tcpgw apply` has already created the
    /// table, the kernel refuses the first line, because the table has a flag that nft would remove. Leave the line out there:
    /// `tcpgw render FILE | sed 1d | nft -c -f -`.
    Render(FileArgument),
    /// Show what `apply` would change in the kernel; exit with 1 if there are changes
    Diff(diff::Arguments),
    /// Make the kernel equal to a state file
    Apply(apply::Arguments),
    Daemon(daemon::Arguments),
    /// Show what breaks or may break traffic on this machine, with cause and fix; exit with 1 if something does
    Doctor,
    Status(status::Arguments),
    Flows(flows::Arguments),
    Who(who::Arguments),
    Top(top::Arguments),
    Events(events::Arguments),
    Deploy(deploy::Arguments),
    /// Return to the backends before the last deploy of a service, while they still drain
    Rollback(deploys::Rollback),
    /// List deploys, or show one
    Deploys(deploys::Arguments),
    /// Stop new connections to backends of a service, and let their flows drain
    Drain(drain::DrainArguments),
    /// Send new connections to backends of a service again
    Undrain(drain::UndrainArguments),
    /// Drop new connections to a service for a time, so that clients retry instead of failing
    Pause(pause::PauseArguments),
    /// End a service's pause; without a service, serve again after a teardown
    Resume(pause::ResumeArguments),
    /// Wait until a service is healthy or drained; exit with 1 at the timeout
    Wait(wait::Wait),
    /// Add, change, remove and show the services of the daemon's API
    Service(Box<service::Arguments>),
    /// Provision, change, remove and show the add-on's resources: public ports of a platform's apps
    Addon(addon::Arguments),
    /// Print the environment that the add-on gives an app: `TCP_URL`
    Env(addon::AppArgument),
    /// Show the changes of services: when, by whom, from what to what
    History(history::Arguments),
    /// Print the services of the daemon's API as a state file
    Export(history::Export),
    Up(Box<up::Arguments>),
    /// Remove everything that tcpgw has put into the kernel, and nothing else
    Teardown(Locking),
    /// Print a shell's completions
    Completions(arguments::CompletionsArguments),
    /// Print the manual page of tcpgw, or of one of its commands
    Man(arguments::ManualArguments),
    /// Show the list of commands, or the help of one
    #[command(hide = true)]
    Help(arguments::HelpArguments),
}
