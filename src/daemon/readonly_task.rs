//! The read-only socket for monitoring, and the task that serves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::api_socket::{NoGroup, group_named};
use super::served_task::{ServedTask, Serving};
use crate::api::settings::{ApiSettings, SocketScope};
use crate::api::{Socket, SocketSettings, serve};
use crate::config::daemon::DaemonSettings;
use crate::control::request::DaemonRequest;
use crate::traffic::totals::TotalsSource;

/// Interval between checks that the socket is there, and between attempts to serve it.
const AGAIN: Duration = Duration::from_secs(2);

/// Reason why the settings of the read-only socket cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadonlySocketError {
    /// Both sockets have one path.
    #[error(
        "daemon.socket_readonly and daemon.socket are both {}: the read-only socket needs a path of its own",
        tcpgw_core::escape::path(.0)
    )]
    SamePath(PathBuf),
    /// The group that may use the socket does not exist.
    #[error("the group {0:?} (socket_readonly_group) does not exist: create it, or name another one")]
    Group(String),
}

/// Returns path, mode and group of the read-only socket; `None`: it is off.
///
/// # Errors
/// Fails with [`ReadonlySocketError`] when both sockets have the same path, or the group does not exist.
pub(super) fn readonly_settings(settings: &DaemonSettings) -> Result<Option<SocketSettings>, ReadonlySocketError> {
    let Some(path) = &settings.socket_readonly else {
        return Ok(None);
    };
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if absolute(path) == absolute(&settings.socket) {
        return Err(ReadonlySocketError::SamePath(path.clone()));
    }
    let group = group_named(settings.socket_readonly_group.as_deref());
    Ok(Some(SocketSettings {
        path: path.clone(),
        mode: settings.socket_readonly_mode,
        group: group.map_err(|NoGroup(name)| ReadonlySocketError::Group(name))?,
    }))
}

/// Handle of the task, which exists if the socket is configured and can be served.
pub(super) struct ReadonlyTask {
    requests: mpsc::Sender<DaemonRequest>,
    totals: TotalsSource,
    pub(super) task: ServedTask<RunningSocket>,
}

/// Task that serves the socket.
pub(super) struct RunningSocket {
    socket: Socket,
    settings: SocketSettings,
    /// Channel for a new listener, after the file was removed.
    renewed: mpsc::Sender<UnixListener>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ReadonlyTask {
    /// Creates a handle without a task. `requests` leads to the daemon's main loop; `totals` answers with those of services.
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>, totals: TotalsSource) -> Self {
        Self {
            requests,
            totals,
            task: ServedTask::new(AGAIN),
        }
    }

    /// Serves the socket as these settings say. If that fails, all is served as before.
    ///
    /// # Errors
    /// Fails with a message when it cannot be served as configured.
    pub(super) fn configure(&mut self, settings: &DaemonSettings) -> Result<(), String> {
        let wanted = readonly_settings(settings).map_err(|error| error.to_string());
        let configured = wanted.and_then(|wanted| self.try_configure(wanted));
        self.task.configured(configured)
    }

    fn try_configure(&mut self, wanted: Option<SocketSettings>) -> Result<(), String> {
        let Some(settings) = wanted else {
            self.task.end();
            return Ok(());
        };
        self.task.running.take_if(|running| running.task.is_finished());
        let running = self.task.running.as_mut();
        if let Some(running) = running.filter(|running| running.settings.path == settings.path) {
            return running.keep(settings);
        }
        let mut socket = Socket::bind(&settings).map_err(|error| error.to_string())?;
        let listener = socket.take_listener().and_then(UnixListener::from_std);
        let listener = listener.map_err(|error| format!("failed to listen on the socket: {error}"))?;
        self.task.end();
        let (renewed, renewals) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let api = ApiSettings {
            totals: Some(Arc::clone(&self.totals)),
            scope: SocketScope::ReadOnly,
            ..ApiSettings::default()
        };
        let stop_signal = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, renewals, self.requests.clone(), api, stop_signal));
        tracing::info!(
            socket = %tcpgw_core::escape::path(&settings.path),
            "listening on the read-only socket"
        );
        self.task.running = Some(RunningSocket {
            socket,
            settings,
            renewed,
            stop,
            task,
        });
        Ok(())
    }
}

impl Serving for RunningSocket {
    fn is_lost(&self) -> bool {
        self.task.is_finished() || !self.socket.is_there()
    }

    fn into_parts(self) -> (oneshot::Sender<()>, JoinHandle<()>) {
        (self.stop, self.task)
    }
}

impl RunningSocket {
    /// Gives the socket its mode and group, and restores its file if another process has removed it.
    fn keep(&mut self, settings: SocketSettings) -> Result<(), String> {
        if !self.socket.is_there() {
            let renewed = self.socket.renew_lock().and_then(|_| self.socket.renew(&settings));
            let listener = renewed.map_err(|error| error.to_string())?;
            let listener = UnixListener::from_std(listener);
            let listener = listener.map_err(|error| format!("failed to listen on the socket: {error}"))?;
            tracing::warn!("the read-only socket had been removed: it was created again");
            // The task that serves it takes it at once.
            let _ = self.renewed.try_send(listener);
        } else if self.settings != settings {
            self.socket.set_access(&settings).map_err(|error| error.to_string())?;
        }
        self.settings = settings;
        Ok(())
    }
}
