//! A store that is damaged or lost while platforms have resources: the daemon's printed steps are carried out literally, and
//! nothing is lost.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{ask, configure, daemon, listens, provision, provisioned, services};
use crate::harness::brief::endpoints;
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

fn is_served(net: &Net, port: u16) -> bool {
    net.within("client", || {
        connect(at(PUBLIC[0], port), Duration::from_secs(1))
            .and_then(|mut client| client.greeting())
            .is_ok()
    })
}

/// Returns the kinds of the problems with severity `error` that the API's health check reports.
fn errors(daemon: &Daemon<'_>) -> Vec<String> {
    let answer = daemon.ask("GET", "/v1/healthz", "").expect("an answer").json();
    let problems = answer["problems"].as_array().expect("a list").iter();
    let errors = problems.filter(|problem| problem["severity"] == "error");
    errors.map(|problem| problem["kind"].to_string()).collect()
}

/// Returns the command lines that a message has between backquotes.
fn quoted(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Apps with their paths and ports: a served one, one that waits for its first deploy, and a suspended one.
struct Apps {
    served: (String, u16),
    waiting: (String, u16),
    suspended: (String, u16),
}

impl Apps {
    fn provision(net: &Net, daemon: &Daemon<'_>) -> Self {
        let apps = Self {
            served: provisioned(net, Dialect::Scalingo, "served"),
            waiting: provisioned(net, Dialect::Heroku, "waiting"),
            suspended: provisioned(net, Dialect::CleverCloud, "suspended"),
        };
        for (app, host) in [("served", "b1"), ("suspended", "b2")] {
            let targets = endpoints(host, 3000);
            let name = format!("app:{app}");
            net.cli(&["deploy", &name, "--target", &targets[0], "--target", &targets[1]])
                .ok();
        }
        net.cli(&["addon", "suspend", "suspended"]).ok();
        assert!(
            wait_until(PATIENCE, || errors(daemon).is_empty()),
            "{:?}",
            errors(daemon)
        );
        apps
    }

    fn all(&self) -> [(&str, &(String, u16)); 3] {
        [
            ("served", &self.served),
            ("waiting", &self.waiting),
            ("suspended", &self.suspended),
        ]
    }

    /// Asserts that all requests get the same answers as before, and that the apps' clients are served as before.
    #[track_caller]
    fn are_as_before(&self, net: &Net) {
        for (app, (path, port)) in self.all() {
            assert_eq!(
                net.cli(&["env", app]).ok(),
                format!("TCP_URL=tcp://gateway.example.com:{port}\n")
            );
            ask(net, "GET", path, "").is(200);
        }
        let list = net.told(&["addon", "ls"]);
        let mut states: Vec<(Value, Value)> = list["resources"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (one["app"].clone(), one["state"].clone()))
            .collect();
        states.sort_by_key(|(app, _)| app.to_string());
        let expected = [("served", "active"), ("suspended", "suspended"), ("waiting", "waiting")];
        assert_eq!(states, expected.map(|(app, state)| (json!(app), json!(state))));
        assert!(wait_until(PATIENCE, || is_served(net, self.served.1)));
        assert!(!is_served(net, self.suspended.1) && !is_served(net, self.waiting.1));
    }
}

/// Waits until the second copy beside the store knows what the daemon knows.
fn is_copied(net: &Net) {
    let copy = net.file("store.db.last");
    let has = || fs::read_to_string(&copy).is_ok_and(|text| text.matches("\"suspended\"").count() >= 2);
    assert!(wait_until(PATIENCE, has), "{:?}", fs::read_to_string(&copy));
}

#[test]
fn what_a_damaged_store_says_is_to_be_done_loses_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = configure(&net, "20000-20009", "");
    let mut daemon = daemon(&net, &config);
    let own = crate::harness::brief::service("own", 2001, &["b3"], 3000, json!({}));
    daemon.post("/v1/apply", crate::harness::brief::state([own])).ok();
    let apps = Apps::provision(&net, &daemon);
    apps.are_as_before(&net);
    is_copied(&net);
    let before = services(&daemon);
    daemon.stop();
    let store = net.file("store.db");
    let mut bytes = fs::read(&store).expect("it is there");
    bytes.truncate(5000);
    bytes[100..].fill(0xa5);
    fs::write(&store, bytes).expect("it can be written");

    daemon.start();
    listens(&net);
    assert!(
        wait_until(PATIENCE, || errors(&daemon) == ["\"store\""]),
        "{:?}",
        errors(&daemon)
    );
    // Reading commands answer from a copy and say so, do not report unknown resources as gone, and change nothing.
    apps.are_as_before(&net);
    let output = net.cli(&["addon", "show", "served"]).exits(0);
    assert!(output.stderr.contains("the store cannot be read"), "{output}");
    assert!(net.told(&["addon", "show", "served"])["warning"].is_string());
    let unknown = net.cli(&["env", "nobody"]).exits(1);
    assert!(unknown.stderr.contains("store.db is damaged"), "{unknown}");
    let (method, path, body) = provision(Dialect::Scalingo, "new", "small");
    assert_eq!(ask(&net, method, &path, &body).status, 503);
    net.cli(&["addon", "resume", "suspended"]).exits(1);
    apps.are_as_before(&net);

    // Over a restart, too.
    daemon.kill();
    daemon.start();
    listens(&net);
    apps.are_as_before(&net);

    // To the letter.
    let status = net.cli(&["status", "--interval", "0s", "-o", "json"]).exits(1);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let message = status["problems"][0]["message"].as_str().expect("words");
    let file = net.file("FILE").to_string_lossy().into_owned();
    let typed = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "tcpgw", "{message}");
        let words: Vec<&str> = words[1..]
            .iter()
            .map(|word| if *word == "FILE" { file.as_str() } else { *word })
            .collect();
        match words.iter().position(|word| *word == ">") {
            Some(at) => fs::write(&file, net.cli(&words[..at]).ok()).expect("it can be written"),
            None => drop(net.cli(&words).ok()),
        }
    };
    let lines = quoted(message);
    assert_eq!(lines, ["tcpgw export > FILE", "tcpgw apply FILE"], "{message}");
    let away = format!("move {0} and {0}-wal away, restart the daemon", store.to_string_lossy());
    assert!(message.contains(&away), "{message}");
    typed(&lines[0]);
    daemon.stop();
    for name in ["store.db", "store.db-wal"] {
        let moved = Command::new("mv")
            .arg(net.file(name))
            .arg(net.file(&format!("{name}.away")))
            .status();
        assert!(moved.is_ok_and(|moved| moved.success()) || name.ends_with("wal"));
    }
    daemon.start();
    listens(&net);
    apps.are_as_before(&net);
    typed(&lines[1]);
    assert!(
        wait_until(PATIENCE, || errors(&daemon).is_empty()),
        "{:?}",
        errors(&daemon)
    );
    let problems = daemon.ask("GET", "/v1/healthz", "").expect("an answer").json()["problems"].clone();
    assert!(!problems.to_string().contains("orphan"), "{problems:#}");
    apps.are_as_before(&net);
    // The services are the platform's again.
    let wanted = |services: &[Value]| -> Vec<Value> { services.iter().map(|one| one["service"].clone()).collect() };
    assert_eq!(wanted(&services(&daemon)), wanted(&before));
    assert!(net.told(&["addon", "show", "served"])["warning"].is_null());
    net.cli(&["addon", "resume", "suspended"]).ok();
    assert!(wait_until(PATIENCE * 2, || is_served(&net, apps.suspended.1)));
    ask(&net, method, &path, &body).is(201);
    daemon.kill();
    daemon.start();
    listens(&net);
    assert!(wait_until(PATIENCE, || is_served(&net, apps.served.1)));
    assert_eq!(services(&daemon).len(), before.len() + 1);
    let to: SocketAddr = at(PUBLIC[0], 2001);
    assert!(net.within("client", || connect(to, PATIENCE).is_ok()));
}
