//! The task that serves the add-on's provider API: begun, told of new settings, and ended with the daemon's loop.

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

/// Between two tries to serve it.
const AGAIN: Duration = Duration::from_secs(10);

/// The task, if the add-on is on and can be served.
pub(super) struct ProviderTask {
    requests: mpsc::Sender<DaemonRequest>,
    running: Option<Running>,
    /// Whether it is as configured.
    is_configured: bool,
    /// When to look at it again.
    again: Instant,
}

struct Running {
    listen: SocketAddr,
    settings: watch::Sender<Arc<Provider>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ProviderTask {
    /// Returns one that does not run yet. `requests` leads to the daemon's loop.
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>) -> Self {
        Self {
            requests,
            running: None,
            is_configured: false,
            again: Instant::now(),
        }
    }

    /// Makes it as the settings say, reading their files anew. What is served stays if that fails.
    ///
    /// # Errors
    /// Why it is not as they say, in words.
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
        // Once more, for a longer backlog than the standard library asks for.
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

    /// Whether it is to be configured again: it is not as configured, or has ended by itself.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.again {
            return false;
        }
        self.again = now + AGAIN;
        !self.is_configured || self.running.as_ref().is_some_and(|running| running.task.is_finished())
    }

    /// When it is to be looked at again.
    pub(super) fn wakes_at(&self) -> Instant {
        self.again
    }

    /// Requests that are being served get their answers.
    pub(super) fn end(&mut self) -> Option<JoinHandle<()>> {
        let running = self.running.take()?;
        let _ = running.stop.send(());
        Some(running.task)
    }
}
