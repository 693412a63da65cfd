//! An engine in small: it answers over a unix socket what the test says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// Handle of the engine, by which a test says its answers.
#[derive(Debug, Clone)]
pub(super) struct FakeEngine {
    shared: Arc<Shared>,
    socket: PathBuf,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    /// Lines of the stream of events; an empty one ends it.
    events: broadcast::Sender<String>,
}

#[derive(Debug, Default)]
pub(super) struct Behaviour {
    pub(super) containers: Vec<Value>,
    /// Text of answers to lists that is sent instead.
    pub(super) raw_list: Option<String>,
    pub(super) list_delay: Duration,
    /// Number of a container that the engine is starting: its configuration is not told before that is done.
    pub(super) starting: Option<u16>,
    /// Whether it answers nothing.
    pub(super) hangs: bool,
    pub(super) requests: Vec<String>,
    /// Events that are sent to each one who asks.
    pub(super) past: Vec<String>,
}

/// Ends the engine when it is dropped.
pub(super) struct RunningEngine(JoinHandle<()>);

impl Drop for RunningEngine {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FakeEngine {
    pub(super) fn new(socket: &Path) -> Self {
        let (events, _) = broadcast::channel(5000);
        Self {
            shared: Arc::new(Shared {
                behaviour: Mutex::default(),
                events,
            }),
            socket: socket.to_owned(),
        }
    }

    /// Begins to answer.
    pub(super) fn start(&self) -> RunningEngine {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let shared = Arc::clone(&self.shared);
        RunningEngine(tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.spawn(serve(stream, Arc::clone(&shared)));
            }
        }))
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Behaviour) -> T) -> T {
        change(&mut self.shared.behaviour.lock().unwrap())
    }

    /// Sends an event to those who follow.
    pub(super) fn event(&self, line: &Value) {
        self.line(&line.to_string());
    }

    /// Sends an event as an engine writes it.
    pub(super) fn line(&self, line: &str) {
        let _ = self.shared.events.send(format!("{line}\n"));
    }

    /// Ends the streams of events.
    pub(super) fn end_events(&self) {
        let _ = self.shared.events.send(String::new());
    }

    /// Returns how often a path was asked for.
    pub(super) fn count(&self, part: &str) -> usize {
        self.change(|of| of.requests.iter().filter(|request| request.contains(part)).count())
    }
}

async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    if stream.read_line(&mut first).await.is_err() {
        return;
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        line.clear();
    }
    let target = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    shared.behaviour.lock().unwrap().requests.push(target);
    if path.ends_with("/events") {
        let past = shared.behaviour.lock().unwrap().past.concat();
        return events(stream.into_inner(), &shared, &past).await;
    }
    while is_starting(&path, &shared) || shared.behaviour.lock().unwrap().hangs {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (body, delay) = answer(&path, &shared);
    tokio::time::sleep(delay).await;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await;
}

fn is_starting(path: &str, shared: &Shared) -> bool {
    let starting = shared.behaviour.lock().unwrap().starting;
    starting.is_some_and(|number| path.ends_with(&format!("/{number:064x}/json")))
}

fn answer(path: &str, shared: &Shared) -> (String, Duration) {
    let of = shared.behaviour.lock().unwrap();
    let answer = if path.ends_with("/version") {
        json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "New": {}})
    } else if path.ends_with("/networks") {
        json!([{"Id": "n1", "Name": "web", "Driver": "bridge"}, {"Id": "n2", "Driver": "macvlan"}])
    } else if path.ends_with("/containers/json") {
        let list = of.raw_list.clone();
        let list = list.unwrap_or_else(|| Value::from(of.containers.clone()).to_string());
        return (list, of.list_delay);
    } else {
        let config =
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "StopSignal": "SIGUSR1", "StopTimeout": null});
        json!({"Config": config, "State": {}})
    };
    (answer.to_string(), Duration::ZERO)
}

async fn events(mut stream: UnixStream, shared: &Shared, past: &str) {
    let mut coming = shared.events.subscribe();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).await;
    let mut text = past.to_owned();
    loop {
        // An event may come in pieces.
        for piece in text.as_bytes().chunks(100.max(text.len() / 50)) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
        match coming.recv().await {
            Ok(line) if !line.is_empty() => text = line,
            _ => return,
        }
    }
}

/// Returns a container as lists have it.
pub(super) fn entry(number: u16, state: &str, labels: &Value) -> Value {
    let address = format!("172.30.{}.{}", number / 200, 2 + number % 200);
    json!({
        "Id": format!("{number:064x}"), "Names": [format!("/app-{number}")], "Created": 1_700_000_000 + i64::from(number), "Labels": labels,
        "State": state, "Status": "Up 3 seconds", "HostConfig": {"NetworkMode": "web"}, "Unknown": [1],
        "NetworkSettings": {"Networks": {"web": {"NetworkID": "n1", "IPAddress": address, "GlobalIPv6Address": ""}}},
    })
}

/// Returns an event of a container.
pub(super) fn told(number: u16, action: &str, nanoseconds: u64) -> Value {
    json!({
        "Type": "container", "Action": action, "timeNano": nanoseconds,
        "Actor": {"ID": format!("{number:064x}"), "Attributes": {"signal": "15", "name": "x"}},
    })
}
