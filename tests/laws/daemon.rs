//! The daemon's core over a kernel in memory: after any input, and whenever the daemon dies, the kernel has the right table.

mod told;
mod unwritten;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::sample::Index;
use tcpgw::config::Config;
use tcpgw::config::daemon::DaemonSettings;
use tcpgw::control::core::{Core, Now, Vetted};
use tcpgw::control::job::{Job, JobOutcome};
use tcpgw::control::obstacle::{Obstacle, ObstacleKind};
use tcpgw::control::request::{PauseOrder, Peer};
use tcpgw::daemon::kernel_thread::perform;
use tcpgw::provider::News;
use tcpgw::reconcile::Desired;
use tcpgw::reconcile::engine::Engine;
use tcpgw::record::{RecordFile, boot_id};
use tcpgw::store::last::Last;
use tcpgw_core::health;
use tcpgw_core::model::{BackendState, FlowMark, InputProblem, Service, State};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::Kernel;
use tcpgw_kernel::conntrack::CtStatus;
use tcpgw_kernel::fake::{ConnectOutcome, Fail, Fake, KernelCall, Syn};

use crate::clients::{endpoints, syns};
use crate::state;
use crate::states::{FIRST_PORT, PORTS, links, with_source};
use crate::world::clock::next_step;
use crate::world::looking::{IsKnown, Looking};

const NAMESPACE: u64 = 7;
const SEEN_REPLY: u32 = 2;
/// Time that is longer than any drain, interval or retry.
const LONG: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
enum Event {
    /// The state file gets other contents.
    File(Box<State>),
    /// A backend dies, or comes back.
    Flip(Index),
    /// Time passes.
    Wait(u64),
    /// A client connects.
    Connect(Index, u32),
    /// A connection ends.
    End(Index),
    /// Another program writes to another table.
    Disturb,
    /// Another program removes the table, with or without a notification to the daemon.
    Remove(bool),
    /// The next such call fails.
    Fail(KernelCall, Fail),
    /// The clock is set forward by so many seconds.
    Clock(i64),
    /// The daemon is killed, and another one starts.
    Restart,
    /// Interfaces come and go.
    Links(u8),
    /// A local program starts or stops listening on a port.
    Listen(Index),
    /// An address of a backend becomes the gateway's own, or stops being so.
    Own(Index),
}

fn event() -> impl Strategy<Value = Event> {
    let call = prop::sample::select(vec![
        KernelCall::Identity,
        KernelCall::Observe,
        KernelCall::Commit,
        KernelCall::Sweep,
        KernelCall::Settle,
    ]);
    let fail = prop::sample::select(vec![
        Fail::Outdated,
        Fail::UnknownBefore,
        Fail::UnknownAfter,
        Fail::Refused(Errno::ENOMEM),
        Fail::Netlink,
    ]);
    prop_oneof![
        3 => state().prop_map(|state| Event::File(Box::new(state))),
        4 => any::<Index>().prop_map(Event::Flip),
        4 => (0..40_000_u64).prop_map(Event::Wait),
        6 => (any::<Index>(), any::<u32>()).prop_map(|(syn, pick)| Event::Connect(syn, pick)),
        2 => any::<Index>().prop_map(Event::End),
        1 => Just(Event::Disturb),
        1 => any::<bool>().prop_map(Event::Remove),
        1 => (call, fail).prop_filter_map("only a commit can be refused so", |(call, fail)| {
            let fits = call == KernelCall::Commit || matches!(fail, Fail::Netlink);
            fits.then_some(Event::Fail(call, fail))
        }),
        1 => (-10_000..10_000_i64).prop_map(Event::Clock),
        1 => Just(Event::Restart),
        2 => (0..4_u8).prop_map(Event::Links),
        2 => any::<Index>().prop_map(Event::Listen),
        1 => any::<Index>().prop_map(Event::Own),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_kernel_holds_what_it_should(
        first in state(), events in prop::collection::vec(event(), 1..40),
    ) {
        let mut world = World::new(first);
        world.run();
        for event in events {
            let before = world.served();
            world.happen(event);
            world.check()?;
            world.check_stays(&before)?;
        }
        world.end()?;
    }
}

struct World {
    core: Core,
    engine: Option<Engine<Fake>>,
    directory: tempfile::TempDir,
    now: Instant,
    unix: Duration,
    begin: Instant,
    file: State,
    down: BTreeSet<SocketAddr>,
    /// Backends that have answered a probe, or were in the balance when a daemon started.
    met: BTreeSet<SocketAddr>,
    links: Links,
    surroundings: Surroundings,
    looking: Looking,
    troubled: bool,
    /// Last contents of the table, for the case that another program removed it.
    held: Ruleset,
    /// Jobs that were done: those that read the whole table, and those that only delete flows.
    full_runs: usize,
    flushes: usize,
}

/// State of a gateway apart from its table.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    /// Ports on which local programs listen.
    taken: BTreeSet<u16>,
    /// Backends that are the gateway itself.
    own: BTreeSet<SocketAddr>,
}

impl Surroundings {
    fn vet(&self, state: &State, is_known: &dyn Fn(&Service) -> bool) -> Vetted {
        let mut obstacles = Vec::new();
        for service in &state.services {
            let mut add = |kind| {
                obstacles.push(Obstacle {
                    service: service.name.clone(),
                    kind,
                    problem: InputProblem {
                        place: service.name.to_string(),
                        message: format!("{kind:?}"),
                    },
                });
            };
            if self.taken.contains(&service.port.get()) && !is_known(service) {
                add(ObstacleKind::PortTaken);
            }
            for backend in &service.backends {
                if self.own.contains(&backend.endpoint.into()) {
                    add(ObstacleKind::OwnBackend(backend.endpoint));
                }
            }
        }
        Vetted {
            obstacles,
            warnings: Vec::new(),
        }
    }
}

impl World {
    fn new(file: State) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (now, unix) = (Instant::now(), Duration::from_secs(1_000_000_000));
        let mut world = Self {
            core: Core::new(
                DaemonSettings::default(),
                Config::default(),
                NAMESPACE,
                Now {
                    instant: now,
                    unix,
                    boot: Duration::ZERO,
                },
            ),
            engine: None,
            begin: now,
            directory,
            now,
            unix,
            file,
            down: BTreeSet::new(),
            met: BTreeSet::new(),
            links: links(),
            surroundings: Surroundings::default(),
            looking: Looking::default(),
            troubled: false,
            held: Ruleset::default(),
            full_runs: 0,
            flushes: 0,
        };
        world.start(Fake::default());
        world
    }

    fn start(&mut self, fake: Fake) {
        let settings = DaemonSettings {
            state: Some("/state.json".into()),
            allow_empty: true,
            ..DaemonSettings::default()
        };
        let store = RecordFile::new(self.directory.path(), NAMESPACE);
        let mut engine = Engine::new(fake, store, NAMESPACE, FlowMark::default());
        engine.set_links(self.links.clone());
        self.engine = Some(engine);
        self.core = Core::new(settings, Config::default(), NAMESPACE, self.time());
        self.core.served_last(Last::default(), boot_id());
        self.looking.restart();
        self.tell();
    }

    fn time(&self) -> Now {
        Now {
            instant: self.now,
            unix: self.unix,
            boot: self.now - self.begin,
        }
    }

    fn tell(&mut self) {
        let news = News::State(Arc::new(self.file.clone()), Vec::new());
        let now = self.time();
        let (surroundings, looking) = (&self.surroundings, &mut self.looking);
        let vet =
            &mut |state: &State, is_known: &IsKnown<'_>| looking.vet(now.instant, || surroundings.vet(state, is_known));
        if self.core.file_news(news, vet, now) {
            self.core.begin(now);
        }
    }

    fn engine(&mut self) -> &mut Engine<Fake> {
        self.engine.as_mut().unwrap()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::File(state) => {
                self.file = *state;
                self.tell();
            }
            Event::Flip(at) => {
                let endpoint = *at.get(&endpoints());
                if !self.down.remove(&endpoint) {
                    self.down.insert(endpoint);
                }
            }
            Event::Wait(millis) => return self.wait(Duration::from_millis(millis)),
            Event::Connect(at, pick) => self.connect(at, pick),
            Event::End(at) => {
                let flows = &mut self.engine().kernel().flows;
                if !flows.is_empty() {
                    flows.remove(at.index(flows.len()));
                }
            }
            Event::Disturb => self.engine().kernel().disturb(),
            Event::Remove(heard) => {
                let kernel = self.engine().kernel();
                let _ = kernel.remove();
                let now = self.time();
                if heard {
                    self.core.drift(None, "removed".into(), true, now);
                } else {
                    self.troubled = true;
                }
            }
            Event::Fail(call, fail) => {
                self.engine().kernel().fail_next(call, fail);
                self.troubled = true;
            }
            Event::Clock(seconds) => {
                let step = Duration::from_secs(seconds.unsigned_abs());
                self.unix = if seconds < 0 {
                    self.unix.saturating_sub(step)
                } else {
                    self.unix + step
                };
            }
            Event::Restart => {
                let mut fake = self.engine.take().unwrap().into_kernel();
                fake.restart();
                let active = Summary::of_kernel(&fake.ruleset(), &Summary::default());
                let active = active.services.iter().flat_map(|service| service.active.keys());
                self.met.extend(active);
                self.start(fake);
            }
            Event::Listen(at) => {
                let port = *at.get(&[FIRST_PORT, FIRST_PORT + 1, FIRST_PORT + PORTS - 1]);
                if !self.surroundings.taken.remove(&port) {
                    self.surroundings.taken.insert(port);
                }
            }
            Event::Own(at) => {
                let endpoint = *at.get(&endpoints());
                if !self.surroundings.own.remove(&endpoint) {
                    self.surroundings.own.insert(endpoint);
                }
                self.core.addresses_changed(self.time());
            }
            Event::Links(count) => {
                // The last link has an address of its own, another one each time there are more or fewer.
                self.links = (1..count).map(|n| format!("br{n}")).collect();
                if count > 0 {
                    self.links.insert("int".into(), with_source(count));
                }
                let links = self.links.clone();
                self.engine().set_links(links);
                self.core.links_changed();
            }
        }
        self.run();
    }

    fn connect(&mut self, at: Index, pick: u32) {
        let syns = syns();
        let syn = at.get(&syns);
        let ConnectOutcome::Backend(backend) = self.engine().kernel().connect(syn, pick) else {
            return;
        };
        let answered = !self.down.contains(&backend);
        if let Some(flow) = self.engine().kernel().flows.last_mut()
            && answered
        {
            flow.status = CtStatus(flow.status.0 | SEEN_REPLY);
        }
    }

    /// Carries out everything that is due now.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let now = self.time();
            let (surroundings, looking) = (&self.surroundings, &mut self.looking);
            let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
                looking.vet(now.instant, || surroundings.vet(state, is_known))
            };
            if let Some(news) = self.core.judges_again()
                && self.core.file_news(news, vet, now)
            {
                self.core.begin(now);
            }
            if self.core.is_judgement_due(now) {
                self.core.judge_surroundings(vet, now);
            }
            if self.looking.take_ended(now.instant) {
                self.core.look_ended(now);
                continue;
            }
            if let Some(job) = self.core.next_job(now) {
                self.perform(job);
                continue;
            }
            let probes = self.core.health().due(self.now);
            if probes.is_empty() {
                return;
            }
            for probe in probes {
                let outcome = if self.down.contains(&probe.endpoint) {
                    health::ProbeOutcome::TimedOut
                } else {
                    self.met.insert(probe.endpoint);
                    health::ProbeOutcome::Accepted
                };
                self.core.probed(probe.id, outcome, now);
            }
        }
        panic!("it never rests");
    }

    /// Performs a job as the kernel's thread does.
    fn perform(&mut self, job: Job) {
        let now = self.time();
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{}", format!("{job:?}").chars().take(1500).collect::<String>());
        }
        self.full_runs += usize::from(matches!(job, Job::All(..)));
        self.flushes += usize::from(matches!(job, Job::Flush(_)));
        let done = perform(self.engine.as_mut().unwrap(), job);
        if std::env::var_os("SHOW").is_some() {
            eprintln!("  -> {done:?}");
        }
        let outcome = JobOutcome {
            done,
            at: self.now,
            took: Duration::ZERO,
            table: None,
            record_trouble: self
                .engine
                .as_ref()
                .and_then(tcpgw::reconcile::engine::Engine::record_trouble),
        };
        self.core.done(outcome, now);
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let wakes = [self.core.wakes_at(), self.core.health().next_at()];
            let Some(next) = next_step(wakes, self.now, end) else {
                break;
            };
            self.unix += next - self.now;
            self.now = next;
        }
        self.unix += end - self.now;
        self.now = end;
        self.run();
    }

    /// Checks the invariants that hold at any time, as long as the kernel obeys.
    fn check(&mut self) -> Result<(), TestCaseError> {
        if self.troubled {
            return Ok(());
        }
        let serving = self.core.membership().serving().clone();
        let told = Desired::of(serving.values().map(AsRef::as_ref).collect(), &self.links);
        let (met, mark) = (self.met.clone(), FlowMark::default());
        let kernel = self.engine().kernel();
        prop_assert_eq!(&kernel.ruleset(), &told.ruleset);
        for service in &told.summary.services {
            for backend in service.active.keys() {
                prop_assert!(met.contains(backend), "{} gets connections and never answered", backend);
            }
        }
        for flow in kernel.flows.iter().filter(|flow| mark.matches(flow.mark)) {
            let standing = told.summary.standing(flow.public, flow.backend);
            prop_assert!(standing != FlowVerdict::Stale, "a stale flow to {}", flow.backend);
        }
        Ok(())
    }

    /// Returns the wanted services that are served: those in the kernel, or in its table before another program removed it.
    fn served(&mut self) -> BTreeMap<Box<str>, Arc<Service>> {
        let ruleset = self.engine().kernel().ruleset();
        if !ruleset.is_empty() {
            self.held = ruleset;
        }
        let held = Summary::of_kernel(&self.held, &Summary::default()).services.into_iter();
        let ports: BTreeSet<u16> = held.map(|held| held.port).collect();
        let membership = self.core.membership();
        let mut served = membership.serving().clone();
        served.retain(|name, service| membership.wanted().contains_key(name) && ports.contains(&service.port.get()));
        served
    }

    /// Checks that each service that was served stays while it is in the file and no other service claims its port.
    fn check_stays(&self, before: &BTreeMap<Box<str>, Arc<Service>>) -> Result<(), TestCaseError> {
        for (name, service) in before {
            let claims = |other: &&Arc<Service>| other.name != *name && other.port == service.port;
            let is_said = self.file.services.iter().any(|said| said.name == *name);
            let is_claimed = self.file.services.iter().any(|said| claims(&said));
            if is_said && !is_claimed {
                prop_assert!(self.core.membership().serving().contains_key(name), "{} is gone", name);
            }
        }
        Ok(())
    }

    /// Ends all trouble, lets time pass, and checks that the kernel agrees with the file.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.engine().kernel().restart();
        self.troubled = false;
        self.surroundings = Surroundings::default();
        self.down.clear();
        self.wait(LONG);
        self.check()?;
        prop_assert!(self.core.in_sync());
        prop_assert!(self.core.membership().draining_backends().is_empty());
        let mut want = self.file.clone();
        for service in &mut want.services {
            Arc::make_mut(service)
                .backends
                .retain(|backend| backend.state == BackendState::Active);
        }
        let desired = Desired::new(&want, &self.links);
        prop_assert_eq!(&self.engine().kernel().ruleset(), &desired.ruleset);
        let counts: BTreeMap<_, _> = self.core.membership().serving().clone();
        prop_assert_eq!(counts.len(), want.services.len());
        Ok(())
    }
}

/// A link of a container that comes or goes causes no read of the whole table.
#[test]
fn interfaces_that_come_and_go_are_written_alone() {
    let service = serde_json::json!({"name": "a", "port": 20001, "backends": ["10.2.0.11:3000"], "source": "preserve"});
    let state = serde_json::json!({"version": 1, "services": [service]});
    let mut world = World::new(tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap());
    world.run();
    world.engine().kernel().fail_next(KernelCall::Observe, Fail::Netlink);
    for count in [3, 1, 2] {
        world.happen(Event::Links(count));
        world.check().unwrap();
        assert!(world.core.in_sync());
    }
    // After a write to another table the kernel is examined.
    world.engine().kernel().disturb();
    world.happen(Event::Links(0));
    assert!(!world.core.in_sync());
    world.end().unwrap();
}

/// Flows that cannot be deleted are reported and tried at ever longer intervals, and only flows are read for that.
#[test]
fn flows_that_cannot_be_deleted_are_tried_ever_more_rarely() {
    let file = |backends: &[&str]| {
        let service = serde_json::json!({"name": "a", "port": 20001, "backends": backends, "drain_timeout": "1s"});
        let state = serde_json::json!({"version": 1, "services": [service]});
        tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
    };
    let mut world = World::new(file(&["10.2.0.11:3000"]));
    world.run();
    let syn = Syn {
        client: SocketAddr::new([198, 51, 100, 7].into(), 40_000),
        public: SocketAddr::new([192, 0, 2, 1].into(), 20_001),
    };
    let kernel = world.engine().kernel();
    assert!(matches!(kernel.connect(&syn, 0), ConnectOutcome::Backend(_)));
    let flow = kernel.flows.last_mut().unwrap();
    flow.status = CtStatus(flow.status.0 | SEEN_REPLY);
    let id = flow.id;
    kernel.stuck.insert(id);
    world.happen(Event::File(Box::new(file(&["10.2.0.12:3000"]))));
    world.wait(Duration::from_secs(10));
    let problems = |world: &World| world.core.problems().line().unwrap_or_default();
    assert!(
        problems(&world).contains("1 flow of backends that are gone could not be deleted"),
        "{}",
        problems(&world)
    );
    let before = (world.full_runs, world.flushes);
    world.wait(Duration::from_secs(3600));
    assert_eq!(world.full_runs, before.0, "the table is not read for a flow");
    let tries = world.flushes - before.1;
    assert!((50..=80).contains(&tries), "{tries} in an hour");
    assert!(!world.core.problems().is_ok());
    world.engine().kernel().stuck.clear();
    world.wait(Duration::from_secs(61));
    assert_eq!(problems(&world), "");
    assert!(world.core.in_sync());
    assert!(world.engine().kernel().flows.is_empty());
    world.check().unwrap();
}

/// Draining backends keep their time when the daemon is killed before the record has their deadlines.
#[test]
fn those_who_drain_have_their_time_though_it_was_not_recorded() {
    let file = |backends: &[SocketAddr]| {
        let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
        let service = serde_json::json!({
            "name": "a", "port": 20001, "backends": backends, "drain_timeout": "100s",
        });
        let state = serde_json::json!({"version": 1, "services": [service]});
        tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
    };
    let [leaves, stays]: [SocketAddr; 2] = ["10.2.0.11:3000", "10.2.0.12:3000"].map(|at| at.parse().unwrap());
    let mut world = World::new(file(&[leaves, stays]));
    world.run();
    for pick in 0..16 {
        let kernel = world.engine().kernel();
        let syn = Syn {
            client: SocketAddr::new([198, 51, 100, 7].into(), 40_000),
            public: SocketAddr::new([192, 0, 2, 1].into(), 20_001),
        };
        assert!(matches!(kernel.connect(&syn, pick), ConnectOutcome::Backend(_)));
        let flow = kernel.flows.last_mut().unwrap();
        flow.status = CtStatus(flow.status.0 | SEEN_REPLY);
    }
    let left = |world: &mut World| {
        let flows = &world.engine().kernel().flows;
        flows.iter().filter(|flow| flow.backend == leaves).count()
    };
    let before = left(&mut world);
    assert!(before > 0);
    world.happen(Event::File(Box::new(file(&[stays]))));
    for entry in std::fs::read_dir(world.directory.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    world.happen(Event::Restart);
    assert_eq!(left(&mut world), before);
    // Across restarts the deadline is kept by a clock that cannot be set.
    world.wait(Duration::from_millis(40_100));
    world.happen(Event::Clock(3600));
    world.happen(Event::Restart);
    world.wait(Duration::from_secs(20));
    world.happen(Event::Clock(-7200));
    world.happen(Event::Restart);
    world.wait(Duration::from_millis(39_800));
    assert_eq!(left(&mut world), before);
    world.wait(Duration::from_millis(200));
    assert_eq!(left(&mut world), 0);
    world.check().unwrap();
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, last], 3000))
}

fn file(services: &[(&str, u16, &[u8])]) -> State {
    let services = services.iter().map(|(name, port, backends)| {
        let backends: Vec<String> = backends.iter().map(|last| at(*last).to_string()).collect();
        serde_json::json!({"name": name, "port": port, "backends": backends})
    });
    let state = serde_json::json!({"version": 1, "services": services.collect::<Vec<_>>()});
    tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
}

impl World {
    /// Returns the backends that get the connections of a service.
    fn balanced(&self, name: &str) -> BTreeSet<SocketAddr> {
        let service = self.core.membership().serving().get(name);
        let backends = service.iter().flat_map(|service| &service.backends);
        let active = backends.filter(|backend| backend.state == BackendState::Active);
        active.map(|backend| backend.endpoint.into()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// All backends that were in the balance stay in it when they fail by one cause, at any moment between their probes.
    #[test]
    fn all_that_fail_by_one_cause_stay_in_the_balance(
        count in 1_u8..12, dead in 0_u8..4, wait in 0_u64..60_000,
    ) {
        let dead = dead.min(count - 1);
        let all: Vec<u8> = (1..=count).collect();
        let mut world = World::new(file(&[("web", 20001, &all)]));
        world.run();
        world.down.extend((1..=dead).map(at));
        world.wait(Duration::from_secs(60) + Duration::from_millis(wait));
        let before = world.balanced("web");
        prop_assert_eq!(before.len(), usize::from(count - dead));
        world.down.extend(all.iter().copied().map(at));
        world.wait(LONG);
        prop_assert_eq!(world.balanced("web"), before);
        world.check()?;
    }
}

/// A backend that moves to another service gets no connections there before it has answered a probe.
#[test]
fn who_moves_has_to_answer_first() {
    let before = file(&[("web", 20001, &[1, 2]), ("shop", 20002, &[3])]);
    let moved = file(&[("web", 20001, &[2]), ("shop", 20002, &[1, 3])]);
    let renamed = file(&[("www", 20001, &[1, 2]), ("shop", 20002, &[3])]);
    let mut world = World::new(before);
    world.wait(Duration::from_secs(30));
    world.happen(Event::File(Box::new(renamed)));
    assert_eq!(world.balanced("www"), [at(1), at(2)].into(), "it only has another name");
    world.happen(Event::File(Box::new(file(&[
        ("web", 20001, &[1, 2]),
        ("shop", 20002, &[3]),
    ]))));
    world.down.insert(at(1));
    world.happen(Event::File(Box::new(moved)));
    for _ in 0..40 {
        assert_eq!(world.balanced("shop"), [at(3)].into());
        world.wait(Duration::from_millis(500));
    }
    world.down.remove(&at(1));
    world.wait(Duration::from_secs(4));
    assert_eq!(world.balanced("shop"), [at(1), at(3)].into());
}

/// A backend that moved while no daemon ran gets no connections before it has answered a probe.
#[test]
fn who_moved_between_two_daemons_has_to_answer_first() {
    let mut world = World::new(file(&[("web", 20001, &[1, 2]), ("shop", 20002, &[3])]));
    world.wait(Duration::from_secs(30));
    world.down.insert(at(1));
    world.file = file(&[("web", 20001, &[2]), ("shop", 20002, &[1, 3])]);
    world.happen(Event::Restart);
    for _ in 0..40 {
        assert_eq!(world.balanced("shop"), [at(3)].into());
        assert_eq!(world.balanced("web"), [at(2)].into());
        world.wait(Duration::from_millis(500));
    }
}

/// A pause lasts for its time, also when the daemon is killed and the clock is set meanwhile.
#[test]
fn a_pause_outlives_the_daemon() {
    let mut world = World::new(file(&[("web", 20001, &[1, 2])]));
    world.wait(Duration::from_secs(30));
    let order = PauseOrder {
        name: "web".into(),
        time: Some(Duration::from_secs(60)),
        by: Peer {
            uid: 1000,
            gid: 1000,
            pid: None,
        },
    };
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let now = world.time();
    world.core.pause(&order, reply, now);
    world.run();
    assert_eq!(answer.try_recv(), Ok(Ok(Vec::new())));
    let paused = |world: &World| world.core.services().services[0].paused;
    let pause = paused(&world).expect("it is paused");
    assert_eq!((pause.until - pause.since, pause.uid), (60, 1000));
    // At once: before any record could follow.
    world.happen(Event::Restart);
    assert_eq!(paused(&world), Some(pause));
    world.wait(Duration::from_secs(30));
    world.happen(Event::Clock(3600));
    world.happen(Event::Restart);
    world.wait(Duration::from_secs(29));
    assert_eq!(paused(&world), Some(pause));
    assert_eq!(world.balanced("web"), [].into());
    world.check().unwrap();
    world.wait(Duration::from_secs(2));
    assert_eq!(paused(&world), None);
    assert_eq!(world.balanced("web"), [at(1), at(2)].into());
    world.end().unwrap();
}
