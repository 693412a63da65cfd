//! Main loop of the daemon: sockets, signals, files and clocks around the [`Core`].

mod ending;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::kernel_thread::Worker;
use super::looker::{Answer, Asker, Looker};
use super::observer::Observer;
use super::presence::Presence;
use super::provider_task::ProviderTask;
use super::service_manager::{LoopPulse, Manager, Watchdog, Watching};
use super::start::{StartError, StartFiles};
use super::store_thread::StoreThread;
use crate::api::listener::seats_within;
use crate::api::{self, Socket, SocketError, SocketSettings, settings};
use crate::config::daemon::{DaemonSettings, LogLevel};
use crate::config::given::Given;
use crate::config::{Config, ConfigError, copy};
use crate::control::core::{ApplyOrder, Core, Now, Order};
use crate::control::job::JobOutcome;
use crate::control::observation::Observation;
use crate::control::reply::Reply;
use crate::control::request::{Applied, Apply, DaemonRequest, Refused};
use crate::control::storage::Written;
use crate::lock::{Lock, LockError};
use crate::probe::{ProbeError, Prober, Report as Probed};
use crate::provider::News;
use crate::provider::file::FileProvider;
use crate::reconcile::engine::Engine;
use crate::record::{RecordFile, boot_id, since_boot};
use crate::run_file;
use crate::store::last::Last;
use crate::store::lost;
use tcpgw_core::model::{FlowMark, InputProblems, Service, State};
use tcpgw_core::problem::Kind;
use tcpgw_core::ruleset::skeleton;
use tcpgw_kernel::ffi::memory::{release_memory, share_heap};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::nftables::monitor::{NftablesMonitor, TableChange, TableNotification};
use tcpgw_kernel::nftables::ownership::Ownership;
use tcpgw_kernel::route::Routes;
use tcpgw_kernel::route::monitor::{self as route_monitor, Notification};
use tcpgw_kernel::{Kernel, KernelError};

/// Maximum number of requests that wait for the main loop.
const ASKS: usize = 64;
/// Delay until memory is returned to the system that the start needed.
const FIRST_TRIM: Duration = Duration::from_secs(3);
/// Maximum time to wait for another tcpgw that holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why the daemon did not start, or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another tcpgw writes in this network namespace.
    #[error("{0}; a network namespace has one writer, and a daemon holds that role as long as it runs")]
    Lock(#[from] LockError),
    /// The kernel does not answer, or refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The socket to the kernel cannot be opened.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The socket of the API cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The group that may use the socket does not exist.
    #[error("failed to find the group {0:?} (socket_group): there is none of that name")]
    Group(String),
    /// The prober cannot be started, or has ended.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Another system call failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// The failed action.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread that writes the store has ended.
    #[error("the thread that writes the store has died: this is a bug in tcpgw, please report it")]
    Store,
    /// A task that lives as long as the daemon has ended.
    #[error("the task that {0} has ended: this is a bug in tcpgw, please report it")]
    Task(&'static str),
    /// The thread that changes the kernel has ended.
    #[error("the thread that talks to the kernel has died: this is a bug in tcpgw, please report it")]
    Worker,
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Io { what, source }
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            unix: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            boot: since_boot(),
        }
    }
}

/// Runs until a signal ends it. The kernel forwards as before after that.
///
/// # Errors
/// Fails when the daemon cannot start, or a part of it has ended: see [`DaemonError`].
pub fn run(
    given: &Given,
    settings: DaemonSettings,
    config: Config,
    run_dir: &Path,
    set_level: SetLevel,
) -> Result<(), DaemonError> {
    share_heap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start"))?;
    let done = runtime.block_on(async {
        let mut daemon = Daemon::start(given.clone(), settings, config, run_dir, set_level)?;
        let ended = daemon.serve().await;
        daemon.end().await;
        ended
    });
    // A thread that reads the kernel may still need long.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Sets the level of the log.
pub type SetLevel = Box<dyn Fn(LogLevel)>;

struct Daemon {
    given: Given,
    set_level: SetLevel,
    core: Core,
    worker: Option<Worker>,
    outcomes: mpsc::Receiver<JobOutcome>,
    requests: mpsc::Receiver<DaemonRequest>,
    parsed: (mpsc::Sender<Parsed>, mpsc::Receiver<Parsed>),
    store_thread: Option<StoreThread>,
    written: mpsc::Receiver<Written>,
    prober: Prober,
    probed: mpsc::UnboundedReceiver<Vec<Probed>>,
    drift: AsyncFd<NftablesMonitor>,
    network: mpsc::Receiver<Notification>,
    observer: Observer,
    observations: mpsc::Receiver<Observation>,
    looker: Looker,
    looks: mpsc::Receiver<Answer>,
    /// Time at which an examination under way is given up.
    gives_up_at: Option<Instant>,
    file: Option<File>,
    signals: Signals,
    manager: Manager,
    pulse: LoopPulse,
    _watching: Option<Watching>,
    /// Time at which the status for the service manager is updated next.
    status_at: Instant,
    /// Time at which freed memory is returned to the system next.
    trim_at: Instant,
    stop: Option<oneshot::Sender<()>>,
    api: Api,
    provider_api: ProviderTask,
    socket: Socket,
    /// Channel for a new socket, after its file was removed.
    renewed: mpsc::Sender<UnixListener>,
    socket_at: Instant,
    start_files: StartFiles,
    run_dir: PathBuf,
    namespace: u64,
    lock: Lock,
    presence: Presence,
}

type IsKnown<'a> = dyn Fn(&Service) -> bool + 'a;

/// The task that serves the API; `None` after it has ended.
struct Api(Option<JoinHandle<()>>);

impl Api {
    /// Waits for the end of the task, which is an error.
    async fn gone(&mut self) {
        match &mut self.0 {
            Some(task) => {
                let ended = task.await;
                self.0 = None;
                if let Err(error) = ended {
                    tracing::error!(%error, "the API has ended");
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// An `apply` whose text has been parsed.
struct Parsed {
    apply: Apply,
    state: Result<State, InputProblems>,
    reply: Reply<Result<Applied, Refused>>,
}

/// The state file that is followed.
struct File {
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

struct Signals {
    end: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            end: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Daemon {
    fn start(
        given: Given,
        settings: DaemonSettings,
        config: Config,
        run_dir: &Path,
        set_level: SetLevel,
    ) -> Result<Self, DaemonError> {
        allow_many_sockets();
        let signals = Signals::new().map_err(io("listen to signals"))?;
        let ownership = if settings.owner {
            Ownership::Owned
        } else {
            Ownership::Persist
        };
        let mut kernel = Linux::open_for(ownership)?;
        kernel.identity()?;
        let namespace = kernel
            .netns_cookie()
            .map_err(io("identify the network namespace (needs Linux 5.14)"))?;
        let lock = Lock::take(run_dir, namespace, LOCK_TIMEOUT)?;
        // This comes before the first read of the kernel, so that no change is missed.
        let drift = NftablesMonitor::open(kernel.port())?
            .listen()
            .map_err(io("watch nftables"))?;
        let network = route_monitor::follow();
        let (seen, observations) = mpsc::channel(1);
        let observer = Observer::start(seen).map_err(io("start a thread"))?;
        let (looker, looks) = Looker::start().map_err(io("start a thread"))?;
        let mut socket = bind(&settings)?;
        let presence = leave_presence(&settings, run_dir, namespace);
        let (config, wanted_mark) = settle_configuration(config, &given, &mut kernel);
        let engine = Engine::new(kernel, RecordFile::new(run_dir, namespace), namespace, config.flow_mark)
            .protecting(config.protect_backends)
            .idling(config.idle_timeout);
        let (done, outcomes) = mpsc::channel(1);
        let (watchdog, pulse, turns) = Watchdog::new();
        let worker = Worker::start(engine, own_links, pulse, done).map_err(io("start a thread"))?;
        let (ask, requests) = mpsc::channel(ASKS);
        let provider_api = ProviderTask::new(ask.clone());
        let listener = socket.take_listener().and_then(UnixListener::from_std);
        let listener = listener.map_err(io("listen on the socket"))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (renewed, renewals) = mpsc::channel(1);
        let api = Api(Some(tokio::spawn(api::serve(
            listener,
            renewals,
            ask,
            settings::ApiSettings::default(),
            async {
                let _ = stopped.await;
            },
        ))));
        // The number of reports is bounded by that of probes in flight.
        let (reports, probed) = mpsc::unbounded_channel();
        let thread = Prober::start(reports)?;
        let file = settings.state.as_ref().map(|path| File::watch(path, &config));
        let mut last = last_services(&settings);
        let recorded = RecordFile::new(run_dir, namespace).store_revision(&boot_id(), &settings.store);
        let (writes, written) = mpsc::channel(1);
        let start_files = StartFiles::new(&given, &config);
        let (store_thread, opened) = StoreThread::start(&settings.store, &mut last, recorded, Now::read().unix, writes)
            .map_err(io("start a thread"))?;
        let mut core = Core::new(
            within_limits(settings, config.addon.is_some()),
            config,
            namespace,
            Now::read(),
        );
        core.configuration_read(wanted_mark);
        core.opened(opened, Now::read());
        core.served_last(last, boot_id());
        Ok(Self {
            given,
            set_level,
            core,
            worker: Some(worker),
            outcomes,
            requests,
            parsed: mpsc::channel(2),
            store_thread: Some(store_thread),
            written,
            prober: thread,
            probed,
            drift,
            network,
            observer,
            observations,
            looker,
            looks,
            gives_up_at: None,
            file,
            signals,
            manager: Manager::default(),
            pulse: turns,
            _watching: watchdog.start().map_err(io("start a thread"))?,
            status_at: Instant::now(),
            trim_at: Instant::now() + FIRST_TRIM,
            stop: Some(stop),
            api,
            provider_api,
            socket,
            renewed,
            socket_at: Instant::now(),
            start_files,
            run_dir: run_dir.to_owned(),
            namespace,
            lock,
            presence,
        })
    }

    async fn serve(&mut self) -> Result<(), DaemonError> {
        if self.file.is_none() {
            self.core.begin(Now::read());
        }
        let mut was_up = false;
        loop {
            self.act()?;
            if self.core.is_up() && !was_up {
                was_up = true;
                self.manager.ready(&self.core.status_line());
                remove_files_of_vanished_namespaces(&self.run_dir);
            }
            let wake = self.wakes_at();
            tokio::select! {
                outcome = self.outcomes.recv() => {
                    self.core.done(outcome.ok_or(DaemonError::Worker)?, Now::read());
                }
                news = next_news(&mut self.file) => self.file_news(news.ok_or(DaemonError::Task("follows the state file"))?),
                Some(ask) = self.requests.recv() => self.answer(ask),
                Some(parsed) = self.parsed.1.recv() => self.apply(parsed),
                written = self.written.recv() => {
                    self.core.written(written.ok_or(DaemonError::Store)?, Now::read());
                }
                probed = self.probed.recv() => self.probed(probed.ok_or(ProbeError::Gone)?),
                () = self.api.gone() => return Err(DaemonError::Task("serves the API")),
                guard = self.drift.readable_mut() => {
                    let mut guard = guard.map_err(io("watch nftables"))?;
                    let heard = guard.get_inner_mut().drain();
                    if !heard.as_ref().is_ok_and(|heard| heard.more) {
                        guard.clear_ready();
                    }
                    self.heard(heard);
                }
                Some(seen) = self.observations.recv() => self.core.observed(seen, Now::read()),
                Some(answer) = self.looks.recv() => {
                    let now = Now::read();
                    self.looker.answered(answer, now.instant);
                    self.core.look_ended(now);
                }
                Some(changed) = self.network.recv() => self.network_changed(changed),
                () = sleep_until(wake.into()) => {}
                _ = self.signals.end.recv() => return Ok(()),
                _ = self.signals.interrupt.recv() => return Ok(()),
                _ = self.signals.reload.recv() => self.reload(),
            }
            self.take_what_is_there();
        }
    }

    /// Takes input that arrived at the same time, so that it becomes one transaction.
    fn take_what_is_there(&mut self) {
        const MOST: usize = 4096;
        for _ in 0..MOST {
            self.pulse.step_done(Instant::now());
            if let Ok(probed) = self.probed.try_recv() {
                self.probed(probed);
            } else if let Some(news) = self.file.as_mut().and_then(|file| file.news.try_recv().ok()) {
                self.file_news(news);
            } else if let Ok(parsed) = self.parsed.1.try_recv() {
                self.apply(parsed);
            } else if let Ok(ask) = self.requests.try_recv() {
                self.answer(ask);
            } else {
                return;
            }
        }
    }

    fn act(&mut self) -> Result<(), DaemonError> {
        /// Interval between checks that the socket exists.
        const SOCKET: Duration = Duration::from_secs(2);
        /// Interval between updates of the status for the service manager.
        const STATUS: Duration = Duration::from_secs(1);
        const TRIM: Duration = Duration::from_secs(60);
        let now = Now::read();
        self.pulse.beat(now.instant);
        if let Some(news) = self.core.judges_again() {
            self.file_news(news);
        }
        if self.gives_up_at.take_if(|at| *at <= now.instant).is_some() {
            self.core.look_ended(now);
        }
        self.pulse.step_done(Instant::now());
        let looker = &mut self.looker;
        if self.core.is_judgement_due(now) {
            let vet =
                &mut |state: &State, known: &IsKnown<'_>| looker.vet(Asker::Surroundings, state, known, now.instant);
            self.core.judge_surroundings(vet, now);
        }
        self.pulse.step_done(Instant::now());
        self.write(now)?;
        self.pulse.step_done(Instant::now());
        if let Some(request) = self.core.next_observation(now)
            && !self.observer.ask(request)
        {
            tracing::error!("the thread that looks at the surroundings has died");
        }
        self.pulse.step_done(Instant::now());
        self.give_job(now)?;
        self.pulse.step_done(Instant::now());
        let (due, cancelled) = (self.core.due_probes(now), self.core.health().take_cancelled());
        if !cancelled.is_empty() {
            self.prober.cancel(cancelled)?;
        }
        if !due.is_empty() {
            self.prober.probe(due)?;
        }
        self.pulse.step_done(Instant::now());
        if self.socket_at <= now.instant {
            self.socket_at = now.instant + SOCKET;
            self.look_for_files(now);
            self.look_for_configuration();
            let is_serving = self.core.is_serving();
            self.core
                .last_damaged(Last::problem(&self.core.settings().store, is_serving));
            self.core.store_lost(lost::problem(&self.core.settings().store));
        }
        if self.provider_api.is_due(now.instant) {
            self.serve_provider_api();
        }
        if self.status_at <= now.instant {
            self.status_at = now.instant + STATUS;
            if self.trim_at <= now.instant {
                self.trim_at = now.instant + TRIM;
                tokio::task::spawn_blocking(release_memory);
            }
            self.manager.status(&self.core.status_line());
        }
        Ok(())
    }

    /// Gives the store's thread what is to be written now.
    fn write(&mut self, now: Now) -> Result<(), DaemonError> {
        let looker = &mut self.looker;
        let vet = &mut |state: &State, known: &IsKnown<'_>| looker.vet(Asker::Order, state, known, now.instant);
        if let Some(write) = self.core.next_write(vet, now) {
            let store_thread = self.store_thread.as_ref().ok_or(DaemonError::Store)?;
            store_thread.write(write).map_err(|_| DaemonError::Store)?;
        }
        Ok(())
    }

    /// Gives the kernel's thread its next job.
    fn give_job(&mut self, now: Now) -> Result<(), DaemonError> {
        let Some(job) = self.core.next_job(now) else {
            return Ok(());
        };
        let given = self.worker.as_ref().is_some_and(|worker| worker.give(job));
        if given { Ok(()) } else { Err(DaemonError::Worker) }
    }

    /// Serves the provider API as configured. Its failure affects nothing else.
    fn serve_provider_api(&mut self) {
        let settings = self.core.config().addon.clone();
        let served = self.provider_api.configure(settings.as_ref());
        self.core.provider_api(served.err());
    }

    /// Restores files of the run directory that another process has removed: without them the daemon could not be
    /// reached, another writer would find no lock, and it would be unknown that a killed daemon ran.
    fn look_for_files(&mut self, now: Now) {
        let locked = self.lock.renew().map_err(DaemonError::from);
        let locked = locked.and_then(|is_new| Ok(self.socket.renew_lock()? || is_new));
        match locked {
            Err(error) => return self.core.socket_gone(Some(error.to_string())),
            Ok(is_new) if is_new || !Presence::is_there(&self.run_dir, self.namespace) => {
                tracing::warn!("files of the run directory had been removed: they were created again");
                note_presence(&self.presence, &self.run_dir, self.namespace);
                if let Some(by) = self.core.torn_down_by()
                    && let Err(error) = RecordFile::new(&self.run_dir, self.namespace).save_torn_down(by)
                {
                    tracing::warn!(%error, "failed to note in the run directory that the gateway is torn down");
                }
                self.core.record_lost(now);
            }
            Ok(_) => {}
        }
        let trouble = run_file::unwritable(&self.run_dir);
        let trouble = trouble.map(|error| format!("{}: {error}", tcpgw_core::escape::path(&self.run_dir)));
        self.core.run_dir(trouble, now);
        self.look_for_socket();
    }

    /// Checks changed files of the configuration, since an error in them would stop a later start.
    fn look_for_configuration(&mut self) {
        let (settings, config) = (self.core.settings(), self.core.config());
        let Some(judged) = self.start_files.judge_changed(&self.given, settings, config) else {
            return;
        };
        if let Err(StartError::Config(error @ ConfigError::Gone(_))) = &judged {
            return self.core.configuration_gone(&error.line());
        }
        let is_told = self.core.problems().get(Kind::ProviderApi).is_some();
        let trouble = judged
            .err()
            .filter(|error| !(is_told && matches!(error, StartError::Provider(_))));
        let uses_copy = matches!(trouble, Some(StartError::Config(_))) && self.given.has_copy();
        self.core
            .next_start(trouble.map(|error| error.to_string()).as_deref(), uses_copy);
    }

    /// Restores the file of the socket if another process has removed it.
    fn look_for_socket(&mut self) {
        if self.socket.is_there() {
            return self.core.socket_gone(None);
        }
        let settings = socket_settings(self.core.settings());
        let renewed = settings.and_then(|settings| Ok(self.socket.renew(&settings)?));
        let renewed = renewed.and_then(|listener| UnixListener::from_std(listener).map_err(io("listen on the socket")));
        match renewed {
            Ok(listener) => {
                tracing::warn!("the socket had been removed: it was created again");
                // The task that serves the API takes it at once.
                let _ = self.renewed.try_send(listener);
            }
            Err(error) => self.core.socket_gone(Some(error.to_string())),
        }
    }

    fn wakes_at(&mut self) -> Instant {
        self.gives_up_at = self.gives_up_at.or_else(|| self.looker.gives_up_at(Instant::now()));
        let times = [
            self.gives_up_at,
            self.core.observes_at(),
            self.core.wakes_at(),
            self.core.health().next_at(),
            Some(self.socket_at),
            Some(self.provider_api.wakes_at()),
        ];
        self.pulse.wakes_at(Instant::now(), times.into_iter().flatten().min())
    }

    fn probed(&mut self, probed: Vec<Probed>) {
        let now = Now::read();
        for report in probed {
            self.core.probed(report.id, report.outcome, now);
        }
    }

    fn file_news(&mut self, news: News) {
        let now = Now::read();
        let looker = &mut self.looker;
        let vet = &mut |state: &State, known: &IsKnown<'_>| looker.vet(Asker::File, state, known, now.instant);
        if self.core.file_news(news, vet, now) {
            self.core.begin(now);
        }
    }

    fn answer(&mut self, ask: DaemonRequest) {
        let now = Now::read();
        // The client may have disconnected.
        match ask {
            DaemonRequest::Snapshot(reply) => drop(reply.send(self.core.look(now))),
            DaemonRequest::Follow(after, reply) => drop(reply.send(self.core.follow(&after))),
            DaemonRequest::Teardown(by, reply) => self.core.teardown(by, reply),
            DaemonRequest::Resume(by, reply) => self.core.resume(by, reply, now),
            DaemonRequest::Services(reply) => drop(reply.send(self.core.services())),
            DaemonRequest::Service(name, reply) => drop(reply.send(self.core.service(&name, now))),
            DaemonRequest::Edit(order, reply) => self.core.order(Order::Edit(order, reply)),
            DaemonRequest::Batch(order, reply) => self.core.order(Order::Batch(order, reply)),
            DaemonRequest::Pause(order, reply) => self.core.pause(&order, reply, now),
            DaemonRequest::Deploy(order, reply) => self.core.order(Order::Deploy(order, reply)),
            DaemonRequest::Undo(order, reply) => self.core.order(Order::Undo(order, reply)),
            DaemonRequest::Addon(order, reply) => self.core.order(Order::Addon(order, reply)),
            DaemonRequest::Resource(target, reply) => drop(reply.send(self.core.resource(&target))),
            DaemonRequest::ServicesOfApp(app, reply) => drop(reply.send(self.core.services_of_app(&app))),
            DaemonRequest::AppsOfServices(names, reply) => drop(reply.send(self.core.apps_of_services(&names))),
            DaemonRequest::AppPage(id, reply) => drop(reply.send(self.core.app(id, now))),
            DaemonRequest::ResourceView(target, reply) => drop(reply.send(self.core.resource_view(&target))),
            DaemonRequest::Resources(reply) => drop(reply.send(self.core.resource_list(now))),
            DaemonRequest::Deploys(reply) => drop(reply.send(self.core.deploys(now))),
            DaemonRequest::Query(query) => {
                if let Some(store_thread) = &self.store_thread {
                    store_thread.query(query);
                }
            }
            DaemonRequest::Apply(apply, reply) => {
                let parsed = self.parsed.0.clone();
                // Parsing a large state would delay the main loop.
                tokio::task::spawn_blocking(move || {
                    let state = tcpgw_core::model::parse(&apply.state);
                    let _ = parsed.blocking_send(Parsed { apply, state, reply });
                });
            }
        }
    }

    fn apply(&mut self, parsed: Parsed) {
        let Parsed { apply, state, reply } = parsed;
        match state {
            Err(problems) => drop(reply.send(Err(Refused::Invalid(problems)))),
            Ok(state) => self.core.order(Order::Apply(ApplyOrder { apply, state, reply })),
        }
    }

    fn heard(&mut self, heard: Result<TableNotification, NetlinkError>) {
        let now = Now::read();
        if heard.as_ref().is_ok_and(|heard| heard.by_others) {
            self.core.surroundings_changed(now);
        }
        match heard {
            Ok(heard) if !heard.is_drift() => {}
            Ok(heard) => {
                let what = match heard.table {
                    TableChange::Untouched => "more notifications than could be received",
                    TableChange::Touched => "they wrote to table inet tcpgw",
                    TableChange::Gone => "they removed table inet tcpgw",
                };
                self.core
                    .drift(heard.by(), what.into(), heard.table != TableChange::Untouched, now);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to receive notifications of changes of nftables");
                self.core.drift(
                    None,
                    "notifications of changes of nftables were lost".into(),
                    false,
                    now,
                );
            }
        }
    }

    /// Reacts to changes of links, addresses, routes, routing rules or forwarding.
    fn network_changed(&mut self, changed: Notification) {
        tracing::debug!(?changed, "links, addresses, routes or their settings have changed");
        if changed.links || changed.addresses {
            self.core.links_changed();
        }
        self.core.surroundings_changed(Now::read());
        if changed.links || changed.addresses {
            self.core.addresses_changed(Now::read());
        }
    }

    fn reload(&mut self) {
        self.manager.reloading();
        match self.given.reload(self.core.settings(), self.core.config()) {
            Ok((settings, config)) => {
                let (settings, waiting) = self.core.settings().reloaded(settings);
                if !waiting.is_empty() {
                    tracing::warn!("these take effect after a restart: {}", waiting.join(", "));
                }
                (self.set_level)(settings.log_level);
                keep_copy(&config, &self.given);
                self.rewatch(&settings, &config);
                self.start_files = StartFiles::new(&self.given, &config);
                self.core.reload(settings, config, Now::read());
                self.serve_provider_api();
                tracing::info!("configuration read again");
            }
            Err(error) => {
                let error = error.line();
                tracing::error!("{error}; the old configuration stays");
                self.core.reload_failed(&error);
            }
        }
        self.manager.ready(&self.core.status_line());
    }

    /// Follows the state file again, since its path or the rules for it may have changed.
    fn rewatch(&mut self, settings: &DaemonSettings, config: &Config) {
        if let Some(file) = self.file.take() {
            file.task.abort();
        }
        match &settings.state {
            Some(path) => self.file = Some(File::watch(path, config)),
            None => self.core.no_file(Now::read()),
        }
    }
}

/// Keeps a copy of the configuration in effect, for a start after its loss.
fn keep_copy(config: &Config, given: &Given) {
    if let Err(error) = copy::keep(config, &given.copy()) {
        tracing::warn!("{error}");
    }
}

/// Returns the configuration in effect, and the flow mark that it names. The mark of an existing table stays in use,
/// since flows with another mark would not be recognised.
fn settle_configuration(config: Config, given: &Given, kernel: &mut Linux) -> (Config, FlowMark) {
    keep_copy(&config, given);
    let wanted_mark = config.flow_mark;
    let flow_mark = mark_of_table(kernel).unwrap_or(wanted_mark);
    (Config { flow_mark, ..config }, wanted_mark)
}

/// Returns the flow mark of the table in the kernel; `None`: there is no table, or it names none.
fn mark_of_table(kernel: &mut Linux) -> Option<FlowMark> {
    let comment = kernel.comment();
    let comment = comment.inspect_err(|error| tracing::warn!(%error, "failed to read the table's flow mark"));
    comment.ok().flatten().as_deref().and_then(skeleton::mark_of)
}

/// Returns the gateway's links and addresses; `None` when they cannot be listed.
fn own_links() -> Option<tcpgw_core::ruleset::links::Links> {
    let links = Routes::open().and_then(|mut routes| routes.own_links());
    links
        .inspect_err(|error| tracing::warn!(%error, "failed to list links and addresses"))
        .ok()
}

/// Raises the limit of open files, since each probe in flight has a socket. The initial limit of service managers
/// (1,024) is meant for programs that use `select`.
fn allow_many_sockets() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "failed to raise the limit of open files");
    }
}

/// Returns the number of probes that the limit of open files allows beside the API's connections, the store and
/// netlink.
fn probes_within(wanted: NonZeroUsize, files: u64, has_addon: bool) -> NonZeroUsize {
    const OTHERS: u64 = 320;
    /// Number of files that the provider API needs besides its connections.
    const ADDON: u64 = 10;
    let connections = u64::try_from(seats_within(files)).unwrap_or(u64::MAX);
    let others = OTHERS + if has_addon { connections + ADDON } else { 0 };
    let room = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX);
    wanted.min(NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN))
}

/// Returns the settings with `max_probes` reduced to what the limit of open files allows.
fn within_limits(settings: DaemonSettings, has_addon: bool) -> DaemonSettings {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now);
    let max_probes = probes_within(settings.max_probes, files, has_addon);
    if max_probes < settings.max_probes {
        tracing::warn!(
            wanted = settings.max_probes,
            max_probes,
            "max_probes is more than the limit of open files ({files}) allows: raise LimitNOFILE"
        );
    }
    DaemonSettings { max_probes, ..settings }
}

/// Writes the presence file.
fn leave_presence(settings: &DaemonSettings, run_dir: &Path, namespace: u64) -> Presence {
    let presence = Presence {
        pid: std::process::id(),
        socket: std::path::absolute(&settings.socket).unwrap_or_else(|_| settings.socket.clone()),
    };
    note_presence(&presence, run_dir, namespace);
    presence
}

fn note_presence(presence: &Presence, run_dir: &Path, namespace: u64) {
    if let Err(error) = presence.leave(run_dir, namespace) {
        tracing::warn!(%error, "failed to note in the run directory that a daemon runs");
    }
}

/// Returns the last desired services. Without them, a lost state file or store may cost services at the next boot. A
/// file that cannot be read is set aside.
fn last_services(settings: &DaemonSettings) -> Last {
    let path = Last::path(&settings.store);
    match Last::load(&path) {
        Ok(last) => last.unwrap_or_default(),
        Err(error) => {
            match Last::set_aside(&path) {
                Ok(name) => tracing::error!("{error}; it is kept as {}", tcpgw_core::escape::path(&name)),
                Err(why) => tracing::error!("{error}; failed to keep it beside: {why}"),
            }
            Last::default()
        }
    }
}

/// Removes the files of network namespaces that are gone, in a thread of its own: it takes some milliseconds, and half a
/// second at most.
fn remove_files_of_vanished_namespaces(run_dir: &Path) {
    let run_dir = run_dir.to_owned();
    let remove = move || {
        crate::vanished::remove_files(&run_dir);
    };
    let thread = std::thread::Builder::new().name("run-files".into()).spawn(remove);
    if let Err(error) = thread {
        tracing::debug!(%error, "failed to look for files of network namespaces that are gone");
    }
}

fn bind(settings: &DaemonSettings) -> Result<Socket, DaemonError> {
    Ok(Socket::bind(&socket_settings(settings)?)?)
}

fn socket_settings(settings: &DaemonSettings) -> Result<SocketSettings, DaemonError> {
    Ok(SocketSettings {
        path: settings.socket.clone(),
        mode: settings.socket_mode,
        group: group_of(settings)?,
    })
}

/// Returns the id of the group that may use the socket.
///
/// # Errors
/// Fails with [`DaemonError::Group`] when there is no such group.
pub(super) fn group_of(settings: &DaemonSettings) -> Result<Option<u32>, DaemonError> {
    let group = settings.socket_group.as_deref().map(|name| {
        let found = nix::unistd::Group::from_name(name).ok().flatten();
        found
            .map(|group| group.gid.as_raw())
            .ok_or_else(|| DaemonError::Group(name.to_owned()))
    });
    group.transpose()
}

impl File {
    fn watch(path: &Path, config: &Config) -> Self {
        let (sender, news) = mpsc::channel(1);
        let mut provider = FileProvider::watch(path, Arc::new(config.clone()));
        let task = tokio::spawn(async move {
            loop {
                let news = provider.next().await;
                if sender.send(news).await.is_err() {
                    return;
                }
            }
        });
        Self { news, task }
    }
}

async fn next_news(file: &mut Option<File>) -> Option<News> {
    match file {
        Some(file) => file.news.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_leave_files_for_everything_else() {
        let probes = |wanted, files| probes_within(NonZeroUsize::new(wanted).unwrap(), files, false).get();
        assert_eq!(probes(4096, 524_288), 4096);
        assert_eq!(probes(4096, 1024), 704);
        assert_eq!(probes(100, 1024), 100);
        assert_eq!((probes(4096, 40), probes(4096, 0)), (1, 1));
        assert_eq!(probes(16_384, u64::MAX), 16_384);
        let wanted = NonZeroUsize::new(4096).unwrap();
        assert_eq!(probes_within(wanted, 1024, true).get(), 438);
    }
}
