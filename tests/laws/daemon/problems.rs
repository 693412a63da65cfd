//! Problems describe the effects that clients meet.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::control::events::{After, EventContent};
use tcpgw::control::request::Resumed;
use tcpgw_core::model::State;
use tcpgw_core::problem::{ProblemKind, Severity};

use super::{Event, World};

pub(super) const V4: &str = "10.2.0.11:3000";
const OTHER_V4: &str = "10.2.0.12:3000";
const V6: &str = "[fd00:2::11]:3000";
/// Time within which a dead backend is found.
const FOUND: Duration = Duration::from_secs(60);

pub(super) fn file(backends: &Value) -> State {
    services(&json!([{"name": "web", "port": 20001, "backends": backends, "drain_timeout": "1s"}]))
}

fn services(services: &Value) -> State {
    let state = json!({"version": 1, "services": services});
    tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    /// Returns the present problems of services, with their texts.
    fn told(&self) -> Vec<(Severity, ProblemKind, String)> {
        let kinds = [ProblemKind::NoActiveBackend, ProblemKind::NoHealthyBackend];
        let problems = self.core.problems().iter();
        let problems = problems.filter(|problem| kinds.contains(&problem.kind));
        problems
            .map(|problem| (problem.severity, problem.kind, problem.message.clone()))
            .collect()
    }

    #[track_caller]
    fn tells(&self, severity: Severity, kind: ProblemKind, words: &str) {
        let answer = self.told();
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!((answer[0].0, answer[0].1), (severity, kind), "{answer:?}");
        assert!(answer[0].2.contains(words), "{answer:?}");
    }
}

/// A service that serves its IPv6 clients only is an error.
#[test]
fn a_family_without_backends_is_an_error() {
    let mut world = World::new(file(&json!([V4, V6])));
    world.wait(FOUND);
    assert_eq!(world.told(), []);
    for (down, words) in [(V4, "for IPv4 clients: none of 1"), (V6, "for IPv6 clients: none of 1")] {
        world.containers.down.insert(at(down));
        world.wait(FOUND);
        world.tells(Severity::Error, ProblemKind::NoHealthyBackend, words);
        world.containers.down.clear();
        world.wait(FOUND);
        assert_eq!(world.told(), []);
    }
    let drained = json!({"address": "10.2.0.11", "port": 3000, "state": "draining"});
    world.happen(Event::File(Box::new(file(&json!([drained, V6])))));
    world.wait(FOUND);
    let words = "no active backend for IPv4 clients: these clients are refused";
    world.tells(Severity::Error, ProblemKind::NoActiveBackend, words);
    // A service of one family from now on, because its provider says so.
    world.happen(Event::File(Box::new(file(&json!([V6])))));
    assert_eq!(world.told(), []);
    world.wait(FOUND);
    assert_eq!(world.told(), []);
}

/// New backends that never answer do not make a gateway unhealthy while the old backends serve.
#[test]
fn new_backends_that_never_answer_are_a_warning_while_the_old_ones_serve() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(FOUND);
    world.containers.down.insert(at(OTHER_V4));
    world.happen(Event::File(Box::new(file(&json!([OTHER_V4])))));
    world.wait(FOUND);
    world.tells(
        Severity::Warning,
        ProblemKind::NoHealthyBackend,
        "clients are served by 10.2.0.11:3000",
    );
    assert!(world.core.problems().is_ok());
    world.containers.down.insert(at(V4));
    world.wait(FOUND);
    world.tells(
        Severity::Error,
        ProblemKind::NoHealthyBackend,
        "none of 1 answers probes",
    );
    world.containers.down.clear();
    world.wait(FOUND);
    assert_eq!(world.told(), []);
}

/// Returns the errors about services that were told as events so far.
fn errors(world: &World) -> Vec<String> {
    let events = world.core.follow(&After::Start).kept;
    let message = events.iter().filter_map(|event| match &event.what {
        EventContent::Problem(problem) if problem.severity == Severity::Error => Some(problem.message.clone()),
        _ => None,
    });
    message.collect()
}

/// A new service that waits for its first probes is no error until one has failed.
#[test]
fn a_backend_without_a_probe_yet_is_no_error() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(FOUND);
    let web = json!({"name": "web", "port": 20001, "backends": [V4], "drain_timeout": "1s"});
    let with = |name: &str, backend: &str| {
        let new = json!({"name": name, "port": 20002, "backends": [backend]});
        Event::File(Box::new(services(&json!([web, new]))))
    };
    world.happen(with("new", OTHER_V4));
    world.tells(
        Severity::Warning,
        ProblemKind::NoHealthyBackend,
        "waits for the first probes of its 1 backend",
    );
    world.wait(FOUND);
    assert_eq!(world.told(), []);
    // A backend that answers for another service is asked again for this one.
    world.happen(with("other", OTHER_V4));
    world.wait(FOUND);
    assert_eq!((world.told(), errors(&world)), (Vec::new(), Vec::new()));
    world.containers.down.insert(at(V6));
    world.happen(with("dead", V6));
    world.tells(
        Severity::Warning,
        ProblemKind::NoHealthyBackend,
        "clients are refused until one answers",
    );
    world.wait(FOUND);
    world.tells(
        Severity::Error,
        ProblemKind::NoHealthyBackend,
        "none of 1 answers probes",
    );
    assert_eq!(errors(&world).len(), 1);
}

/// A teardown stays a problem until the kernel serves again: between the order and the kernel's answer no client is served.
#[test]
fn a_teardown_is_over_when_the_kernel_serves() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(FOUND);
    let _torn = world.order_teardown();
    // The file of last services is not written here.
    world.wait(Duration::from_secs(3));
    assert!(world.core.problems().get(ProblemKind::TornDown).is_some());
    let mut resumed = world.order_resume();
    let now = world.time();
    // The kernel takes its time.
    let job = world.core.next_job(now).unwrap();
    let problems = world
        .core
        .problems()
        .get(ProblemKind::TornDown)
        .expect("it is told still");
    assert_eq!(problems.severity, Severity::Error);
    assert!(resumed.try_recv().is_err());
    world.perform(job);
    world.run();
    assert_eq!(
        resumed.try_recv(),
        Ok(Ok(Resumed {
            resumed: true,
            warnings: Vec::new()
        }))
    );
    assert!(world.core.problems().get(ProblemKind::TornDown).is_none());
    world.wait(FOUND);
    assert!(world.core.problems().is_ok(), "{:?}", world.core.problems().line());
}

/// A service that is held back and whose port another service has is not reported as served in its old form.
#[test]
fn a_service_that_is_held_back_is_not_reported_as_served() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(FOUND);
    world.surroundings.own.insert(at("10.2.0.13:3000"));
    world.file.content = Some(services(&json!([
        {"name": "web", "port": 20002, "backends": [V4, "10.2.0.13:3000"]},
        {"name": "other", "port": 20001, "backends": [OTHER_V4]},
    ])));
    world.happen(Event::Restart);
    let problems = world.core.problems().get(ProblemKind::HeldBack).expect("it is told");
    assert!(
        problems.message.contains("is held back and is not served"),
        "{problems:?}"
    );
}
