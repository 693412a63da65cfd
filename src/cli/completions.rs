//! `tcpgw completions`, and the completing that its script asks for.
//!
//! The script runs `tcpgw` with the words so far and [`VARIABLE`] set. Commands, options, values and files come from the command
//! line's definition; services, their backends and deploys from the daemon, if one answers in time.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, FromArgMatches as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{EnvCompleter, Shells};
use serde::de::DeserializeOwned;

use super::arguments::CompletionsArguments;
use super::failure::{Code, Failure, Outcome};
use super::global::Global;
use super::help;
use super::print::print;
use crate::api::answers::{DeployList, ServiceAnswer, ServiceList};
use crate::api::client::RequestTarget;

/// Names the shell that a run completes for. Set by the script alone.
const VARIABLE: &str = "TCPGW_COMPLETE";
/// Maximum time that a completion waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of names that are offered.
const MOST: usize = 10_000;
/// zsh runs a file of its function path as the function, and expects that to complete.
const ZSH_AUTOLOAD: &str = "\
if [[ \"${funcstack[1]}\" = _tcpgw ]]; then
    _clap_dynamic_completer_tcpgw \"$@\"
fi
";

pub(super) fn run(arguments: &CompletionsArguments) -> Outcome {
    let name = arguments.shell.to_string();
    let failed = |source| Failure::Io {
        what: "write the completions",
        source,
    };
    let completer = completer(OsStr::new(&name)).ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "tcpgw", "tcpgw", "tcpgw", &mut script)
        .map_err(failed)?;
    if name == "zsh" {
        script.extend_from_slice(ZSH_AUTOLOAD.as_bytes());
    }
    print(&String::from_utf8_lossy(&script))?;
    Ok(Code::Success)
}

fn completer(shell: &OsStr) -> Option<&'static dyn EnvCompleter> {
    let name = shell.to_str()?;
    Shells::builtins()
        .0
        .iter()
        .copied()
        .find(|completer| completer.is(name))
}

/// Completes, if this run was started by the script.
pub(super) fn complete_if_asked() -> Option<ExitCode> {
    let completer = completer(&std::env::var_os(VARIABLE)?)?;
    let mut command = with_candidates(help::command());
    command.build();
    let directory = std::env::current_dir().ok();
    let mut text = Vec::new();
    let written = completer
        .write_complete(&mut command, words(), directory.as_deref(), &mut text)
        .and_then(|()| io::stdout().write_all(&text));
    Some(if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the command line that is completed, the program's name first: the words after `--` in the script's call.
fn words() -> Vec<OsString> {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    if words.is_empty() { vec!["tcpgw".into()] } else { words }
}

/// Adds values that the daemon knows to the command line.
fn with_candidates(program: Command) -> Command {
    let names: Vec<String> = program
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let commands = move || names.iter().map(CompletionCandidate::new).collect();
    let program = add(program, &|_, argument| is_named(argument, "SERVICE"), services);
    let program = program.mut_subcommand("service", |service| {
        add(
            service,
            &|command, argument| is_named(argument, "NAME") && command != "add",
            services,
        )
    });
    let program = program.mut_subcommand("deploys", |deploys| {
        add(deploys, &|_, argument| argument.get_id() == "id", deploy_ids)
    });
    // A backend that drains already, or does not, is no use there.
    let program =
        [("drain", "active"), ("undrain", "draining")]
            .into_iter()
            .fold(program, |program, (name, desired)| {
                program.mut_subcommand(name, |command| {
                    add(command, &|_, argument| argument.get_id() == "backends", move || {
                        backends(name, desired)
                    })
                })
            });
    program.mut_subcommand("man", |man| {
        add(man, &|_, argument| argument.get_id() == "command", commands)
    })
}

fn is_named(argument: &Arg, name: &str) -> bool {
    argument
        .get_value_names()
        .is_some_and(|names| names.iter().any(|of| of.as_str() == name))
}

/// Sets the candidates for those arguments of this command, and of the commands below it, that `wants` accepts.
fn add<C>(command: Command, wants: &dyn Fn(&str, &Arg) -> bool, candidates: C) -> Command
where
    C: Fn() -> Vec<CompletionCandidate> + Clone + Send + Sync + 'static,
{
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| {
        if wants(&name, &argument) {
            argument.add(ArgValueCandidates::new(candidates.clone()))
        } else {
            argument
        }
    });
    command.mut_subcommands(|below| add(below, wants, candidates.clone()))
}

fn services() -> Vec<CompletionCandidate> {
    let list: Option<ServiceList> = asked("/v1/services");
    let services = list.iter().flat_map(|list| &list.services);
    let names = services.map(|listed| listed.service.name());
    // Other texts would not be accepted as names, and must not reach the shell.
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    names.filter(is_name).take(MOST).map(CompletionCandidate::new).collect()
}

/// Returns the backends in this state of the service that the command names.
fn backends(command: &str, desired: &str) -> Vec<CompletionCandidate> {
    let service = given().and_then(|matches| {
        let of_command = matches.subcommand_matches(command)?;
        of_command.get_one::<String>("service").cloned()
    });
    let answer: Option<ServiceAnswer> = service.and_then(|name| asked(RequestTarget::of_service(&name, "").as_str()));
    let backends = answer.iter().flat_map(|answer| &answer.backends);
    backends
        .filter(|view| view.desired == desired)
        .map(|view| CompletionCandidate::new(view.backend.to_string()))
        .collect()
}

fn deploy_ids() -> Vec<CompletionCandidate> {
    let list: Option<DeployList> = asked("/v1/deploys");
    let ids = list.iter().flat_map(|list| &list.deploys).map(|deploy| deploy.id);
    ids.take(MOST)
        .map(|id| CompletionCandidate::new(id.to_string()))
        .collect()
}

/// Returns the answer of the daemon at the socket that the command line names; `None`: none answers in time.
fn asked<T: DeserializeOwned + Send + 'static>(target: &str) -> Option<T> {
    let (sender, answer) = mpsc::channel();
    let target = target.to_owned();
    thread::spawn(move || {
        let answer = global()
            .and_then(|global| global.daemon().ok()?)?
            .get(&target)
            .ok()?
            .json()
            .ok()?;
        sender.send(answer).ok()
    });
    answer.recv_timeout(PATIENCE).ok()
}

/// Returns the arguments of an incomplete command line.
fn given() -> Option<ArgMatches> {
    help::command().ignore_errors(true).try_get_matches_from(words()).ok()
}

/// Returns the options of all commands in an incomplete command line.
fn global() -> Option<Global> {
    let mut global = Global::from_arg_matches(&given()?).ok()?;
    // The prompt is no place for warnings.
    global.quiet = true;
    Some(global)
}
