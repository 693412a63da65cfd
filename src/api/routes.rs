//! Routes of the API and their handlers.

mod addon;
mod batch;
mod daemon;
mod deploys;
mod kernel;
mod past;
mod services;
mod wait;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use tokio::sync::{mpsc, watch};

use super::error::ApiError;
use super::hints::{self, ClientKind};
use super::limits::{Times, URI};
use super::settings::ApiSettings;
use super::shared::ApiState;
use super::{body, events};
use crate::control::request::DaemonRequest;

/// Returns every route with its method and handler.
fn table() -> Vec<(&'static str, &'static str, MethodRouter<ApiState>)> {
    vec![
        ("GET", "/v1/status", get(kernel::status)),
        ("GET", "/v1/flows", get(kernel::flows)),
        ("GET", "/v1/who", get(kernel::who)),
        ("GET", "/v1/denied", get(kernel::denied)),
        ("POST", "/v1/denied", post(kernel::would_be_denied)),
        ("POST", "/v1/denied/flush", post(kernel::flush)),
        ("GET", "/v1/events", get(events::events)),
        ("GET", "/v1/daemon", get(daemon::daemon)),
        ("GET", "/v1/healthz", get(daemon::healthz)),
        ("GET", "/v1/drains", get(daemon::drains)),
        ("POST", "/v1/apply", post(daemon::apply)),
        ("POST", "/v1/teardown", post(daemon::teardown)),
        ("POST", "/v1/resume", post(daemon::resume)),
        ("GET", "/v1/openapi.json", get(daemon::openapi)),
        ("GET", "/v1/services", get(services::list)),
        ("POST", "/v1/services", post(services::create)),
        ("PATCH", "/v1/services", patch(batch::change)),
        ("GET", "/v1/services/{name}", get(services::one)),
        ("PUT", "/v1/services/{name}", put(services::replace)),
        ("PATCH", "/v1/services/{name}", patch(services::change)),
        ("DELETE", "/v1/services/{name}", delete(services::remove)),
        ("POST", "/v1/services/{name}/drain", post(services::drain)),
        ("POST", "/v1/services/{name}/undrain", post(services::undrain)),
        ("POST", "/v1/services/{name}/pause", post(services::pause)),
        ("POST", "/v1/services/{name}/resume", post(services::resume)),
        ("GET", "/v1/services/{name}/wait", get(wait::service)),
        ("POST", "/v1/services/{name}/deploys", post(deploys::begin)),
        ("POST", "/v1/services/{name}/rollback", post(deploys::rollback)),
        ("GET", "/v1/addon/resources", get(addon::list)),
        ("GET", "/v1/addon/resources/{app}", get(addon::one)),
        ("PUT", "/v1/addon/resources/{app}", put(addon::provision)),
        ("DELETE", "/v1/addon/resources/{app}", delete(addon::remove)),
        ("POST", "/v1/addon/resources/{app}/plan", post(addon::plan)),
        ("POST", "/v1/addon/resources/{app}/suspend", post(addon::suspend)),
        ("POST", "/v1/addon/resources/{app}/resume", post(addon::resume)),
        ("GET", "/v1/deploys", get(deploys::list)),
        ("GET", "/v1/deploys/{id}", get(deploys::one)),
        ("POST", "/v1/deploys/{id}/undo", post(deploys::undo)),
        ("GET", "/v1/history", get(past::history)),
        ("GET", "/v1/export", get(past::export)),
    ]
}

/// Returns every route: method and path.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    table().into_iter().map(|(method, path, _)| (method, path))
}

pub(super) fn router(
    requests: mpsc::Sender<DaemonRequest>,
    settings: ApiSettings,
    ends: watch::Receiver<bool>,
) -> Router {
    let shared = ApiState::new(requests, settings, ends);
    let routes = table().into_iter();
    routes
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .fallback(async || ApiError::not_found("there is no such path; GET /v1/openapi.json says which there are"))
        .method_not_allowed_fallback(async || {
            let message = "this is not asked for by that method; the header allow says by which";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(middleware::from_fn_with_state(shared.times, read_first))
        .layer(middleware::from_fn(check_uri))
        .layer(middleware::from_fn(word_hints))
        .with_state(shared)
}

/// Words the advice in errors for the client of the request.
async fn word_hints(request: Request, next: Next) -> Response {
    let client = ClientKind::of(request.headers());
    hints::for_client(client, next.run(request)).await
}

async fn check_uri(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > URI {
        let message = format!("path and query have more than {URI} bytes");
        return ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", message).into_response();
    }
    next.run(request).await
}

/// Reads a small body before anything is done: clients send head and body apart, and one whose connection is closed between the
/// two would not see the answer to what was carried out.
async fn read_first(State(times): State<Times>, request: Request, next: Next) -> Response {
    let announced = body::announced(request.headers());
    if !announced.is_some_and(|length| (1..=body::AT_ONCE).contains(&length)) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match body::small(body, &times).await {
        Ok(bytes) => next.run(Request::from_parts(head, bytes.into())).await,
        Err(error) => error.into_response(),
    }
}
