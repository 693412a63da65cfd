//! A single service as an API gets it: complete, or as a change of an existing one.

use std::collections::{BTreeMap, BTreeSet};

use super::{check_text, describe, service};
use crate::model::claims::Claims;
use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::{Service, write};

/// Reads and validates one service of JSON. Places in problems are its fields (`limit.pps`). Does not check conflicts
/// with other services: see [`State::new`](crate::model::State::new).
pub fn parse_service(text: &[u8]) -> Result<Service, InputProblems> {
    validate(&tree(text)?, InputProblems::default())
}

/// Reads a service whose name is known and may be left out of the text. A name in the text is kept, even if it is a
/// different one.
///
/// # Errors
///
/// Fails as [`parse_service`] does.
pub fn parse_service_named(name: &str, text: &[u8]) -> Result<Service, InputProblems> {
    let mut json = tree(text)?;
    if let Json::Object(members) = &mut json
        && !members.iter().any(|(key, _)| key == "name")
    {
        members.insert(0, ("name".to_owned(), Json::String(name.to_owned())));
    }
    validate(&json, InputProblems::default())
}

/// Changes a service by a JSON merge patch (RFC 7396) of its written form: a member replaces the existing one, objects
/// are merged, `null` resets a field to its default. Places in problems are fields of the resulting service.
///
/// A field whose default depends on another one keeps its value only if it was set explicitly: `{"limit": {"pps": 7}}`
/// leaves an explicit burst unchanged, and changes a default one to 70.
pub fn patch_service(service: &Service, patch: &[u8]) -> Result<Service, InputProblems> {
    let patch = tree(patch)?;
    let mut problems = InputProblems::default();
    let Json::Object(_) = &patch else {
        problems.add(
            &JsonPath::Document,
            format_args!("must be an object with the fields to change, not {patch}"),
        );
        return Err(problems);
    };
    let mut target = tree(write::service_text(service).as_bytes())?;
    merge(&mut target, &patch, &JsonPath::Document, &mut problems);
    validate(&target, problems)
}

fn tree(text: &[u8]) -> Result<Json, InputProblems> {
    serde_json::from_str(check_text(text, "a service has name, port and backends")?).map_err(|error| {
        let (place, message) = describe(&error);
        let mut problems = InputProblems::default();
        problems.add(&place, message);
        problems
    })
}

fn validate(json: &Json, mut problems: InputProblems) -> Result<Service, InputProblems> {
    let mut claims = Claims::of_one();
    let service = service::read(json, &JsonPath::Document, &mut claims.service(0), &mut problems);
    claims.check(&mut problems);
    match service {
        Some(service) if problems.is_empty() => Ok(service),
        _ => Err(problems),
    }
}

/// Merges `patch` into `target`. The recursion is as deep as the patch, which the parser bounds.
fn merge(target: &mut Json, patch: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) {
    let Json::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !matches!(target, Json::Object(_)) {
        *target = Json::Object(Vec::new());
    }
    let Json::Object(members) = target else { return };
    let mut merged: BTreeMap<String, Json> = members.drain(..).collect();
    let mut distinct = BTreeSet::new();
    for (key, change) in changes {
        let place = place.key(key);
        if !distinct.insert(key) {
            problems.add(&place, "is given twice");
        } else if *change != Json::Null {
            merge(
                merged.entry(key.clone()).or_insert(Json::Null),
                change,
                &place,
                problems,
            );
        } else if merged.remove(key).is_none() && is_unknown(&place) {
            problems.add(
                &place,
                format_args!("is unknown; known are {}", service::FIELDS.join(", ")),
            );
        }
    }
    members.extend(merged);
}

/// Returns whether a null in a patch names a field that services do not have.
fn is_unknown(place: &JsonPath<'_>) -> bool {
    matches!(place, JsonPath::Key(JsonPath::Document, key) if !service::FIELDS.contains(key))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(json: &Value) -> Result<Service, String> {
        parse_service(json.to_string().as_bytes()).map_err(|problems| problems.to_string())
    }

    fn patched(service: &Value, patch: &str) -> Result<Value, String> {
        let service = parsed(service)?;
        let patched = patch_service(&service, patch.as_bytes()).map_err(|problems| problems.to_string())?;
        Ok(write::service_value(&patched))
    }

    #[test]
    fn a_name_that_is_left_out_is_the_one_that_is_known() {
        let named = |text: &str| parse_service_named("a", text.as_bytes()).map(|service| service.name.to_string());
        assert_eq!(named(r#"{"port": 1, "backends": []}"#).as_deref(), Ok("a"));
        assert_eq!(named(r#"{"port": 1, "backends": [], "name": "b"}"#).as_deref(), Ok("b"));
        for wrong in [
            "{}",
            "[]",
            "{",
            r#"{"name": null, "port": 1, "backends": []}"#,
            r#""a""#,
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        let twice = named(r#"{"port": 1, "port": 2, "backends": []}"#)
            .unwrap_err()
            .to_string();
        assert!(twice.contains("is given twice"), "{twice}");
    }

    #[test]
    fn places_are_those_of_the_service() {
        let wrong = json!({
            "name": "A", "port": 0, "backends": ["10.2.0.1:80", "10.2.0.1:80", "10.2.0.300:1"],
            "limit": {"pps": 0}, "labels": {"a b": 1}, "colour": "red",
        });
        let problems = parse_service(wrong.to_string().as_bytes()).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| &*problem.place).collect();
        assert_eq!(
            places,
            [
                "colour",
                "name",
                "port",
                "backends[2]",
                "limit.pps",
                "labels[\"a b\"]",
                "backends[1]"
            ]
        );
        let twice = problems.iter().last().unwrap();
        assert_eq!(twice.message, "10.2.0.1:80 is already backends[0]");
    }

    #[test]
    fn what_is_no_service_is_refused() {
        let refused = |text: &str| parse_service(text.as_bytes()).unwrap_err().to_string();
        assert!(refused("[]").starts_with("document: must be an object with name, port"));
        assert!(refused("").starts_with("document: is empty; a service has name"));
        assert!(refused("{").starts_with("line 1 column 1: is not JSON"));
        assert!(refused(r#"{"name":"a","name":"b","port":1,"backends":[]}"#).contains("name: is given twice"));
        assert_eq!(
            refused("{}"),
            "name: is missing\nport: is missing\nbackends: is missing"
        );
        assert!(refused(r#"{"name":"a","port":1,"backends":[]} {}"#).contains("trailing characters"));
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let service = json!({
            "name": "a", "port": 2000, "backends": ["10.2.0.1:80"],
            "limit": {"pps": 5}, "labels": {"x": "1", "y": "2"}, "on_retire": "reset",
        });
        let patch = r#"{"port": 2001, "limit": {"pps": 7}, "labels": {"x": null, "z": "3"}, "on_retire": null,
            "health": {"interval": "1s", "rise": null}, "backends": ["10.2.0.2:80"], "deny": null}"#;
        let expected = json!({
            "name": "a", "port": 2001, "backends": ["10.2.0.2:80"],
            "limit": {"pps": 7}, "labels": {"y": "2", "z": "3"}, "health": {"interval": "1s"},
        });
        assert_eq!(patched(&service, patch), Ok(expected));
        assert_eq!(patched(&service, "{}"), Ok(service.clone()));
        let own_burst = json!({"name": "a", "port": 2000, "backends": [], "limit": {"pps": 5, "burst": 9}});
        let expected = json!({"name": "a", "port": 2000, "backends": [], "limit": {"pps": 7, "burst": 9}});
        assert_eq!(patched(&own_burst, r#"{"limit": {"pps": 7}}"#), Ok(expected));
    }

    #[test]
    fn a_patch_that_cannot_be_meant_is_refused() {
        let service = json!({"name": "a", "port": 2000, "backends": []});
        for (patch, told) in [
            (
                "[]",
                "document: must be an object with the fields to change, not a list",
            ),
            (
                "null",
                "document: must be an object with the fields to change, not null",
            ),
            (r#"{"limt": null}"#, "limt: is unknown; known are name, port"),
            (r#"{"limt": 1}"#, "limt: is unknown; known are name, port"),
            (r#"{"port": 1, "port": 2}"#, "port: is given twice"),
            (r#"{"name": null}"#, "name: is missing"),
            (r#"{"limit": {"burst": 1}}"#, "limit.pps: is missing"),
            (
                r#"{"backends": {"a": 1}}"#,
                "backends: must be a list of backends, not an object",
            ),
            (r#"{"port": }"#, "line 1 column 10: is not JSON"),
        ] {
            let error = patched(&service, patch).unwrap_err();
            assert!(error.starts_with(told), "{patch}: {error}");
        }
    }

    /// Tries the examples of RFC 7396, appendix A.
    #[test]
    fn merging_is_that_of_the_rfc() {
        for (original, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null,"deny":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","deny":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let mut problems = InputProblems::default();
            let mut target = serde_json::from_str(original).unwrap();
            merge(
                &mut target,
                &serde_json::from_str(patch).unwrap(),
                &JsonPath::Document,
                &mut problems,
            );
            assert_eq!(target, serde_json::from_str(result).unwrap(), "{original} {patch}");
            assert!(problems.is_empty(), "{original} {patch}: {problems}");
        }
    }
}
