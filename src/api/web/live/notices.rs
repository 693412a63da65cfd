//! Words for events that a page says aloud: only those after which somebody may want to act.

use tcpgw_core::escape;
use tcpgw_core::problem::Severity;

use crate::control::events::EventContent;

/// Returns the words for an event; `None`: it is not worth an interruption.
pub(super) fn notice(event: &EventContent) -> Option<String> {
    let text = match event {
        EventContent::Problem(problem) => {
            let word = match problem.severity {
                Severity::Error => "Error",
                Severity::Warning => "Warning",
            };
            let service = problem.service.as_deref().map(|name| format!(", service {name}"));
            format!("{word}{}: {}", service.unwrap_or_default(), problem.message)
        }
        EventContent::ProblemEnded(problem) => {
            let service = problem.service.as_deref().map(|name| format!(" of service {name}"));
            format!(
                "The problem {}{} is over.",
                problem.kind.word(),
                service.unwrap_or_default()
            )
        }
        EventContent::Deploy { id, service, phase, .. } => format!("Deploy {id} of service {service}: {phase}."),
        EventContent::Paused { service, seconds, .. } => {
            format!("New connections to service {service} are held back for {seconds} s.")
        }
        EventContent::Resumed { service, .. } => format!("Service {service} gets new connections again."),
        EventContent::TornDown { .. } => "The gateway was torn down: nothing is served.".into(),
        EventContent::ServesAgain { .. } => "The gateway serves again.".into(),
        EventContent::Started { .. }
        | EventContent::Committed { .. }
        | EventContent::Rejected { .. }
        | EventContent::Failed { .. }
        | EventContent::Health { .. }
        | EventContent::NoneHealthy { .. }
        | EventContent::Draining { .. }
        | EventContent::Back { .. }
        | EventContent::Retired { .. }
        | EventContent::Orphaned { .. }
        | EventContent::Displaced { .. }
        | EventContent::Drift { .. }
        | EventContent::Repaired { .. } => return None,
    };
    Some(escape::text(&text))
}
