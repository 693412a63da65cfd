//! Handshakes of clients that are not complete after [`PATIENCE`], by service and address family, and what follows from them.
//!
//! Pure: [`HandshakeTracker`] is told of flows, look by look.

mod completed;
mod failing;
mod tracker;
mod unconfirmed;

use std::collections::BTreeMap;
use std::time::Duration;

use tcpgw_core::diff::count;
use tcpgw_core::problem::{Kind, Problem, Severity};
use tcpgw_core::ruleset::name::Family;

pub use self::tracker::HandshakeTracker;

/// A handshake that takes longer has failed, or is about to: a client sends its SYN again after 1 s and 3 s.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Handshakes that are answered and not confirmed are taken for clients that are not served where so many of them fail, by address:
/// anybody can forge a SYN from an address that does not answer.
const ENOUGH_CLIENTS: usize = 3;

/// Services that are followed, for each family.
const MOST_SERVICES: usize = 4096;

/// How completed handshakes were heard of since the look before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// The kernel told of all, as far as its messages were not lost.
    All,
    /// It was not asked for some of the time: whether nobody is served is not known.
    Part,
    /// It tells of none: those are known that are listed.
    None,
}

/// Overdue handshakes of one service, with clients of one address family. They are told on for some time when conntrack has
/// forgotten them: clients that give up come again, and until the next ones are overdue nothing else would be seen of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// That no backend answered, at this look.
    pub unanswered: u64,
    /// The same at the last look that had any overdue handshake.
    pub last_unanswered: u64,
    /// That a backend answered, and the client did not confirm, at the last look that had any.
    pub last_unconfirmed: u64,
    /// What these show beside what clients of any service say.
    pub anywhere: Evidence,
    /// What those of them show that came again, beside what clients of the same service and family say.
    pub of_service: Evidence,
    /// Whether a client was not answered, and nothing says that others of the service and family are served: since it began to fail
    /// none was, or not for a minute. Where many are banned, for a longer time than usual.
    pub is_unserved: bool,
    /// Whether others of the service and family are served.
    pub others_complete: bool,
    /// Whether one of them was there some seconds ago. Of others it is only told that nobody is served.
    pub is_recent: bool,
}

/// What clients that do not confirm handshakes show, beside others that are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Their addresses in the last minute; no more than [`ENOUGH_CLIENTS`] are counted.
    pub clients: usize,
    /// Whether handshakes of others were completed since the first of theirs began.
    pub is_complete: bool,
    /// Whether others were served in the last minute while enough clients did not confirm their handshakes: that these go on proves
    /// nothing.
    pub is_refuted: bool,
}

impl Evidence {
    /// Whether it shows that answers do not reach clients. Anybody can forge SYNs, which backends answer: some of one client are no
    /// proof.
    const fn shows_outage(&self) -> bool {
        self.clients >= ENOUGH_CLIENTS && !self.is_complete && !self.is_refuted
    }
}

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeReport {
    /// Services that have, or had, overdue handshakes, by name and family.
    pub services: BTreeMap<(Box<str>, Family), Overdue>,
}

impl HandshakeReport {
    /// The problems that follow. `port` tells a service's port, if there is such a service; `has_cause`: another check has found
    /// what may keep answers from clients.
    pub fn problems(&self, port: impl Fn(&str) -> Option<u16>, has_cause: bool) -> Vec<Problem> {
        let mut words: BTreeMap<(&str, Severity), Vec<String>> = BTreeMap::new();
        for ((name, family), overdue) in &self.services {
            if let Some(severity) = overdue.severity(has_cause) {
                let of_service = words.entry((&**name, severity)).or_default();
                of_service.push(overdue.words(*family));
            }
        }
        let problems = words.into_iter().filter_map(|((name, severity), words)| {
            let port = port(name)?;
            let message = format!("{name} :{port}: {}", words.join("; "));
            let problem = Problem::new(Kind::Unanswered, message).of_service(name, port);
            Some(problem.with_severity(severity))
        });
        problems.collect()
    }

    /// Returns how many handshakes of clients no backend answered in time, by service.
    pub fn unanswered(&self) -> BTreeMap<Box<str>, u64> {
        let mut by_service = BTreeMap::new();
        for ((name, _), overdue) in &self.services {
            *by_service.entry(name.clone()).or_default() += overdue.unanswered;
        }
        by_service
    }
}

impl Overdue {
    /// Returns how bad it is; `None`: it is over.
    fn severity(&self, has_cause: bool) -> Option<Severity> {
        let is_caused = has_cause && !self.anywhere.is_complete;
        let are_lost = is_caused || self.anywhere.shows_outage() || self.of_service.shows_outage();
        let is_dead = self.is_unserved || self.last_unconfirmed > 0 && are_lost;
        if is_dead {
            Some(Severity::Error)
        } else {
            self.is_recent.then_some(Severity::Warning)
        }
    }

    fn words(&self, family: Family) -> String {
        let protocol = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let mut parts = Vec::new();
        if self.last_unanswered > 0 {
            let told = count(self.last_unanswered, "handshake");
            parts.push(format!(
                "{told} of {protocol} clients got no answer for more than {} s, from backends that no probe has found dead: look for a \
                 firewall or a route that takes forwarded packets elsewhere (`tcpgw doctor`), and for full queues of the backend",
                PATIENCE.as_secs()
            ));
        }
        if self.last_unconfirmed > 0 {
            let told = count(self.last_unconfirmed, "handshake");
            parts.push(format!(
                "{told} of {protocol} clients answered by backends and not confirmed by the client for more than {} s: the answers \
                 do not reach the client (a route, a firewall), or the SYNs were forged",
                PATIENCE.as_secs()
            ));
        }
        let others = if self.others_complete {
            "others are completed meanwhile"
        } else {
            "none is completed meanwhile"
        };
        format!("{}; {others}", parts.join("; "))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timelines;
