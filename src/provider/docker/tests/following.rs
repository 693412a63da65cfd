//! The whole exchange, with an engine that loses events, breaks off, is slow, or answers nonsense.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::fake::{FakeEngine, RunningEngine, entry, told};
use crate::provider::docker::{DockerNews, DockerSettings, DockerSnapshot, follow};
use tcpgw_core::model::{BackendState, Fences};

const PATIENCE: Duration = Duration::from_secs(10);

struct Followed {
    engine: FakeEngine,
    settings: watch::Sender<DockerSettings>,
    news: watch::Receiver<DockerNews>,
    directory: tempfile::TempDir,
}

impl Followed {
    /// Follows an engine that is not there yet.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let settings = DockerSettings {
            socket: socket.clone(),
            fences: Fences::default(),
        };
        let (settings, changed) = watch::channel(settings);
        let (sender, news) = watch::channel(DockerNews::default());
        tokio::spawn(follow(changed, sender));
        Self {
            engine: FakeEngine::new(&socket),
            settings,
            news,
            directory,
        }
    }

    /// Waits for news of which this holds.
    async fn until(&mut self, what: &str, is_it: impl Fn(&DockerNews) -> bool) -> DockerNews {
        let waited = tokio::time::timeout(PATIENCE, self.news.wait_for(is_it)).await;
        let found = waited.ok().map(|news| news.unwrap().clone());
        found.unwrap_or_else(|| panic!("{what}: {:?}", self.news.borrow()))
    }

    async fn with_backends(&mut self, count: usize) -> Arc<DockerSnapshot> {
        let news = self
            .until(&format!("{count} backends"), |news| backends(news) == Some(count))
            .await;
        news.snapshot.unwrap()
    }
}

fn backends(news: &DockerNews) -> Option<usize> {
    let snapshot = news.snapshot.as_ref()?;
    let active = snapshot.state.services.iter().flat_map(|service| &service.backends);
    Some(active.filter(|backend| backend.state == BackendState::Active).count())
}

fn labels() -> serde_json::Value {
    json!({"tcpgw.port": "20003", "tcpgw.service": "app"})
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
}

fn started(followed: &Followed, containers: u16) -> RunningEngine {
    let containers = (0..containers).map(|number| entry(number, "running", &labels()));
    let containers = containers.collect();
    followed.engine.change(|of| of.containers = containers);
    followed.engine.start()
}

#[test]
fn containers_are_listed_and_their_events_are_followed() {
    run(async {
        let mut followed = Followed::new();
        let away = followed.until("it is away", |news| news.trouble.is_some()).await;
        assert!(away.trouble.unwrap().contains("does the engine run?"));
        let _engine = started(&followed, 2);
        let snapshot = followed.with_backends(2).await;
        assert!(snapshot.is_certain && snapshot.problems.is_empty());
        let service = &snapshot.state.services[0];
        assert_eq!(service.backends[0].endpoint.to_string(), "172.30.0.2:80");
        followed.until("it has answered", |news| news.trouble.is_none()).await;
        let since = Instant::now();
        followed.engine.event(&told(1, "kill", 7));
        followed.with_backends(1).await;
        assert!(
            since.elapsed() < Duration::from_millis(90),
            "before a list: {:?}",
            since.elapsed()
        );
        followed
            .engine
            .change(|of| of.containers[1] = entry(1, "exited", &labels()));
        followed.engine.event(&told(1, "die", 8));
        let gone = |news: &DockerNews| {
            news.snapshot
                .as_ref()
                .is_some_and(|of| of.state.services[0].backends.len() == 1)
        };
        followed.until("one has ended", gone).await;
        // Its configuration was asked for once.
        assert_eq!(
            (followed.engine.count("/json"), followed.engine.count("/networks")),
            (followed.engine.count("containers/json") + 2, 1)
        );
        followed.engine.change(|of| of.containers.clear());
        followed.engine.event(&told(1, "destroy", 9));
        let empty = followed.until("all are gone", |news| {
            news.snapshot.as_ref().is_some_and(|of| of.state.services.is_empty())
        });
        assert!(empty.await.snapshot.unwrap().is_certain);
    });
}

#[test]
fn an_engine_that_is_away_changes_nothing_and_is_followed_again() {
    run(async {
        let mut followed = Followed::new();
        let engine = started(&followed, 3);
        followed.with_backends(3).await;
        drop(engine);
        let news = followed.until("it is away", |news| news.trouble.is_some()).await;
        assert_eq!(backends(&news), Some(3));
        // What happened meanwhile is in the events of before, and in the list. A container ends while nobody listens.
        followed.engine.change(|of| {
            of.containers.pop();
            of.past = vec![format!("{}\n", told(0, "kill", 100))];
        });
        let _engine = followed.engine.start();
        let back = followed
            .until("it is back", |news| news.trouble.is_none() && backends(news) == Some(1))
            .await;
        let service = &back.snapshot.unwrap().state.services[0];
        assert_eq!(
            (service.backends.len(), service.backends[0].state),
            (2, BackendState::Draining)
        );
        // One that knows none is not believed at once.
        followed.engine.change(|of| of.containers.clear());
        followed.engine.end_events();
        let doubted = followed.until("no containers", |news| backends(news) == Some(0)).await;
        assert!(!doubted.snapshot.unwrap().is_certain);
    });
}

/// The stream of events ends without an event, and begins again with those since the last one.
#[test]
fn lost_events_are_found_by_the_next_list() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        followed.engine.event(&told(9, "create", 5_000_000_000));
        tokio::time::sleep(Duration::from_millis(50)).await;
        followed.engine.change(|of| drop(of.containers.pop()));
        followed.engine.end_events();
        followed.with_backends(1).await;
        let requests = followed.engine.change(|of| of.requests.clone());
        let again = requests.iter().rfind(|request| request.contains("/events")).unwrap();
        assert!(again.starts_with("/v1.41/events?since=4.000000000&"), "{again}");
        assert_eq!(followed.news.borrow().trouble, None);
    });
}

#[test]
fn answers_that_make_no_sense_are_a_problem_and_change_nothing() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        for nonsense in [
            "{}",
            "[",
            "[{\"Id\": 5}]",
            "",
            "[{\"Id\": \"a\", \"Labels\": {\"tcpgw.port\": 7}}]",
        ] {
            followed.engine.change(|of| of.raw_list = Some(nonsense.to_owned()));
            followed.engine.event(&told(1, "create", 1));
            followed.engine.end_events();
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(backends(&followed.news.borrow()), Some(2), "{nonsense}");
        }
        followed
            .until("a problem", |news| {
                news.trouble.as_ref().is_some_and(|why| why.contains("cannot be read"))
            })
            .await;
        // Ids that cannot be in a path are left out, and what is null is none.
        let odd = json!([
            {"Id": "../../version", "Labels": {"tcpgw.port": "1"}}, {"Id": "", "Labels": null},
            {"Id": "a", "Names": null, "Labels": {"tcpgw.port": "20004", "tcpgw.\u{1b}": "x"}, "State": "running", "NetworkSettings": {"Networks": null}},
            entry(1, "running", &labels()),
        ]);
        followed.engine.change(|of| of.raw_list = Some(odd.to_string()));
        let snapshot = followed.with_backends(1).await;
        let [problem] = snapshot.problems.as_slice() else {
            panic!("{:?}", snapshot.problems)
        };
        assert!(
            problem
                .message
                .starts_with("container \"a\": label \"tcpgw.\\u{1b}\" is unknown"),
            "{}",
            problem.message
        );
        assert_eq!(followed.engine.count("/version/json"), 0);
    });
}

#[test]
fn a_thousand_containers_are_one_list() {
    run(async {
        let mut followed = Followed::new();
        // A service has at most 256 active backends.
        let containers = (0..1000).map(|number: u16| {
            let labels = json!({"tcpgw.port": (20_000 + number / 200).to_string(), "tcpgw.service": format!("app{}", number / 200)});
            entry(number, "running", &labels)
        });
        followed.engine.change(|of| of.containers = containers.collect());
        let since = Instant::now();
        let _engine = followed.engine.start();
        let snapshot = followed.with_backends(1000).await;
        assert_eq!(snapshot.state.services.len(), 5);
        println!("1000 containers after {:?}", since.elapsed());
        let lists = followed.engine.count("/containers/json");
        for number in 0..1000 {
            followed.engine.event(&told(number, "kill", u64::from(number) + 1));
        }
        followed.with_backends(0).await;
        let more = followed.engine.count("/containers/json") - lists;
        assert!(more <= 2, "{more} lists");
    });
}

#[test]
fn a_slow_list_keeps_no_event_from_being_told() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        followed.engine.change(|of| of.list_delay = Duration::from_secs(5));
        followed.engine.event(&told(1, "create", 1));
        tokio::time::sleep(Duration::from_millis(150)).await;
        let since = Instant::now();
        followed.engine.event(&told(1, "kill", 2));
        followed.with_backends(1).await;
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    });
}

/// Engines tell the configuration of a container that they are starting when they have started it, seconds later.
#[test]
fn a_container_that_is_being_started_keeps_no_other_waiting() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 1);
        followed.with_backends(1).await;
        followed.engine.change(|of| {
            of.starting = Some(1);
            of.containers.push(entry(1, "created", &labels()));
        });
        followed.engine.event(&told(1, "create", 1));
        tokio::time::sleep(Duration::from_millis(300)).await;
        followed
            .engine
            .change(|of| of.containers.push(entry(2, "running", &labels())));
        let since = Instant::now();
        followed.engine.event(&told(2, "start", 2));
        followed.with_backends(2).await;
        followed.engine.change(|of| {
            of.starting = None;
            of.containers[1] = entry(1, "running", &labels());
        });
        followed.engine.event(&told(1, "start", 3));
        let snapshot = followed.with_backends(3).await;
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    });
}

#[test]
fn other_settings_are_taken_while_it_follows() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        followed
            .settings
            .send_modify(|of| of.fences.backends = Some(vec!["172.30.0.2/32".parse().unwrap()]));
        let snapshot = followed.with_backends(1).await;
        assert_eq!(snapshot.problems.len(), 1);
        let other = followed.directory.path().join("other.sock");
        let engine = FakeEngine::new(&other);
        engine.change(|of| of.containers = (5..9).map(|number| entry(number, "running", &labels())).collect());
        let _other = engine.start();
        followed.settings.send_modify(|of| {
            *of = DockerSettings {
                socket: other,
                fences: Fences::default(),
            }
        });
        followed.with_backends(4).await;
    });
}
