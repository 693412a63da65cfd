//! TCP clients: one connection, many short ones, bulk.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Net;

/// Longest time that an action which should succeed at once may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Number of connections after which clients slow down.
const MANY: u32 = 20_000;
/// Pause between short connections from then on.
const SLOW: Duration = Duration::from_millis(20);
/// Pause between short connections on a slow machine, from the first one on.
const PAUSE: Duration = Duration::from_millis(20);

/// An open connection. Reads give up after [`PATIENCE`], or what [`Conn::patience`] says.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: BufReader<TcpStream>,
    /// Time that the handshake took.
    pub(crate) took: Duration,
}

/// First line that a greeting server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) backend: String,
    /// The client's address, as the backend sees it.
    pub(crate) seen_as: SocketAddr,
}

/// Connects from the namespace that the thread is in.
pub(crate) fn connect(to: SocketAddr, timeout: Duration) -> io::Result<Conn> {
    connect_from(None, to, timeout)
}

/// Connects from one of the host's addresses, and a port that the kernel chooses when it is 0.
pub(crate) fn connect_from(from: Option<SocketAddr>, to: SocketAddr, timeout: Duration) -> io::Result<Conn> {
    let since = Instant::now();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&SockAddr::from(to), timeout)?;
    let took = since.elapsed();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Conn {
        stream: BufReader::new(stream),
        took,
    })
}

impl Conn {
    /// Reads a greeting server's first line.
    pub(crate) fn greeting(&mut self) -> io::Result<Greeting> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let parsed = line.trim_end().split_once(' ').and_then(|(backend, seen_as)| {
            Some(Greeting {
                backend: backend.into(),
                seen_as: seen_as.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no greeting but {line:?}")))
    }

    /// Sends `bytes` to a greeting server and reads them back.
    pub(crate) fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut back = vec![0; bytes.len()];
        let mut writer = self.stream.get_ref().try_clone()?;
        thread::scope(|scope| {
            let written = scope.spawn(move || writer.write_all(bytes));
            self.stream.read_exact(&mut back)?;
            written.join().expect("writing does not panic")
        })?;
        if back == bytes {
            Ok(())
        } else {
            Err(io::Error::other("the echo differs"))
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads what has come, at least one byte unless the peer has closed.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let bytes = self.stream.fill_buf()?.to_vec();
        self.stream.consume(bytes.len());
        Ok(bytes)
    }

    /// Sets the timeout of later reads and writes.
    pub(crate) fn patience(&mut self, timeout: Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(timeout)).expect("failed to set a timeout");
        stream
            .set_write_timeout(Some(timeout))
            .expect("failed to set a timeout");
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream
            .get_ref()
            .local_addr()
            .expect("a connected socket has an address")
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))
    }
}

/// Results of many short connections.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// Number of greetings from each backend.
    pub(crate) backends: BTreeMap<String, usize>,
    pub(crate) failures: Vec<String>,
    /// The longest time from the SYN to the greeting.
    pub(crate) longest: Duration,
}

impl Spread {
    pub(crate) fn served(&self) -> usize {
        self.backends.values().sum()
    }

    fn add(&mut self, outcome: io::Result<String>, took: Duration) {
        match outcome {
            Ok(backend) => *self.backends.entry(backend).or_default() += 1,
            Err(e) => self.failures.push(e.to_string()),
        }
        self.longest = self.longest.max(took);
    }

    fn merge(&mut self, other: Self) {
        for (backend, count) in other.backends {
            *self.backends.entry(backend).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.longest = self.longest.max(other.longest);
    }
}

impl Net {
    /// Connects from a host.
    pub(crate) fn connect(&self, host: &str, to: SocketAddr) -> io::Result<Conn> {
        self.within(host, || connect(to, PATIENCE))
    }

    /// Connects from one address of a host.
    pub(crate) fn connect_from(&self, host: &str, from: IpAddr, to: SocketAddr) -> io::Result<Conn> {
        self.within(host, || connect_from(Some(SocketAddr::new(from, 0)), to, PATIENCE))
    }

    /// Connects `n` times, one after the other; all must be greeted. How many each backend got.
    #[track_caller]
    pub(crate) fn spread(&self, host: &str, to: SocketAddr, n: usize) -> BTreeMap<String, usize> {
        let spread = self.spread_by(host, to, n, 1);
        assert!(spread.failures.is_empty(), "{spread:?}");
        spread.backends
    }

    /// Connects `n` times, `parallel` at once.
    pub(crate) fn spread_by(&self, host: &str, to: SocketAddr, n: usize, parallel: usize) -> Spread {
        let started = AtomicUsize::new(0);
        self.spread_while(host, to, parallel, &|| started.fetch_add(1, Relaxed) < n)
    }

    /// Makes short connections, `parallel` at once, for as long as `work` goes on: one after the other without a pause, but
    /// on a slow machine with one, because `work` would hardly get on beside them.
    pub(crate) fn spread_during<T>(
        &self,
        host: &str,
        to: SocketAddr,
        parallel: usize,
        work: impl FnOnce() -> T,
    ) -> (Spread, T) {
        let pause = if self.divisor(10_000) == 1 {
            Duration::ZERO
        } else {
            PAUSE
        };
        let (over, begun) = (AtomicBool::new(false), AtomicU32::new(0));
        let more = || {
            // With more connections than client ports (28,232 by default) a port comes round while the backend still holds it in
            // TIME_WAIT: its SYN may have to be sent again, which is no fault of the gateway's, and of a slow machine only.
            let is_many = begun.fetch_add(1, Relaxed) > MANY;
            thread::sleep(if is_many { pause.max(SLOW) } else { pause });
            !over.load(Relaxed)
        };
        thread::scope(|scope| {
            let spread = scope.spawn(|| self.spread_while(host, to, parallel, &more));
            let end = SetOnDrop(&over);
            let done = work();
            drop(end);
            (spread.join().expect("clients do not panic"), done)
        })
    }

    /// Makes short connections, `parallel` at once, for as long as `more` says yes; it may wait before it does.
    pub(crate) fn spread_while(
        &self,
        host: &str,
        to: SocketAddr,
        parallel: usize,
        more: &(dyn Fn() -> bool + Sync),
    ) -> Spread {
        let place = self.place(host);
        let total = Mutex::new(Spread::default());
        thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(|| {
                    place.enter();
                    let mut mine = Spread::default();
                    while more() {
                        let since = Instant::now();
                        let outcome = connect(to, PATIENCE).and_then(|mut conn| Ok(conn.greeting()?.backend));
                        mine.add(outcome, since.elapsed());
                    }
                    total.lock().expect("clients do not panic").merge(mine);
                });
            }
        });
        total.into_inner().expect("clients do not panic")
    }

    /// Writes as fast as it can for a while. What arrived is what the server counted.
    pub(crate) fn push(&self, host: &str, to: SocketAddr, time: Duration) -> io::Result<()> {
        let chunk = vec![b'.'; 1 << 16];
        self.bulk(host, to, time, |stream| stream.write(&chunk)).map(drop)
    }

    /// Reads as fast as it can for a while; the bytes it got.
    pub(crate) fn pull(&self, host: &str, to: SocketAddr, time: Duration) -> io::Result<u64> {
        let mut chunk = vec![0; 1 << 16];
        self.bulk(host, to, time, |stream| stream.read(&mut chunk))
    }

    fn bulk(
        &self,
        host: &str,
        to: SocketAddr,
        time: Duration,
        mut step: impl FnMut(&mut TcpStream) -> io::Result<usize> + Send,
    ) -> io::Result<u64> {
        self.within(host, || {
            let mut conn = connect(to, PATIENCE)?;
            conn.patience(Duration::from_millis(10));
            let since = Instant::now();
            let mut bytes = 0;
            while since.elapsed() < time {
                match step(conn.stream.get_mut()) {
                    Ok(0) => break,
                    Ok(n) => bytes += n as u64,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            // A reset leaves nothing that trickles in after the count.
            conn.reset()?;
            Ok(bytes)
        })
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
