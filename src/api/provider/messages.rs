//! Requests and answers of the provider APIs as HTTP has them.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::addon::Dialect;
use crate::addon::dialect::exchange::DialectAnswer;
use crate::addon::sso::FormFields;

/// Returns user name and password of a header `authorization` (RFC 7617).
pub(super) fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((text[..colon].to_vec(), text[colon + 1..].to_vec()))
}

/// Returns the fields of a query or of a form; of a name that is there twice the first.
pub(super) fn fields(text: &[u8]) -> FormFields {
    let mut fields = FormFields::new();
    for (name, value) in form_urlencoded::parse(text) {
        fields.entry(name.into_owned()).or_insert_with(|| value.into_owned());
    }
    fields
}

/// Returns an answer with the dialect's headers.
pub(super) fn rendered(dialect: Dialect, answer: DialectAnswer) -> Response<Body> {
    let body = answer
        .body
        .map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = match dialect {
        Dialect::Heroku => "application/vnd.heroku-addons+json; version=3",
        _ => "application/json",
    };
    let headers = response.headers_mut();
    if answer.status != 204 {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.status == 503 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// Adds the name that an OSB platform gave its request to the answer.
pub(super) fn identified(dialect: Dialect, mut response: Response<Body>, asked: &HeaderMap) -> Response<Body> {
    const NAME: &str = "x-broker-api-request-identity";
    if let Some(identity) = asked.get(NAME).filter(|_| dialect == Dialect::Osb) {
        response.headers_mut().insert(NAME, identity.clone());
    }
    response
}

/// Returns an answer to a person.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"message": text, "error": text}).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
