//! What is remembered of handshakes from look to look.
//!
//! conntrack does not say how old a flow is (a SYN that is sent again begins its timeout anew, and timestamps are off by
//! default), so a handshake is overdue that was there at two looks, so far apart. It forgets one some seconds after the client
//! has given up, so a service whose clients are not served is remembered until one of them is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::completed::Completed;
use super::{ENOUGH_CLIENTS, HandshakeReport, Overdue, PATIENCE};
use tcpgw_core::ruleset::name::Family;

/// One that takes longer may become overdue: the flows that are completed beside it are noted from then on, so that new ones can
/// be told later.
pub(super) const SUSPICIOUS: Duration = Duration::from_millis(900);
/// A service that had no overdue handshake for so long is begun with anew.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Of overdue handshakes it is told so long after the last of them was there.
pub(super) const RECENT: Duration = Duration::from_secs(10);
/// That nobody is served is remembered so long after the last client tried, unless one is served.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);
/// A client that failed longer ago is not counted.
const CLIENT_COUNTS: Duration = Duration::from_secs(60);
/// Handshakes that are followed.
pub(super) const MOST_HANDSHAKES: usize = 100_000;
/// Services whose completed flows are followed, for each family.
const MOST_SERVICES: usize = 256;
/// Services whose overdue handshakes are remembered, for each family.
const MOST_REMEMBERED: usize = 4096;

/// Remembers from look to look.
#[derive(Debug, Default)]
pub struct HandshakeTracker {
    pub(super) first_seen: BTreeMap<u32, Instant>,
    still_there: BTreeMap<u32, Instant>,
    /// Of all services together.
    all_completed: Completed,
    pub(super) families: [OfFamily; 2],
}

/// What is known of clients of one address family, by service.
#[derive(Debug, Default)]
pub(super) struct OfFamily {
    pub(super) completed: BTreeMap<Box<str>, Completed>,
    /// Overdue handshakes of the look that is going on.
    overdue: BTreeMap<Box<str>, NowOverdue>,
    /// Services with handshakes that are not overdue and take long.
    suspicious: BTreeSet<Box<str>>,
    /// Services with others that are not overdue.
    begun: BTreeSet<Box<str>>,
    /// Clients that did not confirm a handshake.
    unconfirmed: BTreeMap<Box<str>, Clients>,
    pub(super) remembered: BTreeMap<Box<str>, Remembered>,
}

/// Overdue handshakes of one service at one look.
#[derive(Debug)]
struct NowOverdue {
    unanswered: u64,
    unconfirmed: u64,
    /// When the first of them began.
    begin: Instant,
    /// When the last one began that a backend answered.
    last_answered: Option<Instant>,
}

/// Overdue handshakes of one service, at this look or one before.
#[derive(Debug)]
pub(super) struct Remembered {
    last: NowOverdue,
    /// The last look at which there were any.
    last_there: Instant,
    /// The last look at which any handshake of the service was not complete.
    last_begun: Instant,
    /// Whether others of the service were completed since the first of them began.
    others_complete: bool,
    /// The same of any service.
    any_complete: bool,
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
        let family = &mut self.families[index(client)];
        family.handshake(service, client, is_answered, since, now);
    }

    /// Returns whether [`Self::completed`] is to be told of completed flows now. `are_few`: telling of all of them costs little, so
    /// that it is done from the moment that a handshake begins.
    pub fn wants_completed(&mut self, are_few: bool, now: Instant) -> bool {
        let wants = self
            .families
            .each_mut()
            .map(|family| family.wants_completed(are_few, now));
        if is_late(&self.all_completed, now) {
            self.all_completed = Completed::default();
        }
        let wants = wants.contains(&true);
        if wants {
            self.all_completed.last_wanted = Some(now);
        }
        wants
    }

    /// Notes a completed flow. Returns whether more are wanted.
    pub fn completed(&mut self, id: u32, service: &str, client: IpAddr) -> bool {
        self.all_completed.note(id);
        if let Some(of) = self.families[index(client)].completed.get_mut(service) {
            of.note(id);
        }
        let mut followed = self.families.iter().flat_map(|family| family.completed.values());
        !self.all_completed.is_full() || followed.any(|of| !of.is_full())
    }

    /// Ends a look.
    pub fn end(&mut self, now: Instant) -> HandshakeReport {
        self.first_seen = std::mem::take(&mut self.still_there);
        if self.all_completed.last_wanted == Some(now) {
            self.all_completed.end(now);
        }
        let mut report = HandshakeReport::default();
        for (family, of) in Family::BOTH.into_iter().zip(&mut self.families) {
            let overdue = of.end(&self.all_completed, now).into_iter();
            let overdue = overdue.map(|(name, overdue)| ((name, family), overdue));
            report.services.extend(overdue);
        }
        report
    }

    /// Ends a look that failed: what was seen before it stays.
    pub fn abandon(&mut self) {
        self.still_there.clear();
        for family in &mut self.families {
            family.overdue.clear();
            family.suspicious.clear();
            family.begun.clear();
        }
    }

    /// Forgets what is remembered of all services but those that are there.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        for family in &mut self.families {
            family.remembered.retain(|name, _| is_there(name));
        }
    }

    /// Whether anything is remembered of a service.
    pub fn remembers(&self) -> bool {
        self.families.iter().any(|family| !family.remembered.is_empty())
    }
}

fn index(client: IpAddr) -> usize {
    usize::from(client.is_ipv6())
}

fn is_late(of: &Completed, now: Instant) -> bool {
    let last = of.last_wanted;
    last.is_some_and(|last| now.saturating_duration_since(last) > FORGOTTEN)
}

impl OfFamily {
    fn handshake(&mut self, service: &str, client: IpAddr, is_answered: bool, since: Instant, now: Instant) {
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
        if !self.overdue.contains_key(service) {
            let none = NowOverdue {
                unanswered: 0,
                unconfirmed: 0,
                begin: since,
                last_answered: None,
            };
            self.overdue.insert(service.into(), none);
        }
        if let Some(overdue) = self.overdue.get_mut(service) {
            overdue.begin = since.min(overdue.begin);
            if is_answered {
                overdue.unconfirmed += 1;
                overdue.last_answered = overdue.last_answered.max(Some(since));
            } else {
                overdue.unanswered += 1;
            }
        }
        if !is_answered {
            return;
        }
        if let Some(clients) = self.unconfirmed.get_mut(service) {
            clients.note(client, now);
        } else if self.unconfirmed.len() < MOST_SERVICES {
            self.unconfirmed.entry(service.into()).or_default().note(client, now);
        }
    }

    fn wants_completed(&mut self, are_few: bool, now: Instant) -> bool {
        self.completed.retain(|_, of| !is_late(of, now));
        let begun = self.begun.iter().filter(|_| are_few);
        let services = self.overdue.keys().chain(self.remembered.keys());
        let mut services = services.chain(&self.suspicious).chain(begun).peekable();
        let wants = services.peek().is_some();
        for name in services {
            if !self.completed.contains_key(name) && self.completed.len() < MOST_SERVICES {
                self.completed.insert(name.clone(), Completed::default());
            }
            if let Some(of) = self.completed.get_mut(name) {
                of.last_wanted = Some(now);
            }
        }
        wants
    }

    fn end(&mut self, all_completed: &Completed, now: Instant) -> Vec<(Box<str>, Overdue)> {
        let suspicious = std::mem::take(&mut self.suspicious);
        let begun = std::mem::take(&mut self.begun);
        self.unconfirmed.retain(|_, clients| {
            clients.forget_old(now);
            !clients.0.is_empty()
        });
        for of in self.completed.values_mut().filter(|of| of.last_wanted == Some(now)) {
            of.end(now);
        }
        for (name, overdue) in std::mem::take(&mut self.overdue) {
            self.remembered.insert(name, Remembered::new(overdue, now));
        }
        for (name, of) in &mut self.remembered {
            if suspicious.contains(name) || begun.contains(name) {
                of.last_begun = now;
            }
            of.judge(self.completed.get(name), all_completed, now);
        }
        self.remembered.retain(|_, of| of.is_told(now));
        let report = self.remembered.iter().map(|(name, of)| {
            let clients = self.unconfirmed.get(name).map_or(0, |clients| clients.0.len());
            (name.clone(), of.overdue(clients, now))
        });
        let report = report.collect();
        while self.remembered.len() > MOST_REMEMBERED {
            self.remembered.pop_last();
        }
        report
    }
}

impl Remembered {
    fn new(overdue: NowOverdue, now: Instant) -> Self {
        Self {
            last: overdue,
            last_there: now,
            last_begun: now,
            others_complete: false,
            any_complete: false,
        }
    }

    /// Whether others are completed is judged while there are overdue ones; later it is enough that one was.
    fn judge(&mut self, of_service: Option<&Completed>, of_all: &Completed, now: Instant) {
        let any = |of: &Completed| of.any_since(self.last.begin, now);
        // Of one that is not followed nobody says that it is dead.
        self.others_complete |= of_service.is_none_or(any);
        // conntrack knows one that was answered for a minute, though its client has given up long before.
        let is_after = |begin: Instant| of_all.last_new.is_some_and(|at| at >= begin);
        self.any_complete |= any(of_all) || self.last.last_answered.is_some_and(is_after);
    }

    /// Whether it is still told of.
    fn is_told(&self, now: Instant) -> bool {
        let is_dead = if self.last.unanswered > 0 {
            !self.others_complete
        } else {
            !self.any_complete
        };
        self.is_recent(now) || is_dead && now.saturating_duration_since(self.last_begun) < REMEMBERED
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_there) < RECENT
    }

    fn overdue(&self, unconfirmed_clients: usize, now: Instant) -> Overdue {
        let is_there = self.last_there == now;
        Overdue {
            unanswered: if is_there { self.last.unanswered } else { 0 },
            last_unanswered: self.last.unanswered,
            last_unconfirmed: self.last.unconfirmed,
            unconfirmed_clients,
            others_complete: self.others_complete,
            any_complete: self.any_complete,
            is_recent: self.is_recent(now),
        }
    }
}
