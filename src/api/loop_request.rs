//! Requests to the daemon's loop.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::ApiError;
use super::limits::Times;
use crate::control::reply::ReplySender;
use crate::control::request::DaemonRequest;

/// Sends a request to the loop, and waits for its answer.
pub(super) async fn send<T>(
    requests: &mpsc::Sender<DaemonRequest>,
    times: &Times,
    patience: Duration,
    request: impl FnOnce(ReplySender<T>) -> DaemonRequest,
) -> Result<T, ApiError> {
    let place = match timeout(times.place, requests.reserve()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return Err(ApiError::ending()),
        Err(_) => return Err(ApiError::busy("the daemon has too many questions to answer")),
    };
    let (reply, answer) = oneshot::channel();
    place.send(request(reply));
    match timeout(patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "the daemon ended before it answered; whether an order was carried out is not known",
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no_answer",
            "the daemon has not answered in time; it may still carry out an order: see /v1/events",
        )),
    }
}
