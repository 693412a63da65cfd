//! What it is told: states of the providers, orders of the API, findings of probes and of those who watch the kernel.

use super::{Core, Now, Phase, common};
use crate::config::Config;
use crate::daemon::ask::{ApplyOptions, Refused, Reply, TornDown};
use crate::daemon::events::What;
use crate::daemon::settings::Settings;
use crate::health::Outcome;
use crate::model::{Endpoint, Problem, Problems, Service, State};
use crate::provider::News;
use crate::reconcile::{ReconcileError, Torn};

/// What the gateway itself says to a state.
#[derive(Debug, Clone, Default)]
pub struct Vetted {
    /// What speaks against it.
    pub problems: Problems,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
    /// New services on ports where a local program listens, a line for each.
    pub taken: Vec<String>,
}

/// Looks at a state as the gateway does: the edge's part of judging it. The function tells which services are there already.
pub type Vet<'a> = dyn FnMut(&State, &dyn Fn(&Service) -> bool) -> Result<Vetted, String> + 'a;

impl Core {
    /// Every provider has said its first word, or cannot.
    pub fn begin(&mut self, now: Now) {
        if !self.ready {
            self.ready = true;
            self.known = Some(now.instant);
        }
    }

    /// The file says something else.
    pub fn file_news(&mut self, news: News, vet: &mut Vet<'_>, now: Now) {
        let origin = self.origin.clone();
        let state = match news {
            News::Bad(bad) => return self.reject("file", bad.lines(), now),
            News::State(state, warnings) => {
                for warning in warnings {
                    tracing::warn!("{origin}: {warning}");
                }
                state
            }
        };
        let options = ApplyOptions {
            take_over: self.settings.take_over,
            allow_empty: self.settings.allow_empty,
            ..ApplyOptions::default()
        };
        let before = self.file.as_ref().map_or(0, |file| file.services.len());
        match self.judge(&state, &self.api, before, options, vet) {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!("{origin}: {warning}");
                }
            }
            Err(refused) => return self.reject("file", refused.lines(), now),
        }
        self.problems.remove("file");
        let old = self.file.replace(state);
        let new = self.file.take().unwrap_or_default();
        self.wanted_instead(&origin, &old.unwrap_or_default(), &new, now);
        self.file = Some(new);
    }

    /// There will be no file until the settings say so.
    pub fn no_file(&mut self, now: Now) {
        if let Some(old) = self.file.take() {
            self.wanted_instead("no state file any more", &old, &State::default(), now);
        }
    }

    pub(super) fn reject(&mut self, provider: &'static str, problems: Vec<String>, now: Now) {
        self.problems.insert(provider, problems.join("\n"));
        let provider = provider.to_owned();
        self.note(What::Rejected { provider, problems }, now);
    }

    /// A provider wants other services than before: only those that differ are touched.
    pub(super) fn wanted_instead(&mut self, cause: &str, old: &State, new: &State, now: Now) {
        if self.phase == Phase::TornDown {
            return self.wanted_again(cause, Some(new), now);
        }
        if self.phase != Phase::Running {
            return;
        }
        self.because(cause, now);
        self.roster.want_instead(&old.services, &new.services);
        self.probe(now.instant);
    }

    /// After a teardown something is desired again; `new` is of a provider whose state is not noted yet.
    fn wanted_again(&mut self, cause: &str, new: Option<&State>, now: Now) {
        self.phase = Phase::Running;
        self.full = Some("something is desired again".into());
        self.because(cause, now);
        self.want();
        if let Some(new) = new {
            self.roster.want_instead(&[], &new.services);
        }
        self.probe(now.instant);
    }

    fn because(&mut self, cause: &str, now: Now) {
        self.known.get_or_insert(now.instant);
        if self.cause.is_empty() {
            cause.clone_into(&mut self.cause);
        }
    }

    /// Whether a provider may want that beside what others want.
    pub(super) fn judge(
        &self,
        state: &State,
        others: &State,
        before: usize,
        options: ApplyOptions,
        vet: &mut Vet<'_>,
    ) -> Result<Vec<String>, Refused> {
        let problems: Problems = self.config.check(state).into_iter().collect();
        problems.into_result().map_err(Refused::Invalid)?;
        self.judge_owners(state, others)?;
        // By itself it has been found valid when it was read.
        if !others.services.is_empty() {
            let all = state.services.iter().chain(&others.services).cloned().collect();
            State::new(all).map_err(Refused::Invalid)?;
        }
        if state.services.is_empty() && before > 0 && !options.allow_empty {
            return Err(Refused::Refused(empty(before)));
        }
        let vetted = vet(state, &|service| self.roster.is_known(service)).map_err(Refused::Failed)?;
        vetted.problems.into_result().map_err(Refused::Invalid)?;
        if !options.take_over && !vetted.taken.is_empty() {
            return Err(Refused::Refused(vetted.taken.join("\n")));
        }
        let warnings = crate::model::warnings(state).into_iter().chain(vetted.warnings);
        Ok(warnings.map(|warning| warning.to_string()).collect())
    }

    fn judge_owners(&self, state: &State, others: &State) -> Result<(), Refused> {
        let of_others = common(state, others);
        if of_others.is_empty() {
            return Ok(());
        }
        let whose = |name: &str| {
            let in_file = self
                .file
                .as_ref()
                .is_some_and(|file| super::by_name(file).contains_key(name));
            if in_file {
                format!("it is defined in {}: change it there", self.origin)
            } else {
                "it came in through the API: change or remove it there".into()
            }
        };
        let problems = of_others.into_iter().map(|name| Problem {
            place: format!("service \"{name}\""),
            message: format!("belongs to another provider: {}", whose(name)),
        });
        Err(Refused::Invalid(problems.collect()))
    }

    /// Remove everything, and wait for something new to be desired.
    pub fn teardown(&mut self, reply: Reply<Result<TornDown, Refused>>) {
        self.teardown.push(reply);
    }

    pub(super) fn torn_down(&mut self, torn: Result<Torn, ReconcileError>, now: Now) {
        let answer = match torn {
            Ok(torn) => {
                self.phase = Phase::TornDown;
                self.full = None;
                self.table = None;
                self.view.owns_table = false;
                self.problems.remove("kernel");
                self.roster = crate::daemon::roster::Roster::new(self.settings.all_failed);
                // Probes that are on their way belong to nobody from here on.
                self.health.set([], now.instant);
                self.note(What::TornDown { flushed: torn.flushed }, now);
                Ok(TornDown {
                    table_removed: torn.table,
                    flows_flushed: torn.flushed,
                    flows_not_flushed: torn.failed,
                })
            }
            Err(error) => {
                self.full = Some("a teardown that failed".into());
                Err(Refused::Failed(error.to_string()))
            }
        };
        for reply in std::mem::take(&mut self.teardown) {
            let _ = reply.send(answer.clone());
        }
    }

    /// A probe has ended.
    pub fn probed(&mut self, id: u64, outcome: Outcome, now: Now) {
        let Some(change) = self.health.report(id, outcome, now.instant) else {
            return;
        };
        let Ok(endpoint) = Endpoint::try_from(change.endpoint) else {
            return;
        };
        self.known.get_or_insert(now.instant);
        self.roster.judged(endpoint);
        if change.from.name() == change.to.name() {
            return;
        }
        self.since.insert(change.endpoint, now.unix.as_secs());
        let service = self.roster.service_of(endpoint).map(ToString::to_string);
        self.note(
            What::Health {
                service: service.unwrap_or_default(),
                backend: change.endpoint,
                state: change.to.name(),
                reason: (change.reason != Outcome::Accepted).then(|| change.reason.to_string()),
            },
            now,
        );
    }

    /// Somebody else has written to nftables: to our table, or perhaps to it.
    pub fn drift(&mut self, who: Option<String>, what: String, ours: bool, now: Now) {
        self.due.drift();
        if ours && self.phase == Phase::Running {
            self.note(What::Drift { who, what }, now);
        }
    }

    /// The configuration was read again.
    pub fn reload(&mut self, settings: Settings, config: Config, now: Now) {
        if config.flow_mark != self.config.flow_mark {
            tracing::warn!("flow_mark has changed: it waits for `tcpgw teardown` and a restart");
        }
        let mark = self.config.flow_mark;
        self.config = config;
        self.config.flow_mark = mark;
        self.settings = settings;
        self.roster.set_all_failed(self.settings.all_failed);
        self.due.set_check_interval(self.settings.check_interval, now.instant);
        if self.phase == Phase::TornDown {
            self.wanted_again("reload", None, now);
        }
    }

    /// What is set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The fences, and the mark.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Why a state without services is refused.
pub(super) fn empty(before: usize) -> String {
    format!("the state has no services and the gateway has {before} of this provider; --allow-empty removes them all")
}

impl Refused {
    /// One text for each thing that is wrong.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid(problems) => {
                let more = problems.total() - problems.iter().count();
                let more = (more > 0).then(|| format!("and {more} more"));
                problems.iter().map(ToString::to_string).chain(more).collect()
            }
            Self::Refused(text)
            | Self::Missing(text)
            | Self::Conflict(text, _)
            | Self::Store(text)
            | Self::Failed(text) => text.lines().map(ToOwned::to_owned).collect(),
        }
    }
}
