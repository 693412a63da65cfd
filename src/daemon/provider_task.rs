//! The task that serves the add-on's provider API: its start, its settings, and its end with the daemon.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::addon::settings::AddonSettings;
use crate::api::provider::{BACKLOG, Provider, serve};
use crate::api::settings;
use crate::control::request::DaemonRequest;
use crate::secrets::Owners;

/// Interval between attempts to serve the API.
const AGAIN: Duration = Duration::from_secs(10);

/// Handle of the task, which exists if the add-on is on and its API can be served.
pub(super) struct ProviderTask {
    requests: mpsc::Sender<DaemonRequest>,
    running: Option<Running>,
    /// Whether the API is served as configured.
    is_configured: bool,
    /// Time of the next check.
    again: Instant,
}

struct Running {
    listen: SocketAddr,
    /// The listener, which the task serves. It is closed when the task and this have ended.
    socket: OwnedFd,
    settings: watch::Sender<Arc<Provider>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ProviderTask {
    /// Creates a handle without a task. `requests` leads to the daemon's main loop.
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>) -> Self {
        Self {
            requests,
            running: None,
            is_configured: false,
            again: Instant::now(),
        }
    }

    /// Configures the API, with its files read again. If that fails, the API is served as before.
    ///
    /// # Errors
    /// Fails with a message when the API cannot be served as configured.
    pub(super) fn configure(&mut self, settings: Option<&AddonSettings>) -> Result<(), String> {
        let configured = self.try_configure(settings);
        self.is_configured = configured.is_ok();
        configured
    }

    fn try_configure(&mut self, settings: Option<&AddonSettings>) -> Result<(), String> {
        let Some(settings) = settings else {
            self.end();
            return Ok(());
        };
        let provider = Arc::new(Provider::load(settings, &Owners::of_daemon()).map_err(|error| error.to_string())?);
        // One that has ended by itself must not keep its port.
        self.running.take_if(|running| running.task.is_finished());
        let listen = settings.listen;
        if let Some(running) = self.running.as_ref().filter(|running| running.listen == listen) {
            running.settings.send_replace(provider);
            return Ok(());
        }
        let old = self
            .running
            .as_ref()
            .filter(|running| running.listen.port() == listen.port());
        let listener = listener(listen, old.map(|old| old.socket.as_fd()));
        let listener = listener
            .map_err(|error| format!("failed to listen on {listen} (addon.listen): {error}{}", cause(&error)))?;
        let socket = listener.as_fd().try_clone_to_owned();
        let socket = socket.map_err(|error| format!("failed to listen on {listen} (addon.listen): {error}"))?;
        self.end();
        let (settings, current) = watch::channel(provider);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(
            listener,
            current,
            self.requests.clone(),
            settings::ApiSettings::default(),
            async {
                let _ = stopped.await;
            },
        ));
        tracing::info!(%listen, "serves the provider API");
        self.running = Some(Running {
            listen,
            socket,
            settings,
            stop,
            task,
        });
        Ok(())
    }

    /// Returns whether to configure the API again, because it is not served as configured or its task has ended.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.again {
            return false;
        }
        self.again = now + AGAIN;
        !self.is_configured || self.running.as_ref().is_some_and(|running| running.task.is_finished())
    }

    /// Returns the time of the next check.
    pub(super) fn wakes_at(&self) -> Instant {
        self.again
    }

    /// Ends the task. Requests under way are still answered.
    pub(super) fn end(&mut self) -> Option<JoinHandle<()>> {
        let running = self.running.take()?;
        let _ = running.stop.send(());
        Some(running.task)
    }
}

/// Returns the advice for an error.
fn cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; `ss -ltnp` shows which program listens there",
        _ => "",
    }
}

/// Returns a listener there. `old` is one of this daemon on another address of the same port, which stays until this one listens, and
/// where this one cannot: as long as it takes to listen, both may have the port.
fn listener(listen: SocketAddr, old: Option<BorrowedFd<'_>>) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Connections of an earlier daemon that are ending do not keep the port.
    socket.set_reuseaddr(true)?;
    let share = |fd: BorrowedFd<'_>, is_shared: bool| setsockopt(&fd, sockopt::ReusePort, &is_shared);
    let Some(old) = old else {
        socket.bind(listen)?;
        return socket.listen(BACKLOG);
    };
    // The kernel compares both when one is bound, and again when it begins to listen.
    share(socket.as_fd(), true)?;
    share(old, true)?;
    let listener = socket.bind(listen).and_then(|()| socket.listen(BACKLOG));
    share(old, false)?;
    let listener = listener?;
    share(listener.as_fd(), false)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::addon::settings::Section;
    use tcpgw_core::model::Fences;

    fn settings(directory: &Path, listen: SocketAddr) -> AddonSettings {
        let file = directory.join("credentials.toml");
        std::fs::write(
            &file,
            "username = 'u'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'",
        )
        .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let section = format!(
            "listen = '{listen}'\nhost = 'gw.example.com'\nports = '20000-20009'\ncredentials = '{}'\nbehind_proxy = true\n\
             plans = [{{name = 'small', id = '5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11', pps = 512}}]",
            tcpgw_core::escape::path(&file)
        );
        let section: Section = toml::from_str(&section).unwrap();
        section.check(&Fences::default()).unwrap()
    }

    /// Returns whether a server answers at this address.
    async fn is_served(at: SocketAddr) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(at).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = timeout(Duration::from_secs(30), exchange).await.expect("it ends");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 404 "))
    }

    async fn is_served_soon(at: SocketAddr, expected: bool) {
        let turns = async {
            while is_served(at).await != expected {
                tokio::task::yield_now().await;
            }
        };
        let turned = timeout(Duration::from_secs(30), turns).await;
        turned.unwrap_or_else(|_| panic!("{at} is not served: {expected}"));
    }

    fn task() -> ProviderTask {
        ProviderTask::new(mpsc::channel(1).0)
    }

    /// Tests the change from loopback to all addresses, and back, on one port.
    #[tokio::test]
    async fn the_address_is_changed_while_the_port_stays() {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |address: [u8; 4]| SocketAddr::from((address, port));
        let (loopback, other) = (at([127, 0, 0, 1]), at([127, 0, 0, 2]));
        let mut task = task();
        for (listen, is_everywhere) in [
            (loopback, false),
            (at([0; 4]), true),
            (loopback, false),
            (SocketAddr::from(([0_u16; 8], port)), true),
            (at([0; 4]), true),
            (other, false),
        ] {
            task.configure(Some(&settings(directory.path(), listen))).unwrap();
            // Until the old one is closed, which its task does, connections may still come to it.
            let here = if listen == other { other } else { loopback };
            is_served_soon(here, true).await;
            if !is_everywhere {
                let elsewhere = if listen == other { loopback } else { other };
                is_served_soon(elsewhere, false).await;
            }
            // Another daemon does not get the port.
            let another = TcpSocket::new_v4().unwrap();
            another.set_reuseaddr(true).unwrap();
            let refused = another.bind(if listen.is_ipv4() { listen } else { loopback });
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{listen}");
        }
        task.end();
    }

    /// Another process has the port on another address: the old listener goes on, and shares its port with no other process.
    #[tokio::test]
    async fn the_old_address_is_served_while_the_new_one_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = theirs.local_addr().unwrap().port();
        let (loopback, all) = (
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0; 4], port)),
        );
        let mut task = task();
        task.configure(Some(&settings(directory.path(), loopback))).unwrap();
        for _ in 0..2 {
            let refused = task.configure(Some(&settings(directory.path(), all))).unwrap_err();
            assert!(refused.contains("in use") && refused.contains("ss -ltnp"), "{refused}");
            assert!(is_served(loopback).await);
            let another = TcpSocket::new_v4().unwrap();
            another.set_reuseport(true).unwrap();
            assert!(another.bind(loopback).is_err());
        }
        drop(theirs);
        task.configure(Some(&settings(directory.path(), all))).unwrap();
        is_served_soon(SocketAddr::from(([127, 0, 0, 2], port)), true).await;
        task.end();
    }
}
