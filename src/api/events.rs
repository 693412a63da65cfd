//! Past and new events, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::answers::EventAnswer;
use super::error::ApiError;
use super::hints::{ClientKind, worded_json_for};
use super::json::json;
use super::limits::FOLLOWERS;
use super::params::Params;
use super::shared::ApiState;
use crate::control::events::Event;
use crate::control::request::{After, DaemonRequest, Followed};

pub(super) async fn events(
    State(shared): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["after", "follow", "service"])?;
    let service = params.service()?;
    let follow = params.read("follow", str::parse::<bool>)?.unwrap_or(true);
    let after = params.text("after").or_else(|| last_seen(&headers));
    let after = match after {
        Some(id) if !id.is_empty() => After::Event(id.into()),
        _ => After::Start,
    };
    let request_events = |after| shared.request(shared.times.answer, move |reply| DaemonRequest::Follow(after, reply));
    if !follow {
        let Followed { missed, kept, .. } = request_events(after).await?;
        let events = kept.iter().map(|event| &**event);
        let events: Vec<&Event> = events.filter(|event| concerns(event, service.as_deref())).collect();
        return Ok(json(&json!({"missed": missed, "events": events})));
    }
    let Ok(place) = Arc::clone(&shared.followers).try_acquire_owned() else {
        return Err(ApiError::busy(&format!("{FOLLOWERS} others follow the events already")));
    };
    let followed = request_events(after).await?;
    Ok(stream(&shared, followed, place, service, ClientKind::of(&headers)))
}

/// Returns whether an event is about a service; true for every event without one.
fn concerns(event: &Event, service: Option<&str>) -> bool {
    service.is_none_or(|service| event.what.service() == Some(service))
}

/// Returns the id that an `EventSource` sends when it connects again. An id that cannot be read is no id of an event of this
/// daemon.
fn last_seen(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("last-event-id")?;
    Some(header.to_str().unwrap_or("unknown").trim().to_owned())
}

fn stream(
    shared: &ApiState,
    followed: Followed,
    place: OwnedSemaphorePermit,
    service: Option<Box<str>>,
    client: ClientKind,
) -> Response {
    let Followed { missed, kept, coming } = followed;
    let mut ends = shared.ends.clone();
    let end = async move {
        let _ = ends.wait_for(|ends| *ends).await;
    };
    let first = (missed != Some(0)).then(|| lagged(missed)).into_iter();
    let kept: Vec<Arc<Event>> = kept
        .into_iter()
        .filter(|event| concerns(event, service.as_deref()))
        .collect();
    let kept = first.chain(kept.into_iter().map(move |event| sse_event(&event, client)));
    let coming = BroadcastStream::new(coming).filter_map(move |event| {
        // The place is free again when the client has left.
        let _ = &place;
        match event {
            Ok(event) => concerns(&event, service.as_deref()).then(|| sse_event(&event, client)),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Some(lagged(Some(missed))),
        }
    });
    let events = tokio_stream::iter(kept).chain(coming).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(shared.times.keep_alive);
    let events = futures_util::StreamExt::take_until(events, end);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// Returns `id`, `event` and `data` of an event. The data has all members, with messages worded for this client.
fn sse_event(event: &Event, client: ClientKind) -> sse::Event {
    let data = serde_json::to_value(event).unwrap_or_default();
    let kind = data["event"].as_str().unwrap_or("event").to_owned();
    sse::Event::default()
        .id(event.id.to_string())
        .event(kind)
        .data(worded_json_for(client, data.to_string()))
}

/// Returns the event that tells a follower that it missed events: it was too slow, came too late, or followed another daemon
/// before (the number is not known then).
fn lagged(missed: Option<u64>) -> sse::Event {
    let lagged = EventAnswer::lagged(missed);
    let event = sse::Event::default().event(&lagged.event);
    event.data(json!(lagged).to_string())
}
