//! The findings of the doctor.

use maud::{Markup, html};

use super::frame::{DashboardPage, NavigationPlace};
use crate::doctor::{Diagnosis, Finding, FindingSeverity, Fix};
use tcpgw_core::escape;
use tcpgw_core::words::count;

/// The page of the findings.
#[derive(Debug, Clone, Copy)]
pub struct DoctorPage<'p> {
    /// The findings.
    pub diagnosis: &'p Diagnosis,
}

impl DoctorPage<'_> {
    /// Returns the page of the doctor's findings.
    pub fn page(&self) -> DashboardPage {
        DashboardPage {
            heading: "Doctor".into(),
            place: NavigationPlace::Doctor,
            content: html! {
                div #findings { (self.findings()) }
                p.quiet { "The checks take time: they are made again after 5 s at the earliest. The same in a terminal: " code { "tcpgw doctor" } "." }
            },
        }
    }

    /// Returns the findings, the worst first, and the checks that could not be made.
    pub fn findings(&self) -> Markup {
        let diagnosis = self.diagnosis;
        let of = |severity| diagnosis.count(severity);
        html! {
            p {
                @if diagnosis.findings.is_empty() {
                    "Nothing was found."
                } @else {
                    (of(FindingSeverity::Broken)) " broken, " (count(of(FindingSeverity::Warning), "warning")) ", "
                    (count(of(FindingSeverity::Note), "note")) "."
                }
            }
            @for finding in &diagnosis.findings { (one(finding)) }
            @if !diagnosis.unchecked.is_empty() {
                section aria-labelledby="unchecked-heading" {
                    h2 #unchecked-heading { "Checks that could not be made" }
                    ul { @for unchecked in &diagnosis.unchecked { li { (escape::text(&unchecked.check)) ": " (escape::text(&unchecked.reason)) } } }
                }
            }
        }
    }
}

fn one(finding: &Finding) -> Markup {
    let word = finding.severity.to_string();
    html! {
        section.finding {
            h2 { span class={ "state " (word) } { (word) } " " (finding.id) }
            p { (escape::text(&finding.seen)) }
            p.quiet { (escape::text(&finding.cause)) }
            @match &finding.fix {
                Some(Fix::Command(line)) => p { "As root: " code { (escape::text(line)) } },
                Some(Fix::Advice(words)) => p { "To do: " (escape::text(words)) },
                None => "",
            }
        }
    }
}
