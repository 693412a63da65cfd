//! The fields of request bodies, in the document, the server, and the schema of the state file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{document, filled};
use crate::harness::{Answer, serves};
use crate::json_schema::resolve;

/// The document and the server agree on the fields of request bodies and of the objects in them.
#[test]
fn fields_of_bodies_are_those_that_are_known() {
    let server = serves();
    let document = document();
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Some(kinds) = operation["requestBody"]["content"].as_object() else {
                continue;
            };
            for (kind, content) in kinds {
                let schema = resolve(&document, &content["schema"]);
                assert!(schema["properties"].is_object(), "{method} {path} {kind}: no fields");
                let send = |body: &Value| {
                    let header = format!("content-type: {kind}\r\n");
                    server.send(
                        &method.to_uppercase(),
                        &filled(path),
                        &header,
                        body.to_string().as_bytes(),
                    )
                };
                compare_fields(&document, schema, &[], &send, &mut seen);
            }
        }
    }
    assert!(seen > 25, "{seen} objects");
}

/// Compares the fields of the object at this place with those that the server says it knows, and goes on with objects in it.
fn compare_fields(document: &Value, schema: &Value, place: &[&str], send: &dyn Fn(&Value) -> Answer, seen: &mut usize) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{place:?}: unknown fields are refused"
    );
    let mut body = serde_json::json!({"no-such-field": 1});
    for name in place.iter().rev() {
        body = match *name {
            "[]" => serde_json::json!([body]),
            // These are read once it is known which service they are for.
            name @ ("put" | "patch") => serde_json::json!({"name": "web", name: body}),
            name => serde_json::json!({name: body}),
        };
    }
    let answer = send(&body);
    assert_eq!(answer.status, 422, "{body}: {}", answer.text());
    let known = known_fields(&answer.json());
    let described: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(known, described, "{body}: {}", answer.text());
    *seen += 1;
    for (name, property) in properties {
        let is_list = property["type"] == "array";
        let below = if is_list { &property["items"] } else { property };
        let choices = ["anyOf", "oneOf"]
            .iter()
            .filter_map(|choice| resolve(document, below)[*choice].as_array());
        for choice in choices.flatten().chain(Some(below)) {
            let mut place = place.to_vec();
            place.push(name);
            place.extend(is_list.then_some("[]"));
            compare_fields(document, resolve(document, choice), &place, send, seen);
        }
    }
}

/// Returns the names of a message such as "unknown field `x`, expected `a` or `b`", or "is unknown; known are a, b".
fn known_fields(error: &Value) -> BTreeSet<String> {
    let problems = error["error"]["problems"].as_array().into_iter().flatten();
    let mut messages = problems.filter_map(|problem| problem["message"].as_str());
    let message = messages.find(|message| message.contains("unknown"));
    let message = message.unwrap_or_else(|| panic!("{error:#}"));
    if let Some((_, known)) = message.split_once("known are ") {
        return known.split(", ").map(str::to_owned).collect();
    }
    let (_, expected) = message.split_once("expected ").expect("serde names what it expects");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn services_are_described_as_in_the_schema_of_the_state_file() {
    let (document, schema) = (document(), crate::schema::schema());
    let schemas = &document["components"]["schemas"];
    let moved = |value: &Value| -> Value {
        serde_json::from_str(&value.to_string().replace("#/$defs/", "#/components/schemas/")).expect("JSON")
    };
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        assert_eq!(schemas[name], moved(definition), "{name}");
    }
    assert_eq!(schemas["StateFile"]["properties"], moved(&schema["properties"]));
    // The schemas of changes and replacements have the same fields, with the same ranges.
    for (other, whole) in [
        ("ServiceReplacement", "ServiceSpec"),
        ("ServicePatch", "ServiceSpec"),
        ("LimitPatch", "Limit"),
        ("ClientLimitsPatch", "ClientLimits"),
        ("HealthCheckPatch", "HealthCheck"),
        ("HttpCheckPatch", "HttpCheck"),
        ("ExchangeCheckPatch", "ExchangeCheck"),
    ] {
        let (other, whole) = (&schemas[other]["properties"], &schemas[whole]["properties"]);
        let names =
            |properties: &Value| -> Vec<String> { properties.as_object().expect("fields").keys().cloned().collect() };
        assert_eq!(names(other), names(whole));
        for (name, field) in whole.as_object().expect("fields") {
            for keyword in ["minimum", "maximum", "pattern", "minItems", "items"] {
                assert_eq!(other[name][keyword], field[keyword], "{name}: {keyword}");
            }
        }
    }
}
