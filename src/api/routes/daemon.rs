//! Routes of the daemon as a whole.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::answers::ApplyAnswer;
use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::limits::{LONGEST_ORIGIN, MAX_DRAIN};
use crate::api::openapi::OPENAPI;
use crate::api::params::{ChangeRequest, Params};
use crate::api::shared::ApiState;
use crate::control::request::{Apply, ApplyOptions, DaemonRequest, Peer};
use crate::view::snapshot::{DaemonView, DrainView};
use tcpgw_core::problem;

/// The daemon, and its current state.
#[derive(Debug, Serialize)]
struct DaemonStateAnswer<'a> {
    #[serde(flatten)]
    view: &'a DaemonView,
    /// Number of services that it serves.
    services: usize,
    /// Number of backends by state of health.
    health: BTreeMap<&'static str, usize>,
    drains: &'a [DrainView],
}

pub(in crate::api) async fn daemon(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let known = shared.snapshot().await?;
    let mut health = BTreeMap::new();
    for view in known.health.values() {
        *health.entry(view.state).or_default() += 1;
    }
    Ok(json(&DaemonStateAnswer {
        view: &known.daemon,
        services: known.services.summary.services.len(),
        health,
        drains: &known.drains,
    }))
}

pub(in crate::api) async fn healthz(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let DaemonView {
        in_sync,
        torn_down,
        problems,
        ..
    } = shared.snapshot_parts().await?.daemon;
    let ok = problem::is_ok(&problems);
    let shortened = problem::few(&problems);
    let mut response = json(&json!({"ok": ok, "in_sync": in_sync, "torn_down": torn_down, "problems": shortened}));
    if !ok {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

pub(in crate::api) async fn drains(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let known = shared.snapshot_parts().await?;
    Ok(json(&json!({"drains": known.drains})))
}

pub(in crate::api) async fn openapi(params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    Ok(([(header::CONTENT_TYPE, crate::api::media_type::JSON)], OPENAPI).into_response())
}

pub(in crate::api) async fn apply(
    State(shared): State<ApiState>,
    ChangeRequest { by, params, headers }: ChangeRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let mut params = params.known(&[
        "dry_run",
        "take_over",
        "allow_empty",
        "prune",
        "hold_back",
        "drain",
        "origin",
    ])?;
    let options = ApplyOptions {
        dry_run: params.flag("dry_run")?,
        take_over: params.flag("take_over")?,
        hold_back: params.flag("hold_back")?,
        allow_empty: params.flag("allow_empty")?,
        prune: params.flag("prune")?,
        drain: params.duration("drain", MAX_DRAIN)?,
    };
    let origin = params.text("origin").unwrap_or_else(|| "api".into());
    if origin.len() > LONGEST_ORIGIN || origin.chars().any(char::is_control) {
        let message = format!("parameter origin: must be up to {LONGEST_ORIGIN} bytes without control characters");
        return Err(ApiError::bad(message));
    }
    let (state, _place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    let apply = Apply {
        state,
        origin,
        options,
        by,
    };
    let applied = shared
        .request(shared.times.order, |reply| DaemonRequest::Apply(apply, reply))
        .await?;
    Ok(json(&ApplyAnswer::from(applied?)))
}

pub(in crate::api) async fn teardown(
    State(shared): State<ApiState>,
    Extension(by): Extension<Peer>,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let torn = shared
        .request(shared.times.order, |reply| DaemonRequest::Teardown(by, reply))
        .await?;
    Ok(json(&torn?))
}

pub(in crate::api) async fn resume(
    State(shared): State<ApiState>,
    Extension(by): Extension<Peer>,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let resumed = shared
        .request(shared.times.order, |reply| DaemonRequest::Resume(by, reply))
        .await?;
    Ok(json(&resumed?))
}
