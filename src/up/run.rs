//! The main loop of `tcpgw up`: sets everything up, carries out the actions of the [supervisor](super::supervisor), and
//! removes everything at the end.

mod begin;
mod daemon;
mod ending;
mod event;
mod files;
mod joining;
mod listeners;
mod outcomes;
mod output;
mod place;
mod processes;
mod requests;
mod waiting;

pub(crate) use self::files::directory_of;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use self::event::UpEvent;
use self::output::Output;
use self::place::{InstancePlace, OneOff};
use self::waiting::WaitingClient;
use super::addresses::Addresses;
use super::container::HelperReport;
use super::control::UpAnswer;
use super::error::UpError;
use super::formation::Formation;
use super::gateway::{GatewayEvent, GatewayRequest};
use super::id::AppId;
use super::network::Network;
use super::own_daemon::OwnDaemon;
use super::owner::UpOwner;
use super::process::Process;
use super::procfile::ProcessType;
use super::record::{AppDirectory, RecordPaths};
use super::settings::UpSettings;
use super::supervisor::{Action, InstanceId, InstancePhase, Supervisor, SupervisorEvent, TCP};

/// Interval between checks that the daemon lives.
const WATCH: Duration = Duration::from_secs(1);

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
    owner: UpOwner,
    places: RecordPaths,
    place: AppDirectory,
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
    /// Sender that keeps the thread alive that reports the app's problems.
    tells_problems: Option<Sender<()>>,
    /// The daemon, where it is a child of this process.
    daemon: Option<OwnDaemon>,
    /// Whether this program starts the daemon again if it has ended.
    keeps_daemon: bool,
    next_watch: Instant,
    /// Clients whose orders are under way.
    waiting: Vec<WaitingClient>,
    /// Reason why the latest backends could not be given to the daemon.
    not_told: Option<String>,
    /// Message for the user if not all of the latest backends have answered in time.
    unanswered: Option<String>,
    stop_clients: Vec<SyncSender<UpAnswer>>,
    formation: Formation,
    signals: u32,
    end: Option<Result<(), String>>,
    output: Output,
    events: Sender<UpEvent>,
}

/// Runs the app until it is told to end. Returns the number of the signal that ended it at once, if one was sent twice.
///
/// # Errors
/// Fails with [`UpError`] when the files or arguments are wrong, or something that the app needs cannot be set up or
/// removed.
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
    fn serve(&mut self, heard: &Receiver<UpEvent>) -> Option<u8> {
        let first = self.formation.clone();
        let actions = self.supervisor.take(SupervisorEvent::Scale(first), Instant::now());
        self.does(actions);
        let mut insisted = None;
        while !self.supervisor.is_over() {
            let now = Instant::now();
            let clients = self.waiting.iter().map(|client| client.until);
            let next = clients
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
            self.answer_waiting(now);
            if now >= self.next_watch {
                self.next_watch = now + WATCH;
                self.watch_daemon();
            }
        }
        insisted
    }

    /// Handles an event. Returns the number of a signal that was sent again.
    fn take(&mut self, event: UpEvent) -> Option<u8> {
        match event {
            UpEvent::Report(id, report) => self.reported(id, &report),
            UpEvent::Ended(id) => self.ended(id),
            UpEvent::Gateway(news) => self.hear(news),
            UpEvent::Control(asked) => self.asked(asked),
            UpEvent::Closed if self.signals == 0 => {
                self.signals = 1;
                self.stop();
            }
            UpEvent::Closed => {}
            UpEvent::Signal(signal) => {
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
                    let actions = self.supervisor.take(SupervisorEvent::Kill, Instant::now());
                    self.does(actions);
                    return Some(signal);
                }
            }
        }
        None
    }

    /// Ends all processes, and removes the resource.
    fn stop(&mut self) {
        for client in std::mem::take(&mut self.waiting) {
            client.answer(UpAnswer::Failed("it is ending".into()));
        }
        if let Some(orders) = &self.orders {
            let _ = orders.send(GatewayRequest::End);
        }
        self.tells_problems = None;
        self.output.say("system", "sending SIGTERM to all processes");
        let actions = self.supervisor.take(SupervisorEvent::Stop, Instant::now());
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
                    self.fail_restart("a new process has ended; the old ones go on");
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

    fn reported(&mut self, id: InstanceId, report: &HelperReport) {
        let HelperReport::Started(pid) = report else { return };
        if let Some(place) = self.running.get_mut(&id) {
            place.pid = Some(*pid).filter(|pid| *pid > 0);
        }
    }

    fn ended(&mut self, id: InstanceId) {
        if let Some(place) = self.running.get_mut(&id) {
            place.process = None;
            place.pid = None;
        }
        let actions = self.supervisor.take(SupervisorEvent::Ended(id), Instant::now());
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
            GatewayEvent::Balanced { number, unanswered } => {
                self.not_told = None;
                self.unanswered = unanswered;
                self.supervisor.take(SupervisorEvent::Balanced(number), now)
            }
            GatewayEvent::NotTold(why) => {
                self.not_told = Some(why);
                return;
            }
            GatewayEvent::Switched => {
                let actions = self.supervisor.take(SupervisorEvent::Switched, now);
                self.output
                    .say("system", "restarted: new connections go to the new tcp processes");
                self.unanswered = None;
                actions
            }
            GatewayEvent::NotSwitched(why) => {
                let text = format!("restart failed: {why}; the old processes go on");
                self.output.say("system", &text);
                self.fail_restart(&text);
                self.supervisor.take(SupervisorEvent::NotSwitched, now)
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

    /// Starts the daemon again if it has ended and `tcpgw up` had started it.
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
fn state_of(phase: InstancePhase) -> &'static str {
    match phase {
        InstancePhase::Running(_) => "running",
        InstancePhase::Waiting(_) => "waiting",
        InstancePhase::Draining(_) => "draining",
        InstancePhase::Ending(_) | InstancePhase::Killed => "ending",
        InstancePhase::Ended(_) => "ended",
    }
}

/// Returns whether the app has a process type that gets connections.
fn has_tcp(types: &[ProcessType]) -> bool {
    types.iter().any(|one| one.name.as_str() == TCP)
}
