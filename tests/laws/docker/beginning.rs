//! The first seconds of a service: while its containers start and are probed for the first time, it is no error that nobody is served.

use proptest::prelude::*;
use tcpgw::control::events::{After, EventContent};
use tcpgw_core::health::longest_first_probes;
use tcpgw_core::model::HealthSettings;

use super::*;

const PORT: u16 = 2001;
const SECOND: Duration = Duration::from_secs(1);
/// Kinds of the problem that no client is served.
const KINDS: [ProblemKind; 2] = [ProblemKind::NoActiveBackend, ProblemKind::NoHealthyBackend];

/// Returns the time after which it is an error, rounded up to seconds.
fn bound() -> u64 {
    longest_first_probes(&HealthSettings::default()).as_secs() + 1
}

impl World {
    /// Has the engine tell of these containers, and lets the checks of services rest.
    fn say(&mut self, containers: &[Container]) {
        self.tell(containers);
        self.wait(Duration::from_millis(1));
    }

    /// Returns the problem that no client of the service is served.
    fn unserved(&self) -> Option<(Severity, ProblemKind, String)> {
        let mut problems = self
            .core
            .problems()
            .iter()
            .filter(|problem| KINDS.contains(&problem.kind));
        let problem = problems.next()?;
        assert!(problems.next().is_none(), "one problem for one service");
        Some((problem.severity, problem.kind, problem.message.clone()))
    }

    #[track_caller]
    fn waits(&self, kind: ProblemKind, words: &str) {
        let (severity, found, message) = self.unserved().expect("a problem");
        assert_eq!((severity, found), (Severity::Warning, kind), "{message}");
        assert!(
            message.contains(words) && message.contains("clients are refused until one answers"),
            "{message}"
        );
    }

    #[track_caller]
    fn fails(&self, kind: ProblemKind) {
        let (severity, found, message) = self.unserved().expect("a problem");
        assert_eq!((severity, found), (Severity::Error, kind), "{message}");
    }

    /// Returns the errors that were told as events.
    fn errors(&self) -> usize {
        let events = self.core.follow(&After::Start).kept;
        let errors = events.iter().filter(|event| match &event.what {
            EventContent::Problem(problem) => KINDS.contains(&problem.kind) && problem.severity == Severity::Error,
            _ => false,
        });
        errors.count()
    }
}

#[test]
fn a_first_container_that_starts_and_listens_in_time_is_no_error() {
    let mut world = World::new();
    let app = container("app-1", 1, PORT);
    world.containers.down.insert(at(1));
    world.say(&[down(app.clone())]);
    world.waits(
        ProblemKind::NoActiveBackend,
        "app :2001 waits for its containers to start",
    );
    world.wait(SECOND);
    world.say(&[app]);
    for _ in 0..3 {
        world.waits(
            ProblemKind::NoHealthyBackend,
            "waits for the first probes of its 1 backend",
        );
        assert_eq!(world.reached(PORT), set(&[]));
        world.wait(SECOND);
    }
    world.containers.down.clear();
    world.wait(SECOND * 3);
    assert_eq!((world.unserved(), world.errors()), (None, 0));
}

#[test]
fn a_first_container_that_never_starts_or_listens_is_an_error_in_the_end() {
    for (is_there, kind) in [
        (false, ProblemKind::NoActiveBackend),
        (true, ProblemKind::NoHealthyBackend),
    ] {
        let mut world = World::new();
        world.containers.down.insert(at(1));
        let app = container("app-1", 1, PORT);
        world.say(&[if is_there { app } else { down(app) }]);
        world.wait(SECOND * 2);
        assert_eq!(world.unserved().map(|of| of.0), Some(Severity::Warning));
        world.wait(SECOND * u32::try_from(bound() - 2).unwrap());
        world.fails(kind);
        assert_eq!(world.errors(), 1);
    }
}

/// The engine decides when a health check has failed.
#[test]
fn a_first_health_check_may_take_its_time() {
    let mut world = World::new();
    let app = container("app-1", 1, PORT);
    let with = |health| Container { health, ..app.clone() };
    world.say(&[with(ContainerHealth::Starting)]);
    world.wait(LONG);
    world.waits(
        ProblemKind::NoActiveBackend,
        "waits for the first health check of its containers",
    );
    world.say(&[with(ContainerHealth::Unhealthy)]);
    world.fails(ProblemKind::NoActiveBackend);
    world.settle(&[with(ContainerHealth::Healthy)]);
    assert_eq!(world.unserved(), None);
    // It has served: it is missed at once.
    let again = Container {
        start: 1,
        ..with(ContainerHealth::Starting)
    };
    world.say(&[again]);
    world.fails(ProblemKind::NoActiveBackend);
}

#[test]
fn a_service_that_has_served_is_missed_at_once() {
    let mut world = World::new();
    let app = container("app-1", 1, PORT);
    world.settle(std::slice::from_ref(&app));
    world.say(&[stopping(app.clone())]);
    world.fails(ProblemKind::NoActiveBackend);
    world.settle(&[down(app)]);
    world.containers.down.insert(at(2));
    world.say(&[container("app-1", 2, PORT)]);
    world.fails(ProblemKind::NoHealthyBackend);
    world.containers.down.clear();
    world.wait(LONG);
    assert_eq!(world.unserved(), None);
}

#[derive(Debug, Clone)]
enum Event {
    /// The engine tells of these containers: the state of each, and whether its health check has no result yet.
    Tell(BTreeMap<u8, (bool, bool)>),
    Flip(u8),
    Restart,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let containers = prop::collection::btree_map(1..4_u8, any::<(bool, bool)>(), 1..4);
    prop_oneof![
        3 => containers.prop_map(Event::Tell),
        2 => (1..4_u8).prop_map(Event::Flip),
        1 => Just(Event::Restart),
        3 => (1..12_u8).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever starts and answers: clients that are not served are a problem, and it is an error once the service has served anybody,
    /// or its containers have had their time.
    #[test]
    fn what_is_not_served_is_an_error_after_its_time(events in prop::collection::vec(event(), 1..20)) {
        let mut world = World::new();
        let mut there: BTreeMap<u8, (bool, bool)> = BTreeMap::new();
        let (mut has_served, mut since) = (false, world.clock.now);
        world.containers.down = (1..4).map(at).collect();
        for event in events {
            let seconds = if let Event::Wait(seconds) = event { seconds } else { 0 };
            match event {
                Event::Tell(containers) => {
                    there = containers;
                    since = world.clock.now;
                }
                Event::Flip(number) => {
                    world.containers.flip(at(number));
                    since = world.clock.now;
                }
                Event::Restart => {
                    // A new daemon knows of those only that have backends in the kernel.
                    has_served &= !world.reached(PORT).is_empty();
                    world.restart();
                    since = world.clock.now;
                }
                Event::Wait(_) => {}
            }
            let told = there.iter().map(|(number, (runs, is_unchecked))| Container {
                state: if *runs { RunState::Running } else { RunState::Down },
                health: if *is_unchecked { ContainerHealth::Starting } else { ContainerHealth::Unchecked },
                ..container(&format!("app-{number}"), *number, PORT)
            });
            let told: Vec<Container> = told.collect();
            world.say(&told);
            for second in 0..=seconds {
                if second > 0 {
                    world.wait(SECOND);
                }
                let is_reached = !world.reached(PORT).is_empty();
                has_served |= is_reached;
                let problem = world.unserved();
                if there.is_empty() {
                    continue;
                }
                prop_assert!(is_reached || problem.is_some(), "nobody is served, and nobody is told");
                let is_unchecked = there.values().any(|(runs, is_unchecked)| *runs && *is_unchecked);
                let is_late = has_served || !is_unchecked && world.clock.now > since + Duration::from_secs(bound());
                if !is_reached && is_late {
                    prop_assert_eq!(problem.map(|of| of.0), Some(Severity::Error));
                }
            }
        }
    }
}
