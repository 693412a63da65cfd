use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Request;
use tcpgw_core::model;

use super::*;
use crate::config::web::WebSection;
use crate::control::request::{
    BackendView, DeploySelector, EditOrder, Edited, ListedService, PauseOrder, Refused, ServiceEdit, ServiceView,
    UndoOrder,
};
use crate::control::storage::Query;
use crate::secrets::Owners;

/// Name of a service with three backends, of which one drains.
const THREE: &str = "three";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ORIGIN: &str = "http://localhost:9464";

/// An order that reached the daemon.
#[derive(Debug, PartialEq)]
enum Received {
    Pause(PauseOrder),
    Edit(EditOrder),
    Undo(UndoOrder),
}

struct Ordered {
    actions: WebActions,
    site: Web,
    received: Arc<Mutex<Vec<Received>>>,
    _directory: tempfile::TempDir,
}

fn view() -> ServiceView {
    let text = r#"{"version": 1, "services": [{"name": "web", "port": 2001, "backends": ["10.0.0.1:3000"]}]}"#;
    let state = model::parse(text.as_bytes()).unwrap();
    let service = state.services.into_iter().next().unwrap();
    let backend = BackendView {
        backend: "10.0.0.1:3000".parse().unwrap(),
        desired: Cow::Borrowed("active"),
        balanced: true,
        health: None,
        reason: None,
        leaving: false,
        flows: None,
        seconds_left: None,
    };
    ServiceView {
        listed: ListedService {
            service,
            provider: "api",
            revision: None,
            held_back: Vec::new(),
            paused: None,
            addon: None,
        },
        paused_for: None,
        backends: vec![backend],
        in_kernel: true,
        deploy: None,
    }
}

fn three() -> ServiceView {
    let view = view();
    let backend = |host: u8, balanced, health: Option<&'static str>| BackendView {
        backend: ([10, 0, 0, host], 3000).into(),
        balanced,
        health: health.map(Cow::Borrowed),
        ..view.backends[0].clone()
    };
    let backends = vec![
        backend(1, true, Some("healthy")),
        backend(2, true, Some("failing")),
        backend(3, false, Some("healthy")),
        backend(4, true, Some("unhealthy")),
    ];
    ServiceView { backends, ..view }
}

fn ordered(has_token: bool) -> Ordered {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = has_token.then(|| format!("token_file = '{}'", token.to_str().unwrap()));
    let section = format!("listen = '127.0.0.1:9464'\n{}", token.unwrap_or_default());
    let section: WebSection = toml::from_str(&section).unwrap();
    let site = Web::load(&section.check().unwrap(), &Owners::of_daemon()).unwrap();
    let (requests, mut asked) = mpsc::channel(4);
    let received = Arc::<Mutex<Vec<Received>>>::default();
    let shared = Arc::clone(&received);
    tokio::spawn(async move {
        let note = |order| shared.lock().unwrap().push(order);
        while let Some(question) = asked.recv().await {
            match question {
                DaemonRequest::Service(name, reply) => {
                    let view = match &*name {
                        "web" => Some(view()),
                        THREE => Some(three()),
                        _ => None,
                    };
                    let _ = reply.send(view);
                }
                DaemonRequest::Pause(order, reply) => {
                    note(Received::Pause(order));
                    let _ = reply.send(Ok(Vec::new()));
                }
                DaemonRequest::Edit(order, reply) => {
                    note(Received::Edit(order));
                    let _ = reply.send(Err::<Edited, _>(Refused::Refused(
                        "service web is <defined> in the state file".into(),
                    )));
                }
                DaemonRequest::Undo(order, reply) => {
                    note(Received::Undo(order));
                    let _ = reply.send(Ok(7));
                }
                DaemonRequest::Query(Query::Deploy(_, reply)) => {
                    let _ = reply.send(Ok(None));
                }
                _ => {}
            }
        }
    });
    Ordered {
        actions: WebActions::new(requests, Times::default()),
        site,
        received,
        _directory: directory,
    }
}

/// Status, `Location`, and the text of an answer.
type Told = (u16, String, String);

async fn told(response: Response<Body>) -> Told {
    let location = response.headers().get(header::LOCATION);
    let location = location.map_or_else(String::new, |location| location.to_str().unwrap().into());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, location, String::from_utf8(body.to_vec()).unwrap())
}

impl Ordered {
    fn action(url: &str) -> WantedAction {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        WantedAction::read(&segments, query).expect("an action")
    }

    async fn asked(&self, url: &str) -> Told {
        told(self.actions.ask(&self.site, &Self::action(url)).await).await
    }

    async fn sent(&self, url: &str, headers: &[(&str, &str)], body: String) -> Told {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let from = "192.0.2.7".parse().unwrap();
        let action = Self::action(url);
        told(
            self.actions
                .order(&self.site, from, &action, &parts, Body::from(body))
                .await,
        )
        .await
    }

    /// Sends the form of the page at a URL, as a browser does.
    async fn confirmed(&self, url: &str, more: &str) -> Told {
        let body = format!("token={}{more}", self.token(url));
        self.sent(url, &browser(), body).await
    }

    fn token(&self, url: &str) -> String {
        let key = self.actions.key.as_ref().unwrap();
        key.token(&Secret::from(TOKEN), &Self::action(url).to_string(), since_1970())
    }

    fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

fn browser() -> [(&'static str, &'static str); 4] {
    [
        ("host", "localhost:9464"),
        ("origin", ORIGIN),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
}

#[tokio::test]
async fn each_action_is_asked_twice_and_says_who_ordered_it() {
    let ordered = ordered(true);
    let (status, _, text) = ordered.asked("/services/web/pause").await;
    assert_eq!(status, 200, "{text}");
    let token = text
        .split("name=\"token\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        text.contains("<form method=\"post\" action=\"/services/web/pause\">"),
        "{text}"
    );
    assert!(ordered.received().is_empty(), "a question orders nothing");
    let body = format!("token={token}&for=5m");
    let (status, location, _) = ordered.sent("/services/web/pause", &browser(), body).await;
    assert_eq!((status, &*location), (303, "/services/web"));
    let by = author::daemon(Some("192.0.2.7".parse().unwrap()));
    let pause = |time| {
        Received::Pause(PauseOrder {
            name: "web".into(),
            time,
            by,
        })
    };
    assert_eq!(ordered.received(), [pause(Some(Duration::from_secs(300)))]);
    assert_eq!(by.through().as_deref(), Some("web (192.0.2.7)"));
    assert_eq!(ordered.confirmed("/services/web/resume", "").await.0, 303);
    assert_eq!(ordered.received(), [pause(None)]);
    assert_eq!(ordered.confirmed("/deploys/7/rollback", "").await.1, "/deploys/7");
    let which = DeploySelector::Id(7);
    assert_eq!(ordered.received(), [Received::Undo(UndoOrder { which, by })]);
    // What the daemon refuses is told, and its words stay text.
    let (status, _, text) = ordered.confirmed("/services/web/drain?backend=10.0.0.1:3000", "").await;
    assert_eq!(status, 409);
    assert!(text.contains("web is &lt;defined&gt; in the state file"), "{text}");
    let received = ordered.received();
    let [Received::Edit(order)] = &*received else {
        panic!("{received:?}")
    };
    assert_eq!(order.edit, ServiceEdit::Drain(vec!["10.0.0.1:3000".parse().unwrap()]));
}

/// A drain of the last backend that is up is told to be one, also while another one drains.
#[tokio::test]
async fn the_drain_of_the_last_backend_is_told() {
    let ordered = ordered(true);
    let drain = async |service: &str, host: u8| {
        let url = format!("/services/{service}/drain?backend=10.0.0.{host}:3000");
        let (status, _, text) = ordered.asked(&url).await;
        assert_eq!(status, 200, "{text}");
        text
    };
    let text = drain("web", 1).await;
    assert!(
        text.contains("NO OTHER BACKEND IS UP: new clients will not be served."),
        "{text}"
    );
    let text = drain(THREE, 1).await;
    assert!(text.contains("they go to 1 other backend."), "{text}");
    let text = drain(THREE, 3).await;
    assert!(text.contains("they go to 2 other backends."), "{text}");
}

/// The page of a form is still open in another tab, or in the browser's history.
#[tokio::test]
async fn a_form_orders_once() {
    let ordered = ordered(true);
    let url = "/services/web/pause";
    let form = format!("token={}", ordered.token(url));
    assert_eq!(ordered.sent(url, &browser(), form.clone()).await.0, 303);
    assert_eq!(ordered.received().len(), 1);
    let (status, _, text) = ordered.sent(url, &browser(), form).await;
    assert_eq!(status, 409, "{text}");
    assert!(
        text.contains("was sent before") && text.contains("nothing was done"),
        "{text}"
    );
    assert!(ordered.received().is_empty());
    assert_eq!(
        ordered.confirmed(url, "").await.0,
        303,
        "another form is as good as ever"
    );
}

#[tokio::test]
async fn nothing_is_asked_about_what_does_not_exist() {
    let ordered = ordered(true);
    for url in [
        "/services/other/pause",
        "/services/%3Cb%3E/resume",
        "/services/web/drain?backend=10.0.0.2:3000",
        "/services/other/undrain?backend=10.0.0.1:3000",
        "/deploys/9/rollback",
    ] {
        let (status, _, text) = ordered.asked(url).await;
        assert_eq!(status, 404, "{url}: {text}");
        assert!(!text.contains("<form") && !text.contains("<b>"), "{text}");
    }
    let (status, _, text) = ordered.asked("/services/web/undrain?backend=10.0.0.1:3000").await;
    assert_eq!(status, 200, "{text}");
    assert!(
        text.contains("action=\"/services/web/undrain?backend=10.0.0.1:3000\""),
        "{text}"
    );
}

#[tokio::test]
async fn without_a_token_the_dashboard_is_read_only() {
    let ordered = ordered(false);
    let (status, _, text) = ordered.asked("/services/web/pause").await;
    assert_eq!(status, 403);
    assert!(text.contains("web.token_file") && !text.contains("<form"), "{text}");
    assert_eq!(ordered.confirmed("/services/web/pause", "").await.0, 403);
    assert!(ordered.received().is_empty());
}

#[tokio::test]
async fn what_no_page_of_this_site_has_sent_is_refused() {
    let ordered = ordered(true);
    let url = "/services/web/pause";
    let [host, origin, site, media] = browser();
    let good = format!("token={}", ordered.token(url));
    let others = format!("token={}", ordered.token("/services/web/resume"));
    let evil = ("origin", "http://evil.example.com");
    for (headers, body, expected) in [
        (vec![host, evil, media], &*good, 403),
        (vec![host, media], &good, 403),
        (vec![host, ("origin", "null"), media], &good, 403),
        (vec![host, origin, ("sec-fetch-site", "cross-site"), media], &good, 403),
        (vec![host, origin, site, media], &others, 403),
        (vec![host, origin, site, media], "", 403),
        (vec![host, origin, site, media], "token=", 403),
        (vec![host, origin, site], &good, 415),
        (vec![host, origin, site, ("content-type", "text/plain")], &good, 415),
        (
            vec![host, origin, site, ("content-type", "multipart/form-data; boundary=x")],
            &good,
            415,
        ),
        (
            vec![host, origin, site, media, ("content-encoding", "gzip")],
            &good,
            415,
        ),
        (
            vec![host, origin, site, media],
            &*format!("{good}&x={}", "x".repeat(5000)),
            413,
        ),
        (vec![host, origin, site, media], &*format!("{good}&for=0s"), 422),
        (vec![host, origin, site, media], &*format!("{good}&for=2h"), 422),
        (vec![host, origin, site, media], &*format!("{good}&for=%3Cb%3E"), 422),
    ] {
        let (status, _, text) = ordered.sent(url, &headers, body.to_owned()).await;
        assert_eq!(status, expected, "{headers:?} {body}: {text}");
        assert!(text.contains("nothing was done") && !text.contains("<b>"), "{text}");
    }
    assert!(ordered.received().is_empty());
    assert_eq!(ordered.sent(url, &[host, origin, site, media], good).await.0, 303);
}
