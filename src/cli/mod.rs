//! The command line: one file per command, and what they share.

mod absent;
mod addon;
mod amount;
mod apply;
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
mod flows;
mod gateway;
mod help;
mod history;
mod manual;
#[cfg(test)]
mod manual_tests;
mod others;
mod pause;
mod preflight;
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

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use self::table::Extent;
use crate::api::client::{self, At, Client, ClientError};
use crate::config::daemon::{Section, Settings};
use crate::config::{Config, ConfigError};
use crate::daemon::DaemonError;
use crate::lock::LockError;
use crate::observe::ObserveError;
use crate::reconcile::ReconcileError;
use crate::state_file::{self, SourceError};
use crate::view::Hint;
use tcpgw_core::model::{Problems, State, duration};
use tcpgw_kernel::KernelError;
use tcpgw_kernel::listeners::ListenersError;
use tcpgw_kernel::netlink::socket::NetlinkError;

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

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct Global {
    /// The configuration file, with fences and flow mark [default: /etc/tcpgw/config.toml, if it exists]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        env = "TCPGW_CONFIG",
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// The daemon's socket; with `none` the command works on the kernel without a daemon [default: `daemon.socket` of the
    /// configuration, else /run/tcpgw/tcpgw.sock, if a daemon of this network namespace answers there]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        env = "TCPGW_SOCKET",
        value_name = "FILE",
        value_parser = clap::builder::OsStringValueParser::new()
    )]
    socket: Option<OsString>,
    /// The format of what is printed
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        value_enum,
        default_value_t = Output::Table
    )]
    output: Output,
    /// Print no warnings, notes and summaries; `status` and `doctor` print nothing and only set the exit code, unless `-o json` is
    /// given
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        conflicts_with = "verbose"
    )]
    quiet: bool,
    /// Log more on standard error; given twice, log everything
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        action = clap::ArgAction::Count
    )]
    verbose: u8,
    /// Print no colours, as with the variable `NO_COLOR`
    #[arg(long, global = true, hide_short_help = true, hide_long_help = true)]
    no_color: bool,
    /// The directory of the lock and of the record of the last apply
    #[arg(
        long,
        global = true,
        env = "TCPGW_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/tcpgw",
        hide = true
    )]
    run_dir: PathBuf,
    /// The socket of the configuration, once that was read.
    #[arg(skip)]
    configured: OnceCell<PathBuf>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Sentences and tables for people; on a terminal, tables have the columns that fit
    Table,
    /// The same, with all columns of tables, whatever the width of the terminal
    Wide,
    /// JSON for scripts
    Json,
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

/// A state file.
#[derive(Debug, Args)]
struct File {
    /// The state file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Locking {
    /// How long to wait for another tcpgw that holds the lock of this network namespace
    #[arg(long, value_name = "T", default_value = "10s", value_parser = parse_duration)]
    lock_timeout: Duration,
}

/// What is wrong with what was ordered of a service is wrong input.
fn of_service(name: &str) -> impl Fn(ClientError) -> Failure {
    move |error| match error {
        ClientError::Invalid(problems) => Failure::Invalid {
            file: name.into(),
            problems,
        },
        other => other.into(),
    }
}

fn parse_duration(text: &str) -> Result<Duration, duration::DurationError> {
    duration::parse(text)
}

/// Why a command failed.
#[derive(Debug, Error)]
enum Failure {
    /// The input is wrong.
    #[error("{}", Invalid(file, problems))]
    Invalid { file: PathBuf, problems: Problems },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Look(ObserveError),
    #[error(transparent)]
    Daemon(ClientError),
    /// Refused for the operator's own good.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("{error}{option}", error = .0, option = option_of(.0))]
    Lock(#[from] LockError),
    #[error(transparent)]
    Listeners(#[from] ListenersError),
    #[error(transparent)]
    Serving(#[from] DaemonError),
    #[error(transparent)]
    Up(#[from] crate::up::run::UpError),
    #[error("failed to {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused {
                status: 400, message, ..
            } => Self::Usage(message),
            other => Self::Daemon(other),
        }
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Families(..) => Self::Usage(error.to_string()),
            ObserveError::Write(source) => Self::Io {
                what: "write to standard output",
                source,
            },
            other => Self::Look(other),
        }
    }
}

/// The option by which a command waits longer for the lock.
fn option_of(error: &LockError) -> &'static str {
    match error {
        LockError::Held { holder, .. } if holder.contains(" daemon") => {
            " (--lock-timeout). The holder is a daemon, which holds the lock as long as it runs: use its socket (without `--socket none`), or \
             end it first (`systemctl stop tcpgw`)"
        }
        LockError::Held { .. } => " (--lock-timeout)",
        LockError::File { .. } => "",
    }
}

struct Invalid<'a>(&'a PathBuf, &'a Problems);

impl std::fmt::Display for Invalid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = if self.0.as_os_str() == "-" {
            "<stdin>".to_owned()
        } else {
            tcpgw_core::escape::path(self.0)
        };
        for (at, problem) in self.1.iter().enumerate() {
            let problem = tcpgw_core::escape::text(&problem.to_string());
            write!(f, "{}{file}: {problem}", if at > 0 { "\n" } else { "" })?;
        }
        match self.1.total() - self.1.iter().count() {
            0 => Ok(()),
            more => write!(f, "\n{file}: and {more} more"),
        }
    }
}

/// What a command came to.
type Outcome = Result<Code, Failure>;

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Success,
    /// For `diff`: there are changes; for `apply`: it is not finished; for `status`: something is unhealthy; for `who`:
    /// nobody.
    Failure,
    /// Ended by that signal.
    Signal(u8),
    /// That of a command that was run.
    Other(u8),
}

/// Runs the command line and gives the exit code.
pub fn run() -> ExitCode {
    if let Some(code) = crate::up::container::run_if_asked() {
        return code;
    }
    if let Some(code) = completions::complete_if_asked() {
        return code;
    }
    tcpgw_kernel::ffi::keep_memory();
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

impl Failure {
    /// 2 for what the caller got wrong, 1 for everything else.
    fn code(&self) -> u8 {
        match self {
            Self::Invalid { .. } | Self::Config(_) | Self::Source(_) | Self::Usage(_) => 2,
            Self::Up(error) if error.is_usage() => 2,
            _ => 1,
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

fn start_logs(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => tracing::Level::ERROR,
        (_, 0) => tracing::Level::WARN,
        (_, 1) => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(screen::stderr)
        .with_ansi(global.colors(&io::stderr()))
        .without_time()
        .with_target(false)
        .init();
}

impl Global {
    fn colors(&self, stream: &impl IsTerminal) -> bool {
        !self.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
    }

    /// How much of a table is shown.
    fn extent(&self) -> Extent {
        match self.output {
            Output::Wide => Extent::All,
            Output::Table | Output::Json => terminal_size::terminal_size_of(io::stdout())
                .map_or(Extent::Usual, |(width, _)| Extent::Width(width.0.into())),
        }
    }

    /// The daemon that keeps this network namespace, if there is one.
    fn daemon(&self) -> Result<Option<Client>, Failure> {
        Ok(client::find(self.socket_at())?)
    }

    /// Where the daemon is looked for: at the socket that was named, else at that of the configuration.
    fn socket_at(&self) -> At<'_> {
        let named = self.socket.as_deref().filter(|socket| !socket.is_empty());
        named.map_or_else(|| At::Usual(self.usual_socket()), |named| At::Named(Path::new(named)))
    }

    /// The socket of the configuration. One that cannot be read is warned of, and the default takes its place.
    fn usual_socket(&self) -> &Path {
        self.configured.get_or_init(|| {
            // Who may write to it is said by commands that use the rest of it.
            let quiet = tracing::subscriber::NoSubscriber::new();
            let config = tracing::subscriber::with_default(quiet, || Config::load(self.config.as_deref()));
            let section = match config {
                Ok(config) => config.daemon,
                Err(error) => {
                    let socket = client::DEFAULT_SOCKET;
                    self.warn(&format!(
                        "the configuration cannot be read, so that the daemon is asked at the default socket, {socket}: {}",
                        error.line()
                    ));
                    Section::default()
                }
            };
            Settings::from(section).socket
        })
    }

    /// The daemon, for what needs one; `what` is what only a daemon does.
    fn must_daemon(&self, what: &str) -> Result<Client, Failure> {
        self.daemon_or_why()?.map_err(|why| {
            Failure::Refused(match why {
                Some(why) => format!("only a daemon {what}; {}", why.message),
                None => format!(
                    "no daemon is at work for this network namespace, and only a daemon {what}: start one (`tcpgw daemon`, or the \
                     unit tcpgw.service), or name its socket (--socket)"
                ),
            })
        })
    }

    /// Whether a report for people is not wanted: only its exit code is.
    fn is_silent(&self) -> bool {
        self.quiet && self.output != Output::Json
    }

    /// Says something to people who watch.
    fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(screen::stderr(), "{text}");
        }
    }

    /// The configuration for a command that only looks: one that cannot be read is warned of, and the defaults take its place.
    fn config_for_looking(&self) -> Config {
        self.config().unwrap_or_else(|error| {
            for line in error.to_string().lines() {
                self.warn(&line);
            }
            self.warn(&"the configuration is not used: the following output is based on the defaults");
            Config::default()
        })
    }

    fn config(&self) -> Result<Config, Failure> {
        let config = Config::load(self.config.as_deref())?;
        if let Some(gone) = &config.gone {
            self.warn(&gone.message);
        }
        Ok(config)
    }

    /// Reads and validates a state file, fences included.
    fn state(&self, file: &File, config: &Config) -> Result<State, Failure> {
        let text = self.read(file)?;
        self.parse(file, &text, config)
    }

    /// Reads a state file.
    fn read(&self, file: &File) -> Result<Vec<u8>, Failure> {
        self.say_if_terminal(file);
        Ok(state_file::read(&file.file)?)
    }

    /// Validates the text of a state file, fences included.
    fn parse(&self, file: &File, text: &[u8], config: &Config) -> Result<State, Failure> {
        let invalid = |problems| Failure::Invalid {
            file: file.file.clone(),
            problems,
        };
        let state = tcpgw_core::model::parse(text).map_err(invalid)?;
        let problems: Problems = config.check(&state).into_iter().collect();
        problems.clone().into_result().map_err(invalid)?;
        for warning in tcpgw_core::model::warnings(&state) {
            self.warn(&warning);
        }
        Ok(state)
    }

    /// Whoever sees nothing happen is told what is waited for.
    fn say_if_terminal(&self, file: &File) {
        if file.file.as_os_str() == "-" && io::stdin().is_terminal() && !self.quiet {
            let _ = writeln!(screen::stderr(), "reading the state from standard input");
        }
    }

    /// Says why columns are empty where all are shown. Otherwise such columns are left out.
    fn hint(&self, hints: &[Hint]) {
        if !self.quiet && self.output == Output::Wide {
            for hint in hints {
                let _ = writeln!(screen::stderr(), "note: {hint}");
            }
        }
    }

    /// Says what is wrong besides that for which a command fails.
    fn error(&self, text: &str) {
        let label = if self.colors(&io::stderr()) {
            "\u{1b}[1;31merror:\u{1b}[0m"
        } else {
            "error:"
        };
        let _ = writeln!(screen::stderr(), "{label} {}", tcpgw_core::escape::text(text));
    }

    fn warn(&self, warning: &impl std::fmt::Display) {
        if !self.quiet {
            let label = if self.colors(&io::stderr()) {
                "\u{1b}[1;33mwarning:\u{1b}[0m"
            } else {
                "warning:"
            };
            let _ = writeln!(
                screen::stderr(),
                "{label} {}",
                tcpgw_core::escape::text(&warning.to_string())
            );
        }
    }
}

/// Whoever reads no further has read enough.
fn unless_closed(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn print(text: &str) -> Result<(), Failure> {
    print_on(screen::stdout(), text)
}

fn print_on(mut stdout: impl Write, text: &str) -> Result<(), Failure> {
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Io {
        what: "write JSON",
        source: error.into(),
    })?;
    print_on(screen::json(), &(text + "\n"))
}

/// Prints what was done: its view as JSON, or a sentence.
fn show(global: &Global, view: &impl serde::Serialize, text: &str) -> Outcome {
    match global.output {
        Output::Json => print_json(view)?,
        Output::Table | Output::Wide if global.quiet => {}
        Output::Table | Output::Wide => print(text)?,
    }
    Ok(Code::Success)
}
