//! An app's page: what its owner wants to know of the add-on. Read-only; no script is needed to read it.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use maud::{DOCTYPE, Markup, html};

use crate::addon::Status;
use crate::addon::dialect::Gateway;
use crate::daemon::ask::{AppView, BackendView};
use crate::words::count;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns a file that pages use.
pub(super) fn asset(name: &str) -> Option<Response<Body>> {
    let (media, text) = match name {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

/// Leads a browser to a page, with the cookie that opens it.
pub(super) fn redirect(to: &str, cookie: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    for (name, value) in [(header::LOCATION, to), (header::SET_COOKIE, cookie)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the page of one app.
pub(super) fn page(app: &AppView, gateway: Gateway<'_>) -> Response<Body> {
    let mut response = Response::new(Body::from(document(app, gateway).into_string()));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn document(app: &AppView, gateway: Gateway<'_>) -> Markup {
    let resource = &app.resource;
    let url = gateway.tcp_url(resource.port);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "TCP gateway: " (resource.app) }
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body {
                main {
                    h1 { "TCP gateway" }
                    p.app { (resource.app) }
                    section {
                        h2 { "Address" }
                        p.url { code #url { "TCP_URL=" (url) } " " button type="button" #copy hidden { "Copy" } }
                        @if resource.status == Status::Suspended {
                            p.warning { "Suspended: new connections are reset until your platform resumes it." }
                        }
                    }
                    section {
                        h2 { "Plan" }
                        (plan(app))
                    }
                    section {
                        h2 { "Containers" }
                        (containers(app))
                    }
                    @if let Some(deploy) = app.service.as_ref().and_then(|service| service.deploy.as_ref()) {
                        section {
                            h2 { "Deploy" }
                            p { "Deploy " (deploy.id) " is under way: " (deploy.phase) "." }
                        }
                    }
                    section {
                        h2 { "When a connection ends" }
                        p {
                            "A new version takes over new connections as soon as it answers. The old containers get SIGTERM; what they do \
                             not close ends at the drain timeout. Connect again, after a random time of up to a second, then after \
                             twice as long each time."
                        }
                    }
                }
            }
        }
    }
}

fn plan(app: &AppView) -> Markup {
    let limit = app.service.as_ref().and_then(|service| service.listed.service.limit);
    html! {
        p {
            strong { (app.resource.plan) }
            @if let Some(limit) = limit {
                ": each container may receive " (limit.pps) " packets and " (limit.bytes_per_second())
                " bytes per second, and send as much. A burst of " (limit.burst) " packets passes. What is over is dropped."
            }
        }
    }
}

fn containers(app: &AppView) -> Markup {
    let backends: &[BackendView] = app.service.as_ref().map_or(&[], |service| &service.backends);
    html! {
        @if backends.is_empty() {
            p { "None is registered: new connections are refused. Declare a " code { "tcp:" } " process in the Procfile and deploy." }
        } @else {
            p { (count(backends.len(), "container")) }
            table {
                thead { tr { th { "Container" } th { "State" } th { "Health" } th { "Connections left" } } }
                tbody {
                    @for backend in backends {
                        tr {
                            td { (backend.backend) }
                            td { @if backend.leaving { "draining" } @else if backend.balanced { "gets new connections" } @else { "waits" } }
                            td {
                                (backend.health.unwrap_or("not probed"))
                                @if let Some(reason) = &backend.reason { ": " (reason) }
                            }
                            td { @if let Some(flows) = backend.flows { (flows) } @else { "–" } }
                        }
                    }
                }
            }
        }
    }
}
