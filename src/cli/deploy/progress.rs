//! Progress of a deploy, for people: one line that is rewritten on a terminal, one line for each phase elsewhere.

use std::io::{self, IsTerminal, Write};

use crate::api::answers::DeployAnswer;
use crate::cli::deploys;
use crate::cli::global::Global;
use crate::cli::screen;
use crate::control::request::TargetView;
use tcpgw_core::escape;
use tcpgw_core::words::count;

/// Longer lines would wrap, and could not be taken back.
const LONGEST: usize = 78;

pub(super) struct Progress {
    quiet: bool,
    is_terminal: bool,
    /// Whether there is a line to be taken back.
    is_open: bool,
    phase: String,
}

impl Progress {
    pub(super) fn new(global: &Global) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self {
            quiet: global.quiet,
            is_terminal,
            is_open: false,
            phase: String::new(),
        }
    }

    pub(super) fn show(&mut self, deploy: &DeployAnswer) {
        if self.quiet {
            return;
        }
        if deploy.phase != self.phase {
            deploy.phase.as_ref().clone_into(&mut self.phase);
            if let Some(line) = at_phase(deploy) {
                self.clear();
                let _ = writeln!(screen::stderr(), "{line}");
            }
        }
        if let Some(line) = now(deploy).filter(|_| self.is_terminal) {
            let line: String = escape::text(&line).chars().take(LONGEST).collect();
            let mut stderr = screen::terminal();
            let _ = write!(stderr, "\r\u{1b}[K{line}").and_then(|()| stderr.flush());
            self.is_open = true;
        }
    }

    /// Takes the line back, before something else is written.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let mut stderr = screen::terminal();
            let _ = write!(stderr, "\r\u{1b}[K").and_then(|()| stderr.flush());
        }
    }
}

/// Returns the line that is printed once at each phase.
fn at_phase(deploy: &DeployAnswer) -> Option<String> {
    let has_old = !deploy.old().is_empty();
    match &*deploy.phase {
        "probing" => Some(format!(
            "deploy {}: probing {}",
            deploy.id,
            deploys::words(&deploy.targets)
        )),
        "switched" if has_old => Some(format!(
            "switched: the old backends ({}) drain, and may be told to end (SIGTERM)",
            deploys::words(deploy.old())
        )),
        "drained" if has_old => Some("drained: the old backends may be removed".into()),
        // The daemon says why.
        "drained" => Some(deploy.reason.as_ref().map_or("-".into(), |reason| escape::text(reason))),
        _ => None,
    }
}

/// Returns the line that is updated within a phase.
fn now(deploy: &DeployAnswer) -> Option<String> {
    let progress = deploy.progress.as_ref()?;
    let left = progress.seconds_left;
    let left = left.map_or(String::new(), |left| format!(", {left} s left"));
    match &*deploy.phase {
        "probing" => {
            let targets = &progress.targets;
            let is_up = |target: &&TargetView| matches!(&*target.health, "healthy" | "failing");
            let up = targets.iter().filter(is_up).count();
            let waits = targets.iter().filter(|target| !is_up(target));
            let waits = waits.map(|target| match &target.reason {
                Some(reason) => format!("{} ({})", target.backend, escape::text(reason)),
                None => target.backend.to_string(),
            });
            let waits: Vec<String> = waits.collect();
            let waits = if waits.is_empty() {
                String::new()
            } else {
                format!(": waiting for {}", waits.join(", "))
            };
            Some(format!("probing {up}/{}{left}{waits}", targets.len()))
        }
        "switching" => Some("switching".into()),
        "switched" => {
            let flows = match progress.flows {
                Some(flows) => count(flows, "flow"),
                None => "flows are being counted".into(),
            };
            let old = progress.old.len();
            Some(format!("draining: {flows}{left}, {}/{old} gone", progress.left))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_is_waited_for() {
        let mut deploy: DeployAnswer = serde_json::from_value(json!({
            "id": 7, "service": "web", "phase": "probing", "reason": null, "targets": ["10.2.0.3:80", "10.2.0.4:80"],
            "uid": 0, "what": "deploy", "began": 0, "updated": 0,
            "progress": {
                "id": 7, "service": "web", "phase": "probing", "reason": null,
                "targets": [
                    {"backend": "10.2.0.3:80", "health": "healthy", "reason": null},
                    {"backend": "10.2.0.4:80", "health": "unhealthy", "reason": "refused"},
                ],
                "old": ["10.2.0.1:80"], "left": 0, "flows": null, "seconds_left": 9,
            },
        }))
        .unwrap();
        assert_eq!(
            now(&deploy).as_deref(),
            Some("probing 1/2, 9 s left: waiting for 10.2.0.4:80 (refused)")
        );
        deploy.phase = "switched".into();
        deploy.progress.as_mut().unwrap().flows = Some(3);
        assert_eq!(now(&deploy).as_deref(), Some("draining: 3 flows, 9 s left, 0/1 gone"));
        assert!(at_phase(&deploy).is_some_and(|line| line.contains("10.2.0.1:80") && line.contains("told to end")));
        deploy.phase = "drained".into();
        assert_eq!(now(&deploy), None);
        assert_eq!(
            at_phase(&deploy).as_deref(),
            Some("drained: the old backends may be removed")
        );
        deploy.reason = Some("nothing changed: these backends serve already".into());
        deploy.progress.as_mut().unwrap().old.clear();
        assert_eq!(
            at_phase(&deploy).as_deref(),
            Some("nothing changed: these backends serve already")
        );
        deploy.phase = "switched".into();
        assert_eq!(at_phase(&deploy), None, "nobody drains");
    }
}
