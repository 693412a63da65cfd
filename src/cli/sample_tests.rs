//! Outputs in documents are compared with those of this version, as far as they do not depend on the machine.

use std::collections::BTreeMap;

use crate::view::changes;
use tcpgw_core::diff::Changes;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::summary::Summary;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const STATUS: &str = include_str!("../../docs/reference/status.md");

/// Returns the first text between two marks.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let (_, rest) = text.split_once(begin).expect(begin);
    rest.split_once(end).expect(end).0
}

#[test]
fn the_version_of_the_rules_is_the_one_that_status_shows() {
    let begin = format!(
        "table: inet tcpgw, version {} of its rules, flow mark {}, ",
        skeleton::VERSION,
        FlowMark::default()
    );
    let text: Vec<&str> = STATUS.lines().filter(|line| line.starts_with("table: inet")).collect();
    assert!(!text.is_empty());
    for line in text {
        assert!(line.starts_with(&begin), "{line}\n{begin}");
    }
}

/// The diff of the tutorial is that of the smallest useful state. A packet test compares the outputs of the other commands on
/// that page.
#[test]
fn the_diff_of_the_tutorial_is_what_differs() {
    let state = tcpgw_core::model::parse(between(TUTORIAL, "```json\n", "```").as_bytes()).expect("a good state");
    let changes = Changes::between(&Summary::default(), &Summary::from(&state), &BTreeMap::new());
    assert_eq!(changes.services.len(), 1);
    for change in &changes.services {
        let text = format!("$ sudo tcpgw diff state.json\n{}\n", changes::line(change));
        assert!(TUTORIAL.contains(&text), "{text}");
    }
}
