//! Client handshakes that are not complete after [`PATIENCE`], by service and address family, and the problems that
//! follow.
//!
//! It is pure: each observation passes its flows to [`HandshakeTracker`].

mod completed;
mod failing;
mod remembered;
mod served;
mod tracker;
mod unconfirmed;

use std::collections::BTreeMap;
use std::time::Duration;

use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;

pub use self::tracker::HandshakeTracker;

/// Time after which a handshake has failed, or is about to: a client sends its SYN again after 1 s and 3 s.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Number of client addresses from which answered but unconfirmed handshakes show that clients are not served. A few
/// prove nothing, since SYNs can be forged from addresses that do not answer.
const ENOUGH_CLIENTS: usize = 3;

/// Maximum number of services that are followed, for each family.
const MOST_SERVICES: usize = 4096;

/// Source of knowledge about completed handshakes since the last observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedHandshakes {
    /// The kernel reported all of them, except for lost messages.
    All,
    /// The kernel was not asked for some of the time: it is unknown whether clients were served.
    Part,
    /// The kernel does not report them: only listed flows are known.
    None,
}

/// Overdue handshakes of one service, of clients of one address family. They are reported for some time after
/// conntrack has removed them: clients that give up try again, and until their next handshakes are overdue nothing
/// else would show them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// Number that no backend answered, at this observation.
    pub unanswered: u64,
    /// Number that no backend answered, at the last observation with overdue handshakes.
    pub last_unanswered: u64,
    /// Number that a backend answered and the client did not confirm, at the last observation with overdue handshakes.
    pub last_unconfirmed: u64,
    /// Evidence from these clients, compared with clients of any service.
    pub anywhere: Evidence,
    /// Evidence from those of them that tried again, compared with clients of the same service and family.
    pub of_service: Evidence,
    /// Whether a client was not answered and nothing shows that others of the service and family are served: none was
    /// since it began to fail, or for a minute. Where many are banned, this takes longer than usual.
    /// Or clients that had been served do not confirm their handshakes, two of them or one that tried again, and nobody was
    /// served since.
    pub is_unserved: bool,
    /// Whether other clients of the service and family are served.
    pub others_complete: bool,
    /// Whether an overdue handshake was there in the last seconds. Older ones are only reported if no client is
    /// served.
    pub is_recent: bool,
}

/// Evidence from clients that do not confirm handshakes, compared with others that are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Number of their addresses in the last minute, at most [`ENOUGH_CLIENTS`].
    pub clients: usize,
    /// Whether handshakes of others were completed since the first of theirs began.
    pub is_complete: bool,
    /// Whether others were served in the last minute while enough clients did not confirm their handshakes, so that
    /// further ones prove nothing.
    pub is_refuted: bool,
}

impl Evidence {
    /// Returns whether it shows that answers do not reach clients. Handshakes of a single client are no proof, since
    /// SYNs can be forged and backends answer them.
    const fn shows_outage(&self) -> bool {
        self.clients >= ENOUGH_CLIENTS && !self.is_complete && !self.is_refuted
    }
}

/// Result of an observation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeReport {
    /// Services that have, or had, overdue handshakes, by name and family.
    pub services: BTreeMap<(Box<str>, Family), Overdue>,
}

impl HandshakeReport {
    /// Returns the problems that follow. `port`: returns the port of a service, if it exists; `has_cause`: another
    /// check has found what may keep answers from clients.
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
            let problem = Problem::new(ProblemKind::Unanswered, message).of_service(name, port);
            Some(problem.with_severity(severity))
        });
        problems.collect()
    }

    /// Returns the number of handshakes that no backend answered in time, by service.
    pub fn unanswered(&self) -> BTreeMap<Box<str>, u64> {
        let mut by_service = BTreeMap::new();
        for ((name, _), overdue) in &self.services {
            *by_service.entry(name.clone()).or_default() += overdue.unanswered;
        }
        by_service
    }
}

impl Overdue {
    /// Returns the severity; `None`: the problem has ended.
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
        let protocol = family.protocol_name();
        let mut parts = Vec::new();
        if self.last_unanswered > 0 {
            let handshakes = count(self.last_unanswered, "handshake");
            parts.push(format!(
                "{handshakes} of {protocol} clients got no answer for more than {} s, from backends that no probe has found dead: look for a \
                 firewall or a route that takes forwarded packets elsewhere (`tcpgw doctor`), and for full queues of the backend",
                PATIENCE.as_secs()
            ));
        }
        if self.last_unconfirmed > 0 {
            let handshakes = count(self.last_unconfirmed, "handshake");
            parts.push(format!(
                "{handshakes} of {protocol} clients answered by backends and not confirmed by the client for more than {} s: the answers \
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
