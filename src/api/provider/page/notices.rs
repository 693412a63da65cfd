//! Notices for an app's owner: reasons why the app is not served, or not as ordered.

use maud::{Markup, html};

use crate::addon::ResourceStatus;
use crate::control::request::{AppView, BackendView};
use tcpgw_core::problem::ProblemKind;

/// Returns the notices, the worst first. They name nothing of other apps or of the gateway's inside.
pub(super) fn notices(app: &AppView) -> Markup {
    let notices = find(app);
    html! {
        @for notice in notices {
            p.notice role="status" { (notice) }
        }
    }
}

fn find(app: &AppView) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut say = |text: &str| found.push(text.to_owned());
    if app.is_torn_down {
        say("The gateway is out of service: its operator has switched it off. Clients cannot connect.");
    } else if app.errors.iter().any(|kind| is_fault(*kind)) {
        say("The gateway has a fault that its operator is told of. Some clients may not be served.");
    }
    if app.resource.status == ResourceStatus::Suspended {
        say(
            "The add-on is suspended: new connections are refused with a reset. When your platform resumes it, all is as before, the \
             address too.",
        );
        return found;
    }
    let Some(view) = &app.service else {
        say("The gateway does not know the service of this add-on. Ask your platform's support.");
        return found;
    };
    if !view.listed.held_back.is_empty() {
        say(if app.served.is_some() {
            "The last change cannot be put into effect on the gateway now; what was there before stays. The gateway tries \
             again by itself, and its operator is told."
        } else {
            "The gateway cannot serve this address now: no new connection reaches your containers by it. It tries again by itself, and its \
             operator is told."
        });
    } else if !view.in_kernel && !app.is_torn_down {
        say("The last change is being put into effect; until then all is as before.");
    }
    if let Some(seconds) = view.paused_for {
        found.push(format!(
            "The operator holds new connections back for {seconds} s more: clients wait. Open connections go on."
        ));
    }
    if lets_connections_in(app) {
        found.extend(unreached(&view.backends).map(str::to_owned));
    }
    if app.errors.contains(&ProblemKind::Unanswered) {
        found.push(
            "Containers leave connections of clients unanswered, although they answer the gateway's probes.".to_owned(),
        );
    }
    if app.errors.contains(&ProblemKind::Store) {
        found.push("Deploys and other changes are not possible at the moment. What is there is served on.".to_owned());
    }
    found
}

/// Returns whether new connections reach the containers that answer: the gateway is not torn down, and the app is served and
/// not paused.
pub(super) fn lets_connections_in(app: &AppView) -> bool {
    let is_paused = app.service.as_ref().is_some_and(|view| view.paused_for.is_some());
    !app.is_torn_down && app.served.is_some() && !is_paused
}

/// Returns why no container gets new connections; `None`: one does.
fn unreached(backends: &[BackendView]) -> Option<&'static str> {
    if backends.is_empty() || backends.iter().any(|backend| backend.balanced) {
        return None;
    }
    let mut active = backends.iter().filter(|backend| backend.desired == "active").peekable();
    if active.peek().is_none() {
        return Some("No container gets new connections: all of them are set aside or drain.");
    }
    let is_silent = |backend: &BackendView| backend.health.as_deref() == Some("unhealthy");
    Some(if active.all(is_silent) {
        "No container gets new connections: none of them answers. Check that the process listens on 0.0.0.0, on the port in $PORT."
    } else {
        "No container gets new connections yet: the gateway lets them in when it has an answer of the container."
    })
}

/// Returns whether an error keeps clients of a service with answering containers from being served.
fn is_fault(kind: ProblemKind) -> bool {
    !matches!(
        kind,
        // Said in words of their own.
        ProblemKind::TornDown | ProblemKind::HeldBack | ProblemKind::NoActiveBackend | ProblemKind::NoHealthyBackend | ProblemKind::Unanswered | ProblemKind::Store
        // About the desired state, and not about the one in effect.
        | ProblemKind::RejectedState | ProblemKind::RejectedStore | ProblemKind::Starting
    )
}
