//! Orders of the daemon for actions, and questions about them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;

use super::wanted::WantedAction;
use crate::api::error::ApiError;
use crate::api::limits::{MAX_PAUSE, Times};
use crate::api::loop_request;
use crate::control::reply::ReplySender;
use crate::control::request::{
    BackendView, DaemonRequest, DeploySelector, EditOrder, PauseOrder, Peer, ServiceEdit, ServiceView, UndoOrder,
};
use crate::control::storage::Query;
use crate::store::Expect;
use crate::view::drained::consequence;
use crate::view::status::IN_BALANCE;
use tcpgw_core::model::{Endpoint, duration};
use tokio::sync::mpsc;

/// The pauses that are offered.
pub(super) const PAUSES: [&str; 4] = ["30s", "1m", "5m", "15m"];

/// A question: whether an action is to be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ActionQuestion {
    pub(super) heading: String,
    /// Description of what will happen.
    pub(super) text: String,
    /// Text of the button.
    pub(super) button: &'static str,
    /// Whether it asks for how long.
    pub(super) asks_time: bool,
}

/// An order that is not carried out: a status, and what to do, for people.
pub(super) type RefusedAction = (StatusCode, String);

/// Way to the daemon's loop.
pub(super) struct ActionOrders {
    requests: mpsc::Sender<DaemonRequest>,
    times: Times,
}

impl ActionOrders {
    pub(super) const fn new(requests: mpsc::Sender<DaemonRequest>, times: Times) -> Self {
        Self { requests, times }
    }

    async fn daemon<T>(
        &self,
        patience: Duration,
        request: impl FnOnce(ReplySender<T>) -> DaemonRequest,
    ) -> Result<T, RefusedAction> {
        let answer = loop_request::send(&self.requests, &self.times, patience, request).await;
        answer.map_err(|error| refused(&error))
    }

    /// Returns the question whether to carry out an action, if what it changes exists.
    pub(super) async fn describe(&self, action: &WantedAction) -> Result<ActionQuestion, RefusedAction> {
        let question = |heading: String, text: String, button| ActionQuestion {
            heading,
            text,
            button,
            asks_time: matches!(action, WantedAction::Pause(_)),
        };
        Ok(match action {
            WantedAction::Pause(name) => {
                self.service(name).await?;
                let text = "New connections are dropped for that time, so that clients wait and try again. Open connections go on.";
                question(format!("Pause service {name}?"), text.into(), "Pause")
            }
            WantedAction::Resume(name) => {
                self.service(name).await?;
                let text = "A pause ends now, and new connections go to the backends again.";
                question(format!("Resume service {name}?"), text.into(), "Resume")
            }
            WantedAction::Drain(name, backend) => {
                let view = self.backend(name, *backend).await?;
                let time = duration::show(view.listed.service.drain_timeout);
                let is_up = |other: &&BackendView| {
                    let health = other.health.as_deref();
                    other.balanced && health.is_none_or(|health| IN_BALANCE.contains(&health))
                };
                let others = view
                    .backends
                    .iter()
                    .filter(|other| other.backend != SocketAddr::from(*backend));
                let consequence = consequence(others.filter(is_up).count());
                let text = format!("{consequence} Its open connections go on for {time} at most, and are ended then.");
                question(format!("Drain {backend} of service {name}?"), text, "Drain")
            }
            WantedAction::Undrain(name, backend) => {
                self.backend(name, *backend).await?;
                let text = format!("{backend} gets new connections again, when it answers probes.");
                question(format!("Use {backend} of service {name} again?"), text, "Use again")
            }
            WantedAction::Rollback(id) => {
                let deploy = self.daemon(self.times.answer, |reply| {
                    DaemonRequest::Query(Query::Deploy(*id, reply))
                });
                let deploy = deploy.await?.map_err(|error| refused(&error.into()))?;
                let missing = || {
                    (
                        StatusCode::NOT_FOUND,
                        format!("There is no deploy {id}, or it is forgotten."),
                    )
                };
                let service = deploy.ok_or_else(missing)?.deploy.service;
                let text = format!(
                    "While deploy {id} probes its targets, it ends, and nothing was switched. While its old backends drain, new \
                     connections to service {service} go to these again. Later than that it cannot be taken back."
                );
                question(
                    format!("Roll back deploy {id} of service {service}?"),
                    text,
                    "Roll back",
                )
            }
        })
    }

    /// Orders an action. `time`: duration of a pause, as the form has it.
    pub(super) async fn carry_out(
        &self,
        action: &WantedAction,
        time: Option<&str>,
        by: Peer,
    ) -> Result<(), RefusedAction> {
        match action {
            WantedAction::Pause(name) => {
                let time = pause(time)?;
                self.pause(name, Some(time), by).await
            }
            WantedAction::Resume(name) => self.pause(name, None, by).await,
            WantedAction::Drain(name, backend) => self.edit(name, ServiceEdit::Drain(vec![*backend]), by).await,
            WantedAction::Undrain(name, backend) => self.edit(name, ServiceEdit::Undrain(vec![*backend]), by).await,
            WantedAction::Rollback(id) => {
                let which = DeploySelector::Id(*id);
                let undone = self.daemon(self.times.order, |reply| {
                    DaemonRequest::Undo(UndoOrder { which, by }, reply)
                });
                undone.await?.map(drop).map_err(|error| refused(&error.into()))
            }
        }
    }

    async fn pause(&self, name: &str, time: Option<Duration>, by: Peer) -> Result<(), RefusedAction> {
        let order = PauseOrder {
            name: name.into(),
            time,
            by,
        };
        let paused = self.daemon(self.times.order, |reply| DaemonRequest::Pause(order, reply));
        paused.await?.map(drop).map_err(|error| refused(&error.into()))
    }

    async fn edit(&self, name: &str, edit: ServiceEdit, by: Peer) -> Result<(), RefusedAction> {
        let order = EditOrder {
            name: name.into(),
            edit,
            expect: Expect::Present,
            take_over: false,
            drain: None,
            by,
        };
        let edited = self.daemon(self.times.order, |reply| DaemonRequest::Edit(order, reply));
        edited.await?.map(drop).map_err(|error| refused(&error.into()))
    }

    async fn service(&self, name: &str) -> Result<ServiceView, RefusedAction> {
        let answer = self.daemon(self.times.answer, |reply| DaemonRequest::Service(name.into(), reply));
        let missing = || (StatusCode::NOT_FOUND, format!("There is no service named {name:?}."));
        answer.await?.ok_or_else(missing)
    }

    async fn backend(&self, name: &str, backend: Endpoint) -> Result<ServiceView, RefusedAction> {
        let view = self.service(name).await?;
        if view.backends.iter().any(|has| has.backend == SocketAddr::from(backend)) {
            Ok(view)
        } else {
            Err((
                StatusCode::NOT_FOUND,
                format!("Service {name} has no backend {backend}."),
            ))
        }
    }
}

/// Returns the duration of a pause as a form has it.
fn pause(time: Option<&str>) -> Result<Duration, RefusedAction> {
    let time = duration::parse(time.unwrap_or(PAUSES[0])).ok();
    let time = time.filter(|time| !time.is_zero() && *time <= MAX_PAUSE);
    time.ok_or_else(|| {
        let text = format!(
            "A pause is {} at most, such as {}: nothing was done.",
            duration::show(MAX_PAUSE),
            PAUSES[0]
        );
        (StatusCode::UNPROCESSABLE_ENTITY, text)
    })
}

fn refused(error: &ApiError) -> RefusedAction {
    error.page_text()
}
