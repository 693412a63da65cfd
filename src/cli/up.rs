//! The command `tcpgw up`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use clap::{Args, Subcommand};

use super::amount::span;
use super::arguments::parse_duration;
use super::failure::{Code, Failure, Outcome};
use super::global::{Global, OutputFormat};
use super::print::{print_json, unless_closed};
use super::table::{Cell, Column, TextTable};
use super::{screen, teardown};
use crate::api::client::{self, Client, ClientError, FoundDaemon};
use crate::config::{Config, daemon as settings};
use crate::up::container::{HelperReport, Spec, code_of};
use crate::up::control::{ControlClient, ControlError, ListedProcess, ProcessPlace, UpAnswer, UpRequest};
use crate::up::error::UpError;
use crate::up::leftovers::{self, Cleaning};
use crate::up::network::Network;
use crate::up::process::{self, Streams};
use crate::up::record::{RecordPaths, socket_in};
use crate::up::run::{self, directory_of};
use crate::up::settings::UpSettings;
use tcpgw_core::problem::ProblemKind;

/// Maximum time to wait for another tcpgw that holds the lock when the table is removed.
const LOCK: Duration = Duration::from_secs(10);

/// Run the processes of a Procfile, each in its own network namespace, with a public port for `tcp`
///
/// Each process gets `PORT`, `TCP_URL` and `PS` in its environment. The command provisions the app with the add-on and sends
/// connections of its public port to the `tcp` processes. It uses the daemon of this network namespace, or starts one that ends
/// with it. SIGINT and SIGTERM end all processes in order; a second signal ends them at once. Needs root.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The Procfile; its directory is the app's directory
    #[arg(short = 'f', long, global = true, value_name = "FILE", default_value = "Procfile")]
    procfile: PathBuf,
    /// A file of variables; may be repeated, later files override [default: .env beside the Procfile, if it exists]
    #[arg(short = 'e', long, value_name = "FILE", value_delimiter = ',')]
    env: Option<Vec<PathBuf>>,
    /// The number of instances of each process type, such as tcp=2,web=1; `all` stands for the types not named [default: all=1]
    #[arg(short = 'm', long, value_name = "TYPE=N,...")]
    formation: Vec<String>,
    /// The plan [default: `up`, with 100,000 packets per second, if this command starts the daemon]
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// The public port [default: a free one]
    #[arg(long, value_name = "PORT")]
    port: Option<NonZeroU16>,
    /// Time that a process has to end after SIGTERM, before it gets SIGKILL, 1s to 10m
    #[arg(long, value_name = "T", default_value = "10s", value_parser = parse_grace)]
    grace: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the processes of the app
    Ps,
    /// Replace processes by new ones; the old ones are told to end when the new ones answer
    Restart(Restart),
    /// Change the number of instances of process types; new `tcp` processes have answered, and get connections, when the command ends
    Scale(Scale),
    /// End all processes of the app, or clean up after a `tcpgw up` that was killed
    Stop,
    /// Run a command in the app's environment, in its own network namespace
    Run(RunArguments),
}

#[derive(Debug, Args)]
struct Restart {
    /// The process types [default: all]
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
}

#[derive(Debug, Args)]
struct Scale {
    /// The number of instances of a process type, such as tcp=2
    #[arg(value_name = "TYPE=N", required = true)]
    formation: Vec<String>,
    /// Return when the new processes are started, and do not wait until they answer
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The command; a single word is run by `sh -c`
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    let grace = parse_duration(text).map_err(|error| error.to_string())?;
    let is_meant = (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&grace);
    is_meant.then_some(grace).ok_or_else(|| "must be 1s to 10m".into())
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        None => start(global, arguments),
        Some(Command::Ps) => list(global, &arguments.procfile),
        Some(Command::Restart(restart)) => order(global, arguments, &UpRequest::Restart(restart.types.clone()), true),
        Some(Command::Scale(scale)) => order(
            global,
            arguments,
            &UpRequest::Scale(scale.formation.clone()),
            !scale.no_wait,
        ),
        Some(Command::Stop) => stop(global, &arguments.procfile),
        Some(Command::Run(run)) => one_off(global, &arguments.procfile, run),
    }
}

fn start(global: &Global, arguments: &Arguments) -> Outcome {
    let config = global.config()?;
    if let Some(port) = arguments.port.filter(|port| !config.fences.allow_port(*port)) {
        return Err(Failure::Usage(format!(
            "--port {port}: the fences do not allow this port: choose one that `fences.ports` of the configuration allows (without it \
             1024 to 65535), or allow it there"
        )));
    }
    let socket = socket(global)?;
    let find = || find(global).map_err(|error| error.to_string());
    let teardown = || tear_down(global);
    let settings = UpSettings {
        procfile: arguments.procfile.clone(),
        env_files: arguments.env.clone(),
        formation: arguments.formation.clone(),
        plan: arguments.plan.clone(),
        port: arguments.port,
        grace: arguments.grace,
        colors: global.colors(&io::stdout()),
        run_dir: global.run_dir.clone(),
        namespace: namespace()?,
        socket,
        store: store(&config),
        rest: rest(&config),
        has_addon: config.addon.is_some(),
        text: config.text.as_deref().unwrap_or_default().to_owned(),
        config: config.file.filter(|_| config.gone.is_none()),
        find: &find,
        teardown: &teardown,
    };
    Ok(run::run(&settings)?.map_or(Code::Success, Code::Signal))
}

/// Returns the store of a daemon that is started.
fn store(config: &Config) -> PathBuf {
    let named = env::var_os("TCPGW_STORE").filter(|store| !store.is_empty());
    named.map_or_else(
        || settings::DaemonSettings::from(config.daemon.clone()).store,
        PathBuf::from,
    )
}

/// Returns the quarantine of ports; zero in the configuration that `tcpgw up` writes itself.
fn rest(config: &Config) -> Duration {
    config.addon.as_ref().map_or(Duration::ZERO, |addon| addon.quarantine)
}

/// Returns the socket of the daemon, whether it exists or not.
fn socket(global: &Global) -> Result<PathBuf, Failure> {
    let named = global
        .socket
        .as_deref()
        .filter(|socket| !socket.is_empty())
        .map(PathBuf::from);
    if named.as_deref() == Some(Path::new(client::NOBODY)) {
        return Err(Failure::Usage(
            "`tcpgw up` needs a daemon: --socket must not be none".into(),
        ));
    }
    let configured = || settings::DaemonSettings::from(global.config_for_looking().daemon).socket;
    Ok(named.unwrap_or_else(configured))
}

/// Returns the daemon of this network namespace; `None`: one may be started.
fn find(global: &Global) -> Result<Option<Client>, Failure> {
    let socket = socket(global)?;
    match client::search(client::At::Named(&socket)) {
        Ok(FoundDaemon::Daemon(daemon)) => Ok(Some(daemon)),
        Ok(FoundDaemon::Nobody) | Err(ClientError::NoDaemon { .. }) => match global.absent() {
            Some(problem) if problem.kind != ProblemKind::DaemonGone => Err(Failure::Refused(problem.message)),
            _ => Ok(None),
        },
        Ok(FoundDaemon::Elsewhere(_)) | Err(ClientError::OtherNamespace(_)) => Err(Failure::Refused(format!(
            "the daemon behind {} serves another network namespace: name another socket by --socket, where `tcpgw up` starts a \
             daemon of its own",
            tcpgw_core::escape::path(&socket)
        ))),
        Err(error) => Err(error.into()),
    }
}

fn tear_down(global: &Global) -> Result<(), String> {
    let torn = teardown::without_daemon(global, LOCK).map_err(|error| error.to_string())?;
    match torn.flows_not_flushed {
        0 => Ok(()),
        flows => Err(format!("{flows} flows could not be flushed")),
    }
}

fn namespace() -> Result<u64, Failure> {
    client::namespace().map_err(|source| Failure::Io {
        what: "identify the network namespace (needs Linux 5.14)",
        source,
    })
}

/// Returns the records of this network namespace, and the directory of the app.
fn place(global: &Global, procfile: &Path) -> Result<(RecordPaths, PathBuf), Failure> {
    let directory = directory_of(procfile)?;
    let places = RecordPaths::new(&global.run_dir, namespace()?).map_err(UpError::from)?;
    let of_app = places.of(&places.id_of(&directory));
    Ok((places, of_app))
}

fn connect(global: &Global, procfile: &Path) -> Result<ControlClient, Failure> {
    let (_, directory) = place(global, procfile)?;
    ControlClient::connect(&socket_in(&directory)).map_err(|error| refused(&error))
}

fn refused(error: &ControlError) -> Failure {
    match error {
        ControlError::Wrong(why) => Failure::Usage(why.clone()),
        error => Failure::Refused(error.to_string()),
    }
}

fn order(global: &Global, arguments: &Arguments, request: &UpRequest, waits: bool) -> Outcome {
    let client_of_up = connect(global, &arguments.procfile)?;
    let say = |answer| {
        if let UpAnswer::Say(text) = answer {
            global.say(&tcpgw_core::escape::text(&text));
        }
    };
    if waits {
        client_of_up.ask(request, say).map_err(|error| refused(&error))?;
    } else {
        // The first answer comes when the order is accepted.
        say(client_of_up.ask_once(request).map_err(|error| refused(&error))?);
    }
    Ok(Code::Success)
}

fn stop(global: &Global, procfile: &Path) -> Outcome {
    let (places, directory) = place(global, procfile)?;
    match ControlClient::connect(&socket_in(&directory)) {
        Ok(client_of_up) => match client_of_up.ask(&UpRequest::Stop, |_| {}) {
            // `tcpgw up` has ended before it could answer.
            Ok(()) | Err(ControlError::Connection(_)) => {}
            Err(error) => return Err(refused(&error)),
        },
        Err(ControlError::Nobody) => {}
        Err(error) => return Err(refused(&error)),
    }
    let lock = places.lock().map_err(UpError::from)?;
    let network = Network::open().map_err(UpError::from)?;
    let config = global.config_for_looking();
    let cleaned = leftovers::clean(&Cleaning {
        places: &places,
        network: &network,
        socket: &socket(global)?,
        store: &store(&config),
        rest: rest(&config),
        teardown: &|| tear_down(global),
        say: &|text| global.say(text),
    });
    let (cleaned, living) = cleaned.map_err(UpError::Left)?;
    if living == 0 {
        lock.discard();
    }
    match cleaned {
        0 => {}
        1 => global.say("cleaned up after a `tcpgw up` that was killed"),
        number => global.say(&format!(
            "cleaned up after {number} runs of `tcpgw up` that were killed"
        )),
    }
    Ok(Code::Success)
}

fn list(global: &Global, procfile: &Path) -> Outcome {
    const COLUMNS: &[Column] = &[
        Column::left("NAME"),
        Column::right("PID"),
        Column::left("STATE"),
        Column::left("ADDRESS"),
        Column::right("FOR").usual(1),
        Column::right("ENDS").usual(2),
    ];
    let mut processes = Vec::new();
    let keep = |answer| {
        if let UpAnswer::Processes(listed) = answer {
            processes = listed;
        }
    };
    connect(global, procfile)?
        .ask(&UpRequest::Ps, keep)
        .map_err(|error| refused(&error))?;
    if global.output == OutputFormat::Json {
        print_json(&serde_json::json!({"processes": processes}))?;
        return Ok(Code::Success);
    }
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let row = |listed: &ListedProcess| {
        vec![
            Cell::whole(&listed.name),
            text(listed.pid.map(|pid| pid.to_string())).into(),
            Cell::from(&*listed.state),
            Cell::whole(&listed.address),
            text(listed.seconds.map(span)).into(),
            listed.ends.to_string().into(),
        ]
    };
    let table = TextTable::new(screen::stdout(), COLUMNS, global.extent());
    unless_closed(table.print(processes.iter().map(row)))?;
    Ok(Code::Success)
}

fn one_off(global: &Global, procfile: &Path, run: &RunArguments) -> Outcome {
    let client_of_up = connect(global, procfile)?;
    let UpAnswer::Place(place) = client_of_up
        .ask_once(&UpRequest::Attach)
        .map_err(|error| refused(&error))?
    else {
        return Err(Failure::Refused(
            "the `tcpgw up` of this directory is of another version: restart it, or use the tcpgw that started it"
                .into(),
        ));
    };
    let failed = |source| Failure::Io {
        what: "start the command",
        source,
    };
    let here = env::current_dir().map_err(failed)?;
    let started = process::start(spec(&place, &run.command), &place.variables, &here, &Streams::Inherited);
    let mut started = started.map_err(failed)?;
    // The terminal's signals are for the command.
    nix::sys::signal::SigSet::from_iter([nix::sys::signal::SIGINT, nix::sys::signal::SIGQUIT])
        .thread_block()
        .map_err(|errno| failed(errno.into()))?;
    if started.reports.next_report() != Some(HelperReport::Ready) {
        return Err(Failure::Refused("failed to make the namespaces of the command".into()));
    }
    client_of_up
        .ask_once(&UpRequest::Connect(started.process.id()))
        .map_err(|error| refused(&error))?;
    started.process.go().map_err(failed)?;
    let mut last = None;
    while let Some(report) = started.reports.next_report() {
        last = Some(report);
    }
    let status = started.process.wait().map_err(failed)?;
    match last {
        Some(HelperReport::Exited(0)) => Ok(Code::Success),
        Some(HelperReport::Exited(code)) => Ok(Code::Other(u8::try_from(code).unwrap_or(1))),
        Some(HelperReport::Signaled(signal)) => Ok(Code::Signal(u8::try_from(signal).unwrap_or(0))),
        Some(HelperReport::Failed(why)) => Err(Failure::Refused(why)),
        _ => Ok(Code::Other(code_of(status))),
    }
}

fn spec(place: &ProcessPlace, command: &[String]) -> Spec {
    let command = match command {
        [line] => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        words => words.to_vec(),
    };
    Spec {
        parent: std::process::id().cast_signed(),
        join: None,
        address: place.address,
        gateway: place.gateway,
        resolver: place.resolver.clone(),
        control: -1,
        report: -1,
        command,
        interactive: true,
    }
}
