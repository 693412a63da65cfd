//! The manifest that a provider gives its platform.

use serde_json::Value;

use super::context::CheckContext;
use super::judge::{JsonType, optional, required};
use super::judgement::{CheckResult, failure};
use crate::addon::Dialect;

/// Returns the part of a manifest that is about the API.
fn api(dialect: Dialect, manifest: &Value) -> &Value {
    match dialect {
        Dialect::Scalingo | Dialect::Local | Dialect::Osb => manifest,
        Dialect::Heroku | Dialect::CleverCloud => &manifest["api"],
    }
}

/// Returns the names of the variables that a manifest declares. `None`: it declares none.
pub(super) fn variables(dialect: Dialect, manifest: &Value) -> Option<Vec<&str>> {
    let declared = api(dialect, manifest).get("config_vars")?.as_array()?;
    Some(declared.iter().filter_map(Value::as_str).collect())
}

/// Returns the URL of single sign-on that a manifest names.
pub fn sign_on(dialect: Dialect, manifest: &Value) -> Option<&str> {
    api(dialect, manifest)["production"]["sso_url"].as_str()
}

pub(super) fn fields(context: &CheckContext, manifest: &Value) -> CheckResult {
    let dialect = context.settings.dialect;
    let api = api(dialect, manifest);
    if dialect == Dialect::Scalingo {
        let must = [
            ("name", JsonType::Text),
            ("username", JsonType::Text),
            ("password", JsonType::Text),
            ("config_vars", JsonType::Texts),
            ("plans", JsonType::Array),
        ];
        required(manifest, "", &must)?;
        optional(
            manifest,
            "",
            &[("sso_salt", JsonType::Text), ("description", JsonType::AnyText)],
        )?;
        for (at, plan) in manifest["plans"].as_array().into_iter().flatten().enumerate() {
            required(
                plan,
                &format!("plans[{at}]."),
                &[("name", JsonType::Text), ("display_name", JsonType::Text)],
            )?;
            if plan.get("price").is_some_and(|price| !price.is_number()) {
                return Err(failure(format!("plans[{at}].price is no number")));
            }
        }
    } else {
        required(manifest, "", &[("id", JsonType::Text), ("api", JsonType::Object)])?;
        let may_be_in_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if !manifest["id"].as_str().unwrap_or_default().bytes().all(may_be_in_id) {
            return Err(failure(
                "id has other characters than lower-case letters, digits, - and _",
            ));
        }
        required(
            api,
            "api.",
            &[
                ("password", JsonType::Text),
                ("regions", JsonType::Texts),
                ("production", JsonType::Object),
            ],
        )?;
        optional(
            api,
            "api.",
            &[("config_vars", JsonType::Texts), ("sso_salt", JsonType::Text)],
        )?;
        let regions: Vec<&str> = api["regions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (is_there, wanted) = match dialect {
            Dialect::Heroku => (regions.contains(&"us") || regions.contains(&"*"), "\"us\" or \"*\""),
            _ => (regions.contains(&"eu"), "\"eu\""),
        };
        if !is_there {
            return Err(failure(format!("api.regions lacks {wanted}")));
        }
    }
    let must = [("base_url", JsonType::Text), ("sso_url", JsonType::Text)];
    required(&api["production"], "production.", &must)
}

pub(super) fn variable_names(context: &CheckContext, manifest: &Value) -> CheckResult {
    let dialect = context.settings.dialect;
    let id = manifest["id"].as_str().unwrap_or_default();
    let of_id = id.to_ascii_uppercase().replace('-', "_");
    let prefix = match dialect {
        Dialect::Heroku => manifest["api"]["config_vars_prefix"]
            .as_str()
            .map_or(of_id, str::to_owned),
        Dialect::CleverCloud => of_id,
        Dialect::Scalingo | Dialect::Local | Dialect::Osb => String::new(),
    };
    for name in variables(dialect, manifest).unwrap_or_default() {
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            && name.starts_with(|first: char| first.is_ascii_uppercase());
        if !is_name {
            return Err(failure(format!(
                "{name:?} is no name of upper-case letters, digits and _"
            )));
        }
        let rest = name.strip_prefix(prefix.as_str());
        if !prefix.is_empty() && !rest.is_some_and(|rest| rest.starts_with('_')) {
            return Err(failure(format!("{name} does not begin with {prefix}_")));
        }
    }
    Ok(())
}

pub(super) fn encrypted(_: &CheckContext, manifest: &Value) -> CheckResult {
    let api = if manifest["api"].is_object() {
        &manifest["api"]
    } else {
        manifest
    };
    for name in ["base_url", "sso_url"] {
        let url = api["production"][name].as_str().unwrap_or_default();
        if !url.is_empty() && !url.starts_with("https://") {
            return Err(super::judgement::warning(format!("production.{name} is not https")));
        }
    }
    Ok(())
}
