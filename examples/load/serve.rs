//! The server: one thread that waits for all its connections at once.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::Serialize;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::clock;
use crate::protocol::{LEN, LoadRequest};

const BACKLOG: i32 = 65_535;
const CHUNK: usize = 256 * 1024;
/// Number in the events that stands for the signal.
const SIGNAL: u64 = u64::MAX;

#[derive(Default, Serialize)]
struct Counts {
    accepted: u64,
    requests: u64,
    bytes_taken: u64,
    bytes_sent: u64,
    /// Connections that ended otherwise than agreed.
    broken: u64,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(addresses: &[SocketAddr]) -> Result<Value, Box<dyn Error>> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    stop.thread_block()?;
    let signal = SignalFd::new(&stop)?;
    let mut server = Server::new(addresses)?;
    server
        .epoll
        .add(&signal, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
    // The program that started the server can wait for this line.
    println!("{}", json!({"listening": addresses}));
    server.serve()?;
    let mut report = serde_json::to_value(&server.counts)?;
    report["cpu"] = serde_json::to_value(clock::cpu()?)?;
    Ok(report)
}

struct Server {
    epoll: Epoll,
    listeners: Vec<Socket>,
    /// Connections by the number of their sockets.
    connections: Vec<Option<Connection>>,
    counts: Counts,
    buffer: Vec<u8>,
}

struct Connection {
    socket: Socket,
    ask: Waiting,
}

/// State of a connection: the event that it waits for.
enum Waiting {
    Request { bytes: [u8; LEN], have: usize },
    Room { left: u64, then_close: bool },
    Bytes { taken: u64 },
}

impl Waiting {
    const REQUEST: Self = Self::Request {
        bytes: [0; LEN],
        have: 0,
    };
}

/// State of a connection after an event.
enum Next {
    Wait,
    Close,
    Broken,
}

impl Server {
    fn new(addresses: &[SocketAddr]) -> Result<Self, Box<dyn Error>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut listeners = Vec::new();
        for address in addresses {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), None)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket
                .bind(&(*address).into())
                .map_err(|error| format!("bind {address}: {error}"))?;
            socket.listen(BACKLOG)?;
            epoll.add(&socket, event(&socket, EpollFlags::EPOLLIN))?;
            listeners.push(socket);
        }
        Ok(Self {
            epoll,
            listeners,
            connections: Vec::new(),
            counts: Counts::default(),
            buffer: vec![0; CHUNK],
        })
    }

    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..ready] {
                if event.data() == SIGNAL {
                    return Ok(());
                }
                if let Some(listener) = self.listeners.iter().position(|socket| number(socket) == event.data()) {
                    self.accept(listener)?;
                } else {
                    self.go_on(event.data())?;
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..64 {
            // Not made non-blocking: every call says MSG_DONTWAIT, which saves a system call for each connection.
            let (socket, _) = match self.listeners[listener].accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => continue,
                Err(error) => return Err(format!("accept: {error}").into()),
            };
            self.counts.accepted += 1;
            socket.set_tcp_nodelay(true)?;
            self.epoll.add(&socket, event(&socket, EpollFlags::EPOLLIN))?;
            let ask = Waiting::REQUEST;
            let index = index(number(&socket));
            if index >= self.connections.len() {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { socket, ask });
        }
        Ok(())
    }

    fn go_on(&mut self, number: u64) -> Result<(), Box<dyn Error>> {
        let Some(connection) = self.connections.get_mut(index(number)).and_then(Option::as_mut) else {
            return Ok(());
        };
        match connection.go_on(&self.epoll, &mut self.counts, &mut self.buffer) {
            Ok(Next::Wait) => return Ok(()),
            Ok(Next::Close) => {}
            Ok(Next::Broken) | Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ETIMEDOUT) => self.counts.broken += 1,
            Err(error) => return Err(error.into()),
        }
        self.connections[index(number)] = None;
        Ok(())
    }
}

impl Connection {
    fn go_on(&mut self, epoll: &Epoll, counts: &mut Counts, buffer: &mut [u8]) -> Result<Next, Errno> {
        loop {
            let next = match &mut self.ask {
                Waiting::Request { bytes, have } => {
                    let got = match take(&self.socket, &mut bytes[*have..])? {
                        None => return Ok(Next::Wait),
                        Some(0) if *have == 0 => return Ok(Next::Close),
                        Some(0) => return Ok(Next::Broken),
                        Some(got) => got,
                    };
                    *have += got;
                    if *have < LEN {
                        continue;
                    }
                    counts.requests += 1;
                    match LoadRequest::from_bytes(*bytes) {
                        None => return Ok(Next::Broken),
                        Some(LoadRequest::Take) => Waiting::Bytes { taken: 0 },
                        Some(LoadRequest::Answer(left)) => Waiting::Room {
                            left,
                            then_close: false,
                        },
                        Some(LoadRequest::AnswerAndClose(left)) => Waiting::Room { left, then_close: true },
                        Some(LoadRequest::Send) => Waiting::Room {
                            left: u64::MAX,
                            then_close: true,
                        },
                    }
                }
                Waiting::Bytes { taken } => match take(&self.socket, buffer)? {
                    None => return Ok(Next::Wait),
                    Some(0) => {
                        give(&self.socket, &taken.to_be_bytes())?;
                        return Ok(Next::Close);
                    }
                    Some(got) => {
                        *taken += got as u64;
                        counts.bytes_taken += got as u64;
                        continue;
                    }
                },
                Waiting::Room { left: 0, then_close } => {
                    if *then_close {
                        return Ok(Next::Close);
                    }
                    Waiting::REQUEST
                }
                Waiting::Room { left, .. } => {
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    if let Some(gone) = give(&self.socket, &buffer[..size])? {
                        *left -= gone as u64;
                        counts.bytes_sent += gone as u64;
                        continue;
                    }
                    let mut both = event(&self.socket, EpollFlags::EPOLLOUT | EpollFlags::EPOLLIN);
                    epoll.modify(&self.socket, &mut both)?;
                    return Ok(Next::Wait);
                }
            };
            self.ask = next;
        }
    }
}

/// Reads the available bytes; `None`: nothing is available yet; 0: the end.
fn take(socket: &Socket, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    waits(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT))
}

/// Writes as many bytes as fit; `None`: none fit.
fn give(socket: &Socket, bytes: &[u8]) -> Result<Option<usize>, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    waits(send(socket.as_raw_fd(), bytes, flags))
}

fn waits(result: Result<usize, Errno>) -> Result<Option<usize>, Errno> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(socket: &Socket) -> u64 {
    socket.as_fd().as_raw_fd().unsigned_abs().into()
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn event(socket: &Socket, flags: EpollFlags) -> EpollEvent {
    EpollEvent::new(flags, number(socket))
}
