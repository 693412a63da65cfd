//! Handler of the provider API's requests: checks the credentials, passes orders to the daemon, and answers in the form
//! of the platform's API.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::messages::{basic, fields, identified, plain, rendered};
use super::page::{self, AppPage};
use super::traffic::{LastReading, TrafficObserver};
use super::{ProviderApi, session};
use crate::addon::dialect;
use crate::addon::dialect::exchange::{AuthenticatedRequest, Call, DialectAnswer, Method};
use crate::addon::dialect::gateway::GatewayProperties;
use crate::addon::id::ResourceId;
use crate::addon::sso;
use crate::addon::{AddonRequest, Dialect, Refusal, Resource, ResourceTarget};
use crate::api::author;
use crate::api::limits::{Times, URI};
use crate::api::listener::{Authenticated, Site as _, client};
use crate::api::loop_request;
use crate::api::server::closing;
use crate::control::request::{AddonOrder, AddonRefused, AppView, DaemonRequest, Refused};
use crate::control::storage::Query;
use crate::date::since_1970;
use crate::locked::locked;
use crate::store::StoredDeploy;
use crate::throttle::Throttle;
use crate::view::app::AppSubject;
use crate::web;
use tcpgw_core::escape;

/// Largest size of a body, in bytes.
const BODY: usize = 64 << 10;

const OFF: &str = "the add-on is off";
const INVALID: &str = "nothing was changed: the gateway's settings do not allow it, or a container of this app stands in another \
                       service, too, which must have the same limit; the gateway's log says which";
const FAILED: &str =
    "the gateway cannot carry out the request at the moment; its log has the reason. Send the same request again later";
const BUSY: &str = "The gateway is busy and did not answer in time. That alone keeps no client from being served. Try again in a minute.";
/// Maximum time that a page waits for its place in the daemon's queue, and for each answer.
const PAGE_PLACE: Duration = Duration::from_secs(2);
const PAGE_ANSWER: Duration = Duration::from_secs(3);
/// Maximum time that a page waits for the first reading of its app's traffic.
const FIRST_READING: Duration = Duration::from_millis(20);
/// Number of deploys that a page shows.
const DEPLOYS: usize = 5;

/// State that all connections share.
pub(super) struct ProviderState {
    pub(super) requests: mpsc::Sender<DaemonRequest>,
    pub(super) times: Times,
    pub(super) throttle: Mutex<Throttle>,
    pub(super) traffic: TrafficObserver,
}

/// Answers a request. `asks` is called once the client has shown that it may ask, or has sent all of a request that shows so itself:
/// before that, its connection makes room for others.
pub(super) async fn answer(
    provider: &ProviderApi,
    shared: &ProviderState,
    from: IpAddr,
    request: Request<Incoming>,
    asks: &(dyn Fn() + Sync),
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let from = client(provider.is_behind_proxy(), from, &parts.headers);
    if parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > URI {
        return plain(StatusCode::URI_TOO_LONG, "path and query are too long");
    }
    let segments: Vec<String> = parts.uri.path().split('/').skip(1).map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let visit = Visit {
        provider,
        shared,
        from,
        asks,
    };
    match segments.as_slice() {
        ["v2", path @ ..] => visit.platform(Dialect::Osb, path, &parts, body).await,
        ["scalingo", "sso"] => visit.sign_on(Dialect::Scalingo, &parts, body).await,
        ["heroku", "sso"] => visit.sign_on(Dialect::Heroku, &parts, body).await,
        ["clever-cloud", "sso"] => visit.sign_on(Dialect::CleverCloud, &parts, body).await,
        ["scalingo", path @ ..] => visit.platform(Dialect::Scalingo, path, &parts, body).await,
        ["heroku", path @ ..] => visit.platform(Dialect::Heroku, path, &parts, body).await,
        ["clever-cloud", path @ ..] => visit.platform(Dialect::CleverCloud, path, &parts, body).await,
        ["apps", id] => visit.page(id, &parts).await,
        ["assets", name] => web::asset(name).unwrap_or_else(nothing),
        _ => nothing(),
    }
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn nothing() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "there is nothing here")
}

struct Visit<'v> {
    provider: &'v ProviderApi,
    shared: &'v ProviderState,
    from: IpAddr,
    asks: &'v (dyn Fn() + Sync),
}

impl Visit<'_> {
    fn gateway(&self) -> GatewayProperties<'_> {
        GatewayProperties {
            host: &self.provider.settings.host,
            pages: None,
            plans: &self.provider.settings.plans,
        }
    }

    async fn platform(&self, dialect: Dialect, path: &[&str], parts: &Parts, body: Incoming) -> Response<Body> {
        let response = if let Err(refused) = self.admit(dialect, &parts.headers) {
            *refused
        } else {
            (self.asks)();
            let mut response = match self.call(dialect, path, parts, body).await {
                Ok(answer) => rendered(dialect, answer),
                Err(refused) => *refused,
            };
            response.extensions_mut().insert(Authenticated);
            if response.status() == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = HeaderValue::from_static(dialect::allowed(dialect, path));
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            response
        };
        identified(dialect, response, &parts.headers)
    }

    /// Checks that the request has the credentials.
    fn admit(&self, dialect: Dialect, headers: &HeaderMap) -> Result<(), Box<Response<Body>>> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| basic(value.as_bytes()));
        let (username, password) = given.as_ref().map_or((&[][..], &[][..]), |(name, word)| (name, word));
        if self.provider.credentials.admit(username, password) && given.is_some() {
            return Ok(());
        }
        // A request without credentials guesses nothing, so it is not counted.
        let wait = if headers.contains_key(header::AUTHORIZATION) {
            let mut throttle = locked(&self.shared.throttle);
            let wait = throttle.fail(self.from, Instant::now());
            drop(throttle);
            // Attempts without end do not fill the log.
            if wait.is_none() {
                tracing::warn!(from = %self.from, "refused a request to the provider API with wrong credentials");
            }
            wait
        } else {
            tracing::debug!(from = %self.from, "refused a request to the provider API without credentials");
            None
        };
        let (status, text) = match wait {
            None => (401, "the credentials are missing or wrong"),
            Some(_) => (
                429,
                "wrong credentials were sent from there too often: wait, or send valid credentials",
            ),
        };
        let mut response = rendered(dialect, DialectAnswer::error(dialect, status, "Unauthorized", text));
        let headers = response.headers_mut();
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"tcpgw\""),
        );
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        Err(Box::new(closing(response)))
    }

    async fn call(
        &self,
        dialect: Dialect,
        path: &[&str],
        parts: &Parts,
        body: Incoming,
    ) -> Result<DialectAnswer, Box<Response<Body>>> {
        let Some(method) = method(&parts.method) else {
            let text = "this method is not allowed here";
            return Ok(DialectAnswer::error(dialect, 405, "MethodNotAllowed", text));
        };
        let body = match self.read(parts, body).await {
            Ok(body) => body,
            Err((status, text)) => {
                let answer = DialectAnswer::error(dialect, status.as_u16(), "MalformedRequest", text);
                return Err(Box::new(closing(rendered(dialect, answer))));
            }
        };
        let query = fields(parts.uri.query().unwrap_or_default().as_bytes());
        let exchange = AuthenticatedRequest {
            method,
            path,
            query: &query,
            version: broker_version(&parts.headers),
            body: &body,
        };
        let gateway = self.gateway();
        let call = match dialect::parse(dialect, &exchange) {
            Ok(call) => call,
            Err(answer) => return Ok(answer),
        };
        Ok(match &call {
            Call::Catalog => DialectAnswer {
                status: 200,
                body: Some(dialect::catalog(gateway.plans)),
            },
            Call::Change(wish) => self.change(dialect, wish).await,
            Call::Show(target)
            | Call::Keep(target)
            | Call::ShowBinding(target, _)
            | Call::LastOperation(target)
            | Call::LastBindingOperation(target, _) => match self.resource(target).await {
                Ok(found) => dialect::shown(dialect, &call, &found, gateway),
                Err(text) => DialectAnswer::error(dialect, 503, "Unavailable", &escape::text(&text)),
            },
        })
    }

    async fn change(&self, dialect: Dialect, wish: &AddonRequest) -> DialectAnswer {
        let Ok(order) = AddonOrder::new(wish.clone(), dialect, author::daemon(None)) else {
            let why = "the system gave no random numbers; nothing was changed";
            return DialectAnswer::error(dialect, 503, "Unavailable", why);
        };
        let times = &self.shared.times;
        let answer = loop_request::send(&self.shared.requests, times, times.order, |reply| {
            DaemonRequest::Addon(order, reply)
        });
        let refused = match answer.await {
            Ok(Ok(outcome)) => return dialect::answer(dialect, wish, &Ok(outcome), self.gateway()),
            Ok(Err(AddonRefused::Resource(refusal))) => {
                return dialect::answer(dialect, wish, &Err(refusal), self.gateway());
            }
            Ok(Err(AddonRefused::Off)) => (503, OFF.to_owned()),
            Ok(Err(AddonRefused::Daemon(refused))) => platform_answer(&refused),
            Err(error) => (503, error.to_string()),
        };
        DialectAnswer::error(dialect, refused.0, "Unavailable", &escape::text(&refused.1))
    }

    async fn resource(&self, target: &ResourceTarget) -> Result<Result<Arc<Resource>, Refusal>, String> {
        let times = &self.shared.times;
        let answer = loop_request::send(&self.shared.requests, times, times.answer, |reply| {
            DaemonRequest::Resource(target.clone(), reply)
        });
        match answer.await.map_err(|error| error.to_string())? {
            Ok(resource) => Ok(Ok(resource)),
            Err(AddonRefused::Resource(refusal)) => Ok(Err(refusal)),
            Err(AddonRefused::Off) => Err(OFF.into()),
            Err(AddonRefused::Daemon(refused)) => Err(platform_answer(&refused).1),
        }
    }

    async fn read(&self, parts: &Parts, body: Incoming) -> Result<Vec<u8>, (StatusCode, &'static str)> {
        let too_large = (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body has more than 64 KiB; nothing was changed",
        );
        if parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Err((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must not be compressed or encoded",
            ));
        }
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > BODY) {
            return Err(too_large);
        }
        match timeout(self.shared.times.body_piece, Limited::new(body, BODY).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large),
            Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "failed to read the body; nothing was changed")),
            Err(_) => Err((
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time; nothing was changed",
            )),
        }
    }

    /// Begins a session of the resource that the platform signs its user on to, and leads to its page.
    async fn sign_on(&self, dialect: Dialect, parts: &Parts, body: Incoming) -> Response<Body> {
        let text = match parts.method {
            HttpMethod::GET => parts.uri.query().unwrap_or_default().as_bytes().to_vec(),
            HttpMethod::POST => match self.read(parts, body).await {
                Ok(body) => body,
                Err((status, text)) => return closing(page::message(status, text)),
            },
            _ => return not_allowed("GET, POST", "Only GET and POST sign on."),
        };
        (self.asks)();
        let fields = fields(&text);
        let (salt, now) = (&self.provider.credentials.sso_salt, since_1970());
        let named = match sso::verify(dialect, &fields, salt.expose(), now) {
            Ok(id) => id,
            Err(refusal) => {
                let text =
                    format!("You cannot be signed on: {refusal}. Open the page from your platform's dashboard again.");
                return page::message(StatusCode::FORBIDDEN, &text);
            }
        };
        let target = match dialect {
            Dialect::Heroku => named.parse().ok().map(|app| ResourceTarget::App(dialect, app)),
            _ => named.parse().ok().map(|id| ResourceTarget::Id(dialect, id)),
        };
        let found = match target {
            Some(target) => self.resource(&target).await,
            None => Ok(Err(Refusal::NotFound)),
        };
        match found {
            Ok(Ok(resource)) => {
                let cookie = session::begin(salt, resource.id, self.provider.settings.transport.is_secure(), now);
                page::redirect(&format!("/apps/{}", resource.id), &cookie)
            }
            // The page does not tell which resources exist to a client that may not sign on.
            Ok(Err(_)) => page::message(StatusCode::FORBIDDEN, "There is no such add-on."),
            Err(_) => page::message(StatusCode::SERVICE_UNAVAILABLE, BUSY),
        }
    }

    async fn page(&self, id: &str, parts: &Parts) -> Response<Body> {
        if ![HttpMethod::GET, HttpMethod::HEAD].contains(&parts.method) {
            return not_allowed("GET, HEAD", "This page can only be read.");
        }
        let cookies = parts.headers.get_all(header::COOKIE).iter();
        let cookies: Vec<&str> = cookies.filter_map(|cookie| cookie.to_str().ok()).collect();
        let salt = &self.provider.credentials.sso_salt;
        let id = id.parse::<ResourceId>().ok();
        let id = id.filter(|id| session::is_open(salt, *id, &cookies.join(";"), since_1970()));
        let Some(id) = id else {
            let text = "You are not signed on to this page, or were so more than an hour ago: open it from your platform's dashboard.";
            return page::message(StatusCode::FORBIDDEN, text);
        };
        (self.asks)();
        let times = self.page_times();
        let answer = loop_request::send(&self.shared.requests, &times, times.answer, |reply| {
            DaemonRequest::AppPage(id, reply)
        });
        let app = match answer.await {
            Ok(Ok(app)) => app,
            Ok(Err(AddonRefused::Resource(_))) => {
                let text = "This add-on was removed from its app: its address leads nowhere any more.";
                return page::message(StatusCode::GONE, text);
            }
            Ok(Err(AddonRefused::Off | AddonRefused::Daemon(_))) => {
                let text = "The gateway cannot look up this add-on at the moment. That alone keeps no client from being served. Try again in a minute.";
                return page::message(StatusCode::SERVICE_UNAVAILABLE, text);
            }
            Err(_) => return page::message(StatusCode::SERVICE_UNAVAILABLE, BUSY),
        };
        let (seen, deploys) = tokio::join!(self.traffic(&app), self.last_deploys(&app, &times));
        let platform = self.provider.settings.platform.as_ref();
        let platform = platform.filter(|_| app.resource.dialect != Dialect::Local);
        let page = AppPage {
            app: &app,
            gateway: self.gateway(),
            platform: platform.map(|platform| platform.of(&app.resource.app)),
            seen: seen.as_deref(),
            age: seen.as_ref().map_or(Duration::ZERO, |seen| seen.at.elapsed()),
            deploys: deploys.as_deref(),
            now: since_1970().as_secs(),
        };
        page.response()
    }

    /// Returns the times for pages, which are shorter than those for platforms, since a person waits.
    fn page_times(&self) -> Times {
        Times {
            place: self.shared.times.place.min(PAGE_PLACE),
            answer: self.shared.times.answer.min(PAGE_ANSWER),
            ..self.shared.times
        }
    }

    async fn traffic(&self, app: &AppView) -> Option<Arc<LastReading>> {
        let resource = &app.resource;
        let backends = app.service.iter().flat_map(|view| &view.backends);
        let subject = AppSubject::new(resource.port, backends.map(|backend| backend.backend));
        let observer = &self.shared.traffic;
        observer.reading(resource.id, subject, app.mark, FIRST_READING).await
    }

    /// Returns the last deploys of an app; `None`: the store does not answer in time.
    async fn last_deploys(&self, app: &AppView, times: &Times) -> Option<Vec<StoredDeploy>> {
        let service = app.resource.id.service();
        let query = |reply| DaemonRequest::Query(Query::Deploys(Some(service), DEPLOYS, reply));
        let answer = loop_request::send(&self.shared.requests, times, times.answer, query);
        answer.await.ok()?.ok()
    }
}

fn not_allowed(allowed: &'static str, text: &str) -> Response<Body> {
    let mut response = page::message(StatusCode::METHOD_NOT_ALLOWED, text);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Returns how a platform is told that the daemon refuses: a 5xx makes it try again later, a 4xx does not. Platforms show it to
/// the app's owner, so that it names neither files of the gateway nor other apps' services: those are logged.
fn platform_answer(refused: &Refused) -> (u16, String) {
    match refused {
        Refused::Invalid(problems) => {
            tracing::warn!(%problems, "refused a request to the provider API");
            (422, INVALID.to_owned())
        }
        Refused::Refused(text) => (422, text.clone()),
        Refused::Missing(text) => (404, text.clone()),
        Refused::Store(text) | Refused::Failed(text) => {
            tracing::warn!(why = %escape::text(text), "failed to carry out a request to the provider API");
            (503, FAILED.to_owned())
        }
        // Something else was changed meanwhile: the same again may do.
        Refused::Conflict(text, _) | Refused::Busy(text) => (503, text.clone()),
        Refused::Ending => (
            503,
            "the gateway is restarting; nothing was done, try again later".into(),
        ),
    }
}

fn method(method: &HttpMethod) -> Option<Method> {
    match *method {
        // Only the head of an answer to HEAD is sent.
        HttpMethod::GET | HttpMethod::HEAD => Some(Method::Get),
        HttpMethod::POST => Some(Method::Post),
        HttpMethod::PUT => Some(Method::Put),
        HttpMethod::PATCH => Some(Method::Patch),
        HttpMethod::DELETE => Some(Method::Delete),
        _ => None,
    }
}

/// Returns the version of the standard that an OSB request names; `None` if it names none. Headers that contradict each other name no
/// version that is known.
fn broker_version(headers: &HeaderMap) -> Option<&str> {
    let mut versions = headers.get_all("x-broker-api-version").iter();
    let first = versions.next()?;
    if versions.all(|other| other == first) {
        first.to_str().ok().or(Some(""))
    } else {
        Some("")
    }
}
