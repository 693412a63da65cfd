//! Samples of the totals of services: the kernel's counters, the list of flows, and the reports of ended ones.

mod ended_flows;
mod log;
mod log_entry;
mod query_times;

use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc as requests;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

use self::log_entry::{note, overrun};
use self::query_times::QueryTimes;
use super::flow_log::FlowLog;
use super::names_teller::NamesNews;
use super::table_counters::{TableCounters, read_counters};
use super::traffic_request::{SharedTrouble, ShownTotals, TrafficRequest, TrafficSettings};
use crate::control::reply::ReplySender;
use crate::control::request::DaemonRequest;
use crate::locked::locked;
use crate::record::boot_id;
use crate::traffic::file::TotalsFile;
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::{EndedFlow, LiveFlows, PersistedLedger, TotalsAge};
use tcpgw_core::escape;
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::{EndMonitor, Selection};
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
/// Age up to which a sample answers a question, at least.
const FRESH: Duration = Duration::from_secs(1);
/// Multiple of the processor time of a sample and its writing for which it answers questions: these take a tenth of a core at most.
const FRESH_TIMES: u32 = 10;
/// Processor time from which on a sample takes long: a question need not wait for it.
const LONG: Duration = Duration::from_millis(20);
/// Longest age of totals that answer a question which does not wait.
const MOST_SHOWN: Duration = Duration::from_secs(30);
/// Longest age of a sample that answers a question.
const MOST_FRESH: Duration = Duration::from_secs(15);
/// Pause between two receptions of reports while there are any, so that many are received at once.
const RECEIVE: Duration = Duration::from_millis(50);
/// Number of listed flows after which reports are received, and most reports that are received at once.
const LISTED: usize = 2_000;
const AT_ONCE: usize = 20_000;
/// Largest number of reports that wait for the end of a list of flows. More are lost.
const MOST_REPORTS: usize = 1 << 18;

/// State of the thread.
pub(super) struct TrafficSampler {
    persisted: PersistedLedger,
    services: mpsc::Sender<DaemonRequest>,
    news: requests::Receiver<NamesNews>,
    /// End of a change that is to be used after what belongs to the services before it was counted.
    ending: Option<requests::SyncSender<()>>,
    mark: FlowMark,
    shown: ShownTotals,
    sampled: Option<Instant>,
    /// Age up to which that sample answers a question.
    fresh: Duration,
    /// Processor time of that sample.
    took: Duration,
    /// Time at which the services were last asked for.
    known: Option<Instant>,
    due: Instant,
    queries: QueryTimes,
    /// Time from which a sample is written that nobody asked for, and whether the last one was.
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
    logged: Vec<String>,
}

impl TrafficSampler {
    pub(super) fn new(
        file: TotalsFile,
        (services, news): (mpsc::Sender<DaemonRequest>, requests::Receiver<NamesNews>),
        settings: TrafficSettings,
        (trouble, shown): (SharedTrouble, ShownTotals),
        hour: SharedHour,
    ) -> Self {
        let (persisted, error) = PersistedLedger::open(file, boot_id());
        if let Some(error) = error {
            let path = escape::path(persisted.file().path());
            tracing::warn!(%error, "failed to read {path}: all totals begin at zero");
        }
        *locked(&shown) = Some(persisted.saved_totals());
        Self {
            persisted,
            shown,
            services,
            news,
            ending: None,
            mark: FlowMark::default(),
            sampled: None,
            fresh: FRESH,
            took: Duration::ZERO,
            known: None,
            due: Instant::now(),
            queries: QueryTimes::default(),
            save_at: Instant::now(),
            is_saved: true,
            settings,
            log: None,
            trouble,
            hour,
            lost: (0, None),
            monitor: None,
            is_busy: false,
            logged: Vec::new(),
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
            let is_ahead = self.queries.is_due(Instant::now());
            if is_over || is_ahead || Instant::now() >= self.due {
                self.sample();
            }
            if is_ahead {
                self.save();
            }
            if self.ending.is_some() {
                self.receive();
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
            TrafficRequest::Totals(age, reply) => {
                let asked = Instant::now();
                let is_old = self.sampled.is_none_or(|at| at.elapsed() >= self.fresh);
                let shown = self.persisted.saved_totals();
                let may_be_shown = shown.at.is_some_and(|at| at.elapsed() < MOST_SHOWN) && self.took >= LONG;
                if is_old && age == TotalsAge::Shown && may_be_shown {
                    let _ = reply.try_send(shown);
                }
                if is_old {
                    self.sample();
                }
                if !self.is_saved {
                    self.save();
                }
                // For those who wait still.
                let _ = reply.try_send(self.persisted.saved_totals());
                if self.took >= LONG {
                    self.queries.note_query(asked, self.fresh);
                }
            }
        }
    }

    /// Waits until there is something to do. Returns whether the daemon ends.
    fn wait(&self, woken: &mut UnixStream) -> bool {
        let due = self.queries.ahead().map_or(self.due, |ahead| ahead.min(self.due));
        let until_due = due.saturating_duration_since(Instant::now());
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

    fn sample(&mut self) {
        let begun = cpu_time();
        self.know_services();
        self.learn();
        self.persisted.ledger_mut().forget_former();
        if let Err(error) = self.read() {
            self.tell("failed to read the kernel's counters for totals", &error.to_string());
        }
        self.sampled = Some(Instant::now());
        self.hour.take(Instant::now(), self.persisted.ledger().samples());
        self.is_saved = false;
        let took = cpu_time().saturating_sub(begun);
        self.took = took;
        self.due = Instant::now() + took.saturating_mul(TIMES).clamp(PAUSE, MOST_PAUSE);
    }

    /// Asks the main loop for the mark of flows, and at the beginning for the services. At the daemon's end those of the last sample stay.
    fn know_services(&mut self) {
        self.known = Some(Instant::now());
        if self.persisted.ledger().knows_nobody()
            && let Some(parts) = self.ask(DaemonRequest::Snapshot)
        {
            // From then on the changes of the kernel are told.
            self.persisted.ledger_mut().know(&parts.assemble().services.summary);
        }
        if let Some(mark) = self.ask(DaemonRequest::FlowMark)
            && self.mark != mark
        {
            self.mark = mark;
            self.monitor = None;
        }
    }

    /// Asks the main loop; `None`: the daemon ends.
    fn ask<T>(&self, request: impl FnOnce(ReplySender<T>) -> DaemonRequest) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.services.blocking_send(request(reply)).ok()?;
        answer.blocking_recv().ok()
    }

    fn read(&mut self) -> Result<(), KernelError> {
        let mut kernel = Linux::open()?;
        self.persisted.ledger_mut().sample_begins();
        let counters = read_counters(&mut kernel)?;
        // What was counted before a change that was made meanwhile belongs to the services before it.
        self.learn();
        self.take_counters(counters);
        let wants_reports = self.settings.counts_traffic || self.log.is_some();
        self.monitor = self.monitor.take().filter(|_| wants_reports);
        if wants_reports && self.monitor.is_none() {
            self.monitor = Some(EndMonitor::open(self.mark)?);
        }
        if self.settings.counts_traffic {
            return self.list(&mut kernel);
        }
        self.persisted.ledger_mut().stop_flows();
        Ok(())
    }

    fn take_counters(&mut self, counters: Option<TableCounters>) {
        if let Some((table, sets)) = counters {
            self.persisted.ledger_mut().counters(table, sets);
        }
    }

    /// Lists the flows. The reports that come meanwhile may be of flows that are listed.
    fn list(&mut self, kernel: &mut Linux) -> Result<(), KernelError> {
        let (log, ledger) = (self.log.as_ref(), self.persisted.ledger());
        let Some(monitor) = &mut self.monitor else {
            return Ok(());
        };
        let (mut live, mut reports, mut listed) = (LiveFlows::default(), Vec::new(), 0_usize);
        // Reports for which there is no room are in the flow log all the same.
        let (mut overruns, mut over) = (0, 0);
        let mut receive = |most| {
            let drained = monitor.drain(most, |flow, stopped| {
                if reports.len() < MOST_REPORTS {
                    reports.push((flow.clone(), stopped));
                } else {
                    note(log, ledger, flow, stopped);
                    over += 1;
                }
            })?;
            overruns += drained.overruns;
            Ok::<_, KernelError>(drained.messages)
        };
        let mut failed = Ok(0);
        let selected = kernel.select(self.mark, &Selection::default(), &mut |flow| {
            live.add(flow, ledger.carried(flow));
            listed += 1;
            if listed.is_multiple_of(LISTED) {
                failed = receive(AT_ONCE);
            }
            match failed {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        let mut listed = selected.and(failed.map(drop));
        // A report is sent before its flow leaves the table: all reports of flows that are not listed are here now.
        while listed.is_ok() {
            match receive(AT_ONCE) {
                Ok(AT_ONCE) => {}
                Ok(_) => break,
                Err(error) => listed = Err(error),
            }
        }
        overrun(self.log.as_ref(), self.persisted.ledger_mut(), overruns);
        self.persisted.ledger_mut().lost(over);
        // A service may have come meanwhile.
        self.learn();
        if let Err(error) = listed {
            self.count_ended(reports);
            return Err(error);
        }
        for (flow, stopped) in &reports {
            note(self.log.as_ref(), self.persisted.ledger(), flow, *stopped);
        }
        let reports = reports.iter().map(|(flow, _)| EndedFlow::from(flow)).collect();
        self.persisted.ledger_mut().flows(live, reports);
        Ok(())
    }

    /// Writes the totals of the last sample, and shows them from then on.
    fn save(&mut self) {
        let begun = cpu_time();
        if let Err(error) = self.persisted.save(self.sampled) {
            let what = format!("failed to write {}", escape::path(self.persisted.file().path()));
            self.tell(&what, &format!("{error}; the totals that were written last are shown"));
        }
        *locked(&self.shown) = Some(self.persisted.saved_totals());
        let took = cpu_time().saturating_sub(begun);
        let asked = self.took.saturating_add(took);
        self.fresh = asked.saturating_mul(FRESH_TIMES).clamp(FRESH, MOST_FRESH);
        self.save_at = Instant::now() + took.saturating_mul(TIMES).max(SAVE_PAUSE);
        self.is_saved = true;
    }

    /// Logs each failure once.
    fn tell(&mut self, what: &str, error: &str) {
        const MOST: usize = 32;
        let line = format!("{what}: {error}");
        if self.logged.len() < MOST && !self.logged.contains(&line) {
            tracing::warn!("{line}");
            self.logged.push(line);
        }
    }
}

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
