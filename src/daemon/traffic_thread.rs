//! The thread that keeps the totals of services: it reads the kernel's counters, lists the flows, and receives the
//! reports of ended ones, with sockets of its own.

use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc as requests};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

use crate::control::request::DaemonRequest;
use crate::record::boot_id;
use crate::traffic::file::TotalsFile;
use crate::traffic::totals::TotalsSource;
use crate::traffic::{EndedFlow, Ledger, LiveFlows, Totals};
use crate::view::drops;
use crate::view::totals::ConnectionCounts;
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
/// Shortest pause between two writings of the file.
const SAVE_PAUSE: Duration = Duration::from_secs(2);
/// Age up to which a sample answers a question.
const FRESH: Duration = Duration::from_secs(1);
/// Time that a question waits for a sample. Then it has no answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two receptions of reports while there are any, so that many are received at once.
const RECEIVE: Duration = Duration::from_millis(50);
/// Number of listed flows after which reports are received, and most reports that are received at once.
const LISTED: usize = 2_000;
const AT_ONCE: usize = 20_000;
/// Largest number of reports that wait for the end of a list of flows. More are lost.
const MOST_REPORTS: usize = 1 << 18;
/// Number of questions that may wait.
const QUESTIONS: usize = 64;

enum Request {
    /// Totals at most [`FRESH`] old.
    Totals(requests::SyncSender<Arc<Totals>>),
    /// Whether packets, bytes and handshakes are counted.
    CountTraffic(bool),
}

/// Handle of the thread.
#[derive(Debug)]
pub(super) struct TrafficThread {
    requests: requests::SyncSender<Request>,
    wake: Arc<UnixStream>,
    thread: thread::JoinHandle<()>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Totals(_) => "Totals",
            Self::CountTraffic(_) => "CountTraffic",
        })
    }
}

impl TrafficThread {
    /// Starts the thread in the network namespace of this one. It asks the main loop for the services.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start(
        run_dir: &Path,
        namespace: u64,
        counts_traffic: bool,
        services: mpsc::Sender<DaemonRequest>,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, receiver) = requests::sync_channel(QUESTIONS);
        let file = TotalsFile::new(run_dir, namespace);
        let thread = thread::Builder::new().name("traffic".into()).spawn(move || {
            let mut sampler = Sampler::new(file, services, counts_traffic);
            sampler.serve(&receiver, woken);
        })?;
        Ok(Self {
            requests: sender,
            wake: Arc::new(wake),
            thread,
        })
    }

    /// Returns what answers with totals. It blocks, up to 2 s.
    pub(super) fn source(&self) -> TotalsSource {
        let (requests, wake) = (self.requests.clone(), Arc::clone(&self.wake));
        Arc::new(move || {
            let (reply, answer) = requests::sync_channel(1);
            requests.try_send(Request::Totals(reply)).ok()?;
            ring(&wake);
            answer.recv_timeout(PATIENCE).ok()
        })
    }

    /// Begins or ends to count packets, bytes and handshakes.
    pub(super) fn count_traffic(&self, counts_traffic: bool) {
        // A full queue empties within a sample; the next reload says it again.
        let _ = self.requests.try_send(Request::CountTraffic(counts_traffic));
        ring(&self.wake);
    }

    /// Ends the thread, after a last sample. The main loop must not be asked any more.
    pub(super) fn end(self) {
        let _ = self.wake.shutdown(std::net::Shutdown::Both);
        if self.thread.join().is_err() {
            tracing::error!("the thread that counts traffic has died");
        }
    }
}

/// Wakes the thread. If its stream is full, it is awake.
fn ring(wake: &UnixStream) {
    let mut wake = wake;
    let _ = wake.write(&[0]);
}

struct Sampler {
    file: TotalsFile,
    boot: String,
    services: mpsc::Sender<DaemonRequest>,
    mark: FlowMark,
    ledger: Ledger,
    totals: Arc<Totals>,
    sampled: Option<Instant>,
    due: Instant,
    /// Time from which a sample is saved, and whether the last one was.
    save_at: Instant,
    is_saved: bool,
    counts_traffic: bool,
    monitor: Option<EndMonitor>,
    /// Whether the last reception had any reports.
    is_busy: bool,
    /// Failures that were logged.
    told: Vec<String>,
}

impl Sampler {
    fn new(file: TotalsFile, services: mpsc::Sender<DaemonRequest>, counts_traffic: bool) -> Self {
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
            due: Instant::now(),
            save_at: Instant::now(),
            is_saved: true,
            counts_traffic,
            monitor: None,
            is_busy: false,
            told: Vec::new(),
        }
    }

    fn serve(&mut self, requests: &requests::Receiver<Request>, mut woken: UnixStream) {
        let mut is_over = false;
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
        }
    }

    fn attend(&mut self, request: Request) {
        match request {
            Request::CountTraffic(counts_traffic) => self.counts_traffic = counts_traffic,
            Request::Totals(reply) => {
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
        let ledger = &mut self.ledger;
        match monitor.drain(AT_ONCE, |flow, _| ledger.ended(&EndedFlow::from(flow))) {
            Ok(drained) => {
                self.is_busy = drained.messages > 0;
                ledger.lost(drained.overruns);
            }
            Err(error) => {
                self.monitor = None;
                self.is_busy = false;
                self.tell("failed to receive reports of ended flows", &error.to_string());
            }
        }
    }

    fn sample(&mut self) {
        let begun = cpu_time();
        self.know_services();
        if let Err(error) = self.read() {
            self.tell("failed to read the kernel's counters for totals", &error.to_string());
        }
        self.totals = Arc::new(self.ledger.totals());
        self.sampled = Some(Instant::now());
        self.is_saved = false;
        let took = cpu_time().saturating_sub(begun);
        self.due = Instant::now() + took.saturating_mul(TIMES).clamp(PAUSE, MOST_PAUSE);
    }

    /// Asks the main loop for the services. At the daemon's end those of the last sample stay.
    fn know_services(&mut self) {
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
            for set in drops::sets().into_iter().chain(ConnectionCounts::sets()) {
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
        if self.counts_traffic {
            self.list(&mut kernel)
        } else {
            self.monitor = None;
            self.ledger.stop_flows();
            Ok(())
        }
    }

    /// Lists the flows. The reports that come meanwhile may be of flows that are listed.
    fn list(&mut self, kernel: &mut Linux) -> Result<(), KernelError> {
        if self.monitor.is_none() {
            self.monitor = Some(EndMonitor::open(self.mark)?);
        }
        let Some(monitor) = &mut self.monitor else {
            return Ok(());
        };
        let (mut live, mut reports, mut lost, mut listed) = (LiveFlows::default(), Vec::new(), 0, 0_usize);
        let mut receive = |most| {
            let mut over = 0;
            let drained = monitor.drain(most, |flow, _| {
                if reports.len() < MOST_REPORTS {
                    reports.push(EndedFlow::from(flow));
                } else {
                    over += 1;
                }
            })?;
            lost += drained.overruns + over;
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
        self.ledger.lost(lost);
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

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
