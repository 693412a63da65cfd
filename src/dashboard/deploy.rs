//! The page of one deploy: the swap of backends.

use std::net::SocketAddr;

use maud::{Markup, html};

use super::frame::{DashboardPage, NavigationPlace, service_url, short_table, tiles};
use super::history;
use crate::control::request::DeployView;
use crate::control::storage::DeployRecord;
use crate::date::utc_of;
use crate::metrics::{BackendValues, Reading};
use crate::store::DeployPhase;
use crate::web::table::PageColumn;
use crate::web::units;
use tcpgw_core::escape;
use tcpgw_core::model::Word as _;

/// Steps of a deploy that succeeds, each with what happens then.
const STEPS: [(&str, &str); 3] = [
    ("probing", "the new backends are probed; the old ones serve as before"),
    (
        "switched",
        "new connections go to the new backends; those to the old ones end, or are ended",
    ),
    ("drained", "the old backends have left"),
];

/// The page of a deploy.
#[derive(Debug, Clone, Copy)]
pub struct DeployPage<'p> {
    /// The deploy, as the store has it.
    pub record: &'p DeployRecord,
    /// Its progress; `None`: it is over.
    pub progress: Option<&'p DeployView>,
    /// Values of all services.
    pub reading: &'p Reading,
    /// Whether orders can be given here.
    pub may_order: bool,
}

impl DeployPage<'_> {
    /// Returns the page of a deploy.
    pub fn page(&self) -> DashboardPage {
        DashboardPage {
            heading: format!("Deploy {}", self.record.deploy.id),
            place: NavigationPlace::Services,
            content: html! {
                div.live #phases {
                    (self.phases())
                    @if self.may_order && self.progress().is_some() {
                        p { a href={ "/deploys/" (self.record.deploy.id) "/rollback" } { "Roll back…" } }
                    }
                }
                div.live #swap { (self.swap()) }
                (self.order())
            },
        }
    }

    fn progress(&self) -> Option<&DeployView> {
        // The store knows of the end first, or the loop does: what is over is over.
        self.progress.filter(|_| !self.record.deploy.phase.is_over())
    }

    fn phase(&self) -> &str {
        self.progress()
            .map_or_else(|| self.record.deploy.phase.word(), |progress| &progress.phase)
    }

    /// Returns how far the deploy is, and how it ended.
    pub fn phases(&self) -> Markup {
        let (deploy, phase, progress) = (&self.record.deploy, self.phase(), self.progress());
        let reason = progress
            .and_then(|progress| progress.reason.as_ref())
            .or(deploy.reason.as_ref());
        let has_failed = [DeployPhase::Failed, DeployPhase::Undone]
            .iter()
            .any(|of| of.word() == phase);
        // What was decided is not in the kernel yet.
        let current = if phase == "switching" { "probing" } else { phase };
        html! {
            p {
                "Service " a href=(service_url(&deploy.service)) { (escape::text(&deploy.service)) } ": " (history::phase(phase)) " "
                @match phase {
                    "probing" => "The new backends are probed.",
                    "switching" => "The new backends have answered: new connections are about to go to them.",
                    "switched" => "New connections go to the new backends, the old ones drain.",
                    "drained" => "The old backends have left.",
                    "failed" => "Nothing was switched: the service is served as before.",
                    "undone" => "It was taken back: the service is served as before.",
                    _ => "",
                }
                @if let Some(seconds) = progress.and_then(|progress| progress.seconds_left) { " At most " (units::span(seconds)) " more." }
            }
            @if let Some(reason) = reason { p { "Reason: " (escape::text(reason)) } }
            @if !has_failed {
                ol.steps {
                    @for (step, meaning) in STEPS {
                        li aria-current=[(step == current).then_some("step")] { strong { (step) } ": " (meaning) }
                    }
                }
            }
        }
    }

    /// Returns the new and the old backends.
    pub fn swap(&self) -> Markup {
        let record = self.record;
        let old: Vec<SocketAddr> = match self.progress() {
            Some(progress) if !progress.old.is_empty() => progress.old.clone(),
            _ => record.old.iter().map(|old| SocketAddr::from(*old)).collect(),
        };
        let new: Vec<SocketAddr> = record.deploy.targets.iter().map(|new| SocketAddr::from(*new)).collect();
        let flows = self.progress().and_then(|progress| progress.flows);
        html! {
            section aria-labelledby="new-heading" {
                h2 #new-heading { "New backends" }
                (self.table("New backends", &new))
            }
            section aria-labelledby="old-heading" {
                h2 #old-heading { "Old backends" }
                @if old.is_empty() { p { "None are known: before the switch it is not decided which leave." } } @else { (self.table("Old backends", &old)) }
                @if let Some(progress) = self.progress().filter(|progress| progress.phase == "switched") {
                    p { (progress.left) " of " (progress.old.len()) " have drained" @if let Some(flows) = flows { "; " (units::count(flows)) " connections are left" } "." }
                }
            }
        }
    }

    fn table(&self, caption: &str, backends: &[SocketAddr]) -> Markup {
        let service = self
            .reading
            .services
            .iter()
            .find(|of| *of.name == *self.record.deploy.service);
        let values = |backend: &SocketAddr| service?.backends.iter().find(|of| of.backend == *backend);
        let targets = self.progress().map(|progress| &*progress.targets).unwrap_or_default();
        let columns = [
            PageColumn::Text("Backend"),
            PageColumn::Text("In the service"),
            PageColumn::Text("Last probe"),
            PageColumn::Numbers("Connections"),
        ];
        let row = |backend: &SocketAddr| {
            let values = values(backend);
            let target = targets.iter().find(|target| target.backend == *backend);
            vec![
                html! { (backend) },
                in_service(values),
                html! {
                    @match target { Some(target) => { (target.health) @if let Some(reason) = &target.reason { small { (escape::text(reason)) } } }, None => "–" }
                },
                html! { @match values { Some(values) => (units::count(values.flows)), None => "–" } },
            ]
        };
        let rows: Vec<_> = backends.iter().map(row).collect();
        short_table(caption, &columns, &rows)
    }

    fn order(&self) -> Markup {
        let deploy = &self.record.deploy;
        let mut values = vec![
            ("Begun", html! { (utc_of(deploy.began.as_secs())) " UTC" }),
            ("Last step", html! { (utc_of(deploy.updated.as_secs())) " UTC" }),
            ("Ordered by user", html! { (deploy.uid) }),
            ("Order", html! { (escape::text(&deploy.what)) }),
        ];
        if let Some(revision) = deploy.revision {
            values.push(("Revision of the service", html! { (revision) }));
        }
        html! {
            section aria-labelledby="order-heading" {
                h2 #order-heading { "Order" }
                (tiles(&values))
            }
        }
    }
}

fn in_service(values: Option<&BackendValues>) -> Markup {
    let Some(values) = values else { return html! { "no" } };
    let class = match values.state {
        "healthy" => "up",
        "unhealthy" => "down",
        "unknown" => "probing",
        _ => "leaving",
    };
    html! { span class={ "state " (class) } { (values.state) } }
}
