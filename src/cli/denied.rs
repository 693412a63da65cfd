//! Connections of clients that are denied now, for the commands that change access lists.

use serde::Serialize;

use super::failure::Failure;
use super::global::Global;
use crate::api::client::{Client, DaemonResponse, RequestTarget};
use crate::denied::{DeniedFlows, DeniedFlushed};
use crate::reconcile::Reconciler;
use tcpgw_core::summary::Summary;
use tcpgw_core::words::count;
use tcpgw_kernel::Kernel;

/// Result for the connections of denied clients.
#[derive(Debug)]
pub(super) enum Denied {
    /// The connections go on.
    GoingOn(DeniedFlows),
    /// The connections were ended.
    Flushed(DeniedFlushed),
}

/// Members of the JSON output about connections of denied clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct DeniedCounts {
    /// Number of connections that go on, or would; `None`: they could not be counted.
    denied_flows: Option<u64>,
    /// Number of connections that were ended; `None` for commands that only look.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied_flows_flushed: Option<u64>,
}

impl Denied {
    /// Asks the kernel, where there is no daemon.
    pub(super) fn local<K: Kernel>(
        reconciler: &mut Reconciler<'_, K>,
        summary: &Summary,
        flush: bool,
    ) -> Result<Self, Failure> {
        Ok(if flush {
            Self::Flushed(reconciler.flush_denied(summary)?)
        } else {
            Self::GoingOn(reconciler.denied(summary)?)
        })
    }

    /// Asks the daemon about one service or all, and lets it end those connections if `flush` says so.
    pub(super) fn through(daemon: &Client, service: Option<&str>, flush: bool) -> Result<Self, Failure> {
        let service = service.as_ref().map(|service| service as _);
        if flush {
            let target = RequestTarget::new("/v1/denied/flush").with("service", service);
            let flushed = daemon
                .post(target.as_str(), Vec::new())
                .and_then(DaemonResponse::json)?;
            return Ok(Self::Flushed(flushed));
        }
        let target = RequestTarget::new("/v1/denied").with("service", service);
        Ok(Self::GoingOn(
            daemon.get(target.as_str()).and_then(DaemonResponse::json)?,
        ))
    }

    /// Asks the daemon about the connections that a state would deny.
    pub(super) fn if_applied(daemon: &Client, state: Vec<u8>) -> Result<Self, Failure> {
        Ok(Self::GoingOn(
            daemon.post("/v1/denied", state).and_then(DaemonResponse::json)?,
        ))
    }

    /// Returns the members for JSON. `None`: the connections could not be counted.
    pub(super) fn counts(denied: Option<&Self>, is_dry: bool) -> DeniedCounts {
        let (going_on, flushed) = match denied {
            None => (None, 0),
            Some(Self::GoingOn(denied)) => (Some(denied.flows), 0),
            Some(Self::Flushed(flushed)) => (Some(flushed.failed), flushed.flushed),
        };
        DeniedCounts {
            denied_flows: going_on,
            denied_flows_flushed: (!is_dry).then_some(flushed),
        }
    }

    /// Tells people. Fails when connections were to be ended and could not be.
    pub(super) fn tell(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::GoingOn(denied) => {
                if let Some(words) = denied.words() {
                    global.warn(&words);
                }
                Ok(())
            }
            Self::Flushed(flushed) if flushed.failed > 0 => Err(Failure::Refused(format!(
                "{} of denied clients could not be ended; run the command again",
                connections(flushed.failed)
            ))),
            Self::Flushed(flushed) => {
                if flushed.flushed > 0 {
                    global.say(&format!("{} of denied clients ended", connections(flushed.flushed)));
                }
                Ok(())
            }
        }
    }
}

fn connections(number: u64) -> String {
    count(number, "connection")
}
