//! What it is told: states of the providers, orders of the API, findings of probes and of those who watch the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::orphans::Orphan;
use super::surroundings::{Obstacles, by_service, refuse};
use super::{Core, Now, PendingReply, Phase, Provider, ReplyKind, Unheld};
use crate::config::Config;
use crate::config::daemon::DaemonSettings;
use crate::control::events::What;
use crate::control::membership::{Name, Pause};
use crate::control::obstacle::Obstacle;
use crate::control::request::{ApplyOptions, PauseOrder, Peer, Refused, Reply, Resumed, TornDown};
use crate::provider::News;
use crate::reconcile::{ReconcileError, Torn};
use crate::record::TornDown as TornDownBy;
use crate::view::problems::{other_mark, some_of};
use tcpgw_core::diff::count;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_core::model::{Balance, Edits, Endpoint, FlowMark, Problem, Problems, Service, State};
use tcpgw_core::problem::Kind;

/// What the gateway itself says to a state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vetted {
    /// What keeps services of it from being served here now.
    pub obstacles: Vec<Obstacle>,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
}

/// What was accepted.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What is odd about it.
    pub(super) warnings: Vec<String>,
    /// What keeps services of it from being served here now; they are to be held back.
    pub(super) obstacles: Obstacles,
}

/// What a provider has, and would have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProviderSize {
    /// Which.
    pub(super) provider: Provider,
    /// How many services it has.
    pub(super) before: usize,
    /// How many it would have.
    pub(super) after: usize,
}

/// Why there is no [`Vetted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unvetted {
    /// The look goes on. Whoever asked asks again when it has ended, which [`Core::look_ended`] is told.
    Pending,
    /// It failed, in words.
    Failed(String),
}

/// Looks at a state as the gateway does: the edge's part of judging it. The function tells which services are there already.
pub type Vet<'a> = dyn FnMut(&State, &dyn Fn(&Service) -> bool) -> Result<Vetted, Unvetted> + 'a;

/// Why something was not accepted.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// The gateway is being looked at: nothing is decided, and it is judged again.
    Pending,
    /// It is refused.
    Refused(Refused),
}

impl From<Refused> for Unjudged {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Core {
    /// Every provider has said its first word, or cannot.
    pub fn begin(&mut self, now: Now) {
        if !self.ready {
            self.ready = true;
            self.known = Some(now.instant);
        }
    }

    /// The file says something else. Returns whether that is decided: if not, [`Self::judges_again`] gives it again.
    pub fn file_news(&mut self, news: News, vet: &mut Vet<'_>, now: Now) -> bool {
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
        let standing = ProviderSize {
            provider: Provider::File,
            before: self.file.as_ref().map_or(0, |file| file.services.len()),
            after: state.services.len(),
        };
        // Another file says nothing about the services of the one before.
        let is_other = self.file.is_some() && self.file_origin != self.settings.state;
        let dropped = if is_other {
            std::mem::take(&mut edits.gone)
        } else {
            Vec::new()
        };
        // What was good by other settings is judged again.
        let all = self.judge_all.then(|| state.edits_from(&nothing));
        let judged = self.judge(all.as_ref().unwrap_or(&edits), standing, options, vet);
        if let Err(Unjudged::Pending) = judged {
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
            Err(Unjudged::Refused(refused)) => {
                if matches!(refused, Refused::Failed(_)) {
                    self.look_again(now);
                }
                self.refuse_file(state, refused.lines(), now);
                return true;
            }
            Err(Unjudged::Pending) => return false,
        };
        self.rejected.forget();
        self.problems.resolve(Kind::RejectedState);
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
        // At the start nobody knows yet what is served: the first judgement decides.
        if self.held_back.has_judged {
            self.decide(&edits, obstacles);
            self.addresses_changed(now);
        }
        self.wanted_instead(&origin, &edits, now);
        true
    }

    /// There will be no file until the settings say so: its services stay.
    pub fn no_file(&mut self, now: Now) {
        // What it said first may not have been decided yet.
        self.begin(now);
        self.rejected.forget();
        self.problems.resolve(Kind::RejectedState);
        if let Some(old) = self.file.take() {
            let services = old.services.iter().cloned().map(Orphan::whole);
            let services: Vec<Orphan> = services.collect();
            self.orphan(services, "the daemon follows no state file any more", now);
        }
    }

    pub(super) fn reject(&mut self, provider: &'static str, problems: Vec<String>, now: Now) {
        self.report_rejected(provider, &problems);
        let provider = provider.to_owned();
        self.note(What::Rejected { provider, problems }, now);
    }

    pub(super) fn report_rejected(&mut self, provider: &'static str, problems: &[String]) {
        const MOST: usize = 10;
        let (kind, what) = if provider == Provider::Api.name() {
            (Kind::RejectedStore, "the stored services contradict each other")
        } else {
            (
                Kind::RejectedState,
                "the state file was rejected, and what is served goes on as it is",
            )
        };
        let more = match problems.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!("; and {}", tcpgw_core::diff::count(more, "more problem")),
        };
        let told = problems[..problems.len().min(MOST)].join("; ");
        self.report(kind, format!("{what}: {told}{more}"));
    }

    /// A provider wants some services otherwise than before; its own book says so already.
    pub(super) fn wanted_instead(&mut self, cause: &str, edits: &Edits, now: Now) {
        self.addon.forget(&edits.gone);
        self.addon.learn(&edits.put);
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
            Phase::TornDown => {
                tracing::info!("{cause}: accepted, but not served, because the gateway is torn down");
                self.forget_pauses(&edits.gone, now);
            }
            Phase::Running => {
                self.because(cause, now);
                let possible = self.possible(edits);
                self.membership.edit(&possible, now.instant);
                self.probe(now.instant);
            }
            Phase::Waiting | Phase::Looking => {}
        }
    }

    /// A teardown is over.
    pub(super) fn serve_again(&mut self, cause: &str, now: Now) {
        self.phase = Phase::Running;
        let torn = self.torn.take();
        self.due.is_note_outdated = false;
        self.full = Some(cause.to_owned());
        let words = cause.to_owned();
        self.note(What::ServesAgain { cause: words }, now);
        self.because(cause, now);
        self.want(now.instant);
        self.pause_again(&torn.map(|torn| torn.pauses).unwrap_or_default(), now);
        self.addresses_changed(now);
        self.probe(now.instant);
    }

    pub(super) fn because(&mut self, cause: &str, now: Now) {
        self.known.get_or_insert(now.instant);
        if self.cause.is_empty() {
            cause.clone_into(&mut self.cause);
        }
    }

    /// Whether a provider may want that beside what others want. By themselves the services have been found valid when they
    /// were read. Only what is edited is looked at.
    pub(super) fn judge(
        &self,
        edits: &Edits,
        standing: ProviderSize,
        options: ApplyOptions,
        vet: &mut Vet<'_>,
    ) -> Result<Judged, Unjudged> {
        self.judge_books(edits, standing.provider)?;
        let ProviderSize { before, after, .. } = standing;
        if after == 0 && before > 0 && !options.allow_empty {
            return Err(Unjudged::Refused(Refused::Refused(match standing.provider {
                Provider::File => self.empty_file(before),
                Provider::Api => self.empty_apply(),
            })));
        }
        let edited = State {
            services: edits.put.clone(),
        };
        // At the start the first judgement decides, when it is known what is served.
        let is_known = |service: &Service| options.take_over || !self.held_back.has_judged || self.is_known(service);
        let vetted = vet(&edited, &is_known).map_err(|unvetted| match unvetted {
            Unvetted::Pending => Unjudged::Pending,
            Unvetted::Failed(why) => Unjudged::Refused(Refused::Failed(why)),
        })?;
        let found = by_service(vetted.obstacles);
        let services = edited.services.iter();
        let obstacles = services.flat_map(|service| self.new_obstacles(service, found.get(&service.name)));
        let obstacles: Vec<Obstacle> = obstacles.collect();
        let warnings = tcpgw_core::model::warnings(&edited).into_iter().chain(vetted.warnings);
        if !options.hold_back {
            refuse(&obstacles)?;
        }
        Ok(Judged {
            warnings: warnings
                .map(|warning| warning.to_string())
                .chain(self.warn_of_displacements(edits))
                .collect(),
            obstacles: by_service(obstacles),
        })
    }

    /// Why a state file without services is refused.
    pub(super) fn empty_file(&self, before: usize) -> String {
        let (are, all) = if before == 1 {
            ("is", "it shall go")
        } else {
            ("are", "they shall go")
        };
        format!(
            "{} has no services, and {} of it {are} served: if {all}, set `allow_empty = true` under [daemon] in {} and reload the \
             daemon (SIGHUP); `tcpgw export --provider file` prints what is served, and `tcpgw apply` changes only what came in through the API",
            self.origin,
            count(before, "service"),
            self.config.path()
        )
    }

    /// Why a state without services is not taken through the API.
    fn empty_apply(&self) -> String {
        let names: Vec<&str> = self.api.stored().map(|stored| &*stored.service.name).collect();
        format!(
            "the state has no services; --allow-empty removes all that came in through the API: {} ({})",
            count(names.len(), "service"),
            some_of(&names)
        )
    }

    /// The part of [`Self::judge`] that is known without asking the system.
    pub(super) fn judge_books(&self, edits: &Edits, provider: Provider) -> Result<(), Refused> {
        let all = &self.with_orphans(edits);
        let sizes = self.config.fences_sizes().then(|| self.sizes_with(all));
        let sizes = sizes.map(|(services, backends)| self.config.check_sizes(services, backends));
        let fences = edits.put.iter().flat_map(|service| self.config.check_service(service));
        let problems: Problems = sizes.into_iter().flatten().chain(fences).collect();
        problems.into_result().map_err(Refused::Invalid)?;
        let names = edits.put.iter().map(|service| &service.name);
        let of_others = names.filter_map(|name| self.owner_problem(name, provider));
        let problems: Problems = of_others.collect();
        problems.into_result().map_err(Refused::Invalid)?;
        let has_turns = edits.put.iter().any(|service| service.balance == Balance::RoundRobin);
        // The membership is all that is desired, while it is in use; the number of chains is known to those who count them.
        if self.phase == Phase::Running && !has_turns {
            // What is kept of those that are held back gives way.
            let held = self.held_back.names().filter(|name| !all.touches(name));
            let held: Vec<&Name> = held.collect();
            let beside_kept;
            let beside = if held.is_empty() {
                all
            } else {
                let mut gone = all.gone.clone();
                gone.extend(held.iter().copied().cloned());
                gone.sort_unstable();
                beside_kept = Edits {
                    put: all.put.clone(),
                    gone,
                };
                &beside_kept
            };
            self.membership
                .clashes(beside)
                .into_result()
                .map_err(Refused::Invalid)?;
            // A suspended service is desired without its backends, and is to have them again.
            let suspended = self.addon.suspended_names().filter(|name| !all.touches(name));
            // The membership knows their ports: only edits with backends can clash with what it lacks.
            let has_backends = all.put.iter().any(|service| !service.backends.is_empty());
            let other: BTreeMap<&str, &Arc<Service>> = suspended
                .filter(|_| has_backends)
                .map(|name| &**name)
                .chain(held.iter().map(|name| &***name))
                .filter_map(|name| Some((name, self.said_of(name)?)))
                .collect();
            if other.is_empty() {
                return Ok(());
            }
            let all = other.into_values().chain(&edits.put).cloned();
            return State::new(all).map(|_| ()).map_err(Refused::Invalid);
        }
        let untouched = self.said().filter(|service| !all.touches(&service.name));
        let all = untouched.chain(&all.put).cloned();
        State::new(all).map(|_| ()).map_err(Refused::Invalid)
    }

    /// What its provider says of a service.
    fn said_of(&self, name: &str) -> Option<&Arc<Service>> {
        let of_file = self.file.as_ref().and_then(|file| file.get(name));
        let of_api = || self.api.get(name).map(|stored| &stored.service);
        let orphan = || self.orphans.get(name).map(|orphan| &orphan.service);
        of_file.or_else(of_api).or_else(orphan)
    }

    fn sizes_with(&self, edits: &Edits) -> (usize, usize) {
        let untouched = self.said().filter(|service| !edits.touches(&service.name));
        let all = untouched.chain(&edits.put);
        all.fold((0, 0), |(services, backends), service| {
            (services + 1, backends + service.backends.len())
        })
    }

    /// Whether a service of that name is another provider's.
    pub(super) fn judge_owner(&self, name: &str, provider: Provider) -> Result<(), Refused> {
        self.owner_problem(name, provider)
            .map_or(Ok(()), |problem| Err(Refused::Invalid([problem].into_iter().collect())))
    }

    fn owner_problem(&self, name: &str, provider: Provider) -> Option<Problem> {
        let in_file = self.file.as_ref().is_some_and(|file| file.get(name).is_some());
        let whose = match provider {
            Provider::Api if in_file => format!("it is defined in {}: change it there", self.origin),
            Provider::File if self.api.get(name).is_some() => {
                format!(
                    "it came in through the API: rename it in the file, or remove it there with `tcpgw service rm {name}`, and the \
                     file takes it over"
                )
            }
            _ => return None,
        };
        Some(Problem {
            place: format!("service \"{name}\""),
            message: format!("belongs to another provider: {whose}"),
        })
    }

    /// Hold new connections of a service back for a time, or no longer.
    pub fn pause(&mut self, order: &PauseOrder, reply: Reply<Result<Vec<String>, Refused>>, now: Now) {
        let refused = match self.phase {
            // What it has to keep of pauses is written already.
            Phase::Running if !self.teardown.is_empty() => Some(Refused::Busy(
                "everything is being torn down: nothing was changed".into(),
            )),
            Phase::Running => None,
            Phase::TornDown => Some(Refused::Failed(super::TORN_DOWN.into())),
            Phase::Waiting | Phase::Looking => {
                Some(Refused::Busy("nothing is served yet: the daemon is starting".into()))
            }
        };
        if let Some(refused) = refused {
            return drop(reply.send(Err(refused)));
        }
        let service = order.name.to_string();
        if !self.membership.wanted().contains_key(&order.name) {
            return drop(reply.send(Err(super::orders::missing(&service))));
        }
        let uid = order.by.uid;
        let pause = order.time.map(|time| Pause {
            until: now.instant + time,
            time,
            since: now.unix.as_secs(),
            uid,
        });
        if self.membership.pause(&order.name, pause) {
            self.unrecorded([&order.name]);
            self.due.record(now.instant);
            let what = match order.time {
                Some(time) => What::Paused {
                    service,
                    seconds: time.as_secs(),
                    uid,
                },
                None => What::Resumed {
                    service,
                    reason: "asked",
                    uid: Some(uid),
                },
            };
            self.note(what, now);
        }
        self.because("pause", now);
        let wants = ReplyKind::Pause(reply);
        let since = now.instant;
        self.waiting.push(PendingReply { wants, since });
    }

    /// Remove everything, and serve nothing until somebody says so.
    pub fn teardown(&mut self, by: Peer, reply: Reply<Result<TornDown, Refused>>) {
        self.teardown.push((by, reply));
    }

    /// Serve again after a teardown.
    pub fn resume(&mut self, by: Peer, reply: Reply<Result<Resumed, Refused>>, now: Now) {
        match self.phase {
            Phase::Waiting | Phase::Looking => {
                drop(reply.send(Err(Refused::Busy("the daemon is starting".into()))));
            }
            Phase::Running => drop(reply.send(Ok(Resumed::default()))),
            Phase::TornDown => {
                self.serve_again(&format!("resume (uid {})", by.uid), now);
                let wants = ReplyKind::Resume(reply);
                let since = now.instant;
                self.waiting.push(PendingReply { wants, since });
            }
        }
    }

    pub(super) fn torn_down(&mut self, torn: Result<Torn, ReconcileError>, by: TornDownBy, now: Now) {
        let answer = match torn {
            Ok(torn) => {
                self.phase = Phase::TornDown;
                self.full = None;
                self.table = None;
                self.view.owns_table = false;
                self.problems.resolve(Kind::KernelRefuses);
                self.judgement.outdate();
                self.problems.resolve(Kind::StaleFlows);
                self.due.all_flushed();
                self.forget_observations(now);
                self.membership = crate::control::membership::Membership::new(self.settings.all_failed);
                self.unrecorded.clear();
                self.held_back.keep_nothing();
                // Probes that are on their way belong to nobody from here on.
                self.health.set([], now.instant);
                self.end_deploys(now);
                let flushed = torn.flushed;
                self.note(What::TornDown { flushed, uid: by.uid }, now);
                self.torn = Some(by);
                self.overtaken(now);
                Ok(TornDown {
                    table_removed: torn.table,
                    flows_flushed: torn.flushed,
                    flows_not_flushed: torn.failed,
                    not_lasting: torn.unwritten,
                })
            }
            Err(error) => {
                self.full = Some("a teardown that failed".into());
                Err(Refused::Failed(error.to_string()))
            }
        };
        for (_, reply) in std::mem::take(&mut self.teardown) {
            let _ = reply.send(answer.clone());
        }
    }

    /// Answers those whose change was taken, and torn down before the kernel held it.
    fn overtaken(&mut self, now: Now) {
        let why = "everything was torn down meanwhile, and nothing is served until `tcpgw resume`";
        for pending in std::mem::take(&mut self.waiting) {
            self.answer(pending, Err(Unheld::TornDown(why)), now);
        }
        self.known = None;
        self.cause.clear();
    }

    /// A probe has ended.
    pub fn probed(&mut self, id: u64, outcome: ProbeOutcome, now: Now) {
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
            let what = What::Health {
                service,
                backend: change.endpoint,
                state: change.to.name(),
                reason: (change.reason != ProbeOutcome::Accepted).then(|| change.reason.to_string()),
            };
            self.note(what, now);
        }
    }

    /// Somebody else has written to nftables: to our table, or perhaps to it.
    pub fn drift(&mut self, who: Option<String>, what: String, ours: bool, now: Now) {
        self.due.drift();
        if ours && self.phase == Phase::Running {
            self.note(What::Drift { who, what }, now);
        }
    }

    /// Links or their addresses were added, removed or renamed, or may have been: a check compares them with those in the table.
    pub fn links_changed(&mut self) {
        self.due.drift();
    }

    /// The configuration was to be read again, and is wrong.
    pub fn reload_failed(&mut self, error: &str) {
        let message = format!("the configuration was rejected, and the old one stays: {error}");
        self.reload_failed = Some(message);
        self.judge_configuration(None);
    }

    /// The files that a start reads were judged as they are now: `trouble` says why a daemon would not start with them as this
    /// one runs.
    pub fn next_start(&mut self, trouble: Option<&str>) {
        if trouble.is_none() {
            self.config.gone = None;
        }
        let message = trouble.map(|trouble| {
            format!(
                "the configuration was changed, and the next start of the daemon fails, or leaves out what it names: {trouble}; this daemon continues with the configuration that it has read before"
            )
        });
        self.judge_configuration(message);
    }

    /// The configuration that was read before is gone: `error` says which, and what to do.
    pub fn configuration_gone(&mut self, error: &str) {
        let message = format!(
            "{error}, and reload then; this daemon continues with the configuration that it has read before, and one that starts with a copy of it"
        );
        self.judge_configuration(Some(message));
    }

    /// The configuration was read, perhaps from the copy of one that is gone; it says this flow mark.
    pub fn configuration_read(&mut self, flow_mark: FlowMark) {
        self.configured_mark(flow_mark);
        self.judge_configuration(None);
    }

    /// What a reload refused stays refused until one succeeds.
    fn judge_configuration(&mut self, next_start: Option<String>) {
        match self.reload_failed.clone().or(next_start) {
            Some(message) => self.report(Kind::RejectedConfiguration, message),
            None => self
                .problems
                .replace(&[Kind::RejectedConfiguration], self.config.gone.clone()),
        }
    }

    /// The configuration was read again.
    pub fn reload(&mut self, settings: DaemonSettings, config: Config, now: Now) {
        self.reload_failed = None;
        self.config.gone.clone_from(&config.gone);
        self.judge_configuration(None);
        // The file is read anew: what another one said is not judged as this one's.
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
        self.addon.configure(self.config.addon.clone());
        self.settings = settings;
        self.origin = super::origin(&self.settings);
        self.membership.set_all_failed(self.settings.all_failed);
        self.judge_all = true;
        self.due.set_check_interval(self.settings.check_interval, now.instant);
        // Services of the store are judged by the new fences, too.
        self.addresses_changed(now);
    }

    /// What the configuration says of the flow mark, which may be another one than that of the table in the kernel: the table's is used
    /// as long as there is a table.
    fn configured_mark(&mut self, wanted: FlowMark) {
        let used = self.config.flow_mark;
        if wanted == used {
            return self.problems.resolve(Kind::OtherMark);
        }
        let message = other_mark(used, wanted, "the table's is used, and all is served as before");
        self.report(Kind::OtherMark, message);
    }

    /// Whether the file of the socket is gone, and why it cannot be made again.
    pub fn socket_gone(&mut self, why: Option<String>) {
        match why {
            None => self.problems.resolve(Kind::SocketGone),
            Some(why) => {
                let message = format!("the daemon's socket had been removed, and it cannot be created again: {why}");
                self.report(Kind::SocketGone, message);
            }
        }
    }

    /// Has the record written anew, which somebody has removed. After a teardown there is none.
    pub fn record_lost(&mut self, now: Now) {
        if self.phase != Phase::TornDown {
            self.due.record_at_once(now.instant);
        }
    }

    /// Who tore the gateway down, while it is.
    pub fn torn_down_by(&self) -> Option<&TornDownBy> {
        self.torn.as_ref().filter(|_| self.phase == Phase::TornDown)
    }

    /// What is set.
    pub fn settings(&self) -> &DaemonSettings {
        &self.settings
    }

    /// The fences, and the mark.
    pub fn config(&self) -> &Config {
        &self.config
    }
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
            | Self::Busy(text)
            | Self::Failed(text) => text.lines().map(ToOwned::to_owned).collect(),
        }
    }
}
