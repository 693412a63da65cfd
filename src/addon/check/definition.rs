//! A check: its name, its rule, and how it is carried out.

use super::context::CheckContext;
use super::judgement::CheckResult;
use super::message::{CheckExchange, CheckRequest};
use super::need::Need;

/// Way in which a check is carried out.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// Sends a request, and judges its answer.
    Send(
        fn(&CheckContext) -> CheckRequest,
        fn(&CheckContext, &CheckExchange) -> CheckResult,
    ),
    /// Judges the answer that the check of that name got.
    Judge(&'static str, fn(&CheckContext, &CheckExchange) -> CheckResult),
    /// Judges the manifest.
    Manifest(fn(&CheckContext, &serde_json::Value) -> CheckResult),
    /// Judges each answer of the whole run.
    Each(fn(&CheckContext, &CheckExchange) -> CheckResult),
}

/// A check with its rule, the source of the rule, and its preconditions.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Text of the rule.
    pub(super) rule: &'static str,
    /// Document and section of the rule.
    pub(super) source: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) act: Act,
}

impl Check {
    pub(super) const fn ask(
        name: &'static str,
        request: fn(&CheckContext) -> CheckRequest,
        judge: fn(&CheckContext, &CheckExchange) -> CheckResult,
        rule: &'static str,
        source: &'static str,
    ) -> Self {
        Self {
            name,
            rule,
            source,
            needs: &[],
            act: Act::Send(request, judge),
        }
    }

    pub(super) const fn new(name: &'static str, act: Act, rule: &'static str, source: &'static str) -> Self {
        Self {
            name,
            rule,
            source,
            needs: &[],
            act,
        }
    }

    pub(super) const fn needing(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }
}
