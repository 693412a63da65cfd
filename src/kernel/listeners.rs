//! Which local TCP sockets listen, and whose they are.
//!
//! Read from `/proc`: it needs no module (`tcp_diag` is one that may be missing), and follows the network namespace of
//! the calling thread. Source: `net/ipv4/tcp_ipv4.c` (`tcp4_seq_show`), `net/ipv6/tcp_ipv6.c`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A local socket that takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where; `[::]` may stand for IPv4 too, which `/proc` does not tell.
    pub addr: SocketAddr,
    /// What names it in `/proc/PID/fd`.
    pub inode: u64,
}

/// Why the listeners are not known.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}: {source}")]
pub struct ListenersError {
    path: &'static str,
    source: io::Error,
}

/// All listening TCP sockets of this thread's network namespace, IPv4 and IPv6, in order.
///
/// # Errors
/// When `/proc` cannot be read. A kernel without IPv6 is none.
pub fn listeners() -> Result<Vec<Listener>, ListenersError> {
    let mut found = BTreeSet::new();
    for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let fail = |source| ListenersError { path, source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with('6') => continue,
            other => other.map_err(fail)?,
        };
        for line in BufReader::new(file).lines() {
            found.extend(parse(&line.map_err(fail)?));
        }
    }
    Ok(found.into_iter().collect())
}

/// The process that has the socket open, as `name (pid)`; `None` when it is gone or hidden from us.
///
/// Looks through the open files of all processes: ask only when there is something to say.
pub fn process_of(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has = |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*wanted);
        if files.flatten().any(has) {
            let name = fs::read(process.path().join("comm")).unwrap_or_default();
            let name = crate::escape::text(String::from_utf8_lossy(&name).trim_end_matches('\n'));
            return Some(format!("{name} ({pid})"));
        }
    }
    None
}

/// One line, if it is of a listening socket.
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

/// The kernel prints the words of an address as numbers in this machine's byte order.
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
        }
        assert_eq!(process_of(0), None);
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
