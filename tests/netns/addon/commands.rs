//! Commands of the operator for the add-on.

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{SERVICE, SMALL, ask, configure, daemon, provisioned, services};
use crate::harness::brief::endpoints;
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

#[test]
fn an_operator_provisions_changes_and_removes() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let daemon = daemon(&net, &config);
    let made = net.cli(&["addon", "provision", "my-app", "--plan", "small"]).ok();
    let told = "tcp://gateway.example.com:20000, plan small, waiting\n";
    assert_eq!(made, format!("my-app: provisioned: {told}"));
    let again = net.cli(&["addon", "provision", "my-app", "--plan", "small"]).ok();
    assert_eq!(again, format!("my-app: is unchanged: {told}"));
    assert_eq!(
        net.cli(&["env", "my-app"]).ok(),
        "TCP_URL=tcp://gateway.example.com:20000\n"
    );
    assert_eq!(
        net.told(&["env", "my-app"]),
        json!({"TCP_URL": "tcp://gateway.example.com:20000"})
    );
    let other = net.told(&["addon", "provision", "other", "--plan", "large", "--port", "20005"]);
    assert_eq!(
        (&other["created"], &other["resource"]["port"]),
        (&json!(true), &json!(20005))
    );

    net.cli(&["addon", "plan", "my-app", "large"]).ok();
    net.cli(&["addon", "suspend", "my-app"]).ok();
    let answer = net.told(&["addon", "show", "my-app"]);
    assert_eq!(
        (&answer["plan"], &answer["state"]),
        (&json!("large"), &json!("suspended"))
    );
    let suspended = net.cli(&["addon", "suspend", "my-app"]).ok();
    assert!(suspended.contains("is unchanged"), "{suspended}");
    net.cli(&["addon", "resume", "my-app"]).ok();
    let list = net.cli(&["addon", "ls"]).ok();
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["APP", "PLAN", "PORT", "STATE", "DIALECT", "SERVICE"]);
    assert!(
        lines[1..]
            .iter()
            .any(|line| line[..5] == ["my-app", "large", "20000", "waiting", "local"]),
        "{list}"
    );

    manifests(&net, &config);
    // An error is reported with the exit code of wrong input or of a refusal, and changes nothing.
    let before = services(&daemon);
    for (words, status, why) in [
        (
            &["addon", "provision", "x", "--plan", "none"][..],
            2,
            "there is no plan",
        ),
        (&["addon", "provision", "x", "--plan", "NONE"], 2, "plan"),
        (&["addon", "provision", "a/b", "--plan", "small"], 2, "the app's id"),
        (
            &["addon", "provision", "x", "--plan", "small", "--port", "22"],
            1,
            "is not in 20000-20009",
        ),
        (
            &["addon", "provision", "x", "--plan", "small", "--port", "20005"],
            1,
            "is in use",
        ),
        (
            &["addon", "provision", "other", "--plan", "small"],
            1,
            "change its plan instead",
        ),
        (&["addon", "plan", "none", "small"], 1, "there is no such resource"),
        (&["env", "none"], 1, "`tcpgw addon ls` lists them"),
        (&["addon", "show", "none"], 1, "`tcpgw addon ls` lists them"),
        (&["service", "show", "app:none"], 1, "there is no such resource"),
        (&["service", "show", "app:a/b"], 2, "app:APP_ID"),
        (&["service", "rm", "app:other"], 2, "tcpgw addon deprovision other"),
    ] {
        let refused = net.cli(words).exits(status);
        assert!(refused.stderr.contains(why), "{words:?}: {}", refused.stderr);
    }
    assert_eq!(services(&daemon), before);
    let gone = net.cli(&["addon", "deprovision", "other"]).ok();
    assert_eq!(gone, "other: deprovisioned\n");
    let refused = net.cli(&["addon", "deprovision", "other"]).exits(1);
    let told = "was deprovisioned; `tcpgw addon ls` lists those that there are";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
}

#[test]
fn what_happened_names_the_app_also_after_its_end() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let mut running = daemon(&net, &config);
    let provision = |app: &str| {
        net.cli(&["addon", "provision", app, "--plan", "small"]).ok();
        let answer = net.told(&["addon", "show", app]);
        answer["service"].as_str().expect("a service").to_owned()
    };
    let (first, other) = (provision("my-app"), provision("other"));
    let named = |service: &str| format!("{service} (app my-app)");
    // These backends have no listener.
    let backends = json!({"backends": endpoints("b1", 3000), "drain_timeout": "1s"}).to_string();
    let patched = running.ask("PATCH", &format!("/v1/services/{first}"), &backends);
    assert_eq!(patched.expect("an answer").status, 200);
    let status = || net.cli(&["status"]).stdout;
    let is_told = || status().contains(&format!("{} :20000 has no healthy backend", named(&first)));
    assert!(wait_until(PATIENCE, is_told), "{}", status());
    let logged = format!("{} :20000 has no healthy backend", named(&first));
    assert!(running.logged().contains(&logged), "{}", running.logged());
    net.cli(&["addon", "deprovision", "my-app"]).ok();
    let events = net.cli(&["events", "--service", "app:my-app"]).ok();
    let is_of_app = |event: &str| event.contains(" app=my-app ") && event.contains(&first);
    assert!(!events.is_empty() && events.lines().all(is_of_app), "{events}");
    assert!(events.contains(" problem "), "{events}");
    let second = provision("my-app");

    let history = net.cli(&["history", "app:my-app"]).ok();
    for service in [&first, &second] {
        assert!(history.contains(&named(service)), "{history}");
    }
    assert!(!history.contains(&other), "{history}");
    let log = running.logged();
    assert!(log.contains("addon deprovision of app my-app (uid 0)"), "{log}");
    net.cli(&["addon", "deprovision", "my-app"]).ok();
    // The store knows them, too.
    running.kill();
    running.start();
    let entries = net.told(&["history", "app:my-app"])["entries"].clone();
    let entries = entries.as_array().expect("entries");
    assert!(
        entries.len() >= 5 && entries.iter().all(|entry| entry["app"] == "my-app"),
        "{entries:?}"
    );
    assert!(entries.iter().any(|entry| entry["service"] == *first), "{entries:?}");
    let unknown = net.cli(&["history", "app:nobody"]).exits(1);
    assert!(unknown.stderr.contains("there is no such resource"), "{unknown}");
}

fn manifests(net: &Net, config: &str) {
    let stderr = net
        .cli(&["--config", config, "addon", "manifest", "--dialect", "scalingo"])
        .exits(0);
    // The provider API listens on loopback.
    assert!(stderr.stderr.contains("--url"), "{stderr}");
    let manifest: Value = serde_json::from_str(&stderr.stdout).expect("JSON");
    assert_eq!(
        manifest["production"]["base_url"],
        "http://gateway.example.com:9443/scalingo/resources"
    );
    let elsewhere = ["--url", "https://gw.example.com/"];
    let words = [
        &["--config", config, "addon", "manifest", "--dialect", "heroku"][..],
        &elsewhere,
    ]
    .concat();
    let output = net.cli(&words).exits(0);
    assert_eq!(output.stderr, "");
    let manifest: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(
        manifest["api"]["production"]["sso_url"],
        "https://gw.example.com/heroku/sso"
    );
    // The user name of the tests is not what Clever Cloud's rule for variables needs.
    let clever = ["--config", config, "addon", "manifest", "--dialect", "clever-cloud"];
    let output = net.cli(&[&clever[..], &elsewhere].concat()).exits(0);
    assert!(output.stderr.contains("username = \"tcp\""), "{output}");
    assert!(serde_json::from_str::<Value>(&output.stdout).is_ok(), "{output}");
    let refused = net.cli(&["addon", "manifest", "--dialect", "osb"]).exits(2);
    assert!(refused.stderr.contains("no [addon]"), "{}", refused.stderr);
}

/// A command that takes the name of a service also takes the name of its app.
#[test]
fn an_app_names_its_service() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (path, port) = provisioned(&net, Dialect::Osb, "instance-1");
    let bind = json!({"service_id": SERVICE, "plan_id": SMALL, "bind_resource": {"app_guid": "app-1"}});
    ask(&net, "PUT", &format!("{path}/service_bindings/b"), bind).is(201);
    let targets: Vec<String> = ["b1", "b2"].iter().flat_map(|host| endpoints(host, 3000)).collect();
    let mut words = vec!["deploy", "app:instance-1", "--until", "drained"];
    for target in &targets {
        words.extend(["--target", target]);
    }
    net.cli(&words).ok();
    assert_eq!(net.spread("client", at(PUBLIC[0], port), 4).values().sum::<usize>(), 4);
    for name in ["app:instance-1", "app:app-1"] {
        net.cli(&["wait", name, "--for", "healthy"]).ok();
        let view = net.told(&["service", "show", name]);
        assert_eq!(view["addon"]["app"], "instance-1");
        let status = net.told(&["status", "--service", name, "--interval", "0s"]);
        assert_eq!(status["services"].as_array().map(Vec::len), Some(1));
        net.told(&["flows", "--service", name]);
        let events = net.cli(&["events", "--service", name, "-o", "json"]).ok();
        let of = format!("\"service\":\"{}\"", view["service"]["name"].as_str().expect("a name"));
        assert!(
            !events.is_empty() && events.lines().all(|event| event.contains(&of)),
            "{events}"
        );
        let who = net.cli(&["who", "10.2.0.1:1", "--service", name, "-o", "json"]);
        assert_eq!(who.status, 1, "nobody, and the service is known: {who}");
        net.cli(&["pause", name, "--for", "5s"]).ok();
        net.cli(&["resume", name]).ok();
        net.cli(&["drain", name, &targets[0]]).ok();
        net.cli(&["undrain", name, &targets[0]]).ok();
        let changes = net.told(&["history", name]);
        let changes = serde_json::to_string(&changes).expect("JSON");
        assert!(changes.contains("addon-"), "{changes}");
        let deploys = net.told(&["deploys", "--service", name]);
        assert!(
            deploys["deploys"].as_array().is_some_and(|list| !list.is_empty()),
            "{deploys}"
        );
        net.cli(&["service", "set", name, "--drain-timeout", "3s"]).ok();
    }
    assert_eq!(daemon.get("/v1/services/app:app-1")["service"]["drain_timeout"], "3s");
    let refused: Value = daemon
        .ask("PATCH", "/v1/services/app:app-1", r#"{"port": 20001}"#)
        .expect("an answer")
        .json();
    assert!(refused.to_string().contains("add-on of app instance-1"), "{refused}");
}
