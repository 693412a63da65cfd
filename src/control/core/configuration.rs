//! Reloads of the configuration, rejected configurations, and files that are gone.
use super::{Core, Now};
use crate::config::Config;
use crate::config::daemon::DaemonSettings;
use crate::store::last_services::LastNotes;
use crate::view::problems::other_mark;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

impl Core {
    /// Reports that a reload failed because the configuration is wrong.
    pub fn reload_failed(&mut self, error: &str) {
        let message = format!("the configuration was rejected, and the old one stays: {error}");
        self.reload_failed = Some(message);
        self.judge_configuration(None);
    }

    /// Reports whether a daemon that starts now would accept its files. `trouble`: the reason why not; `uses_copy`: whether it would
    /// start with the copy of what this one has read.
    pub fn next_start(&mut self, trouble: Option<&str>, uses_copy: bool) {
        if trouble.is_none() {
            self.config.gone = None;
        }
        let message = trouble.map(|trouble| {
            let next = if uses_copy {
                "uses a copy of that"
            } else {
                "fails, or leaves out what it names"
            };
            format!(
                "the configuration was changed, and is not accepted as it is: {trouble}; this daemon continues with the configuration that it has read before, and the next start {next}"
            )
        });
        self.judge_configuration(message);
    }

    /// Reports that the configuration in effect no longer exists; `error` says which file, and what to do.
    pub fn configuration_gone(&mut self, error: &str) {
        let message = format!(
            "{error}, and reload then; this daemon continues with the configuration that it has read before, and one that starts with a copy of it"
        );
        self.judge_configuration(Some(message));
    }

    /// Takes the flow mark of the configuration that was read, which may be the copy of one that is gone.
    pub fn configuration_read(&mut self, flow_mark: FlowMark) {
        self.configured_mark(flow_mark);
        self.judge_configuration(None);
    }

    /// Reports that there is no configuration at its default path and no copy of one, where there was one before: the
    /// defaults are in effect. `before`: what was known of the last daemon.
    pub(super) fn judge_lost_configuration(&mut self, before: &LastNotes) {
        let is_there = self.config.file.is_some() || self.config.gone.is_some();
        if !before.is_configured || is_there {
            return;
        }
        let message = format!(
            "{}: the file existed before and does not exist any more, and the copy of what it said, beside the store, does not exist either: \
             the defaults are in effect, without fences, protected backends or whatever it set; put the file back, or create an empty file \
             to use the defaults, then reload the daemon",
            self.config.path()
        );
        self.configuration_lost =
            Some(Problem::new(ProblemKind::RejectedConfiguration, message).with_severity(Severity::Warning));
        self.judge_configuration(None);
    }

    /// Reports or resolves the problem with the configuration. A rejected reload stays reported until one succeeds.
    fn judge_configuration(&mut self, next_start: Option<String>) {
        if let Some(message) = self.reload_failed.clone().or(next_start) {
            return self.report(ProblemKind::RejectedConfiguration, message);
        }
        // The file may be there again, and is not in effect before a reload.
        let gone = self.config.gone.clone().or_else(|| self.configuration_lost.clone());
        self.problems.replace(&[ProblemKind::RejectedConfiguration], gone);
    }

    /// Takes new settings and configuration after a reload, except `[addon]`: [`Self::provider_api`] takes that.
    pub fn reload(&mut self, settings: DaemonSettings, config: Config, now: Now) {
        self.reload_failed = None;
        let notes = self.notes_to_remember();
        // The operator knows of it.
        self.observing.is_memory_loss_known |= self.memory_lost.is_some() || self.record_lost.is_some();
        let lost_memory = self.memory_lost.take();
        if self.record_lost.take().is_some() || lost_memory.is_some() {
            self.judge_record(now);
        }
        if self.last_trouble.missing.take().is_some() {
            self.judge_last();
        }
        self.configuration_lost = None;
        self.config.gone.clone_from(&config.gone);
        self.judge_configuration(None);
        // The file is read again: a rejection of the state of another file does not apply to it.
        self.rejected.forget();
        self.configured_mark(config.flow_mark);
        if config.protect_backends != self.config.protect_backends {
            tracing::warn!("protect_backends has changed: it takes effect after a restart of the daemon");
        }
        if config.idle_timeout != self.config.idle_timeout {
            tracing::warn!("idle_timeout has changed: it takes effect after a restart of the daemon");
        }
        let (mark, protect) = (self.config.flow_mark, self.config.protect_backends);
        self.configured_to_protect = config.protect_backends;
        let idle = self.config.idle_timeout;
        self.config = config;
        self.config.flow_mark = mark;
        self.config.protect_backends = protect;
        self.config.idle_timeout = idle;
        self.settings = settings;
        self.origin = super::origin(&self.settings);
        if self.config.docker.is_none() {
            self.no_docker(now);
        }
        self.docker.read_again();
        self.membership.set_all_failed(self.settings.all_failed);
        self.judge_all = true;
        self.due.set_check_interval(self.settings.check_interval, now.instant);
        if self.notes_to_remember() != notes {
            self.due.remember_at_once(now.instant);
        }
        // Services of the store are checked against the new fences, too.
        self.addresses_changed(now);
    }

    /// Reports that the listener for metrics is not served as configured (`trouble`: why), or that it is again (`None`).
    pub fn web(&mut self, trouble: Option<&str>, now: Now) {
        if let Some(why) = trouble {
            return self.report_cause(ProblemKind::Web, format!("metrics are not served as configured: {why}"));
        }
        self.problems.resolve(ProblemKind::Web);
        let listens = self.config.web.as_ref().map(|settings| settings.listen);
        if std::mem::replace(&mut self.web_listens, listens) != listens {
            // Services may be held back for the listener that was moved.
            self.addresses_changed(now);
        }
    }

    /// Reports that the read-only socket is not served as configured (`trouble`: why), or that it is again (`None`).
    pub fn readonly_socket(&mut self, trouble: Option<&str>) {
        match trouble {
            Some(why) => self.report(
                ProblemKind::SocketReadonly,
                format!("the read-only socket is not served as configured: {why}"),
            ),
            None => self.problems.resolve(ProblemKind::SocketReadonly),
        }
    }

    /// Reports what is wrong with the hooks, or that nothing is (`None`).
    pub fn hooks(&mut self, trouble: Option<String>) {
        let problem = trouble.map(|why| Problem::new(ProblemKind::Hooks, why));
        self.problems.replace(&[ProblemKind::Hooks], problem);
    }

    /// Compares the configured flow mark with that of the table in the kernel, which stays in use as long as there is
    /// a table.
    fn configured_mark(&mut self, wanted: FlowMark) {
        let used = self.config.flow_mark;
        if wanted == used {
            return self.problems.resolve(ProblemKind::OtherMark);
        }
        let message = other_mark(used, wanted, "the table's is used, and all is served as before");
        self.report(ProblemKind::OtherMark, message);
    }

    /// Returns the settings in effect.
    pub fn settings(&self) -> &DaemonSettings {
        &self.settings
    }

    /// Returns the configuration in effect: fences, flow mark and more.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
