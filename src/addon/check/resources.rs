//! The checks of the provider APIs that have resources: Scalingo's, Heroku's and Clever Cloud's.
//!
//! Sources: Scalingo, "Addon Provider API" (developers.scalingo.com), and its add-on provider boilerplate; Heroku, "Add-on Partner API
//! Reference", version 3 (devcenter.heroku.com), and its tester kensa; Clever Cloud, "Marketplace APIs & Tools" of its documentation.
//! Where a document says nothing, another answer is a warning.
mod answers;
mod requests;
pub(super) mod rules;
mod table;

use self::rules::{CheckRules, DocumentedRule};
use super::definition::Check;

pub(super) use self::requests::removing;

/// Returns the checks of a dialect, in their order.
pub(super) fn checks(rules: &'static CheckRules) -> Vec<Check> {
    let mut checks = table::manifest_checks(rules);
    checks.extend(table::refusal_checks(rules));
    checks.extend(table::provision_checks(rules));
    checks.extend(table::change_checks(rules));
    if rules.say(DocumentedRule::Suspension) {
        checks.extend(table::suspend_checks(rules));
    }
    checks.extend(table::sign_on_checks(rules));
    checks.extend(table::removal_checks(rules));
    checks.extend(table::whole_checks(rules));
    checks
}
