//! The task that serves the add-on's provider API: its start, its settings, and its end with the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::Backlog;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::addon::settings::AddonSettings;
use crate::api;
use crate::api::provider::{BACKLOG, Provider, serve};
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
        let is_same = |running: &&Running| running.listen == settings.listen && !running.task.is_finished();
        if let Some(running) = self.running.as_ref().filter(is_same) {
            running.settings.send_replace(provider);
            return Ok(());
        }
        let listen = settings.listen;
        let unusable = |error: std::io::Error| format!("failed to listen on {listen} (addon.listen): {error}");
        let listener = std::net::TcpListener::bind(listen).map_err(unusable)?;
        // The standard library listens with a shorter backlog.
        let backlog = Backlog::new(BACKLOG).map_err(|error| unusable(error.into()))?;
        nix::sys::socket::listen(&listener, backlog).map_err(|error| unusable(error.into()))?;
        listener.set_nonblocking(true).map_err(unusable)?;
        let listener = TcpListener::from_std(listener).map_err(unusable)?;
        self.end();
        let (settings, current) = watch::channel(provider);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(
            listener,
            current,
            self.requests.clone(),
            api::ApiSettings::default(),
            async {
                let _ = stopped.await;
            },
        ));
        tracing::info!(%listen, "serves the provider API");
        self.running = Some(Running {
            listen,
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
