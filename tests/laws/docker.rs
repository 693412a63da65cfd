//! Docker's containers as a provider: what its engine tells is served, what it does not tell stays as it is.

mod any_order;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::config::Config;
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw::provider::docker::{DockerNews, DockerSnapshot};
use tcpgw_core::container::{Container, ContainerHealth, ContainerNetwork, NetworkReach, RunState, services_of};
use tcpgw_core::model::{self, Fences, State};
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_kernel::fake::{ConnectOutcome, Fake, Syn};

use crate::world;
use crate::world::clients::take;

/// Clients that expect nothing by themselves.
struct Nobody;

impl world::Clients for Nobody {}

type World = world::World<Nobody>;

/// Time that is longer than any drain, and than the pauses of probes.
const LONG: Duration = Duration::from_secs(100);

fn container(name: &str, last: u8, port: u16) -> Container {
    Container {
        id: format!("id-{last}").into(),
        name: name.into(),
        labels: [("tcpgw.port".to_owned(), port.to_string())].into(),
        exposed: [80.try_into().unwrap()].into(),
        networks: vec![ContainerNetwork {
            name: "web".into(),
            reach: NetworkReach::Routed,
            addresses: vec![[10, 9, 0, last].into()],
        }],
        state: RunState::Running,
        health: ContainerHealth::Unchecked,
        created: i64::from(last),
        is_stopping: false,
        start: 0,
    }
}

fn stopping(container: Container) -> Container {
    Container {
        is_stopping: true,
        ..container
    }
}

fn down(container: Container) -> Container {
    Container {
        state: RunState::Down,
        ..container
    }
}

fn at(last: u8) -> SocketAddr {
    ([10, 9, 0, last], 80).into()
}

fn following() -> Config {
    Config {
        docker: Some(toml("")),
        ..Config::default()
    }
}

fn toml(text: &str) -> tcpgw::config::docker::DockerSection {
    let whole = format!("[docker]\n{text}");
    let config = Config::parse(std::path::Path::new("config.toml"), whole.as_bytes()).unwrap();
    config.docker.expect("a section")
}

impl World {
    fn new() -> Self {
        let mut world = world::World::without_daemon(Nobody);
        world.boot = "1".into();
        world.config = following();
        world.start(Fake::default());
        world.wait(LONG);
        world
    }

    /// Has the engine tell of these containers.
    fn tell(&mut self, containers: &[Container]) {
        self.tell_so(containers, true);
    }

    fn tell_so(&mut self, containers: &[Container], is_certain: bool) {
        let found = services_of(containers, &self.config.fences);
        let state = State::from_valid(found.services.into_iter().map(Arc::new).collect());
        self.core.docker_news(DockerNews {
            snapshot: Some(Arc::new(DockerSnapshot {
                state: Arc::new(state),
                problems: found.problems,
                backends: found.backends,
                examples: found.examples,
                is_certain,
            })),
            trouble: None,
        });
        self.run();
    }

    /// Has the engine tell of these, and waits until all is served and drained.
    fn settle(&mut self, containers: &[Container]) {
        self.tell(containers);
        self.wait(LONG);
    }

    fn is_away(&mut self) {
        let news = DockerNews {
            snapshot: None,
            trouble: Some("Docker's engine at /var/run/docker.sock does not answer: it is away".into()),
        };
        self.core.docker_news(news);
        self.run();
    }

    /// Returns the backends that clients of a port reach.
    fn reached(&mut self, port: u16) -> BTreeSet<SocketAddr> {
        let kernel = self.kernel();
        let mut reached = BTreeSet::new();
        for client in 0..60_u16 {
            let syn = Syn {
                client: ([198, 51, 100, 7], 40_000 + client).into(),
                public: ([192, 0, 2, 1], port).into(),
            };
            if let ConnectOutcome::Backend(backend) = kernel.connect(&syn, client.into()) {
                reached.insert(backend);
            }
        }
        kernel.flows.clear();
        reached
    }

    fn providers(&self) -> BTreeMap<String, &'static str> {
        let list = self.core.services().services.into_iter();
        list.map(|listed| (listed.service.name.to_string(), listed.provider))
            .collect()
    }

    fn problem(&self, kind: ProblemKind) -> Option<Problem> {
        self.core.problems().get(kind).cloned()
    }

    fn order(&mut self, name: &str, edit: ServiceEdit) -> Result<(), Refused> {
        let mut answer = self.order_edit(name, edit);
        self.run();
        let answered = take(&mut answer).unwrap_or_else(|| {
            // The gateway could not be examined.
            self.wait(LONG);
            take(&mut answer).unwrap()
        });
        answered.map(drop)
    }

    fn put(&mut self, service: &Value) -> Result<(), Refused> {
        let name = service["name"].as_str().unwrap().to_owned();
        self.order(&name, ServiceEdit::Put(service.to_string().into_bytes()))
    }
}

fn set(lasts: &[u8]) -> BTreeSet<SocketAddr> {
    lasts.iter().map(|last| at(*last)).collect()
}

#[test]
fn containers_are_served_and_drain_when_they_are_told_to_stop() {
    let mut world = World::new();
    let (a, b) = (container("app-1", 1, 2001), container("app-2", 2, 2001));
    world.settle(&[a.clone(), b.clone()]);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    // The kernel is told at once, also while the gateway cannot be examined and another container begins.
    world.examinations.stick(world.clock.now, Duration::from_secs(30));
    world.tell(&[
        stopping(a.clone()),
        b.clone(),
        container("app-3", 3, 2001),
        container("web", 4, 2002),
    ]);
    assert_eq!(world.reached(2001), set(&[2]));
    world.wait(LONG);
    assert_eq!((world.reached(2001), world.reached(2002)), (set(&[2, 3]), set(&[4])));
    // A service without containers that run is still there, and one without any is gone.
    world.settle(&[down(a), down(b)]);
    assert_eq!(world.reached(2001), set(&[]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    assert_eq!(
        world.problem(ProblemKind::NoActiveBackend).map(|of| of.severity),
        Some(Severity::Error)
    );
    world.settle(&[]);
    assert_eq!(
        (world.providers().len(), world.problem(ProblemKind::NoActiveBackend)),
        (0, None)
    );
}

/// Containers of one service are told in a burst: the kernel is changed once for each of their snapshots.
#[test]
fn a_thousand_containers_are_a_few_transactions() {
    let mut world = World::new();
    let many: Vec<Container> = (0..1000_u16)
        .map(|number| Container {
            id: format!("{number}").into(),
            networks: vec![ContainerNetwork {
                name: "web".into(),
                reach: NetworkReach::Routed,
                addresses: vec![
                    [
                        10,
                        10,
                        u8::try_from(number / 200).unwrap(),
                        u8::try_from(1 + number % 200).unwrap(),
                    ]
                    .into(),
                ],
            }],
            ..container(&format!("app{}x-1", number / 250), 1, 2001 + number / 250)
        })
        .collect();
    let before = world.core.own_metrics().commits.count();
    world.settle(&many);
    assert_eq!(
        world
            .core
            .membership()
            .wanted()
            .values()
            .map(|of| of.backends.len())
            .sum::<usize>(),
        1000
    );
    let commits = world.core.own_metrics().commits.count() - before;
    assert!(commits <= 4, "{commits}");
}

#[test]
fn what_the_engine_does_not_tell_stays_as_it_is() {
    let mut world = World::new();
    let both = [container("app-1", 1, 2001), container("app-2", 2, 2001)];
    world.settle(&both);
    world.is_away();
    let problem = world.problem(ProblemKind::Docker).unwrap();
    assert_eq!(problem.severity, Severity::Warning);
    assert!(
        problem.message.contains("goes on as it was last known"),
        "{}",
        problem.message
    );
    // A daemon that starts while the engine is away.
    world.restart();
    world.is_away();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    // An engine that has just begun and names none is not believed.
    world.tell_so(&[], false);
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert!(
        world
            .problem(ProblemKind::Docker)
            .unwrap()
            .message
            .contains("names no container")
    );
    world.settle(&both[..1]);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::Docker)),
        (set(&[1]), None)
    );
    // It is believed when it says so for long.
    world.tell_so(&[], false);
    world.settle(&[]);
    assert_eq!((world.reached(2001), world.providers().len()), (set(&[]), 0));
}

/// The record and the file of last services know the provider.
#[test]
fn services_survive_the_loss_of_the_record_or_of_the_table() {
    for loses_record in [true, false] {
        let mut world = World::new();
        world.settle(&[container("app-1", 1, 2001)]);
        let mut kernel = world.kill();
        if loses_record {
            std::fs::remove_file(world.record_path()).unwrap();
        } else {
            kernel = Fake::default();
        }
        world.start(kernel);
        world.is_away();
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1]), "{loses_record}");
        assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    }
}

/// Containers get other addresses when a machine boots: those of before may belong to others now.
#[test]
fn after_a_boot_services_wait_for_the_engine_without_backends() {
    let mut world = World::new();
    world.settle(&[container("app-1", 1, 2001)]);
    drop(world.kill());
    let kernel = world.boot();
    world.start(kernel);
    world.is_away();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    world.settle(&[container("app-1", 7, 2001)]);
    assert_eq!(world.reached(2001), set(&[7]));
}

#[test]
fn without_the_section_the_services_become_orphans() {
    for by_restart in [false, true] {
        let mut world = World::new();
        world.settle(&[container("app-1", 1, 2001)]);
        world.config = Config::default();
        if by_restart {
            world.restart();
        } else {
            world.reload_with(Config::default());
        }
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1]));
        assert_eq!(world.providers(), [("app".to_owned(), "orphan")].into(), "{by_restart}");
        assert_eq!(
            world.problem(ProblemKind::Orphaned).map(|of| of.severity),
            Some(Severity::Warning)
        );
        // With the section they are Docker's again.
        world.config = following();
        if by_restart {
            world.restart();
        } else {
            world.reload_with(following());
        }
        world.settle(&[container("app-1", 1, 2001)]);
        assert_eq!(world.providers(), [("app".to_owned(), "docker")].into(), "{by_restart}");
        assert_eq!(world.problem(ProblemKind::Orphaned), None);
    }
}

#[test]
fn a_container_cannot_take_the_port_or_name_of_another_provider() {
    let mut world = World::new();
    world
        .put(&json!({"name": "own", "port": 2001, "backends": ["10.9.0.50:80"]}))
        .unwrap();
    world
        .put(&json!({"name": "app", "port": 2002, "backends": ["10.9.0.51:80"]}))
        .unwrap();
    world.wait(LONG);
    let containers = [
        container("thief", 1, 2001),
        container("app", 2, 2003),
        container("good", 3, 2004),
    ];
    world.settle(&containers);
    assert_eq!(world.reached(2001), set(&[50]));
    assert_eq!(world.reached(2002), set(&[51]));
    assert_eq!((world.reached(2003), world.reached(2004)), (set(&[]), set(&[3])));
    let problems: Vec<Problem> = world
        .core
        .problems()
        .iter()
        .filter(|of| of.kind == ProblemKind::Container)
        .cloned()
        .collect();
    let told: Vec<(Option<&str>, bool)> = problems
        .iter()
        .map(|of| (of.service.as_deref(), of.severity == Severity::Error))
        .collect();
    assert_eq!(told, [(Some("thief"), true), (Some("app"), true)]);
    assert!(
        problems[0].message.contains("2001 is already taken by service \"own\""),
        "{}",
        problems[0].message
    );
    assert!(
        problems[1].message.contains("it came in through the API"),
        "{}",
        problems[1].message
    );
    // Nor can others take theirs.
    let refused = world
        .put(&json!({"name": "x", "port": 2004, "backends": []}))
        .unwrap_err();
    assert!(format!("{refused:?}").contains("taken by service"), "{refused:?}");
    for edit in [ServiceEdit::Delete, ServiceEdit::Drain(Vec::new())] {
        let refused = world.order("good", edit).unwrap_err().lines().join(";");
        assert!(
            refused.contains("defined by labels of Docker's containers (good): change their labels"),
            "{refused}"
        );
    }
    // When the reason is gone, it is served.
    world.order("own", ServiceEdit::Delete).unwrap();
    world.order("app", ServiceEdit::Delete).unwrap();
    world.wait(LONG);
    assert_eq!((world.reached(2001), world.reached(2003)), (set(&[1]), set(&[2])));
    assert_eq!(world.problem(ProblemKind::Container), None);
}

/// What is served goes on where its new form is not possible, with the containers that are left.
#[test]
fn a_change_that_is_not_possible_ends_no_service() {
    let mut world = World::new();
    world
        .put(&json!({"name": "own", "port": 2009, "backends": []}))
        .unwrap();
    let mut config = following();
    config.fences = Fences {
        max_backends: Some(2.try_into().unwrap()),
        ..Fences::default()
    };
    world.reload_with(config);
    let (a, b, c) = (
        container("app-1", 1, 2001),
        container("app-2", 2, 2001),
        container("app-3", 3, 2001),
    );
    world.settle(&[a.clone(), b.clone()]);
    world.settle(&[a.clone(), b.clone(), c.clone()]);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    let problem = world.problem(ProblemKind::Container).unwrap();
    assert!(
        problem.message.contains("max_backends") && problem.severity == Severity::Warning,
        "{problem:?}"
    );
    world.settle(&[stopping(a), b.clone(), c.clone()]);
    assert_eq!(world.reached(2001), set(&[2]), "three containers are still too many");
    world.settle(&[b, c]);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::Container)),
        (set(&[2, 3]), None)
    );
    // All containers want a port that another service has: nobody defines the old one any more.
    world.settle(&[container("app-4", 4, 2009)]);
    assert_eq!(world.reached(2001), set(&[]));
    assert!(
        world
            .problem(ProblemKind::Container)
            .is_some_and(|of| of.severity == Severity::Error)
    );
}

/// One that was started again at the same address does not listen yet, though its probes were answered before.
#[test]
fn a_container_that_was_started_again_answers_a_probe_first() {
    let mut world = World::new();
    let (a, b) = (container("app-1", 1, 2001), container("app-2", 2, 2001));
    world.settle(&[a.clone(), b.clone()]);
    let again = Container { start: 1, ..a.clone() };
    let another = Container {
        id: "other".into(),
        ..a.clone()
    };
    for new in [again, another] {
        world.tell(&[stopping(a.clone()), b.clone()]);
        world.tell(&[down(a.clone()), b.clone()]);
        world.containers.down.insert(at(1));
        world.tell(&[new.clone(), b.clone()]);
        assert_eq!(world.reached(2001), set(&[2]));
        world.containers.down.clear();
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1, 2]));
        world.settle(&[a.clone(), b.clone()]);
    }
}

#[test]
fn a_local_program_keeps_its_port() {
    let mut world = World::new();
    world.surroundings.listening.insert(2001);
    world.settle(&[container("app-1", 1, 2001), container("web-1", 2, 2002)]);
    assert_eq!((world.reached(2001), world.reached(2002)), (set(&[]), set(&[2])));
    let problem = world.problem(ProblemKind::HeldBack).unwrap();
    assert!(problem.message.contains("`take_over = true`"), "{}", problem.message);
    world.surroundings.listening.clear();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1]));
}

/// A state file that is read at the start comes first, whoever is quicker.
#[test]
fn a_state_file_comes_first_when_both_are_new() {
    let mut world = world::World::without_daemon(Nobody);
    world.config = following();
    world.file.is_named = true;
    let file = json!({"version": 1, "services": [{"name": "file", "port": 2001, "backends": ["10.9.0.50:80"]}]});
    world.file.content = Some(model::parse(file.to_string().as_bytes()).unwrap());
    world.start(Fake::default());
    world.settle(&[container("app-1", 1, 2001)]);
    assert_eq!(world.reached(2001), set(&[50]));
    assert!(world.problem(ProblemKind::Container).is_some());
    assert_eq!(world.problem(ProblemKind::RejectedState), None);
}
