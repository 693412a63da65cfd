//! Memory of handshakes from observation to observation.
//!
//! conntrack does not tell the age of a flow (a repeated SYN restarts its timeout, and timestamps are off by default),
//! so a handshake is overdue if it was there at two observations that are far enough apart. conntrack removes it some
//! seconds after the client has given up, so a service whose clients are not served is remembered until one of them
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::completed::Completed;
use super::failing::Failing;
use super::remembered::{NowOverdue, Remembered};
use super::unconfirmed::Unconfirmed;
use super::{HandshakeReport, MOST_SERVICES, Overdue, PATIENCE, ReportedHandshakes};
use tcpgw_core::ruleset::name::Family;

/// Age from which a handshake may become overdue: completed flows are recorded from then on, so that new ones can be
/// recognised later.
pub(super) const SUSPICIOUS: Duration = Duration::from_millis(900);
/// Time without overdue handshakes after which the completed flows of a service are recorded from scratch.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Maximum number of handshakes that are followed.
pub(super) const MOST_HANDSHAKES: usize = 100_000;
/// Maximum number of completed flows that one observation processes, which takes some milliseconds.
pub(super) const MOST_SHOWN: u32 = 8192;
/// Maximum number of services whose completed flows are listed, for each family.
const MOST_LISTED: usize = 256;

/// Tracker of handshakes from observation to observation.
#[derive(Debug, Default)]
pub struct HandshakeTracker {
    pub(super) first_seen: BTreeMap<u32, Instant>,
    still_there: BTreeMap<u32, Instant>,
    /// End of the last observation, and the time since the one before.
    last_observation: Option<(Instant, Option<Duration>)>,
    /// Whether this observation has handshakes that may be overdue at the next one.
    may_be_overdue: bool,
    /// Whether the last observation had.
    is_suspicious: bool,
    /// Number of completed flows of this observation.
    listed: u32,
    /// Completed flows of all services together.
    all_completed: Completed,
    pub(super) families: [OfFamily; 2],
}

/// Handshakes of clients of one address family, by service.
#[derive(Debug, Default)]
pub(super) struct OfFamily {
    pub(super) completed: BTreeMap<Box<str>, Completed>,
    /// Overdue handshakes of the observation under way.
    overdue: BTreeMap<Box<str>, NowOverdue>,
    /// Services with handshakes that are not overdue and take long.
    suspicious: BTreeSet<Box<str>>,
    /// Services with other handshakes that are not overdue.
    begun: BTreeSet<Box<str>>,
    /// Clients that did not confirm a handshake.
    unconfirmed: Unconfirmed,
    /// Clients that no backend answered, of services that are remembered or will be.
    pub(super) failing: BTreeMap<Box<str>, Failing>,
    pub(super) remembered: BTreeMap<Box<str>, Remembered>,
}

impl HandshakeTracker {
    /// Adds an incomplete handshake of a client, by the id of its flow; `is_answered`: the backend's SYN-ACK was seen.
    pub fn handshake(&mut self, id: u32, service: &str, client: IpAddr, is_answered: bool, now: Instant) {
        if self.still_there.len() >= MOST_HANDSHAKES && !self.still_there.contains_key(&id) {
            return;
        }
        let since = *self.first_seen.get(&id).unwrap_or(&now);
        // A flow that changes its bucket may be listed twice.
        if self.still_there.insert(id, since).is_some() {
            return;
        }
        let age = now.saturating_duration_since(since);
        let pause = self.last_observation.and_then(|(_, pause)| pause);
        self.may_be_overdue |= age >= SUSPICIOUS || pause.is_none_or(|pause| age + pause >= PATIENCE);
        let family = &mut self.families[index(client)];
        family.handshake(service, client, is_answered, since, now);
    }

    /// Returns whether completed flows are to be passed to [`Self::completed`] now. `are_few`: listing all of them
    /// costs little, so that it is done as soon as a handshake begins.
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

    /// Adds a completed flow. Returns whether more are wanted.
    pub fn completed(&mut self, id: u32, service: &str, client: IpAddr) -> bool {
        if self.listed >= MOST_SHOWN {
            return false;
        }
        self.listed += 1;
        self.all_completed.note(id, client);
        let family = &mut self.families[index(client)];
        let last = self.last_observation.map(|(at, _)| at);
        if let Some(now) = self.all_completed.last_wanted.or(last) {
            family.unconfirmed.completed(service, client_of(client), now);
        }
        if let Some(of) = family.completed.get_mut(service) {
            of.note(id, client);
        }
        let mut followed = self.families.iter().flat_map(|family| family.completed.values());
        self.listed < MOST_SHOWN && (!self.all_completed.is_full() || followed.any(|of| !of.is_full()))
    }

    /// Adds a handshake that was completed at some time after `since`, as the kernel reported at once. Its connection
    /// may have ended, so that no list of flows has it.
    pub fn heard(&mut self, service: &str, client: IpAddr, since: Instant) {
        self.all_completed.heard(since);
        let family = &mut self.families[index(client)];
        if let Some(of) = family.completed.get_mut(service) {
            of.heard(since);
        }
        family.unconfirmed.completed(service, client_of(client), since);
        if let Some(failing) = family.failing.get_mut(service) {
            failing.served(client, since);
        }
    }

    /// Returns whether [`Self::heard`] needs reports of handshakes from now on: some client waits long, may at the
    /// next observation, or did.
    pub fn is_suspicious(&self) -> bool {
        self.is_suspicious || self.remembers()
    }

    /// Ends an observation. `hearing`: completeness of the reports to [`Self::heard`] since the last one.
    pub fn end(&mut self, hearing: ReportedHandshakes, now: Instant) -> HandshakeReport {
        self.first_seen = std::mem::take(&mut self.still_there);
        self.is_suspicious = std::mem::take(&mut self.may_be_overdue);
        let before = self.last_observation.map(|(at, _)| now.saturating_duration_since(at));
        self.last_observation = Some((now, before));
        let is_cut = std::mem::take(&mut self.listed) >= MOST_SHOWN;
        if self.all_completed.last_wanted == Some(now) {
            self.all_completed.end(is_cut, now);
        }
        let mut report = HandshakeReport::default();
        for (family, of) in Family::BOTH.into_iter().zip(&mut self.families) {
            let overdue = of.end(&self.all_completed, hearing, is_cut, now).into_iter();
            let overdue = overdue.map(|(name, overdue)| ((name, family), overdue));
            report.services.extend(overdue);
        }
        report
    }

    /// Ends an observation that failed; what was known before it stays.
    pub fn abandon(&mut self) {
        self.still_there.clear();
        self.listed = 0;
        self.may_be_overdue = false;
        self.all_completed.abandon();
        for family in &mut self.families {
            family.overdue.clear();
            family.suspicious.clear();
            family.begun.clear();
            family.completed.values_mut().for_each(Completed::abandon);
        }
    }

    /// Forgets all services except those for which `is_there` returns true.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        for family in &mut self.families {
            family.remembered.retain(|name, _| is_there(name));
            family.failing.retain(|name, _| is_there(name));
            family.completed.retain(|name, _| is_there(name));
            family.unconfirmed.retain(&is_there);
        }
    }

    /// Returns whether anything is known of a service.
    pub fn knows_any(&self) -> bool {
        let knows = |of: &OfFamily| !of.remembered.is_empty() || !of.completed.is_empty() || !of.unconfirmed.is_empty();
        self.families.iter().any(knows)
    }

    /// Returns whether overdue handshakes of a service are remembered.
    pub fn remembers(&self) -> bool {
        self.families.iter().any(|family| !family.remembered.is_empty())
    }
}

/// Returns the address that stands for a client: for IPv6 its network of 64 bits, since one host may have all
/// addresses of it.
fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
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
            self.overdue.insert(service.into(), NowOverdue::none(since));
        }
        if let Some(overdue) = self.overdue.get_mut(service) {
            overdue.add(since, is_answered);
        }
        if !is_answered {
            if let Some(failing) = self.failing.get_mut(service) {
                failing.note(client, since, now);
            } else if self.failing.len() < MOST_SERVICES {
                self.failing.entry(service.into()).or_default().note(client, since, now);
            }
            return;
        }
        self.unconfirmed.note(service, client_of(client), since, now);
    }

    fn wants_completed(&mut self, are_few: bool, now: Instant) -> bool {
        self.completed.retain(|_, of| !is_late(of, now));
        let begun = self.begun.iter().filter(|_| are_few);
        let services = self.overdue.keys().chain(self.remembered.keys());
        let mut services = services.chain(&self.suspicious).chain(begun).peekable();
        let wants = services.peek().is_some();
        for name in services {
            if !self.completed.contains_key(name) {
                match self.completed.len() {
                    0..MOST_LISTED => self.completed.insert(name.clone(), Completed::default()),
                    MOST_LISTED..MOST_SERVICES => self.completed.insert(name.clone(), Completed::unlisted()),
                    _ => continue,
                };
            }
            if let Some(of) = self.completed.get_mut(name) {
                of.last_wanted = Some(now);
            }
        }
        wants
    }

    fn end(
        &mut self,
        all_completed: &Completed,
        hearing: ReportedHandshakes,
        is_cut: bool,
        now: Instant,
    ) -> Vec<(Box<str>, Overdue)> {
        let suspicious = std::mem::take(&mut self.suspicious);
        let begun = std::mem::take(&mut self.begun);
        self.unconfirmed.forget_old(now);
        for (name, of) in self.completed.iter_mut().filter(|(_, of)| of.last_wanted == Some(now)) {
            let served = of.end(is_cut, now);
            if let Some((failing, at)) = self.failing.get_mut(name).zip(of.last_new) {
                for client in served {
                    failing.served(client, at);
                }
                failing.any_served(at);
            }
        }
        for (name, overdue) in std::mem::take(&mut self.overdue) {
            match self.remembered.get_mut(&name) {
                Some(of) => of.overdue_again(overdue, now),
                // Completed handshakes were not reported meanwhile: the next observation decides.
                None if hearing == ReportedHandshakes::Part => {}
                None => {
                    self.remembered.insert(name, Remembered::new(overdue, now));
                }
            }
        }
        for (name, of) in &mut self.remembered {
            if suspicious.contains(name) || begun.contains(name) {
                of.last_begun = now;
            }
            let completed = self.completed.get(name);
            let completed = completed.filter(|of| hearing == ReportedHandshakes::All || !of.is_unlisted());
            if let Some(failing) = self
                .failing
                .get_mut(name)
                .filter(|_| hearing != ReportedHandshakes::Part)
            {
                failing.forget_old(now);
                // A service that is not followed is never called dead.
                of.is_unserved = completed.is_some() && failing.is_outage(now);
                of.are_served = completed.is_none() || !failing.is_any_unserved();
            }
            // Whoever was served meanwhile and ended with a reset is known at the next observation.
            if hearing != ReportedHandshakes::Part {
                let watched = completed.filter(|of| of.is_watched(now));
                let are_lost = watched.is_some_and(|of| self.unconfirmed.are_known_lost(name, of.last_new));
                of.known_lost_at = are_lost.then_some(now);
            }
            let [clients, _] = self.unconfirmed.counts(name);
            of.judge(completed, all_completed, clients, now);
        }
        let report = self.remembered.iter().filter(|(_, of)| of.is_told(now));
        let report = report.map(|(name, of)| (name.clone(), of.overdue(self.unconfirmed.counts(name), now)));
        let report = report.collect();
        self.forget(now);
        report
    }

    /// Forgets services without anything to report, except those with clients that failed a short time ago, which are
    /// needed to judge their next attempts.
    fn forget(&mut self, now: Instant) {
        let failing = &self.failing;
        self.remembered.retain(|name, of| {
            let has_failing = failing.get(name).is_some_and(|failing| !failing.is_empty());
            of.is_told(now) || of.is_refuted(now) || has_failing && !of.is_unserved
        });
        while self.remembered.len() > MOST_SERVICES {
            self.remembered.pop_last();
        }
        let remembered = &self.remembered;
        self.failing.retain(|name, _| remembered.contains_key(name));
    }
}
