//! Routes of the API and their handlers.

mod addon;
mod batch;
mod daemon;
mod deploys;
mod history;
mod kernel;
mod services;
mod wait;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use tokio::sync::{mpsc, watch};

use super::error::ApiError;
use super::hints::{self, ClientKind};
use super::limits::{Times, URI};
use super::settings::{ApiSettings, SocketScope};
use super::shared::ApiState;
use super::{body, events};
use crate::control::request::DaemonRequest;

/// Access that a route gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAccess {
    /// Changes nothing, and shows nothing that a user who monitors the gateway may not see: no secrets, and nothing by which an
    /// order could be given.
    Monitoring,
    /// Changes something, takes a body, or shows what only those may see who give orders.
    Orders,
}

/// A route: method and path, the access that it gives, and its handler.
type ApiRoute = (&'static str, &'static str, RouteAccess, MethodRouter<ApiState>);

/// Returns every route. One that is new has to be classified here.
fn table() -> Vec<ApiRoute> {
    use RouteAccess::{Monitoring, Orders};
    vec![
        ("GET", "/v1/status", Monitoring, get(kernel::status)),
        ("GET", "/v1/flows", Monitoring, get(kernel::flows)),
        ("GET", "/v1/who", Monitoring, get(kernel::who)),
        ("GET", "/v1/denied", Monitoring, get(kernel::denied)),
        ("POST", "/v1/denied", Orders, post(kernel::would_be_denied)),
        ("POST", "/v1/denied/flush", Orders, post(kernel::flush)),
        ("GET", "/v1/events", Monitoring, get(events::events)),
        ("GET", "/v1/daemon", Monitoring, get(daemon::daemon)),
        ("GET", "/v1/healthz", Monitoring, get(daemon::healthz)),
        ("GET", "/v1/drains", Monitoring, get(daemon::drains)),
        ("POST", "/v1/apply", Orders, post(daemon::apply)),
        ("POST", "/v1/teardown", Orders, post(daemon::teardown)),
        ("POST", "/v1/resume", Orders, post(daemon::resume)),
        ("GET", "/v1/openapi.json", Monitoring, get(daemon::openapi)),
        ("GET", "/v1/services", Monitoring, get(services::list)),
        ("POST", "/v1/services", Orders, post(services::create)),
        ("PATCH", "/v1/services", Orders, patch(batch::change)),
        ("GET", "/v1/services/{name}", Monitoring, get(services::one)),
        ("PUT", "/v1/services/{name}", Orders, put(services::replace)),
        ("PATCH", "/v1/services/{name}", Orders, patch(services::change)),
        ("DELETE", "/v1/services/{name}", Orders, delete(services::remove)),
        ("POST", "/v1/services/{name}/drain", Orders, post(services::drain)),
        ("POST", "/v1/services/{name}/undrain", Orders, post(services::undrain)),
        ("POST", "/v1/services/{name}/pause", Orders, post(services::pause)),
        ("POST", "/v1/services/{name}/resume", Orders, post(services::resume)),
        ("GET", "/v1/services/{name}/wait", Monitoring, get(wait::service)),
        ("POST", "/v1/services/{name}/deploys", Orders, post(deploys::begin)),
        ("POST", "/v1/services/{name}/rollback", Orders, post(deploys::rollback)),
        ("GET", "/v1/addon/resources", Monitoring, get(addon::list)),
        ("GET", "/v1/addon/resources/{app}", Monitoring, get(addon::one)),
        ("PUT", "/v1/addon/resources/{app}", Orders, put(addon::provision)),
        ("DELETE", "/v1/addon/resources/{app}", Orders, delete(addon::remove)),
        ("POST", "/v1/addon/resources/{app}/plan", Orders, post(addon::plan)),
        (
            "POST",
            "/v1/addon/resources/{app}/suspend",
            Orders,
            post(addon::suspend),
        ),
        ("POST", "/v1/addon/resources/{app}/resume", Orders, post(addon::resume)),
        ("GET", "/v1/deploys", Monitoring, get(deploys::list)),
        ("GET", "/v1/deploys/{id}", Monitoring, get(deploys::one)),
        ("POST", "/v1/deploys/{id}/undo", Orders, post(deploys::undo)),
        ("GET", "/v1/history", Monitoring, get(history::history)),
        ("GET", "/v1/export", Monitoring, get(history::export)),
    ]
}

/// Returns every route: method, path, and the access that it gives.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str, RouteAccess)> {
    table()
        .into_iter()
        .map(|(method, path, access, _)| (method, path, access))
}

/// Refuses requests with any method but those that only read, whatever they ask for.
async fn refuse_orders(request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return next.run(request).await;
    }
    let message = "this socket is for monitoring only (daemon.socket_readonly), and the request is none that only reads; nothing \
                   was changed: ask at the daemon's other socket (daemon.socket)";
    ApiError::new(StatusCode::FORBIDDEN, "read_only", message).into_response()
}

pub(super) fn router(
    requests: mpsc::Sender<DaemonRequest>,
    settings: ApiSettings,
    ends: watch::Receiver<bool>,
) -> Router {
    let scope = settings.scope;
    let shared = ApiState::new(requests, settings, ends);
    let is_read_only = scope == SocketScope::ReadOnly;
    let router = table()
        .into_iter()
        .fold(Router::new(), |router, (_, path, _, handler)| {
            router.route(path, handler)
        })
        .fallback(async || ApiError::not_found("there is no such path; GET /v1/openapi.json lists all paths"))
        .method_not_allowed_fallback(async || {
            let message = "this path does not support that method; the header Allow lists those that it supports";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        });
    let router = if is_read_only {
        router.layer(middleware::from_fn(refuse_orders))
    } else {
        router
    };
    router
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
