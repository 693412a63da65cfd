//! Main loop of the daemon: sockets, signals, files and clocks around the [`Core`].

mod begin;
mod ending;
mod files;
mod input;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::docker_thread::{DockerThread, next_docker_news};
use super::error::DaemonError;
use super::error::io;
use super::gateway_check_thread::{ExaminationResult, Examiner, Requester};
use super::hooks_thread::HooksThread;
use super::kernel_thread::KernelThread;
use super::presence::Presence;
use super::problem_observer::Observer;
use super::provider_task::ProviderTask;
use super::readonly_task::ReadonlyTask;
use super::runtime::runtime;
use super::service_manager::{LoopSigns, Manager, Watching};
use super::signals::Signals;
use super::start::StartFiles;
use super::store_thread::StoreThread;
use super::traffic_thread::TrafficThread;
use super::watched_file::{FollowedFile, next_news};
use super::web_task::WebTask;
use crate::api::Socket;
use crate::config::Config;
use crate::config::daemon::{DaemonSettings, LogLevel};
use crate::config::given::SettingsSources;
use crate::control::core::{Core, Now};
use crate::control::job::JobOutcome;
use crate::control::observation::Observation;
use crate::control::own_listener::ListenerRole;
use crate::control::request::DaemonRequest;
use crate::control::storage::WriteResult;
use crate::daemon::parsed::Parsed;
use crate::daemon::presence::remove_files_of_vanished_namespaces;
use crate::lock::Lock;
use crate::probe::{ProbeError, ProbeReport, Prober};
use crate::store::last_services::LastServices;
use crate::store::lost;
use tcpgw_core::model::{Service, State};
use tcpgw_kernel::ffi::memory::{release_memory, share_heap};
use tcpgw_kernel::nftables::monitor::NftablesMonitor;
use tcpgw_kernel::route::monitor::Notification;

/// Runs until a signal ends it. The kernel forwards as before after that.
///
/// # Errors
/// Fails when the daemon cannot start, or a part of it has ended: see [`DaemonError`].
pub fn run(
    given: &SettingsSources,
    settings: DaemonSettings,
    config: Config,
    run_dir: &Path,
    set_level: SetLevel,
) -> Result<(), DaemonError> {
    share_heap();
    let runtime = runtime().map_err(io("start"))?;
    let done = runtime.block_on(async {
        let mut daemon = DaemonLoop::start(given.clone(), settings, config, run_dir, set_level)?;
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

struct DaemonLoop {
    given: SettingsSources,
    set_level: SetLevel,
    core: Core,
    kernel_thread: Option<KernelThread>,
    outcomes: mpsc::Receiver<JobOutcome>,
    requests: mpsc::Receiver<DaemonRequest>,
    parsed: (mpsc::Sender<Parsed>, mpsc::Receiver<Parsed>),
    store_thread: Option<StoreThread>,
    written: mpsc::Receiver<WriteResult>,
    prober: Prober,
    probed: mpsc::UnboundedReceiver<Vec<ProbeReport>>,
    drift: AsyncFd<NftablesMonitor>,
    network: mpsc::Receiver<Notification>,
    traffic: Option<TrafficThread>,
    hooks: Option<HooksThread>,
    observer: Observer,
    observations: mpsc::Receiver<Observation>,
    examiner: Examiner,
    examinations: mpsc::Receiver<ExaminationResult>,
    /// Time at which an examination under way is given up.
    gives_up_at: Option<Instant>,
    file: Option<FollowedFile>,
    docker: Option<DockerThread>,
    signals: Signals,
    manager: Manager,
    signs: LoopSigns,
    _watching: Option<Watching>,
    /// Time at which the status for the service manager is updated next.
    status_at: Instant,
    /// Time at which freed memory is returned to the system next.
    trim_at: Instant,
    stop: Option<oneshot::Sender<()>>,
    api: Api,
    provider_api: ProviderTask,
    web: WebTask,
    readonly: ReadonlyTask,
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
                    tracing::error!(%error, "the task that serves the API has failed");
                }
            }
            None => std::future::pending().await,
        }
    }
}

impl DaemonLoop {
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
                    self.core.done(outcome.ok_or(DaemonError::KernelThread)?, Now::read());
                }
                news = next_news(&mut self.file) => self.file_news(news.ok_or(DaemonError::Task("follows the state file"))?),
                news = next_docker_news(&mut self.docker) => {
                    self.core.docker_news(news.ok_or(DaemonError::Task("follows Docker's engine"))?);
                }
                Some(request) = self.requests.recv() => self.answer(request),
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
                Some(answer) = self.examinations.recv() => {
                    let now = Now::read();
                    self.examiner.answered(answer, now.instant);
                    self.core.examination_ended(now);
                }
                Some(changed) = self.network.recv() => self.network_changed(changed),
                () = sleep_until(wake.into()) => {}
                _ = self.signals.end.recv() => return Ok(()),
                _ = self.signals.interrupt.recv() => return Ok(()),
                _ = self.signals.reload.recv() => self.reload(),
                _ = self.signals.reopen.recv() => {
                    if let Some(traffic) = &self.traffic {
                        traffic.reopen();
                    }
                }
            }
            self.take_what_is_there();
        }
    }

    /// Takes input that arrived at the same time, so that it becomes one transaction.
    fn take_what_is_there(&mut self) {
        const MOST: usize = 4096;
        for _ in 0..MOST {
            self.signs.step_done(Instant::now());
            if let Ok(probed) = self.probed.try_recv() {
                self.probed(probed);
            } else if let Some(news) = self.file.as_mut().and_then(|file| file.news.try_recv().ok()) {
                self.file_news(news);
            } else if let Ok(parsed) = self.parsed.1.try_recv() {
                self.apply(parsed);
            } else if let Ok(request) = self.requests.try_recv() {
                self.answer(request);
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
        self.signs.beat(now.instant);
        if let Some(news) = self.core.judges_again() {
            self.file_news(news);
        }
        if self.gives_up_at.take_if(|at| *at <= now.instant).is_some() {
            self.core.examination_ended(now);
        }
        self.signs.step_done(Instant::now());
        self.decide_docker(now);
        let examiner = &mut self.examiner;
        if self.core.is_judgement_due(now) {
            let vet = &mut |state: &State, known: &IsKnown<'_>| {
                examiner.vet(Requester::Surroundings, state, known, now.instant)
            };
            self.core.judge_surroundings(vet, now);
        }
        self.signs.step_done(Instant::now());
        self.write(now)?;
        self.signs.step_done(Instant::now());
        if let Some(request) = self.core.next_observation(now)
            && !self.observer.ask(request)
        {
            tracing::error!("the thread that observes the surroundings has died");
        }
        self.signs.step_done(Instant::now());
        self.give_job(now)?;
        self.signs.step_done(Instant::now());
        let (due, cancelled) = (self.core.due_probes(now), self.core.health().take_cancelled());
        if !cancelled.is_empty() {
            self.prober.cancel(cancelled)?;
        }
        if !due.is_empty() {
            self.prober.probe(due)?;
        }
        self.signs.step_done(Instant::now());
        if self.socket_at <= now.instant {
            self.socket_at = now.instant + SOCKET;
            self.check_files(now);
            self.check_configuration();
            let is_serving = self.core.is_serving();
            self.core
                .last_damaged(LastServices::problem(&self.core.settings().store, is_serving));
            self.core.store_lost(lost::problem(&self.core.settings().store));
            self.core
                .flow_log(self.traffic.as_ref().and_then(TrafficThread::trouble));
            self.core.hooks(self.hooks.as_ref().and_then(HooksThread::trouble));
        }
        let core = &self.core;
        if self
            .provider_api
            .listener
            .task
            .is_due(now.instant, || core.judge_listener(ListenerRole::Provider).is_err())
        {
            self.serve_provider_api();
        }
        let core = &self.core;
        if self
            .web
            .listener
            .task
            .is_due(now.instant, || core.judge_listener(ListenerRole::Web).is_err())
        {
            self.serve_web();
        }
        if self.readonly.task.is_due(now.instant, || false) {
            self.serve_readonly();
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

    /// Puts what Docker's engine has told into effect.
    fn decide_docker(&mut self, now: Now) {
        if !self.core.is_docker_due(now) {
            return;
        }
        let examiner = &mut self.examiner;
        let vet = &mut |state: &State, known: &IsKnown<'_>| examiner.vet(Requester::Docker, state, known, now.instant);
        self.core.decide_docker(vet, now);
        self.signs.step_done(Instant::now());
    }

    /// Gives the store's thread what is to be written now.
    fn write(&mut self, now: Now) -> Result<(), DaemonError> {
        let examiner = &mut self.examiner;
        let vet = &mut |state: &State, known: &IsKnown<'_>| examiner.vet(Requester::Order, state, known, now.instant);
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
        let given = self
            .kernel_thread
            .as_ref()
            .is_some_and(|kernel_thread| kernel_thread.give(job));
        if given { Ok(()) } else { Err(DaemonError::KernelThread) }
    }

    /// Serves the provider API as configured. Its failure affects nothing else.
    fn serve_provider_api(&mut self) {
        let judged = self.core.judge_listener(ListenerRole::Provider);
        let wanted = judged.map(|()| self.core.config().addon.as_ref());
        let served = self.provider_api.configure(wanted);
        self.core.provider_api(served, Now::read());
    }

    /// Serves metrics as configured. Their failure affects nothing else.
    fn serve_web(&mut self) {
        let judged = self.core.judge_listener(ListenerRole::Web);
        let served = self.web.configure(judged.map(|()| self.core.config()), &self.run_dir);
        self.core.web(served.err().as_deref(), Now::read());
    }

    /// Serves the read-only socket as configured. Its failure affects nothing else.
    fn serve_readonly(&mut self) {
        let served = self.readonly.configure(self.core.settings());
        self.core.readonly_socket(served.err().as_deref());
    }

    fn wakes_at(&mut self) -> Instant {
        self.gives_up_at = self.gives_up_at.or_else(|| self.examiner.gives_up_at(Instant::now()));
        let times = [
            self.gives_up_at,
            self.core.observes_at(),
            self.core.wakes_at(),
            self.core.health().next_at(),
            Some(self.socket_at),
            Some(self.provider_api.listener.task.wakes_at()),
            Some(self.web.listener.task.wakes_at()),
            Some(self.readonly.task.wakes_at()),
        ];
        self.signs.wakes_at(Instant::now(), times.into_iter().flatten().min())
    }
}
