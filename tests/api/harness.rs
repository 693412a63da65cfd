//! A server, the daemon's loop behind it, and a client that can send any bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tcpgw::api::{Socket, SocketSettings, Times, serve};
use tcpgw::apply_report::{AnyReport, ApplyReport, DiffReport};
use tcpgw::control::events::{EventContent, Events};
use tcpgw::control::request::{Applied, Apply, DaemonRequest, Peer, Refused, Resumed, TornDown};
use tcpgw::observe::ObserveError;
use tcpgw::reconcile::Desired;
use tcpgw::view::snapshot::{DaemonView, DrainView, HealthView};
use tcpgw::view::snapshot_parts::{SnapshotParts, WantedService};
use tcpgw::view::{ServicesView, TableView};
use tcpgw_core::diff::ChangeCounts;
use tcpgw_core::model::{FlowMark, Service, State};
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::conntrack::{CtStatus, Flow, TcpState};
use tcpgw_kernel::fake::{Fail, Fake, KernelCall};
use tcpgw_kernel::{Kernel, KernelError, TableProperties};
use tokio::sync::{mpsc, oneshot};

use crate::single::Single;
use tcpgw::api::descriptors::DescriptorBudget;
use tcpgw::api::settings::{ApiSettings, SocketScope};

/// Longest time that anything here may take; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const STATE: &str = r#"{"version":1,"services":[
    {"name":"web","port":20003,"limit":{"pps":100},"backends":["10.2.0.1:80","10.2.0.2:80"]},
    {"name":"sick","port":20004,"backends":["10.2.0.3:80"]},
    {"name":"void","port":20005,"backends":[]}]}"#;

/// Behaviour of the daemon's loop when it gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// Answers requests.
    Answers,
    /// Accepts requests, and never answers.
    Mute,
    /// Accepts no requests.
    Stuck,
    /// Answers requests, except an order of a deploy.
    Slow,
}

/// A server that is stopped when the value is dropped.
pub(crate) struct Server {
    pub(crate) path: PathBuf,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) shared: Arc<Mutex<Told>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// State of the daemon's loop, and the requests that it got.
pub(crate) struct Told {
    pub(crate) snapshot: SnapshotParts,
    pub(crate) events: Events,
    pub(crate) applies: Vec<Apply>,
    pub(crate) teardowns: usize,
    pub(crate) flows: Vec<Flow>,
    pub(crate) fail: Option<(KernelCall, Fail)>,
    pub(crate) answer: Option<Refused>,
    pub(crate) single: Single,
}

pub(crate) fn serves() -> Server {
    serves_with(Loop::Answers, times())
}

/// Returns short times, so that tests of timeouts are quick.
pub(crate) fn times() -> Times {
    Times {
        head: Duration::from_secs(2),
        narrow_head: Duration::from_secs(1),
        body_piece: Duration::from_secs(1),
        body: Duration::from_secs(3),
        write: Duration::from_secs(1),
        place: Duration::from_millis(300),
        answer: Duration::from_secs(1),
        order: Duration::from_secs(1),
        keep_alive: Duration::from_millis(200),
        ..Times::default()
    }
}

pub(crate) fn serves_with(how: Loop, times: Times) -> Server {
    serves_in(SocketScope::Full, how, times)
}

pub(crate) fn serves_in(scope: SocketScope, how: Loop, times: Times) -> Server {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/tcpgw.sock");
    let settings = SocketSettings {
        path: path.clone(),
        mode: 0o600,
        group: None,
    };
    let mut socket = Socket::bind(&settings).expect("a socket");
    let shared = Arc::new(Mutex::new(Told {
        snapshot: snapshot(),
        events: Events::new("test"),
        applies: Vec::new(),
        teardowns: 0,
        flows: vec![flow(1), flow(2)],
        fail: None,
        answer: None,
        single: Single::default(),
    }));
    let (stop, stopped) = oneshot::channel();
    let (told, kernels) = (Arc::clone(&shared), Arc::clone(&shared));
    let open = move || -> Result<Box<dyn Kernel>, ObserveError> { Ok(Box::new(kernel(&kernels)?)) };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (requests, asked) = mpsc::channel(4);
            let settings = ApiSettings {
                totals: None,
                hour: None,
                open: Arc::new(open),
                times,
                privileged: Vec::new(),
                descriptors: DescriptorBudget::of(1024),
                scope,
            };
            let listener = tokio::net::UnixListener::from_std(socket.take_listener().expect("a listener"));
            let answering = tokio::spawn(answer(asked, told, how));
            let stop = async { drop(stopped.await) };
            serve(
                listener.expect("a listener"),
                mpsc::channel(1).1,
                requests,
                settings,
                stop,
            )
            .await;
            answering.abort();
        });
    });
    Server {
        path,
        directory,
        shared,
        stop: Some(stop),
        thread: Some(thread),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the server ends in peace");
            }
        }
    }
}

async fn answer(mut asked: mpsc::Receiver<DaemonRequest>, told: Arc<Mutex<Told>>, how: Loop) {
    let mut unanswered = Vec::new();
    if how == Loop::Stuck {
        std::future::pending::<()>().await;
    }
    while let Some(ask) = asked.recv().await {
        if how == Loop::Mute || how == Loop::Slow && matches!(ask, DaemonRequest::Deploy(..)) {
            unanswered.push(ask);
            continue;
        }
        let mut recorded = told.lock().expect("nobody panicked");
        match ask {
            DaemonRequest::Snapshot(reply) => drop(reply.send(recorded.snapshot.clone())),
            DaemonRequest::Follow(after, reply) => drop(reply.send(recorded.events.follow(&after))),
            DaemonRequest::Apply(apply, reply) => {
                let answer = match recorded.answer.clone() {
                    Some(refused) => Err(refused),
                    None => applied(&apply),
                };
                recorded.applies.push(apply);
                drop(reply.send(answer));
            }
            DaemonRequest::Resume(_, reply) => drop(reply.send(Ok(Resumed {
                resumed: true,
                warnings: Vec::new(),
            }))),
            DaemonRequest::Teardown(_, reply) => {
                recorded.teardowns += 1;
                drop(reply.send(Ok(TornDown {
                    table_removed: true,
                    flows_flushed: 2,
                    flows_not_flushed: 0,
                    not_lasting: None,
                })));
            }
            other => {
                let refused = recorded.answer.clone();
                recorded.single.answer(other, refused);
            }
        }
    }
}

fn applied(apply: &Apply) -> Result<Applied, Refused> {
    let state = tcpgw_core::model::parse(&apply.state).map_err(Refused::Invalid)?;
    if state.services.is_empty() && !apply.options.allow_empty {
        return Err(Refused::Refused("the state has no services".into()));
    }
    let counts = ChangeCounts {
        added: state.services.len(),
        ..ChangeCounts::default()
    };
    let report = if apply.options.dry_run {
        AnyReport::Diff(DiffReport {
            changed: !state.services.is_empty(),
            rebuild: None,
            services: Vec::new(),
            flows: 0,
        })
    } else {
        AnyReport::Apply(ApplyReport {
            services: counts,
            backends: counts,
            flows_flushed: 0,
            handshakes_forgotten: 0,
            flows_not_flushed: 0,
            elements: 1,
            transactions: 1,
            rebuilt: None,
            milliseconds: 1.5,
            kernel_milliseconds: 0.5,
            flush_milliseconds: 0.5,
            draining: 0,
        })
    };
    Ok(Applied {
        report,
        warnings: vec!["net.ipv4.ip_forward: is 0".into()],
    })
}

fn state() -> State {
    tcpgw_core::model::parse(STATE.as_bytes()).expect("a good state")
}

fn kernel(told: &Mutex<Told>) -> Result<Fake, KernelError> {
    let ruleset = Desired::new(&state(), &tcpgw_core::ruleset::links::Links::default()).ruleset;
    let mut fake = Fake::holding(&ruleset, FlowMark::default())?;
    let recorded = told.lock().expect("nobody panicked");
    fake.flows.clone_from(&recorded.flows);
    if let Some((call, fail)) = recorded.fail {
        fake.fail_next(call, fail);
    }
    Ok(fake)
}

pub(crate) fn flow(client: u16) -> Flow {
    let at = |text: &str| text.parse().expect("an endpoint");
    Flow {
        client: std::net::SocketAddr::new("198.51.100.1".parse().expect("an address"), client),
        public: at("203.0.113.1:20003"),
        backend: at(if client.is_multiple_of(2) {
            "10.2.0.2:80"
        } else {
            "10.2.0.1:80"
        }),
        seen_as: std::net::SocketAddr::new("10.2.0.254".parse().expect("an address"), client),
        id: client.into(),
        mark: FlowMark::default().value(),
        status: CtStatus(2 | 4 | 16 | 32),
        tcp_state: Some(TcpState::Established),
        zone: 0,
        timeout: Some(60),
        counters: None,
        started: None,
    }
}

fn snapshot() -> SnapshotParts {
    let health = |state, reason: Option<&str>| HealthView {
        state,
        reason: reason.map(str::to_owned),
        since: 7,
    };
    let at = |text: &str| text.parse().expect("an endpoint");
    let about = TableProperties {
        handle: 1,
        comment: Some("tcpgw".into()),
        flags: 6,
        owner: Some(77),
    };
    let services = state().services;
    let providers = [("web", "api"), ("sick", "file")];
    let provider = |service: &Arc<Service>| {
        let of_it = providers.into_iter().find(|(name, _)| *name == &*service.name);
        Some((Arc::clone(service), of_it?.1))
    };
    SnapshotParts {
        providers: services.iter().filter_map(provider).collect(),
        wanted: services.into_iter().map(WantedService::from).collect(),
        ghosts: Vec::new(),
        services: ServicesView {
            table: Some(TableView::new(about, 3)),
            ..ServicesView::default()
        },
        health: vec![
            (at("10.2.0.1:80"), health("healthy", None)),
            (at("10.2.0.2:80"), health("failing", Some("timed out"))),
            (at("10.2.0.3:80"), health("unhealthy", Some("refused"))),
        ],
        unproven: BTreeSet::new(),
        drains: vec![DrainView {
            service: Some("web".into()),
            port: 20003,
            backend: at("10.2.0.9:80"),
            flows: Some(3),
            seconds_left: Some(12),
            waits_for: "flows",
        }],
        daemon: DaemonView {
            pid: 77,
            version: "0.1.0",
            namespace: namespace(),
            started: 5,
            in_sync: true,
            problems: vec![Problem::new(
                ProblemKind::RejectedConfiguration,
                "the configuration was rejected: line 3: no",
            )],
            store: None,
            owns_table: true,
            torn_down: false,
        },
        unanswered: BTreeMap::from([("web".into(), 7)]),
        addon: BTreeMap::new(),
        apps: BTreeMap::new(),
    }
}

/// Returns the cookie of this process's network namespace.
fn namespace() -> u64 {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    tcpgw_kernel::ffi::socket::netns_cookie(std::os::fd::AsFd::as_fd(&socket)).expect("Linux 5.14")
}

impl Server {
    pub(crate) fn connect(&self) -> UnixStream {
        connect(&self.path)
    }

    /// Sends that and reads until the server has had enough.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may not read it all.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub(crate) fn post(&self, target: &str, body: &[u8]) -> Answer {
        self.post_as(target, "content-type: application/json\r\n", body)
    }

    pub(crate) fn post_as(&self, target: &str, headers: &str, body: &[u8]) -> Answer {
        self.send("POST", target, headers, body)
    }

    pub(crate) fn send(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn note(&self, what: EventContent) {
        let mut recorded = self.shared.lock().expect("nobody panicked");
        recorded.events.note(what, None, Duration::from_secs(1000));
    }

    pub(crate) fn me() -> Peer {
        Peer {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            pid: i32::try_from(std::process::id()).ok(),
            browser: None,
        }
    }
}

pub(crate) fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Response of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status, or 0 when no response arrived.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// True when the whole response arrived.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn read(stream: &mut UnixStream) -> Self {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&bytes)),
            }
        }
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, rest) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 4..]));
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (body, whole) = if head.to_lowercase().contains("transfer-encoding: chunked") {
            unchunk(rest)
        } else {
            (rest.to_vec(), true)
        };
        Self {
            status,
            head,
            body,
            whole,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text()))
    }

    /// Returns the status and code of the response, which must be an error.
    pub(crate) fn code(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{error}"
        );
        (self.status, error["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (body, false);
        };
        let length = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        let (Some(length), after) = (length, &rest[end + 2..]) else {
            return (body, false);
        };
        if length == 0 {
            return (body, true);
        }
        if after.len() < length + 2 {
            return (body, false);
        }
        body.extend_from_slice(&after[..length]);
        rest = &after[length + 2..];
    }
}
