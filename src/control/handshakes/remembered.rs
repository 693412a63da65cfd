//! Overdue handshakes of a service that are remembered, and what served clients prove against them.

use std::time::{Duration, Instant};

use super::completed::Completed;
use super::failing::SERVED_COUNTS;
use super::{ENOUGH_CLIENTS, Evidence, Overdue};

/// Time for which overdue handshakes are reported after the last of them was there.
pub(super) const RECENT: Duration = Duration::from_secs(10);
/// Time for which it is remembered after the last attempt of a client that no client is served, unless one is.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);

/// Overdue handshakes of one service at one observation.
#[derive(Debug)]
pub(super) struct NowOverdue {
    unanswered: u64,
    unconfirmed: u64,
    /// Begin of the first of them.
    begin: Instant,
    /// Begin of the first and the last one that a backend answered.
    first_answered: Option<Instant>,
    last_answered: Option<Instant>,
}

/// Overdue handshakes of one service, at this observation or an earlier one.
#[derive(Debug)]
pub(super) struct Remembered {
    last: NowOverdue,
    /// Number that no backend answered, at the last observation with overdue ones; an observation without any is
    /// ignored while clients are not served.
    last_unanswered: u64,
    /// Last observation with overdue handshakes.
    last_there: Instant,
    /// Last observation at which any handshake of the service was incomplete.
    pub(super) last_begun: Instant,
    /// Whether an outage is shown: a client is not answered, and others would have been served.
    pub(super) is_unserved: bool,
    /// Last observation, if clients that had been served do not confirm their handshakes, and nobody is served since.
    pub(super) known_lost_at: Option<Instant>,
    /// Whether something shows that others are served besides the clients that are not answered.
    pub(super) are_served: bool,
    /// Whether others of the service were completed since the first of them began.
    others_complete: bool,
    /// Evidence of served clients against unconfirmed handshakes: of clients of any service, and of this one.
    of_any: Refutation,
    of_own: Refutation,
}

/// Evidence that unconfirmed handshakes are forged, and their answers not lost.
#[derive(Debug, Default, Clone, Copy)]
struct Refutation {
    /// Whether a handshake was completed after these began.
    is_complete: bool,
    /// Time at which a client was served last while enough did not confirm their handshakes.
    refuted: Option<Instant>,
}

impl NowOverdue {
    /// Returns no handshakes; the first one that will be added begins at `since`.
    pub(super) const fn none(since: Instant) -> Self {
        Self {
            unanswered: 0,
            unconfirmed: 0,
            begin: since,
            first_answered: None,
            last_answered: None,
        }
    }

    /// Adds a handshake that began at `since`.
    pub(super) fn add(&mut self, since: Instant, is_answered: bool) {
        self.begin = since.min(self.begin);
        if is_answered {
            self.unconfirmed += 1;
            let first = self.first_answered.map_or(since, |first| first.min(since));
            self.first_answered = Some(first);
            self.last_answered = self.last_answered.max(Some(since));
        } else {
            self.unanswered += 1;
        }
    }
}

impl Remembered {
    pub(super) fn new(overdue: NowOverdue, now: Instant) -> Self {
        Self {
            last_unanswered: overdue.unanswered,
            last: overdue,
            last_there: now,
            last_begun: now,
            is_unserved: false,
            known_lost_at: None,
            are_served: true,
            others_complete: false,
            of_any: Refutation::default(),
            of_own: Refutation::default(),
        }
    }

    /// Replaces the overdue handshakes by those of this observation.
    pub(super) fn overdue_again(&mut self, overdue: NowOverdue, now: Instant) {
        let last_unanswered = if overdue.unanswered == 0 && self.is_unserved {
            self.last_unanswered
        } else {
            overdue.unanswered
        };
        // Unconfirmed handshakes are no proof while some clients are served, nor when they continue or come again.
        let go_on = |of: Refutation| Refutation {
            is_complete: false,
            ..of
        };
        *self = Self {
            last_unanswered,
            known_lost_at: self.known_lost_at,
            of_any: go_on(self.of_any),
            of_own: go_on(self.of_own),
            ..Self::new(overdue, now)
        };
    }

    /// Judges whether others are completed; once there are no overdue ones, a single one is enough. `clients`: number
    /// of clients that did not confirm a handshake.
    pub(super) fn judge(&mut self, of_service: Option<&Completed>, of_all: &Completed, clients: usize, now: Instant) {
        self.others_complete |= of_service.is_none_or(|of| of.any_since(self.last.begin));
        self.of_any.judge(of_all, &self.last, clients, now);
        match of_service {
            Some(of) => self.of_own.judge(of, &self.last, clients, now),
            // A service that is not followed is never called dead.
            None => self.of_own.is_complete = true,
        }
    }

    /// Returns whether it is still reported.
    pub(super) fn is_told(&self, now: Instant) -> bool {
        let is_dead = self.is_unserved
            || self.known_lost_at.is_some()
            || self.last.unconfirmed > 0 && !(self.of_any.is_complete && self.of_own.is_complete);
        self.is_recent(now) || is_dead && now.saturating_duration_since(self.last_begun) < REMEMBERED
    }

    /// Returns whether served clients still decide how unconfirmed handshakes are judged.
    pub(super) fn is_refuted(&self, now: Instant) -> bool {
        [self.of_any, self.of_own].iter().any(|of| of.is_refuted(now))
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_there) < RECENT
    }

    pub(super) fn overdue(&self, clients: [usize; 2], now: Instant) -> Overdue {
        let is_there = self.last_there == now;
        Overdue {
            unanswered: if is_there { self.last.unanswered } else { 0 },
            last_unanswered: self.last_unanswered,
            last_unconfirmed: self.last.unconfirmed,
            anywhere: self.of_any.evidence(clients[0], now),
            of_service: self.of_own.evidence(clients[1], now),
            is_unserved: self.is_unserved || self.known_lost_at.is_some(),
            others_complete: if self.last_unanswered > 0 {
                self.are_served
            } else {
                self.others_complete && self.known_lost_at.is_none()
            },
            is_recent: self.is_recent(now),
        }
    }
}

impl Refutation {
    fn judge(&mut self, completed: &Completed, overdue: &NowOverdue, clients: usize, now: Instant) {
        let any_since = |begin: Option<Instant>| begin.is_some_and(|begin| completed.any_since(begin));
        let last_new = completed.last_new;
        let is_recent = last_new.is_some_and(|at| now.saturating_duration_since(at) < RECENT);
        // conntrack may keep an answered handshake for a minute, though its client gave up long before.
        let is_after_all = any_since(overdue.last_answered);
        self.is_complete |= is_after_all || is_recent && any_since(overdue.first_answered);
        if is_after_all && clients >= ENOUGH_CLIENTS {
            self.refuted = last_new.max(self.refuted);
        }
    }

    fn evidence(&self, clients: usize, now: Instant) -> Evidence {
        Evidence {
            clients,
            is_complete: self.is_complete,
            is_refuted: self.is_refuted(now),
        }
    }

    fn is_refuted(&self, now: Instant) -> bool {
        let refuted = self.refuted;
        refuted.is_some_and(|at| now.saturating_duration_since(at) < SERVED_COUNTS)
    }
}
