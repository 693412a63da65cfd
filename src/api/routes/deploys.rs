//! Routes that begin, follow and take back deploys.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::services::{object, span};
use super::wait::WaitRequest;
use crate::api::answers::{DeployAnswer, DeployList};
use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::limits::{MAX_DEPLOY, MAX_DRAIN, MAX_WAIT};
use crate::api::orders::DeployBody;
use crate::api::params::{Params, PathDeployId, PathServiceName, ServiceRequest};
use crate::api::shared::ApiState;
use crate::control::request::{DaemonRequest, DeployOrder, DeploySelector, DeployView, Peer, UndoOrder};
use crate::control::storage::Query;

/// Default time for targets to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Default time to wait for a deploy.
const WAIT: Duration = Duration::from_secs(30);

/// Phase of a deploy that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AwaitedPhase {
    Begun,
    Switched,
    Drained,
}

impl AwaitedPhase {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "begun" => Ok(Self::Begun),
            "switched" => Ok(Self::Switched),
            "drained" => Ok(Self::Drained),
            _ => Err("is none of begun, switched, drained"),
        }
    }
}

/// Returns whether a deploy has reached that phase.
fn has_reached(deploy: &DeployAnswer, until: AwaitedPhase) -> bool {
    match until {
        AwaitedPhase::Begun => true,
        AwaitedPhase::Switched => deploy.is_over() || deploy.phase == "switched",
        AwaitedPhase::Drained => deploy.is_over(),
    }
}

impl ApiState {
    async fn views(&self) -> Result<Vec<DeployView>, ApiError> {
        self.request(self.times.answer, DaemonRequest::Deploys).await
    }

    /// Returns a deploy. The progress is asked for first, so that a deploy that ends in between is over in the record.
    async fn deploy(&self, id: u64) -> Result<DeployAnswer, ApiError> {
        let views = self.views().await?;
        let query = |reply| DaemonRequest::Query(Query::Deploy(id, reply));
        let record = self.request(self.times.answer, query).await??;
        let record = record.ok_or_else(|| {
            let message = format!("there is no deploy {id}, or it is forgotten; `tcpgw deploys` lists them");
            ApiError::not_found(message)
        })?;
        Ok(DeployAnswer::alone(record, &views))
    }

    /// Waits until a deploy has reached the phase, or the time is over.
    async fn follow(&self, id: u64, until: AwaitedPhase, mut waiter: WaitRequest) -> Result<DeployAnswer, ApiError> {
        loop {
            let deploy = self.deploy(id).await?;
            if has_reached(&deploy, until) || !waiter.pause().await {
                return Ok(deploy);
            }
        }
    }

    async fn undo(&self, order: UndoOrder) -> Result<Response, ApiError> {
        let id = self
            .request(self.times.order, |reply| DaemonRequest::Undo(order, reply))
            .await??;
        Ok(json(&self.deploy(id).await?))
    }
}

pub(in crate::api) async fn begin(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let ServiceRequest {
        by,
        name: service,
        params,
        headers,
    } = request;
    let mut params = params.known(&["until"])?;
    let until = params.read("until", AwaitedPhase::read)?.unwrap_or(AwaitedPhase::Begun);
    let (text, place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    let order: DeployBody = object(&text)?;
    drop((text, place));
    if order.targets.is_empty() {
        return Err(ApiError::invalid("targets", "must be one backend at least"));
    }
    if order.min.is_some_and(|min| min == 0 || min > order.targets.len()) {
        let message = format!("must be 1 to {}, as many as there are targets", order.targets.len());
        return Err(ApiError::invalid("min", message));
    }
    let order = DeployOrder {
        service,
        timeout: span("timeout", order.timeout.as_deref(), MAX_DEPLOY)?.unwrap_or(TIMEOUT),
        drain: span("drain_timeout", order.drain_timeout.as_deref(), MAX_DRAIN)?,
        targets: order.targets,
        min: order.min,
        supersede: order.supersede,
        by,
    };
    // The place is taken before the deploy begins, so that a request that cannot wait begins nothing.
    let waiter = match until {
        AwaitedPhase::Begun => None,
        _ => Some(WaitRequest::new(&shared, MAX_WAIT).await?),
    };
    let id = shared
        .request(shared.times.order, |reply| DaemonRequest::Deploy(order, reply))
        .await??;
    let deploy = match waiter {
        None => shared.deploy(id).await?,
        Some(waiter) => shared.follow(id, until, waiter).await?,
    };
    // A request that does not wait is answered that the deploy has begun, whatever its result.
    let code = match &*deploy.phase {
        "failed" if until != AwaitedPhase::Begun => "failed",
        "undone" if until != AwaitedPhase::Begun => "undone",
        _ => {
            let mut response = json(&deploy);
            if until == AwaitedPhase::Begun || !has_reached(&deploy, until) {
                *response.status_mut() = StatusCode::ACCEPTED;
            }
            return Ok(response);
        }
    };
    let why = deploy.reason.as_deref().unwrap_or("no reason is known");
    let error = ApiError::new(StatusCode::CONFLICT, code, format!("deploy {id} {code}: {why}"));
    Err(error.with("deploy", json!(deploy)))
}

pub(in crate::api) async fn list(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "limit"])?;
    let service = params.service()?.map(String::from);
    let limit = params.limit()?;
    let views = shared.views().await?;
    let query = |reply| DaemonRequest::Query(Query::Deploys(service, limit, reply));
    let records = shared.request(shared.times.answer, query).await??;
    let deploys = records.into_iter().map(|record| DeployAnswer::new(record, &views));
    Ok(json(&DeployList {
        deploys: deploys.collect(),
    }))
}

pub(in crate::api) async fn one(
    State(shared): State<ApiState>,
    PathDeployId(id): PathDeployId,
    params: Params,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["until", "wait"])?;
    if params.has("wait") && !params.has("until") {
        return Err(ApiError::bad(
            "parameter wait needs until, which says what is waited for: switched or drained",
        ));
    }
    let until = params.read("until", AwaitedPhase::read)?.unwrap_or(AwaitedPhase::Begun);
    let wait = params.duration("wait", MAX_WAIT)?.unwrap_or(WAIT);
    let deploy = match until {
        AwaitedPhase::Begun => shared.deploy(id).await?,
        _ => shared.follow(id, until, WaitRequest::new(&shared, wait).await?).await?,
    };
    Ok(json(&deploy))
}

pub(in crate::api) async fn undo(
    State(shared): State<ApiState>,
    Extension(by): Extension<Peer>,
    PathDeployId(id): PathDeployId,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let which = DeploySelector::Id(id);
    shared.undo(UndoOrder { which, by }).await
}

pub(in crate::api) async fn rollback(
    State(shared): State<ApiState>,
    Extension(by): Extension<Peer>,
    PathServiceName(name): PathServiceName,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let which = DeploySelector::Last(name);
    shared.undo(UndoOrder { which, by }).await
}
