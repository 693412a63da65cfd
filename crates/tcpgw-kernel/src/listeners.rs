//! Listening local TCP sockets and their processes.
//!
//! The kernel is asked for listeners alone (`NETLINK_SOCK_DIAG`), so that the time does not grow with the connections
//! of the machine. Where the module for it (`tcp_diag`) is missing, all sockets are read from `/proc`. Both follow the
//! network namespace of the calling thread. Source: `sock_diag(7)`, `inet_diag_dump_icsk` in `net/ipv4/inet_diag.c`,
//! `tcp4_seq_show` in `net/ipv4/tcp_ipv4.c`, `net/ipv6/tcp_ipv6.c`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable as _, NetlinkHeader, NetlinkSerializable as _,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange as _;
use crate::netlink::socket::{Netlink, restarting};
use crate::netlink::tlv::{Header, Malformed, Message, Writer};

/// Longest time for which processes are looked up: there may be many, with many open files.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// A local socket that takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Address of the socket; `[::]` may include IPv4, which `/proc` does not tell.
    pub addr: SocketAddr,
    /// Number of the socket in `/proc/PID/fd`.
    pub inode: u64,
}

/// Reason why the listeners could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}: {source}")]
pub struct ListenersError {
    path: &'static str,
    source: io::Error,
}

/// Returns all listening TCP sockets of this thread's network namespace, IPv4 and IPv6, sorted.
///
/// # Errors
///
/// Fails when the kernel does not answer and `/proc` cannot be read. A kernel without IPv6 is no error.
pub fn listeners() -> Result<Vec<Listener>, ListenersError> {
    find(&|_| true)
}

/// Returns the listeners on these ports, as [`listeners`] does: others, of which there may be tens of thousands, cost
/// little.
///
/// # Errors
///
/// Fails as [`listeners`] does.
pub fn listeners_on(ports: &BTreeSet<u16>) -> Result<Vec<Listener>, ListenersError> {
    find(&|port| ports.contains(&port))
}

fn find(is_wanted: &dyn Fn(u16) -> bool) -> Result<Vec<Listener>, ListenersError> {
    let found = match diagnosed(is_wanted) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "reading sockets from /proc instead");
            listed(is_wanted)?
        }
    };
    Ok(found.into_iter().collect())
}

/// Returns the listeners by `NETLINK_SOCK_DIAG`.
fn diagnosed(is_wanted: &dyn Fn(u16) -> bool) -> Result<BTreeSet<Listener>, NetlinkError> {
    let mut socket = Netlink::sock_diag()?;
    restarting(|| {
        let mut found = BTreeSet::new();
        for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let request = SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::LISTEN,
                socket_id: id,
            });
            socket.dump(
                "list sockets that listen",
                |writer, seq| encode(writer, seq, &request),
                |message| {
                    if local_port(message).is_none_or(is_wanted) {
                        found.insert(decode(message)?);
                    }
                    Ok(())
                },
            )?;
        }
        Ok(found)
    })
}

fn encode(writer: &mut Writer, seq: u32, request: &SockDiagMessage) {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    let open = writer.begin_plain(Header {
        kind: request.message_type(),
        flags: NLM_F_REQUEST | NLM_F_DUMP,
        seq,
    });
    writer.raw(&body);
    writer.end(open);
}

/// Returns the port of a socket that is not decoded yet: `id.idiag_sport` of `struct inet_diag_msg`
/// (`include/uapi/linux/inet_diag.h`).
fn local_port(message: &Message<'_>) -> Option<u16> {
    let port = message.payload.get(4..)?.first_chunk()?;
    Some(u16::from_be_bytes(*port))
}

fn decode(message: &Message<'_>) -> Result<Listener, Malformed> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    match SockDiagMessage::deserialize(&header, message.payload) {
        Ok(SockDiagMessage::InetResponse(response)) => {
            let header = response.header;
            let id = header.socket_id;
            Ok(Listener {
                addr: SocketAddr::new(id.source_address, id.source_port),
                inode: header.inode.into(),
            })
        }
        _ => Err(Malformed::new("a socket of an unknown shape")),
    }
}

/// Returns the listeners from `/proc`, which lists them among all other sockets.
fn listed(is_wanted: &dyn Fn(u16) -> bool) -> Result<BTreeSet<Listener>, ListenersError> {
    let mut found = BTreeSet::new();
    for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let fail = |source| ListenersError { path, source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with('6') => continue,
            other => other.map_err(fail)?,
        };
        for line in BufReader::new(file).lines() {
            let listener = parse(&line.map_err(fail)?);
            found.extend(listener.filter(|listener| is_wanted(listener.addr.port())));
        }
    }
    Ok(found)
}

/// Returns the process that has the socket open, as `name (pid)`; `None` when it is gone or hidden.
///
/// Reads the open files of all processes: call it only for a message.
pub fn process_of(inode: u64) -> Option<String> {
    processes_of(&BTreeSet::from([inode]), Duration::MAX).remove(&inode)
}

/// Returns the processes that have these sockets open, as `name (pid)` by socket, without those that are gone, hidden,
/// or not found within `patience`. Reads the open files of all processes once.
pub fn processes_of(inodes: &BTreeSet<u64>, patience: Duration) -> BTreeMap<u64, String> {
    let begin = Instant::now();
    processes_while(inodes, || begin.elapsed() <= patience)
}

/// Returns what [`processes_of`] does; calls `goes_on` before each process and each open file, of which one process may
/// have a million.
fn processes_while(inodes: &BTreeSet<u64>, mut goes_on: impl FnMut() -> bool) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if found.len() == inodes.len() || !goes_on() {
            break;
        }
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten();
        let files = files.take_while(|_| goes_on()).flatten();
        let sockets = files.filter_map(|file| socket(&fs::read_link(file.path()).ok()?));
        let wanted: BTreeSet<u64> = sockets.filter(|inode| inodes.contains(inode)).collect();
        if wanted.is_empty() {
            continue;
        }
        let name = fs::read(process.path().join("comm")).unwrap_or_default();
        let name = tcpgw_core::escape::text(String::from_utf8_lossy(&name).trim_end_matches('\n'));
        for inode in wanted {
            found.entry(inode).or_insert_with(|| format!("{name} ({pid})"));
        }
    }
    found
}

/// Returns the number in a link such as `socket:[4242]`.
fn socket(target: &std::path::Path) -> Option<u64> {
    let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Reads a line of `/proc/net/tcp`; `None` if it is not that of a listening socket.
fn parse(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    if state != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    Some(Listener {
        addr: SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?),
        inode,
    })
}

/// Reads an address. The kernel prints its words as numbers in this machine's byte order.
fn parse_ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, place) in octets.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn own_listeners_are_found_and_named() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else {
                continue;
            };
            let addr = socket.local_addr().unwrap();
            let listener = listeners().unwrap().into_iter().find(|l| l.addr == addr).unwrap();
            let process = process_of(listener.inode).unwrap();
            assert!(process.ends_with(&format!("({})", std::process::id())), "{process}");
            assert!(listed(&|_| true).unwrap().contains(&listener));
            assert_eq!(
                listeners_on(&BTreeSet::from([addr.port()]))
                    .unwrap()
                    .iter()
                    .find(|l| l.addr == addr),
                Some(&listener)
            );
            let others = listeners_on(&BTreeSet::from([addr.port() ^ 1])).unwrap();
            assert!(others.iter().all(|l| l.addr.port() == addr.port() ^ 1), "{others:?}");
            let listed = listed(&|port| port == addr.port()).unwrap();
            assert!(listed.contains(&listener) && listed.iter().all(|l| l.addr.port() == addr.port()));
        }
        assert_eq!(process_of(0), None);
    }

    /// Compares both ways, unless the kernel lacks the module.
    #[test]
    fn both_ways_find_the_same() {
        let sockets: Vec<TcpListener> = (0..20).filter_map(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
        // A connection is no listener.
        let address = sockets[0].local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let Ok(diagnosed) = diagnosed(&|_| true) else { return };
        let listed = listed(&|_| true).unwrap();
        // Other tests open and close theirs.
        for socket in &sockets {
            let of = |all: &BTreeSet<Listener>| -> Vec<Listener> {
                let addr = socket.local_addr().unwrap();
                all.iter().filter(|listener| listener.addr == addr).copied().collect()
            };
            assert_eq!((of(&diagnosed).len(), of(&diagnosed)), (1, of(&listed)));
        }
        let inodes: BTreeSet<u64> = diagnosed.iter().map(|listener| listener.inode).collect();
        assert!(processes_of(&inodes, Duration::MAX).len() >= sockets.len());
    }

    /// Checks this for a process with many open files.
    #[test]
    fn the_search_for_processes_ends_when_its_time_is_over() {
        let sockets: Vec<TcpListener> = (0..50).filter_map(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
        assert!(!sockets.is_empty());
        let absent = BTreeSet::from([0]);
        let mut questions = 0;
        let all = processes_while(&absent, || {
            questions += 1;
            true
        });
        assert_eq!(all, BTreeMap::new());
        assert!(questions > sockets.len(), "each file is asked for: {questions}");
        for most in [0, 1, questions / 2] {
            let mut more = 0;
            processes_while(&absent, || {
                more += 1;
                more <= most
            });
            // It is asked again by those that end: the files of a process, then the processes.
            assert!(more <= most + 2, "{more} of {most}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_are_read() {
        let line = "  1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4242 1 0 100 0";
        let listener = Listener {
            addr: "127.0.0.1:8080".parse().unwrap(),
            inode: 4242,
        };
        assert_eq!(parse(line), Some(listener));
        assert_eq!(parse(&line.replace(" 0A ", " 01 ")), None);
        let six = line.replace("0100007F", "B80D0120000000000000000001000000");
        assert_eq!(parse(&six).unwrap().addr, "[2001:db8::1]:8080".parse().unwrap());
    }

    proptest! {
        #[test]
        fn reading_is_total(line: String, digits in "\\PC{0,40}") {
            let _ = (parse(&line), parse_ip(&digits));
        }
    }
}
