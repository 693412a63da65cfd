//! Answers that are not pages.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

/// Returns an answer of plain text.
pub(super) fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    set_headers(&mut response, "text/plain; charset=utf-8");
    response
}

/// Sets the headers of an answer of this media type.
pub(super) fn set_headers(response: &mut Response<Body>, media_type: &'static str) {
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}
