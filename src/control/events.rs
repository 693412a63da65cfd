//! What happened, for logs, followers of the API and those who come later.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use crate::addon::id::PlatformId;
use tcpgw_core::escape;
use tcpgw_core::problem::{EndedProblem, Problem};

/// Events that are kept for those who come later.
const KEPT: usize = 1024;
/// Events that a slow follower may be behind before it misses some.
const BEHIND: usize = 256;

/// What names an event among those of all daemons: another daemon has another epoch. Opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    epoch: Arc<str>,
    /// Counts from 1 since the daemon started.
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which events somebody wants who follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// All that are kept.
    Start,
    /// Those after this one, by its id, whichever daemon it was given by.
    Event(Box<str>),
    /// Those that come.
    Now,
}

/// Events that were, and a place to hear those that come.
#[derive(Debug)]
pub struct Followed {
    /// How many between the asked one and the first of `kept` are not kept any more. `None`: that cannot be told, since the
    /// asked one is of another daemon.
    pub missed: Option<u64>,
    /// Those that are still kept.
    pub kept: Vec<Arc<Event>>,
    /// Those that come.
    pub coming: broadcast::Receiver<Arc<Event>>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// Seconds since 1970.
    pub at: f64,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The app of the service that it is about, where that is, or was, of the add-on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<PlatformId>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The daemon runs.
    Started {
        /// Its version.
        version: &'static str,
        /// What it found in the kernel, in words.
        adopted: String,
    },
    /// The kernel was made equal to what is desired.
    Committed {
        /// Why: who wanted what, in words.
        cause: String,
        /// Elements added and deleted.
        elements: usize,
        /// Transactions.
        transactions: usize,
        /// Flows flushed.
        flushed: u64,
        /// Handshakes forgotten.
        forgotten: u64,
        /// Microseconds from when the change was known until it was committed.
        micros: u64,
    },
    /// A state was not taken.
    Rejected {
        /// Whose: a provider.
        provider: String,
        /// Why.
        problems: Vec<String>,
    },
    /// Something is wrong from now on.
    Problem(Problem),
    /// That is over.
    ProblemEnded(EndedProblem),
    /// The kernel did not do as asked; it will be tried again.
    Failed {
        /// What it said.
        error: String,
    },
    /// What probes say of a backend has changed.
    Health {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// See [`HealthView::state`](crate::view::snapshot::HealthView::state).
        state: &'static str,
        /// Why.
        reason: Option<String>,
    },
    /// No backend of a service is healthy: the last good ones stay, or there are none.
    NoneHealthy {
        /// The service.
        service: String,
        /// How many stay in the balance all the same.
        kept: usize,
    },
    /// A backend leaves.
    Draining {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Seconds until its flows are flushed.
        seconds: u64,
    },
    /// A backend that was leaving gets new connections again.
    Back {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
    },
    /// A backend has left.
    Retired {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// `ended` (no flow was left), `deadline`, `dead`.
        reason: &'static str,
        /// Flows that were left at the last count.
        flows: Option<u64>,
    },
    /// A deploy is a step further.
    Deploy {
        /// Its id; the event has one of its own.
        #[serde(rename = "deploy")]
        id: u64,
        /// The service.
        service: String,
        /// `probing`, `switched` (the kernel has it: the old backends may be told to end), `drained`, `failed`, `undone`.
        phase: &'static str,
        /// Why, for people.
        reason: Option<String>,
    },
    /// New connections of a service are dropped for a time, so that clients wait.
    Paused {
        /// The service.
        service: String,
        /// For how many seconds.
        seconds: u64,
        /// The user id of who wanted it.
        uid: u32,
    },
    /// They are let in again.
    Resumed {
        /// The service.
        service: String,
        /// `asked`, or `time` (that was over).
        reason: &'static str,
        /// The user id of who asked; `None`: nobody did.
        uid: Option<u32>,
    },
    /// Services have no provider any more; they are served until somebody removes them or defines them anew.
    Orphaned {
        /// How many.
        count: usize,
        /// Their names, 20 at most.
        names: Vec<String>,
        /// Why.
        reason: String,
    },
    /// Services that no provider defined any more have ended or lost backends: a provider claims their ports, or their
    /// backends on other terms.
    Displaced {
        /// How many.
        count: usize,
        /// Their names, 20 at most.
        names: Vec<String>,
        /// Whose wish, in words.
        reason: String,
    },
    /// Somebody else wrote to the table, or removed it.
    Drift {
        /// Who, as far as the kernel tells: `nft (1234)`.
        who: Option<String>,
        /// What was done, in words.
        what: String,
    },
    /// The table is as it should be again.
    Repaired {
        /// What it took, in words.
        what: String,
    },
    /// The table and the flows were removed by `teardown`.
    TornDown {
        /// Flows deleted.
        flushed: u64,
        /// The user id of who wanted it.
        uid: u32,
    },
    /// A teardown is over: what is desired is served again.
    ServesAgain {
        /// Who wanted it, in words.
        cause: String,
    },
}

impl What {
    /// Returns the service that it is about, where it is about one.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => problem.service.as_deref(),
            Self::ProblemEnded(problem) => problem.service.as_deref(),
            Self::Health { service, .. }
            | Self::NoneHealthy { service, .. }
            | Self::Draining { service, .. }
            | Self::Back { service, .. }
            | Self::Retired { service, .. }
            | Self::Deploy { service, .. }
            | Self::Paused { service, .. }
            | Self::Resumed { service, .. } => Some(service),
            Self::Started { .. }
            | Self::Committed { .. }
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Orphaned { .. }
            | Self::Displaced { .. }
            | Self::Drift { .. }
            | Self::Repaired { .. }
            | Self::TornDown { .. }
            | Self::ServesAgain { .. } => None,
        }
    }

    /// Writes it to the log: what somebody must act on as a warning, all other changes of state as information. `app`: that of its
    /// service; `naming_apps` adds the apps to names of services.
    pub fn log(&self, app: Option<&PlatformId>, naming_apps: impl Fn(&str) -> String) {
        let app = app.map(tracing::field::display);
        match self {
            Self::Started { version, adopted } => tracing::info!(version, in_kernel = adopted, "started"),
            Self::Committed {
                cause,
                elements,
                transactions,
                flushed,
                micros,
                ..
            } => {
                tracing::info!(cause = %escape::text(cause), elements, transactions, flushed, micros, "changed the kernel");
            }
            Self::Rejected { provider, problems } => {
                for problem in problems {
                    tracing::warn!(provider, "rejected, and what is served goes on as it is: {problem}");
                }
            }
            Self::Problem(problem) => problem.log(),
            Self::ProblemEnded(ended) => {
                tracing::info!(
                    kind = ended.kind.word(),
                    service = ended.service,
                    app,
                    "problem is over"
                );
            }
            Self::Failed { error } => tracing::error!("{error}; will be tried again"),
            Self::Health {
                service,
                backend,
                state,
                reason,
            } => tracing::info!(service, app, %backend, state, reason = safe(reason.as_deref()), "health"),
            Self::NoneHealthy { service, kept } => tracing::warn!(service, app, kept, "no backend is healthy"),
            Self::Draining {
                service,
                backend,
                seconds,
            } => tracing::info!(service, app, %backend, seconds, "draining"),
            Self::Back { service, backend } => tracing::info!(service, app, %backend, "serves again"),
            Self::Retired {
                service,
                backend,
                reason,
                flows,
            } => tracing::info!(service, app, %backend, reason, flows, "retired"),
            Self::Deploy {
                id,
                service,
                phase,
                reason,
            } => tracing::info!(id, service, app, phase, reason = safe(reason.as_deref()), "deploy"),
            Self::Paused { service, seconds, uid } => tracing::warn!(service, app, seconds, uid, "paused"),
            Self::Resumed { service, reason, uid } => tracing::info!(service, app, reason, uid, "resumed"),
            Self::Orphaned { count, names, reason } => {
                let names = naming_apps(&names.join(", "));
                tracing::warn!(count, names, "served on as orphans: {reason}");
            }
            Self::Drift { who, what } => {
                tracing::warn!(who = safe(who.as_deref()), "another program changed nftables: {what}");
            }
            Self::Displaced { count, names, reason } => {
                let names = naming_apps(&names.join(", "));
                tracing::warn!(count, names, "orphans have ended or lost backends: {reason}");
            }
            Self::Repaired { what } => tracing::warn!("repaired: {what}"),
            Self::TornDown { flushed, uid } => tracing::warn!(flushed, uid, "torn down"),
            Self::ServesAgain { cause } => tracing::warn!("serves again: {}", escape::text(cause)),
        }
    }
}

/// A field that may hold what others chose. Text that is escaped already stays as it is, and a field given as a string would be
/// escaped once more.
fn safe(text: Option<&str>) -> Option<tracing::field::DisplayValue<String>> {
    text.map(|text| tracing::field::display(escape::text(text)))
}

/// The last events, and those who follow.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Arc<Event>>,
    epoch: Arc<str>,
    next: u64,
    followers: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// None yet. No other daemon has, or had, the same epoch.
    pub fn new(epoch: &str) -> Self {
        Self {
            kept: VecDeque::with_capacity(KEPT),
            epoch: epoch.into(),
            next: 1,
            followers: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Events {
    /// Notes one, with the app of its service; `now` is the time since 1970.
    pub fn note(&mut self, what: What, app: Option<PlatformId>, now: Duration) -> Arc<Event> {
        let event = Arc::new(Event {
            id: EventId {
                epoch: Arc::clone(&self.epoch),
                number: self.next,
            },
            at: (now.as_secs_f64() * 1000.0).round() / 1000.0,
            what,
            app,
        });
        self.next += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&event));
        // Nobody may be following.
        let _ = self.followers.send(Arc::clone(&event));
        event
    }

    /// Returns the number of an event of this daemon, from its id.
    fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&*self.epoch)?.strip_prefix('-')?.parse().ok()?;
        (1..self.next).contains(&number).then_some(number)
    }

    /// Returns the events after one that are still kept, and a place to hear those that come.
    pub fn follow(&self, after: &After) -> Followed {
        let coming = self.followers.subscribe();
        let (known, all) = match after {
            After::Start => (Some(0), true),
            After::Now => (Some(self.next - 1), false),
            After::Event(id) => (self.number(id), false),
        };
        let after = known.unwrap_or(0);
        let first = self.kept.front().map_or(self.next, |event| event.id.number);
        let missed = known.map(|known| if all { 0 } else { (first - 1).saturating_sub(known) });
        let kept = self.kept.iter().filter(|event| event.id.number > after);
        Followed {
            missed,
            kept: kept.cloned().collect(),
            coming,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noting(epoch: &str, count: usize) -> Events {
        let mut events = Events::new(epoch);
        for _ in 0..count {
            events.note(What::TornDown { flushed: 0, uid: 0 }, None, Duration::ZERO);
        }
        events
    }

    fn follow(events: &Events, after: &After) -> (Option<u64>, Vec<u64>) {
        let followed = events.follow(after);
        (
            followed.missed,
            followed.kept.iter().map(|event| event.id.number).collect(),
        )
    }

    #[test]
    fn whoever_goes_on_misses_nothing_or_is_told() {
        let events = noting("a", 3);
        let of = |id: &str| After::Event(id.into());
        assert_eq!(follow(&events, &After::Start), (Some(0), vec![1, 2, 3]));
        assert_eq!(follow(&events, &After::Now), (Some(0), vec![]));
        assert_eq!(follow(&events, &of("a-2")), (Some(0), vec![3]));
        assert_eq!(follow(&events, &of("a-3")), (Some(0), vec![]));
        // Of a daemon before this one, which had more or fewer; or of nobody.
        for other in ["b-2", "b-3", "b-99", "a-99", "a-0", "2", "", "a", "a-", "a-x", "a-2-2"] {
            assert_eq!(follow(&events, &of(other)), (None, vec![1, 2, 3]), "{other:?}");
        }
        assert_eq!(follow(&noting("b", 0), &of("a-3")), (None, vec![]));
    }

    #[test]
    fn what_is_not_kept_any_more_is_counted() {
        let events = noting("a", KEPT + 10);
        let (missed, kept) = follow(&events, &After::Event("a-4".into()));
        assert_eq!((missed, kept[0], kept.len()), (Some(6), 11, KEPT));
        assert_eq!(follow(&events, &After::Event("a-10".into())).0, Some(0));
        assert_eq!(follow(&events, &After::Start).0, Some(0));
    }
}
