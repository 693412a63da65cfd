//! Names of the events that a hook gets: kinds of events, and kinds of problems that begin and end.

use std::str::FromStr;

use thiserror::Error;

use tcpgw_core::problem::ProblemKind;

/// Kinds of events, as their field `event` has them.
pub const EVENTS: [&str; 20] = [
    "started",
    "committed",
    "rejected",
    "problem",
    "problem_ended",
    "failed",
    "health",
    "none_healthy",
    "draining",
    "back",
    "retired",
    "deploy",
    "paused",
    "resumed",
    "orphaned",
    "displaced",
    "drift",
    "repaired",
    "torn_down",
    "serves_again",
];
/// States of health, each of which can be chosen alone.
pub const HEALTH: [&str; 5] = ["healthy", "failing", "unhealthy", "rising", "presumed"];
/// Phases of deploys, each of which can be chosen alone.
pub const PHASES: [&str; 5] = ["probing", "switched", "drained", "failed", "undone"];
/// Problems that commands find, and of which the daemon has no events.
const OF_COMMANDS: [ProblemKind; 10] = [
    ProblemKind::Starting,
    ProblemKind::NoTable,
    ProblemKind::TableDormant,
    ProblemKind::TableChanged,
    ProblemKind::NotServed,
    ProblemKind::DaemonUnreachable,
    ProblemKind::DaemonGone,
    ProblemKind::OtherNamespace,
    ProblemKind::BackendUnhealthy,
    ProblemKind::SourcePorts,
];
/// Name of a backend that fails its probes: the daemon has the event `health` for it.
const BACKEND_UNHEALTHY: &str = "backend_unhealthy";
/// Ending of the name of a problem that ends.
const ENDED: &str = "_ended";

/// Condition that events meet of which a hook is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSelector {
    /// An event of this kind.
    Event(&'static str),
    /// A problem of this kind that begins, or whose severity changes.
    Problem(ProblemKind),
    /// A problem of this kind that ends.
    ProblemEnded(ProblemKind),
    /// A backend that has got this state of health.
    Health(&'static str),
    /// A backend that was unhealthy and is healthy again.
    Recovered,
    /// A deploy that has got to this phase.
    Deploy(&'static str),
}

/// Name that stands for no event. The message lists all that do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} is not the name of an event; {}", tcpgw_core::escape::text(.0), known())]
pub struct UnknownEventName(String);

impl FromStr for EventSelector {
    type Err = UnknownEventName;

    fn from_str(text: &str) -> Result<Self, UnknownEventName> {
        let one_of = |names: &[&'static str], text: &str| names.iter().copied().find(|name| *name == text);
        let problem = |text: &str| problems().find(|kind| kind.word() == text);
        if text == BACKEND_UNHEALTHY {
            return Ok(Self::Health("unhealthy"));
        }
        if text.strip_suffix(ENDED) == Some(BACKEND_UNHEALTHY) {
            return Ok(Self::Recovered);
        }
        // Where a problem has an event of its own under the same name, the event is told.
        let event = one_of(&EVENTS, text).map(Self::Event);
        let of = |prefix: &str, names: &[&'static str]| one_of(names, text.strip_prefix(prefix)?);
        event
            .or_else(|| problem(text).map(Self::Problem))
            .or_else(|| problem(text.strip_suffix(ENDED)?).map(Self::ProblemEnded))
            .or_else(|| of("health_", &HEALTH).map(Self::Health))
            .or_else(|| of("deploy_", &PHASES).map(Self::Deploy))
            .ok_or_else(|| UnknownEventName(text.to_owned()))
    }
}

/// Returns the kinds of problems that the daemon has events of.
fn problems() -> impl Iterator<Item = ProblemKind> {
    let all = ProblemKind::ALL.iter().copied();
    all.filter(|kind| !OF_COMMANDS.contains(kind))
}

/// Returns a list of all names.
fn known() -> String {
    let problems: Vec<String> = problems()
        .map(ProblemKind::word)
        .chain([BACKEND_UNHEALTHY.to_owned()])
        .collect();
    format!(
        "known are the events {}; health_STATE with {}; deploy_PHASE with {}; and the problems, each also with {ENDED}: {}",
        EVENTS.join(", "),
        HEALTH.join(", "),
        PHASES.join(", "),
        problems.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn selector(text: &str) -> EventSelector {
        text.parse().unwrap()
    }

    #[test]
    fn every_name_stands_for_one_thing() {
        for kind in super::problems() {
            let ended = selector(&format!("{}_ended", kind.word()));
            assert_eq!(ended, EventSelector::ProblemEnded(kind));
            let begun = selector(&kind.word());
            let has_event = EVENTS.contains(&kind.word().as_str());
            assert_eq!(begun == EventSelector::Problem(kind), !has_event, "{kind:?}");
        }
        // These problems have events of their own.
        for name in ["paused", "torn_down", "orphaned"] {
            assert_eq!(selector(name), EventSelector::Event(name));
        }
        assert_eq!(selector("backend_unhealthy"), EventSelector::Health("unhealthy"));
        assert_eq!(selector("backend_unhealthy_ended"), EventSelector::Recovered);
        assert_eq!(selector("health_failing"), EventSelector::Health("failing"));
        assert_eq!(selector("deploy_failed"), EventSelector::Deploy("failed"));
    }

    #[test]
    fn names_are_those_of_events_states_and_phases() {
        let document: serde_json::Value = serde_json::from_str(include_str!("../api/openapi.json")).unwrap();
        let kinds = document["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap();
        let of = |field: &str| -> BTreeSet<&str> {
            let described = kinds.iter().map(|kind| &kind["properties"][field]);
            let words = described.flat_map(|field| {
                let one_of = field["enum"].as_array().into_iter().flatten();
                one_of.chain([&field["const"]]).filter_map(|word| word.as_str())
            });
            words.collect()
        };
        assert_eq!(of("event"), BTreeSet::from(EVENTS));
        assert_eq!(of("phase"), BTreeSet::from(PHASES));
        let states = &document["components"]["schemas"]["Backend"]["properties"]["health"]["enum"];
        let states = states.as_array().unwrap();
        let states: BTreeSet<&str> = states.iter().filter_map(|state| state.as_str()).collect();
        assert!(BTreeSet::from(HEALTH).is_subset(&states), "{states:?}");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        for bad in [
            "",
            "no_such_event",
            "daemon_gone",
            "source_ports_ended",
            "health_",
            "health_ok",
            "deploy_done",
            "_ended",
            "started_ended",
            "Problem",
        ] {
            let error = bad.parse::<EventSelector>().unwrap_err().to_string();
            for word in ["started", "health_STATE", "deploy_PHASE", "backend_unhealthy", "_ended"] {
                assert!(error.contains(word), "{bad}: {error}");
            }
        }
        let error = "a\u{1b}b".parse::<EventSelector>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}
