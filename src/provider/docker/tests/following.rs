//! The whole exchange, with an engine that loses events, breaks off, is slow, or answers nonsense.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::watch;

use super::fake::{FakeEngine, RunningEngine, entry, told};
use crate::provider::docker::follow::{AnswerPatience, follow_patiently};
use crate::provider::docker::{DockerNews, DockerSettings};
use tcpgw_core::container::{ContainerServices, services_of};
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
        Self::with_patience(AnswerPatience::default())
    }

    /// Follows one that is to answer within this time.
    fn with_patience(patience: AnswerPatience) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let settings = DockerSettings { socket: socket.clone() };
        let (settings, changed) = watch::channel(settings);
        let (sender, news) = watch::channel(DockerNews::default());
        tokio::spawn(follow_patiently(changed, sender, patience));
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

    async fn with_backends(&mut self, count: usize) -> ContainerServices {
        let news = self
            .until(&format!("{count} backends"), |news| backends(news) == Some(count))
            .await;
        found(&news).unwrap()
    }
}

/// Returns the services of the containers.
fn found(news: &DockerNews) -> Option<ContainerServices> {
    let of = news.containers.as_ref()?;
    Some(services_of(&of.containers, &Fences::default()))
}

fn is_certain(news: &DockerNews) -> bool {
    news.containers.as_ref().is_some_and(|of| of.is_certain)
}

fn backends(news: &DockerNews) -> Option<usize> {
    let found = found(news)?;
    let active = found.services.iter().flat_map(|service| &service.backends);
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
        assert!(is_certain(&followed.news.borrow()) && snapshot.problems.is_empty());
        let service = &snapshot.services[0];
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
        let gone = |news: &DockerNews| found(news).is_some_and(|of| of.services[0].backends.len() == 1);
        followed.until("one has ended", gone).await;
        // Its configuration was asked for once.
        assert_eq!(
            (followed.engine.count("/json"), followed.engine.count("/networks")),
            (followed.engine.count("containers/json") + 2, 1)
        );
        followed.engine.change(|of| of.containers.clear());
        followed.engine.event(&told(1, "destroy", 9));
        let empty = followed.until("all are gone", |news| {
            found(news).is_some_and(|of| of.services.is_empty())
        });
        assert!(is_certain(&empty.await));
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
        let service = &found(&back).unwrap().services[0];
        assert_eq!(
            (service.backends.len(), service.backends[0].state),
            (2, BackendState::Draining)
        );
        // One that knows none is not believed at once.
        followed.engine.change(|of| of.containers.clear());
        followed.engine.end_events();
        let doubted = followed.until("no containers", |news| backends(news) == Some(0)).await;
        assert!(!is_certain(&doubted));
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

/// Engines publish what happens at once in any order: what is older than the event before it has happened, too.
#[test]
fn events_out_of_the_order_of_their_times_are_taken() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 3);
        followed.with_backends(3).await;
        followed.engine.event(&told(1, "kill", 1_000_000));
        followed.engine.event(&told(0, "kill", 999_921));
        followed.with_backends(1).await;
        // The clock of the engine steps back by an hour.
        followed.engine.event(&told(9, "create", 7_200_000_000_000));
        followed.engine.event(&told(2, "kill", 3_600_000_000_000));
        followed.with_backends(0).await;
    });
}

/// Events of a new connection overlap those of the last one.
#[test]
fn an_event_that_comes_again_is_the_same() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        let (started, create) = (told(1, "start", 1_000), told(9, "create", 2_000));
        followed.engine.event(&started);
        let is_second = |news: &DockerNews| starts(news).contains(&1);
        followed.until("it was started again", is_second).await;
        followed
            .engine
            .change(|of| of.past = [&create, &started].map(|line| format!("{line}\n")).to_vec());
        for _ in 0..3 {
            let lists = followed.engine.count("/containers/json");
            followed.engine.end_events();
            while followed.engine.count("/containers/json") < lists + 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(starts(&followed.news.borrow()), [0, 1]);
    });
}

/// An engine whose clock was set back has no events of the time of the last one.
#[test]
fn events_are_asked_for_since_a_time_that_has_been() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        // In the year 2096.
        followed.engine.event(&told(9, "create", 4_000_000_000_000_000_000));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        followed
            .engine
            .change(|of| of.past = vec![format!("{}\n", told(1, "kill", 5))]);
        followed.engine.end_events();
        followed.with_backends(1).await;
        let requests = followed.engine.change(|of| of.requests.clone());
        let again = requests.iter().rfind(|request| request.contains("/events")).unwrap();
        let (_, since) = again.split_once("since=").unwrap();
        let since: u64 = since.split('.').next().unwrap().parse().unwrap();
        assert!((now.as_secs() - 121..=now.as_secs()).contains(&since), "{again}");
    });
}

/// An event has all labels of its container, also of one that is no backend.
#[test]
fn an_event_that_is_too_long_is_left_out_and_told_while_its_container_is_there() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        let long = |number: u64| {
            let (id, big) = (format!("{:064x}", 7), "x".repeat(5 << 20));
            format!(
                r#"{{"status":"create","id":"{id}","Type":"container","Action":"create","Actor":{{"ID":"{id}","Attributes":{{"big":"{big}"}}}},"scope":"local","time":5,"timeNano":{}}}"#,
                5_000_000_000 + number
            )
        };
        let other = entry(7, "created", &json!({}));
        followed.engine.change(|of| of.containers.push(other));
        for number in [0, 1, 2, 1] {
            followed.engine.line(&long(number));
        }
        followed.engine.event(&told(1, "kill", 5_000_000_003));
        followed.with_backends(1).await;
        let is_told = |news: &DockerNews| news.left_out.is_some();
        let told_so = followed.until("it is told", is_told).await.left_out.unwrap();
        for part in ["3 events", &format!("{:012x}", 0), "4 MiB"] {
            assert!(told_so.contains(part), "{told_so}");
        }
        assert_eq!(followed.news.borrow().trouble, None);
        // Nothing was asked for again, and no reconnection meets it.
        assert_eq!(followed.engine.count("/events"), 1);
        followed.engine.change(|of| of.past = vec![format!("{}\n", long(2))]);
        followed.engine.end_events();
        let again = || {
            let requests = followed.engine.change(|of| of.requests.clone());
            requests
                .iter()
                .filter(|request| request.contains("/events"))
                .nth(1)
                .cloned()
        };
        while again().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(again().unwrap().contains("since=4.0000000"), "{:?}", again());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let still = followed.news.borrow().left_out.clone();
        assert!(still.is_some_and(|still| still.contains("3 events")));
        // It is over when the container is gone.
        followed.engine.change(|of| drop(of.containers.pop()));
        followed.engine.event(&told(8, "create", 5_000_000_004));
        followed.until("it is over", |news| news.left_out.is_none()).await;
    });
}

fn starts(news: &DockerNews) -> Vec<u64> {
    found(news)
        .unwrap()
        .backends
        .values()
        .map(|container| container.start)
        .collect()
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
        assert_eq!(snapshot.services.len(), 5);
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

/// An engine that takes connections and answers nothing is told before the next list, and followed on when it goes on.
#[test]
fn an_engine_that_hangs_is_told() {
    run(async {
        let mut followed = Followed::with_patience(AnswerPatience {
            pause: Duration::from_millis(100),
            answer: Duration::from_millis(200),
        });
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        followed.until("it answers", |news| news.trouble.is_none()).await;
        followed.engine.change(|of| of.hangs = true);
        let hung = followed.until("it hangs", |news| news.trouble.is_some()).await;
        assert_eq!(backends(&hung), Some(2));
        assert!(hung.trouble.unwrap().contains("does not answer: no answer within"));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = followed.engine.count("/version");
        followed.engine.change(|of| of.hangs = false);
        followed.until("it goes on", |news| news.trouble.is_none()).await;
        // One question at a time, and the connection of the events has lasted.
        assert!((3..9).contains(&asked), "{asked}");
        assert_eq!(followed.engine.count("/events"), 1);
        followed.engine.event(&told(1, "kill", 7));
        followed.with_backends(1).await;
    });
}

#[test]
fn another_engine_is_followed_from_then_on() {
    run(async {
        let mut followed = Followed::new();
        let _engine = started(&followed, 2);
        followed.with_backends(2).await;
        let other = followed.directory.path().join("other.sock");
        let engine = FakeEngine::new(&other);
        engine.change(|of| of.containers = (5..9).map(|number| entry(number, "running", &labels())).collect());
        let _other = engine.start();
        followed
            .settings
            .send_modify(|of| *of = DockerSettings { socket: other });
        followed.with_backends(4).await;
    });
}
