//! A task that serves a listener over TCP: its start and its settings.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::served_task::{ServedTask, Serving};
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
    pub(super) task: ServedTask<RunningListener<S>>,
}

/// Task that serves the listener.
pub(super) struct RunningListener<S> {
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
            task: ServedTask::new(AGAIN),
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
        self.task.configured(configured)
    }

    fn try_configure(
        &mut self,
        wanted: Option<(SocketAddr, S)>,
        serve: impl FnOnce(Served<S>) -> JoinHandle<()>,
    ) -> Result<(), String> {
        let Some((listen, settings)) = wanted else {
            self.task.end();
            return Ok(());
        };
        let settings = Arc::new(settings);
        // One that has ended by itself must not keep its port.
        self.task.running.take_if(|running| running.is_lost());
        let running = self.task.running.as_ref();
        if let Some(running) = running.filter(|running| running.listen == listen) {
            running.settings.send_replace(settings);
            return Ok(());
        }
        let old = running.filter(|running| running.listen.port() == listen.port());
        let listener = listener(listen, old.map(|old| old.socket.as_fd()));
        let failed =
            |error: &io::Error| format!("failed to listen on {listen} ({}): {error}{}", self.key, cause(error));
        let listener = listener.map_err(|error| failed(&error))?;
        let socket = listener.as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
        self.task.end();
        let (settings, current) = watch::channel(settings);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = serve((listener, current, stopped));
        tracing::info!(%listen, "listening: {}", self.name);
        self.task.running = Some(RunningListener {
            listen,
            socket,
            settings,
            stop,
            task,
        });
        Ok(())
    }
}

impl<S> Serving for RunningListener<S> {
    fn is_lost(&self) -> bool {
        self.task.is_finished()
    }

    fn into_parts(self) -> (oneshot::Sender<()>, JoinHandle<()>) {
        (self.stop, self.task)
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
