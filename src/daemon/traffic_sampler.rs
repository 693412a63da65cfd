//! Samples of the totals of services: the kernel's counters, the list of flows, and the reports of ended ones.

use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc as requests};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

use super::flow_log::FlowLog;
use crate::config::daemon::{DaemonSettings, FlowLogTarget};
use crate::control::request::DaemonRequest;
use crate::record::boot_id;
use crate::traffic::drop_sets;
use crate::traffic::file::TotalsFile;
use crate::traffic::flow_record::FlowRecord;
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::{EndedFlow, Ledger, LiveFlows, Totals};
use crate::view::totals::ConnectionCounts;
use tcpgw_core::escape;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::{EndMonitor, Flow, Selection};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel as _, KernelError};

/// Shortest and longest pause between samples that nobody asked for.
const PAUSE: Duration = Duration::from_secs(5);
const MOST_PAUSE: Duration = Duration::from_secs(120);
/// Pause after a sample, as a multiple of its processor time: samples take 1 % of the time.
const TIMES: u32 = 100;
/// Shortest pause between two questions for the services, where a flow of an unknown one has ended.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Shortest pause between two writings of the file.
const SAVE_PAUSE: Duration = Duration::from_secs(2);
/// Age up to which a sample answers a question.
const FRESH: Duration = Duration::from_secs(1);
/// Pause between two receptions of reports while there are any, so that many are received at once.
const RECEIVE: Duration = Duration::from_millis(50);
/// Number of listed flows after which reports are received, and most reports that are received at once.
const LISTED: usize = 2_000;
const AT_ONCE: usize = 20_000;
/// Largest number of reports that wait for the end of a list of flows. More are lost.
const MOST_REPORTS: usize = 1 << 18;
/// Time for which lost lines of the flow log are a problem.
const TOLD: Duration = Duration::from_secs(600);
/// Time that the flow log may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Sysctl that enables reports, of the reader's network namespace.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Settings for what is done with flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrafficSettings {
    /// Whether packets, bytes and handshakes are counted.
    counts_traffic: bool,
    flow_log: Option<FlowLogTarget>,
}

impl From<&DaemonSettings> for TrafficSettings {
    fn from(settings: &DaemonSettings) -> Self {
        Self {
            counts_traffic: settings.count_traffic,
            flow_log: settings.flow_log.clone(),
        }
    }
}

/// Request to the thread.
pub(super) enum TrafficRequest {
    /// Totals at most [`FRESH`] old.
    Totals(requests::SyncSender<Arc<Totals>>),
    /// Other settings.
    Configure(TrafficSettings),
    /// The file of the flow log is opened anew.
    Reopen,
}

/// Reason why connections are missing in the flow log.
pub(super) type SharedTrouble = Arc<Mutex<Option<String>>>;

impl std::fmt::Debug for TrafficRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Totals(_) => "Totals",
            Self::Configure(_) => "Configure",
            Self::Reopen => "Reopen",
        })
    }
}

/// State of the thread.
pub(super) struct TrafficSampler {
    file: TotalsFile,
    boot: String,
    services: mpsc::Sender<DaemonRequest>,
    mark: FlowMark,
    ledger: Ledger,
    totals: Arc<Totals>,
    sampled: Option<Instant>,
    /// Time at which the services were last asked for.
    known: Option<Instant>,
    due: Instant,
    /// Time from which a sample is saved, and whether the last one was.
    save_at: Instant,
    is_saved: bool,
    settings: TrafficSettings,
    log: Option<(FlowLog, thread::JoinHandle<()>)>,
    trouble: SharedTrouble,
    hour: SharedHour,
    /// Number of lines that were lost at the last look, and the time of the last loss.
    lost: (u64, Option<Instant>),
    monitor: Option<EndMonitor>,
    /// Whether the last reception had any reports.
    is_busy: bool,
    /// Failures that were logged.
    told: Vec<String>,
}

impl TrafficSampler {
    pub(super) fn new(
        file: TotalsFile,
        services: mpsc::Sender<DaemonRequest>,
        settings: TrafficSettings,
        trouble: SharedTrouble,
        hour: SharedHour,
    ) -> Self {
        let boot = boot_id();
        let ledger = file.load(&boot).unwrap_or_else(|error| {
            let path = escape::path(file.path());
            tracing::warn!(%error, "failed to read {path}: all totals begin at zero");
            None
        });
        let ledger = ledger.unwrap_or_default();
        Self {
            totals: Arc::new(ledger.totals()),
            file,
            boot,
            services,
            mark: FlowMark::default(),
            ledger,
            sampled: None,
            known: None,
            due: Instant::now(),
            save_at: Instant::now(),
            is_saved: true,
            settings,
            log: None,
            trouble,
            hour,
            lost: (0, None),
            monitor: None,
            is_busy: false,
            told: Vec::new(),
        }
    }

    pub(super) fn serve(&mut self, requests: &requests::Receiver<TrafficRequest>, mut woken: UnixStream) {
        let mut is_over = false;
        self.start_log();
        while !is_over {
            is_over = self.wait(&mut woken);
            while let Ok(request) = requests.try_recv() {
                self.attend(request);
            }
            self.receive();
            if is_over || Instant::now() >= self.due {
                self.sample();
            }
            if !self.is_saved && (is_over || Instant::now() >= self.save_at) {
                self.save();
            }
            self.tell_trouble();
        }
        self.end_log();
    }

    fn attend(&mut self, request: TrafficRequest) {
        match request {
            TrafficRequest::Configure(settings) => {
                let is_other_log = settings.flow_log != self.settings.flow_log;
                self.settings = settings;
                if is_other_log {
                    self.end_log();
                    self.start_log();
                }
                self.due = Instant::now();
            }
            TrafficRequest::Reopen => {
                if let Some((log, _)) = &self.log {
                    log.reopen();
                }
            }
            TrafficRequest::Totals(reply) => {
                if self.sampled.is_none_or(|at| at.elapsed() >= FRESH) {
                    self.sample();
                }
                let _ = reply.try_send(Arc::clone(&self.totals));
            }
        }
    }

    /// Waits until there is something to do. Returns whether the daemon ends.
    fn wait(&self, woken: &mut UnixStream) -> bool {
        let until_due = self.due.saturating_duration_since(Instant::now());
        let time = if self.is_busy {
            until_due.min(RECEIVE)
        } else {
            until_due
        };
        // Rounded up, so that it is due afterwards.
        let time = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let monitor = self.monitor.as_ref().filter(|_| !self.is_busy);
        let mut fds = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        fds.extend(monitor.map(|monitor| PollFd::new(monitor.as_fd(), PollFlags::POLLIN)));
        if let Err(error) = poll(&mut fds, time)
            && error != Errno::EINTR
        {
            // Only a lack of memory is left; it is no reason to spin.
            thread::sleep(RECEIVE);
        }
        let mut rings = [0; 64];
        loop {
            match woken.read(&mut rings) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Receives reports while no list of flows is being made.
    fn receive(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let mut ended = Vec::new();
        let drained = monitor.drain(AT_ONCE, |flow, stopped| ended.push((flow.clone(), stopped)));
        match drained {
            Ok(drained) => {
                self.is_busy = drained.messages > 0;
                overrun(self.log.as_ref(), &mut self.ledger, drained.overruns);
            }
            Err(error) => {
                self.monitor = None;
                self.is_busy = false;
                self.tell("failed to receive reports of ended flows", &error.to_string());
            }
        }
        // A service may be new.
        let is_unknown = |(flow, _): &(Flow, Option<u64>)| self.ledger.service_at(flow.public).is_none();
        if ended.iter().any(is_unknown) && self.known.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            self.know_services();
        }
        for (flow, stopped) in &ended {
            note(self.log.as_ref(), &self.ledger, flow, *stopped);
            if self.settings.counts_traffic {
                self.ledger.ended(&EndedFlow::from(flow));
            }
        }
    }

    fn sample(&mut self) {
        let begun = cpu_time();
        self.know_services();
        if let Err(error) = self.read() {
            self.tell("failed to read the kernel's counters for totals", &error.to_string());
        }
        self.sampled = Some(Instant::now());
        self.totals = Arc::new(Totals {
            at: self.sampled,
            ..self.ledger.totals()
        });
        self.hour.take(Instant::now(), self.ledger.samples());
        self.is_saved = false;
        let took = cpu_time().saturating_sub(begun);
        self.due = Instant::now() + took.saturating_mul(TIMES).clamp(PAUSE, MOST_PAUSE);
    }

    /// Asks the main loop for the services. At the daemon's end those of the last sample stay.
    fn know_services(&mut self) {
        self.known = Some(Instant::now());
        let (reply, answer) = oneshot::channel();
        if self.services.blocking_send(DaemonRequest::Snapshot(reply)).is_err() {
            return;
        }
        if let Ok(snapshot) = answer.blocking_recv() {
            self.ledger.know(&snapshot.services.summary);
            if self.mark != snapshot.services.mark {
                self.mark = snapshot.services.mark;
                self.monitor = None;
            }
        }
    }

    fn read(&mut self) -> Result<(), KernelError> {
        let mut kernel = Linux::open()?;
        let table = kernel.identity()?.table;
        let mut sets = Vec::new();
        if table.is_some() {
            for set in drop_sets::sets().into_iter().chain(ConnectionCounts::sets()) {
                match kernel.counted(set) {
                    Err(KernelError::Netlink(error)) if error.errno() == Some(Errno::ENOENT) => {}
                    counted => sets.push((set, counted?)),
                }
            }
        }
        // Counters of a table that was replaced meanwhile may be of either.
        if kernel.identity()?.table == table {
            self.ledger.counters(table, sets);
        }
        let wants_reports = self.settings.counts_traffic || self.log.is_some();
        self.monitor = self.monitor.take().filter(|_| wants_reports);
        if wants_reports && self.monitor.is_none() {
            self.monitor = Some(EndMonitor::open(self.mark)?);
        }
        if self.settings.counts_traffic {
            return self.list(&mut kernel);
        }
        self.ledger.stop_flows();
        Ok(())
    }

    /// Lists the flows. The reports that come meanwhile may be of flows that are listed.
    fn list(&mut self, kernel: &mut Linux) -> Result<(), KernelError> {
        let (log, ledger) = (self.log.as_ref(), &self.ledger);
        let Some(monitor) = &mut self.monitor else {
            return Ok(());
        };
        let (mut live, mut reports, mut listed) = (LiveFlows::default(), Vec::new(), 0_usize);
        // Reports for which there is no room are in the flow log all the same.
        let (mut overruns, mut over) = (0, 0);
        let mut receive = |most| {
            let drained = monitor.drain(most, |flow, stopped| {
                note(log, ledger, flow, stopped);
                if reports.len() < MOST_REPORTS {
                    reports.push(EndedFlow::from(flow));
                } else {
                    over += 1;
                }
            })?;
            overruns += drained.overruns;
            Ok::<_, KernelError>(drained.messages)
        };
        let mut failed = Ok(0);
        kernel.select(self.mark, &Selection::default(), &mut |flow| {
            live.add(flow);
            listed += 1;
            if listed.is_multiple_of(LISTED) {
                failed = receive(AT_ONCE);
            }
            match failed {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        failed?;
        // A report is sent before its flow leaves the table: all reports of flows that are not listed are here now.
        while receive(AT_ONCE)? == AT_ONCE {}
        overrun(self.log.as_ref(), &mut self.ledger, overruns);
        self.ledger.lost(over);
        self.ledger.flows(live, reports);
        Ok(())
    }

    fn save(&mut self) {
        let begun = cpu_time();
        if let Err(error) = self.file.save(&self.ledger, &self.boot) {
            let what = format!("failed to write {}", escape::path(self.file.path()));
            self.tell(&what, &error.to_string());
        }
        let took = cpu_time().saturating_sub(begun);
        self.save_at = Instant::now() + took.saturating_mul(TIMES).max(SAVE_PAUSE);
        self.is_saved = true;
    }

    fn start_log(&mut self) {
        let Some(target) = self.settings.flow_log.clone() else {
            return;
        };
        match FlowLog::start(target) {
            Ok(log) => self.log = Some(log),
            Err(error) => self.tell("failed to start the thread of the flow log", &error.to_string()),
        }
    }

    /// Ends the flow log. Its last lines are written, unless that takes too long.
    fn end_log(&mut self) {
        self.lost = (0, None);
        let Some((log, thread)) = self.log.take() else { return };
        drop(log);
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < LAST_LINES {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells the main loop why connections are missing in the flow log, if they are.
    fn tell_trouble(&mut self) {
        let trouble = self.log.as_ref().and_then(|(log, _)| {
            let (missing, trouble) = log.state();
            if missing.all() > self.lost.0 {
                self.lost = (missing.all(), Some(Instant::now()));
            }
            let are_off = || std::fs::read_to_string(EVENTS).is_ok_and(|value| value.trim() == "0");
            let is_recent = self.lost.1.is_some_and(|at| at.elapsed() < TOLD);
            match trouble {
                Some(why) => Some(format!("the flow log cannot be written: {why}")),
                None if are_off() => Some(
                    "the kernel reports no ended connections: sysctl -w net.netfilter.nf_conntrack_events=1".into(),
                ),
                None => is_recent.then(|| missing.to_string()),
            }
        });
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Logs each failure once.
    fn tell(&mut self, what: &str, error: &str) {
        const MOST: usize = 32;
        let line = format!("{what}: {error}");
        if self.told.len() < MOST && !self.told.contains(&line) {
            tracing::warn!("{line}");
            self.told.push(line);
        }
    }
}

type Log<'a> = Option<&'a (FlowLog, thread::JoinHandle<()>)>;

/// Adds an ended flow to the flow log.
fn note(log: Log<'_>, ledger: &Ledger, flow: &Flow, stopped: Option<u64>) {
    if let Some((log, _)) = log {
        let service = ledger.service_at(flow.public).map(Box::from);
        log.add(FlowRecord::new(flow, service, stopped));
    }
}

/// Notes that the kernel's queue of reports was full so many times.
fn overrun(log: Log<'_>, ledger: &mut Ledger, times: u64) {
    ledger.lost(times);
    if let Some((log, _)) = log {
        log.overrun(times);
    }
}

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
