//! The last deploys of the app.

use maud::{Markup, html};

use crate::control::request::AppView;
use crate::date::utc;
use crate::store::{DeployPhase, StoredDeploy};
use crate::web::table::table;
use tcpgw_core::escape;
use tcpgw_core::model::Word as _;
use tcpgw_core::words::count;

/// Returns the table of deploys.
pub(super) fn deploys(app: &AppView, deploys: Option<&[StoredDeploy]>) -> Markup {
    let Some(deploys) = deploys else {
        return html! { p { "Not known at the moment." } };
    };
    let current = app.service.as_ref().and_then(|view| view.deploy.as_ref());
    if deploys.is_empty() && current.is_none() {
        return html! { p { "None yet." } };
    }
    let rows = deploys.iter().map(|deploy| {
        let progress = current.filter(|current| current.id == deploy.id);
        let phase = progress.map_or(deploy.phase.word(), |progress| &progress.phase);
        let reason = progress.and_then(|progress| progress.reason.as_deref());
        // The reason of a deploy that succeeded is of no use to the app's owner.
        let reason = reason
            .or(deploy.reason.as_deref())
            .filter(|_| phase != DeployPhase::Drained.word());
        vec![
            html! { (utc(i64::try_from(deploy.began.as_secs()).unwrap_or(i64::MAX))) },
            html! { (count(deploy.targets.len(), "container")) },
            html! {
                (outcome(phase))
                @if let Some(reason) = reason { small { (escape::text(reason)) } }
                @if let Some(seconds) = progress.and_then(|progress| progress.seconds_left) {
                    small { "at most " (seconds) " s more" }
                }
            },
        ]
    });
    let rows: Vec<Vec<Markup>> = rows.collect();
    table(&["Begun (UTC)", "New", "Outcome"], &rows)
}

fn outcome(phase: &str) -> Markup {
    let (class, text) = match phase {
        "probing" => ("", "waits for the new containers to answer"),
        "switching" => ("", "new connections are about to go to the new containers"),
        "switched" => ("", "new connections go to the new containers, the old ones drain"),
        "drained" => ("good", "done"),
        "failed" => ("bad", "failed: the app is served as before"),
        "undone" => ("bad", "taken back: the app is served as before"),
        other => ("", other),
    };
    html! { span class=(class) { (text) } }
}
