//! Docker's containers as a provider: what its engine tells is served, what it does not tell stays as it is.

mod absence;
mod addresses;
mod any_order;
mod beginning;
mod engine;
mod fences;
mod holders;
mod labels;
mod origin;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::config::Config;
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw::provider::docker::{DockerNews, TrackedContainers};
use tcpgw_core::container::{Container, ContainerHealth, ContainerNetwork, NetworkReach, RunState};
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
        self.news(containers, is_certain);
        self.run();
    }

    /// Takes what the engine tells, and does nothing yet.
    fn news(&mut self, containers: &[Container], is_certain: bool) {
        let containers = containers.to_vec();
        self.core.docker_news(DockerNews {
            containers: Some(Arc::new(TrackedContainers { containers, is_certain })),
            ..DockerNews::default()
        });
    }

    /// Has the engine tell of these, and waits until all is served and drained.
    fn settle(&mut self, containers: &[Container]) {
        self.tell(containers);
        self.wait(LONG);
    }

    fn is_away(&mut self) {
        let news = DockerNews {
            trouble: Some("Docker's engine at /var/run/docker.sock does not answer: it is away".into()),
            ..DockerNews::default()
        };
        self.core.docker_news(news);
        self.run();
    }

    /// Returns the backends that clients of a port reach.
    fn reached(&mut self, port: u16) -> BTreeSet<SocketAddr> {
        let kernel = self.kernel();
        let (before, mut reached) = (kernel.flows.len(), BTreeSet::new());
        for client in 0..60_u16 {
            let syn = Syn {
                client: ([198, 51, 100, 7], 40_000 + client).into(),
                public: ([192, 0, 2, 1], port).into(),
            };
            if let ConnectOutcome::Backend(backend) = kernel.connect(&syn, client.into()) {
                reached.insert(backend);
            }
        }
        kernel.flows.truncate(before);
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
