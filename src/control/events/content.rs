//! Content of events: fields, kind, service, and the line in the log.

use std::net::SocketAddr;

use serde::Serialize;

use crate::addon::id::PlatformId;
use tcpgw_core::escape;
use tcpgw_core::problem::{EndedProblem, Problem};

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
                    tracing::warn!(
                        provider,
                        "a state was rejected; what is served goes on as it is: {problem}"
                    );
                }
            }
            Self::Problem(problem) => problem.log(),
            Self::ProblemEnded(ended) => {
                tracing::info!(
                    kind = ended.kind.word(),
                    service = ended.service,
                    app = app.map(tracing::field::display),
                    "a problem has ended"
                );
            }
            Self::Failed { error } => tracing::error!("{error}; the daemon tries again"),
            Self::Health { .. }
            | Self::NoneHealthy { .. }
            | Self::Draining { .. }
            | Self::Back { .. }
            | Self::Retired { .. }
            | Self::Deploy { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. } => self.log_of_service(app),
            Self::Orphaned { count, names, reason } => {
                let names = naming_apps(&names.join(", "));
                tracing::warn!(
                    count,
                    names,
                    "services without a provider are still served, as orphans: {reason}"
                );
            }
            Self::Drift { who, what } => {
                tracing::warn!(who = safe(who.as_deref()), "another program changed nftables: {what}");
            }
            Self::Displaced { count, names, reason } => {
                let names = naming_apps(&names.join(", "));
                tracing::warn!(count, names, "orphans were removed, or lost backends: {reason}");
            }
            Self::Repaired { what } => tracing::warn!("repaired: {what}"),
            Self::TornDown { flushed, uid } => {
                tracing::warn!(flushed, uid, "the table was removed by `tcpgw teardown`");
            }
            Self::ServesAgain { cause } => tracing::warn!("serving again after a teardown: {}", escape::text(cause)),
        }
    }

    /// Writes an event of a service or of its backends to the log.
    fn log_of_service(&self, app: Option<impl std::fmt::Display>) {
        let app = app.map(tracing::field::display);
        match self {
            Self::Health {
                service,
                backend,
                state,
                reason,
            } => {
                tracing::info!(service, app, %backend, state, reason = safe(reason.as_deref()), "the health of a backend has changed");
            }
            Self::NoneHealthy { service, kept } => {
                tracing::warn!(service, app, kept, "no backend of the service is healthy");
            }
            Self::Draining {
                service,
                backend,
                seconds,
            } => tracing::info!(service, app, %backend, seconds, "a backend drains: it gets no new connections"),
            Self::Back { service, backend } => {
                tracing::info!(service, app, %backend, "a backend that drained gets new connections again");
            }
            Self::Retired {
                service,
                backend,
                reason,
                flows,
            } => tracing::info!(service, app, %backend, reason, flows, "a backend has left the service"),
            Self::Deploy {
                id,
                service,
                phase,
                reason,
            } => tracing::info!(
                id,
                service,
                app,
                phase,
                reason = safe(reason.as_deref()),
                "a deploy has reached its next phase"
            ),
            Self::Paused {
                service,
                seconds,
                uid,
                through,
            } => tracing::warn!(
                service,
                app,
                seconds,
                uid,
                through,
                "new connections of a service are held back"
            ),
            Self::Resumed {
                service,
                reason,
                uid,
                through,
            } => tracing::info!(
                service,
                app,
                reason,
                uid,
                through,
                "new connections of a service are accepted again"
            ),
            _ => {}
        }
    }
}

/// Returns a log field for text that others chose. Escaped text stays as it is; a plain string field would be escaped
/// once more.
fn safe(text: Option<&str>) -> Option<tracing::field::DisplayValue<String>> {
    text.map(|text| tracing::field::display(escape::text(text)))
}
