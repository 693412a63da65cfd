use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::sys::socket::{Backlog, listen};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_core::model::ProbeQuestion;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

pub(super) fn pool() -> Pool {
    Pool::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll"))
}

/// Waits for the next report.
fn report(pool: &mut Pool) -> ProbeReport {
    let mut events = [EpollEvent::empty(); 8];
    loop {
        let count = pool.epoll().wait(&mut events, 10_u16).expect("events");
        let happened = events[..count]
            .iter()
            .find_map(|event| pool.happened(event.data(), event.events(), Instant::now()));
        let expired = || pool.expired(Instant::now()).into_iter().next();
        if let Some(report) = happened.or_else(expired) {
            return report;
        }
    }
}

fn ask(pool: &mut Pool, id: u64, endpoint: SocketAddr, timeout: Duration) -> ProbeOutcome {
    ask_with(pool, id, endpoint, timeout, None)
}

/// Probes an endpoint with a question, and waits for the outcome.
pub(super) fn ask_with(
    pool: &mut Pool,
    id: u64,
    endpoint: SocketAddr,
    timeout: Duration,
    question: Option<&Arc<ProbeQuestion>>,
) -> ProbeOutcome {
    let probe = Probe {
        id,
        endpoint,
        timeout,
        round: 0,
        source: None,
        question: question.cloned(),
    };
    let report = pool.start(&probe, Instant::now()).unwrap_or_else(|| report(pool));
    assert_eq!(report.id, id);
    report.outcome
}

pub(super) fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).expect("a listener");
    let at = listener.local_addr().expect("its address");
    (listener, at)
}

/// Returns a port that is bound, and not listened on.
fn closed(address: &str) -> (socket2::Socket, SocketAddr) {
    let at: SocketAddr = (address.parse::<std::net::IpAddr>().expect("an address"), 0).into();
    let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&at.into()).expect("a port");
    let at = socket
        .local_addr()
        .expect("its address")
        .as_socket()
        .expect("an IP address");
    (socket, at)
}

/// Returns a listener whose queue is full, so that it answers no further handshakes.
fn full(address: &str) -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let (listener, at) = listener(address);
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("a small backlog");
    let waiting = std::iter::from_fn(|| TcpStream::connect_timeout(&at, SHORT).ok())
        .take(64)
        .collect();
    (listener, at, waiting)
}

fn states_of(port: u16) -> Vec<String> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    // proc_pid_net(5): local address, remote address, state.
    let end = format!(":{port:04X}");
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        words[1..3]
            .iter()
            .any(|word| word.ends_with(&end))
            .then(|| words[3].to_owned())
    };
    lines.filter_map(of).collect()
}

#[test]
fn one_socket_asks_again_and_again_and_leaves_nothing() {
    for address in ["127.0.0.1", "::1"] {
        let mut pool = pool();
        let (listener, open) = listener(address);
        // Earlier connections of other programs with this port may have left states.
        let before = states_of(open.port()).len();
        let (_held, closed) = closed(address);
        let (_listener, full, waiting) = full(address);
        assert!(waiting.len() < 64, "its queue never gets full");
        let asked = [
            (open, ProbeOutcome::Accepted),
            (closed, ProbeOutcome::Refused),
            (open, ProbeOutcome::Accepted),
            (full, ProbeOutcome::TimedOut),
            (open, ProbeOutcome::Accepted),
            (closed, ProbeOutcome::Refused),
            (closed, ProbeOutcome::Refused),
            (full, ProbeOutcome::TimedOut),
            (full, ProbeOutcome::TimedOut),
            (open, ProbeOutcome::Accepted),
            (open, ProbeOutcome::Accepted),
        ];
        for (id, (endpoint, expected)) in (1..).zip(asked) {
            let timeout = if expected == ProbeOutcome::TimedOut {
                SHORT
            } else {
                LONG
            };
            assert_eq!(ask(&mut pool, id, endpoint, timeout), expected, "{address}, {id}");
        }
        assert_eq!((pool.sockets(), pool.in_flight(), pool.deadline()), (1, 0, None));
        // 0A is LISTEN, 06 TIME_WAIT. If the reset is delayed for long, the connection is accepted first.
        listener.set_nonblocking(true).expect("an option");
        while listener.accept().is_ok() {}
        let states = states_of(open.port());
        assert!(states.contains(&"0A".into()) && states.len() <= before, "{states:?}");
        drop(waiting);
    }
}

#[test]
fn what_was_cancelled_is_not_reported_and_its_socket_goes_on() {
    let mut pool = pool();
    let (_listener, full, _waiting) = full("127.0.0.1");
    let (_open, open) = listener("127.0.0.1");
    for id in 1..=3 {
        begin(&mut pool, id, full);
    }
    (1..=4).for_each(|id| pool.cancel(id));
    assert_eq!((pool.in_flight(), pool.deadline()), (0, None));
    assert_eq!(ask(&mut pool, 5, open, LONG), ProbeOutcome::Accepted);
    assert_eq!(pool.sockets(), 3);
}

#[test]
fn sockets_of_a_crowd_are_not_kept_for_ever() {
    let mut pool = pool();
    let (_listener, full, _waiting) = full("127.0.0.1");
    let (_open, open) = listener("127.0.0.1");
    for id in 1..=300 {
        begin(&mut pool, id, full);
    }
    assert_eq!(pool.sockets(), 300);
    (1..=300).for_each(|id| pool.cancel(id));
    assert_eq!(pool.sockets(), 256);
    for id in 301..=600 {
        assert_eq!(ask(&mut pool, id, open, LONG), ProbeOutcome::Accepted);
    }
}

#[test]
fn an_address_that_cannot_be_asked_is_our_own_trouble() {
    // A link-local address without a link.
    let nowhere = "[fe80::1]:1".parse().expect("an address");
    assert_eq!(ask(&mut pool(), 1, nowhere, LONG), errno::local(Errno::EINVAL));
}

#[test]
fn what_errors_mean() {
    use ProbeOutcome::{Accepted, Refused, TimedOut, Unreachable};
    for errno in [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::EADDRNOTAVAIL,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::EPERM,
        Errno::EACCES,
    ] {
        assert_eq!(errno::of_connect(errno), errno::local(errno));
    }
    for errno in [Errno::EHOSTUNREACH, Errno::ENETUNREACH] {
        assert_eq!(errno::of_connect(errno), Unreachable(errno::described(errno)));
        assert_eq!(errno::of_answer(errno), Unreachable(errno::described(errno)));
    }
    // The answer is an ICMPv6 "administratively prohibited".
    assert_eq!(
        errno::of_answer(Errno::EACCES),
        Unreachable(errno::described(Errno::EACCES))
    );
    let answers = [
        (Errno::ECONNREFUSED, Refused),
        (Errno::ETIMEDOUT, TimedOut),
        (Errno::ECONNRESET, Accepted),
        (Errno::ENOMEM, errno::local(Errno::ENOMEM)),
    ];
    for (errno, expected) in answers {
        assert_eq!(errno::of_answer(errno), expected);
    }
}

fn gather(reports: &mut UnboundedReceiver<Vec<ProbeReport>>, count: usize) -> Vec<(u64, ProbeOutcome)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(reports.blocking_recv().expect("the thread lives"));
    }
    all.sort_unstable_by_key(|report| report.id);
    assert!(all.iter().all(|report| report.took < LONG), "{all:?}");
    all.into_iter().map(|report| (report.id, report.outcome)).collect()
}

#[test]
fn the_thread_reports_each_of_many_once_and_ends() {
    let (sender, mut reports) = unbounded_channel();
    let thread = Prober::start(sender).expect("a thread");
    let (listener, open) = listener("127.0.0.1");
    let (_held, closed) = closed("127.0.0.1");
    let accepting = std::thread::spawn(move || {
        listener
            .incoming()
            .take_while(|conn| {
                // On a busy machine a probe may be accepted before it is reset.
                let is_last = |conn: &TcpStream| {
                    conn.set_read_timeout(Some(SHORT)).expect("a timeout");
                    conn.peek(&mut [0]).ok() == Some(1)
                };
                conn.as_ref().is_ok_and(|conn| !is_last(conn))
            })
            .count()
    });
    for round in 0..20 {
        let probes = (0..100).map(|n| Probe {
            id: round * 100 + n,
            endpoint: if n % 3 == 0 { closed } else { open },
            timeout: LONG,
            round: 0,
            source: None,
            question: None,
        });
        thread.probe(probes.collect()).expect("the thread lives");
    }
    let outcome = |id: u64| match id % 100 % 3 {
        0 => ProbeOutcome::Refused,
        _ => ProbeOutcome::Accepted,
    };
    let expected = (0..2000).map(|id| (id, outcome(id)));
    assert_eq!(gather(&mut reports, 2000), expected.collect::<Vec<_>>());
    let (_listener, full, _waiting) = full("127.0.0.1");
    let probe = |id| Probe {
        id,
        endpoint: full,
        timeout: SHORT,
        round: 0,
        source: None,
        question: None,
    };
    thread.probe(vec![probe(3000), probe(3001)]).expect("the thread lives");
    thread.cancel(vec![3000]).expect("the thread lives");
    assert_eq!(gather(&mut reports, 1), [(3001, ProbeOutcome::TimedOut)]);
    drop(thread);
    assert!(reports.blocking_recv().is_none());
    std::io::Write::write_all(&mut TcpStream::connect(open).expect("a listener"), b"x").expect("a connection");
    accepting.join().expect("no panic");
}

#[test]
fn a_thread_without_a_listener_ends() {
    let (sender, reports) = unbounded_channel();
    let prober = Prober::start(sender).expect("a thread");
    drop(reports);
    let (_held, closed) = closed("127.0.0.1");
    let probe = |id| Probe {
        id,
        endpoint: closed,
        timeout: LONG,
        round: 0,
        source: None,
        question: None,
    };
    let gone = (0..3000).find_map(|id| {
        thread::sleep(Duration::from_millis(10));
        prober.probe(vec![probe(id)]).err()
    });
    assert!(matches!(gone, Some(ProbeError::Gone)));
}

/// Begins a probe of an endpoint that does not answer.
fn begin(pool: &mut Pool, id: u64, endpoint: SocketAddr) {
    let probe = Probe {
        id,
        endpoint,
        timeout: LONG,
        round: 0,
        source: None,
        question: None,
    };
    assert_eq!(pool.start(&probe, Instant::now()), None);
}
