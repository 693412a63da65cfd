//! Events for the log, for followers of the API, and for clients that ask for past events.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use super::event_tap::EventTap;
use crate::addon::id::PlatformId;
use tcpgw_core::escape;
use tcpgw_core::problem::{EndedProblem, Problem};

/// Number of past events that are kept.
const KEPT: usize = 1024;
/// Number of events that a slow follower may be behind before it misses some.
const BEHIND: usize = 256;

/// Id of an event among those of all daemons: each daemon has an epoch of its own. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    epoch: Arc<str>,
    /// Number of the event, from 1 since the daemon started.
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

/// Position from which a client follows events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// The events that are kept, from the first one on.
    Start,
    /// Events after the one with this id, which an earlier daemon may have given.
    Event(Box<str>),
    /// Future events only.
    Now,
}

/// Past events, and a receiver of future ones.
#[derive(Debug)]
pub struct Followed {
    /// Number of events between the given one and the first of `kept` that are not kept any more. `None`: unknown,
    /// since the given one is of another daemon.
    pub missed: Option<u64>,
    /// Past events that are still kept.
    pub kept: Vec<Arc<Event>>,
    /// Receiver of future events.
    pub coming: broadcast::Receiver<Arc<Event>>,
}

/// An event of the gateway with its id and time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Id of the event.
    pub id: EventId,
    /// Time in seconds since the Unix epoch, to the millisecond.
    pub at: f64,
    /// Content of the event.
    #[serde(flatten)]
    pub what: EventContent,
    /// App of the event's service, if the service belongs or belonged to the add-on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<PlatformId>,
}

/// Content of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventContent {
    /// The daemon has started.
    Started {
        /// Version of the daemon.
        version: &'static str,
        /// Summary of what it found in the kernel.
        in_kernel: String,
    },
    /// The kernel was made equal to the desired state.
    Committed {
        /// Reason: the file, command, deploy or check that led to the change.
        cause: String,
        /// Number of elements added and deleted.
        elements: usize,
        /// Number of transactions.
        transactions: usize,
        /// Number of flows deleted.
        flushed: u64,
        /// Number of unanswered handshakes deleted.
        forgotten: u64,
        /// Microseconds from the first cause of the change to the commit.
        micros: u64,
    },
    /// A state was rejected.
    Rejected {
        /// Provider whose state was rejected.
        provider: String,
        /// Errors in it.
        problems: Vec<String>,
    },
    /// A problem has begun.
    Problem(Problem),
    /// A problem has ended.
    ProblemEnded(EndedProblem),
    /// A change of the kernel failed; it will be tried again.
    Failed {
        /// The error.
        error: String,
    },
    /// The health of a backend has changed.
    Health {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: SocketAddr,
        /// New state, see [`HealthView::state`](crate::view::snapshot::HealthView::state).
        state: &'static str,
        /// Reason of the state, if the last probe failed.
        reason: Option<String>,
    },
    /// The backends of a service are all unhealthy: the last healthy ones stay in use, or there are none.
    NoneHealthy {
        /// Name of the service.
        service: String,
        /// Number of unhealthy backends that still get new connections.
        kept: usize,
    },
    /// A backend drains.
    Draining {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: SocketAddr,
        /// Seconds until its flows are deleted.
        seconds: u64,
    },
    /// A draining backend gets new connections again.
    Back {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: SocketAddr,
    },
    /// A backend has drained and was removed.
    Retired {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: SocketAddr,
        /// Reason: `ended` (no flow was left), `deadline`, or `dead`.
        reason: &'static str,
        /// Number of its flows at the last count.
        flows: Option<u64>,
    },
    /// A deploy has reached another phase.
    Deploy {
        /// Id of the deploy; `id` in JSON is that of the event.
        #[serde(rename = "deploy")]
        id: u64,
        /// Name of the service.
        service: String,
        /// New phase: `probing`, `switched` (the kernel holds it: the old backends can be told to end), `drained`,
        /// `failed`, `undone`.
        phase: &'static str,
        /// Reason of the phase, for people.
        reason: Option<String>,
    },
    /// New connections of a service are dropped for a time, so that clients wait.
    Paused {
        /// Name of the service.
        service: String,
        /// Duration in seconds.
        seconds: u64,
        /// User id of the client that ordered it.
        uid: u32,
        /// Way by which the order came, if not by the socket: `web` with the browser's address.
        #[serde(skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// A service gets new connections again after a pause.
    Resumed {
        /// Name of the service.
        service: String,
        /// Reason: `asked` (a client ordered it), `time` (the pause has ended), or `suspended` (the resource of
        /// its app was suspended).
        reason: &'static str,
        /// User id of the client that ordered it; `None`: the pause was not ended by a client.
        uid: Option<u32>,
        /// Way by which the order came, if not by the socket: `web` with the browser's address.
        #[serde(skip_serializing_if = "Option::is_none")]
        through: Option<String>,
    },
    /// Services have no provider any more. They are served until they are removed or defined again.
    Orphaned {
        /// Number of services.
        count: usize,
        /// Names of the services, 20 at most.
        names: Vec<String>,
        /// Reason why they have no provider.
        reason: String,
    },
    /// Orphans were removed, or lost backends: a provider claims their ports, or their backends with other settings.
    Displaced {
        /// Number of orphans.
        count: usize,
        /// Names of the orphans, 20 at most.
        names: Vec<String>,
        /// Reason, for people.
        reason: String,
    },
    /// Another program wrote to the table, or removed it.
    Drift {
        /// Program, as far as the kernel tells it: `nft (1234)`.
        who: Option<String>,
        /// Description of the change.
        what: String,
    },
    /// The table was restored after a change by another program.
    Repaired {
        /// Description of what was restored.
        what: String,
    },
    /// The table and the flows were removed by `teardown`.
    TornDown {
        /// Number of flows deleted.
        flushed: u64,
        /// User id of the client that ordered it.
        uid: u32,
    },
    /// A teardown has ended: the desired services are served again.
    ServesAgain {
        /// Reason: the order that ended it, with its author.
        cause: String,
    },
}

impl EventContent {
    /// Returns the kind of the event, as its field `event` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Committed { .. } => "committed",
            Self::Rejected { .. } => "rejected",
            Self::Problem(_) => "problem",
            Self::ProblemEnded(_) => "problem_ended",
            Self::Failed { .. } => "failed",
            Self::Health { .. } => "health",
            Self::NoneHealthy { .. } => "none_healthy",
            Self::Draining { .. } => "draining",
            Self::Back { .. } => "back",
            Self::Retired { .. } => "retired",
            Self::Deploy { .. } => "deploy",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Orphaned { .. } => "orphaned",
            Self::Displaced { .. } => "displaced",
            Self::Drift { .. } => "drift",
            Self::Repaired { .. } => "repaired",
            Self::TornDown { .. } => "torn_down",
            Self::ServesAgain { .. } => "serves_again",
        }
    }

    /// Returns the service of the event, if it is about one.
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

    /// Writes the event to the log: as a warning if a person must act on it, other changes of state as information.
    /// `app`: the app of its service; `naming_apps`: adds apps to the names of services.
    pub fn log(&self, app: Option<&PlatformId>, naming_apps: impl Fn(&str) -> String) {
        let app = app.map(tracing::field::display);
        match self {
            Self::Started { version, in_kernel } => tracing::info!(version, in_kernel, "started"),
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
            Self::Paused {
                service,
                seconds,
                uid,
                through,
            } => tracing::warn!(service, app, seconds, uid, through, "paused"),
            Self::Resumed {
                service,
                reason,
                uid,
                through,
            } => tracing::info!(service, app, reason, uid, through, "resumed"),
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

/// Returns a log field for text that others chose. Escaped text stays as it is; a plain string field would be escaped
/// once more.
fn safe(text: Option<&str>) -> Option<tracing::field::DisplayValue<String>> {
    text.map(|text| tracing::field::display(escape::text(text)))
}

/// The last events, and the channel to followers.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Arc<Event>>,
    epoch: Arc<str>,
    next: u64,
    followers: broadcast::Sender<Arc<Event>>,
    tap: Option<EventTap<Event>>,
}

impl Events {
    /// Creates an empty list of events. No other daemon may have, or have had, the same epoch.
    pub fn new(epoch: &str) -> Self {
        Self {
            kept: VecDeque::with_capacity(KEPT),
            epoch: epoch.into(),
            next: 1,
            followers: broadcast::Sender::new(BEHIND),
            tap: None,
        }
    }
}

impl Events {
    /// Sends all further events to this channel, too.
    pub fn tap(&mut self, tap: EventTap<Event>) {
        self.tap = Some(tap);
    }

    /// Adds an event with the app of its service, and sends it to followers; `now`: time since the Unix epoch.
    pub fn note(&mut self, what: EventContent, app: Option<PlatformId>, now: Duration) -> Arc<Event> {
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
        if let Some(tap) = &self.tap {
            tap.add(&event);
        }
        // There may be no follower.
        let _ = self.followers.send(Arc::clone(&event));
        event
    }

    /// Returns the number of an event of this daemon from its id.
    fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&*self.epoch)?.strip_prefix('-')?.parse().ok()?;
        (1..self.next).contains(&number).then_some(number)
    }

    /// Returns the events after the given position that are still kept, and a receiver of future ones.
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
            events.note(EventContent::TornDown { flushed: 0, uid: 0 }, None, Duration::ZERO);
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
        // The id is of an earlier daemon with more or fewer events, or of none.
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
