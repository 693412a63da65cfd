//! Requests to the engine over its unix socket: bounded in time and size.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::decode::{self, ContainerEntry, InspectAnswer, NetworkEntry, ShortenedEvent, TimedEvent, VersionAnswer};
use super::lines::{StreamLine, StreamLines};
use crate::outbound::{Failed, exchange_on, http1_client};

/// Time that an engine has to take a connection, and to begin an answer.
const BEGIN: Duration = Duration::from_secs(10);
/// Time that it has for an answer as a whole.
const WHOLE: Duration = Duration::from_secs(30);
/// Time that it has for the answer to a question that it can answer at once.
pub(super) const AT_ONCE: Duration = Duration::from_secs(10);
/// Size of the largest answer, in bytes: a list of 10,000 containers with many labels.
const MOST: usize = 64 << 20;
/// Version of the API that is asked for where the engine has it.
const VERSION: (u32, u32) = (1, 44);
/// Longest text of an error of the engine that is shown, in characters.
const SHOWN: usize = 200;
/// Events that change which backends there are, percent-encoded: `{"type":["container","network"],"event":["start","kill",...]}`.
const FILTERS: &str = "%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22start%22%2C%22kill%22%2C%22die%22%2C%22oom%22%2C%22pause%22%2C%22unpause%22%2C%22health_status%22%2C%22rename%22%2C%22create%22%2C%22destroy%22%2C%22connect%22%2C%22disconnect%22%5D%7D";

/// Reason why the engine does not answer.
#[derive(Debug, Error)]
pub(super) enum EngineError {
    /// There is no way to the engine.
    #[error("failed to connect: {}{}", .0, advice(.0))]
    Connect(io::Error),
    /// The engine takes too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The exchange broke off, or is no HTTP.
    #[error("the exchange failed: {0}")]
    Http(String),
    /// The answer is an error.
    #[error("it answered {0}: {1}")]
    Refused(u16, String),
    /// The answer is too large.
    #[error("an answer has more than {} MiB", MOST >> 20)]
    Large,
    /// The answer cannot be read.
    #[error("an answer cannot be read: {0}")]
    Answer(String),
    /// The stream of events has ended.
    #[error("its events have ended")]
    Ended,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the daemon's user must be in the group of the socket (SupplementaryGroups= of its unit)"
        }
        io::ErrorKind::NotFound => "; does the engine run?",
        io::ErrorKind::ConnectionRefused => {
            "; does the engine run? A container that has its socket as a volume sees a new socket only when it is restarted"
        }
        _ => "",
    }
}

/// An engine that has answered.
#[derive(Debug, Clone)]
pub(super) struct EngineClient {
    socket: PathBuf,
    /// Version of the API, as paths have it: `/v1.44`.
    prefix: String,
}

#[derive(Debug, Deserialize)]
struct ErrorAnswer {
    message: String,
}

impl EngineClient {
    /// Asks the engine for its version.
    pub(super) async fn open(socket: &Path) -> Result<Self, EngineError> {
        let mut client = Self {
            socket: socket.to_owned(),
            prefix: String::new(),
        };
        let version = client.version(AT_ONCE).await?;
        let newest =
            parts(&version.newest).ok_or_else(|| EngineError::Answer("it has no version of its API".into()))?;
        let oldest = parts(&version.oldest).unwrap_or((0, 0));
        let (major, minor) = VERSION.max(oldest).min(newest);
        client.prefix = format!("/v{major}.{minor}");
        Ok(client)
    }

    /// Asks the engine for its version again, which shows that it answers.
    ///
    /// # Errors
    /// Fails when it does not, within this time.
    pub(super) async fn version(&self, limit: Duration) -> Result<VersionAnswer, EngineError> {
        self.get_within(limit, "/version").await
    }

    /// Returns all containers, those that do not run included.
    pub(super) async fn containers(&self) -> Result<Vec<ContainerEntry>, EngineError> {
        self.get("/containers/json?all=1").await
    }

    /// Returns all networks.
    pub(super) async fn networks(&self) -> Result<Vec<NetworkEntry>, EngineError> {
        self.get("/networks").await
    }

    /// Returns the configuration of a container; `None`: it is gone.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<InspectAnswer>, EngineError> {
        match self.get(&format!("/containers/{id}/json")).await {
            Ok(answer) => Ok(Some(answer)),
            Err(EngineError::Refused(404, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Follows the events since a time, in nanoseconds since the Unix epoch.
    pub(super) async fn events(&self, since: u64) -> Result<EventStream, EngineError> {
        let (seconds, nanoseconds) = (since / 1_000_000_000, since % 1_000_000_000);
        let target = format!("/events?since={seconds}.{nanoseconds:09}&filters={FILTERS}");
        let begun = async {
            let stream = self.connect().await?;
            let (mut sender, connection) = http1_client()
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| EngineError::Http(error.to_string()))?;
            let connection = tokio::spawn(async move {
                // What fails there, the body is told.
                let _ = connection.await;
            });
            // Ends the connection if it is dropped.
            let mut events = EventStream::new(connection);
            let answer = sender.send_request(self.request(&target)?).await;
            let answer = answer.map_err(|error| EngineError::Http(error.to_string()))?;
            if answer.status() != StatusCode::OK {
                return Err(EngineError::Refused(answer.status().as_u16(), "no events".into()));
            }
            events.begin(answer.into_body());
            Ok(events)
        };
        timeout(BEGIN, begun).await.map_err(|_| EngineError::Late(BEGIN))?
    }

    async fn connect(&self) -> Result<UnixStream, EngineError> {
        let connected = timeout(BEGIN, UnixStream::connect(&self.socket)).await;
        connected
            .map_err(|_| EngineError::Late(BEGIN))?
            .map_err(EngineError::Connect)
    }

    fn request(&self, target: &str) -> Result<Request<Full<Bytes>>, EngineError> {
        let request = Request::get(format!("{}{target}", self.prefix))
            .header(header::HOST, "docker")
            .header(header::USER_AGENT, concat!("tcpgw/", env!("CARGO_PKG_VERSION")));
        request
            .body(Full::default())
            .map_err(|error| EngineError::Http(error.to_string()))
    }

    async fn get<A: DeserializeOwned>(&self, target: &str) -> Result<A, EngineError> {
        self.get_within(WHOLE, target).await
    }

    async fn get_within<A: DeserializeOwned>(&self, limit: Duration, target: &str) -> Result<A, EngineError> {
        let answered = async {
            let stream = self.connect().await?;
            exchange_on(stream, self.request(target)?, Some(MOST))
                .await
                .map_err(|failed| match failed {
                    Failed::Large => EngineError::Large,
                    failed => EngineError::Http(failed.to_string()),
                })
        };
        let (status, _, body) = timeout(limit, answered).await.map_err(|_| EngineError::Late(limit))??;
        if status != StatusCode::OK.as_u16() {
            let answer: Option<ErrorAnswer> = serde_json::from_slice(&body).ok();
            let reason = answer.map_or_else(|| "no reason".to_owned(), |answer| answer.message);
            let reason: String = reason.chars().take(SHOWN).collect();
            return Err(EngineError::Refused(status, tcpgw_core::escape::text(&reason)));
        }
        serde_json::from_slice(&body).map_err(|error| EngineError::Answer(error.to_string()))
    }
}

/// Reads `1.44`.
fn parts(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Events as they happen. Its connection is closed when this is dropped.
#[derive(Debug)]
pub(super) struct EventStream {
    body: Option<Incoming>,
    connection: JoinHandle<()>,
    lines: StreamLines,
}

/// An event of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEvent {
    /// The event.
    Whole(TimedEvent),
    /// Beginning and end of an event that is too long.
    TooLong(ShortenedEvent),
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl EventStream {
    /// Returns a stream without events, of the connection that this task serves.
    pub(super) fn new(connection: JoinHandle<()>) -> Self {
        Self {
            body: None,
            connection,
            lines: StreamLines::default(),
        }
    }

    /// Begins to read events from the body of an answer.
    pub(super) fn begin(&mut self, body: Incoming) {
        self.body = Some(body);
    }

    /// Waits for the next event. The future may be dropped at any time without loss.
    ///
    /// # Errors
    /// Fails when the stream ends or has what is no event.
    pub(super) async fn next(&mut self) -> Result<StreamEvent, EngineError> {
        loop {
            if let Some(line) = self.lines.next() {
                return match line {
                    StreamLine::Whole(line) => decode::event(&line)
                        .map(StreamEvent::Whole)
                        .map_err(|error| EngineError::Answer(error.to_string())),
                    StreamLine::TooLong { head, tail } => {
                        Ok(StreamEvent::TooLong(decode::shortened_event(&head, &tail)))
                    }
                };
            }
            let body = self.body.as_mut().ok_or(EngineError::Ended)?;
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.push(&data);
                    }
                }
                Some(Err(error)) => return Err(EngineError::Http(error.to_string())),
                None => return Err(EngineError::Ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_not_text() {
        assert_eq!(parts("1.44"), Some((1, 44)));
        assert!(parts("1.9") < parts("1.41"));
        for wrong in ["", "1", "1.x", "v1.41"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
