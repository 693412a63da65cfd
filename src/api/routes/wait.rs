//! Requests that wait until a service or a deploy has reached a state.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::services::service_response;
use crate::api::answers::ServiceAnswer;
use crate::api::error::ApiError;
use crate::api::limits::{LOOK_AGAIN, MAX_WAIT, WAITERS};
use crate::api::params::{Params, PathServiceName};
use crate::api::shared::ApiState;
use crate::control::events::Event;
use crate::control::request::{After, DaemonRequest};
use tcpgw_core::model::duration;

/// Default time to wait for a service.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after an event, since events come in bursts: the next look covers the whole burst.
const BURST: Duration = Duration::from_millis(5);

/// A waiting request: it checks the state, pauses until something happens, and checks again.
pub(super) struct WaitRequest {
    events: broadcast::Receiver<Arc<Event>>,
    ends: watch::Receiver<bool>,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl WaitRequest {
    /// Begins to receive events, so that events after the first check are not missed.
    pub(super) async fn new(shared: &ApiState, time: Duration) -> Result<Self, ApiError> {
        let Ok(place) = Arc::clone(&shared.waiters).try_acquire_owned() else {
            return Err(ApiError::busy(&format!("{WAITERS} others are waiting already")));
        };
        let follow = |reply| DaemonRequest::Follow(After::Now, reply);
        let events = shared.request(shared.times.answer, follow).await?.coming;
        Ok(Self {
            events,
            ends: shared.ends.clone(),
            deadline: Instant::now() + time,
            _place: place,
        })
    }

    /// Waits until the state may have changed. Returns `false` if the time is over, or the daemon ends.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        let again = self.deadline.min(Instant::now() + LOOK_AGAIN);
        tokio::select! {
            () = async { drop(self.ends.wait_for(|ends| *ends).await) } => return false,
            event = self.events.recv() => match event {
                // The loop has ended: the next look says so.
                Err(broadcast::error::RecvError::Closed) => sleep_until(again).await,
                _ => sleep(BURST).await,
            },
            () = sleep_until(again) => {}
        }
        self.events = self.events.resubscribe();
        true
    }
}

pub(in crate::api) async fn service(
    State(shared): State<ApiState>,
    PathServiceName(name): PathServiceName,
    params: Params,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["for", "timeout"])?;
    let read = |text: &str| match text {
        "healthy" | "drained" => Ok(text == "healthy"),
        _ => Err("is neither healthy nor drained"),
    };
    let Some(for_health) = params.read("for", read)? else {
        return Err(ApiError::bad("parameter for is missing: healthy or drained"));
    };
    let time = params.duration("timeout", MAX_WAIT)?.unwrap_or(PATIENCE);
    let mut waiter = WaitRequest::new(&shared, time).await?;
    loop {
        let view = shared.service(&name).await?;
        let is_so = if for_health {
            view.is_healthy()
        } else {
            view.is_drained()
        };
        if is_so {
            return Ok(service_response(&view.into()));
        }
        if !waiter.pause().await {
            let what = if for_health { "healthy" } else { "drained" };
            let message = format!("service {name} is not {what} after {}", duration::show(time));
            let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "not_yet", message);
            return Err(error.with("service", json!(ServiceAnswer::from(view))));
        }
    }
}
