//! Files that the daemon follows: the state file, the configuration, and its own.

use tokio::net::UnixListener;

use super::begin::{keep_copy, note_presence, start_hooks, warn_of};
use super::{DaemonLoop, IsKnown};
use crate::config::daemon::DaemonSettings;
use crate::config::{Config, ConfigError};
use crate::control::core::Now;
use crate::daemon::api_socket::socket_settings;
use crate::daemon::docker_thread::DockerThread;
use crate::daemon::error::{DaemonError, io};
use crate::daemon::gateway_check_thread::Requester;
use crate::daemon::presence::Presence;
use crate::daemon::start::{StartError, StartFiles};
use crate::daemon::traffic_request::TrafficSettings;
use crate::daemon::watched_file::FollowedFile;
use crate::hooks::settings::HookSettings;
use crate::provider::News;
use crate::record::RecordFile;
use crate::run_file;
use tcpgw_core::model::State;
use tcpgw_core::problem::ProblemKind;

impl DaemonLoop {
    /// Puts hooks into effect. Their thread begins with the first of them.
    fn configure_hooks(&mut self, hooks: &[HookSettings]) {
        if let Some(thread) = &self.hooks {
            return thread.configure(hooks);
        }
        match start_hooks(&mut self.core, hooks) {
            Ok(thread) => self.hooks = thread,
            Err(error) => {
                tracing::error!(%error, "failed to start the thread that delivers events to hooks: hooks get no events until the next reload");
            }
        }
    }

    /// Follows the engine that the configuration names, if it names one.
    fn configure_docker(&mut self, config: &Config) {
        let goes_on = self.docker.as_ref().is_some_and(|thread| thread.configure(config));
        if goes_on {
            return;
        }
        // A thread without an engine ends here.
        self.docker = DockerThread::start(config).unwrap_or_else(|error| {
            tracing::error!(%error, "failed to start the thread that follows Docker's engine: containers are not followed until the next reload");
            None
        });
    }

    /// Restores files of the run directory that another process has removed: without them the daemon could not be
    /// reached, another writer would find no lock, and it would be unknown that a killed daemon ran.
    pub(super) fn check_files(&mut self, now: Now) {
        let locked = self.lock.renew().map_err(DaemonError::from);
        let locked = locked.and_then(|is_new| Ok(self.socket.renew_lock()? || is_new));
        match locked {
            Err(error) => return self.core.socket_gone(Some(error.to_string())),
            Ok(is_new) if is_new || !Presence::is_there(&self.run_dir, self.namespace) => {
                tracing::warn!("files of the run directory had been removed: they were created again");
                note_presence(&self.presence, &self.run_dir, self.namespace);
                if let Some(by) = self.core.torn_down_by()
                    && let Err(error) = RecordFile::new(&self.run_dir, self.namespace).save_torn_down(by)
                {
                    tracing::warn!(%error, "failed to write the note of the teardown: the next daemon serves again");
                }
                self.core.record_lost(now);
            }
            Ok(_) => {}
        }
        let trouble = run_file::unwritable(&self.run_dir);
        let trouble = trouble.map(|error| format!("{}: {error}", tcpgw_core::escape::path(&self.run_dir)));
        self.core.run_dir(trouble, now);
        self.check_socket();
    }

    /// Checks changed files of the configuration, since an error in them would stop a later start.
    pub(super) fn check_configuration(&mut self) {
        let (settings, config) = (self.core.settings(), self.core.config());
        let Some(judged) = self.start_files.judge_changed(&self.given, settings, config) else {
            return;
        };
        if let Err(StartError::Config(error @ ConfigError::Gone(_))) = &judged {
            return self.core.configuration_gone(&error.line());
        }
        let is_told = self.core.problems().get(ProblemKind::ProviderApi).is_some();
        let is_web_told = self.core.problems().get(ProblemKind::Web).is_some();
        let is_socket_told = self.core.problems().get(ProblemKind::SocketReadonly).is_some();
        let are_hooks_told = self.core.problems().get(ProblemKind::Hooks).is_some();
        let trouble = judged.err().filter(|error| match error {
            StartError::Provider(_) => !is_told,
            StartError::Web(_) => !is_web_told,
            StartError::ReadonlySocket(_) => !is_socket_told,
            StartError::Hook(_) => !are_hooks_told,
            StartError::Config(_) | StartError::Daemon(_) => true,
        });
        let uses_copy = matches!(trouble, Some(StartError::Config(_))) && self.given.has_copy();
        self.core
            .next_start(trouble.map(|error| error.to_string()).as_deref(), uses_copy);
    }

    /// Restores the file of the socket if another process has removed it.
    fn check_socket(&mut self) {
        if self.socket.is_there() {
            return self.core.socket_gone(None);
        }
        let settings = socket_settings(self.core.settings());
        let renewed = settings.and_then(|settings| Ok(self.socket.renew(&settings)?));
        let renewed = renewed.and_then(|listener| UnixListener::from_std(listener).map_err(io("listen on the socket")));
        match renewed {
            Ok(listener) => {
                tracing::warn!("the socket had been removed: it was created again");
                // The task that serves the API takes it at once.
                let _ = self.renewed.try_send(listener);
            }
            Err(error) => self.core.socket_gone(Some(error.to_string())),
        }
    }

    pub(super) fn file_news(&mut self, news: News) {
        let now = Now::read();
        let examiner = &mut self.examiner;
        let vet = &mut |state: &State, known: &IsKnown<'_>| examiner.vet(Requester::File, state, known, now.instant);
        if self.core.file_news(news, vet, now) {
            self.core.begin(now);
        }
    }

    pub(super) fn reload(&mut self) {
        self.manager.reloading();
        match self.given.reload(self.core.settings(), self.core.config()) {
            Ok((settings, config)) => {
                let (settings, waiting) = self.core.settings().reloaded(settings);
                if !waiting.is_empty() {
                    tracing::warn!(
                        "these settings take effect after a restart of the daemon: {}",
                        waiting.join(", ")
                    );
                }
                (self.set_level)(settings.log_level);
                keep_copy(&config, &self.given);
                warn_of(&config);
                self.rewatch(&settings, &config);
                if let Some(traffic) = &self.traffic {
                    traffic.configure(TrafficSettings::from(&settings));
                    traffic.reopen();
                }
                self.configure_hooks(&config.hooks);
                self.configure_docker(&config);
                self.start_files = StartFiles::new(&self.given, &config);
                self.core.reload(settings, config, Now::read());
                self.serve_provider_api();
                self.serve_web();
                self.serve_readonly();
                tracing::info!("configuration read again");
            }
            Err(error) => {
                let error = error.line();
                tracing::error!("{error}; the old configuration stays");
                self.core.reload_failed(&error);
            }
        }
        self.manager.ready(&self.core.status_line());
    }

    /// Follows the state file again, since its path or the rules for it may have changed.
    fn rewatch(&mut self, settings: &DaemonSettings, config: &Config) {
        if let Some(file) = self.file.take() {
            file.task.abort();
        }
        match &settings.state {
            Some(path) => self.file = Some(FollowedFile::watch(path, config)),
            None => self.core.no_file(Now::read()),
        }
    }
}
