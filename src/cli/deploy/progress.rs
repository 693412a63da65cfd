//! How far a deploy is, for people: one line that is rewritten on a terminal, one line for each phase elsewhere.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::cli::screen;
use crate::cli::{Global, deploys, text_of};
use tcpgw_core::diff::count;

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

    pub(super) fn show(&mut self, deploy: &Value) {
        if self.quiet {
            return;
        }
        let phase = deploy["phase"].as_str().unwrap_or_default();
        if phase != self.phase {
            phase.clone_into(&mut self.phase);
            if let Some(line) = at_phase(deploy) {
                self.clear();
                let _ = writeln!(screen::stderr(), "{line}");
            }
        }
        if let Some(line) = now(deploy).filter(|_| self.is_terminal) {
            let line: String = tcpgw_core::escape::text(&line).chars().take(LONGEST).collect();
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[K{line}").and_then(|()| stderr.flush());
            self.is_open = true;
        }
    }

    /// Takes the line back, before something else is written.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[K").and_then(|()| stderr.flush());
        }
    }
}

/// What is said once at each phase.
fn at_phase(deploy: &Value) -> Option<String> {
    match deploy["phase"].as_str()? {
        "probing" => Some(format!(
            "deploy {}: probing {}",
            deploy["id"],
            deploys::words(&deploy["targets"])
        )),
        "switched" => {
            old(deploy).map(|old| format!("switched: the old backends ({old}) drain, and may be told to end (SIGTERM)"))
        }
        "drained" => Some(match old(deploy) {
            Some(_) => "drained: the old backends may be removed".into(),
            // The daemon says why.
            None => text_of(&deploy["reason"]),
        }),
        _ => None,
    }
}

/// The backends that leave by it, if there are any.
fn old(deploy: &Value) -> Option<String> {
    let old = [&deploy["old"], &deploy["progress"]["old"]];
    old.into_iter().map(deploys::words).find(|old| !old.is_empty())
}

/// What changes from moment to moment.
fn now(deploy: &Value) -> Option<String> {
    let progress = &deploy["progress"];
    let left = progress["seconds_left"].as_u64();
    let left = left.map_or(String::new(), |left| format!(", {left} s left"));
    match deploy["phase"].as_str()? {
        "probing" => {
            let targets = progress["targets"].as_array()?;
            let is_up = |target: &&Value| matches!(target["health"].as_str(), Some("healthy" | "failing"));
            let up = targets.iter().filter(is_up).count();
            let waits: Vec<String> = targets
                .iter()
                .filter(|target| !is_up(target))
                .map(|target| match target["reason"].as_str() {
                    Some(reason) => format!("{} ({})", text_of(&target["backend"]), tcpgw_core::escape::text(reason)),
                    None => text_of(&target["backend"]),
                })
                .collect();
            let waits = if waits.is_empty() {
                String::new()
            } else {
                format!(": waiting for {}", waits.join(", "))
            };
            Some(format!("probing {up}/{}{left}{waits}", targets.len()))
        }
        "switching" => Some("switching".into()),
        "switched" => {
            let flows = match progress["flows"].as_u64() {
                Some(flows) => count(flows, "flow"),
                None => "flows are being counted".into(),
            };
            let old = progress["old"].as_array().map_or(0, Vec::len);
            Some(format!("draining: {flows}{left}, {}/{old} gone", progress["left"]))
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
        let mut deploy = json!({"id": 7, "phase": "probing", "targets": ["10.2.0.3:80", "10.2.0.4:80"], "progress": {
            "targets": [
                {"backend": "10.2.0.3:80", "health": "healthy", "reason": null},
                {"backend": "10.2.0.4:80", "health": "unhealthy", "reason": "refused"},
            ],
            "old": ["10.2.0.1:80"], "left": 0, "flows": null, "seconds_left": 9,
        }});
        assert_eq!(
            now(&deploy).as_deref(),
            Some("probing 1/2, 9 s left: waiting for 10.2.0.4:80 (refused)")
        );
        deploy["phase"] = json!("switched");
        deploy["progress"]["flows"] = json!(3);
        assert_eq!(now(&deploy).as_deref(), Some("draining: 3 flows, 9 s left, 0/1 gone"));
        assert!(at_phase(&deploy).is_some_and(|line| line.contains("10.2.0.1:80") && line.contains("told to end")));
        deploy["phase"] = json!("drained");
        assert_eq!(now(&deploy), None);
        assert_eq!(
            at_phase(&deploy).as_deref(),
            Some("drained: the old backends may be removed")
        );
        deploy["reason"] = json!("nothing changed: these backends serve already");
        deploy["progress"]["old"] = json!([]);
        assert_eq!(
            at_phase(&deploy).as_deref(),
            Some("nothing changed: these backends serve already")
        );
        deploy["phase"] = json!("switched");
        assert_eq!(at_phase(&deploy), None, "nobody drains");
    }
}
