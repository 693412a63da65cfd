//! What documents show of outputs is what this version prints, as far as it does not depend on the machine.

use std::collections::BTreeMap;

use tcpgw_core::diff::Changes;
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::summary::Summary;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const STATUS: &str = include_str!("../../docs/reference/status.md");

/// What stands between two marks of a text, for the first time.
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
    let shown: Vec<&str> = STATUS.lines().filter(|line| line.starts_with("table: inet")).collect();
    assert!(!shown.is_empty());
    for line in shown {
        assert!(line.starts_with(&begin), "{line}\n{begin}");
    }
}

/// The smallest useful state: its `diff`, and how many elements the kernel gets.
#[test]
fn the_first_apply_changes_as_many_elements_as_it_says() {
    let section = between(TUTORIAL, "# Start\n", "\n## Words\n");
    let state = tcpgw_core::model::parse(between(section, "```json\n", "```").as_bytes()).expect("a good state");
    let ruleset = compile(&state, &Links::default());
    let elements = plan(&Ruleset::default(), &ruleset).elements();
    let applied = format!("services +1 ~0 -0; backends +2 ~0 -0; 0 flows flushed; {elements} elements changed in ");
    assert!(section.contains(&applied), "{applied}");
    let changes = Changes::between(&Summary::default(), &Summary::from(&state), &BTreeMap::new());
    for change in &changes.services {
        assert!(
            section.contains(&format!("$ tcpgw diff state.json\n{change}\n")),
            "{change}"
        );
    }
}
