//! The socket by which `tcpgw up ps`, `restart`, `scale`, `stop` and `run` reach a `tcpgw up`: a request is a line of JSON, and so
//! is each answer. Only root and the user of `tcpgw up` are heard.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Maximum length of a request and of an answer, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Maximum number of connections at once.
const MOST: usize = 16;
/// Maximum time that a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum number of answers that wait for a client.
const WAITING: usize = 64;

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UpRequest {
    /// List the processes.
    Ps,
    /// Restart the processes of these types; of all types, if the list is empty.
    Restart(Vec<String>),
    /// Change the number of instances: `tcp=2`.
    Scale(Vec<String>),
    /// End the app.
    Stop,
    /// Reserve an address for a process of the client, which is answered by [`UpAnswer::Place`].
    Attach,
    /// After [`UpRequest::Attach`]: connect the network namespace of the process with this number.
    Connect(u32),
}

/// An answer to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpAnswer {
    /// The request was carried out. The last answer.
    Done,
    /// The request failed, and why. The last answer.
    Failed(String),
    /// The request is wrong input, and why. The last answer.
    Wrong(String),
    /// A line about the progress, for the user.
    Say(String),
    /// The list of processes.
    Processes(Vec<ListedProcess>),
    /// The network and environment of a process of the client.
    Place(ProcessPlace),
}

/// A process in the list of `tcpgw up ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedProcess {
    /// Its name, `tcp.1`.
    pub name: String,
    /// Its number, while it runs.
    pub pid: Option<i32>,
    /// `running`, `waiting`, `draining`, `ending` or `ended`.
    pub state: String,
    /// Its address and port.
    pub address: String,
    /// Time since the process was started, in seconds.
    pub seconds: Option<u64>,
    /// Number of times that the process has ended by itself.
    pub ends: u32,
}

/// The network and the environment of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlace {
    /// Address of the process.
    pub address: Ipv4Addr,
    /// Address of the gateway.
    pub gateway: Ipv4Addr,
    /// File that takes the place of `/etc/resolv.conf`.
    pub resolver: Option<PathBuf>,
    /// Environment variables of the process.
    pub variables: BTreeMap<String, String>,
}

/// Reason why a request was not answered.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No `tcpgw up` serves the socket.
    #[error("no `tcpgw up` runs in this directory")]
    Nobody,
    /// The connection failed.
    #[error("failed to ask the `tcpgw up` of this directory: {0}")]
    Connection(#[from] io::Error),
    /// The socket belongs to another user.
    #[error(
        "the socket of `tcpgw up` is served by uid {0}, and not by root or this user; nothing was asked. End that process, then try again"
    )]
    Stranger(u32),
    /// The request was refused.
    #[error("{0}")]
    Refused(String),
    /// The request has an invalid value.
    #[error("{0}")]
    Wrong(String),
}

/// A request that came in, with the channel for its answers.
#[derive(Debug)]
pub struct ReceivedRequest {
    /// Number of the connection.
    pub connection: usize,
    /// The request; `None` when the client has closed the connection.
    pub request: Option<UpRequest>,
    /// Takes the answers.
    pub answers: SyncSender<UpAnswer>,
}

/// Serves the socket at that path by a thread of its own, until the process ends.
///
/// # Errors
/// Fails when the socket cannot be bound, or no thread can be started.
pub fn serve(path: &Path, ask: impl Fn(ReceivedRequest) -> bool + Send + Sync + 'static) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is this user's alone.
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let (ask, open, number) = (Arc::new(ask), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming().flatten() {
            if open.fetch_add(1, Ordering::SeqCst) >= MOST || !is_trusted(&stream) {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (ask, open) = (Arc::clone(&ask), Arc::clone(&open));
            let connection = number.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&open);
            let talk = move || {
                let _ = converse(&stream, connection, &*ask);
                open.fetch_sub(1, Ordering::SeqCst);
            };
            if std::thread::Builder::new().name("control".into()).spawn(talk).is_err() {
                counted.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::Builder::new().name("control".into()).spawn(accept)?;
    Ok(())
}

fn is_trusted(stream: &UnixStream) -> bool {
    uid_of(stream).is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

fn uid_of(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

fn converse(stream: &UnixStream, connection: usize, ask: &dyn Fn(ReceivedRequest) -> bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let first: UpRequest = next(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let is_place = first == UpRequest::Attach;
    let (answers, given) = sync_channel(WAITING);
    let asked = |request, answers: &SyncSender<UpAnswer>| ReceivedRequest {
        connection,
        request,
        answers: answers.clone(),
    };
    if !ask(asked(Some(first), &answers)) {
        return Ok(());
    }
    if !is_place {
        return answer(stream, answers, &given);
    }
    let answer = given.recv().map_err(io::Error::other)?;
    send(stream, &answer)?;
    if matches!(answer, UpAnswer::Place(_)) {
        let outcome = keep(stream, &mut reader, &given, |request| {
            ask(asked(Some(request), &answers))
        });
        ask(asked(None, &answers));
        return outcome;
    }
    Ok(())
}

/// Passes answers on until the last.
fn answer(stream: &UnixStream, answers: SyncSender<UpAnswer>, given: &Receiver<UpAnswer>) -> io::Result<()> {
    // The loop ends when the sender that was given away is dropped.
    drop(answers);
    while let Ok(answer) = given.recv() {
        send(stream, &answer)?;
        if matches!(answer, UpAnswer::Done | UpAnswer::Failed(_) | UpAnswer::Wrong(_)) {
            break;
        }
    }
    Ok(())
}

/// Connects the client's process, and waits for the client's end.
fn keep(
    stream: &UnixStream,
    reader: &mut BufReader<&UnixStream>,
    given: &Receiver<UpAnswer>,
    ask: impl Fn(UpRequest) -> bool,
) -> io::Result<()> {
    let Some(request @ UpRequest::Connect(_)) = next(reader)? else {
        return Ok(());
    };
    if !ask(request) {
        return Ok(());
    }
    send(stream, &given.recv().map_err(io::Error::other)?)?;
    stream.set_read_timeout(None)?;
    let _ = reader.read(&mut [0; 1])?;
    Ok(())
}

fn send(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn next<T: serde::de::DeserializeOwned>(reader: &mut BufReader<&UnixStream>) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if reader.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// A connection to a `tcpgw up`.
#[derive(Debug)]
pub struct ControlClient(UnixStream);

impl ControlClient {
    /// Connects to the `tcpgw up` behind that socket.
    ///
    /// # Errors
    /// Fails when no `tcpgw up` listens there, the connection fails, or another user serves the socket.
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::Nobody,
            _ => error.into(),
        })?;
        match uid_of(&stream)? {
            uid if uid == 0 || uid == nix::unistd::geteuid().as_raw() => Ok(Self(stream)),
            uid => Err(ControlError::Stranger(uid)),
        }
    }

    /// Sends a request, and passes on each answer but the last one.
    ///
    /// # Errors
    /// Fails when the connection fails or ends before the last answer, or the request is refused.
    pub fn ask(&self, request: &UpRequest, mut each: impl FnMut(UpAnswer)) -> Result<(), ControlError> {
        send(&self.0, request)?;
        let mut reader = BufReader::new(&self.0);
        loop {
            match next(&mut reader)? {
                Some(UpAnswer::Done) => return Ok(()),
                Some(UpAnswer::Failed(why)) => return Err(ControlError::Refused(tcpgw_core::escape::text(&why))),
                Some(UpAnswer::Wrong(why)) => return Err(ControlError::Wrong(tcpgw_core::escape::text(&why))),
                Some(answer) => each(answer),
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
    }

    /// Sends a request, and returns its only answer.
    ///
    /// # Errors
    /// Fails when the connection fails or ends without an answer, or the request is refused.
    pub fn ask_once(&self, request: &UpRequest) -> Result<UpAnswer, ControlError> {
        send(&self.0, request)?;
        match next(&mut BufReader::new(&self.0))? {
            Some(UpAnswer::Failed(why)) => Err(ControlError::Refused(tcpgw_core::escape::text(&why))),
            Some(UpAnswer::Wrong(why)) => Err(ControlError::Wrong(tcpgw_core::escape::text(&why))),
            Some(answer) => Ok(answer),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}
