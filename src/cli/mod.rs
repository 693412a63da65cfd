//! The command line: one file per command, and what they share.

mod absent;
mod addon;
mod amount;
mod apply;
#[cfg(test)]
mod architecture_tests;
mod arguments;
mod check;
mod completions;
mod configuration;
mod daemon;
mod denied;
mod deploy;
mod deploys;
mod diff;
mod doctor;
#[cfg(test)]
mod document_tests;
mod drain;
mod error_output;
mod events;
mod failure;
mod flows;
mod gateway;
mod global;
mod help;
mod history;
#[cfg(test)]
mod language_tests;
mod manual;
#[cfg(test)]
mod manual_tests;
mod moment;
mod others;
mod pause;
mod preflight;
mod print;
#[cfg(test)]
mod reference_tests;
mod remote;
mod render;
mod reports;
#[cfg(test)]
mod sample_tests;
mod screen;
mod service;
mod status;
mod table;
mod teardown;
mod up;
mod usage;
mod wait;
mod who;

use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use self::arguments::{File, Locking};
use self::failure::{Code, Failure, Outcome};
use self::global::{Global, Output, start_logs};
use self::print::{print_json, print_on};
use std::io;

/// The widest that help is, in columns.
const WIDEST: usize = 100;

/// A TCP gateway in front of containers, done by nftables in the kernel.
///
/// tcpgw turns a state file (public ports, their backends and limits) into one nftables table, `inet tcpgw`, and flushes
/// the flows of backends that were removed. The kernel forwards: tcpgw itself forwards no packet and may end at any time.
#[derive(Debug, Parser)]
#[command(name = "tcpgw", version, propagate_version = true,
    disable_help_subcommand = true, disable_version_flag = true, max_term_width = WIDEST)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
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
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate a state file; needs no privilege and no kernel
    Check(File),
    /// Print the ruleset of a state file as text for `nft -f`; needs no privilege
    ///
    /// The first line of the text creates the table, so that the second line can delete it. Where `tcpgw apply` has already created the
    /// table, the kernel refuses the first line, because the table has a flag that nft would remove. Leave the line out there:
    /// `tcpgw render FILE | sed 1d | nft -c -f -`.
    Render(File),
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
    Events(events::Arguments),
    Deploy(deploy::Arguments),
    /// Return to the backends before the last deploy of a service, while they still drain
    Rollback(deploys::Rollback),
    /// List deploys, or show one
    Deploys(deploys::Arguments),
    /// Stop new connections to backends of a service, and let their flows drain
    Drain(drain::Drain),
    /// Send new connections to backends of a service again
    Undrain(drain::Undrain),
    /// Drop new connections to a service for a time, so that clients retry instead of failing
    Pause(pause::Pause),
    /// End a service's pause; without a service, serve again after a teardown
    Resume(pause::Resume),
    /// Wait until a service is healthy or drained; exit with 1 at the timeout
    Wait(wait::Wait),
    /// Add, change, remove and show the services of the daemon's API
    Service(Box<service::Arguments>),
    /// Provision, change, remove and show the add-on's resources: public ports of a platform's apps
    Addon(addon::Arguments),
    /// Print the environment that the add-on gives an app: `TCP_URL`
    Env(addon::App),
    /// Show the changes of services: when, by whom, from what to what
    History(history::Arguments),
    /// Print the services of the daemon's API as a state file
    Export(history::Export),
    Up(Box<up::Arguments>),
    /// Remove everything that tcpgw has put into the kernel, and nothing else
    Teardown(Locking),
    /// Print a shell's completions
    Completions(completions::Arguments),
    /// Print the manual page of tcpgw, or of one of its commands
    Man(manual::Arguments),
    /// Show the list of commands, or the help of one
    #[command(hide = true)]
    Help(help::Arguments),
}

/// Runs the command line and gives the exit code.
pub fn run() -> ExitCode {
    if let Some(code) = crate::up::container::run_if_asked() {
        return code;
    }
    if let Some(code) = completions::complete_if_asked() {
        return code;
    }
    tcpgw_kernel::ffi::memory::keep_memory();
    let parsed = help::command().try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            let print = move || drop(usage::print(error));
            // Options stand before the command, too.
            if std::env::args_os().any(|argument| argument == "daemon") {
                error_output::within(error_output::LAST_LINES, print);
            } else {
                print();
            }
            return ExitCode::from(code);
        }
    };
    let is_daemon = matches!(cli.command, Command::Daemon(_));
    if !is_daemon {
        start_logs(&cli.global);
    }
    let is_diff = matches!(cli.command, Command::Diff(_));
    match dispatch(&cli) {
        Ok(Code::Success) => ExitCode::SUCCESS,
        Ok(Code::Failure) => ExitCode::from(1),
        Ok(Code::Signal(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        Ok(Code::Other(code)) => ExitCode::from(code),
        Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(1),
        Err(failure) => {
            error_output::report(&cli.global, &failure, is_daemon);
            // For `diff`, 1 says that there are changes.
            ExitCode::from(if is_diff { 2 } else { failure.code() })
        }
    }
}

fn dispatch(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Check(file) => check::run(global, file),
        Command::Render(file) => render::run(global, file),
        Command::Diff(arguments) => diff::run(global, arguments),
        Command::Apply(arguments) => apply::run(global, arguments),
        Command::Daemon(arguments) => daemon::run(global, arguments),
        Command::Doctor => doctor::run(global),
        Command::Status(arguments) => status::run(global, arguments),
        Command::Flows(arguments) => flows::run(global, arguments),
        Command::Who(arguments) => who::run(global, arguments),
        Command::Events(arguments) => events::run(global, arguments),
        Command::Deploy(arguments) => deploy::run(global, arguments),
        Command::Rollback(arguments) => deploys::rollback(global, arguments),
        Command::Deploys(arguments) => deploys::run(global, arguments),
        Command::Drain(arguments) => drain::drain(global, arguments),
        Command::Undrain(arguments) => drain::undrain(global, arguments),
        Command::Pause(arguments) => pause::pause(global, arguments),
        Command::Resume(arguments) => pause::resume(global, arguments),
        Command::Wait(arguments) => wait::wait(global, arguments),
        Command::Service(arguments) => service::run(global, arguments),
        Command::Addon(arguments) => addon::run(global, arguments),
        Command::Env(app) => addon::env(global, app),
        Command::History(arguments) => history::run(global, arguments),
        Command::Export(arguments) => history::export(global, arguments),
        Command::Up(arguments) => up::run(global, arguments),
        Command::Teardown(locking) => teardown::run(global, locking),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => manual::run(arguments),
        Command::Help(arguments) => help::run(arguments),
    }
}
