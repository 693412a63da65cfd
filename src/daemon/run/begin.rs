//! The start of the daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::{Api, DaemonLoop, SetLevel};
use crate::addon::settings::is_loopback;
use crate::api::{self, settings};
use crate::config::daemon::DaemonSettings;
use crate::config::given::SettingsSources;
use crate::config::{Config, copy};
use crate::control::core::{Core, Now};
use crate::control::event_tap::event_tap;
use crate::control::request::DaemonRequest;
use crate::daemon::api_socket::bind;
use crate::daemon::docker_thread::DockerThread;
use crate::daemon::error::{DaemonError, io};
use crate::daemon::gateway_check_thread::Examiner;
use crate::daemon::hooks_thread::HooksThread;
use crate::daemon::kernel_thread::KernelThread;
use crate::daemon::limits::{allow_many_sockets, within_limits};
use crate::daemon::presence::Presence;
use crate::daemon::problem_observer::Observer;
use crate::daemon::provider_task::ProviderTask;
use crate::daemon::readonly_task::ReadonlyTask;
use crate::daemon::service_manager::{Manager, Watchdog};
use crate::daemon::signals::Signals;
use crate::daemon::start::StartFiles;
use crate::daemon::store_thread::StoreThread;
use crate::daemon::traffic_thread::TrafficThread;
use crate::daemon::watched_file::FollowedFile;
use crate::daemon::web_task::WebTask;
use crate::doctor::MemoryFile;
use crate::hooks::settings::HookSettings;
use crate::lock::Lock;
use crate::metrics::OwnFile;
use crate::probe::Prober;
use crate::reconcile::engine::Engine;
use crate::record::{RecordFile, boot_id};
use crate::store::last_services::LastServices;
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::totals::TotalsSource;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::skeleton;
use tcpgw_kernel::Kernel as _;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::nftables::monitor::NftablesMonitor;
use tcpgw_kernel::nftables::ownership::Ownership;
use tcpgw_kernel::route::Routes;
use tcpgw_kernel::route::monitor as route_monitor;

/// Maximum number of requests that wait for the main loop.
const MOST_REQUESTS: usize = 64;

/// Delay until memory is returned to the system that the start needed.
const FIRST_TRIM: Duration = Duration::from_secs(3);

/// Maximum time to wait for another tcpgw that holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps a copy of the configuration in effect, for a start after its loss.
pub(super) fn keep_copy(config: &Config, given: &SettingsSources) {
    if let Err(error) = copy::keep(config, &given.copy()) {
        tracing::warn!("{error}");
    }
}

/// Warns of values of a configuration that are accepted and of little use.
pub(super) fn warn_of(config: &Config) {
    let host = config.addon.as_ref().map(|settings| &*settings.host);
    if let Some(host) = host.filter(|host| is_loopback(host)) {
        tracing::warn!(
            "addon.host is {host}, which leads each app to its own machine and not to the gateway: write the gateway's public name or \
             address, which apps get in TCP_URL"
        );
    }
}

/// Returns the configuration in effect, and the flow mark that it names. The mark of an existing table stays in use,
/// since flows with another mark would not be recognised.
fn settle_configuration(config: Config, given: &SettingsSources, kernel: &mut Linux) -> (Config, FlowMark) {
    keep_copy(&config, given);
    warn_of(&config);
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

/// Writes the presence file.
fn leave_presence(settings: &DaemonSettings, run_dir: &Path, namespace: u64) -> Presence {
    let presence = Presence {
        pid: std::process::id(),
        socket: std::path::absolute(&settings.socket).unwrap_or_else(|_| settings.socket.clone()),
    };
    note_presence(&presence, run_dir, namespace);
    presence
}

pub(super) fn note_presence(presence: &Presence, run_dir: &Path, namespace: u64) {
    if let Err(error) = presence.leave(run_dir, namespace) {
        tracing::warn!(%error, "failed to write the presence file: if this daemon is killed, commands do not report that");
    }
}

/// Returns the last desired services. Without them, a lost state file or store may cost services at the next boot. A
/// file that cannot be read is set aside.
pub(super) fn last_services(settings: &DaemonSettings) -> LastServices {
    let path = LastServices::path(&settings.store);
    match LastServices::load(&path) {
        Ok(last) => last.unwrap_or_default(),
        Err(error) => {
            match LastServices::set_aside(&path) {
                Ok(name) => tracing::error!("{error}; it is kept as {}", tcpgw_core::escape::path(&name)),
                Err(why) => tracing::error!("{error}; failed to move it aside: {why}"),
            }
            LastServices::default()
        }
    }
}

/// Returns whether a daemon has run before in this boot and network namespace, by the record and the file of last services.
fn has_run(run_dir: &Path, namespace: u64, settings: &DaemonSettings) -> bool {
    let boot = boot_id();
    let is_of_here = |last: LastServices| last.boot == boot && last.namespace == namespace;
    let last = || LastServices::load(&LastServices::path(&settings.store)).ok().flatten();
    RecordFile::new(run_dir, namespace).is_of_daemon(&boot) || last().is_some_and(is_of_here)
}

/// Opens the kernel's tables of this network namespace, and returns its cookie.
fn open_kernel(is_owner: bool) -> Result<(Linux, u64), DaemonError> {
    let ownership = if is_owner { Ownership::Owned } else { Ownership::Persist };
    let mut kernel = Linux::open_for(ownership)?;
    kernel.identity()?;
    let cookie = kernel.netns_cookie();
    let namespace = cookie.map_err(io("identify the network namespace (needs Linux 5.14)"))?;
    Ok((kernel, namespace))
}

/// Starts the task that serves the API until `stopped`.
fn serve_api(
    listener: UnixListener,
    renewals: mpsc::Receiver<UnixListener>,
    requests: mpsc::Sender<DaemonRequest>,
    totals: TotalsSource,
    stopped: oneshot::Receiver<()>,
) -> Api {
    let settings = settings::ApiSettings {
        totals: Some(totals),
        ..settings::ApiSettings::default()
    };
    let stop = async {
        let _ = stopped.await;
    };
    Api(Some(tokio::spawn(api::serve(
        listener, renewals, requests, settings, stop,
    ))))
}

/// Starts the thread that tells hooks all events from now on. Without hooks there is none, nor its descriptors.
pub(super) fn start_hooks(core: &mut Core, hooks: &[HookSettings]) -> std::io::Result<Option<HooksThread>> {
    if hooks.is_empty() {
        return Ok(None);
    }
    let (tap, tapped) = event_tap();
    let thread = HooksThread::start(hooks.to_vec(), tapped)?;
    core.tap_events(tap);
    Ok(Some(thread))
}

impl DaemonLoop {
    pub(super) fn start(
        given: SettingsSources,
        settings: DaemonSettings,
        config: Config,
        run_dir: &Path,
        set_level: SetLevel,
    ) -> Result<Self, DaemonError> {
        allow_many_sockets();
        let signals = Signals::new().map_err(io("listen to signals"))?;
        let (mut kernel, namespace) = open_kernel(settings.owner)?;
        let lock = Lock::take(run_dir, namespace, LOCK_TIMEOUT)?;
        // This comes before the first read of the kernel, so that no change is missed.
        let drift = NftablesMonitor::open(kernel.port())?
            .listen()
            .map_err(io("watch nftables"))?;
        let network = route_monitor::follow();
        let (seen, observations) = mpsc::channel(1);
        let has_run = || has_run(run_dir, namespace, &settings);
        let observer = Observer::start(MemoryFile::new(run_dir, namespace), has_run, seen);
        let observer = observer.map_err(io("start a thread"))?;
        let (examiner, examinations) = Examiner::start().map_err(io("start a thread"))?;
        let mut socket = bind(&settings)?;
        let presence = leave_presence(&settings, run_dir, namespace);
        let (config, wanted_mark) = settle_configuration(config, &given, &mut kernel);
        let engine = Engine::new(kernel, RecordFile::new(run_dir, namespace), namespace, config.flow_mark)
            .protecting(config.protect_backends)
            .idling(config.idle_timeout);
        let (done, outcomes) = mpsc::channel(1);
        let (watchdog, job_signs, signs) = Watchdog::new();
        let (sender, requests) = mpsc::channel(MOST_REQUESTS);
        let provider_api = ProviderTask::new(sender.clone());
        let hour = SharedHour::new(Instant::now());
        let traffic = TrafficThread::start(run_dir, namespace, (&settings).into(), sender.clone(), hour.clone());
        let traffic = traffic.map_err(io("start a thread"))?;
        let kernel_thread = KernelThread::start(engine, own_links, job_signs, traffic.names(), done);
        let kernel_thread = kernel_thread.map_err(io("start a thread"))?;
        let own_file = OwnFile::new(run_dir, namespace, boot_id());
        let web = WebTask::new(sender.clone(), own_file, traffic.source(), hour);
        let readonly = ReadonlyTask::new(sender.clone(), traffic.source());
        let listener = socket.take_listener().and_then(UnixListener::from_std);
        let listener = listener.map_err(io("listen on the socket"))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (renewed, renewals) = mpsc::channel(1);
        let api = serve_api(listener, renewals, sender, traffic.source(), stopped);
        // The number of reports is bounded by that of probes in flight.
        let (reports, probed) = mpsc::unbounded_channel();
        let thread = Prober::start(reports)?;
        let file = settings.state.as_ref().map(|path| FollowedFile::watch(path, &config));
        let docker = DockerThread::start(&config).map_err(io("start a thread"))?;
        let mut last = last_services(&settings);
        let recorded = RecordFile::new(run_dir, namespace).store(&boot_id(), &settings.store);
        let recorded = last.amended(recorded, &boot_id(), namespace);
        let (writes, written) = mpsc::channel(1);
        let start_files = StartFiles::new(&given, &config);
        let (store_thread, opened) = StoreThread::start(&settings.store, &mut last, recorded, Now::read().unix, writes)
            .map_err(io("start a thread"))?;
        let settings = within_limits(settings, &config);
        let mut core = Core::new(settings, config, namespace, Now::read());
        let hooks = core.config().hooks.clone();
        let hooks = start_hooks(&mut core, &hooks).map_err(io("start a thread"))?;
        core.configuration_read(wanted_mark);
        *core.own_metrics() = web.kept();
        core.opened(opened, Now::read());
        core.served_last(last, boot_id());
        Ok(Self {
            given,
            set_level,
            core,
            kernel_thread: Some(kernel_thread),
            outcomes,
            requests,
            parsed: mpsc::channel(2),
            store_thread: Some(store_thread),
            written,
            prober: thread,
            probed,
            drift,
            network,
            traffic: Some(traffic),
            hooks,
            observer,
            observations,
            examiner,
            examinations,
            gives_up_at: None,
            file,
            docker,
            signals,
            manager: Manager::default(),
            signs,
            _watching: watchdog.start().map_err(io("start a thread"))?,
            status_at: Instant::now(),
            trim_at: Instant::now() + FIRST_TRIM,
            stop: Some(stop),
            api,
            provider_api,
            web,
            readonly,
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
}
