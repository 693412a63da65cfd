//! Short forms of requests and answers for people, without secrets.
//!
//! `credentials` and `config`, which a provider gives to an app, hold passwords. A token of single sign-on gives access to
//! anyone who has it.

use serde_json::{Map, Value};

use super::message::{AnswerBody, Body, CheckExchange, CheckRequest, OperationEnd};

/// Longest text, in characters.
const MAX_SHOWN: usize = 600;
/// Replacement of a secret.
const HIDDEN: &str = "(hidden)";
/// Deepest nesting that is searched for secrets; deeper values are hidden.
const MAX_DEPTH: usize = 16;

/// Returns a request in the form `PUT /v2/service_instances/ID {"plan_id":"..."}`.
pub(super) fn request(request: &CheckRequest, place: &str) -> String {
    let method = request.method.name();
    let body = match &request.body {
        Body::Nothing => String::new(),
        Body::Json(value) => format!(" {}", hidden(value, false, 0)),
        Body::Text(text) => format!(" {text}"),
        Body::Form(fields) => {
            let pairs = fields.iter().map(|(name, value)| {
                let is_secret = name.contains("token") || name == "signature";
                format!("{name}={}", if is_secret { HIDDEN } else { value })
            });
            format!(" {}", pairs.collect::<Vec<_>>().join("&"))
        }
    };
    cut(&format!("{method} {place}{}{body}", request.path))
}

/// Returns an answer in the form `201 {"id":"..."}`.
pub(super) fn answer(got: &CheckExchange) -> String {
    let body = match &got.answer.content {
        AnswerBody::Empty => String::new(),
        AnswerBody::Json(value) => format!(" {}", hidden(value, false, 0)),
        AnswerBody::Other(text) => format!(" {text}"),
    };
    let end = match &got.end {
        None => String::new(),
        Some(OperationEnd::Succeeded) => ", then: succeeded".into(),
        Some(OperationEnd::Failed(why)) => format!(", then: failed: {why}"),
        Some(OperationEnd::GivenUp(why)) => format!(", then: {why}"),
    };
    format!("{}{}", cut(&format!("{}{body}", got.status())), cut(&end))
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push_str(" ...");
    }
    shown
}

fn hidden(value: &Value, is_secret: bool, depth: usize) -> Value {
    match value {
        _ if depth > MAX_DEPTH => HIDDEN.into(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let holds_secrets = [
                    "credentials",
                    "config",
                    "parameters",
                    "options",
                    "oauth_grant",
                    "dashboard_client",
                ]
                .contains(&name.as_str());
                (name.clone(), hidden(value, is_secret || holds_secrets, depth + 1))
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| hidden(item, is_secret, depth + 1)).collect(),
        Value::Number(_) | Value::String(_) if is_secret => HIDDEN.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::dialect::exchange::Method;
    use serde_json::json;

    #[test]
    fn what_is_secret_is_hidden() {
        let body = json!({
            "id": "a", "config": {"DATABASE_URL": "postgres://u:secret@h/", "n": [1, {"k": "secret"}]}, "message": "m",
            "credentials": {"uri": "secret", "port": 5432},
        });
        let text = hidden(&body, false, 0).to_string();
        assert!(!text.contains("secret") && !text.contains("5432"), "{text}");
        assert!(
            text.contains("DATABASE_URL") && text.contains("\"message\":\"m\""),
            "{text}"
        );
        let mut signing = CheckRequest::new(Method::Get, "");
        let fields = [
            ("id", "a"),
            ("token", "secret"),
            ("resource_token", "secret"),
            ("signature", "secret"),
        ];
        signing.body = Body::Form(
            fields
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        );
        let answer = request(&signing, "SSO");
        assert!(!answer.contains("secret") && answer.contains("id=a"), "{answer}");
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(cut(&"é".repeat(MAX_SHOWN)), "é".repeat(MAX_SHOWN));
        assert_eq!(cut(&"é".repeat(MAX_SHOWN + 1)).chars().count(), MAX_SHOWN + 4);
    }
}
