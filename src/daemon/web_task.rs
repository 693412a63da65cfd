//! The task that serves metrics and the operator's pages.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::listener_task::ListenerTask;
use crate::api::settings::ApiSettings;
use crate::api::web::{Web, serve};
use crate::config::Config;
use crate::control::request::DaemonRequest;
use crate::doctor::{self, RunningDaemon};
use crate::metrics::{OwnFile, OwnMetrics};
use crate::secrets::Owners;
use crate::traffic::shared_hour::SharedHour;
use crate::traffic::totals::TotalsSource;

/// Handle of the task, which exists if the listener is on and can be served.
pub(super) struct WebTask {
    requests: mpsc::Sender<DaemonRequest>,
    file: OwnFile,
    totals: TotalsSource,
    hour: SharedHour,
    pub(super) listener: ListenerTask<Web>,
}

impl WebTask {
    /// Creates a handle without a task. `requests` leads to the daemon's main loop, `file` keeps its own counters, `totals` answers
    /// with those of services; `hour` has their traffic, which is kept while the listener is on.
    pub(super) fn new(
        requests: mpsc::Sender<DaemonRequest>,
        file: OwnFile,
        totals: TotalsSource,
        hour: SharedHour,
    ) -> Self {
        Self {
            requests,
            file,
            totals,
            hour,
            listener: ListenerTask::new("metrics", "web.listen"),
        }
    }

    /// Configures the listener, with its files read again. If that fails, or `config` is an error, it is served as before. The doctor
    /// examines the machine by this configuration and the records in `run_dir`.
    ///
    /// # Errors
    /// Fails with a message when it cannot be served as configured.
    pub(super) fn configure(&mut self, config: Result<&Config, String>, run_dir: &Path) -> Result<(), String> {
        let load = |config: &Config| {
            let Some(settings) = &config.web else { return Ok(None) };
            let web = Web::load(settings, &Owners::of_daemon()).map_err(|error| error.to_string())?;
            let (run_dir, config) = (run_dir.to_owned(), config.clone());
            let doctor = move |daemon: &RunningDaemon<'_>| doctor::examine_beside(&run_dir, &config, daemon);
            Ok(Some((settings.listen, web.diagnosed_by(Arc::new(doctor)))))
        };
        if let Ok(config) = &config {
            self.hour.keep(config.web.is_some());
        }
        let wanted = config.and_then(load);
        let (requests, file) = (self.requests.clone(), self.file.clone());
        let settings = ApiSettings {
            totals: Some(Arc::clone(&self.totals)),
            hour: Some(self.hour.clone()),
            ..ApiSettings::default()
        };
        self.listener.configure(wanted, |(listener, current, stopped)| {
            let stop = async {
                let _ = stopped.await;
            };
            tokio::spawn(serve(listener, current, requests, settings, file, stop))
        })
    }

    /// Returns the counters of the daemon before this one, or new ones.
    pub(super) fn kept(&self) -> OwnMetrics {
        self.file.load().unwrap_or_default()
    }

    /// Keeps the daemon's own counters for the next daemon.
    pub(super) fn keep(&self, counters: &OwnMetrics) {
        if let (_, Err(error)) = self.file.keep(counters) {
            tracing::debug!(%error, "failed to keep the daemon's own counters for the next daemon");
        }
    }
}
