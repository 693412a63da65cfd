//! The configuration, for commands that change nothing: they report what is wrong with it.

use super::global::Global;
use crate::config::Config;
use crate::daemon::start::{self, StartError};
use crate::secrets::Owners;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// The usable part of the configuration, and whether a daemon would start with it.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    /// Contents of the file; the defaults if it is not accepted.
    pub(super) config: Config,
    /// Reason why no daemon starts with it, or why a part of it is not in effect.
    pub(super) problem: Option<Problem>,
    /// Reason why this user cannot judge it.
    pub(super) unchecked: Option<String>,
}

impl Global {
    /// Returns the configuration, judged as a daemon that starts judges it.
    pub(super) fn judged_config(&self) -> Configuration {
        let (config, judged) = match self.given().load() {
            Ok((settings, config)) => {
                let judged = start::judge(&settings, &config, &Owners::judging(&self.run_dir));
                (Some(config), judged)
            }
            Err(error) => (None, Err(error.into())),
        };
        let is_used = config.is_some();
        let mut configuration = Configuration {
            config: config.unwrap_or_else(|| Config {
                file: self.config.clone(),
                ..Config::default()
            }),
            ..Configuration::default()
        };
        match judged {
            Ok(()) => configuration.problem = configuration.config.gone.clone(),
            Err(error) if error.is_by_user() => configuration.unchecked = by_user(&error, is_used),
            Err(error) => configuration.problem = Some(problem(&error, is_used)),
        }
        configuration
    }
}

impl Configuration {
    /// Returns the problem of the configuration, given the problem of the daemon, which was not asked: a daemon that runs goes
    /// on with the configuration that it has read.
    pub(super) fn problem_beside(&self, daemon: Option<&Problem>) -> Option<Problem> {
        let problem = self.problem.clone()?;
        let is_running = daemon.is_some_and(|why| why.kind == ProblemKind::DaemonUnreachable);
        Some(if is_running {
            problem.with_severity(Severity::Warning)
        } else {
            problem
        })
    }
}

/// Returns why this user cannot judge the configuration: a file that this user may not read need not be wrong. `None`: root
/// sees that a file belongs to another user, and the rest of the configuration is used.
fn by_user(error: &StartError, is_used: bool) -> Option<String> {
    let is_root = nix::unistd::geteuid().is_root();
    (!is_root || !is_used).then(|| format!("{error}{}", defaults(is_used)))
}

fn problem(error: &StartError, is_used: bool) -> Problem {
    let mut problem = error.problem();
    problem.message.push_str(match problem.severity {
        Severity::Error => "; `tcpgw apply` and `tcpgw check` refuse it, too",
        Severity::Warning => "",
    });
    problem.message.push_str(defaults(is_used));
    problem
}

fn defaults(is_used: bool) -> &'static str {
    if is_used {
        ""
    } else {
        "; the output here is based on the defaults"
    }
}
