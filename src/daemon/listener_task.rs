//! A task that serves a listener over TCP: its start, its settings, and its end with the daemon.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::listener::BACKLOG;

/// Interval between attempts to serve.
const AGAIN: Duration = Duration::from_secs(10);

/// Handle of the task, which exists if the listener is configured and can be served. `S`: its settings, with the contents of its
/// files.
pub(super) struct ListenerTask<S> {
    /// Name in the log, with an article.
    name: &'static str,
    /// Key of the configuration that has the address.
    key: &'static str,
    running: Option<Running<S>>,
    /// Whether it is served as configured.
    is_configured: bool,
    /// Time of the next check.
    again: Instant,
}

struct Running<S> {
    listen: SocketAddr,
    /// The listener, which the task serves. It is closed when the task and this have ended.
    socket: OwnedFd,
    settings: watch::Sender<Arc<S>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Inputs of a task that serves: the listener, its settings, and the signal to end.
pub(super) type Served<S> = (TcpListener, watch::Receiver<Arc<S>>, oneshot::Receiver<()>);

impl<S> ListenerTask<S> {
    /// Creates a handle without a task.
    pub(super) fn new(name: &'static str, key: &'static str) -> Self {
        Self {
            name,
            key,
            running: None,
            is_configured: false,
            again: Instant::now(),
        }
    }

    /// Serves `wanted`, an address and settings; `None`: nothing. If that fails, or `wanted` is an error, all is served as before.
    /// `serve` starts a task.
    ///
    /// # Errors
    /// Fails with a message when the listener cannot be served as configured.
    pub(super) fn configure(
        &mut self,
        wanted: Result<Option<(SocketAddr, S)>, String>,
        serve: impl FnOnce(Served<S>) -> JoinHandle<()>,
    ) -> Result<(), String> {
        let configured = wanted.and_then(|wanted| self.try_configure(wanted, serve));
        self.is_configured = configured.is_ok();
        configured
    }

    fn try_configure(
        &mut self,
        wanted: Option<(SocketAddr, S)>,
        serve: impl FnOnce(Served<S>) -> JoinHandle<()>,
    ) -> Result<(), String> {
        let Some((listen, settings)) = wanted else {
            self.end();
            return Ok(());
        };
        let settings = Arc::new(settings);
        // One that has ended by itself must not keep its port.
        self.running.take_if(|running| running.task.is_finished());
        if let Some(running) = self.running.as_ref().filter(|running| running.listen == listen) {
            running.settings.send_replace(settings);
            return Ok(());
        }
        let old = self
            .running
            .as_ref()
            .filter(|running| running.listen.port() == listen.port());
        let listener = listener(listen, old.map(|old| old.socket.as_fd()));
        let failed =
            |error: &io::Error| format!("failed to listen on {listen} ({}): {error}{}", self.key, cause(error));
        let listener = listener.map_err(|error| failed(&error))?;
        let socket = listener.as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
        self.end();
        let (settings, current) = watch::channel(settings);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = serve((listener, current, stopped));
        tracing::info!(%listen, "listening: {}", self.name);
        self.running = Some(Running {
            listen,
            socket,
            settings,
            stop,
            task,
        });
        Ok(())
    }

    /// Returns whether to configure the listener again, because it is not served as configured, is to be refused (`is_refused`), or its
    /// task has ended.
    pub(super) fn is_due(&mut self, now: Instant, is_refused: impl FnOnce() -> bool) -> bool {
        if now < self.again {
            return false;
        }
        self.again = now + AGAIN;
        !self.is_configured || self.running.as_ref().is_some_and(|running| running.task.is_finished()) || is_refused()
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
