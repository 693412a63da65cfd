//! Input of the core: states of the providers, orders of the API, results of probes, and changes seen in the kernel.
use super::acceptance::{GatewayCheck, JudgementError, ProviderSize};
use super::orphans::Orphan;
use super::{Core, DaemonPhase, Now, Provider};
use crate::control::events::EventContent;
use crate::control::request::{ApplyOptions, Refused};
use crate::provider::News;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_core::model::{Edits, Endpoint, State};
use tcpgw_core::problem::ProblemKind;

impl Core {
    /// Tells the core that each provider has given its first state, or cannot.
    pub fn begin(&mut self, now: Now) {
        if !self.ready {
            self.ready = true;
            self.known = Some(now.instant);
        }
    }

    /// Takes a new state or error of the state file. Returns whether it is decided; if not, [`Self::judges_again`]
    /// returns it again later.
    pub fn file_news(&mut self, news: News, vet: &mut GatewayCheck<'_>, now: Now) -> bool {
        let origin = self.origin.clone();
        let (state, warnings) = match news {
            News::Bad(bad) => {
                self.rejected.forget();
                self.reject("file", bad.lines(), now);
                return true;
            }
            News::State(state, warnings) => (state, warnings),
        };
        let options = ApplyOptions {
            take_over: self.settings.take_over,
            allow_empty: self.settings.allow_empty,
            hold_back: true,
            ..ApplyOptions::default()
        };
        let nothing = State::default();
        let mut edits = state.edits_from(self.file.as_deref().unwrap_or(&nothing));
        let size = ProviderSize {
            provider: Provider::File,
            before: self.file.as_ref().map_or(0, |file| file.services.len()),
            after: state.services.len(),
        };
        // Another file does not decide about services of the file before it.
        let is_other = self.file.is_some() && self.file_origin != self.settings.state;
        let dropped = if is_other {
            std::mem::take(&mut edits.gone)
        } else {
            Vec::new()
        };
        // A state that was valid under other settings is judged again.
        let all = self.judge_all.then(|| state.edits_from(&nothing));
        let judged = self.judge(all.as_ref().unwrap_or(&edits), size, options, vet);
        if let Err(JudgementError::Pending) = judged {
            self.rejected.wait_with(News::State(state, warnings));
            return false;
        }
        self.judge_all = false;
        for warning in warnings {
            tracing::warn!("{origin}: {warning}");
        }
        let obstacles = match judged {
            Ok(judged) => {
                for warning in judged.warnings {
                    tracing::warn!("{origin}: {warning}");
                }
                judged.obstacles
            }
            Err(JudgementError::Refused(refused)) => {
                if matches!(refused, Refused::Failed(_)) {
                    self.examine_again(now);
                }
                self.refuse_file(state, refused.lines(), now);
                return true;
            }
            Err(JudgementError::Pending) => return false,
        };
        self.rejected.forget();
        self.problems.resolve(ProblemKind::RejectedState);
        let old = self.file.replace(state);
        self.file_origin.clone_from(&self.settings.state);
        self.judge_origin(now);
        let dropped = dropped.iter().filter_map(|name| old.as_ref()?.get(name)).cloned();
        let dropped: Vec<Orphan> = dropped.map(Orphan::whole).collect();
        self.orphan(
            dropped,
            "the daemon now follows another state file, which does not define them",
            now,
        );
        // At the start it is not known yet which services are served: the first judgement decides.
        if self.held_back.has_judged {
            self.decide(&edits, obstacles);
            self.addresses_changed(now);
        }
        self.docker.has_changed_last &= edits.is_empty();
        self.wanted_instead(&origin, &edits, now);
        true
    }

    /// Stops following a state file: its services stay as orphans.
    pub fn no_file(&mut self, now: Now) {
        // The first state of the file may not be decided yet.
        self.begin(now);
        self.rejected.forget();
        self.problems.resolve(ProblemKind::RejectedState);
        if let Some(old) = self.file.take() {
            let services = old.services.iter().cloned().map(Orphan::whole);
            let services: Vec<Orphan> = services.collect();
            self.orphan(services, "the daemon follows no state file any more", now);
        }
    }

    pub(super) fn reject(&mut self, provider: &'static str, problems: Vec<String>, now: Now) {
        self.report_rejected(provider, &problems);
        let provider = provider.to_owned();
        self.note(EventContent::Rejected { provider, problems }, now);
    }

    pub(super) fn report_rejected(&mut self, provider: &'static str, problems: &[String]) {
        const MOST: usize = 10;
        let (kind, what) = if provider == Provider::Api.name() {
            (ProblemKind::RejectedStore, "the stored services contradict each other")
        } else {
            (
                ProblemKind::RejectedState,
                "the state file was rejected, and what is served goes on as it is",
            )
        };
        let more = match problems.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!("; and {}", tcpgw_core::words::count(more, "more problem")),
        };
        let reasons = problems[..problems.len().min(MOST)].join("; ");
        self.report(kind, format!("{what}: {reasons}{more}"));
    }

    /// Applies edits of a provider, whose own list has them already.
    pub(super) fn wanted_instead(&mut self, cause: &str, edits: &Edits, now: Now) {
        self.addon.forget(&edits.gone);
        self.addon.learn(&edits.put);
        for name in &edits.gone {
            self.deploys.service_changed(name);
        }
        self.tell_displacements(edits, cause, now);
        let edits = &self.with_orphans(edits);
        self.learn_orphans(edits, now);
        self.judge_refused_again(now);
        if !edits.is_empty() {
            self.unrecorded(edits.put.iter().map(|service| &service.name).chain(&edits.gone));
            self.due.record(now.instant);
            self.due.remember(now.instant);
        }
        match self.phase {
            DaemonPhase::TornDown => {
                tracing::info!("{cause}: accepted, but not served, because the gateway is torn down");
                self.forget_pauses(&edits.gone, now);
            }
            DaemonPhase::Running => {
                self.because(cause, now);
                let possible = self.possible(edits);
                self.membership.edit(&possible, now.instant);
                self.end_pauses_of_suspended(now);
                self.probe(now.instant);
            }
            DaemonPhase::Waiting | DaemonPhase::Reading => {}
        }
    }

    pub(super) fn because(&mut self, cause: &str, now: Now) {
        self.known.get_or_insert(now.instant);
        if self.cause.is_empty() {
            cause.clone_into(&mut self.cause);
        } else if [cause, &*self.cause].contains(&super::docker::CAUSE) && !self.cause.contains(cause) {
            // One transaction of two providers names both.
            self.cause = format!("{}, {cause}", self.cause);
        }
    }

    /// Takes the result of a probe.
    pub fn probed(&mut self, id: u64, outcome: ProbeOutcome, now: Now) {
        if self.judgement.awaits_probes {
            self.judgement.outdate();
        }
        let Some(change) = self.health.report(id, outcome, now.instant) else {
            return;
        };
        let Ok(endpoint) = Endpoint::try_from(change.endpoint) else {
            return;
        };
        self.known.get_or_insert(now.instant);
        self.membership.judged(endpoint);
        self.deploys.probed(endpoint);
        if change.from.name() == change.to.name() {
            return;
        }
        self.judgement.outdate();
        self.since.insert(change.endpoint, now.unix.as_secs());
        let mut services = self.membership.services_of(endpoint);
        if services.is_empty() {
            services.extend(self.deploys.service_of(endpoint));
        }
        let mut services: Vec<String> = services.into_iter().map(ToString::to_string).collect();
        if services.is_empty() {
            services.push(String::new());
        }
        for service in services {
            let what = EventContent::Health {
                service,
                backend: change.endpoint,
                state: change.to.name(),
                reason: (change.reason != ProbeOutcome::Accepted).then(|| change.reason.to_string()),
            };
            self.note(what, now);
        }
    }

    /// Takes a change of nftables by another program; `ours`: whether it concerns the table of tcpgw.
    pub fn drift(&mut self, who: Option<String>, what: String, ours: bool, now: Now) {
        self.due.drift();
        if ours && self.phase == DaemonPhase::Running {
            self.note(EventContent::Drift { who, what }, now);
        }
    }

    /// Schedules a check after links or their addresses changed, or may have: it compares them with those in the
    /// table.
    pub fn links_changed(&mut self) {
        self.due.drift();
    }

    /// Reports that the file of the socket is gone and why it cannot be created again, or resolves that (`None`).
    pub fn socket_gone(&mut self, why: Option<String>) {
        match why {
            None => self.problems.resolve(ProblemKind::SocketGone),
            Some(why) => {
                let message = format!("the daemon's socket had been removed, and it cannot be created again: {why}");
                self.report(ProblemKind::SocketGone, message);
            }
        }
    }

    /// Has the record written again that another process has removed. After a teardown there is none.
    pub fn record_lost(&mut self, now: Now) {
        if self.phase != DaemonPhase::TornDown {
            self.due.record_at_once(now.instant);
        }
    }
}

impl Refused {
    /// Returns one line for each error.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid(problems) => {
                let more = problems.total() - problems.iter().count();
                let more = (more > 0).then(|| format!("and {more} more"));
                problems.iter().map(ToString::to_string).chain(more).collect()
            }
            Self::Ending => vec!["the daemon is ending; nothing was done, try again later".to_owned()],
            Self::Refused(text)
            | Self::Missing(text)
            | Self::Conflict(text, _)
            | Self::Store(text)
            | Self::Busy(text)
            | Self::Failed(text) => text.lines().map(ToOwned::to_owned).collect(),
        }
    }
}
