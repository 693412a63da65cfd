//! What can be asked for, and how it is answered.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::error::ApiError;
use super::limits::{INTERVAL, LARGE_BODIES, LONGEST_ORIGIN, MAX_DRAIN, Times, URI};
use super::looks::Looks;
use super::params::Params;
use super::{Settings, body, events};
use crate::daemon::ask::{Apply, ApplyOptions, Ask, DaemonView, DrainView, Look, Peer, Reply};
use crate::kernel::Kernel;
use crate::look::{self, FlowsQuery, JsonFlows, StatusQuery};
use crate::model::network;
use crate::view::endpoint;
use crate::view::status::Status;

/// The document that says all of this to programs.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Every route there is, with its method.
fn table() -> [(&'static str, &'static str, MethodRouter<Shared>); 10] {
    [
        ("GET", "/v1/status", get(status)),
        ("GET", "/v1/flows", get(flows)),
        ("GET", "/v1/who", get(who)),
        ("GET", "/v1/events", get(events::events)),
        ("GET", "/v1/daemon", get(daemon)),
        ("GET", "/v1/healthz", get(healthz)),
        ("GET", "/v1/drains", get(drains)),
        ("POST", "/v1/apply", post(apply)),
        ("POST", "/v1/teardown", post(teardown)),
        ("GET", "/v1/openapi.json", get(openapi)),
    ]
}

/// Every route there is: method and path.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    table().into_iter().map(|(method, path, _)| (method, path))
}

/// What handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    asks: mpsc::Sender<Ask>,
    looks: Looks,
    large: Arc<Semaphore>,
    pub(super) followers: Arc<Semaphore>,
    pub(super) times: Times,
    pub(super) ends: watch::Receiver<bool>,
}

pub(super) fn router(asks: mpsc::Sender<Ask>, settings: Settings, ends: watch::Receiver<bool>) -> Router {
    let shared = Shared {
        asks,
        looks: Looks::new(settings.open, settings.times),
        large: Arc::new(Semaphore::new(LARGE_BODIES)),
        followers: Arc::new(Semaphore::new(super::limits::FOLLOWERS)),
        times: settings.times,
        ends,
    };
    let routes = table().into_iter();
    routes
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .fallback(async || {
            let message = "there is nothing of that name; GET /v1/openapi.json says what there is";
            ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
        .method_not_allowed_fallback(async || {
            let message = "this is not asked for by that method; the header allow says by which";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(middleware::from_fn(check_uri))
        .with_state(shared)
}

async fn check_uri(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > URI {
        let message = format!("path and query have more than {URI} bytes");
        return ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", message).into_response();
    }
    next.run(request).await
}

impl Shared {
    /// Asks the loop, and waits for what it says.
    pub(super) async fn ask<T>(&self, patience: Duration, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, ApiError> {
        let place = match timeout(self.times.turn, self.asks.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(ApiError::ending()),
            Err(_) => return Err(ApiError::busy("the daemon has too many questions to answer")),
        };
        let (reply, answer) = oneshot::channel();
        place.send(ask(reply));
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ending",
                "the daemon ended before it answered; whether an order was carried out is not known",
            )),
            Err(_) => Err(ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "no_answer",
                "the daemon has not answered in time; it may still carry out an order: see /v1/events",
            )),
        }
    }

    async fn look(&self) -> Result<Look, ApiError> {
        self.ask(self.times.answer, Ask::Look).await
    }
}

async fn status(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "interval"])?;
    let query = StatusQuery {
        service: params.parse("service")?,
        interval: params.duration("interval", INTERVAL)?.unwrap_or_default(),
    };
    let known = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let noted = look::noted();
        let write = |status: &Status<'_>| look::write_json(out, status);
        Ok(look::status(
            kernel,
            &known.services,
            Some(&known),
            noted,
            &query,
            write,
        )??)
    };
    shared.looks.stream(INTERVAL, work).await
}

async fn flows(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "backend", "client"])?;
    let query = FlowsQuery {
        service: params.parse("service")?,
        backend: params.read("backend", endpoint)?,
        client: params.read("client", network::parse)?,
    };
    let Look { services, .. } = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let mut list = JsonFlows::new(out);
        look::flows(kernel, &services, look::noted(), &query, &mut list)
    };
    shared.looks.stream(Duration::ZERO, work).await
}

async fn who(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["seen_as", "backend"])?;
    let Some(seen_as) = params.read("seen_as", endpoint)? else {
        return Err(ApiError::bad(
            "parameter seen_as is missing: the IP:PORT that a backend sees",
        ));
    };
    let backend = params.read("backend", endpoint)?;
    let Look { services, .. } = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let who = look::who(kernel, &services, look::noted(), seen_as, backend)?;
        Ok(look::write_json(out, &who)?)
    };
    shared.looks.stream(Duration::ZERO, work).await
}

/// The daemon, and what it does just now.
#[derive(Debug, Serialize)]
struct Daemon<'a> {
    #[serde(flatten)]
    view: &'a DaemonView,
    /// Services that it serves.
    services: usize,
    /// How many backends there are by what probes say of them.
    health: BTreeMap<&'static str, usize>,
    drains: &'a [DrainView],
}

async fn daemon(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let known = shared.look().await?;
    let mut health = BTreeMap::new();
    for view in known.health.values() {
        *health.entry(view.state).or_default() += 1;
    }
    Ok(json(&Daemon {
        view: &known.daemon,
        services: known.services.summary.services.len(),
        health,
        drains: &known.drains,
    }))
}

async fn healthz(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let DaemonView {
        in_sync,
        torn_down,
        problems,
        ..
    } = shared.look().await?.daemon;
    let ok = in_sync || torn_down;
    let mut response = json(&json!({"ok": ok, "in_sync": in_sync, "torn_down": torn_down, "problems": problems}));
    if !ok {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

async fn drains(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let known = shared.look().await?;
    Ok(json(&json!({"drains": known.drains})))
}

async fn openapi(params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    Ok(([(header::CONTENT_TYPE, super::JSON)], OPENAPI).into_response())
}

async fn apply(
    State(shared): State<Shared>,
    Extension(by): Extension<Peer>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["dry_run", "take_over", "allow_empty", "drain", "origin"])?;
    let options = ApplyOptions {
        dry_run: params.flag("dry_run")?,
        take_over: params.flag("take_over")?,
        allow_empty: params.flag("allow_empty")?,
        drain: params.duration("drain", MAX_DRAIN)?,
    };
    let origin = params.text("origin").unwrap_or_else(|| "api".into());
    if origin.len() > LONGEST_ORIGIN || origin.chars().any(char::is_control) {
        let message = format!("parameter origin: must be up to {LONGEST_ORIGIN} bytes without control characters");
        return Err(ApiError::bad(message));
    }
    let (state, _place) = body::read(&headers, body, &shared.large, &shared.times).await?;
    let apply = Apply {
        state,
        origin,
        options,
        by,
    };
    let applied = shared.ask(shared.times.order, |reply| Ask::Apply(apply, reply)).await?;
    Ok(json(&applied?))
}

async fn teardown(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let torn = shared.ask(shared.times.order, Ask::Teardown).await?;
    Ok(json(&torn?))
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(header::CONTENT_TYPE, super::JSON)], text + "\n").into_response(),
        Err(error) => ApiError::failed(format!("failed to write JSON: {error}")).into_response(),
    }
}
