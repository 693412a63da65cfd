//! Fields of a service's JSON, in words.

use serde_json::Value;

use tcpgw_core::escape;

/// Returns a backend of a list, or an item of another one: `10.2.0.1:80=2 (draining)`.
pub(in crate::cli) fn one(item: &Value) -> String {
    let Some(fields) = item.as_object() else {
        return text_of(item);
    };
    let state = fields.get("state").filter(|state| *state == "draining");
    let state = state.map_or("", |_| " (draining)");
    let weight = fields.get("weight").map(|weight| format!("={weight}"));
    let address = text_of(&item["address"]);
    let address = if address.contains(':') {
        format!("[{address}]")
    } else {
        address
    };
    format!("{address}:{}{}{state}", item["port"], weight.unwrap_or_default())
}

/// Returns a value without the punctuation of JSON: `pps 1000, burst 500`, `10.0.0.0/8 192.0.2.1`.
pub(in crate::cli) fn plain(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| format!("{} {}", escape::text(name), plain(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => text_of(other),
    }
}

/// Returns a string without control characters for the terminal; a value that is neither a JSON string nor missing is shown as
/// it is written.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => escape::text(text),
        other => other.to_string(),
    }
}
