//! The second half of `docs/reference/api.md`, from `src/api/openapi.json`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{assert_made, cell};
use crate::api::OPENAPI;

const PAGE: &str = "docs/reference/api.md";
/// Mark in the page: the text below it is generated; the text above it is written by hand.
const MARK: &str = "<!-- Below this line the page is made from the OpenAPI document. -->\n";

#[test]
fn the_page_of_the_api_is_what_the_openapi_document_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let there = fs::read_to_string(path).expect("a page");
    let (by_hand, _) = there.split_once(MARK).expect("the line below which the page is made");
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let mut page = format!("{by_hand}{MARK}");
    write_routes(&mut page, &document);
    write_errors(&mut page, &document);
    write_bodies(&mut page, &document);
    assert_made(PAGE, &page);
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Writes a section for each tag, with its operations.
fn write_routes(page: &mut String, document: &Value) {
    page.push_str("\n## Routes\n");
    let mut written = 0;
    for tag in list(&document["tags"]) {
        writeln!(
            page,
            "\n### Routes of {}\n\n{}",
            text(tag, "name"),
            cell(text(tag, "description"))
        )
        .expect("room");
        for (path, methods) in entries(&document["paths"]) {
            for (method, operation) in entries(methods) {
                if list(&operation["tags"]).any(|of| *of == tag["name"]) {
                    write_operation(page, &method.to_uppercase(), path, operation);
                    written += 1;
                }
            }
        }
    }
    let all = entries(&document["paths"]).map(|(_, methods)| entries(methods).count());
    assert_eq!(
        written,
        all.sum::<usize>(),
        "each operation has one tag, which is described"
    );
}

fn write_operation(page: &mut String, method: &str, path: &str, operation: &Value) {
    writeln!(page, "\n#### `{method} {path}`\n\n{}", cell(text(operation, "summary"))).expect("room");
    let parameters: Vec<&Value> = list(&operation["parameters"]).collect();
    if !parameters.is_empty() {
        page.push_str("\n| parameter | in | accepted | meaning |\n| --- | --- | --- | --- |\n");
    }
    for parameter in parameters {
        let required = if parameter["required"] == true {
            ", required"
        } else {
            ""
        };
        writeln!(
            page,
            "| `{}` | {}{required} | {} | {} |",
            text(parameter, "name"),
            text(parameter, "in"),
            accepted(&parameter["schema"]),
            cell(text(parameter, "description"))
        )
        .expect("room");
    }
    let body = &operation["requestBody"];
    if body.is_object() {
        let types: Vec<String> = entries(&body["content"])
            .map(|(kind, of)| format!("{} (`{kind}`)", accepted(&of["schema"])))
            .collect();
        writeln!(
            page,
            "\nBody: {}. {}",
            types.join(", or "),
            cell(text(body, "description"))
        )
        .expect("room");
    }
    page.push_str("\n| status | body | meaning |\n| --- | --- | --- |\n");
    let mut errors = Vec::new();
    for (status, response) in entries(&operation["responses"]) {
        if response["$ref"].is_string() {
            errors.push(status.as_str());
            continue;
        }
        let bodies: Vec<String> = entries(&response["content"])
            .map(|(_, of)| accepted(&of["schema"]))
            .collect();
        let headers: Vec<String> = entries(&response["headers"])
            .map(|(name, of)| format!("; header `{name}`: {}", cell(text(of, "description"))))
            .collect();
        let meaning = cell(text(response, "description"));
        let meaning = if headers.is_empty() {
            meaning.as_str()
        } else {
            meaning.trim_end_matches('.')
        };
        writeln!(
            page,
            "| {status} | {} | {meaning}{} |",
            bodies.join(", or "),
            headers.concat()
        )
        .expect("room");
    }
    if !errors.is_empty() {
        writeln!(
            page,
            "| {} | [`Error`](#error) | [an error](#errors) |",
            errors.join(", ")
        )
        .expect("room");
    }
}

fn write_errors(page: &mut String, document: &Value) {
    page.push_str("\n## Errors\n\nThe body is [`Error`](#error).\n\n| status | meaning |\n| --- | --- |\n");
    for (status, response) in entries(&document["components"]["responses"]) {
        writeln!(page, "| {status} | {} |", cell(text(response, "description"))).expect("room");
    }
}

fn write_bodies(page: &mut String, document: &Value) {
    page.push_str("\n## Bodies\n\nA key that is not marked \"required\" may be missing.\n");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        writeln!(page, "\n### {name}\n\n{}", cell(text(schema, "description"))).expect("room");
        let variants: Vec<&Value> = list(&schema["oneOf"])
            .filter(|of| of["properties"].is_object())
            .collect();
        if !variants.is_empty() {
            write_variants(page, &variants);
        } else if schema["type"] != "object" || schema["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
            writeln!(page, "\nIt is: {}.", shape(schema)).expect("room");
        }
        let mut rows = String::new();
        write_keys(&mut rows, "", schema);
        if !rows.is_empty() {
            write!(page, "\n| key | type | meaning |\n| --- | --- | --- |\n{rows}").expect("room");
        }
    }
}

/// Writes the members that all of several objects have, then the further ones of each. The key `event` tells them apart.
fn write_variants(page: &mut String, variants: &[&Value]) {
    let is_common = |key: &String| variants.iter().all(|of| !of["properties"][key].is_null());
    for (number, variant) in variants.iter().enumerate() {
        let found = entries(&variant["properties"]).filter(|(key, _)| *key != "event");
        let (common, own) = found.partition::<Vec<_>, _>(|(key, _)| is_common(key));
        let title = &variant["properties"]["event"]["const"];
        assert!(title.is_string(), "{variant}");
        if number == 0 {
            write_table(page, variant, &common);
        }
        writeln!(
            page,
            "\nThe event `{}`: {}",
            plain(title),
            cell(text(variant, "description"))
        )
        .expect("room");
        write_table(page, variant, &own);
    }
}

/// Writes a table of some keys of an object, if there are any.
fn write_table(page: &mut String, object: &Value, keys: &[(&String, &Value)]) {
    if !keys.is_empty() {
        page.push_str("\n| key | type | meaning |\n| --- | --- | --- |\n");
    }
    for (key, property) in keys {
        write_key(page, "", key, property, object);
    }
}

/// Writes a row for each key, and for the keys of nested objects.
fn write_keys(rows: &mut String, above: &str, schema: &Value) {
    for (key, property) in entries(&schema["properties"]) {
        write_key(rows, above, key, property, schema);
    }
}

fn write_key(rows: &mut String, above: &str, key: &str, property: &Value, object: &Value) {
    let is_required = list(&object["required"]).any(|required| required == key);
    let required = if is_required { ", required" } else { "" };
    let name = format!("{above}{key}");
    let meaning = cell(text(property, "description"));
    writeln!(rows, "| `{name}` | {}{required} | {meaning} |", accepted(property)).expect("room");
    write_keys(rows, &format!("{name}."), property);
    write_keys(rows, &format!("{name}[]."), &property["items"]);
}

/// Returns in words what a schema accepts: a link to the schema that it names, or its type and its bounds.
fn accepted(schema: &Value) -> String {
    match schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        Some(name) => format!("[`{name}`](#{})", name.to_lowercase()),
        None => shape(schema),
    }
}

fn shape(schema: &Value) -> String {
    for of in ["anyOf", "oneOf"] {
        if schema[of].is_array() {
            return list(&schema[of]).map(accepted).collect::<Vec<_>>().join(" or ");
        }
    }
    if schema["allOf"].is_array() {
        return list(&schema["allOf"]).map(accepted).collect::<Vec<_>>().join(" and ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        many => list(many).filter_map(Value::as_str).collect(),
    };
    let mut words: Vec<String> = types
        .iter()
        .map(|of| match *of {
            "array" => format!("array of {}", accepted(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("object of {}", accepted(&schema["additionalProperties"]))
            }
            other => other.to_owned(),
        })
        .collect();
    if words.is_empty() {
        words.push("any".to_owned());
    }
    let mut forms = words.join(" or ");
    let values: Vec<String> = list(&schema["enum"])
        .map(|value| format!("`{}`", plain(value)))
        .collect();
    if !values.is_empty() {
        forms = values.join(", ");
    }
    if schema.get("const").is_some() {
        forms = format!("`{}`", plain(&schema["const"]));
    }
    if text(schema, "pattern") == "^[0-9]+(ms|s|m|h)$" {
        "duration".clone_into(&mut forms);
    }
    let bounds = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minItems", "at least"),
        ("maxItems", "at most"),
        ("maxLength", "characters at most"),
        ("default", "default"),
    ];
    for (key, words) in bounds {
        let value = &schema[key];
        let is_type = key == "minimum" && value == 0;
        if !value.is_null() && !is_type {
            write!(forms, ", {words} {}", plain(value)).expect("room");
        }
    }
    cell(&forms)
}

/// Returns a value as JSON, a string without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
