//! The daemon without its edges: what it knows, and what it does about what it hears.
//!
//! Pure: takes messages and the time, and gives jobs, answers and events. No socket, no clock, no task. One job is out at a
//! time; what comes meanwhile is put together, so that a burst of changes becomes one transaction.

mod addon;
mod api_services;
mod batch;
mod deploys;
mod fences;
mod held_back;
mod in_record;
mod input;
mod observation;
mod orders;
mod orphans;
mod problems;
mod rejected;
mod replies;
mod restored;
mod results;
mod start;
mod surroundings;
mod timers;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{Event, Events, What};
use crate::addon::AddonOutcome;
use crate::config::Config;
use crate::config::daemon::DaemonSettings;
use crate::control::job::Job;
use crate::control::membership::{Membership, MembershipChange, Name, Note, Probing, Verdict};
use crate::control::request::{
    AddonRefused, Applied as ApplyDone, Edited, EditedBatch, Peer, Refused, Reply, Resumed, TornDown,
};
use crate::reconcile::Report;
use crate::reconcile::engine::ServicesByName;
use crate::record::{Applied, StoreRevision, TornDown as TornDownBy};
use crate::report::ApplyReport;
use crate::store::last::Last;
use crate::view::Table;
use tcpgw_core::diff::{ChangeCounts, count};
use tcpgw_core::health::{Health, Probe};
use tcpgw_core::model::{Endpoint, FlowMark, Service, State};
use tcpgw_core::problem::ProblemList;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::Pair;

use self::addon::Addon;
use self::api_services::Held;
use self::deploys::{Deploys, Reached};
use self::held_back::HeldBack;
pub use self::input::{Unvetted, Vet, Vetted};
use self::observation::Observing;
use self::orders::OrderQueue;
pub use self::orders::{ApplyOrder, MOST_ORDERS, Order};
use self::orphans::{LastTrouble, Orphans};
use self::problems::Judgement;
use self::rejected::Rejected;
use self::timers::Due;

/// The time, by the clocks that matter.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// That only goes forward.
    pub instant: Instant,
    /// Since 1970; somebody may set this clock.
    pub unix: Duration,
    /// Since the machine has started (`CLOCK_BOOTTIME`): the same clock for each process until it starts anew.
    pub boot: Duration,
}

/// What an order is told while nothing is served.
const TORN_DOWN: &str = "the gateway is torn down and serves nothing: `tcpgw resume` ends that";
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

/// Who waits for the kernel to have something.
struct PendingReply {
    wants: ReplyKind,
    since: Instant,
}

/// What was accepted and written, and will be answered.
enum ReplyKind {
    Apply {
        reply: Reply<Result<ApplyDone, Refused>>,
        services: ChangeCounts,
        backends: ChangeCounts,
        warnings: Vec<String>,
    },
    Edit(Reply<Result<Edited, Refused>>, Box<Edited>),
    Batch(Reply<Result<EditedBatch, Refused>>, Box<EditedBatch>),
    /// A deploy was taken back.
    Restored {
        id: u64,
        service: Name,
        reason: String,
        reply: Reply<Result<u64, Refused>>,
    },
    Pause(Reply<Result<Vec<String>, Refused>>),
    Resume(Reply<Result<Resumed, Refused>>),
    /// It is durable, and is answered so whatever the kernel says: that is told again.
    Addon(Reply<Result<AddonOutcome, AddonRefused>>, Box<AddonOutcome>),
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
    /// It was torn down, and serves nothing until somebody says so.
    TornDown,
}

/// What it knows and does.
pub struct Core {
    settings: DaemonSettings,
    config: Config,
    /// What the configuration, as it was read last, says of `protect_backends`; `config` has what is in effect.
    configured_to_protect: bool,
    phase: Phase,
    /// Every provider has said its first word.
    ready: bool,
    membership: Membership,
    health: Health,
    file: Option<Arc<State>>,
    /// Where `file` was read from.
    file_origin: Option<PathBuf>,
    api: Held,
    addon: Addon,
    orphans: Orphans,
    /// What an earlier daemon wanted, until that has been looked at.
    last: Last,
    last_trouble: LastTrouble,
    /// The kernel's name for this boot.
    boot: String,
    /// The last change of the kernel.
    applied: Option<Applied>,
    /// Who tore the gateway down, if it is.
    torn: Option<TornDownBy>,
    /// Services of the API that were removed by an order, as they were before.
    removed: BTreeMap<Name, Option<Service>>,
    held_back: HeldBack,
    rejected: Rejected,
    /// Why the last reload left the old configuration in place, if it did.
    reload_failed: Option<String>,
    /// What the file says next is judged as a whole.
    judge_all: bool,
    order_queue: OrderQueue,
    deploys: Deploys,
    origin: String,
    events: Events,
    due: Due,
    /// The job that is out, by what it is for.
    out: Option<Out>,
    waiting: Vec<PendingReply>,
    /// Services of which something has changed that the record does not know: the next change of the kernel writes it down.
    unrecorded: BTreeSet<Name>,
    /// What of the record could not be written the last time, and why.
    record_trouble: Option<String>,
    /// Why nothing can be written into the run directory, as was seen there, whether anything had to be written since or not.
    run_dir_trouble: Option<String>,
    teardown: Vec<(Peer, Reply<Result<TornDown, Refused>>)>,
    /// A full run is due, and why.
    full: Option<String>,
    /// Why the next change happens.
    cause: String,
    /// When it was known.
    known: Option<Instant>,
    failures: u32,
    problems: ProblemList,
    judgement: Judgement,
    observing: Observing,
    /// When backends were found to be as they are.
    since: BTreeMap<SocketAddr, u64>,
    table: Option<Table>,
    view: View,
    started: Duration,
    namespace: u64,
}

/// A job that is out.
struct Out {
    pending_replies: Vec<PendingReply>,
    /// How far deploys are when it is done.
    reached: Vec<(u64, Reached)>,
    cause: String,
    known: Instant,
}

impl Out {
    /// A job that nobody waits for.
    fn errand(now: Now) -> Self {
        Self {
            pending_replies: Vec::new(),
            reached: Vec::new(),
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
    pub fn new(settings: DaemonSettings, config: Config, namespace: u64, now: Now) -> Self {
        let membership = Membership::new(settings.all_failed);
        let health = Health::new(settings.max_probes);
        Self {
            phase: Phase::Waiting,
            ready: false,
            membership,
            health,
            file: None,
            file_origin: None,
            api: Held::default(),
            addon: Addon::new(config.addon.clone()),
            orphans: Orphans::default(),
            last: Last::default(),
            last_trouble: LastTrouble::default(),
            boot: String::new(),
            applied: None,
            torn: None,
            removed: BTreeMap::new(),
            held_back: HeldBack::default(),
            rejected: Rejected::default(),
            reload_failed: None,
            judge_all: false,
            order_queue: OrderQueue::default(),
            deploys: Deploys::default(),
            origin: origin(&settings),
            // No other daemon has both.
            events: Events::new(&format!("{:x}.{}", now.unix.as_nanos(), std::process::id())),
            due: Due::new(settings.check_interval),
            out: None,
            waiting: Vec::new(),
            unrecorded: BTreeSet::new(),
            record_trouble: None,
            run_dir_trouble: None,
            teardown: Vec::new(),
            full: None,
            cause: String::new(),
            known: None,
            failures: 0,
            problems: ProblemList::default(),
            judgement: Judgement::default(),
            observing: Observing::new(now.instant),
            since: BTreeMap::new(),
            table: None,
            view: View::default(),
            started: now.unix,
            namespace,
            settings,
            configured_to_protect: config.protect_backends,
            config,
        }
    }

    /// The probes that are to be made.
    pub fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// Probes to send now. They come from where clients' connections come from: a service's `source_addresses`, in turn.
    pub fn due_probes(&mut self, now: Now) -> Vec<Probe> {
        let mut probes = self.health.due(now.instant);
        for probe in &mut probes {
            probe.source = self.probe_source(probe);
        }
        probes
    }

    fn probe_source(&self, probe: &Probe) -> Option<IpAddr> {
        let endpoint = Endpoint::try_from(probe.endpoint).ok()?;
        let of_deploy = || self.membership.wanted().get(self.deploys.service_of(endpoint)?);
        let service = self.membership.probed_for(endpoint).or_else(of_deploy)?;
        let is_of_family = |address: &&IpAddr| address.is_ipv4() == endpoint.address.is_ipv4();
        let addresses = || service.source_addresses.iter().filter(is_of_family);
        // Numbers of probes go by all endpoints: with two of them one would always get the even ones.
        let round = usize::try_from(probe.round).unwrap_or_default();
        addresses().nth(round % addresses().count().max(1)).copied()
    }

    /// Who serves, and who shall.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The mark of our flows.
    pub fn mark(&self) -> FlowMark {
        self.config.flow_mark
    }

    /// Whether the kernel holds what is desired, all of it, as far as is known.
    pub fn in_sync(&self) -> bool {
        self.holds() && !self.problems.iter().any(|problem| problem.kind.is_out_of_sync())
    }

    /// Whether the kernel holds what is desired, as far as is known.
    fn holds(&self) -> bool {
        self.phase == Phase::Running
            && self.full.is_none()
            && !self.membership.is_dirty()
            && self.out.as_ref().is_none_or(|out| out.cause.is_empty())
    }

    /// Whether a job is out.
    pub fn is_busy(&self) -> bool {
        self.out.is_some()
    }

    /// How it is, in a line.
    pub fn status_line(&self) -> String {
        let leaving = match self.membership.draining_backends().len() {
            0 => String::new(),
            some => format!(", {} draining", count(some, "backend")),
        };
        let problem = self.problems.line();
        let problem = problem.map(|problem| format!("; {problem}")).unwrap_or_default();
        let services = count(self.membership.wanted().len(), "service");
        format!("{services}{leaving}{problem}")
    }

    /// Whether it has made the kernel equal to what is desired once.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::TornDown) && self.full.is_none() && self.table.is_some()
            || self.phase == Phase::TornDown
    }

    /// Whether it is known what the kernel holds: what was desired before has been compared with it.
    fn has_looked(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::TornDown)
    }

    /// When [`Self::next_job`] may have something to do though nothing is heard.
    pub fn wakes_at(&self) -> Option<Instant> {
        let to_remember = self.due.next_remember().filter(|_| self.knows_what_to_remember());
        let of_store = [self.deploys.next_time(), self.due.store, to_remember];
        let of_store = of_store.into_iter().flatten().filter(|_| self.order_queue.is_idle());
        let of_kernel = match self.phase {
            _ if self.out.is_some() => None,
            Phase::Waiting => self.due.retry,
            Phase::Looking => None,
            Phase::TornDown => self.due.next_record().filter(|_| self.is_teardown_unwritten()),
            Phase::Running if self.held_back.awaits_first_judgement() => None,
            Phase::Running => {
                let times = [self.membership.next_deadline(), self.due.next()];
                times.into_iter().flatten().min()
            }
        };
        let of_problems = self.judgement.next_time();
        let of_teardown = self.due.teardown.filter(|_| self.out.is_none());
        of_store.chain(of_kernel).chain(of_problems).chain(of_teardown).min()
    }

    /// What the kernel should be asked or told now; `None` while a job is out, or there is nothing to do.
    pub fn next_job(&mut self, now: Now) -> Option<Job> {
        self.tell_problems(now);
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
        if let Some((by, _)) = self.teardown.first() {
            let by = *by;
            if self.remembers_first(now.instant) {
                return None;
            }
            return Some(Job::Teardown(self.teardown_by(by, now)));
        }
        if self.phase == Phase::TornDown {
            return self.note_teardown_again(now);
        }
        if self.held_back.awaits_first_judgement() {
            return None;
        }
        for service in self.membership.tick(now.instant) {
            self.unrecorded.insert(service.clone());
            let service = service.into();
            self.note(
                What::Resumed {
                    service,
                    reason: "time",
                    uid: None,
                },
                now,
            );
        }
        if self.full.is_some() {
            return if is_early { None } else { Some(self.run_in_full(now)) };
        }
        if self.due.take_late_record(now.instant) {
            return Some(Job::Record(self.membership.serving().clone(), self.memo(now)));
        }
        self.change(now).or_else(|| self.due_job(now))
    }

    fn run_in_full(&mut self, now: Now) -> Job {
        self.due.retry = None;
        let change = self.settle(now);
        self.after(&change, now);
        self.cause = self.full.clone().unwrap_or_default();
        self.take_along(now);
        self.unrecorded.clear();
        Job::All(self.membership.serving().clone(), self.memo(now))
    }

    fn change(&mut self, now: Now) -> Option<Job> {
        let is_fresh = self.deploys.take_fresh();
        if !self.membership.is_dirty() && self.waiting.is_empty() && self.unrecorded.is_empty() && !is_fresh {
            self.known = None;
            return None;
        }
        let change = self.settle(now);
        self.after(&change, now);
        let memo = self.change_memo(&change, now);
        if change.is_empty() && memo.services.is_empty() {
            for pending in std::mem::take(&mut self.waiting) {
                self.answer(pending, Ok(&Report::default()), now);
            }
            self.reach(self.deploys.reached(&self.membership), now);
            self.known = None;
            self.cause.clear();
            return None;
        }
        if self.cause.is_empty() {
            "probes and drains".clone_into(&mut self.cause);
        }
        self.take_along(now);
        Some(Job::Change(change, memo))
    }

    /// The next job is for all who wait.
    fn take_along(&mut self, now: Now) {
        self.deploys.take_fresh();
        self.out = Some(Out {
            pending_replies: std::mem::take(&mut self.waiting),
            reached: self.deploys.reached(&self.membership),
            cause: std::mem::take(&mut self.cause),
            known: self.known.take().unwrap_or(now.instant),
        });
    }

    fn settle(&mut self, now: Now) -> MembershipChange {
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
                open: matches!(view.state, tcpgw_core::health::State::Unknown { .. }),
                failed: view.failed,
                answered: view.answered,
            })
        };
        let change = self.membership.settle(&verdict, now.instant);
        self.probe(now.instant);
        self.judgement.outdate();
        change
    }

    /// Tells those who probe whom to probe.
    fn probe(&mut self, now: Instant) {
        for (endpoint, probing) in self.membership.take_probes() {
            let forgets = match probing {
                Probing::With(_) | Probing::Again(_) => false,
                Probing::Anew(_) => true,
                Probing::Stop => !self.deploys.asks(endpoint),
            };
            if forgets {
                self.since.remove(&endpoint.into());
                self.health.remove(endpoint.into());
            }
            if let Probing::With(params) | Probing::Again(params) | Probing::Anew(params) = probing {
                let presumed = !forgets && self.membership.is_balanced(endpoint);
                let target = tcpgw_core::health::Target { params, presumed };
                self.health.upsert(endpoint.into(), target, now);
            }
            if matches!(probing, Probing::Again(_)) {
                self.health.probe_now(endpoint.into(), now);
            }
        }
    }

    /// What follows from a change besides the job.
    fn after(&mut self, change: &MembershipChange, now: Now) {
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
        self.due
            .drains(!self.membership.draining_backends().is_empty(), now.instant);
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
        let app = what.service().and_then(|service| self.app_of_service(service)).cloned();
        what.log(app.as_ref(), |names| self.naming_apps(names));
        self.events.note(what, app, now.unix)
    }

    fn teardown_by(&self, by: Peer, now: Now) -> TornDownBy {
        TornDownBy {
            at: now.unix.as_secs(),
            uid: by.uid,
            boot: self.boot.clone(),
            pauses: self.pauses(now),
        }
    }

    /// The kernel was changed.
    fn changed(&mut self, now: Now) {
        self.applied = Some(self.change_now(now));
        self.due.record(now.instant);
    }

    /// The record says which file its services are of, also where the kernel need not change for that.
    fn judge_origin(&mut self, now: Now) {
        let Some(applied) = &self.applied else { return };
        let origin = self.change_now(now).origin;
        if applied.origin != origin {
            let at = applied.at;
            self.applied = Some(Applied {
                at,
                origin,
                known: now.boot,
                store: Some(self.store_revision()),
            });
            self.due.record_at_once(now.instant);
        }
    }

    fn change_now(&self, now: Now) -> Applied {
        let origin = self.file_origin.as_ref().filter(|_| self.file.is_some());
        Applied {
            at: now.unix.as_secs(),
            origin: origin.map_or_else(|| self.origin.clone(), |path| path.to_string_lossy().into_owned()),
            known: now.boot,
            store: Some(self.store_revision()),
        }
    }

    /// How far the store has got, as far as is known: one that is older can be told from it.
    fn store_revision(&self) -> StoreRevision {
        StoreRevision::new(&self.settings.store, self.known_revision())
    }

    fn known_revision(&self) -> u64 {
        if self.order_queue.lost {
            self.last.revision
        } else {
            self.api.revision()
        }
    }

    fn due_job(&mut self, now: Now) -> Option<Job> {
        let at = now.instant;
        if self.due.take_drift() {
            return Some(Job::Check(self.membership.serving().clone(), self.memo(now)));
        }
        if let Some(left) = self.due.take_forget(at) {
            let left = left.into_iter().filter(|pair| !self.membership.is_balanced_there(pair));
            let left: BTreeSet<Pair> = left.collect();
            if !left.is_empty() {
                return Some(Job::Forget(left));
            }
        }
        if self.due.take_count(at) {
            let draining = self.membership.draining_pairs();
            if !draining.is_empty() {
                return Some(Job::Count(draining));
            }
        }
        if self.due.take_check(at) {
            return Some(Job::Check(self.membership.serving().clone(), self.memo(now)));
        }
        if self.due.take_flush(at) {
            return Some(Job::Flush(self.membership.serving().clone()));
        }
        if self.due.take_tidy(at) {
            return Some(Job::Tidy(self.membership.serving().clone()));
        }
        if self.due.take_record(at) {
            return Some(Job::Record(self.membership.serving().clone(), self.memo(now)));
        }
        None
    }

    /// The last job before the end, if the record is not up to date.
    pub fn last_job(&mut self, now: Now) -> Option<Job> {
        let has = self.phase == Phase::Running && self.full.is_none();
        has.then(|| Job::Record(self.membership.serving().clone(), self.memo(now)))
    }

    /// Puts that into the membership.
    fn want(&mut self, now: Instant) {
        let of_name = |service: &Arc<Service>| (service.name.clone(), Arc::clone(service));
        let wanted: ServicesByName = self.desired().map(of_name).collect();
        self.membership.want_all(&wanted, now);
    }

    /// What services may be called that only the kernel tells of.
    fn wanted_summary(&self) -> Summary {
        // A service that is held back is in the kernel where it was before.
        let kept = self.last.kept.iter().filter(|kept| !kept.is_unserved);
        let mut summary: Summary = kept.map(|kept| &*kept.service).collect();
        summary.complete_from(&self.desired().map(AsRef::as_ref).collect());
        let last = self.last.services.iter().map(|(_, service)| &**service);
        summary.complete_from(&last.collect());
        // One that was removed a moment ago may be there still, and no record knows it.
        summary.complete_from(&self.removed.values().flatten().collect());
        summary
    }

    /// The kernel has what somebody waits for, or did not take it.
    fn answer(&mut self, pending: PendingReply, outcome: Result<&Report, Unheld<'_>>, now: Now) {
        let PendingReply { wants, since } = pending;
        let outcome = outcome.map_err(Refused::from);
        // Whoever asked may be gone.
        match wants {
            ReplyKind::Apply {
                reply,
                services,
                backends,
                warnings,
            } => {
                let time = now.instant.saturating_duration_since(since);
                let draining = self.membership.draining_backends().len();
                let done = outcome.map(|report| {
                    let report = Report {
                        services,
                        backends,
                        ..report.clone()
                    };
                    applied(&report, draining, warnings, time)
                });
                drop(reply.send(done));
            }
            ReplyKind::Edit(reply, edited) => drop(reply.send(outcome.map(|_| *edited))),
            ReplyKind::Batch(reply, edited) => drop(reply.send(outcome.map(|_| *edited))),
            ReplyKind::Restored {
                id,
                service,
                reason,
                reply,
            } => {
                self.tell_deploy(id, &service, "undone", Some(reason), now);
                drop(reply.send(outcome.map(|_| id)));
            }
            ReplyKind::Pause(reply) => drop(reply.send(outcome.map(|_| self.unrecorded_order()))),
            ReplyKind::Resume(reply) => {
                let warnings = self.unrecorded_order();
                let resumed = |_: &Report| Resumed {
                    resumed: true,
                    warnings,
                };
                drop(reply.send(outcome.map(resumed)));
            }
            ReplyKind::Addon(reply, done) => drop(reply.send(Ok(*done))),
        }
    }
}

/// Why the kernel does not hold what was taken.
#[derive(Debug, Clone, Copy)]
enum Unheld<'a> {
    /// It failed, and is told again.
    Failed(&'a str),
    /// A teardown came first.
    TornDown(&'a str),
}

impl From<Unheld<'_>> for Refused {
    fn from(unheld: Unheld<'_>) -> Self {
        Self::Failed(match unheld {
            Unheld::Failed(error) => {
                format!("accepted, but not in effect in the kernel yet; the daemon tries again: {error}")
            }
            Unheld::TornDown(why) => format!("accepted, but not in effect in the kernel: {why}"),
        })
    }
}

/// Where changes that nobody ordered come from.
fn origin(settings: &DaemonSettings) -> String {
    let path = settings.state.as_ref();
    path.map_or_else(|| "api".into(), |path| path.to_string_lossy().into_owned())
}

/// What an apply is answered.
fn applied(report: &Report, draining: usize, warnings: Vec<String>, time: Duration) -> ApplyDone {
    let report = ApplyReport::new(report, time, draining);
    ApplyDone {
        text: report.text(),
        report: report.into(),
        warnings,
    }
}
