//! The thread that observes the gateway's surroundings: what would keep clients from being served, and unanswered
//! handshakes. It only reads, with sockets of its own, so that neither the main loop nor the kernel thread waits for
//! it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::mpsc as requests;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc as results;

use super::completions::CompletionListener;
use crate::control::handshakes::{HandshakeReport, HandshakeTracker};
use crate::control::observation::{Observation, ObservationRequest, StoreFile};
use crate::control::turned_away::TurnedAwayCounts;
use crate::doctor::{self, CheapReader, CheckSubject, Effort, MemoryFile};
use crate::view::drops::over_flows;
use tcpgw_core::problem::Problem;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::{Conntrack, TcpState};
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::nftables::elements::counted;
use tcpgw_kernel::route::Routes;

/// Number of flows that are decoded in some milliseconds.
const FEW_FLOWS: u32 = 4096;
/// Pause between observations of handshakes, as a multiple of the processor time of the last one: they take 2 % of the
/// time.
const PAUSE: u32 = 50;
/// Maximum of that pause, so that an outage is reported in time.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Handle of the thread.
#[derive(Debug)]
pub struct Observer {
    requests: requests::SyncSender<ObservationRequest>,
}

impl Observer {
    /// Starts the thread in the network namespace of this one, with what the daemon before has remembered. It ends when the handle
    /// is dropped and its last observation has ended. `is_due` tells whether a daemon has run before in this boot.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub fn start(
        memory: MemoryFile,
        is_due: impl FnOnce() -> bool,
        results: results::Sender<Observation>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = requests::sync_channel(1);
        let reader = CheapReader::new(Effort::Quick).kept_in(memory, is_due, Instant::now());
        thread::Builder::new()
            .name("observer".into())
            .spawn(move || observe_all(reader, &receiver, &results))?;
        Ok(Self { requests: sender })
    }

    /// Requests an observation; the one before must have ended. Returns whether the thread accepted it.
    pub fn ask(&self, request: ObservationRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }
}

fn observe_all(
    mut reader: CheapReader,
    requests: &requests::Receiver<ObservationRequest>,
    results: &results::Sender<Observation>,
) {
    let mut tracker = HandshakeTracker::default();
    let mut listener = CompletionListener::default();
    while let Ok(request) = requests.recv() {
        let surroundings = request
            .surroundings
            .then(|| surroundings(&mut reader, &request.subject));
        let store = request.store.as_ref().filter(|_| request.surroundings);
        let store = store.and_then(|(path, opened)| StoreFile::compare(path, *opened));
        let begun = cpu_time();
        let handshakes = request
            .handshakes
            .then(|| handshakes(&mut tracker, &mut listener, &request));
        let handshakes = handshakes.and_then(|seen| match seen {
            Ok(seen) => Some(seen),
            Err(error) => {
                tracing::warn!(%error, "failed to look for handshakes that are not answered");
                tracker.abandon();
                None
            }
        });
        let turned_away = request.handshakes.then(|| turned_away(&request.subject.services));
        let turned_away = turned_away.and_then(|counts| {
            counts
                .inspect_err(|error| tracing::warn!(%error, "failed to look for clients that are turned away"))
                .ok()
        });
        let lost_memory = reader.lost_file(Instant::now());
        let observation = Observation {
            lost_memory: lost_memory.filter(|_| surroundings.is_some()),
            surroundings,
            store,
            handshakes,
            turned_away,
            pause: cpu_time().saturating_sub(begun).saturating_mul(PAUSE).min(MOST_PAUSE),
        };
        if results.blocking_send(observation).is_err() {
            return;
        }
    }
}

/// Returns the processor time of this thread, which does not grow while a busy machine delays an observation.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Returns the problems that would keep clients from being served, in the network namespace of this thread.
pub fn surroundings(reader: &mut CheapReader, subject: &CheckSubject) -> Vec<Problem> {
    let facts = reader.read(subject, Instant::now());
    let mut problems = doctor::problems(&doctor::examine_cheap(&facts));
    let addresses = Routes::open().and_then(|mut routes| {
        let mut is_local = |address| Ok(routes.route_of(address, None, None)?.is_some_and(|way| way.local));
        doctor::absent_addresses(&subject.services, &mut is_local)
    });
    match addresses {
        Ok(found) => problems.extend(found),
        Err(error) => tracing::warn!(%error, "failed to look for the addresses of services"),
    }
    problems
}

/// Reads how many SYNs were dropped for `max_flows`; nothing is read where no service has it.
fn turned_away(services: &Summary) -> Result<TurnedAwayCounts, NetlinkError> {
    let mut socket = None;
    over_flows(services, |set| {
        let socket = match &mut socket {
            Some(socket) => socket,
            none => none.insert(Netlink::netfilter()?),
        };
        match counted(socket, set) {
            // The table is not there, or does not have the set yet.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
            counted => counted,
        }
    })
}

fn handshakes(
    tracker: &mut HandshakeTracker,
    listener: &mut CompletionListener,
    request: &ObservationRequest,
) -> Result<HandshakeReport, NetlinkError> {
    let mut conntrack = Conntrack::open()?;
    let now = Instant::now();
    let subject = &request.subject;
    if tracker.knows_any() {
        let services = subject.services.services.iter();
        let names: BTreeSet<&str> = services.filter_map(|service| service.name.as_deref()).collect();
        tracker.retain(|name| names.contains(name));
    }
    let service_of = |public: SocketAddr| {
        let service = subject.services.service_at(public)?;
        service.name.as_deref()
    };
    conntrack.handshakes(subject.mark, |flow| {
        if request.answering.contains(&flow.backend)
            && let Some(service) = service_of(flow.public)
        {
            let is_answered = flow.tcp_state == Some(TcpState::SynRecv);
            tracker.handshake(flow.id, service, flow.client.ip(), is_answered, now);
        }
        ControlFlow::Continue(())
    })?;
    let are_few = conntrack.entries()?.is_some_and(|entries| entries <= FEW_FLOWS);
    if tracker.wants_completed(are_few, now) {
        conntrack.completed(subject.mark, |flow| match service_of(flow.public) {
            Some(service) if !tracker.completed(flow.id, service, flow.client.ip()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })?;
    }
    let hearing = listener.drain(now, |completion, since| {
        if let Some(service) = service_of(completion.public) {
            tracker.heard(service, completion.client.ip(), since);
        }
    });
    let report = tracker.end(hearing, now);
    listener.listen(tracker.is_suspicious(), subject.mark, now);
    Ok(report)
}
