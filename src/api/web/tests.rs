mod pages;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tcpgw_core::model::State;
use tcpgw_kernel::Kernel;
use tcpgw_kernel::fake::Fake;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::site::token;
use super::*;
use crate::addon::Refusal;
use crate::api::{OpenKernel, Times};
use crate::config::web::{self, WebSettings};
use crate::control::events::{After, Events};
use crate::control::request::{AddonRefused, MetricsView};
use crate::control::storage::Query;
use crate::doctor::{Diagnosis, RunningDaemon};
use crate::observe::ObserveError;
use crate::secrets::Owners;
use crate::traffic::{BackendTotals, ServiceTotals, Totals};
use crate::view::NoService;
use crate::view::snapshot_parts::WantedService;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A served listener, whose daemon and kernel are played by the test.
struct Served {
    at: SocketAddr,
    /// Number of questions to the loop.
    asked: Arc<AtomicUsize>,
    /// Number of reads of the kernel.
    opened: Arc<AtomicUsize>,
    /// Number of examinations of the machine.
    diagnosed: Arc<AtomicUsize>,
    directory: tempfile::TempDir,
}

/// A status, a head and a body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

enum Machine {
    Works,
    Refuses,
    Hangs,
    HasNoDaemon,
}

fn settings(text: &str) -> WebSettings {
    let section: web::WebSection = toml::from_str(text).unwrap();
    section.check().unwrap()
}

fn view() -> MetricsView {
    let text = r#"{"version": 1, "services": [{"name": "a", "port": 2001, "limit": {"pps": 1000}, "backends": ["10.0.0.1:3000"]}]}"#;
    let state: State = tcpgw_core::model::parse(text.as_bytes()).unwrap();
    let mut view = MetricsView::default();
    view.parts.providers = state.services.iter().map(|of| (Arc::clone(of), "file")).collect();
    view.parts.wanted = state.services.into_iter().map(WantedService::from).collect();
    view
}

/// Totals with a connection.
fn totals() -> Totals {
    let backend = BackendTotals {
        connections: 7,
        ..BackendTotals::default()
    };
    let service = ServiceTotals {
        backends: BTreeMap::from([("10.0.0.1:3000".parse().unwrap(), backend)]),
        ..ServiceTotals::default()
    };
    Totals {
        services: BTreeMap::from([("a".into(), Arc::new(service))]),
        at: Some(Instant::now()),
        ..Totals::default()
    }
}

/// Answers as a daemon that serves `a`, has no deploys, and has no add-on.
fn answer(question: DaemonRequest) {
    match question {
        DaemonRequest::Metrics(reply) => drop(reply.send(view())),
        DaemonRequest::Service(_, reply) => drop(reply.send(None)),
        DaemonRequest::Deploys(reply) => drop(reply.send(Vec::new())),
        DaemonRequest::AppPage(_, reply) => drop(reply.send(Err(AddonRefused::Resource(Refusal::NotFound)))),
        DaemonRequest::Follow(_, reply) => drop(reply.send(Events::new("epoch").follow(&After::Start))),
        DaemonRequest::Query(Query::Deploys(_, _, reply)) => drop(reply.send(Ok(Vec::new()))),
        DaemonRequest::Query(Query::History(_, reply)) => drop(reply.send(Ok(Vec::new()))),
        DaemonRequest::Query(Query::Deploy(_, reply)) => drop(reply.send(Ok(None))),
        other => panic!("{other:?}"),
    }
}

async fn served(extra: &str, machine: Machine) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let extra = extra.replace("TOKEN", token.to_str().unwrap());
    let web = Web::load(
        &settings(&format!("listen = '127.0.0.1:9464'\n{extra}")),
        &Owners::of_daemon(),
    )
    .unwrap();
    let diagnosed = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&diagnosed);
    let web = web.diagnosed_by(Arc::new(move |_: &RunningDaemon<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
        Diagnosis::default()
    }));
    let (opened, asked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (refuses, hangs) = (matches!(machine, Machine::Refuses), matches!(machine, Machine::Hangs));
    let has_daemon = !matches!(machine, Machine::HasNoDaemon);
    let counted = Arc::clone(&opened);
    let open: OpenKernel = Arc::new(move || -> Result<Box<dyn Kernel>, ObserveError> {
        counted.fetch_add(1, Ordering::SeqCst);
        if refuses {
            return Err(NoService::ListensAt(1).into());
        }
        if hangs {
            std::thread::sleep(Duration::from_secs(2));
        }
        Ok(Box::new(Fake::default()))
    });
    let (requests, mut questions) = mpsc::channel(4);
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            counted.fetch_add(1, Ordering::SeqCst);
            if has_daemon {
                answer(question);
            }
        }
    });
    let times = Times {
        kernel: Duration::from_millis(if hangs { 100 } else { 60_000 }),
        ..Times::default()
    };
    let settings = ApiSettings {
        open,
        times,
        totals: Some(Arc::new(|_| Some(Arc::new(totals())))),
        ..ApiSettings::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (sites, current) = watch::channel(Arc::new(web));
    let file = OwnFile::new(directory.path(), 1, "boot".into());
    tokio::spawn(async move {
        let _kept = sites;
        serve(listener, current, requests, settings, file, std::future::pending()).await;
    });
    Served {
        at,
        asked,
        opened,
        diagnosed,
        directory,
    }
}

impl Served {
    async fn send(&self, request: &str) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = timeout(Duration::from_secs(60), exchange).await.expect("it ends");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        ))
        .await
    }
}

#[tokio::test]
async fn metrics_are_served_in_both_formats() {
    let served = served("", Machine::Works).await;
    let text = served.get("/metrics", "").await;
    assert_eq!(text.status, 200, "{}", text.body);
    assert!(
        text.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        text.head
    );
    assert!(text.head.contains("x-content-type-options: nosniff") && text.head.contains("cache-control: no-store"));
    let kept = OwnFile::new(served.directory.path(), 1, "boot".into()).load();
    assert_eq!(kept, Some(view().own), "what is shown is kept");
    let line = "tcpgw_service_limit_packets_per_second{service=\"a\"} 1000\n";
    assert!(text.body.contains(line), "{}", text.body);
    assert!(
        text.body
            .contains("\ntcpgw_backend_flows{service=\"a\",backend=\"10.0.0.1:3000\"} 0\n")
    );
    let open = served
        .get(
            "/metrics",
            "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
        )
        .await;
    assert!(
        open.head.contains("content-type: application/openmetrics-text"),
        "{}",
        open.head
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    let services = served.get("/metrics?scope=service", "").await;
    assert!(services.body.contains(line) && !services.body.contains("backend_flows"));
    let head = served.ask("HEAD", "/metrics", "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(served.get("/metrics?scope=all", "").await.status, 400);
}

#[tokio::test]
async fn only_reading_is_allowed_and_only_what_is_there() {
    let served = served("", Machine::Works).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = served.ask(method, "/metrics", "content-length: 3\r\n\r\nabc").await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    for path in [
        "/metrics/",
        "/metric",
        "//metrics",
        "/..%2fmetrics",
        "/v1/services",
        "/assets/0/page.css",
        "/services/",
    ] {
        let answer = served.get(path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("Metrics are at /metrics."), "{}", answer.body);
    }
    let long = format!("/{}", "x".repeat(20_000));
    assert_eq!(served.get(&long, "").await.status, 414);
    // A page of another site makes its name lead here, and asks as that site.
    for host in ["example.com", "127.0.0.1.example.com", "192.0.2.1:9464"] {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = served.send(&request).await;
        assert_eq!(answer.status, 421, "{host}");
        assert!(!answer.body.contains("tcpgw_"), "{}", answer.body);
    }
    // Which of two names counts is not left to chance.
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nhost: example.com\r\nconnection: close\r\n\r\n";
    let answer = served.send(request).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(served.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_is_asked_for_and_guesses_are_throttled() {
    let served = served("token_file = 'TOKEN'", Machine::Works).await;
    let basic = STANDARD.encode(format!("me:{TOKEN}"));
    let right = [
        format!("authorization: Bearer {TOKEN}\r\n"),
        format!("authorization: Basic {basic}\r\n"),
    ];
    let wrong = format!("authorization: Bearer {}0\r\n", &TOKEN[1..]);
    for headers in [
        "",
        &*wrong,
        "authorization: Bearer \r\n",
        "authorization: Basic Og==\r\n",
    ] {
        let answer = served.get("/metrics", headers).await;
        assert_eq!(answer.status, 401, "{headers}");
        assert!(
            answer.head.contains("www-authenticate: basic realm="),
            "{}",
            answer.head
        );
        assert!(!answer.body.contains("tcpgw_") && !answer.body.contains(TOKEN));
    }
    let mut last = 401;
    for _ in 0..20 {
        last = served.get("/metrics", &wrong).await.status;
    }
    assert_eq!(last, 429);
    for headers in &right {
        assert_eq!(served.get("/metrics", headers).await.status, 200);
    }
}

#[tokio::test]
async fn many_who_ask_at_once_cost_one_read() {
    let served = served("", Machine::Works).await;
    let begun = Instant::now();
    let answers = futures_util::future::join_all((0..100).map(|_| served.get("/metrics", ""))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    // One at the beginning, and one for each second that a busy machine needs for all of them.
    let most = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    let reads = served.opened.load(Ordering::SeqCst);
    assert!((1..=most).contains(&reads), "{reads} in {:?}", begun.elapsed());
    assert_eq!(served.asked.load(Ordering::SeqCst), reads);
}

#[tokio::test]
async fn what_is_known_without_the_kernel_is_shown_without_it() {
    for machine in [Machine::Refuses, Machine::Hangs] {
        let served = served("", machine).await;
        let answer = served.get("/metrics", "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        for line in [
            "tcpgw_kernel_read_failures_total 1",
            "tcpgw_service_limit_packets_per_second{service=\"a\"} 1000",
            "tcpgw_service_backends{service=\"a\",state=\"healthy\"} 1",
            "tcpgw_service_connections_total{service=\"a\"} 7",
            "tcpgw_backend_connections_total{service=\"a\",backend=\"10.0.0.1:3000\"} 7",
        ] {
            assert!(answer.body.lines().any(|of| of == line), "{line}: {}", answer.body);
        }
        assert!(
            answer.body.contains("\ntcpgw_totals_timestamp_seconds "),
            "{}",
            answer.body
        );
        for family in [
            "tcpgw_service_flows",
            "tcpgw_backend_flows",
            "tcpgw_source_ports",
            "tcpgw_kernel_read_timestamp",
        ] {
            assert!(!answer.body.contains(family), "{family}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn without_an_answer_of_the_loop_there_are_no_metrics() {
    let served = served("", Machine::HasNoDaemon).await;
    let answer = served.get("/metrics", "").await;
    assert_eq!(
        (answer.status, answer.body.contains("tcpgw_")),
        (503, false),
        "{}",
        answer.body
    );
}

#[test]
fn a_token_is_one_line_of_enough_characters() {
    let is_token = |text: &str| token(text.as_bytes()).is_some();
    for good in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("{TOKEN}\r\n")] {
        assert!(is_token(&good), "{good:?}");
    }
    for bad in [
        "",
        "\n",
        "short",
        &format!("{TOKEN}\n\n"),
        &format!("{TOKEN} x"),
        &"x".repeat(1025),
    ] {
        assert!(!is_token(bad), "{bad:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let load = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let settings = settings(&format!(
            "listen = '127.0.0.1:1'\ntoken_file = '{}'",
            path.to_string_lossy()
        ));
        Web::load(&settings, &Owners::of_daemon())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    load(TOKEN, 0o600).unwrap();
    let error = load(TOKEN, 0o644).unwrap_err();
    assert!(
        error.starts_with("web.token_file ") && error.contains("mode 0644"),
        "{error}"
    );
    let error = load("short-secret", 0o600).unwrap_err();
    assert!(
        error.contains("openssl rand") && !error.contains("short-secret"),
        "{error}"
    );
}
