//! The options of all commands, and what they decide: the daemon's socket, the configuration, what is said to people.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::screen;
use super::table::Extent;
use crate::api::client::{self, At, Client};
use crate::cli::arguments::FileArgument;
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::config::daemon::{DaemonSection, DaemonSettings};
use crate::config::given::SettingsSources;
use crate::state_file;
use crate::view::Hint;
use tcpgw_core::model::{InputProblems, State};
use tcpgw_core::problem::Problem;

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(super) struct Global {
    /// The configuration file, with fences and flow mark [default: /etc/tcpgw/config.toml, if it exists]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        env = "TCPGW_CONFIG",
        value_name = "FILE"
    )]
    pub(super) config: Option<PathBuf>,
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
    pub(super) socket: Option<OsString>,
    /// The format of what is printed
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        value_enum,
        default_value_t = OutputFormat::Table
    )]
    pub(super) output: OutputFormat,
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
    pub(super) quiet: bool,
    /// Log more on standard error; given twice, log everything
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        action = clap::ArgAction::Count
    )]
    pub(super) verbose: u8,
    /// Print no colours, as with the variable `NO_COLOR`
    #[arg(long, global = true, hide_short_help = true, hide_long_help = true)]
    pub(super) no_color: bool,
    /// The directory of the lock and of the record of the last apply
    #[arg(
        long,
        global = true,
        env = "TCPGW_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/tcpgw",
        hide = true
    )]
    pub(super) run_dir: PathBuf,
    /// The socket of the configuration, once that was read.
    #[arg(skip)]
    pub(super) configured: OnceCell<PathBuf>,
}

/// Format of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Sentences and tables for people; on a terminal, tables have the columns that fit
    Table,
    /// Sentences and tables for people, with all columns of tables whatever the width of the terminal
    Wide,
    /// JSON for scripts
    Json,
}

pub(super) fn start_logs(global: &Global) {
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
    pub(super) fn colors(&self, stream: &impl IsTerminal) -> bool {
        !self.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
    }

    /// Returns the part of a table that is shown.
    pub(super) fn extent(&self) -> Extent {
        match self.output {
            OutputFormat::Wide => Extent::All,
            OutputFormat::Table | OutputFormat::Json => terminal_size::terminal_size_of(io::stdout())
                .map_or(Extent::Usual, |(width, _)| Extent::Width(width.0.into())),
        }
    }

    /// Returns the daemon of this network namespace, if there is one.
    pub(super) fn daemon(&self) -> Result<Option<Client>, Failure> {
        Ok(client::find(self.socket_at())?)
    }

    /// Returns the socket at which the daemon is looked for: the one that was named, else that of the configuration.
    pub(super) fn socket_at(&self) -> At<'_> {
        let named = self.socket.as_deref().filter(|socket| !socket.is_empty());
        named.map_or_else(|| At::Usual(self.usual_socket()), |named| At::Named(Path::new(named)))
    }

    /// Returns the socket of the configuration. If that cannot be read, warns and returns the default.
    pub(super) fn usual_socket(&self) -> &Path {
        self.configured.get_or_init(|| {
            // Warnings about users who may write to the file are printed by commands that use the rest of it.
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
                    DaemonSection::default()
                }
            };
            DaemonSettings::from(section).socket
        })
    }

    /// Returns the daemon, for commands that need one; `what` is the action that only a daemon can do.
    pub(super) fn must_daemon(&self, what: &str) -> Result<Client, Failure> {
        self.daemon_or_why()?.map_err(|why| Self::without_daemon(what, why))
    }

    /// Returns the failure of a command that needs a daemon, with the reason why none was asked.
    pub(super) fn without_daemon(what: &str, why: Option<Problem>) -> Failure {
        Failure::Refused(match why {
            Some(why) => format!("only a daemon {what}; {}", why.message),
            None => format!(
                "no daemon runs in this network namespace, and only a daemon {what}: start one (`tcpgw daemon`, or the \
                 unit tcpgw.service), or name its socket (--socket)"
            ),
        })
    }

    /// Returns whether only the exit code is wanted, and no report for people.
    pub(super) fn is_silent(&self) -> bool {
        self.quiet && self.output != OutputFormat::Json
    }

    /// Prints a message for people, unless `--quiet` is given.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(screen::stderr(), "{text}");
        }
    }

    /// Returns the configuration for a command that only looks. If it cannot be read, warns and returns the defaults.
    pub(super) fn config_for_looking(&self) -> Config {
        self.config().unwrap_or_else(|error| {
            for line in error.to_string().lines() {
                self.warn(&line);
            }
            self.warn(&"the configuration is not used: the following output is based on the defaults");
            Config::default()
        })
    }

    /// Returns the configuration in effect: if the file at the default path is gone or not accepted, that of its copy, with a
    /// warning.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Ok(self.warned(self.given().load()?.1))
    }

    /// Returns the configuration for a command that judges files and changes nothing: one that is not accepted is an error.
    pub(super) fn strict_config(&self) -> Result<Config, Failure> {
        Ok(self.warned(self.given().load_strictly()?))
    }

    /// Returns the sources of a daemon's settings, as far as they are known to a command.
    pub(super) fn given(&self) -> SettingsSources {
        SettingsSources {
            config: self.config.clone(),
            run_dir: Some(self.run_dir.clone()),
            ..SettingsSources::default()
        }
    }

    fn warned(&self, config: Config) -> Config {
        if let Some(gone) = &config.gone {
            self.warn(&gone.message);
        }
        config
    }

    /// Reads and validates a state file, fences included.
    pub(super) fn state(&self, file: &FileArgument, config: &Config) -> Result<State, Failure> {
        let text = self.read(file)?;
        self.parse(file, &text, config)
    }

    /// Reads a state file.
    pub(super) fn read(&self, file: &FileArgument) -> Result<Vec<u8>, Failure> {
        self.say_if_terminal(file);
        Ok(state_file::read(&file.file)?)
    }

    /// Validates the text of a state file, fences included.
    pub(super) fn parse(&self, file: &FileArgument, text: &[u8], config: &Config) -> Result<State, Failure> {
        let invalid = |problems| Failure::Invalid {
            file: file.file.clone(),
            problems,
        };
        let state = tcpgw_core::model::parse(text).map_err(invalid)?;
        let problems: InputProblems = config.check(&state).into_iter().collect();
        problems.clone().into_result().map_err(invalid)?;
        for warning in tcpgw_core::model::warnings(&state) {
            self.warn(&warning);
        }
        Ok(state)
    }

    /// Says on a terminal that standard input is awaited.
    pub(super) fn say_if_terminal(&self, file: &FileArgument) {
        if file.file.as_os_str() == "-" && io::stdin().is_terminal() && !self.quiet {
            let _ = writeln!(screen::stderr(), "reading the state from standard input");
        }
    }

    /// Says why columns are empty if all columns are shown. Otherwise such columns are left out.
    pub(super) fn hint(&self, hints: &[Hint]) {
        if !self.quiet && self.output == OutputFormat::Wide {
            for hint in hints {
                let _ = writeln!(screen::stderr(), "note: {hint}");
            }
        }
    }

    /// Prints a further error besides the one for which a command fails.
    pub(super) fn error(&self, text: &str) {
        let label = if self.colors(&io::stderr()) {
            "\u{1b}[1;31merror:\u{1b}[0m"
        } else {
            "error:"
        };
        let _ = writeln!(screen::stderr(), "{label} {}", tcpgw_core::escape::text(text));
    }

    pub(super) fn warn(&self, warning: &impl std::fmt::Display) {
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
