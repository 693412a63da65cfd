//! Handler of the listener's requests, by their paths.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::sync::{mpsc, watch};

use super::actions::{WantedAction, WebActions};
use super::answers::{plain, set_headers};
use super::authentication::{self, AccessDenied};
use super::live::LivePages;
use super::pages::{self, Pages};
use super::reader::MetricsReader;
use super::site::Web;
use crate::api::limits::URI;
use crate::api::listener::{Authenticated, Handler, Site as _, client};
use crate::api::server::closing;
use crate::api::settings::ApiSettings;
use crate::control::request::DaemonRequest;
use crate::dashboard;
use crate::locked::locked;
use crate::metrics::{MetricsFormat, MetricsScope, OwnFile};
use crate::throttle::Throttle;

/// Handler of the listener's requests.
pub(super) struct WebHandler {
    reader: Arc<MetricsReader>,
    pages: Pages,
    live: LivePages,
    actions: WebActions,
    throttle: Mutex<Throttle>,
}

impl WebHandler {
    pub(super) fn new(
        requests: mpsc::Sender<DaemonRequest>,
        settings: &ApiSettings,
        file: OwnFile,
        sites: watch::Receiver<Arc<Web>>,
        ends: watch::Receiver<bool>,
    ) -> Self {
        let actions = WebActions::new(requests.clone(), settings.times);
        let live = LivePages::new(requests.clone(), settings.times, sites, ends);
        let reader = Arc::new(MetricsReader::new(requests.clone(), settings.clone(), file));
        Self {
            pages: Pages::new(Arc::clone(&reader), requests, settings),
            live,
            actions,
            reader,
            throttle: Mutex::default(),
        }
    }

    /// Answers a request that may be answered.
    async fn route(&self, site: &Web, parts: &Parts) -> Response<Body> {
        if let Some(action) = action(parts) {
            return self.actions.ask(site, &action).await;
        }
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let query = parts.uri.query().unwrap_or_default();
        match segments.as_slice() {
            ["metrics"] => self.metrics(parts).await,
            [""] => self.pages.overview().await,
            ["services"] => self.pages.services(query).await,
            ["services", name] if !name.is_empty() => self.pages.service(site, &decoded(name)).await,
            ["deploys", id] => self.pages.deploy(site, id).await,
            ["apps", id] => self.pages.app(site, id).await,
            ["doctor"] => self.pages.doctor(site).await,
            ["live"] => self.live.answer(query).await,
            ["assets", hash, name] => dashboard::asset(hash, name).unwrap_or_else(pages::nothing),
            _ => pages::nothing(),
        }
    }

    async fn metrics(&self, parts: &Parts) -> Response<Body> {
        let scope = match scope(parts.uri.query().unwrap_or_default()) {
            Ok(scope) => scope,
            Err(text) => return plain(StatusCode::BAD_REQUEST, text),
        };
        let accept = parts.headers.get_all(header::ACCEPT).into_iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        let format = MetricsFormat::accepted(&accept.join(","));
        match self.reader.text(format, scope).await {
            Ok(text) => {
                let mut response = Response::new(Body::from(text));
                set_headers(&mut response, format.media_type());
                response
            }
            Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    }

    /// Answers a request without the right token.
    fn refuse(&self, from: IpAddr) -> Response<Body> {
        let mut throttle = locked(&self.throttle);
        let wait = throttle.fail(from, Instant::now());
        drop(throttle);
        // Attempts without end do not fill the log.
        if wait.is_none() {
            tracing::warn!(%from, "refused a request to the web listener with a wrong token");
        }
        authentication::refusal(wait.map(|wait| wait.as_secs().max(1)))
    }
}

impl Handler for WebHandler {
    const NAME: &'static str = "the web listener";
    type Site = Web;

    async fn answer(
        &self,
        site: &Web,
        from: IpAddr,
        request: Request<Incoming>,
        asks: &(dyn Fn() + Sync),
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let from = client(site.is_behind_proxy(), from, &parts.headers);
        match site.admit(&parts.headers) {
            Ok(()) => {}
            // A browser asks without credentials first, and again with them: that is no guess.
            Err(AccessDenied::Token) if !parts.headers.contains_key(header::AUTHORIZATION) => {
                return authentication::refusal(None);
            }
            Err(AccessDenied::Token) => return self.refuse(from),
            Err(AccessDenied::SeveralHosts) => {
                return closing(plain(StatusCode::BAD_REQUEST, "there is more than one Host header\n"));
            }
            Err(AccessDenied::Host) => {
                let text =
                    "this listener is for this machine: use http://localhost, http://127.0.0.1 or http://[::1]\n";
                return closing(plain(StatusCode::MISDIRECTED_REQUEST, text));
            }
        }
        asks();
        // Nothing is read from a body, but for the form of an order: a connection that brings one ends.
        let has_body = !hyper::body::Body::is_end_stream(&body);
        let is_too_long = parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > URI;
        let mut response = match (&parts.method, action(&parts)) {
            _ if is_too_long => plain(StatusCode::URI_TOO_LONG, "path and query are too long\n"),
            (&Method::GET | &Method::HEAD, _) => self.route(site, &parts).await,
            (&Method::POST, Some(action)) => self.actions.order(site, from, &action, &parts, Body::new(body)).await,
            (_, action) => not_allowed(action.is_some()),
        };
        response.extensions_mut().insert(Authenticated);
        if has_body { closing(response) } else { response }
    }
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// Returns the action that a request names, if it names one.
fn action(parts: &Parts) -> Option<WantedAction> {
    let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    WantedAction::read(&segments, parts.uri.query().unwrap_or_default())
}

fn not_allowed(takes_orders: bool) -> Response<Body> {
    let (text, methods) = if takes_orders {
        ("only GET, HEAD and POST are allowed here\n", "GET, HEAD, POST")
    } else {
        ("only GET and HEAD are allowed here\n", "GET, HEAD")
    };
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Returns the scope that a query asks for.
fn scope(query: &str) -> Result<MetricsScope, &'static str> {
    let mut scope = MetricsScope::Default;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        scope = match (&*name, &*value) {
            ("scope", "backend") => MetricsScope::Backend,
            ("scope", "service") => MetricsScope::Service,
            ("scope", _) => return Err("scope must be service or backend\n"),
            // Prometheus' probes of many targets add parameters of their own, which mean nothing here.
            _ => scope,
        };
    }
    Ok(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_asked_for_by_name() {
        assert_eq!(scope(""), Ok(MetricsScope::Default));
        assert_eq!(scope("scope=backend"), Ok(MetricsScope::Backend));
        assert_eq!(scope("a=b&scope=service"), Ok(MetricsScope::Service));
        assert!(scope("scope=all").is_err());
    }
}
