//! Name resolution for processes where the machine's resolver listens on a loopback address, which they cannot reach.
//!
//! Owns the file that takes the place of `/etc/resolv.conf` in the processes' mounts, and where nothing else will do a relay: what
//! processes ask of port 53 of the gateway's address is passed on to the resolver on loopback, and its answers back.
//!
//! Sources: `resolv.conf(5)`; RFC 1035, 4.2 (transport).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;

use super::network::gateway_of;

const CONFIGURATION: &str = "/etc/resolv.conf";
/// File with the upstream resolvers of systemd-resolved.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const PORT: u16 = 53;
/// Largest message by UDP, in bytes (EDNS).
const LARGEST: usize = 65_535;
/// Questions by UDP that are being answered at once; more wait in the socket.
const WORKERS: usize = 8;
/// Connections at once.
const CONNECTIONS: usize = 32;
/// Maximum time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Name resolution of the processes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NameResolution {
    /// Processes use the resolvers of the machine.
    Same,
    /// Processes use the resolvers in this file.
    File(PathBuf),
    /// Processes use a relay to this resolver.
    Relay(IpAddr),
}

/// Sets names up for the processes of a network, and returns the file that takes the place of `/etc/resolv.conf`, if any does.
/// `directory` is for files of this program.
///
/// # Errors
/// Fails when the file cannot be written or the relay cannot be started; the processes cannot resolve names then.
pub fn set_up(network: Ipv4Net, directory: &Path) -> io::Result<Option<PathBuf>> {
    let text = fs::read_to_string(CONFIGURATION).unwrap_or_default();
    let upstream = fs::read_to_string(UPSTREAM).ok();
    match way(&text, upstream.as_deref()) {
        NameResolution::Same => Ok(None),
        NameResolution::File(file) => Ok(Some(file)),
        NameResolution::Relay(resolver) => {
            let gateway = gateway_of(network);
            match relay(network, SocketAddr::new(resolver, PORT)) {
                // A resolver that listens on every address listens there, too.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => other?,
            }
            let file = directory.join("resolv.conf");
            fs::write(&file, rewritten(&text, gateway))?;
            Ok(Some(file))
        }
    }
}

fn way(text: &str, upstream: Option<&str>) -> NameResolution {
    let addresses: Vec<IpAddr> = servers(text).collect();
    match addresses.first() {
        Some(first) if addresses.iter().all(IpAddr::is_loopback) => match upstream {
            Some(upstream) if servers(upstream).any(|server| !server.is_loopback()) => {
                NameResolution::File(UPSTREAM.into())
            }
            _ => NameResolution::Relay(*first),
        },
        _ => NameResolution::Same,
    }
}

fn server_of(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let server = (words.next()? == "nameserver").then(|| words.next())??;
    server.split('%').next()?.parse().ok()
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(server_of)
}

/// Returns the text of a `resolv.conf` with the gateway as its only resolver.
fn rewritten(text: &str, gateway: Ipv4Addr) -> String {
    let mut lines = vec![format!("nameserver {gateway}")];
    lines.extend(text.lines().filter(|line| server_of(line).is_none()).map(str::to_owned));
    lines.join("\n") + "\n"
}

/// Starts the relay, which serves until the process ends.
fn relay(network: Ipv4Net, resolver: SocketAddr) -> io::Result<()> {
    let at = SocketAddr::new(gateway_of(network).into(), PORT);
    let questions = Arc::new(UdpSocket::bind(at)?);
    let listener = TcpListener::bind(at)?;
    let spawn = |work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name("names".into()).spawn(work).map(drop);
    for _ in 0..WORKERS {
        let questions = Arc::clone(&questions);
        spawn(Box::new(move || answer_all(&questions, network, resolver)))?;
    }
    spawn(Box::new(move || accept_all(&listener, network, resolver)))
}

fn is_within(network: Ipv4Net, from: SocketAddr) -> bool {
    matches!(from.ip(), IpAddr::V4(address) if network.contains(&address))
}

fn answer_all(questions: &UdpSocket, network: Ipv4Net, resolver: SocketAddr) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match questions.recv_from(&mut buffer) {
            Ok((length, from)) if is_within(network, from) => {
                // A client without an answer asks again.
                if let Ok(length) = ask(resolver, &mut buffer, length) {
                    let _ = questions.send_to(buffer.get(..length).unwrap_or_default(), from);
                }
            }
            Ok(_) => {}
            // For example, an earlier answer could not be delivered (ICMP error).
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Sends the question in the buffer to the resolver, and puts the answer into the buffer.
fn ask(resolver: SocketAddr, buffer: &mut [u8], length: usize) -> io::Result<usize> {
    let any: IpAddr = if resolver.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        std::net::Ipv6Addr::LOCALHOST.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(buffer.get(..length).unwrap_or_default())?;
    socket.recv(buffer)
}

fn accept_all(listener: &TcpListener, network: Ipv4Net, resolver: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        let is_its = client.peer_addr().is_ok_and(|from| is_within(network, from));
        if !is_its || open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            if is_its {
                open.fetch_sub(1, Ordering::SeqCst);
            }
            continue;
        }
        let done = Arc::clone(&open);
        let talk = move || {
            let _ = pass_on(&client, resolver);
            done.fetch_sub(1, Ordering::SeqCst);
        };
        if std::thread::Builder::new().name("names".into()).spawn(talk).is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn pass_on(client: &TcpStream, resolver: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&resolver, PATIENCE)?;
    for stream in [client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut { client }, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &server, &mut { client });
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_gone_around() {
        let relay = |address: &str| NameResolution::Relay(address.parse().unwrap());
        let real = Some("nameserver 192.0.2.1\n");
        for (text, upstream, expected) in [
            (
                "nameserver 127.0.0.53\noptions edns0",
                real,
                NameResolution::File(UPSTREAM.into()),
            ),
            ("nameserver 127.0.0.53\n", Some("nameserver ::1\n"), relay("127.0.0.53")),
            ("nameserver 127.0.0.11\n", None, relay("127.0.0.11")),
            ("nameserver ::1\n", None, relay("::1")),
            ("# none", real, NameResolution::Same),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.1", real, NameResolution::Same),
            ("search example.com\nnameserver 2001:db8::1", None, NameResolution::Same),
            ("nameserver fe80::1%eth0", None, NameResolution::Same),
        ] {
            assert_eq!(way(text, upstream), expected, "{text}");
        }
        let text = "search a.example\nnameserver 127.0.0.1\noptions ndots:2";
        let expected = "nameserver 10.213.7.1\nsearch a.example\noptions ndots:2\n";
        assert_eq!(rewritten(text, Ipv4Addr::new(10, 213, 7, 1)), expected);
    }
}
