//! A small blocking client, for the command line.

mod answer;
mod error;
mod limits;
mod search;
mod target;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub use self::answer::DaemonResponse;
pub use self::error::ClientError;
use self::error::process;
pub use self::limits::PATIENCE;
use self::limits::{SMALL, largest};
pub use self::search::{At, DEFAULT_SOCKET, FoundDaemon, NOBODY, find, namespace, search};
pub use self::target::RequestTarget;
use tcpgw_core::model::duration;

/// Time after a request at which the caller is told that the daemon does not answer.
pub const SLOW: Duration = Duration::from_secs(3);
/// Maximum time for a daemon to say who it is. It is short, so that the user of a command soon learns that a daemon hangs.
const GREETING: Duration = Duration::from_millis(2500);

/// A daemon that serves this network namespace.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
    /// Process that listens, if the kernel tells.
    pid: Cell<Option<i32>>,
}

#[derive(Deserialize)]
struct Greeting {
    namespace: u64,
    pid: u32,
    version: String,
}

#[derive(Deserialize)]
struct Envelope {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
    #[serde(default)]
    problems: Option<serde_json::Value>,
    #[serde(default)]
    more: usize,
}

impl Client {
    /// Connects, and asks the daemon for its identity.
    ///
    /// # Errors
    /// Fails with [`ClientError`] when no daemon of this network namespace answers there, or its user is not trusted.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::Connection {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let client = Self {
            path: path.to_owned(),
            runtime,
            pid: Cell::new(None),
        };
        let here = namespace().map_err(|error| client.failed(&error))?;
        let begin = Instant::now();
        let greeting = client.begin("GET", "/v1/daemon", &[], Bytes::new());
        let greeting = client.runtime.block_on(async { timeout(GREETING, greeting).await });
        let hung = || ClientError::Hung {
            path: path.to_owned(),
            pid: client.pid.get(),
            waited: GREETING,
        };
        let (status, body) = greeting.map_err(|_| hung())??;
        let answer = DaemonResponse {
            client: &client,
            body,
            deadline: begin + GREETING,
            most: SMALL,
        };
        let answer = answer.text().map_err(|error| match error {
            ClientError::Late { .. } => hung(),
            other => other,
        })?;
        if !status.is_success() {
            return Err(match client.refusal(status, &answer) {
                ClientError::Refused { code, .. } if code == "other_namespace" => {
                    ClientError::OtherNamespace(path.to_owned())
                }
                other => other,
            });
        }
        let greeting: Greeting = serde_json::from_slice(&answer)
            .map_err(|error| client.failed(&format!("it does not speak like a tcpgw daemon: {error}")))?;
        if greeting.namespace != here {
            return Err(ClientError::OtherNamespace(path.to_owned()));
        }
        tracing::debug!(
            path = %tcpgw_core::escape::path(path), pid = greeting.pid, version = greeting.version, "going through the daemon"
        );
        Ok(client)
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Fails with [`ClientError`] when the daemon does not answer in time, or answers with an error.
    pub fn get(&self, target: &str) -> Result<DaemonResponse<'_>, ClientError> {
        self.ask("GET", target, &[], Bytes::new())
    }

    /// Sends a GET request that is answered within `patience`: a request that waits for something has a time of its
    /// own. `slow` is called once if the answer has not begun within [`SLOW`].
    ///
    /// # Errors
    /// Fails with [`ClientError::Hung`] when the answer has not begun in time, and otherwise as [`Client::get`] does.
    pub fn get_within(
        &self,
        target: &str,
        patience: Duration,
        slow: impl FnOnce(),
    ) -> Result<DaemonResponse<'_>, ClientError> {
        let since = Instant::now();
        let request = self.begin("GET", target, &[], Bytes::new());
        let begun = self.runtime.block_on(async {
            let mut request = std::pin::pin!(request);
            if let Ok(begun) = timeout(patience.min(SLOW), &mut request).await {
                return Some(begun);
            }
            if patience <= SLOW {
                return None;
            }
            slow();
            timeout(patience.saturating_sub(SLOW), request).await.ok()
        });
        let begun = begun.unwrap_or_else(|| Err(self.hung(since.elapsed())));
        // An answer that has begun may be large.
        self.answer(begun?, since + patience.max(SLOW), largest(target))
    }

    /// Returns the error for a daemon that has not answered for this time.
    fn hung(&self, waited: Duration) -> ClientError {
        ClientError::Hung {
            path: self.path.clone(),
            pid: self.pid.get(),
            waited: Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Returns a message that the daemon has not answered for [`SLOW`], and that the command waits for it.
    pub fn is_slow(&self) -> String {
        format!(
            "the daemon behind {}{} has not answered for {}: it hangs, or has too much to do; waiting for it",
            tcpgw_core::escape::path(&self.path),
            process(self.pid.get()),
            duration::show(SLOW)
        )
    }

    /// Sends a request by any method, with additional headers.
    ///
    /// # Errors
    /// Fails with [`ClientError`] when the daemon does not answer in time, or answers with an error.
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<DaemonResponse<'_>, ClientError> {
        self.ask(method, target, headers, body.into())
    }

    /// Sends a POST request with a JSON body.
    ///
    /// # Errors
    /// Fails with [`ClientError`] when the daemon does not answer in time, or answers with an error.
    pub fn post(&self, target: &str, body: Vec<u8>) -> Result<DaemonResponse<'_>, ClientError> {
        self.ask("POST", target, &[], body.into())
    }

    /// Sends a POST request that is answered within `patience`, unless `stop` ends before the answer comes: then it is
    /// not known whether the order was accepted.
    ///
    /// # Errors
    /// Fails with [`ClientError::Hung`] when the answer has not begun in time, so that it is not known whether the
    /// order was accepted, and otherwise as [`Client::post`] does.
    pub fn post_unless<T>(
        &self,
        target: &str,
        body: Vec<u8>,
        patience: Duration,
        stop: impl Future<Output = T>,
    ) -> Result<Result<DaemonResponse<'_>, T>, ClientError> {
        let deadline = Instant::now() + patience.max(SLOW);
        let ask = async {
            let answer = timeout(patience, self.begin("POST", target, &[], body.into())).await;
            answer.unwrap_or_else(|_| Err(self.hung(patience)))
        };
        let answer = self.runtime.block_on(async {
            tokio::select! {
                biased;
                answer = ask => Ok(answer),
                stopped = stop => Err(stopped),
            }
        });
        match answer {
            Ok(answer) => Ok(Ok(self.answer(answer?, deadline, largest(target))?)),
            Err(stopped) => Ok(Err(stopped)),
        }
    }

    /// Returns the error about an answer that a tcpgw daemon does not give.
    pub fn odd(&self, why: &str) -> ClientError {
        self.failed(&why)
    }

    fn failed(&self, why: &dyn fmt::Display) -> ClientError {
        ClientError::Connection {
            path: self.path.clone(),
            // The error may quote bytes of the other end.
            why: tcpgw_core::escape::text(&why.to_string()),
        }
    }

    /// Checks that the daemon's user is trusted, since its answers decide what the caller believes and does. Source: `unix(7)`,
    /// `SO_PEERCRED`: the user who called `listen`.
    fn check_peer(&self, uid: u32) -> Result<(), ClientError> {
        if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        let file = std::fs::canonicalize(&self.path).map_err(|error| self.failed(&error))?;
        let directory = std::fs::metadata(file.parent().unwrap_or(Path::new("/")));
        let owner = directory.map_err(|error| self.failed(&error))?.uid();
        if uid == owner {
            return Ok(());
        }
        let path = self.path.clone();
        Err(ClientError::Stranger { path, uid, owner })
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<DaemonResponse<'_>, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        let begun = self.begun(method, target, headers, body);
        let begun = self.runtime.block_on(begun)?;
        self.answer(begun, deadline, largest(target))
    }

    async fn begun(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        match timeout(PATIENCE, self.begin(method, target, headers, body)).await {
            Ok(begun) => begun,
            Err(_) => Err(self.failed(&format!("it has not answered within {}", duration::show(PATIENCE)))),
        }
    }

    fn answer(
        &self,
        (status, body): (StatusCode, Incoming),
        deadline: Instant,
        most: usize,
    ) -> Result<DaemonResponse<'_>, ClientError> {
        let is_success = status.is_success();
        let answer = DaemonResponse {
            client: self,
            body,
            deadline,
            most: if is_success { most } else { SMALL },
        };
        if is_success {
            return Ok(answer);
        }
        Err(self.refusal(status, &answer.text()?))
    }

    async fn begin(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden(self.path.clone()),
                io::ErrorKind::WouldBlock => ClientError::Hung {
                    path: self.path.clone(),
                    pid: None,
                    waited: Duration::ZERO,
                },
                _ => ClientError::NoDaemon {
                    path: self.path.clone(),
                    source,
                },
            })?;
        // The peer is the process that called `listen` (unix(7)); 0 in a PID namespace that it is not in.
        let peer = stream.peer_cred().map_err(|error| self.failed(&error))?;
        self.pid.set(peer.pid().filter(|pid| *pid > 0));
        self.check_peer(peer.uid())?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "tcpgw")
            .header("user-agent", super::hints::USER_AGENT)
            .header("content-type", "application/json");
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(body)).map_err(|error| self.failed(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(&error))?;
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok((response.status(), response.into_body()))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let Ok(Envelope { error: refusal }) = serde_json::from_slice::<Envelope>(body) else {
            return self.failed(&format!("it answered with {status}"));
        };
        if let Some(mut problems) = refusal.problems {
            for text in problems
                .as_array_mut()
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_object_mut)
            {
                for (_, value) in text {
                    if let serde_json::Value::String(text) = value {
                        *text = tcpgw_core::escape::text(text);
                    }
                }
            }
            let problems = serde_json::json!({"problems": problems, "more": refusal.more});
            if let Ok(problems) = serde_json::from_value(problems) {
                return ClientError::Invalid(problems);
            }
        }
        ClientError::Refused {
            status: status.as_u16(),
            code: refusal.code,
            message: tcpgw_core::escape::text(&refusal.message),
        }
    }
}

impl Client {
    /// Parses JSON that the daemon has sent.
    ///
    /// # Errors
    /// Fails with [`ClientError::Connection`] when the JSON does not have the expected form.
    pub fn understand<T: serde::de::DeserializeOwned>(&self, text: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(text).map_err(|error| self.failed(&format!("its answer is not understood: {error}")))
    }
}
