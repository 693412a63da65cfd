//! The overview: what is wrong first, then what the whole gateway does.

use std::net::SocketAddr;

use maud::{Markup, html};

use super::frame::{DashboardPage, NavigationPlace, service_url, tiles};
use super::query::ServicesQuery;
use super::rates::rates_note;
use super::services::condition;
use crate::date::utc_of;
use crate::metrics::Reading;
use crate::view::condition::ServiceCondition;
use crate::view::tally::FlowCounts;
use crate::view::totals_rates::TrafficPace;
use crate::web::meter::meter;
use crate::web::table::{PageColumn, captioned};
use crate::web::units;
use tcpgw_core::escape;
use tcpgw_core::problem::{Problem, Severity};
use tcpgw_core::words::count;

/// Number of problems that the overview shows.
const PROBLEMS: usize = 20;

/// Values of the overview.
#[derive(Debug, Clone, Copy)]
pub struct Overview<'o> {
    /// Values of the gateway.
    pub reading: &'o Reading,
    /// Host name of the gateway.
    pub host: &'o str,
    /// Seconds since 1970.
    pub now: u64,
}

impl Overview<'_> {
    /// Returns the overview as a page.
    pub fn page(&self) -> DashboardPage {
        DashboardPage {
            heading: "Overview".into(),
            place: NavigationPlace::Overview,
            content: html! {
                div.live #problems { (self.problems()) }
                div.live #now data-measuring[self.reading.is_measuring()] { (self.traffic()) }
                div.live #states { (self.states()) }
                div.live #node { (self.node()) }
            },
        }
    }

    /// Returns the problems, the worst first.
    pub fn problems(&self) -> Markup {
        let reading = self.reading;
        let number = |wanted: Severity| -> usize {
            let of = reading.problems.iter().filter(|((severity, _), _)| *severity == wanted);
            of.map(|(_, number)| number).sum()
        };
        let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
        html! {
            section aria-labelledby="problems-heading" {
                h2 #problems-heading { "Problems" }
                p {
                    @if reading.node.torn_down {
                        span.state.down { "torn down" } " Nothing is served until " code { "tcpgw resume" } ". "
                    } @else if reading.in_sync {
                        span.state.up { "in sync" } " The kernel holds what was ordered. "
                    } @else {
                        span.state.down { "not in sync" } " The kernel does not hold what was ordered. "
                    }
                    @if errors + warnings == 0 { "There are no problems." } @else { (count(errors, "error")) ", " (count(warnings, "warning")) "." }
                }
                @if !reading.listed_problems.is_empty() {
                    ul.problems { @for one in reading.listed_problems.iter().take(PROBLEMS) { li { (problem(one)) } } }
                    @if errors + warnings > PROBLEMS {
                        p.quiet { "These are the worst " (PROBLEMS) "; " code { "tcpgw status" } " lists more." }
                    }
                }
            }
        }
    }

    /// Returns what passes the gateway now.
    pub fn traffic(&self) -> Markup {
        let reading = self.reading;
        let flows = reading
            .services
            .iter()
            .fold(FlowCounts::default(), |sum, of| sum.and(of.flows));
        let totals = reading.totals.as_ref();
        let change = totals.and_then(|totals| totals.change.as_ref());
        let paces = change.map(|change| {
            let services = reading.services.iter().map(|of| change.of_service(&of.name));
            services.fold(TrafficPace::default(), TrafficPace::and)
        });
        let bytes = paces.filter(|_| totals.is_some_and(|totals| totals.counts_bytes));
        let mut values: Vec<(&str, Markup)> = Vec::new();
        if let Some(pace) = paces {
            values.push(("New connections", html! { (units::event_rate(pace.connections)) }));
        }
        if let Some(pace) = bytes {
            values.push((
                "To backends",
                html! { (units::byte_rate(pace.rates.to.bytes_per_second)) },
            ));
            values.push((
                "From backends",
                html! { (units::byte_rate(pace.rates.from.bytes_per_second)) },
            ));
        }
        if let Some(pace) = paces {
            values.push(("Dropped packets", html! { (units::event_rate(pace.drops)) }));
        }
        if let Some(kernel) = reading.kernel {
            values.push(("Open connections", html! { (units::count(flows.established)) }));
            values.push(("Handshakes under way", html! { (units::count(flows.handshake)) }));
            if let Some((entries, limit)) = kernel.read.conntrack {
                values.push((
                    "Conntrack entries",
                    html! { (units::count(entries)) (meter(part(entries, limit))) },
                ));
            }
            values.push((
                "Source ports, of the fullest pair",
                html! { (meter(kernel.source_ports_used)) },
            ));
        }
        html! {
            section aria-labelledby="now-heading" {
                h2 #now-heading { "Now" }
                (tiles(&values))
                (rates_note(reading))
            }
        }
    }

    /// Returns the numbers of services by condition.
    pub fn states(&self) -> Markup {
        let services = &self.reading.services;
        let states = ServiceCondition::ALL.map(|state| {
            let number = services.iter().filter(|of| of.condition == state).count();
            (state, number)
        });
        let columns = [
            PageColumn::Text("State"),
            PageColumn::Numbers("Services"),
            PageColumn::Text("Meaning"),
        ];
        let row = |(state, number): (ServiceCondition, usize)| {
            vec![
                condition(state),
                html! { a href=(of_state(state)) { (units::count(number as u64)) span.hidden { " services: " (state.word()) } } },
                html! { (state.meaning()) },
            ]
        };
        let rows: Vec<_> = states.into_iter().filter(|(_, number)| *number > 0).map(row).collect();
        html! {
            section aria-labelledby="states-heading" {
                h2 #states-heading { "Services" }
                p { a href="/services" { (count(services.len(), "service")) } ", " (count(self.reading.backends, "backend")) @if self.reading.draining > 0 { ", " (count(self.reading.draining, "drain")) } "." }
                @if !services.is_empty() {
                    (captioned("states", &html! { caption.hidden { "Services by state" } }, &columns, &rows))
                }
            }
        }
    }

    /// Returns what is known of the machine and the daemon.
    pub fn node(&self) -> Markup {
        let reading = self.reading;
        let node = &reading.node;
        let values = [
            ("Host", html! { (escape::text(self.host)) }),
            ("Version", html! { (reading.version) }),
            (
                "Running for",
                html! { (units::span(self.now.saturating_sub(node.started))) },
            ),
            ("Process", html! { (node.pid) }),
            (
                "Last change of the kernel's rules",
                html! { @match reading.last_commit { Some(at) => { (utc_of(at)) " UTC" }, None => "none yet" } },
            ),
            (
                "Last read of the kernel took",
                html! { (reading.reads.took.as_millis()) " ms" },
            ),
        ];
        html! {
            section aria-labelledby="node-heading" {
                h2 #node-heading { "Node" }
                (tiles(&values))
                @if let Some(why) = &node.store { p.notice { "Changes through the API are refused: " (escape::text(why)) } }
                p.quiet { "As of " (utc_of(self.now)) " UTC." }
            }
        }
    }
}

/// Returns a problem: how bad it is, whose it is, and what to do.
pub(super) fn problem(problem: &Problem) -> Markup {
    let (class, word) = match problem.severity {
        Severity::Error => ("down", "error"),
        Severity::Warning => ("degraded", "warning"),
    };
    // Most messages begin with the name, and name the backend.
    let service = problem.service.as_deref();
    let message = service.map_or(&*problem.message, |service| without_name(&problem.message, service));
    let backend = problem.backend.map(|backend| backend.to_string());
    html! {
        span class={ "state " (class) } { (word) } " "
        @if let Some(service) = service { a href=(service_url(service)) { (service) } " " }
        @if let Some(backend) = backend.filter(|backend| !message.contains(backend)) { code { (backend) } " " }
        (escape::text(message.trim_start()))
        " " span.quiet { "[" (problem.kind.word()) "]" }
    }
}

/// Returns a message without the name of the service that it begins with, where the addresses follow as in a
/// [`title`](crate::view::problems::title). Any other first word may be equal to a name by chance.
fn without_name<'m>(message: &'m str, name: &str) -> &'m str {
    let rest = message.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
    let is_title = |rest: &str| {
        let first = rest.split([' ', ',']).next().unwrap_or_default();
        let first = first.strip_suffix(':').unwrap_or(first);
        let port = first.strip_prefix(':');
        port.is_some_and(|port| port.parse::<u16>().is_ok()) || first.parse::<SocketAddr>().is_ok()
    };
    rest.filter(|rest| is_title(rest)).unwrap_or(message)
}

fn of_state(state: ServiceCondition) -> String {
    let query = ServicesQuery {
        condition: Some(state),
        ..ServicesQuery::default()
    };
    query.url()
}

#[expect(clippy::cast_precision_loss, reason = "a part is rounded anyway")]
fn part(entries: u64, limit: u64) -> f64 {
    entries as f64 / limit.max(1) as f64
}
