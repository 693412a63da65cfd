//! Handle of the thread that keeps the totals of services, which has sockets of its own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc as requests};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::names_teller::{NamesNews, NamesTeller, ring};
use super::traffic_request::{SharedTrouble, ShownTotals, TrafficRequest, TrafficSettings};
use super::traffic_sampler::TrafficSampler;
use crate::control::request::DaemonRequest;
use crate::locked::locked;
use crate::traffic::file::TotalsFile;
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::totals::TotalsSource;

/// Maximum time that a query waits for a sample. After that it is answered with the totals that were shown last.
const PATIENCE: Duration = Duration::from_secs(2);
/// Number of queries that may wait.
const QUESTIONS: usize = 64;

/// Handle of the thread.
#[derive(Debug)]
pub(super) struct TrafficThread {
    requests: requests::SyncSender<TrafficRequest>,
    wake: Arc<UnixStream>,
    names: requests::Sender<NamesNews>,
    trouble: SharedTrouble,
    totals: ShownTotals,
    thread: thread::JoinHandle<()>,
}

impl TrafficThread {
    /// Starts the thread in the network namespace of this one. It asks the main loop for the services, and adds its samples to `hour`.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start(
        run_dir: &Path,
        namespace: u64,
        settings: TrafficSettings,
        services: mpsc::Sender<DaemonRequest>,
        hour: SharedHour,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, receiver) = requests::sync_channel(QUESTIONS);
        let file = TotalsFile::new(run_dir, namespace);
        let trouble = SharedTrouble::default();
        let totals = ShownTotals::default();
        let shared = (Arc::clone(&trouble), Arc::clone(&totals));
        let (names_sender, names_news) = requests::channel();
        let wake = Arc::new(wake);
        let thread = thread::Builder::new().name("traffic".into()).spawn(move || {
            let mut sampler = TrafficSampler::new(file, (services, names_news), settings, shared, hour);
            sampler.serve(&receiver, woken);
        })?;
        Ok(Self {
            requests: sender,
            wake,
            names: names_sender,
            trouble,
            totals,
            thread,
        })
    }

    /// Returns the source of totals, which blocks for up to 2 s.
    pub(super) fn source(&self) -> TotalsSource {
        let (requests, wake, totals) = (self.requests.clone(), Arc::clone(&self.wake), Arc::clone(&self.totals));
        Arc::new(move |age| {
            let (reply, answer) = requests::sync_channel(1);
            let fresh = requests
                .try_send(TrafficRequest::Totals(age, reply))
                .ok()
                .and_then(|()| {
                    ring(&wake);
                    answer.recv_timeout(PATIENCE).ok()
                });
            // Without them the kernel's own counters would be shown, which may be less.
            fresh.or_else(|| locked(&totals).clone())
        })
    }

    /// Returns the announcer of the kernel's services.
    pub(super) fn names(&self) -> NamesTeller {
        NamesTeller::new(self.names.clone(), Arc::clone(&self.wake))
    }

    /// Puts other settings into effect.
    pub(super) fn configure(&self, settings: TrafficSettings) {
        // A full queue empties within a sample; the next reload sends them again.
        let _ = self.requests.try_send(TrafficRequest::Configure(settings));
        ring(&self.wake);
    }

    /// Has the file of the flow log opened anew.
    pub(super) fn reopen(&self) {
        let _ = self.requests.try_send(TrafficRequest::Reopen);
        ring(&self.wake);
    }

    /// Returns the reason why connections are missing in the flow log, if they are.
    pub(super) fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// Ends the thread, after a last sample. The main loop must not be asked any more.
    pub(super) fn end(self) {
        let _ = self.wake.shutdown(std::net::Shutdown::Both);
        if self.thread.join().is_err() {
            tracing::error!("the thread that counts traffic has died");
        }
    }
}
