//! A small blocking client, for the command line.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

use tcpgw_core::model::Problems;
use tcpgw_kernel::ffi;

/// Where the daemon listens if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tcpgw/tcpgw.sock";

/// Instead of a socket: work on the kernel without a daemon.
pub const NOBODY: &str = "none";
/// Longest time from a request to the end of its answer, and until the next line of an answer that has no end. The server has
/// given an answer to everything by then: orders take up to 125 s, a look at the kernel up to 65 s and its interval.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// From a request until whoever waits is told that the daemon does not answer.
pub const SLOW: Duration = Duration::from_secs(3);
/// Largest answer of a daemon about itself, to an order without a state, or that refuses something.
const SMALL: usize = 4 << 20;
/// Largest answer about all services. 10,000 services with 20 backends each take about 50 MB in `GET /v1/status`.
const LARGE: usize = 128 << 20;
/// Largest export: an export of the largest state spells out what its source may leave out.
const EXPORT: usize = 256 << 20;
/// Longest line of an answer that comes line by line.
const LONGEST_LINE: usize = 1 << 20;
/// Most objects and most values of an answer that is read as JSON: an empty object takes a hundred times as much memory as text.
const MOST_OBJECTS: usize = 1 << 20;
const MOST_VALUES: usize = 16 << 20;
/// Until a daemon says who it is: whoever has typed a command wants to know soon that a daemon hangs.
const GREETING: Duration = Duration::from_millis(2500);

/// Why the daemon did not do as asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon answers on {}: {source}", tcpgw_core::escape::path(path))]
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
        tcpgw_core::escape::path(.0)
    )]
    Forbidden(PathBuf),
    /// The daemon works elsewhere.
    #[error(
        "the daemon behind {} serves another network namespace than this one: run the command there (nsenter -n), or \
         `--socket none` to work on this one's kernel without a daemon",
        tcpgw_core::escape::path(.0)
    )]
    OtherNamespace(PathBuf),
    /// It takes connections, or has taken too many, and says nothing.
    #[error(
        "the daemon behind {}{} has not answered for {waited:?}: it hangs, or has too much to do. `tcpgw --socket none status` \
         looks at the kernel without it; nothing is changed beside it: `systemctl restart tcpgw`", tcpgw_core::escape::path(path), process(*pid)
    )]
    Hung {
        /// The socket.
        path: PathBuf,
        /// The process that listens there, where the kernel tells.
        pid: Option<i32>,
        /// How long was waited.
        waited: Duration,
    },
    /// Another user listens there.
    #[error(
        "{} is not served by a daemon that can be trusted: uid {uid} listens there, and not root, this user, or the owner of the \
         socket's directory (uid {owner}); nothing was asked. End that process; `--socket none` works on the kernel without a daemon",
        tcpgw_core::escape::path(path)
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// The user who listens.
        uid: u32,
        /// The owner of the directory.
        owner: u32,
    },
    /// The answer has not ended in time.
    #[error(
        "the daemon behind {} has begun an answer and not ended it in time: it hangs, or is no tcpgw daemon; `--socket none` works \
         on the kernel without it",
        tcpgw_core::escape::path(path)
    )]
    Late {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("failed to ask the daemon behind {}: {why}", tcpgw_core::escape::path(path))]
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

/// Where a daemon is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'p> {
    /// At a socket that somebody named for this command: a daemon must be there. With [`NOBODY`] for one, nobody is asked.
    Named(&'p Path),
    /// At the socket where daemons of this gateway listen: there may be none.
    Usual(&'p Path),
}

/// Looks for a daemon. `Ok(None)`: there is none for this network namespace, so the kernel is worked on directly.
///
/// # Errors
/// [`ClientError`].
pub fn find(at: At<'_>) -> Result<Option<Client>, ClientError> {
    Ok(match search(at)? {
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
pub fn search(at: At<'_>) -> Result<Found, ClientError> {
    let (path, is_usual) = match at {
        At::Named(path) if path == Path::new(NOBODY) => return Ok(Found::Nobody),
        At::Named(path) => (path, false),
        At::Usual(path) => (path, true),
    };
    match Client::connect(path) {
        Ok(client) => Ok(Found::Daemon(client)),
        Err(ClientError::OtherNamespace(at)) if is_usual => Ok(Found::Elsewhere(at)),
        Err(error @ ClientError::NoDaemon { .. }) if is_usual => {
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
        let begin = Instant::now();
        let greeting = client.begin("GET", "/v1/daemon", &[], Bytes::new());
        let greeting = client.runtime.block_on(async { timeout(GREETING, greeting).await });
        let hung = || ClientError::Hung {
            path: path.to_owned(),
            pid: client.pid.get(),
            waited: GREETING,
        };
        let (status, body) = greeting.map_err(|_| hung())??;
        let answer = Answer {
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

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn get(&self, target: &str) -> Result<Answer<'_>, ClientError> {
        self.ask("GET", target, &[], Bytes::new())
    }

    /// Asks for something that is answered within `patience`, as what is waited for has a time of its own. `slow` is called once
    /// if the answer has not begun within [`SLOW`].
    ///
    /// # Errors
    /// [`ClientError::Hung`], if the answer has not begun in time; [`ClientError`]
    pub fn get_within(&self, target: &str, patience: Duration, slow: impl FnOnce()) -> Result<Answer<'_>, ClientError> {
        let since = Instant::now();
        let asked = self.begin("GET", target, &[], Bytes::new());
        let begun = self.runtime.block_on(async {
            let mut asked = std::pin::pin!(asked);
            if let Ok(begun) = timeout(patience.min(SLOW), &mut asked).await {
                return Some(begun);
            }
            if patience <= SLOW {
                return None;
            }
            slow();
            timeout(patience.saturating_sub(SLOW), asked).await.ok()
        });
        let begun = begun.unwrap_or_else(|| Err(self.hung(since.elapsed())));
        // What has begun may be large.
        self.answer(begun?, since + patience.max(SLOW), largest(target))
    }

    /// It has said nothing for so long.
    fn hung(&self, waited: Duration) -> ClientError {
        ClientError::Hung {
            path: self.path.clone(),
            pid: self.pid.get(),
            waited: Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Says that it has not answered for [`SLOW`], and is waited for.
    pub fn is_slow(&self) -> String {
        format!(
            "the daemon behind {}{} has not answered for {SLOW:?}: it hangs, or has too much to do; waiting for it",
            tcpgw_core::escape::path(&self.path),
            process(self.pid.get())
        )
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
        self.ask(method, target, headers, body.into())
    }

    /// Orders something.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn post(&self, target: &str, body: Vec<u8>) -> Result<Answer<'_>, ClientError> {
        self.ask("POST", target, &[], body.into())
    }

    /// Orders something that is answered within `patience`, unless `stop` comes before the answer: then the order may have been taken
    /// or not.
    ///
    /// # Errors
    /// [`ClientError::Hung`], if the answer has not begun in time: the order may have been taken or not; [`ClientError`]
    pub fn post_unless<T>(
        &self,
        target: &str,
        body: Vec<u8>,
        patience: Duration,
        stop: impl Future<Output = T>,
    ) -> Result<Result<Answer<'_>, T>, ClientError> {
        let deadline = Instant::now() + patience.max(SLOW);
        let ask = async {
            let asked = timeout(patience, self.begin("POST", target, &[], body.into())).await;
            asked.unwrap_or_else(|_| Err(self.hung(patience)))
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

    fn failed(&self, why: &dyn fmt::Display) -> ClientError {
        ClientError::Connection {
            path: self.path.clone(),
            // It may quote what came from the other end.
            why: tcpgw_core::escape::text(&why.to_string()),
        }
    }

    /// Whoever listens decides what the caller believes and does. Source: `unix(7)`, `SO_PEERCRED`: the user who called `listen`.
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
    ) -> Result<Answer<'_>, ClientError> {
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
            Err(_) => Err(self.failed(&format!("it has not answered within {PATIENCE:?}"))),
        }
    }

    fn answer(
        &self,
        (status, body): (StatusCode, Incoming),
        deadline: Instant,
        most: usize,
    ) -> Result<Answer<'_>, ClientError> {
        let is_success = status.is_success();
        let answer = Answer {
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
        // Of the process that called `listen` (unix(7)); 0 in a namespace of processes that it is not in.
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
        let Ok(Envelope { error: told }) = serde_json::from_slice::<Envelope>(body) else {
            return self.failed(&format!("it answered with {status}"));
        };
        if let Some(mut problems) = told.problems {
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
            let problems = serde_json::json!({"problems": problems, "more": told.more});
            if let Ok(problems) = serde_json::from_value(problems) {
                return ClientError::Invalid(problems);
            }
        }
        ClientError::Refused {
            status: status.as_u16(),
            code: told.code,
            message: tcpgw_core::escape::text(&told.message),
        }
    }
}

/// Returns how large the answer to this request may be.
fn largest(target: &str) -> usize {
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "/v1/export" => EXPORT,
        "/v1/daemon" | "/v1/healthz" | "/v1/teardown" | "/v1/resume" => SMALL,
        _ if path.ends_with("/pause") || path.ends_with("/resume") => SMALL,
        _ => LARGE,
    }
}

/// What comes back. It ends in time, and is no larger than answers of its kind are, or it is refused.
#[derive(Debug)]
pub struct Answer<'a> {
    client: &'a Client,
    body: Incoming,
    deadline: Instant,
    most: usize,
}

impl Answer<'_> {
    /// The next piece, within that time; `None` at the end.
    fn next(&mut self, left: Duration) -> Result<Option<Bytes>, ClientError> {
        let begin = Instant::now();
        loop {
            let left = left.saturating_sub(begin.elapsed());
            let frame = async { timeout(left, self.body.frame()).await };
            return match self.client.runtime.block_on(frame) {
                Err(_) => Err(self.client.late()),
                Ok(None) => Ok(None),
                Ok(Some(Err(error))) => Err(self.client.failed(&format!("its answer ends in the middle: {error}"))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(Some(data)),
                    Err(_) => continue,
                },
            };
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// [`ClientError::Late`]; [`ClientError::Connection`], if it was cut or is too large.
    pub fn text(mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.client.late());
            }
            let Some(piece) = self.next(left)? else { return Ok(text) };
            if text.len() + piece.len() > self.most {
                return Err(self.client.too_large(self.most));
            }
            text.extend_from_slice(&piece);
        }
    }

    /// All of it, read as JSON.
    ///
    /// # Errors
    /// Those of [`Answer::text`]; [`ClientError::Connection`], if it is not understood.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, ClientError> {
        let client = self.client;
        let text = self.text()?;
        if !is_modest(&text) {
            return Err(client.failed(&"its answer has more values than any that a tcpgw daemon gives"));
        }
        client.understand(&text)
    }

    /// Hands out lines as they come, without their ends, until `each` says so or there is no more. Without an end of its own
    /// (`endless`), each line has [`PATIENCE`]; else all lines together, the time in which `each` works not counted.
    ///
    /// # Errors
    /// Those of [`Answer::text`], or of `each`.
    pub fn lines<E: From<ClientError>>(
        mut self,
        endless: bool,
        mut each: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut rest = Vec::new();
        let mut left = PATIENCE;
        loop {
            let begin = Instant::now();
            let piece = self.next(left)?;
            left = left.saturating_sub(begin.elapsed());
            let Some(piece) = piece else { break };
            rest.extend_from_slice(&piece);
            let mut begin = 0;
            while let Some(length) = rest[begin..].iter().position(|byte| *byte == b'\n') {
                if !each(&rest[begin..begin + length])? {
                    return Ok(());
                }
                begin += length + 1;
                left = if endless { PATIENCE } else { left };
            }
            rest.drain(..begin);
            if rest.len() > LONGEST_LINE {
                return Err(self.client.too_large(LONGEST_LINE).into());
            }
        }
        if !rest.is_empty() {
            each(&rest)?;
        }
        Ok(())
    }
}

/// Whether JSON takes no more memory, once read, than an answer may.
fn is_modest(text: &[u8]) -> bool {
    let (mut objects, mut values) = (0_usize, 0_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => objects += 1,
            b'[' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    objects <= MOST_OBJECTS && values <= MOST_VALUES
}

impl Client {
    fn late(&self) -> ClientError {
        ClientError::Late {
            path: self.path.clone(),
        }
    }

    fn too_large(&self, most: usize) -> ClientError {
        self.failed(&format!(
            "its answer is larger than {} MiB, which none of a tcpgw daemon is",
            most >> 20
        ))
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

    /// Of an app's resource of the add-on, and what is below it.
    pub fn of_resource(app: &str, below: &str) -> Self {
        let mut target = Self("/v1/addon/resources/".to_owned());
        target.encode(app);
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    /// Takes one connection and answers it with a head and what `write` gives, until that or the other end has enough.
    fn serves(
        directory: &Path,
        mut write: impl FnMut(&mut std::os::unix::net::UnixStream) -> io::Result<()> + Send + 'static,
    ) -> PathBuf {
        let path = directory.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(HEAD);
            while write(&mut stream).is_ok() {}
        });
        path
    }

    fn client(path: &Path) -> Client {
        Client {
            path: path.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            pid: Cell::new(None),
        }
    }

    fn begun(client: &Client, time: Duration, most: usize) -> Answer<'_> {
        let begun = client.begin("GET", "/", &[], Bytes::new());
        let (status, body) = client.runtime.block_on(begun).unwrap();
        assert!(status.is_success());
        Answer {
            client,
            body,
            deadline: Instant::now() + time,
            most,
        }
    }

    fn trickle(stream: &mut std::os::unix::net::UnixStream) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(b"1\r\n \r\n")
    }

    #[test]
    fn an_answer_that_trickles_ends_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = serves(directory.path(), trickle);
        let begin = Instant::now();
        let error = Client::connect(&path).unwrap_err();
        assert!(matches!(error, ClientError::Hung { .. }), "{error}");
        assert!(begin.elapsed() < 4 * GREETING, "{:?}", begin.elapsed());

        let directory = tempfile::tempdir().unwrap();
        let client = client(&serves(directory.path(), trickle));
        let error = begun(&client, Duration::from_millis(200), LARGE).text().unwrap_err();
        assert!(matches!(error, ClientError::Late { .. }), "{error}");
    }

    #[test]
    fn an_answer_without_end_is_not_kept() {
        let spaces = |stream: &mut std::os::unix::net::UnixStream| {
            stream.write_all(b"10000\r\n")?;
            stream.write_all(&vec![b' '; 0x10000])?;
            stream.write_all(b"\r\n")
        };
        let directory = tempfile::tempdir().unwrap();
        let error = Client::connect(&serves(directory.path(), spaces)).unwrap_err();
        assert!(error.to_string().contains("larger than 4 MiB"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let client = client(&serves(directory.path(), spaces));
        let lines = begun(&client, PATIENCE, LARGE).lines(true, |_| Ok::<_, ClientError>(true));
        let error = lines.unwrap_err().to_string();
        assert!(error.contains("larger than 1 MiB"), "{error}");
    }

    #[test]
    fn kinds_of_answers_have_their_sizes() {
        for (target, most) in [
            ("/v1/export?format=json", EXPORT),
            ("/v1/daemon", SMALL),
            ("/v1/services/a/pause", SMALL),
            ("/v1/services", LARGE),
            ("/v1/status?interval=1s", LARGE),
        ] {
            assert_eq!(largest(target), most, "{target}");
        }
    }

    #[test]
    fn json_that_takes_far_more_memory_than_text_is_not_read() {
        let many = |value: &str, count: usize| format!("[{}0]", value.repeat(count));
        assert!(is_modest(many(r#"{"a":"{[,\"{"},"#, 1000).as_bytes()));
        assert!(is_modest(many(r#""{","#, MOST_OBJECTS + 1).as_bytes()));
        assert!(!is_modest(many(r#"{"":0},"#, MOST_OBJECTS + 1).as_bytes()));
        assert!(!is_modest(many("[],", MOST_VALUES / 2 + 1).as_bytes()));
    }

    #[test]
    fn what_refuses_says_it_on_one_line() {
        let client = client(Path::new("/s"));
        let body = br#"{"error": {"code": "x", "message": "a\nerror: b"}}"#;
        let error = client.refusal(StatusCode::CONFLICT, body).to_string();
        assert_eq!(error, r"a\nerror: b");
        let body =
            br#"{"error": {"code": "x", "message": "", "problems": [{"place": "p", "message": "a\nerror: b"}]}}"#;
        let error = client.refusal(StatusCode::UNPROCESSABLE_ENTITY, body).to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
