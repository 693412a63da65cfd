//! Signals to pages that something has changed, and notices that are worth saying, as server-sent events.
//!
//! One event a second at most, however much happens. A page reads itself again then; nothing is sent twice.

mod notices;
mod pace;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event as Message, Sse};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio::time::sleep_until;

use self::notices::notice;
use self::pace::{LivePace, SaidNotices};
use super::answers::plain;
use super::site::Web;
use crate::api::limits::Times;
use crate::api::loop_request;
use crate::control::events::Event;
use crate::control::request::{After, DaemonRequest, Followed};

/// Number of pages that follow at once.
const FOLLOWERS: usize = 32;
/// Longest time that a page follows before it has to show its credentials again: it does so by itself.
const LONGEST: Duration = Duration::from_secs(600);
/// Time after which a browser connects again, in milliseconds.
const AGAIN: u64 = 2000;

/// Pages that follow.
pub(super) struct LivePages {
    requests: mpsc::Sender<DaemonRequest>,
    times: Times,
    places: Arc<Semaphore>,
    sites: watch::Receiver<Arc<Web>>,
    /// True when the listener ends.
    ends: watch::Receiver<bool>,
}

impl LivePages {
    pub(super) fn new(
        requests: mpsc::Sender<DaemonRequest>,
        times: Times,
        sites: watch::Receiver<Arc<Web>>,
        ends: watch::Receiver<bool>,
    ) -> Self {
        Self {
            requests,
            times,
            places: Arc::new(Semaphore::new(FOLLOWERS)),
            sites,
            ends,
        }
    }

    /// Answers a page that follows what concerns a service, or all; `query` names it.
    pub(super) async fn answer(&self, query: &str) -> Response<Body> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let service = pairs
            .find(|(name, _)| name == "service")
            .map(|(_, name)| name.into_owned());
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let text = format!("{FOLLOWERS} pages follow already: this one looks again from time to time\n");
            return retry(plain(StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let follow = |reply| DaemonRequest::Follow(After::Now, reply);
        match loop_request::send(&self.requests, &self.times, self.times.answer, follow).await {
            Ok(Followed { coming, .. }) => self.stream(coming, place, service),
            Err(error) => retry(plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))),
        }
    }

    fn stream(
        &self,
        coming: broadcast::Receiver<Arc<Event>>,
        place: OwnedSemaphorePermit,
        service: Option<String>,
    ) -> Response<Body> {
        let mut sites = self.sites.clone();
        sites.mark_unchanged();
        let follower = LiveFollower {
            coming,
            service,
            pace: LivePace::new(Instant::now()),
            notices: SaidNotices::default(),
            _place: place,
        };
        let messages = futures_util::stream::unfold(follower, |mut follower| async move {
            let message = follower.next().await?;
            Some((Ok::<_, Infallible>(message), follower))
        });
        let first = Message::default()
            .comment("follows")
            .retry(Duration::from_millis(AGAIN));
        let messages = futures_util::StreamExt::chain(tokio_stream::iter([Ok(first)]), messages);
        let mut ends = self.ends.clone();
        let end = async move {
            tokio::select! {
                _ = ends.wait_for(|ends| *ends) => {}
                // The token may be another one now.
                _ = sites.changed() => {}
                () = tokio::time::sleep(LONGEST) => {}
            }
        };
        let mut response = Sse::new(futures_util::StreamExt::take_until(messages, Box::pin(end))).into_response();
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        response
    }
}

fn retry(mut response: Response<Body>) -> Response<Body> {
    let seconds = HeaderValue::from_static("5");
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// A page that follows.
struct LiveFollower {
    coming: broadcast::Receiver<Arc<Event>>,
    /// The only service whose events matter; `None`: all do.
    service: Option<String>,
    pace: LivePace,
    notices: SaidNotices,
    /// Place that is free again when the page has left.
    _place: OwnedSemaphorePermit,
}

impl LiveFollower {
    /// Waits until there is something to say: because of events, or because figures are old.
    async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.pace.due().into()) => {
                    self.pace.sent(Instant::now());
                    let data = json!({ "said": self.notices.take() });
                    return Some(Message::default().event("changed").data(data.to_string()));
                }
                event = self.coming.recv() => match event {
                    Ok(event) => self.note(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.pace.changed(Instant::now()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }

    fn note(&mut self, event: &Event) {
        let (wanted, of) = (self.service.as_deref(), event.what.service());
        // What is of no service concerns all.
        if wanted.is_some() && of.is_some() && wanted != of {
            return;
        }
        self.pace.changed(Instant::now());
        if let Some(notice) = notice(&event.what) {
            self.notices.add(notice);
        }
    }
}

#[cfg(test)]
mod tests;
