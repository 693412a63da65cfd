//! TCP servers in a host: one thread and one epoll each, so that thousands of connections cost little.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::{Domain, SockAddr, Socket, Type};

use super::client::PATIENCE;
use super::{Net, plan, wait_until};

/// Behaviour of a server towards its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Sends `"HOST CLIENT:PORT\n"`, then echoes.
    Greet,
    /// Reads everything.
    Sink,
    /// Writes as fast as it can.
    Source,
    /// Accepts and reads, and sends nothing.
    Silent,
    /// Accepts and closes.
    Closes,
}

/// A running server. It ends, with its connections, when the value is dropped.
pub(crate) struct Server {
    counts: Arc<Counts>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    resets: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Server {
    pub(crate) fn accepted(&self) -> u64 {
        self.counts.accepted.load(Relaxed)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.load(Relaxed)
    }

    /// Connections that ended in an error, such as a reset or a timeout.
    pub(crate) fn resets(&self) -> u64 {
        self.counts.resets.load(Relaxed)
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.counts.bytes_in.load(Relaxed)
    }

    /// Returns the number of bytes written so far. Bytes are counted after the write, so a client may have the last of them a
    /// moment earlier.
    pub(crate) fn bytes_out(&self) -> u64 {
        self.counts.bytes_out.load(Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.write(1).expect("an eventfd takes a one");
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a server panicked");
        }
    }
}

impl Net {
    /// Starts a server on a port of a host, for IPv4 and IPv6, and waits until it listens.
    #[track_caller]
    pub(crate) fn serve(&self, host: &str, port: u16, behaviour: Behaviour) -> Server {
        self.serve_at(host, SocketAddr::new(plan::ip("::"), port), behaviour)
    }

    /// Starts a server on one address of a host.
    #[track_caller]
    pub(crate) fn serve_at(&self, host: &str, at: SocketAddr, behaviour: Behaviour) -> Server {
        self.serve_as(host, host, at, behaviour)
    }

    /// Starts a server that greets with another name than its host's.
    #[track_caller]
    pub(crate) fn serve_as(&self, name: &str, host: &str, at: SocketAddr, behaviour: Behaviour) -> Server {
        let listener = self
            .within(host, || listen(at))
            .unwrap_or_else(|e| panic!("{host}: {at}: {e}"));
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("failed to make an eventfd"));
        let counts = Arc::new(Counts::default());
        let mut work = Loop::new(name, listener, behaviour, Arc::clone(&counts), &stop);
        let thread = thread::spawn(move || work.run());
        Server {
            counts,
            stop,
            thread: Some(thread),
        }
    }

    /// Starts the same server on all four containers.
    pub(crate) fn serve_all(&self, port: u16, behaviour: Behaviour) -> [Server; 4] {
        plan::BACKENDS.map(|host| self.serve(host, port, behaviour))
    }
}

fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    once_free(|| socket.bind(&SockAddr::from(at)))?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

const STOP: u64 = 0;
const LISTENER: u64 = 1;
/// Largest number of bytes that may wait for a peer that does not read.
const MOST_UNSENT: usize = 1 << 20;
const CHUNK: usize = 1 << 16;

struct Loop {
    host: String,
    behaviour: Behaviour,
    listener: TcpListener,
    epoll: Epoll,
    counts: Arc<Counts>,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

struct Client {
    stream: TcpStream,
    unsent: Vec<u8>,
    ends: bool,
    interest: EpollFlags,
}

enum ServerEnd {
    Lives,
    Ended,
}

impl Loop {
    fn new(host: &str, listener: TcpListener, behaviour: Behaviour, counts: Arc<Counts>, stop: &EventFd) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("failed to make an epoll");
        epoll
            .add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))
            .expect("failed to watch an eventfd");
        epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
            .expect("failed to watch a listener");
        Self {
            host: host.into(),
            behaviour,
            listener,
            epoll,
            counts,
            clients: BTreeMap::new(),
            next: LISTENER + 1,
        }
    }

    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(e) => panic!("failed to wait for events: {e}"),
            };
            for event in &events[..ready] {
                match event.data() {
                    STOP => return,
                    LISTENER => self.accept(),
                    id => self.serve(id),
                }
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // The client went away again.
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => panic!("{}: failed to accept: {e}", self.host),
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.counts.accepted.fetch_add(1, Relaxed);
        if self.behaviour == Behaviour::Closes {
            return;
        }
        stream
            .set_nonblocking(true)
            .expect("failed to make a socket nonblocking");
        drop(stream.set_nodelay(true));
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let unsent = match self.behaviour {
            Behaviour::Greet => format!("{} {peer}\n", self.host).into_bytes(),
            _ => Vec::new(),
        };
        let id = self.next;
        self.next += 1;
        let interest = EpollFlags::EPOLLIN;
        self.epoll
            .add(&stream, EpollEvent::new(interest, id))
            .expect("failed to watch a connection");
        self.clients.insert(
            id,
            Client {
                stream,
                unsent,
                ends: false,
                interest,
            },
        );
        self.counts.open.fetch_add(1, Relaxed);
        self.serve(id);
    }

    fn serve(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match client.proceed(self.behaviour, &self.counts) {
            Ok(ServerEnd::Lives) => client.watch(id, self.behaviour, &self.epoll),
            Ok(ServerEnd::Ended) => self.part(id),
            Err(_) => {
                self.counts.resets.fetch_add(1, Relaxed);
                self.part(id);
            }
        }
    }

    fn part(&mut self, id: u64) {
        self.clients.remove(&id);
        self.counts.open.fetch_sub(1, Relaxed);
    }
}

impl Client {
    fn proceed(&mut self, behaviour: Behaviour, counts: &Counts) -> std::io::Result<ServerEnd> {
        let mut chunk = vec![0; CHUNK];
        while !self.ends && self.unsent.len() < MOST_UNSENT {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ends = true,
                Ok(n) => {
                    counts.bytes_in.fetch_add(n as u64, Relaxed);
                    if behaviour == Behaviour::Greet {
                        self.unsent.extend_from_slice(&chunk[..n]);
                    }
                    if n < CHUNK {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.send(behaviour, counts)?;
        Ok(if self.ends && self.unsent.is_empty() {
            ServerEnd::Ended
        } else {
            ServerEnd::Lives
        })
    }

    fn send(&mut self, behaviour: Behaviour, counts: &Counts) -> std::io::Result<()> {
        if behaviour == Behaviour::Source && !self.ends && self.unsent.is_empty() {
            self.unsent = vec![b'.'; CHUNK];
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(n) => {
                    counts.bytes_out.fetch_add(n as u64, Relaxed);
                    self.unsent.drain(..n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock && self.ends && behaviour == Behaviour::Source => {
                    self.unsent.clear();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn watch(&mut self, id: u64, behaviour: Behaviour, epoll: &Epoll) {
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !self.ends && self.unsent.len() < MOST_UNSENT);
        interest.set(
            EpollFlags::EPOLLOUT,
            !self.unsent.is_empty() || behaviour == Behaviour::Source,
        );
        if interest != self.interest {
            self.interest = interest;
            epoll
                .modify(&self.stream, &mut EpollEvent::new(interest, id))
                .expect("failed to watch a connection");
        }
    }
}

/// Listens at an address.
pub(crate) fn listen_at(at: &str) -> io::Result<TcpListener> {
    once_free(|| TcpListener::bind(at))
}

/// Binds an address, and waits while a listener that was closed a moment ago is still open in a process that another thread is
/// starting: it has copies of all descriptors until it executes its program.
fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut bound = bind();
    wait_until(PATIENCE, || {
        let is_in_use = matches!(&bound, Err(error) if error.kind() == ErrorKind::AddrInUse);
        if is_in_use {
            bound = bind();
        }
        !is_in_use
    });
    bound
}
