//! An app's page: what its owner wants to know of the add-on. Read-only, of this app only, and readable without the script.

mod containers;
mod deploys;
mod drops;
mod notices;

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use maud::{Markup, html};

use super::traffic::LastReading;
use crate::addon::ResourceStatus;
use crate::addon::dialect::gateway::GatewayProperties;
use crate::control::request::AppView;
use crate::date::utc;
use crate::store::StoredDeploy;
use crate::view::app::AppReading;
use crate::view::tally::FlowCounts;
use crate::web::{self, PageLayout, units};
use tcpgw_core::escape;
use tcpgw_core::model::{Limit, LimitDirection, Service, duration};

/// Age from which the page shows how old a reading is.
const LATE: Duration = Duration::from_secs(5);

/// The contents of an app's page.
pub(super) struct AppPage<'p> {
    pub(super) app: &'p AppView,
    pub(super) gateway: GatewayProperties<'p>,
    /// The app's page on its platform.
    pub(super) platform: Option<String>,
    /// Connections, traffic and drops; `None`: they are being read for the first time.
    pub(super) seen: Option<&'p LastReading>,
    /// Age of that reading.
    pub(super) age: Duration,
    /// The last deploys, the newest first; `None`: the store did not answer.
    pub(super) deploys: Option<&'p [StoredDeploy]>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// Redirects a browser to a page, with the cookie that opens it.
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

/// Returns a page with the reason why nothing is shown.
pub(super) fn message(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = web::message(status, "TCP gateway", text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

impl AppPage<'_> {
    /// Returns the page as an answer.
    pub(super) fn response(&self) -> Response<Body> {
        let layout = PageLayout {
            heading: "TCP gateway",
            subject: Some(self.app.resource.app.as_str()),
            back: self.platform.as_deref().map(|url| ("Back to the platform", url)),
        };
        web::response(StatusCode::OK, &layout, &self.content())
    }

    fn content(&self) -> Markup {
        let is_measuring = self.is_measuring();
        html! {
            div.live #notices { (notices::notices(self.app)) }
            section {
                h2 { "Address" }
                (self.address())
            }
            div.live #now data-measuring[is_measuring] {
                section {
                    h2 { "Now" }
                    (self.now())
                }
                section {
                    h2 { "Containers" }
                    (containers::containers(self.app, self.reading()))
                }
                section {
                    h2 { "Dropped" }
                    @if self.seen.is_some() { (drops::drops(self.reading(), &self.app.shared_backends, self.is_suspended())) } @else { p { "Being read." } }
                }
                section {
                    h2 { "Last deploys" }
                    (deploys::deploys(self.app, self.deploys))
                }
                section {
                    h2 { "Plan" }
                    (self.plan())
                }
                p.quiet {
                    "As of " (utc(i64::try_from(self.now).unwrap_or(i64::MAX))) " UTC. "
                    a href="" { "Look again" }
                    span #stale hidden { " The gateway did not answer the last time." }
                }
            }
            section {
                h2 { "When a connection ends" }
                (self.advice())
            }
        }
    }

    fn reading(&self) -> Option<&AppReading> {
        self.seen?.reading.as_ref().ok()
    }

    /// Returns whether the page shows more when it is loaded again soon.
    fn is_measuring(&self) -> bool {
        let Some(seen) = self.seen else { return true };
        let Ok(reading) = &seen.reading else { return false };
        // Containers of a suspended app have no traffic of which there could be a rate, unless they drain.
        if self.is_suspended() && reading.flows == FlowCounts::default() {
            return false;
        }
        let backends = self.app.service.iter().flat_map(|view| &view.backends);
        let mut backends = backends.map(|backend| reading.backends.get(&backend.backend));
        backends.any(|read| read.is_none() || reading.interval.is_none())
    }

    fn is_suspended(&self) -> bool {
        self.app.resource.status == ResourceStatus::Suspended
    }

    fn service(&self) -> Option<&Service> {
        self.app.service.as_ref().map(|view| &*view.listed.service)
    }

    fn address(&self) -> Markup {
        let url = self.gateway.tcp_url(self.app.resource.port);
        html! {
            p.line {
                code { "TCP_URL=" span #url { (url) } }
                button type="button" data-copies="url" data-says="copied" hidden { "Copy" }
                span #copied role="status" {}
            }
            p {
                "Clients connect to " strong { (self.gateway.host) } ", port " strong { (self.app.resource.port) }
                ". Both stay the same when you deploy or change the plan."
            }
        }
    }

    fn now(&self) -> Markup {
        let Some(seen) = self.seen else {
            return html! { p { "Connections and traffic are being read: look again in a few seconds." } };
        };
        let Ok(reading) = &seen.reading else {
            return html! { p { "Connections and traffic cannot be read at the moment. That alone keeps no client from being served." } };
        };
        let flows = reading.flows;
        let to = containers::sum(reading, |rates| rates.to);
        let from = containers::sum(reading, |rates| rates.from);
        html! {
            dl {
                div { dt { "Open connections" } dd { (units::count(flows.established)) } }
                div { dt { "Connecting" } dd { (units::count(flows.handshake)) } }
                div { dt { "Closing" } dd { (units::count(flows.closing)) } }
                @for (name, rate) in [("To the containers", to), ("From the containers", from)] {
                    @if let Some(rate) = rate {
                        div {
                            dt { (name) }
                            dd { (units::byte_rate(rate.bytes_per_second)) }
                            dd.words { (units::packet_rate(rate.packets_per_second)) }
                        }
                    }
                }
            }
            @if self.age >= LATE {
                p.quiet { "Read " (self.age.as_secs()) " s ago: the gateway is busy." }
            }
            @if seen.counts_traffic == Some(false) {
                p.quiet { "This gateway does not count the traffic of connections; what its limit drops is counted." }
            } @else if self.is_measuring() {
                p.quiet { "Rates need a second reading: look again in a few seconds." }
            } @else if let Some(interval) = reading.interval.filter(|_| !reading.backends.is_empty()) {
                p.quiet {
                    "Rates are taken over " (format!("{:.1}", interval.as_secs_f64())) " s, before the limit drops what is over it. \
                     Packets that the network card or the kernel has merged count once."
                }
            }
        }
    }

    fn plan(&self) -> Markup {
        let resource = &self.app.resource;
        let served = self.app.served.as_deref().or_else(|| self.service());
        let limit = served.and_then(|service| service.limit);
        let plan = self.gateway.plans.of(resource);
        html! {
            p {
                strong { (resource.plan) }
                @if let Some(plan) = plan.filter(|plan| !plan.description.is_empty()) { ": " (escape::text(&plan.description)) }
            }
            @if let Some(limit) = limit { (self::limit(limit)) }
            @if plan.is_none() {
                p.quiet { "This plan is not offered any more. You keep it until you choose another one." }
            } @else if plan.is_some_and(|plan| Some(plan.limit) != limit) && resource.status == ResourceStatus::Active {
                p.quiet { "The plan's limit was changed since: the new one holds after your next change of plan, or when the add-on is resumed." }
            }
        }
    }

    fn advice(&self) -> Markup {
        let drain = self.service().map(|service| duration::show(service.drain_timeout));
        html! {
            p {
                "When you deploy, new connections go to the new containers as soon as these answer. Connections to the old ones go on until \
                 they end"
                @if let Some(drain) = &drain { ", at most for " (drain) }
                ". Close them in your protocol's way when a container gets SIGTERM, so that clients notice at once."
            }
            p {
                "Clients should connect again when a connection ends, fails or is refused: after a random time of up to a second, then of up \
                 to twice as long each time, and of up to a minute at most. A keepalive finds connections that were cut without a word."
            }
        }
    }
}

fn limit(limit: Limit) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
    let bytes = units::bytes(limit.bytes_per_second() as f64);
    let pps = units::count(limit.pps.into());
    html! {
        p {
            @match limit.direction {
                LimitDirection::Each => {
                    "Each container may receive " (pps) " packets and " (bytes) " per second, and send as much."
                }
                LimitDirection::Shared => {
                    "Each container may receive and send " (pps) " packets and " (bytes) " per second, both directions together."
                }
            }
            " After a pause a burst of " (units::count(limit.burst.into())) " packets passes. What is over is dropped, and TCP sends it again."
        }
        p.quiet {
            (pps) " packets of " (units::count(limit.mtu.into())) " bytes are " (bytes) ": small packets reach the limit in packets, large \
             ones that in bytes."
        }
    }
}

#[cfg(test)]
mod tests;
