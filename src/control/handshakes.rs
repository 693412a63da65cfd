//! Handshakes of clients that are not complete after [`PATIENCE`], by service.
//!
//! Pure: is told of flows, look by look. conntrack does not say how old a flow is (a SYN that is sent again begins its timeout
//! anew, and timestamps are off by default), so a handshake is overdue that was there at two looks, so far apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tcpgw_core::problem::{Kind, Problem, Severity};
use tcpgw_core::words::count;

/// A handshake that takes longer has failed, or is about to: a client sends its SYN again after 1 s and 3 s.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// One that takes longer may become overdue: the flows that are completed beside it are noted from then on, so that new ones can
/// be told later.
const SUSPICIOUS: Duration = Duration::from_millis(900);
/// A handshake that was completed longer ago does not count as completed meanwhile.
const STALLED: Duration = Duration::from_secs(10);
/// A service that had no overdue handshake for so long is begun with anew.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Handshakes that are followed.
const MOST_HANDSHAKES: usize = 100_000;
/// Completed flows of one service that are told apart; where there are more, some are taken to be new.
const MOST_COMPLETED: usize = 4096;
/// Services whose completed flows are followed.
const MOST_SERVICES: usize = 256;
/// Handshakes that are answered and not confirmed are taken for clients that are not served where so many of them fail, by address:
/// anybody can forge a SYN from an address that does not answer.
const ENOUGH_CLIENTS: usize = 3;
/// A client that failed longer ago is not counted.
const CLIENT_COUNTS: Duration = Duration::from_secs(60);

/// Overdue handshakes of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// That no backend answered.
    pub unanswered: u64,
    /// That a backend answered, and the client did not confirm.
    pub unconfirmed: u64,
    /// Addresses of clients that did not confirm one in the last minute; no more than [`ENOUGH_CLIENTS`] are counted.
    pub unconfirmed_clients: usize,
    /// Whether other handshakes of the service were completed since the first of these began.
    pub others_complete: bool,
}

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeReport {
    /// Services that have overdue handshakes, by name.
    pub services: BTreeMap<Box<str>, Overdue>,
    /// Whether handshakes of any service were completed since the first that is overdue began.
    pub any_completes: bool,
}

/// Remembers from look to look.
#[derive(Debug, Default)]
pub struct HandshakeTracker {
    first_seen: BTreeMap<u32, Instant>,
    still_there: BTreeMap<u32, Instant>,
    completed: BTreeMap<Box<str>, Completed>,
    /// Of all services together.
    all_completed: Completed,
    report: HandshakeReport,
    /// When the first overdue handshake of each service began.
    begins: BTreeMap<Box<str>, Instant>,
    /// Services with handshakes that are not overdue and take long.
    suspicious: BTreeSet<Box<str>>,
    /// Services with others that are not overdue.
    begun: BTreeSet<Box<str>>,
    /// Clients that did not confirm a handshake, by service.
    unconfirmed: BTreeMap<Box<str>, Clients>,
}

/// Addresses of clients that were seen last, no more than [`ENOUGH_CLIENTS`], with when each was.
#[derive(Debug, Default)]
struct Clients(BTreeMap<IpAddr, Instant>);

impl Clients {
    fn note(&mut self, client: IpAddr, now: Instant) {
        if self.0.len() >= ENOUGH_CLIENTS && !self.0.contains_key(&client) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(client, _)| *client);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(client, now);
    }

    fn forget_old(&mut self, now: Instant) {
        self.0
            .retain(|_, at| now.saturating_duration_since(*at) < CLIENT_COUNTS);
    }
}

/// Completed flows of one service.
#[derive(Debug, Default)]
struct Completed {
    known: BTreeSet<u32>,
    now: BTreeSet<u32>,
    /// When it was first looked.
    first_look: Option<Instant>,
    /// When one was seen that had not been there at the look before.
    last_new: Option<Instant>,
    last_wanted: Option<Instant>,
}

impl HandshakeTracker {
    /// Notes a handshake of a client that is not complete, by the id of its flow; `is_answered`: the backend's SYN-ACK was seen.
    pub fn handshake(&mut self, id: u32, service: &str, client: IpAddr, is_answered: bool, now: Instant) {
        if self.still_there.len() >= MOST_HANDSHAKES && !self.still_there.contains_key(&id) {
            return;
        }
        let since = *self.first_seen.get(&id).unwrap_or(&now);
        // A flow that changes its place may be shown twice.
        if self.still_there.insert(id, since).is_some() {
            return;
        }
        let age = now.saturating_duration_since(since);
        if age < PATIENCE {
            let services = if age < SUSPICIOUS {
                &mut self.begun
            } else {
                &mut self.suspicious
            };
            if !services.contains(service) && services.len() < MOST_SERVICES {
                services.insert(service.into());
            }
            return;
        }
        match self.begins.get_mut(service) {
            Some(begin) => *begin = since.min(*begin),
            None => drop(self.begins.insert(service.into(), since)),
        }
        let overdue = match self.report.services.get_mut(service) {
            Some(overdue) => overdue,
            None => self.report.services.entry(service.into()).or_default(),
        };
        if !is_answered {
            overdue.unanswered += 1;
            return;
        }
        overdue.unconfirmed += 1;
        if let Some(clients) = self.unconfirmed.get_mut(service) {
            clients.note(client, now);
        } else if self.unconfirmed.len() < MOST_SERVICES {
            self.unconfirmed.entry(service.into()).or_default().note(client, now);
        }
    }

    /// Returns whether [`Self::completed`] is to be told of completed flows now. `are_few`: telling of all of them costs little, so
    /// that it is done from the moment that a handshake begins.
    pub fn wants_completed(&mut self, are_few: bool, now: Instant) -> bool {
        let is_late = |of: &Completed| {
            let last = of.last_wanted;
            last.is_some_and(|last| now.saturating_duration_since(last) > FORGOTTEN)
        };
        self.completed.retain(|_, of| !is_late(of));
        if is_late(&self.all_completed) {
            self.all_completed = Completed::default();
        }
        let begun = self.begun.iter().filter(|_| are_few);
        let services = self.report.services.keys().chain(&self.suspicious).chain(begun);
        let mut services = services.peekable();
        if services.peek().is_none() {
            return false;
        }
        self.all_completed.last_wanted = Some(now);
        for name in services {
            if let Some(of) = self.completed.get_mut(name) {
                of.last_wanted = Some(now);
            } else if self.completed.len() < MOST_SERVICES {
                let of = Completed {
                    last_wanted: Some(now),
                    ..Completed::default()
                };
                self.completed.insert(name.clone(), of);
            }
        }
        true
    }

    /// Notes a completed flow. Returns whether more are wanted.
    pub fn completed(&mut self, id: u32, service: &str) -> bool {
        self.all_completed.note(id);
        if let Some(of) = self.completed.get_mut(service) {
            of.note(id);
        }
        !self.all_completed.is_full() || self.completed.values().any(|of| !of.is_full())
    }

    /// Ends a look.
    pub fn end(&mut self, now: Instant) -> HandshakeReport {
        self.first_seen = std::mem::take(&mut self.still_there);
        let mut report = std::mem::take(&mut self.report);
        let begins = std::mem::take(&mut self.begins);
        self.suspicious.clear();
        self.begun.clear();
        let first = begins.values().min().copied().unwrap_or(now);
        let wanted = |of: &Completed| of.last_wanted == Some(now);
        if wanted(&self.all_completed) {
            report.any_completes = self.all_completed.end(first, now);
        }
        self.unconfirmed.retain(|_, clients| {
            clients.forget_old(now);
            !clients.0.is_empty()
        });
        for (name, overdue) in &mut report.services {
            overdue.unconfirmed_clients = self.unconfirmed.get(name).map_or(0, |clients| clients.0.len());
            // Of one that is not followed nobody says that it is dead.
            overdue.others_complete = true;
        }
        for (name, of) in self.completed.iter_mut().filter(|(_, of)| wanted(of)) {
            let completes = of.end(begins.get(name).copied().unwrap_or(now), now);
            if let Some(overdue) = report.services.get_mut(name) {
                overdue.others_complete = completes;
            }
        }
        report
    }
}

impl Completed {
    fn is_full(&self) -> bool {
        self.now.len() >= MOST_COMPLETED
    }

    fn note(&mut self, id: u32) {
        if !self.is_full() {
            self.now.insert(id);
        }
    }

    /// Whether handshakes were completed since `begin`, as far as is known.
    fn end(&mut self, begin: Instant, now: Instant) -> bool {
        let is_full = self.is_full();
        let seen = std::mem::take(&mut self.now);
        let is_new = !seen.is_subset(&self.known);
        self.known = seen;
        let Some(first_look) = self.first_look else {
            self.first_look = Some(now);
            // Whether they are new cannot be told yet.
            return is_full;
        };
        if is_new {
            self.last_new = Some(now);
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) < STALLED;
        if is_full {
            // Those that were not told of may be new.
            return is_recent(self.last_new.unwrap_or(first_look));
        }
        self.last_new.is_some_and(|at| at >= begin && is_recent(at))
    }
}

impl HandshakeReport {
    /// The problems that follow. `port` tells a service's port; `has_cause`: another check has found what may keep answers from
    /// clients.
    pub fn problems(&self, port: impl Fn(&str) -> u16, has_cause: bool) -> Vec<Problem> {
        let services = self.services.iter();
        services
            .map(|(name, overdue)| self.problem(name, *overdue, port(name), has_cause))
            .collect()
    }

    fn problem(&self, name: &str, overdue: Overdue, port: u16, has_cause: bool) -> Problem {
        let mut parts = Vec::new();
        if overdue.unanswered > 0 {
            let told = count(overdue.unanswered, "handshake");
            parts.push(format!(
                "{told} of clients got no answer for more than {} s, from backends that answer probes: look for a firewall \
                 or a route that takes forwarded packets elsewhere (`tcpgw doctor`), and for full queues of the backend",
                PATIENCE.as_secs()
            ));
        }
        if overdue.unconfirmed > 0 {
            let told = count(overdue.unconfirmed, "handshake");
            parts.push(format!(
                "{told} answered by backends and not confirmed by the client for more than {} s: the answers do not reach \
                 the client (a route, a firewall), or the SYNs were forged",
                PATIENCE.as_secs()
            ));
        }
        // Anybody can forge SYNs, which backends answer: some of one client are no proof that clients are not served.
        let are_believed = has_cause || overdue.unconfirmed_clients >= ENOUGH_CLIENTS;
        let is_dead = if overdue.unanswered > 0 {
            !overdue.others_complete
        } else {
            !self.any_completes && are_believed
        };
        let others = if overdue.others_complete {
            "; others are completed meanwhile"
        } else {
            "; none is completed meanwhile"
        };
        let severity = if is_dead { Severity::Error } else { Severity::Warning };
        Problem::new(
            Kind::Unanswered,
            format!("{name} :{port}: {}{others}", parts.join("; ")),
        )
        .of_service(name, port)
        .with_severity(severity)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: &str = "a";
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn look(tracker: &mut HandshakeTracker, begun: &[(u32, bool)], completed: &[u32], now: Instant) -> HandshakeReport {
        for (id, is_answered) in begun {
            tracker.handshake(*id, A, CLIENT, *is_answered, now);
        }
        if tracker.wants_completed(true, now) {
            for id in completed {
                tracker.completed(*id, A);
            }
        }
        tracker.end(now)
    }

    fn severity(report: &HandshakeReport) -> Option<Severity> {
        report.problems(|_| 80, false).first().map(|problem| problem.severity)
    }

    #[test]
    fn a_handshake_is_overdue_that_was_there_at_two_looks() {
        let mut tracker = HandshakeTracker::default();
        let start = Instant::now();
        let first = look(&mut tracker, &[(1, false), (2, false)], &[], start);
        assert_eq!(first.services.len(), 0);
        let early = look(&mut tracker, &[(1, false)], &[], start + Duration::from_secs(2));
        assert_eq!(early.services.len(), 0);
        // Number 2 came back as another flow of that id: it was gone at the look before.
        let second = look(&mut tracker, &[(1, false), (2, false)], &[], start + PATIENCE);
        let expected = Overdue {
            unanswered: 1,
            ..Overdue::default()
        };
        assert_eq!(second.services[A], expected);
        assert_eq!(severity(&second), Some(Severity::Error));
        let over = look(&mut tracker, &[], &[], start + PATIENCE * 2);
        assert_eq!(over, HandshakeReport::default());
    }

    /// Flows that were there when the first of them began prove nothing.
    #[test]
    fn flows_from_before_do_not_hide_that_nobody_gets_in_any_more() {
        let mut tracker = HandshakeTracker::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        look(&mut tracker, &[(1, false)], &[7], start);
        look(&mut tracker, &[(1, false)], &[7], at(1));
        let all_fail = look(&mut tracker, &[(1, false)], &[7], at(3));
        assert_eq!(severity(&all_fail), Some(Severity::Error));
        assert!(
            all_fail.problems(|_| 80, false)[0]
                .message
                .contains("none is completed meanwhile")
        );
        let served = look(&mut tracker, &[(1, false)], &[7, 8], at(4));
        assert_eq!(severity(&served), Some(Severity::Warning), "somebody gets in");
        assert!(
            served.problems(|_| 80, false)[0]
                .message
                .contains("others are completed meanwhile")
        );
        assert_eq!(
            severity(&look(&mut tracker, &[(1, false)], &[7, 8], at(9))),
            Some(Severity::Warning)
        );
        let stalled = look(&mut tracker, &[(1, false)], &[7, 8], at(14));
        assert_eq!(severity(&stalled), Some(Severity::Error), "no new one in 10 s");
        assert_eq!(severity(&look(&mut tracker, &[], &[], at(18))), None);
    }

    /// One client behind a way that is cut: whoever is served while it waits shows that the service works.
    #[test]
    fn one_that_fails_while_others_are_completed_is_no_error() {
        for are_few in [true, false] {
            let mut tracker = HandshakeTracker::default();
            let start = Instant::now();
            let mut completed = vec![7];
            for second in 0..30 {
                let now = start + Duration::from_secs(second);
                tracker.handshake(1, A, CLIENT, false, now);
                if tracker.wants_completed(are_few, now) {
                    for id in &completed {
                        tracker.completed(*id, A);
                    }
                }
                let told = severity(&tracker.end(now));
                let expected = (second >= 3).then_some(Severity::Warning);
                assert_eq!(told, expected, "after {second} s, {are_few}");
                if second % 2 == 0 {
                    completed.push(100 + u32::try_from(second).unwrap());
                }
            }
        }
    }

    /// Where flows are many they are not noted for each handshake, but for those that take long.
    #[test]
    fn completed_flows_are_asked_for_once_a_handshake_takes_long() {
        let mut tracker = HandshakeTracker::default();
        let start = Instant::now();
        tracker.handshake(1, A, CLIENT, false, start);
        assert!(!tracker.wants_completed(false, start));
        tracker.end(start);
        let later = start + SUSPICIOUS;
        tracker.handshake(1, A, CLIENT, false, later);
        tracker.handshake(2, "b", CLIENT, false, later);
        assert!(tracker.wants_completed(false, later));
        tracker.completed(7, A);
        assert!(tracker.completed.contains_key(A) && !tracker.completed.contains_key("b"));
        assert!(tracker.end(later).services.is_empty());
        let overdue = start + PATIENCE;
        tracker.handshake(1, A, CLIENT, false, overdue);
        assert!(tracker.wants_completed(false, overdue));
        tracker.completed(7, A);
        assert_eq!(severity(&tracker.end(overdue)), Some(Severity::Error));
    }

    /// One look at handshakes that backends have answered, each of the client with that last byte, while flows of another service
    /// are completed.
    fn look_at_answered(
        tracker: &mut HandshakeTracker,
        clients: &[u8],
        completed: &[u32],
        now: Instant,
    ) -> HandshakeReport {
        for last in clients {
            tracker.handshake((*last).into(), A, client(*last), true, now);
        }
        tracker.wants_completed(true, now);
        for id in completed {
            tracker.completed(*id, "b");
        }
        tracker.end(now)
    }

    #[test]
    fn forged_syns_are_no_error_while_anybody_is_served() {
        let mut tracker = HandshakeTracker::default();
        let start = Instant::now();
        let mut after = |seconds, others: &[u32]| {
            let now = start + Duration::from_secs(seconds);
            severity(&look_at_answered(&mut tracker, &[1, 2, 3], others, now))
        };
        assert_eq!(after(0, &[5]), None);
        assert_eq!(
            after(3, &[5, 6]),
            Some(Severity::Warning),
            "somebody is served elsewhere"
        );
        assert_eq!(after(14, &[5, 6]), Some(Severity::Error), "nobody is served anywhere");
    }

    #[test]
    fn what_one_client_does_not_confirm_is_no_error() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tracker = HandshakeTracker::default();
        for seconds in 0..300 {
            let report = look_at_answered(&mut tracker, &[1, 2], &[], at(seconds));
            let expected = (seconds >= 3).then_some(Severity::Warning);
            assert_eq!(severity(&report), expected, "two clients after {seconds} s");
            let with_cause = report.problems(|_| 80, true).first().map(|problem| problem.severity);
            assert_eq!(with_cause, expected.map(|_| Severity::Error), "a cause is known");
        }
        // A backend does not answer: nobody can forge that.
        tracker.handshake(9, A, client(9), false, at(300));
        look_at_answered(&mut tracker, &[1], &[], at(300));
        tracker.handshake(9, A, client(9), false, at(303));
        let report = look_at_answered(&mut tracker, &[1], &[], at(303));
        assert_eq!(severity(&report), Some(Severity::Error));
    }

    #[test]
    fn clients_that_fail_within_a_minute_are_counted_together() {
        let start = Instant::now();
        let mut tracker = HandshakeTracker::default();
        let mut overdue = |last: u8, seconds: u64| {
            for wait in [0, 3] {
                let now = start + Duration::from_secs(seconds + wait);
                let report = look_at_answered(&mut tracker, &[last], &[], now);
                if wait > 0 {
                    return (severity(&report).unwrap(), report.services[A].unconfirmed_clients);
                }
            }
            unreachable!("there are two looks")
        };
        assert_eq!(overdue(1, 0), (Severity::Warning, 1));
        assert_eq!(overdue(2, 10), (Severity::Warning, 2));
        assert_eq!(overdue(1, 20), (Severity::Warning, 2), "the same one again");
        assert_eq!(overdue(3, 30), (Severity::Error, 3));
        assert_eq!(overdue(4, 40), (Severity::Error, 3));
        assert_eq!(overdue(5, 200), (Severity::Warning, 1), "the others are forgotten");
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracker = HandshakeTracker::default();
        let (start, most) = (Instant::now(), u32::try_from(MOST_HANDSHAKES).unwrap());
        for now in [start, start + PATIENCE] {
            for id in 0..most + 1000 {
                tracker.handshake(id, A, CLIENT, false, now);
            }
            assert!(tracker.wants_completed(false, now) == (now > start));
            for id in 0..10_000 {
                tracker.completed(id, A);
            }
            let report = tracker.end(now);
            assert!(tracker.first_seen.len() <= MOST_HANDSHAKES);
            if now > start {
                assert_eq!(report.services[A].unanswered, u64::from(most));
                assert!(
                    report.services[A].others_complete,
                    "there are too many to tell new ones apart"
                );
            }
        }
        assert!(tracker.completed[A].known.len() <= MOST_COMPLETED);
    }
}
