//! Events: those that were, and those that come, as server-sent events.

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

use super::error::ApiError;
use super::limits::FOLLOWERS;
use super::params::Params;
use super::routes::{Shared, json};
use crate::daemon::ask::{Ask, Followed};
use crate::daemon::events::Event;

pub(super) async fn events(
    State(shared): State<Shared>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["after", "follow"])?;
    let follow = params.read("follow", str::parse::<bool>)?.unwrap_or(true);
    let after = match params.parse::<u64>("after")? {
        Some(after) => after,
        None => last_seen(&headers)?,
    };
    if !follow {
        let (missed, (kept, _)) = since(&shared, after).await?;
        let events: Vec<&Event> = kept.iter().map(|event| &**event).collect();
        return Ok(json(&json!({"missed": missed, "events": events})));
    }
    let Ok(place) = Arc::clone(&shared.followers).try_acquire_owned() else {
        return Err(ApiError::busy(&format!("{FOLLOWERS} others follow the events already")));
    };
    let (missed, followed) = since(&shared, after).await?;
    Ok(stream(&shared, missed, followed, place))
}

/// What an `EventSource` sends when it comes back.
fn last_seen(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(header) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let text = header.to_str().unwrap_or_default();
    text.trim()
        .parse()
        .map_err(|_| ApiError::bad(format!("header last-event-id: {text:?} is no number of an event")))
}

/// The events after that one, and how many of them are not kept any more.
async fn since(shared: &Shared, after: u64) -> Result<(u64, Followed), ApiError> {
    let follow = |after| shared.ask(shared.times.answer, move |reply| Ask::Follow(after, reply));
    let followed = follow(after).await?;
    if let Some(first) = followed.0.first() {
        return Ok((if after == 0 { 0 } else { first.id - 1 - after }, followed));
    }
    if after == 0 {
        return Ok((0, followed));
    }
    // Nothing new; or a new daemon, which counts from 1 again.
    let (mut kept, coming) = follow(0).await?;
    if kept.last().is_some_and(|last| last.id >= after) {
        kept.retain(|event| event.id > after);
    }
    Ok((0, (kept, coming)))
}

fn stream(shared: &Shared, missed: u64, (kept, coming): Followed, place: OwnedSemaphorePermit) -> Response {
    let mut ends = shared.ends.clone();
    let end = async move {
        let _ = ends.wait_for(|ends| *ends).await;
    };
    let first = (missed > 0).then(|| lagged(missed)).into_iter();
    let kept = first.chain(kept.into_iter().map(|event| told(&event)));
    let coming = BroadcastStream::new(coming).map(move |event| {
        // It is free again when nobody follows any more.
        let _ = &place;
        match event {
            Ok(event) => told(&event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => lagged(missed),
        }
    });
    let events = tokio_stream::iter(kept).chain(coming).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(shared.times.keep_alive);
    Sse::new(Until {
        events: Box::pin(events),
        end: Box::pin(end),
    })
    .keep_alive(keep_alive)
    .into_response()
}

/// `id`, `event` and `data` of one; the data says it all.
fn told(event: &Event) -> sse::Event {
    let data = serde_json::to_value(event).unwrap_or_default();
    let kind = data["event"].as_str().unwrap_or("event").to_owned();
    sse::Event::default()
        .id(event.id.to_string())
        .event(kind)
        .data(data.to_string())
}

/// A follower was too slow, or came too late.
fn lagged(missed: u64) -> sse::Event {
    let data = json!({"event": "lagged", "missed": missed});
    sse::Event::default().event("lagged").data(data.to_string())
}

/// Events until the daemon ends.
struct Until<S, E> {
    events: std::pin::Pin<Box<S>>,
    end: std::pin::Pin<Box<E>>,
}

impl<S: tokio_stream::Stream, E: Future<Output = ()>> tokio_stream::Stream for Until<S, E> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        match self.end.as_mut().poll(cx) {
            std::task::Poll::Ready(()) => std::task::Poll::Ready(None),
            std::task::Poll::Pending => self.events.as_mut().poll_next(cx),
        }
    }
}
