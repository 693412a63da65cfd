//! A small blocking client, for the command line.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::kernel::ffi;
use crate::model::Problems;

/// Where the daemon listens if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tcpgw/tcpgw.sock";

/// Instead of a socket: work on the kernel without a daemon.
pub const NOBODY: &str = "none";
/// Until an answer begins, and between two pieces of it. The server has an answer to everything by then.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Until a daemon says who it is: whoever has typed a command wants to know soon that a daemon hangs.
const GREETING: Duration = Duration::from_millis(2500);

/// Why the daemon did not do as asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon answers on {}: {source}", crate::escape::path(path))]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error(
        "a daemon may be at work behind {}, and this user may not ask it: become root, or a member of the socket's group; \
         `--socket none` works on the kernel without it",
        crate::escape::path(.0)
    )]
    Forbidden(PathBuf),
    /// The daemon works elsewhere.
    #[error(
        "the daemon behind {} serves another network namespace than this one: run the command there (nsenter -n), or \
         `--socket none` to work on this one's kernel without a daemon",
        crate::escape::path(.0)
    )]
    OtherNamespace(PathBuf),
    /// It takes connections, or has taken too many, and says nothing.
    #[error(
        "the daemon behind {}{} has not answered for {waited:?}: it hangs, or has too much to do; `--socket none` looks at the \
         kernel without it", crate::escape::path(path), process(*pid)
    )]
    Hung {
        /// The socket.
        path: PathBuf,
        /// The process that listens there, where the kernel tells.
        pid: Option<i32>,
        /// How long was waited.
        waited: Duration,
    },
    /// The connection failed.
    #[error("failed to ask the daemon behind {}: {why}", crate::escape::path(path))]
    Connection {
        /// The socket.
        path: PathBuf,
        /// What failed.
        why: String,
    },
    /// It did not take the state.
    #[error("{0}")]
    Invalid(Problems),
    /// It answered with an error.
    #[error("{message}")]
    Refused {
        /// The status code of HTTP.
        status: u16,
        /// One word for programs.
        code: String,
        /// What is wrong.
        message: String,
    },
}

fn process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A daemon that serves this network namespace.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
    /// The process that listens, where the kernel tells.
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
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    code: String,
    message: String,
    #[serde(default)]
    problems: Option<serde_json::Value>,
    #[serde(default)]
    more: usize,
}

/// Looks for a daemon. `Ok(None)`: there is none for this network namespace, so the kernel is worked on directly. With a
/// path, it must be there; with [`NOBODY`] for one, nobody is asked.
///
/// # Errors
/// [`ClientError`].
pub fn find(path: Option<&Path>) -> Result<Option<Client>, ClientError> {
    Ok(match search(path)? {
        Found::Daemon(client) => Some(client),
        Found::Nobody | Found::Elsewhere(_) => None,
    })
}

/// Who is at the socket.
#[derive(Debug)]
pub enum Found {
    /// The daemon of this network namespace.
    Daemon(Client),
    /// Nobody, or nobody was to be asked.
    Nobody,
    /// That of another one, behind this socket.
    Elsewhere(PathBuf),
}

/// The same, and who is there instead.
///
/// # Errors
/// [`ClientError`].
pub fn search(path: Option<&Path>) -> Result<Found, ClientError> {
    let at = path.unwrap_or(Path::new(DEFAULT_SOCKET));
    if at == Path::new(NOBODY) {
        return Ok(Found::Nobody);
    }
    match Client::connect(at) {
        Ok(client) => Ok(Found::Daemon(client)),
        Err(ClientError::OtherNamespace(at)) if path.is_none() => Ok(Found::Elsewhere(at)),
        Err(error @ ClientError::NoDaemon { .. }) if path.is_none() => {
            tracing::debug!("working on the kernel directly: {error}");
            Ok(Found::Nobody)
        }
        Err(error) => Err(error),
    }
}

/// The cookie of this process' network namespace.
///
/// # Errors
/// Those of the system; before Linux 5.14 there is none.
pub fn namespace() -> io::Result<u64> {
    // One of this process: its namespace is ours.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    ffi::netns_cookie(std::os::fd::AsFd::as_fd(&socket))
}

impl Client {
    /// Asks who is there.
    ///
    /// # Errors
    /// [`ClientError`]
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
        let greeting = client.begin("GET", "/v1/daemon", &[], Bytes::new());
        let greeting = client.runtime.block_on(async { timeout(GREETING, greeting).await });
        let hung = || ClientError::Hung {
            path: path.to_owned(),
            pid: client.pid.get(),
            waited: GREETING,
        };
        let greeting = greeting.map_err(|_| hung())?;
        let answer = match greeting.and_then(|begun| client.answer(begun)) {
            Err(ClientError::Refused { code, .. }) if code == "other_namespace" => {
                return Err(ClientError::OtherNamespace(path.to_owned()));
            }
            other => other?.text()?,
        };
        let greeting: Greeting = serde_json::from_slice(&answer)
            .map_err(|error| client.failed(&format!("it does not speak like a tcpgw daemon: {error}")))?;
        if greeting.namespace != here {
            return Err(ClientError::OtherNamespace(path.to_owned()));
        }
        tracing::debug!(
            path = %crate::escape::path(path), pid = greeting.pid, version = greeting.version, "going through the daemon"
        );
        Ok(client)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn get(&self, target: &str) -> Result<Answer<'_>, ClientError> {
        self.ask("GET", target, &[], Bytes::new(), PATIENCE)
    }

    /// Asks for it by any method, with headers of its own.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer<'_>, ClientError> {
        self.ask(method, target, headers, body.into(), PATIENCE)
    }

    /// Orders something.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn post(&self, target: &str, body: Vec<u8>) -> Result<Answer<'_>, ClientError> {
        self.ask("POST", target, &[], body.into(), PATIENCE)
    }

    /// Orders something, unless `stop` comes before the answer: then the order may have been taken or not.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn post_unless<T>(
        &self,
        target: &str,
        body: Vec<u8>,
        stop: impl Future<Output = T>,
    ) -> Result<Result<Answer<'_>, T>, ClientError> {
        let ask = self.begun("POST", target, &[], body.into(), PATIENCE);
        let answer = self.runtime.block_on(async {
            tokio::select! {
                biased;
                answer = ask => Ok(answer),
                stopped = stop => Err(stopped),
            }
        });
        match answer {
            Ok(answer) => Ok(Ok(self.answer(answer?)?)),
            Err(stopped) => Ok(Err(stopped)),
        }
    }

    fn failed(&self, why: &dyn fmt::Display) -> ClientError {
        ClientError::Connection {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer<'_>, ClientError> {
        let begun = self.begun(method, target, headers, body, patience);
        let begun = self.runtime.block_on(begun)?;
        self.answer(begun)
    }

    async fn begun(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        match timeout(patience, self.begin(method, target, headers, body)).await {
            Ok(begun) => begun,
            Err(_) => Err(self.failed(&format!("it has not answered within {patience:?}"))),
        }
    }

    fn answer(&self, (status, body): (StatusCode, Incoming)) -> Result<Answer<'_>, ClientError> {
        let answer = Answer { client: self, body };
        if status.is_success() {
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
        // Of the process that called `listen` (unix(7)); 0 in a namespace of processes that it is not in.
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        self.pid.set(pid.filter(|pid| *pid > 0));
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "tcpgw")
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
        let Ok(Envelope { error: told }) = serde_json::from_slice::<Envelope>(body) else {
            return self.failed(&format!("it answered with {status}"));
        };
        if let Some(problems) = told.problems
            && let Ok(problems) = serde_json::from_value(serde_json::json!({"problems": problems, "more": told.more}))
        {
            return ClientError::Invalid(problems);
        }
        ClientError::Refused {
            status: status.as_u16(),
            code: told.code,
            message: told.message,
        }
    }
}

/// What comes back, piece by piece.
#[derive(Debug)]
pub struct Answer<'a> {
    client: &'a Client,
    body: Incoming,
}

impl Answer<'_> {
    /// The next piece; `None` at the end. Waits for it as long as it takes if `patience` is `None`.
    ///
    /// # Errors
    /// [`ClientError::Connection`], if it was cut.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = async {
                match patience {
                    Some(patience) => timeout(patience, self.body.frame()).await.ok(),
                    None => Some(self.body.frame().await),
                }
            };
            return match self.client.runtime.block_on(frame) {
                None => Err(self.client.failed(&"it has stopped in the middle of its answer")),
                Some(None) => Ok(None),
                Some(Some(Err(error))) => Err(self.client.failed(&format!("its answer ends in the middle: {error}"))),
                Some(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(Some(data)),
                    Err(_) => continue,
                },
            };
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// That of [`Answer::next`].
    pub fn text(mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        while let Some(piece) = self.next(Some(PATIENCE))? {
            text.extend_from_slice(&piece);
        }
        Ok(text)
    }

    /// All of it, read as JSON.
    ///
    /// # Errors
    /// That of [`Answer::next`].
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, ClientError> {
        let client = self.client;
        let text = self.text()?;
        client.understand(&text)
    }

    /// Hands out lines as they come, without their ends, until `each` says so or there is no more.
    ///
    /// # Errors
    /// That of [`Answer::next`], or of `each`.
    pub fn lines<E: From<ClientError>>(
        mut self,
        patience: Option<Duration>,
        mut each: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut rest = Vec::new();
        while let Some(piece) = self.next(patience)? {
            rest.extend_from_slice(&piece);
            let mut begin = 0;
            while let Some(length) = rest[begin..].iter().position(|byte| *byte == b'\n') {
                if !each(&rest[begin..begin + length])? {
                    return Ok(());
                }
                begin += length + 1;
            }
            rest.drain(..begin);
        }
        if !rest.is_empty() {
            each(&rest)?;
        }
        Ok(())
    }
}

impl Client {
    /// Reads JSON that came from the daemon.
    ///
    /// # Errors
    /// [`ClientError::Connection`], if it is not what it should be.
    pub fn understand<T: serde::de::DeserializeOwned>(&self, text: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(text).map_err(|error| self.failed(&format!("its answer is not understood: {error}")))
    }
}

/// A target with its query: values are encoded.
#[derive(Debug)]
pub struct Target(String);

impl Target {
    /// Of a path.
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Of a service, and what is below it.
    pub fn of_service(name: &str, below: &str) -> Self {
        let mut target = Self("/v1/services/".to_owned());
        target.encode(name);
        target.0.push_str(below);
        target
    }

    fn encode(&mut self, text: &str) {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                self.0.push(byte.into());
            } else {
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
    }

    /// With a parameter, if there is one.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&dyn fmt::Display>) -> Self {
        let Some(value) = value else { return self };
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.encode(&value.to_string());
        self
    }

    /// As it is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
