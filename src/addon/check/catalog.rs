//! The catalog of an Open Service Broker: its shape, and what of it is checked.

use std::collections::BTreeSet;

use serde_json::Value;

use super::context::CheckContext;
use super::judge::{self, JsonType, optional, required};
use super::judgement::{CheckResult, failure, warning};
use super::message::CheckExchange;
use crate::addon::id::Guid;

/// Largest JSON schema, in bytes.
const MAX_SCHEMA: usize = 64 << 10;
/// Deepest nesting of a schema that is looked through.
const MAX_DEPTH: usize = 64;

/// Returns each offering with its place in the catalog.
fn services(got: &CheckExchange) -> impl Iterator<Item = (String, &Value)> {
    let services = got.member("services").and_then(Value::as_array);
    let services = services.into_iter().flatten().enumerate();
    services.map(|(at, service)| (format!("services[{at}]."), service))
}

/// Returns each plan with its place in the catalog.
fn plans(got: &CheckExchange) -> impl Iterator<Item = (String, &Value)> {
    services(got).flat_map(|(at, service)| {
        let plans = service["plans"].as_array().into_iter().flatten().enumerate();
        plans.map(move |(number, plan)| (format!("{at}plans[{number}]."), plan))
    })
}

pub(super) fn is_catalog(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    judge::status(got, &[200])?;
    judge::object(got)?;
    required(got.json().unwrap_or(&Value::Null), "", &[("services", JsonType::Array)])
}

pub(super) fn offerings(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    const PERMISSIONS: [&str; 3] = ["syslog_drain", "route_forwarding", "volume_mount"];
    for (at, service) in services(got) {
        let must = [
            ("name", JsonType::Text),
            ("id", JsonType::Text),
            ("description", JsonType::Text),
            ("bindable", JsonType::Boolean),
            ("plans", JsonType::Array),
        ];
        required(service, &at, &must)?;
        let may = [
            ("tags", JsonType::Texts),
            ("requires", JsonType::Texts),
            ("instances_retrievable", JsonType::Boolean),
            ("bindings_retrievable", JsonType::Boolean),
            ("allow_context_updates", JsonType::Boolean),
            ("plan_updateable", JsonType::Boolean),
            ("metadata", JsonType::Object),
            ("dashboard_client", JsonType::Object),
        ];
        optional(service, &at, &may)?;
        if service["plans"].as_array().is_some_and(Vec::is_empty) {
            return Err(failure(format!("{at}plans is empty")));
        }
        let permissions = service["requires"].as_array().into_iter().flatten();
        let unknown = permissions
            .filter_map(Value::as_str)
            .find(|permission| !PERMISSIONS.contains(permission));
        if let Some(unknown) = unknown {
            return Err(failure(format!("{at}requires has {unknown:?}, which is no permission")));
        }
    }
    Ok(())
}

pub(super) fn plan_objects(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    for (at, plan) in plans(got) {
        let must = [
            ("id", JsonType::Text),
            ("name", JsonType::Text),
            ("description", JsonType::Text),
        ];
        required(plan, &at, &must)?;
        let may = [
            ("metadata", JsonType::Object),
            ("free", JsonType::Boolean),
            ("bindable", JsonType::Boolean),
            ("binding_rotatable", JsonType::Boolean),
            ("plan_updateable", JsonType::Boolean),
            ("schemas", JsonType::Object),
            ("maximum_polling_duration", JsonType::Integer),
            ("maintenance_info", JsonType::Object),
        ];
        optional(plan, &at, &may)?;
        if let Some(version) = plan.get("maintenance_info").map(|info| &info["version"])
            && !version.as_str().is_some_and(is_semantic_version)
        {
            return Err(failure(format!(
                "{at}maintenance_info.version is no semantic version (semver.org, 2.0)"
            )));
        }
    }
    Ok(())
}

/// Returns whether a text is a semantic version, such as `1.2.3` or `1.2.3-rc.1+build`.
fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_label = |label: Option<&str>| label.is_none_or(|label| label.split('.').all(is_word));
    core.split('.').count() == 3 && core.split('.').all(is_number) && is_label(pre) && is_label(build)
}

pub(super) fn unique(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, service) in services(got) {
        if !names.insert(service["name"].as_str()) {
            return Err(failure(format!("{at}name is that of another offering")));
        }
        let mut plan_names = BTreeSet::new();
        let plans = service["plans"].as_array().into_iter().flatten().enumerate();
        for (number, plan) in plans {
            if !plan_names.insert(plan["name"].as_str()) {
                return Err(failure(format!(
                    "{at}plans[{number}].name is that of another plan of this offering"
                )));
            }
        }
    }
    for (at, object) in services(got).chain(plans(got)) {
        if !ids.insert(object["id"].as_str()) {
            return Err(failure(format!("{at}id is that of another offering or plan")));
        }
    }
    Ok(())
}

pub(super) fn friendly(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    for (at, object) in services(got).chain(plans(got)) {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        if text("id").parse::<Guid>().is_err() {
            return Err(warning(format!("{at}id is no GUID")));
        }
        let is_friendly = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        if !text("name").bytes().all(is_friendly) {
            return Err(warning(format!(
                "{at}name has other characters than letters, digits, periods and hyphens"
            )));
        }
    }
    Ok(())
}

pub(super) fn schemas(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    const PLACES: [&str; 3] = [
        "/schemas/service_instance/create/parameters",
        "/schemas/service_instance/update/parameters",
        "/schemas/service_binding/create/parameters",
    ];
    for (at, plan) in plans(got) {
        for place in PLACES {
            let Some(schema) = plan.pointer(place) else { continue };
            let name = format!("{at}{}", place[1..].replace('/', "."));
            required(schema, &format!("{name}."), &[("$schema", JsonType::Text)])?;
            if schema.to_string().len() > MAX_SCHEMA {
                return Err(failure(format!("{name} is larger than 64 kB")));
            }
            if refers_outside(schema, 0) {
                return Err(failure(format!("{name} has a reference to another document ($ref)")));
            }
        }
    }
    Ok(())
}

/// Checks that offerings and plans have the same ids as when the catalog was fetched first.
pub(super) fn is_stable(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    is_catalog(context, got)?;
    let ids = |catalog: &Value| -> BTreeSet<String> {
        let services = catalog["services"].as_array().into_iter().flatten();
        let objects = services.flat_map(|service| {
            let plans = service["plans"].as_array().into_iter().flatten();
            std::iter::once(service).chain(plans)
        });
        objects
            .filter_map(|object| object["id"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let before = context.catalog.as_ref().map(ids).unwrap_or_default();
    if got.json().map(ids).unwrap_or_default() == before {
        return Ok(());
    }
    Err(failure("other ids than when the catalog was asked for before"))
}

fn refers_outside(schema: &Value, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    match schema {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_outside = |to: &str| !to.starts_with('#');
            (name == "$ref" && value.as_str().is_some_and(is_outside)) || refers_outside(value, depth + 1)
        }),
        Value::Array(items) => items.iter().any(|item| refers_outside(item, depth + 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions_are_told_from_others() {
        for good in ["0.0.0", "2.1.1+abcdef", "1.2.3-rc.1+build.5", "10.20.30"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3+", "v1.2.3",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
