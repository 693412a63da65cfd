//! The command `tcpgw deploy`.

mod hook;
mod progress;
mod signals;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::progress::Progress;
use self::signals::{Choice, DeploySignals};
use super::arguments::parse_duration;
use super::deploys;
use super::failure::{Code, Failure, Outcome, of_service};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json};
use crate::api::answers::{AnswerWithJson, DeployAnswer};
use crate::api::client::{self, Client, ClientError, DaemonResponse, RequestTarget};
use crate::api::orders::{DeployBody, json};
use tcpgw_core::model::duration;

/// Maximum time of one question to the daemon: after that, progress is shown, and signals are handled.
const PIECE: Duration = Duration::from_millis(500);
/// Maximum time that a daemon may be absent, as during a restart.
const AWAY: Duration = Duration::from_secs(10);
/// Pause between two attempts to reach the daemon.
const PAUSE: Duration = Duration::from_millis(200);

/// Replace the backends of a service by new ones, once the new ones answer
///
/// The daemon probes the new backends with TCP handshakes, and with the question of `health` if the service has one. When all
/// of them (or `--min`) have answered, new connections go to them and the old backends drain. If too many do not answer in time,
/// nothing is switched, and the exit code is 1. Ctrl-C asks whether to undo the deploy, to leave it running, or to keep
/// waiting. Where nobody can be asked, a deploy that is still probing is undone, and one that has switched goes on.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// A new backend; may be repeated. Afterwards the service has these backends and no others
    #[arg(
        long,
        required = true,
        value_name = "IP:PORT[=WEIGHT]",
        value_parser = super::service::options::backend
    )]
    target: Vec<Value>,
    /// Phase after which the command returns
    #[arg(long, value_enum, default_value_t = WaitUntil::Drained)]
    until: WaitUntil,
    /// Longest time for the new backends to answer
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Longest time that flows of the old backends may live [default: the service's `drain_timeout`]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
    /// Number of new backends that must answer [default: all]
    #[arg(long, value_name = "N")]
    min: Option<usize>,
    /// End a deploy of the service that is still probing, instead of refusing this one. It ends as undone, superseded by this one
    #[arg(long)]
    supersede: bool,
    /// A command for `sh -c` that is run when new connections go to the new backends and the old ones may be stopped. Its
    /// environment has `TCPGW_SERVICE`, `TCPGW_DEPLOY`, `TCPGW_OLD` and `TCPGW_NEW`. If the command fails, the switch is kept,
    /// and the exit code is 1. It is not run if no old backend is replaced
    #[arg(long, value_name = "CMD")]
    on_switched: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitUntil {
    /// New connections go to the new backends
    Switched,
    /// The old backends have no flows left and may be removed
    Drained,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("deploys")?;
    let signals = DeploySignals::listen()?;
    let body = DeployBody {
        targets: arguments.target.clone(),
        min: arguments.min,
        timeout: Some(duration::show(arguments.timeout)),
        drain_timeout: arguments.drain_timeout.map(duration::show),
        supersede: arguments.supersede,
    };
    let target = RequestTarget::of_service(&arguments.service, "/deploys");
    let open = format!(
        "`tcpgw deploys --service {}` shows whether the deploy has begun",
        arguments.service
    );
    let begun = daemon.post_unless(
        target.as_str(),
        json(&body),
        arguments.timeout.max(AWAY),
        signals.insisted(),
    );
    let answer = match begun {
        Ok(Ok(answer)) => answer.json(),
        // The order may have come through.
        Ok(Err(signal)) => {
            global.say(&open);
            return Ok(Code::Signal(signal));
        }
        Err(error) => Err(error),
    };
    let deploy: AnswerWithJson<DeployAnswer> = answer.map_err(|error| match error {
        error @ (ClientError::Connection { .. } | ClientError::Hung { .. } | ClientError::Late { .. }) => {
            Failure::Refused(format!("{error}; {open}"))
        }
        other => of_service(&arguments.service)(other),
    })?;
    Follower {
        global,
        daemon: &daemon,
        arguments,
        id: deploy.id,
        progress: Progress::new(global),
        begun: Instant::now(),
        hook_failed: false,
        is_switched: false,
    }
    .follow(&signals, deploy)
}

/// State of a command that follows a deploy.
struct Follower<'a> {
    global: &'a Global,
    daemon: &'a Client,
    arguments: &'a Arguments,
    id: u64,
    progress: Progress,
    begun: Instant,
    hook_failed: bool,
    is_switched: bool,
}

impl Follower<'_> {
    fn follow(mut self, signals: &DeploySignals, mut deploy: AnswerWithJson<DeployAnswer>) -> Outcome {
        loop {
            if let Some(code) = self.see(&deploy)? {
                return Ok(code);
            }
            if let Some(signal) = signals.caught() {
                self.progress.clear();
                match choose(signals, &deploy) {
                    Choice::Wait => {}
                    Choice::GoOn => {
                        self.global.say(&format!(
                            "deploy {} goes on without this command; `tcpgw deploys {}` shows it",
                            self.id, self.id
                        ));
                        return Ok(Code::Signal(signal));
                    }
                    Choice::Undo => return self.undo(signal),
                }
            }
            deploy = match self.state(signals)? {
                Ok(deploy) => deploy,
                Err(signal) => {
                    self.progress.clear();
                    self.global.say(&format!(
                        "the daemon does not answer; `tcpgw deploys {}` shows the state of deploy {}",
                        self.id, self.id
                    ));
                    return Ok(Code::Signal(signal));
                }
            };
        }
    }

    /// Records the state of the deploy; returns the exit code once the deploy has come far enough.
    fn see(&mut self, deploy: &AnswerWithJson<DeployAnswer>) -> Result<Option<Code>, Failure> {
        self.progress.show(deploy);
        match &*deploy.phase {
            "failed" | "undone" => return self.end(deploy, Code::Failure).map(Some),
            "switched" | "drained" if !self.is_switched => {
                self.is_switched = true;
                self.switched(deploy);
            }
            _ => {}
        }
        let is_done = match self.arguments.until {
            WaitUntil::Switched => self.is_switched,
            WaitUntil::Drained => deploy.phase == "drained",
        };
        if !is_done {
            return Ok(None);
        }
        let code = if self.hook_failed { Code::Failure } else { Code::Success };
        self.end(deploy, code).map(Some)
    }

    /// Runs `--on-switched`, if it is given and the deploy replaces backends.
    fn switched(&mut self, deploy: &DeployAnswer) {
        let Some(command) = &self.arguments.on_switched else {
            return;
        };
        self.progress.clear();
        if deploy.old().is_empty() {
            return self
                .global
                .say("--on-switched was not run: this deploy replaces no old backend");
        }
        let (old, new) = (deploys::words(deploy.old()), deploys::words(&deploy.targets));
        let of = hook::Switch {
            service: &self.arguments.service,
            deploy: self.id,
            old: &old,
            new: &new,
        };
        if let Err(why) = hook::run(command, &of) {
            self.hook_failed = true;
            self.global.warn(&format!("--on-switched {why}; the switch is kept"));
        }
    }

    fn end(&mut self, deploy: &AnswerWithJson<DeployAnswer>, code: Code) -> Result<Code, Failure> {
        self.progress.clear();
        match self.global.output {
            OutputFormat::Json => print_json(deploy)?,
            OutputFormat::Table | OutputFormat::Wide if deploy.has_failed() => {
                return Err(Failure::Refused(deploys::line(deploy).trim_end().to_owned()));
            }
            OutputFormat::Table | OutputFormat::Wide if self.global.quiet => {}
            OutputFormat::Table | OutputFormat::Wide => print(&deploys::line(deploy))?,
        }
        Ok(code)
    }

    /// Returns the deploy's present state. Waits for a daemon that is being restarted. A signal during that wait ends the
    /// command.
    fn state(&mut self, signals: &DeploySignals) -> Result<Result<AnswerWithJson<DeployAnswer>, u8>, Failure> {
        let until = if self.is_switched { "drained" } else { "switched" };
        let target = RequestTarget::new(&format!("/v1/deploys/{}", self.id))
            .with("until", Some(&until))
            .with("wait", Some(&duration::show(PIECE)));
        let begin = Instant::now();
        let mut is_told = false;
        loop {
            let remaining = self.patience(begin).saturating_sub(begin.elapsed());
            let answer = self
                .daemon
                .get_within(target.as_str(), remaining.clamp(PAUSE, client::SLOW), || ());
            let why = match answer.and_then(DaemonResponse::json) {
                Ok(deploy) => return Ok(Ok(deploy)),
                Err(
                    error @ (ClientError::NoDaemon { .. }
                    | ClientError::Hung { .. }
                    | ClientError::Connection { .. }
                    | ClientError::Late { .. }
                    | ClientError::Refused { status: 503 | 504, .. }),
                ) => error,
                Err(error) => return Err(error.into()),
            };
            let is_hung = matches!(why, ClientError::Hung { .. } | ClientError::Late { .. });
            if is_hung && let Some(signal) = signals.caught() {
                return Ok(Err(signal));
            }
            let patience = if is_hung { self.patience(begin) } else { AWAY };
            let waited = begin.elapsed();
            if waited >= patience {
                return Err(self.lost(waited, &why));
            }
            if is_hung && !std::mem::replace(&mut is_told, true) {
                self.progress.clear();
                self.global.warn(&format!("{why}; waiting for it"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns the error for a deploy whose state is unknown, since the daemon does not answer.
    fn lost(&self, waited: Duration, why: &ClientError) -> Failure {
        let seen = if self.is_switched {
            "new connections go to the new backends"
        } else {
            "it had not switched when the daemon answered last"
        };
        Failure::Refused(format!(
            "the daemon has not answered for {} s: {why}. Deploy {}: {seen}; `tcpgw deploys {}` shows its state when the daemon answers again",
            waited.as_secs(),
            self.id,
            self.id
        ))
    }

    /// Returns the time for which a daemon that hangs is waited for, from that time on: until the time of the deploy's probes
    /// is over.
    fn patience(&self, from: Instant) -> Duration {
        let remaining = (self.begun + self.arguments.timeout).saturating_duration_since(from);
        let least = if self.is_switched { AWAY } else { client::SLOW + PAUSE };
        remaining.max(least)
    }

    fn undo(&self, signal: u8) -> Outcome {
        let undone = self.daemon.post(&format!("/v1/deploys/{}/undo", self.id), Vec::new());
        match undone.and_then(DaemonResponse::json::<AnswerWithJson<DeployAnswer>>) {
            Ok(deploy) => {
                self.global.say(deploys::line(&deploy).trim_end());
                if self.global.output == OutputFormat::Json {
                    print_json(&deploy)?;
                }
            }
            Err(error) => self.global.warn(&format!(
                "deploy {} is not undone: {error}; `tcpgw deploys {}` shows it",
                self.id, self.id
            )),
        }
        Ok(Code::Signal(signal))
    }
}

/// Returns whether the deploy is undone or goes on when this command ends: the user's answer decides, or else the phase.
fn choose(signals: &DeploySignals, deploy: &DeployAnswer) -> Choice {
    let unasked = if deploy.phase == "probing" {
        Choice::Undo
    } else {
        Choice::GoOn
    };
    signals.ask().unwrap_or(unasked)
}
