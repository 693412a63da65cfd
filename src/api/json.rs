//! Answers in JSON.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::error::ApiError;
use super::hints;
use super::media_type::JSON;

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(header::CONTENT_TYPE, JSON)], hints::worded_json(text + "\n")).into_response(),
        Err(error) => ApiError::failed(format!("failed to write JSON: {error}")).into_response(),
    }
}
