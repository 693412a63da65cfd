//! A conformance test of providers: what is asked, in which order, and what an answer has to be, by the documents of each dialect.
//!
//! Pure: a [`Run`] says what to send next and takes what came of it. Sockets, clocks and signals are the caller's. The checks are
//! the tables in `osb` and `resources`; each names the document and the section that its rule is from.

mod catalog;
mod context;
mod judge;
mod manifest;
mod message;
mod osb;
mod resources;
mod run;
mod shown;
mod whole;

pub use self::context::{CheckSettings, SettingsError};
pub use self::manifest::sign_on;
pub use self::message::{Answer, Body, Content, Login, PathBase, Request, Version};
pub use self::run::{Finding, Next, Report, Run, Verdict};

use self::context::Context;
use self::message::Exchange;
use super::Dialect;

/// Flaw of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flaw {
    /// Whether the rule says MUST. Where it says SHOULD, RECOMMENDED or MAY, the flaw is a warning.
    is_failure: bool,
    why: String,
}

type Judgement = Result<(), Flaw>;

fn failure(why: impl Into<String>) -> Flaw {
    Flaw {
        is_failure: true,
        why: why.into(),
    }
}

fn warning(why: impl Into<String>) -> Flaw {
    Flaw {
        is_failure: false,
        why: why.into(),
    }
}

/// Precondition of a check. If it is not met, the check is skipped and the reason is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The catalog.
    Catalog,
    /// A plan of the catalog that has schemas.
    Schemas,
    /// An offering with a plan.
    Offer,
    /// A second plan.
    OtherPlan,
    /// Instances can be fetched.
    InstancesRetrievable,
    /// Bindings can be fetched.
    BindingsRetrievable,
    /// Instances of the plan can be bound.
    Bindable,
    /// The plan of an instance can be changed.
    Updateable,
    /// The instance or the resource is there.
    Resource,
    /// The binding is there.
    Binding,
    /// The instance or the resource was there and was removed.
    ResourceRemoved,
    /// The binding was there and was removed.
    BindingRemoved,
    /// The manifest is known.
    Manifest,
    /// The address of single sign-on and its salt are known.
    SignOn,
}

/// Way in which a check is carried out.
#[derive(Clone, Copy)]
enum Act {
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
struct Check {
    name: &'static str,
    /// Text of the rule.
    rule: &'static str,
    /// Document and section of the rule.
    source: &'static str,
    needs: &'static [Need],
    act: Act,
}

impl Check {
    const fn ask(
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

    const fn new(name: &'static str, act: Act, rule: &'static str, source: &'static str) -> Self {
        Self {
            name,
            rule,
            source,
            needs: &[],
            act,
        }
    }

    const fn needing(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }
}

/// Returns the checks of a dialect, in their order.
fn checks(dialect: Dialect) -> Vec<Check> {
    match dialect {
        Dialect::Osb => osb::CHECKS.concat(),
        Dialect::Heroku => resources::checks(&resources::HEROKU),
        Dialect::CleverCloud => resources::checks(&resources::CLEVER_CLOUD),
        Dialect::Scalingo | Dialect::Local => resources::checks(&resources::SCALINGO),
    }
}

#[cfg(test)]
mod tests;
