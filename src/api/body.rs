//! Reading of bodies, with bounds for their size, number and time.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::ApiError;
use super::limits::{BODY, LARGE_BODIES, SMALL_BODY, Times};

/// Reads a whole JSON body. A large one comes with its place, which must be kept as long as the bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    kind: AcceptedMedia,
    large: &Arc<Semaphore>,
    times: &Times,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
    check_type(headers, kind)?;
    let announced = announced(headers);
    if announced.is_some_and(|length| length > BODY as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + times.body;
    let (mut bytes, mut place) = (Vec::new(), None);
    loop {
        let next = deadline.min(Instant::now() + times.body_piece);
        let Ok(piece) = timeout_at(next, body.frame()).await else {
            return Err(late());
        };
        let piece = match piece {
            None => return Ok((bytes, place)),
            Some(Err(error)) => return Err(ApiError::bad(format!("failed to read the body: {error}"))),
            // Trailers say nothing.
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let length = bytes.len() + piece.len();
        if length > BODY {
            return Err(too_large());
        }
        if length > SMALL_BODY && place.is_none() {
            let Ok(Ok(free)) = timeout(times.place, Arc::clone(large).acquire_owned()).await else {
                return Err(ApiError::busy(&format!(
                    "{LARGE_BODIES} large states are being read already"
                )));
            };
            place = Some(free);
            // Else its buffer would be up to twice as large.
            let left = announced.map_or(0, |length| usize::try_from(length).unwrap_or(BODY));
            bytes.reserve_exact(left.saturating_sub(bytes.len()));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Returns the length of a body that its head announces.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Bytes of a body that is read before the request is examined.
pub(super) const AT_ONCE: u64 = 64 << 10;

/// Reads a body of [`AT_ONCE`] bytes at most, whatever it is.
pub(super) async fn small(mut body: Body, times: &Times) -> Result<Vec<u8>, ApiError> {
    let deadline = Instant::now() + times.body;
    let mut bytes = Vec::new();
    loop {
        let next = deadline.min(Instant::now() + times.body_piece);
        match timeout_at(next, body.frame()).await {
            Err(_) => return Err(late()),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(ApiError::bad(format!("failed to read the body: {error}"))),
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
        }
    }
}

fn late() -> ApiError {
    let message = "the body did not come in time; nothing was done";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
}

fn too_large() -> ApiError {
    let message = format!("the body has more than {} MiB; nothing was done", BODY >> 20);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// Accepted media types of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptedMedia {
    /// JSON.
    Json,
    /// JSON, or a merge patch by its own name (RFC 7396).
    Patch,
}

fn check_type(headers: &HeaderMap, kind: AcceptedMedia) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_plain = |encoding: &HeaderValue| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !encodings.all(is_plain) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body must not be compressed or encoded: send it without the header `content-encoding`",
        ));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let is = |name: &str| essence.trim().eq_ignore_ascii_case(name);
    if is("application/json") || (kind == AcceptedMedia::Patch && is("application/merge-patch+json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON: send it with the header `content-type: application/json`",
    ))
}
