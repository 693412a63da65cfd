//! The page of one service. Each section is a function of its own, so that it can be asked for alone.

use maud::{Markup, html};

use super::backends::backends;
use super::drops::drops;
use super::flows::FlowList;
use super::frame::{DashboardPage, NavigationPlace, short_table, tiles};
use super::history;
use super::orders::orders;
use super::overview::problem;
use super::rates::{limit, rates_note};
use super::services::condition;
use crate::control::events::Event;
use crate::control::request::{BackendView, ServiceView, TargetView};
use crate::metrics::{Reading, ServiceSample};
use crate::store::{HistoryEntry, StoredDeploy};
use crate::web::table::{PageColumn, captioned};
use crate::web::units;
use tcpgw_core::escape;
use tcpgw_core::model::{Service, duration};
use tcpgw_core::problem::MOST_OF_KIND;

/// All that is known of one service.
#[derive(Debug, Clone, Copy)]
pub struct ServicePage<'p> {
    /// Name of the service.
    pub name: &'p str,
    /// Values of all services.
    pub reading: &'p Reading,
    /// Values of this one; `None`: the kernel does not have it.
    pub sample: Option<&'p ServiceSample>,
    /// The service as it was ordered, with its state; `None`: no provider has it, or its name is not known.
    pub view: Option<&'p ServiceView>,
    /// Its flows, or the reason why they cannot be shown.
    pub flows: Result<&'p FlowList, &'p str>,
    /// Its last deploys, the newest first; `None`: the store did not answer.
    pub deploys: Option<&'p [StoredDeploy]>,
    /// Its last changes, the newest first; `None`: the store did not answer.
    pub history: Option<&'p [HistoryEntry]>,
    /// Its last events, the newest first; `None`: the daemon did not answer.
    pub events: Option<&'p [&'p Event]>,
    /// Traffic of the last hour as a plot; `None`: it is not recorded.
    pub last_hour: Option<&'p Markup>,
    /// Whether orders can be given here.
    pub may_order: bool,
}

impl ServicePage<'_> {
    /// Returns the page of a service.
    pub fn page(&self) -> DashboardPage {
        DashboardPage {
            heading: format!("Service {}", escape::text(self.name)),
            place: NavigationPlace::Services,
            content: html! {
                div.live #summary { (self.summary()) }
                div.live #backends data-measuring[self.reading.is_measuring()] { (self.backends()) }
                div.live #traffic { (self.traffic()) }
                @if let Some(plot) = self.last_hour {
                    div.live #last-hour {
                        section aria-labelledby="last-hour-heading" { h2 #last-hour-heading { "Traffic of the last hour" } (plot) }
                    }
                }
                div.live #drains { (self.drains()) }
                div.live #drops { (self.drops()) }
                div.live #flows { (self.flows()) }
                div.live #deploys { (self.deploys()) }
                div.live #events { (self.events()) }
                div.live #history { (self.history()) }
                div.live #settings { (self.settings()) }
                @if let Some(view) = self.view.filter(|_| self.may_order) { div.live #orders { (orders(self.name, view)) } }
            },
        }
    }

    /// Returns the condition of the service and its problems.
    pub fn summary(&self) -> Markup {
        let is_of = |name: &Option<String>| name.as_deref() == Some(self.name);
        let problems: Vec<_> = self
            .reading
            .listed_problems
            .iter()
            .filter(|of| is_of(&of.service))
            .collect();
        let has_more = self.reading.problems.values().any(|number| *number > MOST_OF_KIND);
        let view = self.view;
        html! {
            p {
                @match self.sample {
                    Some(of) => { (condition(of.condition)) " " (of.condition.meaning()) ". " },
                    None => { span.state.down { "not served" } " The kernel does not have it. " },
                }
                @match view {
                    Some(view) if view.in_kernel => "The kernel holds what was ordered. ",
                    Some(_) => { span.state.degraded { "not in sync" } " The kernel does not hold what was ordered of it. " },
                    None => "No provider has it any more, or its name is not known. ",
                }
                @if let Some(seconds) = view.and_then(|view| view.paused_for) {
                    span.state.paused { "paused" } " New connections wait for " (units::span(seconds)) " more. "
                }
            }
            @if let Some(deploy) = view.and_then(|view| view.deploy.as_ref()) {
                p.notice {
                    a href=(history::deploy_url(deploy.id)) { "Deploy " (deploy.id) } " is under way: " (deploy.phase)
                    @if let Some(seconds) = deploy.seconds_left { ", at most " (units::span(seconds)) " more" } ". "
                    (targets(&deploy.targets))
                }
            }
            @for reason in view.iter().flat_map(|view| &view.listed.held_back) {
                p.notice { "Held back: " (escape::text(reason)) }
            }
            @if !problems.is_empty() {
                section aria-labelledby="problems-heading" {
                    h2 #problems-heading { "Problems" }
                    ul.problems { @for one in problems { li { (problem(one)) } } }
                }
            }
            @if has_more { p.quiet { "There are so many problems of one kind that not all are shown: " code { "tcpgw status" } " tells of this service." } }
        }
    }

    /// Returns the backends.
    pub fn backends(&self) -> Markup {
        html! {
            section aria-labelledby="backends-heading" {
                h2 #backends-heading { "Backends" }
                (backends(self.name, self.reading, self.sample, self.view))
            }
        }
    }

    /// Returns what passes the service now, against its limit.
    pub fn traffic(&self) -> Markup {
        let totals = self.reading.totals.as_ref();
        let change = totals.and_then(|totals| totals.change.as_ref());
        let pace = change.map(|change| change.of_service(self.name));
        let mut values: Vec<(&str, Markup)> = Vec::new();
        if let Some(pace) = pace {
            values.push(("New connections", html! { (units::event_rate(pace.connections)) }));
        }
        if let Some(of) = self.sample.filter(|_| self.reading.kernel.is_some()) {
            values.push(("Open connections", html! { (units::count(of.flows.established)) }));
            values.push(("Handshakes under way", html! { (units::count(of.flows.handshake)) }));
            values.push(("Unanswered handshakes", html! { (units::count(of.unanswered)) }));
        }
        if let Some(pace) = pace.filter(|_| totals.is_some_and(|totals| totals.counts_bytes)) {
            for (name, rate) in [("To backends", pace.rates.to), ("From backends", pace.rates.from)] {
                let text = html! { (units::byte_rate(rate.bytes_per_second)) small { " " (units::packet_rate(rate.packets_per_second)) } };
                values.push((name, text));
            }
        }
        let own_limit = self.sample.and_then(|of| of.limit);
        html! {
            section aria-labelledby="traffic-heading" {
                h2 #traffic-heading { "Traffic" }
                (tiles(&values))
                @match own_limit { Some(of) => (limit(of)), None => p { "There is no limit." } }
                (rates_note(self.reading))
            }
        }
    }

    /// Returns the backends that drain, with the time that they have left.
    pub fn drains(&self) -> Markup {
        let backends = self.view.iter().flat_map(|view| &view.backends);
        let columns = [
            PageColumn::Text("Backend"),
            PageColumn::Text("Waits for"),
            PageColumn::Numbers("Connections"),
            PageColumn::Numbers("Ends in at most"),
        ];
        let row = |backend: &BackendView| {
            vec![
                html! { (backend.backend) },
                html! { @if backend.balanced { "another backend that answers" } @else { "its connections to end" } },
                html! { @match backend.flows { Some(flows) => (units::count(flows)), None => "not counted yet" } },
                html! { @match backend.seconds_left { Some(seconds) => (units::span(seconds)), None => "no deadline yet" } },
            ]
        };
        let rows: Vec<_> = backends.filter(|backend| backend.leaving).map(row).collect();
        html! {
            @if !rows.is_empty() {
                section aria-labelledby="drains-heading" {
                    h2 #drains-heading { "Drains" }
                    (short_table("Backends that drain", &columns, &rows))
                }
            }
        }
    }

    /// Returns what was dropped, by reason.
    pub fn drops(&self) -> Markup {
        html! {
            section aria-labelledby="drops-heading" {
                h2 #drops-heading { "Dropped packets" }
                (drops(self.name, self.reading))
            }
        }
    }

    /// Returns the flows with their clients.
    pub fn flows(&self) -> Markup {
        html! {
            section aria-labelledby="flows-heading" {
                h2 #flows-heading { "Connections" }
                @match self.flows {
                    Ok(flows) => (flows.markup()),
                    Err(why) => p { "They cannot be shown now: " (escape::text(why)) "." },
                }
            }
        }
    }

    /// Returns the last deploys.
    pub fn deploys(&self) -> Markup {
        html! {
            section aria-labelledby="deploys-heading" {
                h2 #deploys-heading { "Last deploys" }
                (history::deploys(self.deploys))
            }
        }
    }

    /// Returns the last events.
    pub fn events(&self) -> Markup {
        html! {
            section aria-labelledby="events-heading" {
                h2 #events-heading { "Last events" }
                (history::events(self.events))
            }
        }
    }

    /// Returns the last changes.
    pub fn history(&self) -> Markup {
        html! {
            section aria-labelledby="history-heading" {
                h2 #history-heading { "History" }
                (history::history(self.history))
            }
        }
    }

    /// Returns the service as it was ordered.
    pub fn settings(&self) -> Markup {
        let Some(view) = self.view else { return html! {} };
        let listed = &view.listed;
        let service: &Service = &listed.service;
        let mut values: Vec<(&str, Markup)> = vec![
            ("Port", html! { (service.port) }),
            ("Provider", html! { (listed.provider) }),
            ("Drain timeout", html! { (duration::show(service.drain_timeout)) }),
        ];
        if let Some(addon) = &listed.addon {
            values.push((
                "App",
                html! { a href=(history::app_url(addon.id)) { (addon.app.as_str()) } },
            ));
            values.push(("Plan", html! { (addon.plan) }));
        }
        if let Some(revision) = listed.revision {
            values.push(("Revision", html! { (revision) }));
        }
        let labels = service.labels.iter();
        let labels: Vec<_> = labels
            .map(|(label, value)| vec![html! { (escape::text(label)) }, html! { (escape::text(value)) }])
            .collect();
        html! {
            section aria-labelledby="settings-heading" {
                h2 #settings-heading { "Settings" }
                (tiles(&values))
                @if !service.labels.is_empty() {
                    (captioned("short", &html! { caption { "Labels" } }, &["Label", "Value"].map(PageColumn::Text), &labels))
                }
                p.quiet { "All settings: " code { "tcpgw service show " (escape::text(self.name)) } }
            }
        }
    }
}

fn targets(targets: &[TargetView]) -> Markup {
    let answer = targets.iter().filter(|target| target.health == "healthy").count();
    html! { (answer) " of " (targets.len()) " new backends answer." }
}
