//! The daemon without its edges: what it knows, and what it does about what it hears.
//!
//! Pure: takes messages and the time, and gives jobs, answers and events. No socket, no clock, no task. One job is out at a
//! time; what comes meanwhile is put together, so that a burst of changes becomes one transaction.

mod answer;
mod due;
mod orders;
mod take;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::adopt;
use super::ask::{Applied as ApplyDone, Refused, Reply, TornDown};
use super::events::{Event, Events, What};
use super::roster::{Change, Name, Note, Roster, Verdict};
use super::settings::Settings;
use super::worker::{Done, Job, Outcome};
use crate::config::Config;
use crate::health::Health;
use crate::model::{Endpoint, FlowMark, Service, State};
use crate::reconcile::engine::{Memo, Services};
use crate::reconcile::{ReconcileError, Report};
use crate::record::Applied;
use crate::store::Loaded;
use crate::summary::Summary;
use crate::view::Table;
use crate::words::Counts;

use self::due::Due;
use self::orders::Accepted;
pub use self::orders::ApplyOrder;
pub use self::take::{Vet, Vetted};

/// The time, by both clocks that matter.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// That only goes forward.
    pub instant: Instant,
    /// Since 1970.
    pub unix: Duration,
}

/// Handshakes in flight to a backend that leaves get so long to be answered.
const GRACE: Duration = Duration::from_millis(50);
/// After a failure the kernel is tried again after this, and then after twice as long each time, up to a minute.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Who says what a service should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// The state file.
    File,
    /// The API.
    Api,
}

impl Provider {
    /// As people and the API call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// What was accepted of an apply, and who waits for the kernel to have it.
struct Waiter {
    reply: Reply<Result<ApplyDone, Refused>>,
    services: Counts,
    backends: Counts,
    warnings: Vec<String>,
    since: Instant,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for the providers' first word.
    Waiting,
    /// It looks what the kernel has.
    Looking,
    /// It keeps the kernel as it should be.
    Running,
    /// It was torn down.
    TornDown,
}

/// What it knows and does.
pub struct Core {
    settings: Settings,
    config: Config,
    phase: Phase,
    /// Every provider has said its first word.
    ready: bool,
    roster: Roster,
    health: Health,
    file: Option<State>,
    api: State,
    /// What the store holds.
    loaded: Loaded,
    /// Nobody knows what it held.
    store_lost: bool,
    orders: VecDeque<ApplyOrder>,
    accepted: Option<Accepted>,
    origin: String,
    events: Events,
    due: Due,
    /// The job that is out, by what it is for.
    out: Option<Out>,
    waiting: Vec<Waiter>,
    teardown: Vec<Reply<Result<TornDown, Refused>>>,
    /// A full run is due, and why.
    full: Option<String>,
    /// Why the next change happens.
    cause: String,
    /// When it was known.
    known: Option<Instant>,
    failures: u32,
    problems: BTreeMap<&'static str, String>,
    /// When backends were found to be as they are.
    since: BTreeMap<SocketAddr, u64>,
    table: Option<Table>,
    view: View,
    started: Duration,
    namespace: u64,
}

/// A job that is out.
struct Out {
    waiters: Vec<Waiter>,
    cause: String,
    known: Instant,
}

impl Out {
    /// A job that nobody waits for.
    fn errand(now: Now) -> Self {
        Self {
            waiters: Vec::new(),
            cause: String::new(),
            known: now.instant,
        }
    }
}

/// What only the process knows of itself.
#[derive(Debug, Clone, Default)]
struct View {
    owns_table: bool,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(settings: Settings, config: Config, namespace: u64, now: Now) -> Self {
        let roster = Roster::new(settings.all_failed);
        let health = Health::new(settings.max_probes);
        Self {
            phase: Phase::Waiting,
            ready: false,
            roster,
            health,
            file: None,
            api: State::default(),
            loaded: Loaded::default(),
            store_lost: false,
            orders: VecDeque::new(),
            accepted: None,
            origin: settings
                .state
                .as_ref()
                .map_or_else(|| "api".into(), |path| path.to_string_lossy().into_owned()),
            events: Events::default(),
            due: Due::new(settings.check_interval),
            out: None,
            waiting: Vec::new(),
            teardown: Vec::new(),
            full: None,
            cause: String::new(),
            known: None,
            failures: 0,
            problems: BTreeMap::new(),
            since: BTreeMap::new(),
            table: None,
            view: View::default(),
            started: now.unix,
            namespace,
            settings,
            config,
        }
    }

    /// The probes that are to be made.
    pub fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// Who serves, and who shall.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The mark of our flows.
    pub fn mark(&self) -> FlowMark {
        self.config.flow_mark
    }

    /// Whether the kernel holds what is desired, as far as is known.
    pub fn in_sync(&self) -> bool {
        self.phase == Phase::Running
            && self.full.is_none()
            && self.problems.is_empty()
            && !self.roster.is_dirty()
            && self.out.as_ref().is_none_or(|out| out.cause.is_empty())
    }

    /// Whether a job is out.
    pub fn is_busy(&self) -> bool {
        self.out.is_some()
    }

    /// How it is, in a line.
    pub fn status_line(&self) -> String {
        let leaving = match self.roster.leavers().len() {
            0 => String::new(),
            some => format!(", {some} backends leave"),
        };
        let problem = self.problems.values().next();
        let problem = problem.map(|problem| format!("; {problem}")).unwrap_or_default();
        format!("{} services{leaving}{problem}", self.roster.wanted().len())
    }

    /// Whether it has made the kernel equal to what is desired once.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::TornDown) && self.full.is_none() && self.table.is_some()
            || self.phase == Phase::TornDown
    }

    /// When [`Self::next_job`] may have something to do though nothing is heard.
    pub fn wakes_at(&self) -> Option<Instant> {
        if self.out.is_some() {
            return None;
        }
        match self.phase {
            Phase::Waiting => self.due.retry,
            Phase::Looking | Phase::TornDown => None,
            Phase::Running => {
                let times = [self.roster.next_deadline(), self.due.next()];
                times.into_iter().flatten().min()
            }
        }
    }

    /// What the kernel should be asked or told now; `None` while a job is out, or there is nothing to do.
    pub fn next_job(&mut self, now: Now) -> Option<Job> {
        if self.out.is_some() {
            return None;
        }
        let job = self.choose(now)?;
        // Changes have said already whom they are for.
        self.out.get_or_insert_with(|| Out::errand(now));
        Some(job)
    }

    fn choose(&mut self, now: Now) -> Option<Job> {
        let is_early = self.due.retry.is_some_and(|at| at > now.instant);
        match self.phase {
            Phase::Waiting if self.ready && !is_early => {
                self.due.retry = None;
                self.phase = Phase::Looking;
                return Some(Job::Look(self.wanted_summary()));
            }
            Phase::Waiting | Phase::Looking => return None,
            Phase::TornDown | Phase::Running => {}
        }
        if !self.teardown.is_empty() {
            return Some(Job::Teardown);
        }
        if self.phase == Phase::TornDown {
            return None;
        }
        self.roster.tick(now.instant);
        if self.full.is_some() {
            return if is_early { None } else { Some(self.run_in_full(now)) };
        }
        self.change(now).or_else(|| self.due_job(now))
    }

    fn run_in_full(&mut self, now: Now) -> Job {
        self.due.retry = None;
        let change = self.settle(now);
        self.after(&change, now);
        self.cause = self.full.clone().unwrap_or_default();
        self.take_along(now);
        Job::All(self.roster.serving().clone(), self.memo(now))
    }

    fn change(&mut self, now: Now) -> Option<Job> {
        if !self.roster.is_dirty() && self.waiting.is_empty() {
            self.known = None;
            return None;
        }
        let change = self.settle(now);
        self.after(&change, now);
        if change.is_empty() {
            for waiter in std::mem::take(&mut self.waiting) {
                waiter.answer(&Report::default(), self.roster.leavers().len(), now);
            }
            self.known = None;
            self.cause.clear();
            return None;
        }
        if self.cause.is_empty() {
            "probes and drains".clone_into(&mut self.cause);
        }
        self.take_along(now);
        Some(Job::Change(change))
    }

    /// The next job is for all who wait.
    fn take_along(&mut self, now: Now) {
        self.out = Some(Out {
            waiters: std::mem::take(&mut self.waiting),
            cause: std::mem::take(&mut self.cause),
            known: self.known.take().unwrap_or(now.instant),
        });
    }

    fn settle(&mut self, now: Now) -> Change {
        let health = &self.health;
        let verdict = |endpoint: Endpoint| {
            let view = health.get(endpoint.into());
            let nothing = Verdict {
                open: true,
                ..Verdict::default()
            };
            view.map_or(nothing, |view| Verdict {
                good: view.in_balance,
                dead: view.dead,
                open: matches!(view.state, crate::health::State::Unknown { .. }),
            })
        };
        let change = self.roster.settle(&verdict, now.instant);
        self.probe(now.instant);
        change
    }

    /// Tells those who probe whom to probe.
    fn probe(&mut self, now: Instant) {
        for (endpoint, health) in self.roster.take_probes() {
            if let Some(params) = health {
                let presumed = self.roster.is_balanced(endpoint);
                let target = crate::health::Target { params, presumed };
                self.health.upsert(endpoint.into(), target, now);
            } else {
                self.since.remove(&endpoint.into());
                self.health.remove(endpoint.into());
            }
        }
    }

    /// What follows from a change besides the job.
    fn after(&mut self, change: &Change, now: Now) {
        for note in &change.notes {
            self.tell(note, now);
        }
        if !change.unbalanced.is_empty() {
            self.due.forget(change.unbalanced.iter().copied(), now.instant + GRACE);
        }
        if !change.is_empty() {
            self.due.record(now.instant);
            self.due.tidy(now.instant);
        }
        self.due.drains(!self.roster.leavers().is_empty(), now.instant);
    }

    fn tell(&mut self, note: &Note, now: Now) {
        let what = match note.clone() {
            Note::Draining(service, at, time) => What::Draining {
                service: service.into(),
                backend: at.into(),
                seconds: time.as_secs(),
            },
            Note::Back(service, at) => What::Back {
                service: service.into(),
                backend: at.into(),
            },
            Note::Retired(service, at, over, flows) => What::Retired {
                service: service.into(),
                backend: at.into(),
                reason: over.name(),
                flows,
            },
            Note::NoneGood(service, kept) => What::NoneHealthy {
                service: service.into(),
                kept,
            },
        };
        self.note(what, now);
    }

    /// Notes an event, and logs it.
    pub fn note(&mut self, what: What, now: Now) -> Arc<Event> {
        what.log();
        self.events.note(what, now.unix)
    }

    fn memo(&self, now: Now) -> Memo {
        let left = self.roster.leavers().iter().filter_map(|leaving| {
            let left = leaving.drain.deadline()?.saturating_duration_since(now.instant);
            let until = now.unix + left;
            // Rounded up: after a restart it may end later, never earlier.
            let until = until.as_secs() + u64::from(until.subsec_nanos() > 0);
            Some((leaving.backend.endpoint.into(), until))
        });
        Memo {
            applied: Applied {
                at: now.unix.as_secs(),
                origin: self.origin.clone(),
            },
            drains: left.collect(),
        }
    }

    fn due_job(&mut self, now: Now) -> Option<Job> {
        let at = now.instant;
        if self.due.take_drift() {
            return Some(Job::Check(self.roster.serving().clone(), self.memo(now)));
        }
        if let Some(left) = self.due.take_forget(at) {
            let left = left.into_iter().filter(|endpoint| !self.roster.is_balanced(*endpoint));
            let left: BTreeSet<SocketAddr> = left.map(SocketAddr::from).collect();
            if !left.is_empty() {
                return Some(Job::Forget(left));
            }
        }
        if self.due.take_count(at) {
            let draining = self.roster.leavers().iter();
            let draining = draining.filter(|leaving| leaving.drain.deadline().is_some());
            let draining: BTreeSet<SocketAddr> = draining.map(|leaving| leaving.backend.endpoint.into()).collect();
            if !draining.is_empty() {
                return Some(Job::Count(draining));
            }
        }
        if self.due.take_check(at) {
            return Some(Job::Check(self.roster.serving().clone(), self.memo(now)));
        }
        if self.due.take_tidy(at) {
            return Some(Job::Tidy(self.roster.serving().clone()));
        }
        if self.due.take_record(at) {
            return Some(Job::Record(self.roster.serving().clone(), self.memo(now)));
        }
        None
    }

    /// The last job before the end, if the record is not up to date.
    pub fn last_job(&mut self, now: Now) -> Option<Job> {
        let has = self.phase == Phase::Running && self.full.is_none();
        has.then(|| Job::Record(self.roster.serving().clone(), self.memo(now)))
    }

    /// A job was done.
    pub fn done(&mut self, outcome: Outcome, now: Now) {
        let Some(out) = self.out.take() else { return };
        if let Some(table) = outcome.table {
            self.view.owns_table = table.as_ref().is_some_and(|table| table.owner.is_some());
            self.table = table;
        }
        match outcome.done {
            Done::Looked(found) => self.looked(found, now),
            Done::All(Ok(report)) | Done::Changed(Ok(Some(report))) => {
                self.full = None;
                self.failures = 0;
                self.problems.remove("kernel");
                self.committed(out, &report, outcome.at, now);
            }
            Done::Changed(Ok(None)) => {
                self.waiting.extend(out.waiters);
                self.known = Some(out.known);
                self.full = Some(out.cause);
            }
            Done::All(Err(error)) | Done::Changed(Err(error)) => self.failed(out, &error, now),
            Done::Checked(checked) => self.checked(checked, out, now),
            Done::Counted(Ok(counts)) => {
                let counts = counts
                    .into_iter()
                    .filter_map(|(at, flows)| Some((Endpoint::try_from(at).ok()?, flows)))
                    .collect();
                for note in self.roster.counted(&counts, now.instant) {
                    self.tell(&note, now);
                }
                self.due
                    .counted(!self.roster.leavers().is_empty(), outcome.took, now.instant);
            }
            Done::Counted(Err(error)) => {
                tracing::warn!(%error, "failed to count the flows of backends that leave");
                self.due
                    .counted(!self.roster.leavers().is_empty(), outcome.took, now.instant);
            }
            Done::Forgot(Err(error)) => {
                tracing::warn!(%error, "failed to forget handshakes that nobody answers");
            }
            Done::Tidied(Err(error)) => {
                tracing::warn!(%error, "failed to remove the counters of what is gone");
                self.due.drift();
            }
            Done::Recorded => self.due.recorded(outcome.took),
            Done::Forgot(Ok(_)) | Done::Tidied(Ok(())) => {}
            Done::TornDown(torn) => self.torn_down(torn, now),
        }
    }

    fn committed(&mut self, out: Out, report: &Report, at: Instant, now: Now) {
        let draining = self.roster.leavers().len();
        for waiter in out.waiters {
            waiter.answer(report, draining, now);
        }
        if report.failed > 0 {
            self.full = Some("flows that could not be flushed".into());
            self.retry(now);
        }
        if let Some(why) = &report.rebuilt {
            tracing::warn!("the table was replaced: {why}");
        }
        let what = What::Committed {
            cause: out.cause,
            elements: report.elements,
            transactions: report.transactions,
            flushed: report.flushed,
            forgotten: report.forgotten,
            micros: u64::try_from(at.saturating_duration_since(out.known).as_micros()).unwrap_or(u64::MAX),
        };
        if report.transactions > 0 || report.flushed > 0 {
            self.note(what, now);
        }
    }

    fn failed(&mut self, out: Out, error: &ReconcileError, now: Now) {
        let text = error.to_string();
        if self.problems.get("kernel") != Some(&text) {
            self.note(What::Failed { error: text.clone() }, now);
        }
        self.problems.insert("kernel", text.clone());
        for waiter in out.waiters {
            let text = format!("taken, but the kernel does not hold it yet, and will be told again: {text}");
            let _ = waiter.reply.send(Err(Refused::Failed(text)));
        }
        self.full = Some(out.cause);
        self.retry(now);
    }

    fn retry(&mut self, now: Now) {
        let pause = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MOST);
        self.failures = self.failures.saturating_add(1);
        self.due.retry = Some(now.instant + pause);
    }

    fn checked(&mut self, checked: Result<crate::reconcile::engine::Checked, ReconcileError>, out: Out, now: Now) {
        match checked {
            Ok(checked) => {
                self.problems.remove("kernel");
                if checked.drifted || checked.report.transactions > 0 {
                    let what = format!(
                        "{} elements in {} transactions{}",
                        checked.report.elements,
                        checked.report.transactions,
                        checked.report.rebuilt.map(|why| format!("; {why}")).unwrap_or_default()
                    );
                    self.note(What::Repaired { what }, now);
                    self.due.record(now.instant);
                }
            }
            Err(error) => {
                let out = Out {
                    cause: "a check that failed".into(),
                    ..out
                };
                self.failed(out, &error, now);
            }
        }
    }

    fn looked(&mut self, found: Result<crate::reconcile::engine::Found, ReconcileError>, now: Now) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let text = error.to_string();
                self.note(What::Failed { error: text.clone() }, now);
                self.problems.insert("kernel", text);
                self.phase = Phase::Waiting;
                self.retry(now);
                return;
            }
        };
        let mut services = adopt::services(&found.summary);
        self.complete(&mut services);
        let backends: usize = services.iter().map(|service| service.backends.len()).sum();
        let adopted = if services.is_empty() {
            "nothing".into()
        } else {
            format!("{} services with {backends} backends", services.len())
        };
        let left = found.drains.into_iter().filter_map(|(at, until)| {
            let left = Duration::from_secs(until).saturating_sub(now.unix);
            Some((Endpoint::try_from(at).ok()?, left))
        });
        self.doubt_empty_file(&services, now);
        // A file that was never good says nothing: what there is stays.
        if self.file.is_none() && self.settings.state.is_some() {
            let of_api: BTreeSet<&str> = self.api.services.iter().map(|service| &*service.name).collect();
            let kept = services.iter().filter(|service| !of_api.contains(&*service.name));
            self.file = State::new(kept.cloned().collect()).ok();
        }
        if self.store_lost {
            let of_file = self.file.as_ref().map(by_name).unwrap_or_default();
            let kept = services.iter().filter(|service| !of_file.contains_key(&*service.name));
            self.api = State::new(kept.cloned().collect()).unwrap_or_default();
        }
        self.roster.adopt(services, &left.collect(), now.instant);
        self.phase = Phase::Running;
        self.full = Some("start".into());
        self.problems.remove("kernel");
        self.want();
        self.probe(now.instant);
        let version = env!("CARGO_PKG_VERSION");
        self.note(What::Started { version, adopted }, now);
    }

    /// What the kernel does not know of a service is as those say who want it: a drain that the record does not know yet
    /// has the time that its service gives.
    fn complete(&self, services: &mut [Service]) {
        let files = self.file.iter().flat_map(|file| &file.services);
        let wanted: BTreeMap<&str, &Service> = files
            .chain(&self.api.services)
            .map(|service| (&*service.name, service))
            .collect();
        for service in services {
            if let Some(wanted) = wanted.get(&*service.name) {
                service.drain_timeout = wanted.drain_timeout;
                service.health = wanted.health;
                service.labels.clone_from(&wanted.labels);
            }
        }
    }

    /// Nothing was known of what is served when the file said its first word: a broken template must not wipe a gateway.
    fn doubt_empty_file(&mut self, found: &[Service], now: Now) {
        let of_api = by_name(&self.api);
        let lost = found
            .iter()
            .filter(|service| !of_api.contains_key(&*service.name))
            .count();
        let is_empty = self.file.as_ref().is_some_and(|file| file.services.is_empty());
        if is_empty && lost > 0 && !self.settings.allow_empty {
            self.file = None;
            self.reject("file", vec![take::empty(lost)], now);
        }
    }

    /// Puts what all providers say into the roster.
    fn want(&mut self) {
        let all = self
            .file
            .iter()
            .flat_map(|file| &file.services)
            .chain(&self.api.services);
        let mut wanted: Services = BTreeMap::new();
        for service in all {
            let known = self.roster.wanted().get(&service.name);
            let same = known.filter(|known| ***known == *service).cloned();
            let service = same.unwrap_or_else(|| Arc::new(service.clone()));
            wanted.insert(service.name.clone(), service);
        }
        self.roster.want_all(&wanted);
    }

    fn wanted_summary(&self) -> Summary {
        let all = self
            .file
            .iter()
            .flat_map(|file| &file.services)
            .chain(&self.api.services);
        all.collect()
    }
}

/// The services of a state by name.
pub(super) fn by_name(state: &State) -> BTreeMap<&str, &Service> {
    state.services.iter().map(|service| (&*service.name, service)).collect()
}

/// Names of services that two have.
pub(super) fn common<'a>(ours: &'a State, theirs: &State) -> Vec<&'a Name> {
    let theirs = by_name(theirs);
    let ours = ours.services.iter().map(|service| &service.name);
    ours.filter(|name| theirs.contains_key(&***name)).collect()
}

impl Waiter {
    fn answer(self, report: &Report, draining: usize, now: Now) {
        let time = now.instant.saturating_duration_since(self.since);
        let report = Report {
            services: self.services,
            backends: self.backends,
            ..report.clone()
        };
        let mut json = crate::report::json(&report, time);
        json["draining"] = draining.into();
        let mut text = crate::report::text(&report, time);
        if draining > 0 {
            text = format!("{}; {draining} backends drain\n", text.trim_end());
        }
        let done = ApplyDone {
            report: json,
            text,
            warnings: self.warnings,
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(Ok(done));
    }
}
