//! The alert rules tell of every kind of problem, and the page on alerts says which one does.

use std::collections::BTreeSet;

use regex_lite::Regex;

use tcpgw_core::problem::{ProblemKind, Severity};

use super::families::severity_word;

const RULES: &str = include_str!("../../dist/prometheus/tcpgw.rules.yml");
const PAGE: &str = include_str!("../../docs/operating/alerts.md");

/// Problems that only commands report, because no daemon that serves metrics can have them.
const OF_COMMANDS: [ProblemKind; 4] = [
    ProblemKind::NotServed,
    ProblemKind::DaemonUnreachable,
    ProblemKind::DaemonGone,
    ProblemKind::OtherNamespace,
];
/// Warnings of which another metric tells, earlier and with more details.
const BY_OTHER_METRICS: [(ProblemKind, &str); 3] = [
    (ProblemKind::ConntrackFilling, "TcpgwConntrackNearlyFull"),
    (ProblemKind::SourcePorts, "TcpgwSourcePortsNearlyUsed"),
    (ProblemKind::OverLimit, "TcpgwLimitReached"),
];

struct Alert {
    name: &'static str,
    severity: &'static str,
    expression: &'static str,
}

fn alerts() -> Vec<Alert> {
    let parts = RULES.split("      - alert: ").skip(1);
    let alerts = parts.map(|part| {
        let between = |start: &str, end: &str| {
            let (_, rest) = part.split_once(start).expect("a key of the rule");
            rest.split_once(end).expect("the next key").0.trim()
        };
        Alert {
            name: part.lines().next().expect("a name"),
            severity: between("severity: ", "\n        annotations"),
            expression: between("        expr: ", "\n        labels:")
                .split("\n        for: ")
                .next()
                .expect("text"),
        }
    });
    alerts.collect()
}

/// Returns whether the alert's expression selects the problem's series.
fn selects(alert: &Alert, kind: ProblemKind, severity: Severity) -> bool {
    let Some((_, rest)) = alert.expression.split_once("tcpgw_problems{") else {
        return false;
    };
    let (selector, _) = rest.split_once('}').expect("the selector's end");
    let matcher = Regex::new(r#"(\w+)\s*(=~|!~|=|!=)\s*"([^"]*)""#).expect("an expression");
    let mut matchers = matcher.captures_iter(selector);
    matchers.all(|found| {
        let value = match &found[1] {
            "kind" => kind.word(),
            "severity" => severity_word(severity).to_owned(),
            other => panic!("{}: label {other}", alert.name),
        };
        let is_like = || {
            Regex::new(&format!("^(?:{})$", &found[3]))
                .expect("an expression")
                .is_match(&value)
        };
        match &found[2] {
            "=" => value == found[3],
            "!=" => value != found[3],
            "=~" => is_like(),
            _ => !is_like(),
        }
    })
}

fn selecting(kind: ProblemKind, severity: Severity) -> BTreeSet<&'static str> {
    let alerts = alerts();
    let selecting = alerts.iter().filter(|alert| selects(alert, kind, severity));
    selecting.map(|alert| alert.name).collect()
}

#[test]
fn each_error_raises_a_critical_alert() {
    let alerts = alerts();
    for kind in ProblemKind::ALL {
        let mut selecting = alerts.iter().filter(|alert| selects(alert, *kind, Severity::Error));
        assert!(
            selecting.any(|alert| alert.severity == "critical" && !alert.expression.contains("sum_over_time")),
            "{kind:?} as an error has no alert"
        );
    }
}

/// A warning that may concern clients is an alert of its own. Those that do not are listed in the rules, by name: a new kind is not
/// among them.
#[test]
fn each_warning_raises_one_alert() {
    for kind in ProblemKind::ALL {
        let found = selecting(*kind, Severity::Warning);
        let other = BY_OTHER_METRICS.iter().find(|(of, _)| of == kind);
        if let Some((_, alert)) = other {
            assert_eq!(found, BTreeSet::new(), "{kind:?}");
            assert!(alerts().iter().any(|of| of.name == *alert), "{alert}");
        } else if found != BTreeSet::from(["TcpgwSomeClientsAffected"]) {
            assert_eq!(found, BTreeSet::from(["TcpgwWarning"]), "{kind:?}");
            assert_eq!(
                kind.severity(),
                Severity::Warning,
                "{kind:?} is an error as a rule, so it concerns clients"
            );
        }
    }
}

#[test]
fn the_rules_name_no_kind_that_does_not_exist() {
    let words: BTreeSet<String> = ProblemKind::ALL.iter().map(|kind| kind.word()).collect();
    let kinds = Regex::new(r#"kind[!=]~"([^"]*)""#).expect("an expression");
    let lists: Vec<_> = kinds.captures_iter(RULES).collect();
    assert_eq!(lists.len(), 2);
    for list in lists {
        let unknown: Vec<&str> = list[1].split('|').filter(|word| !words.contains(*word)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }
}

/// The page names every kind of problem and every alert, and each kind beside an alert that tells of it.
#[test]
fn the_page_says_which_alert_tells_of_what() {
    let (_, part) = PAGE.split_once("## Alerts by cause").expect("the section");
    let (part, _) = part.split_once("\n## ").expect("the next section");
    let all: BTreeSet<&str> = alerts().iter().map(|alert| alert.name).collect();
    let (mut told, mut named) = (BTreeSet::new(), BTreeSet::new());
    for row in part.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let words = |cell: usize| cells[cell].split('`').skip(1).step_by(2).collect::<BTreeSet<&str>>();
        let (kinds, alerts) = (words(1), words(2));
        assert!(alerts.is_subset(&all), "{row}");
        named.extend(alerts.iter().copied());
        for word in kinds {
            let kind = ProblemKind::ALL.iter().find(|kind| kind.word() == word);
            let kind = *kind.unwrap_or_else(|| panic!("{word} is no kind of problem"));
            let tells = |alert: &&str| {
                (OF_COMMANDS.contains(&kind) && *alert == "TcpgwDown")
                    || BY_OTHER_METRICS.contains(&(kind, *alert))
                    || [Severity::Error, Severity::Warning]
                        .iter()
                        .any(|of| selecting(kind, *of).contains(*alert))
            };
            let is_felt_by_none = OF_COMMANDS.contains(&kind) && kind.severity() == Severity::Warning;
            assert!(is_felt_by_none || alerts.iter().any(tells), "{word}: {row}");
            // What is an error as a rule is told of as one.
            let is_error = kind.severity() == Severity::Error;
            assert!(
                !is_error || alerts.contains("TcpgwProblem") || OF_COMMANDS.contains(&kind),
                "{word}: {row}"
            );
            assert!(told.insert(kind), "{word} is there twice");
        }
    }
    let missing: Vec<_> = ProblemKind::ALL.iter().filter(|kind| !told.contains(*kind)).collect();
    assert_eq!(missing, Vec::<&ProblemKind>::new());
    assert_eq!(named, all);
}
