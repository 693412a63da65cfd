//! Checks of a provider's answers.

use serde_json::Value;

use super::super::context::CheckContext;
use super::super::judge::{self, JsonType, optional, required};
use super::super::manifest;
use super::super::message::CheckExchange;
use super::rules::{DocumentedRule, rules_of};
use crate::addon::Dialect;
use crate::addon::check::judgement::{CheckResult, failure, warning};

/// Longest id (Scalingo).
const MAX_ID: usize = 255;

pub(super) fn resource_id(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    let body = got.json().unwrap_or(&Value::Null);
    // Before version 3 of Heroku's API ids were numbers.
    if context.settings.dialect == Dialect::Heroku && body["id"].is_number() {
        return Err(warning("id is a number; a string is usual"));
    }
    required(body, "", &[("id", JsonType::Text)])?;
    let length = body["id"].as_str().map_or(0, |id| id.chars().count());
    if length > MAX_ID {
        return Err(failure(format!("id has {length} characters")));
    }
    Ok(())
}

/// Checks the body that describes a resource.
pub(super) fn described(got: &CheckExchange) -> CheckResult {
    judge::object(got)?;
    let members = [
        ("message", JsonType::AnyText),
        ("config", JsonType::Object),
        ("log_drain_url", JsonType::AnyText),
    ];
    optional(got.json().unwrap_or(&Value::Null), "", &members)?;
    match config(got).find(|(_, value)| !value.is_string()) {
        Some((name, _)) => Err(failure(format!("config.{name} is not a string"))),
        None => Ok(()),
    }
}

fn config(got: &CheckExchange) -> impl Iterator<Item = (&String, &Value)> {
    got.member("config").and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn declared(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    let manifest = context.settings.manifest.as_ref();
    let declared = manifest.and_then(|manifest| manifest::variables(context.settings.dialect, manifest));
    let declared = declared.unwrap_or_default();
    match config(got).find(|(name, _)| !declared.contains(&name.as_str())) {
        Some((name, _)) => Err(failure(format!("config has {name}, which is not in config_vars"))),
        None => Ok(()),
    }
}

pub(super) fn urls(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    for (name, value) in config(got).filter(|(name, _)| name.ends_with("_URL")) {
        let Some(url) = value.as_str() else { continue };
        let parts = url.split_once("://");
        let is_scheme = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
        };
        let host = parts.map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let host = host.map(|host| host.rsplit('@').next().unwrap_or_default());
        let is_host = |host: &str| !host.is_empty() && !host.starts_with(':') && !host.contains(char::is_whitespace);
        if !parts.is_some_and(|(scheme, _)| is_scheme(scheme)) || !host.is_some_and(is_host) {
            return Err(failure(format!("{name} is no URL with a scheme and a host")));
        }
    }
    Ok(())
}

/// Checks that the answer has the same resource as before. A difference is a warning if the dialect's documents do not require
/// it.
pub(super) fn is_same(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    let rules = rules_of(context);
    let flaw = |why: String| {
        if rules.say(DocumentedRule::Idempotent) {
            failure(why)
        } else {
            warning(why)
        }
    };
    if !got.is_success() {
        return Err(match got.status() {
            status @ 500.. => failure(format!("the status is {status}")),
            status => flaw(format!("the status is {status}")),
        });
    }
    let known = context.find(&context.main_thing()).and_then(|made| made.id.as_deref());
    let id = match got.member("id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    if id.as_deref() != known {
        return Err(flaw("id is another than before".into()));
    }
    Ok(())
}

/// Turns a failure into a warning where the dialect's documents do not describe changes of plans.
pub(super) fn undocumented(context: &CheckContext, judgement: CheckResult) -> CheckResult {
    match judgement {
        Err(flaw) if !rules_of(context).say(DocumentedRule::PlanChange) => Err(warning(flaw.why)),
        judgement => judgement,
    }
}

pub(super) fn is_changed(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    let judgement = judge::status(got, &[200]).and_then(|()| described(got));
    undocumented(context, judgement.and_then(|()| if_declared(context, got)))
}

fn if_declared(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    match context.settings.manifest {
        Some(_) => declared(context, got),
        None => Ok(()),
    }
}

pub(super) fn without_plan(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    if context.settings.dialect != Dialect::Scalingo {
        return undocumented(context, judge::refusal(got, &[400, 422]));
    }
    judge::status(got, &[422])?;
    judge::object(got)?;
    required(got.json().unwrap_or(&Value::Null), "", &[("error", JsonType::Text)])
}

pub(super) fn is_removed(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    judge::status(got, rules_of(context).removed)?;
    if got.status() == 204 && got.json().is_some() {
        return Err(failure("the status is 204, and there is a body"));
    }
    Ok(())
}
