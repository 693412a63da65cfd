use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::*;
use crate::config::web::WebSection;
use crate::control::events::{EventContent, Events};
use crate::secrets::Owners;

/// A listener's pages, with a daemon that has events.
struct Followable {
    pages: LivePages,
    events: Arc<std::sync::Mutex<Events>>,
    sites: watch::Sender<Arc<Web>>,
    ends: watch::Sender<bool>,
}

fn site() -> Arc<Web> {
    let section: WebSection = toml::from_str("listen = '127.0.0.1:9464'").unwrap();
    Arc::new(Web::load(&section.check().unwrap(), &Owners::of_daemon()).unwrap())
}

fn followable() -> Followable {
    let (requests, mut asked) = mpsc::channel(4);
    let events = Arc::new(std::sync::Mutex::new(Events::new("a")));
    let shared = Arc::clone(&events);
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            if let DaemonRequest::Follow(after, reply) = question {
                let _ = reply.send(shared.lock().unwrap().follow(&after));
            }
        }
    });
    let (sites, current) = watch::channel(site());
    let (ends, ended) = watch::channel(false);
    Followable {
        pages: LivePages::new(requests, Times::default(), current, ended),
        events,
        sites,
        ends,
    }
}

impl Followable {
    fn note(&self, what: EventContent) {
        self.events.lock().unwrap().note(what, None, Duration::ZERO);
    }

    fn deploy(&self, service: &str, id: u64) {
        self.note(EventContent::Deploy {
            id,
            service: service.into(),
            phase: "switched",
            reason: None,
        });
    }
}

/// Returns the next message; an empty one at the end.
async fn next(
    stream: &mut (impl futures_util::Stream<Item = Result<axum::body::Bytes, axum::Error>> + Unpin),
) -> String {
    let message = timeout(Duration::from_secs(30), stream.next())
        .await
        .expect("a message");
    message.map_or_else(String::new, |bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_page_is_told_of_what_concerns_it() {
    let followable = followable();
    let answer = followable.pages.answer("service=web").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let mut stream = answer.into_body().into_data_stream();
    let first = next(&mut stream).await;
    assert!(first.contains("retry: 2000"), "{first}");
    for id in 1..=20 {
        followable.deploy("other", id);
    }
    followable.deploy("web", 3);
    followable.note(EventContent::TornDown { flushed: 0, uid: 0 });
    let received = next(&mut stream).await;
    assert!(received.starts_with("event: changed\n"), "{received}");
    let expected = r#"{"said":["Deploy 3 of service web: switched.","The gateway was torn down: nothing is served."]}"#;
    assert!(received.contains(expected), "{received}");
    // Figures are old after some time, although nothing happens.
    let received = next(&mut stream).await;
    assert!(received.contains(r#"{"said":[]}"#), "{received}");
}

#[tokio::test]
async fn text_of_others_stays_on_its_line() {
    let followable = followable();
    let mut stream = followable.pages.answer("").await.into_body().into_data_stream();
    next(&mut stream).await;
    followable.note(EventContent::Problem(tcpgw_core::problem::Problem::new(
        tcpgw_core::problem::ProblemKind::ALL[0],
        "a\n\nevent: changed\u{1b}[0m",
    )));
    let received = next(&mut stream).await;
    assert_eq!(received.lines().count(), 3, "{received:?}");
    assert!(!received.contains('\u{1b}'), "{received:?}");
}

#[tokio::test]
async fn pages_that_follow_are_bounded_and_leave_their_places() {
    let followable = followable();
    let mut streams = Vec::new();
    for _ in 0..FOLLOWERS {
        let answer = followable.pages.answer("").await;
        assert_eq!(answer.status(), 200);
        streams.push(answer);
    }
    let answer = followable.pages.answer("").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "5");
    streams.pop();
    assert_eq!(followable.pages.answer("").await.status(), 200);
}

#[tokio::test]
async fn following_ends_with_the_listener_and_with_its_settings() {
    let followable = followable();
    let mut stream = followable.pages.answer("").await.into_body().into_data_stream();
    next(&mut stream).await;
    followable.sites.send_replace(site());
    assert_eq!(next(&mut stream).await, "", "the token may be another");
    drop(stream);
    let mut stream = followable.pages.answer("").await.into_body().into_data_stream();
    next(&mut stream).await;
    followable.ends.send_replace(true);
    assert_eq!(next(&mut stream).await, "");
    drop(stream);
    assert_eq!(followable.pages.places.available_permits(), FOLLOWERS);
}
