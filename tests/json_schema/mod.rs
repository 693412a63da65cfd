//! The part of JSON Schema (draft 2020-12) that the project's schemas use; a keyword beyond it fails the test that meets it.

use serde_json::Value;

/// Returns the schema itself, or the one that it refers to.
pub(crate) fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(target) => document
            .pointer(&target[1..])
            .unwrap_or_else(|| panic!("{target} is not there")),
        None => schema,
    }
}

/// Returns the errors of a value, or an empty list when it matches the schema. References are resolved in `document`.
pub(crate) fn validate(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    check(document, schema, value, "$", &mut wrong);
    wrong
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolve(document, schema);
    members(document, schema, value, at, wrong);
    for (keyword, argument) in schema.as_object().expect("a schema is an object") {
        let list = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        let holds = match keyword.as_str() {
            // The last ones are checked below, with the members.
            "description"
            | "default"
            | "title"
            | "$schema"
            | "$id"
            | "$defs"
            | "required"
            | "properties"
            | "additionalProperties"
            | "propertyNames" => true,
            "pattern" => value.as_str().is_none_or(|text| {
                let pattern = argument.as_str().expect("a pattern is a string");
                regex_lite::Regex::new(pattern).expect("a pattern").is_match(text)
            }),
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 >= number(argument)),
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 <= number(argument)),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= number(argument)),
            "maxProperties" => value
                .as_object()
                .is_none_or(|members| members.len() as u64 <= number(argument)),
            "type" => list
                .iter()
                .chain(Some(argument))
                .any(|kind| kind.as_str().is_some_and(|kind| is_a(value, kind))),
            "enum" => list.contains(value),
            "const" => argument == value,
            "minimum" => value.as_f64() >= argument.as_f64() || !value.is_number(),
            "maximum" => value.as_f64() <= argument.as_f64() || !value.is_number(),
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, argument, item, &format!("{at}[{n}]"), wrong);
                }
                true
            }
            "anyOf" => list.iter().any(|schema| fits(document, schema, value)),
            "not" => !fits(document, argument, value),
            "oneOf" => list.iter().filter(|schema| fits(document, schema, value)).count() == 1,
            other => panic!("{at}: this test does not know the keyword {other}"),
        };
        if !holds {
            wrong.push(format!("{at}: {value} breaks {keyword} {argument}"));
        }
    }
}

fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    validate(document, schema, value).is_empty()
}

fn members(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().expect("a name")) {
            wrong.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, member) in object {
        if schema["propertyNames"].is_object()
            && !fits(document, &schema["propertyNames"], &Value::String(name.clone()))
        {
            wrong.push(format!("{at}: the name {name:?} breaks propertyNames"));
        }
        let at = format!("{at}.{name}");
        match properties.get(name).unwrap_or(&schema["additionalProperties"]) {
            Value::Bool(false) => wrong.push(format!("{at} is not described")),
            schema @ Value::Object(_) => check(document, schema, member, &at, wrong),
            _ => {}
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

fn number(argument: &Value) -> u64 {
    argument.as_u64().expect("a number")
}
