//! `tcpgw up` itself: sets all up, does what the [supervisor](super::supervisor) says, and takes all down again.

mod begin;
mod ending;
mod output;
mod processes;
mod requests;

pub(crate) use self::begin::directory_of;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use thiserror::Error;

use self::output::Output;
use self::requests::OneOff;
use super::container::Report;
use super::control::{Answer, ReceivedRequest};
use super::env_file::EnvFileError;
use super::formation::{Formation, FormationError};
use super::gateway::{Gateway, GatewayEvent, GatewayRequest};
use super::id::AppId;
use super::network::{Addresses, Network, NetworkError};
use super::own_daemon::{OwnDaemon, OwnDaemonError};
use super::owner::Owner;
use super::problems;
use super::process::Process;
use super::procfile::{ProcessType, ProcfileError};
use super::record::{AppPlace, Places, RecordError};
use super::supervisor::{Action, Input, InstanceId, Phase, Supervisor, TCP};
use crate::api::client::{Client, ClientError};
use tcpgw_core::escape;
use tcpgw_core::model::duration;
use tcpgw_kernel::netlink::error::NetlinkError;

/// Interval between checks that the daemon lives.
const WATCH: Duration = Duration::from_secs(1);
/// Maximum time that `tcpgw up scale` waits until the gateway has fewer processes.
const SCALE: Duration = Duration::from_secs(5);

/// Settings of `tcpgw up`.
pub struct UpSettings<'a> {
    /// Path of the Procfile.
    pub procfile: PathBuf,
    /// The files of variables, the later before the earlier; `None`: `.env` beside the Procfile, if it is there.
    pub env_files: Option<Vec<PathBuf>>,
    /// Number of instances as given on the command line; empty: one of each type.
    pub formation: Vec<String>,
    /// The plan, if one is asked for.
    pub plan: Option<String>,
    /// The public port, if one is asked for.
    pub port: Option<NonZeroU16>,
    /// Time from SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Whether lines are coloured.
    pub colors: bool,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The cookie of this network namespace.
    pub namespace: u64,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The store of a daemon that is started.
    pub store: PathBuf,
    /// Quarantine of the ports of that store.
    pub rest: Duration,
    /// The operator's configuration, if there is one.
    pub config: Option<PathBuf>,
    /// Text of the configuration.
    pub text: String,
    /// Whether that has a section `[addon]`.
    pub has_addon: bool,
    /// Looks for the daemon.
    pub find: &'a dyn Fn() -> Result<Option<Client>, String>,
    /// Removes the gateway's table, where no daemon runs.
    pub teardown: &'a dyn Fn() -> Result<(), String>,
}

/// Reason why `tcpgw up` does not run.
#[derive(Debug, Error)]
pub enum UpError {
    /// The Procfile is wrong.
    #[error("{}: {error}", escape::path(file))]
    Procfile {
        /// Path of the Procfile.
        file: PathBuf,
        /// Error in the Procfile.
        error: ProcfileError,
    },
    /// A file of variables is wrong.
    #[error("{}: {error}", escape::path(file))]
    EnvFile {
        /// Path of the environment file.
        file: PathBuf,
        /// Error in the environment file.
        error: EnvFileError,
    },
    /// The formation is wrong.
    #[error("--formation: {0}")]
    Formation(#[from] FormationError),
    /// The arguments are contradictory or invalid.
    #[error("{0}")]
    Usage(String),
    /// Something is in the way.
    #[error("{0}")]
    Refused(String),
    /// The app runs already, or its notes cannot be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Links or addresses could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Rules could not be made.
    #[error(transparent)]
    Rules(#[from] NetlinkError),
    /// No daemon is available.
    #[error(transparent)]
    Daemon(#[from] OwnDaemonError),
    /// The daemon refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system refused.
    #[error("failed to {what}: {source}")]
    System {
        /// Operation that failed.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Some things could not be removed.
    #[error("not everything was removed: {0}; `tcpgw up stop` tries again")]
    Left(String),
}

impl UpError {
    /// Returns whether the input is at fault, not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Procfile { .. } | Self::EnvFile { .. } | Self::Formation(_) | Self::Usage(_)
        )
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> UpError {
    move |source| UpError::System { what, source }
}

/// Event of the main loop.
enum Event {
    Report(InstanceId, Report),
    Ended(InstanceId),
    Gateway(GatewayEvent),
    Control(ReceivedRequest),
    Signal(u8),
    /// Standard output is closed.
    Closed,
}

/// An instance as it is outside of the supervisor.
struct InstancePlace {
    address: Ipv4Addr,
    /// Keeps the network namespace.
    namespace: Option<File>,
    process: Option<Process>,
    pid: Option<i32>,
}

/// Client that waits for the end of a restart.
struct Waiter {
    answers: SyncSender<Answer>,
}

/// Client that waits until the gateway has fewer instances.
struct ScaleWaiter {
    answers: SyncSender<Answer>,
    /// Time at which the client is told that the gateway has not confirmed.
    until: Instant,
}

/// State of a running `tcpgw up`.
struct Up<'a> {
    settings: &'a UpSettings<'a>,
    directory: PathBuf,
    types: Vec<ProcessType>,
    variables: BTreeMap<String, String>,
    /// Port that processes listen on.
    port: u16,
    id: AppId,
    /// Identity of this process, as owner of links and services.
    owner: Owner,
    places: Places,
    place: AppPlace,
    network: Network,
    subnet: Ipv4Net,
    addresses: Addresses,
    resolver: Option<PathBuf>,
    supervisor: Supervisor,
    running: BTreeMap<InstanceId, InstancePlace>,
    one_offs: BTreeMap<usize, OneOff>,
    next_link: u32,
    /// Number of processes of `tcpgw up run` so far.
    runs: u32,
    orders: Option<Sender<GatewayRequest>>,
    /// The app's problems are told as long as this is there.
    tells_problems: Option<Sender<()>>,
    /// The daemon, where it is a child of this process.
    daemon: Option<OwnDaemon>,
    /// Whether a daemon that is gone is this program's to start again.
    keeps_daemon: bool,
    next_watch: Instant,
    waiter: Option<Waiter>,
    scale_waiters: Vec<ScaleWaiter>,
    /// Reason why the latest backends could not be given to the daemon.
    not_told: Option<String>,
    stop_waiters: Vec<SyncSender<Answer>>,
    formation: Formation,
    signals: u32,
    end: Option<Result<(), String>>,
    output: Output,
    events: Sender<Event>,
}

/// Runs the app until it is told to end; returns the signal that was insisted on, if one was.
///
/// # Errors
/// [`UpError`].
pub fn run(settings: &UpSettings<'_>) -> Result<Option<u8>, UpError> {
    let (events, heard) = channel();
    let (mut up, printer) = Up::begin(settings, &events)?;
    let insisted = up.serve(&heard);
    let left = up.finish(&heard, insisted.is_some());
    output::finish_printing(&printer);
    left?;
    Ok(insisted)
}

impl Up<'_> {
    /// Runs until everything has ended.
    fn serve(&mut self, heard: &Receiver<Event>) -> Option<u8> {
        let first = self.formation.clone();
        let actions = self.supervisor.take(Input::Scale(first), Instant::now());
        self.does(actions);
        let mut insisted = None;
        while !self.supervisor.is_over() {
            let now = Instant::now();
            let waiters = self.scale_waiters.iter().map(|waiter| waiter.until);
            let next = waiters
                .chain(self.supervisor.next_time())
                .fold(self.next_watch, Instant::min);
            match heard.recv_timeout(next.saturating_duration_since(now)) {
                Ok(event) => insisted = self.take(event).or(insisted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            let actions = self.supervisor.tick(now);
            self.does(actions);
            self.answer_scale_waiters(now);
            if now >= self.next_watch {
                self.next_watch = now + WATCH;
                self.watch_daemon();
            }
        }
        insisted
    }

    /// Takes what happened; returns a signal that was sent again.
    fn take(&mut self, event: Event) -> Option<u8> {
        match event {
            Event::Report(id, report) => self.reported(id, &report),
            Event::Ended(id) => self.ended(id),
            Event::Gateway(news) => self.hear(news),
            Event::Control(asked) => self.asked(asked),
            Event::Closed if self.signals == 0 => {
                self.signals = 1;
                self.stop();
            }
            Event::Closed => {}
            Event::Signal(signal) => {
                self.signals += 1;
                let name = if signal == 2 { "SIGINT" } else { "SIGTERM" };
                if self.signals == 1 {
                    self.output
                        .say("system", &format!("{name} received, starting shutdown"));
                    self.stop();
                } else {
                    self.output.say(
                        "system",
                        &format!("{name} received again, sending SIGKILL to all processes"),
                    );
                    let actions = self.supervisor.take(Input::Kill, Instant::now());
                    self.does(actions);
                    return Some(signal);
                }
            }
        }
        None
    }

    /// Ends all processes, and removes the resource.
    fn stop(&mut self) {
        self.answer_waiter(Answer::Failed("it is ending".into()));
        for waiter in std::mem::take(&mut self.scale_waiters) {
            let _ = waiter.answers.try_send(Answer::Failed("it is ending".into()));
        }
        if let Some(orders) = &self.orders {
            let _ = orders.send(GatewayRequest::End);
        }
        self.tells_problems = None;
        self.output.say("system", "sending SIGTERM to all processes");
        let actions = self.supervisor.take(Input::Stop, Instant::now());
        self.does(actions);
    }

    fn name(&self, id: InstanceId) -> String {
        self.supervisor
            .get(id)
            .map(super::supervisor::Instance::name)
            .unwrap_or_default()
    }

    fn does(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(id) | Action::StartAgain(id) => self.start(id),
                Action::Terminate(id) => self.with_process(id, Process::terminate),
                Action::Kill(id) => self.with_process(id, Process::kill),
                Action::Remove(id) => self.remove(id),
                Action::Balance {
                    number,
                    targets,
                    at_once,
                } => {
                    let targets = self.endpoints(&targets);
                    self.order(GatewayRequest::Balance {
                        number,
                        targets,
                        at_once,
                    });
                }
                Action::Replace(targets) => {
                    let targets = self.endpoints(&targets);
                    self.order(GatewayRequest::Replace(targets));
                }
                Action::Abandon => {
                    self.order(GatewayRequest::Abandon);
                    self.answer_waiter(Answer::Failed("a new process has ended; the old ones go on".into()));
                }
                Action::Say(name, text) => self.output.say(&name, &text),
            }
        }
    }

    fn with_process(&mut self, id: InstanceId, act: fn(&mut Process)) {
        if let Some(process) = self.running.get_mut(&id).and_then(|place| place.process.as_mut()) {
            act(process);
        }
    }

    fn endpoints(&self, ids: &[InstanceId]) -> Vec<SocketAddr> {
        let places = ids.iter().filter_map(|id| self.running.get(id));
        places
            .map(|place| SocketAddr::new(place.address.into(), self.port))
            .collect()
    }

    fn order(&self, order: GatewayRequest) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    fn reported(&mut self, id: InstanceId, report: &Report) {
        let Report::Started(pid) = report else { return };
        if let Some(place) = self.running.get_mut(&id) {
            place.pid = Some(*pid).filter(|pid| *pid > 0);
        }
    }

    fn ended(&mut self, id: InstanceId) {
        if let Some(place) = self.running.get_mut(&id) {
            place.process = None;
            place.pid = None;
        }
        let actions = self.supervisor.take(Input::Ended(id), Instant::now());
        self.does(actions);
    }

    fn remove(&mut self, id: InstanceId) {
        let Some(place) = self.running.remove(&id) else { return };
        // The link first: a namespace takes its time to go, and its link with it.
        if let Err(error) = self.network.remove_process(&self.id, id) {
            self.output.say("system", &error.to_string());
        }
        self.addresses.give_back(place.address);
    }

    fn hear(&mut self, news: GatewayEvent) {
        let now = Instant::now();
        let actions = match news {
            GatewayEvent::Balanced(number) => {
                self.not_told = None;
                self.supervisor.take(Input::Balanced(number), now)
            }
            GatewayEvent::NotTold(why) => {
                self.not_told = Some(why);
                return;
            }
            GatewayEvent::Switched => {
                let actions = self.supervisor.take(Input::Switched, now);
                self.output
                    .say("system", "restarted: new connections go to the new tcp processes");
                self.answer_waiter(Answer::Done);
                actions
            }
            GatewayEvent::NotSwitched(why) => {
                let text = format!("restart failed: {why}; the old processes go on");
                self.output.say("system", &text);
                self.answer_waiter(Answer::Failed(text));
                self.supervisor.take(Input::NotSwitched, now)
            }
            GatewayEvent::Say(text) => {
                self.output.say("system", &text);
                return;
            }
            GatewayEvent::Ended(outcome) => {
                self.end = Some(outcome);
                return;
            }
        };
        self.does(actions);
    }

    fn answer_waiter(&mut self, answer: Answer) {
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.answers.try_send(answer);
        }
    }

    /// Answers those who wait until processes that are scaled away get no connections any more.
    fn answer_scale_waiters(&mut self, now: Instant) {
        let leaving: Vec<String> = self.supervisor.leaving().collect();
        let is_over = |waiter: &mut ScaleWaiter| leaving.is_empty() || waiter.until <= now;
        for waiter in self.scale_waiters.extract_if(.., is_over) {
            let answer = if leaving.is_empty() {
                Answer::Done
            } else {
                let why = self.not_told.as_deref().unwrap_or("the daemon has not answered");
                Answer::Failed(format!(
                    "the gateway was not told within {} where connections go ({why}): {} go on to get connections, and end when it is told",
                    duration::show(SCALE),
                    leaving.join(", ")
                ))
            };
            let _ = waiter.answers.try_send(answer);
        }
    }

    /// Starts the daemon again where it has ended, if that is for `tcpgw up` to do.
    fn watch_daemon(&mut self) {
        if self.signals > 0 || !self.keeps_daemon {
            return;
        }
        let is_there = match &mut self.daemon {
            Some(daemon) => !daemon.has_ended(),
            // The daemon is a child of another `tcpgw up`, and ends with it.
            None => UnixStream::connect(&self.settings.socket).is_ok(),
        };
        if is_there {
            return;
        }
        self.daemon = None;
        if let Err(error) = self.replace_daemon() {
            self.output.say("system", &error.to_string());
        }
    }
}

/// Returns the state of an instance in words, for `tcpgw up ps`.
fn state_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Running(_) => "running",
        Phase::Waiting(_) => "waiting",
        Phase::Leaving(_) => "leaving",
        Phase::Ending(_) | Phase::Killed => "ending",
        Phase::Ended(_) => "ended",
    }
}

/// Starts the thread that gives the daemon the app's backends.
fn tell_daemon(
    socket: PathBuf,
    app: String,
    grace: Duration,
    events: Sender<Event>,
) -> io::Result<Sender<GatewayRequest>> {
    let (orders, taken) = channel();
    let tell = move |news| drop(events.send(Event::Gateway(news)));
    let gateway = Gateway::new(socket, app, grace, taken, tell);
    std::thread::Builder::new()
        .name("gateway".into())
        .spawn(move || gateway.run())?;
    Ok(orders)
}

/// Tells problems of the app's service, by a thread of its own.
fn tell_problems(socket: PathBuf, service: String, events: Sender<Event>) -> io::Result<Sender<()>> {
    let (going_on, end) = channel();
    let tell = move |text| events.send(Event::Gateway(GatewayEvent::Say(text))).is_ok();
    std::thread::Builder::new()
        .name("problems".into())
        .spawn(move || problems::follow(&socket, &service, &end, tell))?;
    Ok(going_on)
}

/// Returns whether the app has a process type that gets connections.
fn has_tcp(types: &[ProcessType]) -> bool {
    types.iter().any(|one| one.name.as_str() == TCP)
}
