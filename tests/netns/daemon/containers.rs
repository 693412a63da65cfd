//! Containers that come and go under traffic: their endpoints, their deadlines, and the permitted ends of their sessions.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::traffic::{Amount, End, Ended, Traffic, lock};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{self, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::state::FLOW_MARK;
use crate::harness::{Net, wait_until};

/// A service that drops, over IPv4, and one that resets, over IPv6; by the family's index.
pub(super) const SERVICES: [(&str, u16, &str); 2] = [("drops", 2001, "drop"), ("resets", 2002, "reset")];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Load during the tests.
pub(super) const AMOUNT: Amount = Amount {
    rate: 500,
    clients: 16,
    sessions: 200,
};

/// A container: a port of a host, in both families.
pub(super) struct Container {
    server: Option<Server>,
    pub(super) host: &'static str,
    pub(super) port: u16,
    /// Time before which its flows must not be flushed.
    deadline: Option<Instant>,
    /// Time just before its server was closed.
    closed: Option<Instant>,
}

impl Container {
    pub(super) fn start(net: &Net, host: &'static str, port: u16) -> Self {
        let mut container = Self::new(host, port);
        container.listen(net);
        container
    }

    /// Makes a container that does not listen yet.
    pub(super) fn new(host: &'static str, port: u16) -> Self {
        Self {
            server: None,
            host,
            port,
            deadline: None,
            closed: None,
        }
    }

    /// Starts to listen, unless the container already does.
    pub(super) fn listen(&mut self, net: &Net) {
        let name = format!("{}:{}", self.host, self.port);
        let serve = || net.serve_as(&name, self.host, at("::", self.port), Behaviour::Greet);
        self.server.get_or_insert_with(serve);
    }

    pub(super) fn endpoint(&self, family: usize) -> String {
        std::net::SocketAddr::new(plan::addresses(self.host)[family], self.port).to_string()
    }

    /// Notes that the container has to leave from now on, and may keep its flows for the time `drain`.
    pub(super) fn leave(&mut self, drain: Duration) {
        self.deadline = Some(Instant::now() + drain);
    }

    /// Notes that the container stays after all.
    pub(super) fn stay(&mut self) {
        self.deadline = None;
    }

    /// Ends in good order.
    pub(super) fn close(&mut self) {
        self.closed = Some(Instant::now());
        drop(self.server.take());
    }

    /// Returns true when one of this container's sessions may have ended that way. `slow` is the longest time for which an answer
    /// may have been on its way.
    fn explains(&self, ended: &Ended, slow: Duration) -> bool {
        let by_its_server = self.closed.is_some_and(|closed| ended.at >= closed);
        let at_the_deadline = |moment| self.deadline.is_some_and(|deadline| moment >= deadline);
        match (ended.end, ended.service) {
            (End::Reset, 2002) => by_its_server || at_the_deadline(ended.at),
            (End::Closed | End::Reset, _) => by_its_server,
            // A message without an answer was sent after the flush, or its answer was on its way during the flush.
            (End::Silent, service) => service == 2001 && at_the_deadline(ended.said + slow),
        }
    }
}

/// Returns true when the container of that session explains its end.
fn explains(containers: &[Container], ended: &Ended, slow: Duration) -> bool {
    let (host, port) = ended.backend.split_once(':').expect("a name of ours");
    let is_its = |container: &&Container| container.host == host && container.port.to_string() == port;
    containers
        .iter()
        .find(is_its)
        .is_some_and(|one| one.explains(ended, slow))
}

/// Waits until only these have flows of ours.
#[track_caller]
pub(super) fn others_have_no_flows(net: &Net, serving: &[String]) {
    let stale = || {
        let mut flows = net.conntrack();
        flows.retain(|flow| flow.mark & FLOW_MARK != 0 && !serving.contains(&flow.backend.to_string()));
        flows
    };
    assert!(wait_until(PATIENCE, || stale().is_empty()), "{:#?}", stale());
}

/// Largest delay of a drain's line in the log: the drain's time begins when it is decided, and the line is written after the
/// kernel has been told.
const LOGGED_LATER: Duration = Duration::from_millis(50);

/// Asserts from the daemon's log that it flushed no backend before its deadline. Returns the number of flushed backends, and the
/// least time by which a flush came after the deadline (with `LOGGED_LATER`). Clients cannot measure this exactly: an answer may
/// be on its way when its flow is removed.
#[track_caller]
pub(super) fn deadlines_were_kept(log: &str) -> (usize, Duration) {
    let mut given: BTreeMap<&str, (Duration, Duration)> = BTreeMap::new();
    let (mut flushed, mut least) = (0, Duration::MAX);
    for line in log.lines() {
        let field = |name| line.split(' ').find_map(|word| word.strip_prefix(name));
        let (Some(backend), Some(at)) = (field("backend="), time_of(line)) else {
            continue;
        };
        if let Some(seconds) = field("seconds=").filter(|_| line.contains(" a backend drains: ")) {
            let seconds = Duration::from_secs(seconds.parse().expect("a number"));
            given.insert(backend, (at, seconds));
        } else if line.contains("reason=\"deadline\"") {
            let (since, time) = given.get(backend).copied().unwrap_or_else(|| panic!("{line}"));
            let took = at
                .checked_sub(since)
                .unwrap_or_else(|| (at + DAY).saturating_sub(since));
            let over = (took + LOGGED_LATER).checked_sub(time);
            let over = over.unwrap_or_else(|| panic!("{backend} had {time:?}, and was flushed after {took:?}: {line}"));
            (flushed, least) = (flushed + 1, least.min(over));
        }
    }
    (flushed, least)
}

/// Returns the time of day that a line of a log begins with.
fn time_of(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once('T')?;
    let mut parts = time.split_once('Z')?.0.split(':');
    let [hours, minutes]: [u64; 2] = [parts.next()?.parse().ok()?, parts.next()?.parse().ok()?];
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds))
}

/// Asserts that no request failed, that none waited for a second SYN, and that sessions ended as the contract allows.
#[track_caller]
pub(super) fn nobody_noticed(net: &Net, gone: &[Container], traffic: &Traffic) {
    let (failures, refused) = (lock(&traffic.failures), lock(&traffic.refused));
    let ended = lock(&traffic.ended);
    let count = |end| ended.iter().filter(|ended| ended.end == end).count();
    eprintln!(
        "{} replaced, {} requests, the longest {:?}, {} failed, {} SYNs again; sessions: {} closed, {} reset, {} silent, \
         {} refused",
        gone.len(),
        traffic.served.load(Relaxed),
        *lock(&traffic.longest),
        failures.len(),
        net.syns_again("client"),
        count(End::Closed),
        count(End::Reset),
        count(End::Silent),
        refused.len()
    );
    if !failures.is_empty() || !refused.is_empty() {
        // Whether the gateway has refused them, or a container.
        let counted = net.sh(
            "gateway",
            "nft list table inet tcpgw | grep -E 'counter packets [1-9]|set .* \\{'",
        );
        eprintln!("{}", counted.ok());
        let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(traffic.begin));
        for one in gone {
            let (deadline, closed) = (since(one.deadline), since(one.closed));
            eprintln!(
                "{}:{} was to be gone at {deadline:.4?}, closed at {closed:.4?}",
                one.host, one.port
            );
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(refused.is_empty(), "{refused:#?}");
    let slow = *lock(&traffic.longest);
    let unexplained: Vec<_> = ended.iter().filter(|ended| !explains(gone, ended, slow)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    // A SYN that is sent again costs its client a second.
    assert_eq!(net.syns_again("client"), 0);
}
