//! The command line: one file per command, and what they share.

mod addon;
mod amount;
mod apply;
mod apply_output;
#[cfg(test)]
mod architecture_tests;
mod arguments;
mod check;
#[cfg(test)]
mod circle_tests;
mod command;
mod completions;
mod configuration;
mod daemon;
mod daemon_absence;
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
#[cfg(test)]
mod names_tests;
mod others;
mod pause;
mod preflight;
mod print;
#[cfg(test)]
mod reference_tests;
mod remote;
mod render;
#[cfg(test)]
mod sample_tests;
mod screen;
mod service;
mod status;
mod table;
mod teardown;
#[cfg(test)]
mod told_command_tests;
mod top;
mod up;
mod usage;
mod wait;
mod who;

use std::process::ExitCode;

use clap::FromArgMatches as _;

pub use self::command::Cli;
use self::command::Command;
use self::failure::{Code, Failure, Outcome};
use self::global::start_logs;
use std::io;

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
        Command::Top(arguments) => top::run(global, arguments),
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
