//! `tcpgw daemon`: its options. Each is also a `TCPGW_*` variable and a key of `[daemon]` in the configuration.

mod log;

use std::io;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use tracing_subscriber::filter::{self, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use self::log::LogQueue;
use super::error_output::LAST_LINES;
use super::failure::{Code, Failure, Outcome};
use super::global::Global;
use crate::config::daemon::{
    AllFailed, CheckInterval, DaemonSection, DaemonSettings, FlowLogTarget, GroupName, LogFormat, LogLevel, MaxProbes,
    SocketMode, SocketPath,
};
use crate::config::given::SettingsSources;
use crate::daemon::SetLevel;
use tcpgw_core::escape::Screen;

/// Run the daemon: keep the kernel equal to the state file and the API's services, probe backends, drain, repair
///
/// The daemon runs in the foreground and logs to standard error. SIGHUP makes it read the configuration again; SIGTERM ends it.
/// The kernel forwards without it: when the daemon ends, connections go on, and the next daemon takes over the table that it
/// finds.
///
/// Each option is also an environment variable and a key of `[daemon]` in the configuration. An option overrides the
/// variable, and both override the file.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The state file to follow [default: /etc/tcpgw/state.json, if it exists; else the API alone provides services]
    #[arg(long, env = "TCPGW_STATE", value_name = "FILE")]
    state: Option<PathBuf>,
    /// The group that may use the socket [default: the group of the process]
    #[arg(long, env = "TCPGW_SOCKET_GROUP", value_name = "GROUP")]
    socket_group: Option<GroupName>,
    /// The mode of the socket, in octal digits; it must not be writable for everybody [default: 0660]
    #[arg(long, env = "TCPGW_SOCKET_MODE", value_name = "MODE")]
    socket_mode: Option<SocketMode>,
    /// A socket for monitoring, which answers only requests that change nothing [default: none]
    #[arg(long, env = "TCPGW_SOCKET_READONLY", value_name = "PATH")]
    socket_readonly: Option<SocketPath>,
    /// The group that may use the read-only socket [default: the group of the process]
    #[arg(long, env = "TCPGW_SOCKET_READONLY_GROUP", value_name = "GROUP")]
    socket_readonly_group: Option<GroupName>,
    /// The mode of the read-only socket, in octal digits; it must not be writable for everybody [default: 0660]
    #[arg(long, env = "TCPGW_SOCKET_READONLY_MODE", value_name = "MODE")]
    socket_readonly_mode: Option<SocketMode>,
    /// The format of log lines [default: text]
    #[arg(long, env = "TCPGW_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// The lowest level of lines that are logged; overrides -q and -v [default: info]
    #[arg(long, env = "TCPGW_LOG_LEVEL", value_enum)]
    log_level: Option<LogLevel>,
    /// Own the table, so that no other program can change it (Linux 6.9 and newer) [default: true]
    #[arg(long, env = "TCPGW_OWNER", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    owner: Option<bool>,
    /// Let other programs change the table, and repair it afterwards; the same as --owner=false
    #[arg(long, overrides_with = "owner")]
    no_owner: bool,
    /// The time between full checks of the kernel, 1s to 24h; 0s turns them off [default: 60s]
    #[arg(long, env = "TCPGW_CHECK_INTERVAL", value_name = "T")]
    check_interval: Option<CheckInterval>,
    /// Backends that get new connections when all backends of a service fail [default: keep]
    #[arg(long, env = "TCPGW_ALL_FAILED", value_enum)]
    all_failed: Option<AllFailed>,
    /// Maximum number of probes at a time, 1 to 16384 [default: 4096]
    #[arg(long, env = "TCPGW_MAX_PROBES", value_name = "N")]
    max_probes: Option<MaxProbes>,
    /// Accept a state file without services over a gateway that has some [default: false]
    #[arg(long, env = "TCPGW_ALLOW_EMPTY", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    allow_empty: Option<bool>,
    /// Accept ports on which a local program listens; their new connections then go to the service [default: false]
    #[arg(long, env = "TCPGW_TAKE_OVER", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    take_over: Option<bool>,
    /// Count packets, bytes and handshakes of services, from conntrack's accounts [default: false]
    #[arg(long, env = "TCPGW_COUNT_TRAFFIC", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    count_traffic: Option<bool>,
    /// Log each connection that has ended, as a JSON line: the path of a file, or journald [default: none]
    #[arg(long, env = "TCPGW_FLOW_LOG", value_name = "FILE")]
    flow_log: Option<FlowLogTarget>,
    /// The file that keeps services, history and resources of the add-on when the daemon ends [default: /var/lib/tcpgw/tcpgw.db]
    #[arg(long, env = "TCPGW_STORE", value_name = "FILE")]
    store: Option<PathBuf>,
}

/// Returns the sources of the daemon's settings, which are read at the start and at every reload.
pub(super) fn given(global: &Global, arguments: &Arguments) -> Result<SettingsSources, Failure> {
    let socket = global
        .socket
        .clone()
        .map(|path| SocketPath::new(path.into()))
        .transpose();
    let socket = socket.map_err(|error| Failure::Usage(format!("--socket: {error}")))?;
    let by_verbosity = match (global.quiet, global.verbose) {
        (true, _) => Some(LogLevel::Error),
        (_, 0) => None,
        (_, 1) => Some(LogLevel::Debug),
        _ => Some(LogLevel::Trace),
    };
    Ok(SettingsSources {
        config: global.config.clone(),
        section: DaemonSection {
            state: arguments.state.clone(),
            socket,
            socket_group: arguments.socket_group.clone(),
            socket_mode: arguments.socket_mode,
            socket_readonly: arguments.socket_readonly.clone(),
            socket_readonly_group: arguments.socket_readonly_group.clone(),
            socket_readonly_mode: arguments.socket_readonly_mode,
            log_format: arguments.log_format,
            log_level: arguments.log_level.or(by_verbosity),
            owner: if arguments.no_owner {
                Some(false)
            } else {
                arguments.owner
            },
            check_interval: arguments.check_interval,
            all_failed: arguments.all_failed,
            max_probes: arguments.max_probes,
            allow_empty: arguments.allow_empty,
            take_over: arguments.take_over,
            count_traffic: arguments.count_traffic,
            flow_log: arguments.flow_log.clone(),
            store: arguments.store.clone(),
        },
        run_dir: Some(global.run_dir.clone()),
    })
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let given = given(global, arguments)?;
    let (settings, config) = given.load()?;
    let (set_level, log) = start_logs(global, &settings);
    let ended = crate::daemon::run(&given, settings, config, &global.run_dir, set_level).map_err(Failure::from);
    if log.is_some_and(|log| !log.flush(LAST_LINES)) {
        // Standard error is not read: a message there would wait for ever, and the daemon with it.
        std::process::exit(ended.err().map_or(0, |failure| failure.code().into()));
    }
    ended.map(|()| Code::Success)
}

/// Starts logging, and returns the function that changes its level. Nothing is logged if standard error is closed.
fn start_logs(global: &Global, settings: &DaemonSettings) -> (SetLevel, Option<LogQueue>) {
    let (level, handle) = reload::Layer::new(LevelFilter::from(tracing::Level::from(settings.log_level)));
    // These crates call what newer kernels tell an error.
    let ours = filter::filter_fn(|about| !about.target().starts_with("netlink"));
    let registry = tracing_subscriber::registry().with(level).with(ours);
    let tell = |lines| {
        tracing::warn!(
            lines,
            "the log is not read fast enough; this many lines before this one were dropped"
        );
    };
    let log = LogQueue::start(tell).ok();
    let writer = log.clone();
    let writer = move || {
        let out: Box<dyn io::Write> = writer
            .clone()
            .map_or_else(|| Box::new(io::sink()) as _, |log| Box::new(log) as _);
        Screen::text(out)
    };
    let layer = fmt::layer().with_writer(writer).with_target(false);
    match settings.log_format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
        // The journal notes the time itself.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            registry.with(layer.with_ansi(false).without_time()).init();
        }
        LogFormat::Text => registry.with(layer.with_ansi(global.colors(&io::stderr()))).init(),
    }
    let set_level: SetLevel = Box::new(move |level| {
        let level = LevelFilter::from(tracing::Level::from(level));
        if let Err(error) = handle.modify(|filter| *filter = level) {
            tracing::warn!(%error, "failed to change the log level");
        }
    });
    (set_level, log)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Config;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(args: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from(["tcpgw"].iter().chain(args))
    }

    fn section(args: &[&str]) -> DaemonSection {
        let line = line(args).unwrap();
        given(&line.global, &line.arguments).unwrap().section
    }

    #[test]
    fn every_key_has_an_option() {
        let from_line = section(&[
            "--state=/s.json",
            "--socket=/run/x.sock",
            "--socket-group=deploy",
            "--socket-mode=0600",
            "--socket-readonly=/run/r.sock",
            "--socket-readonly-group=monitoring",
            "--socket-readonly-mode=0640",
            "--log-format=json",
            "--log-level=debug",
            "--owner=false",
            "--check-interval=0s",
            "--all-failed=empty",
            "--max-probes=7",
            "--allow-empty",
            "--take-over=yes",
            "--store=/x.db",
        ]);
        let from_file: Config = Config::parse(
            "config.toml".as_ref(),
            br#"
            [daemon]
            state = "/s.json"
            socket = "/run/x.sock"
            socket_group = "deploy"
            socket_mode = "0600"
            socket_readonly = "/run/r.sock"
            socket_readonly_group = "monitoring"
            socket_readonly_mode = "0640"
            log_format = "json"
            log_level = "debug"
            owner = false
            check_interval = "0s"
            all_failed = "empty"
            max_probes = 7
            allow_empty = true
            take_over = true
            store = "/x.db"
            "#,
        )
        .unwrap();
        assert_eq!(from_line, from_file.daemon);
        assert_eq!(section(&[]), DaemonSection::default());
    }

    #[test]
    fn every_option_has_its_variable() {
        let command = <Line as clap::CommandFactory>::command();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| {
                !matches!(
                    *long,
                    "no-owner" | "output" | "quiet" | "verbose" | "no-color" | "help" | "run-dir"
                )
            }) else {
                continue;
            };
            let variable = format!("TCPGW_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env(), Some(variable.as_ref()), "--{long}");
        }
    }

    #[test]
    fn the_last_word_on_ownership_counts() {
        assert_eq!(section(&["--no-owner"]).owner, Some(false));
        assert_eq!(section(&["--owner"]).owner, Some(true));
        assert_eq!(section(&["--owner", "--no-owner"]).owner, Some(false));
        assert_eq!(section(&["--no-owner", "--owner"]).owner, Some(true));
    }

    #[test]
    fn a_level_goes_before_verbosity() {
        assert_eq!(section(&["-v"]).log_level, Some(LogLevel::Debug));
        assert_eq!(section(&["-q"]).log_level, Some(LogLevel::Error));
        assert_eq!(section(&["-vv", "--log-level", "warn"]).log_level, Some(LogLevel::Warn));
    }

    #[test]
    fn wrong_options_say_what_is_accepted() {
        for (option, message) in [
            ("--socket-mode=0666", "would let every user"),
            ("--check-interval=1ms", "must be 1s to 24h"),
            ("--max-probes=0", "from 1 to 16384"),
            ("--owner=perhaps", "perhaps"),
            ("--state=", "a value is required"),
        ] {
            let error = line(&[option]).unwrap_err().to_string();
            assert!(error.contains(message), "{option}: {error}");
        }
        let long = format!("--socket=/{}", "x".repeat(107));
        let line = line(&[&long]).unwrap();
        let error = given(&line.global, &line.arguments).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().contains("107 bytes")),
            (2, true),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_configuration_is_the_callers_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[daemon]\nmax_probe = 1").unwrap();
        let line = line(&["--config", file.to_str().unwrap()]).unwrap();
        let given = given(&line.global, &line.arguments).unwrap();
        let error = Failure::from(given.load().unwrap_err());
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("line 2, column 1"), "{error}");
        std::fs::write(&file, "[daemon]\nmax_probes = 1").unwrap();
        let (settings, config) = given.load().unwrap();
        assert_eq!((settings.max_probes.get(), config.file), (1, Some(file)));
    }
}
