//! A check: its name, its rule, and how it is carried out.

use super::context::Context;
use super::judgement::Judgement;
use super::message::{Exchange, Request};
use super::need::Need;

/// Way in which a check is carried out.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// Sends a request, and judges its answer.
    Ask(fn(&Context) -> Request, fn(&Context, &Exchange) -> Judgement),
    /// Judges the answer that the check of that name got.
    Look(&'static str, fn(&Context, &Exchange) -> Judgement),
    /// Judges the manifest.
    Manifest(fn(&Context, &serde_json::Value) -> Judgement),
    /// Judges each answer of the whole run.
    Each(fn(&Context, &Exchange) -> Judgement),
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
        request: fn(&Context) -> Request,
        judge: fn(&Context, &Exchange) -> Judgement,
        rule: &'static str,
        source: &'static str,
    ) -> Self {
        Self {
            name,
            rule,
            source,
            needs: &[],
            act: Act::Ask(request, judge),
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
