//! Probes that ask after the handshake, against real servers.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::server::Behaviour;
use crate::harness::shell::Running;
use crate::harness::{Net, wait_until};

/// CONNECT of MQTT 3.1.1 with the client id `probe` and a clean session.
const CONNECT: &str = "10 11 00 04 4d 51 54 54 04 02 00 0a 00 05 70 72 6f 62 65";
/// CONNACK: accepted.
const CONNACK: &str = "20 02 00 00";

fn four(host: &str, port: u16) -> String {
    endpoints(host, port)[0].clone()
}

/// Returns a service of `b1` and `b2` on this port, whose probes ask.
fn asked(port: u16, question: &Value) -> Value {
    let mut health = json!({"interval": "200ms", "timeout": "1s", "fall": 2});
    for (name, value) in question.as_object().expect("an object") {
        health[name] = value.clone();
    }
    let backends = [four("b1", port), four("b2", port)];
    service("a", 2001, &[], 0, json!({"backends": backends, "health": health}))
}

/// Starts nginx on port 8080 of a host: `/healthz` answers with 204, everything else leads elsewhere.
fn nginx(net: &Net, host: &str) -> Running {
    let directory = net.file(&format!("nginx-{host}"));
    fs::create_dir_all(&directory).expect("failed to make a directory");
    let at = directory.to_string_lossy();
    let config = format!(
        "daemon off; master_process off; user root; pid {at}/pid; error_log {at}/error.log;\n\
         events {{}}\n\
         http {{ access_log {at}/access.log; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
         uwsgi_temp_path {at}; scgi_temp_path {at};\n\
         server {{ listen 8080; location = /healthz {{ return 204; }} location / {{ return 302 http://192.0.2.1/; }} }} }}\n"
    );
    fs::write(directory.join("nginx.conf"), config).expect("failed to write");
    let running = net.spawn(host, &["nginx", "-p", &at, "-c", &format!("{at}/nginx.conf")]);
    assert!(net.wait_for_listener(host, 8080, PATIENCE), "nginx does not listen");
    running
}

/// Returns health and reason of a backend of the only service.
fn health(net: &Net, n: usize) -> (Value, Value) {
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]).stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let backend = &status["services"][0]["backends"][n];
    (backend["health"].clone(), backend["health_reason"].clone())
}

#[track_caller]
fn becomes(net: &Net, n: usize, state: &str, reason: Option<&str>) {
    let expected = (json!(state), json!(reason));
    assert!(
        wait_until(PATIENCE, || health(net, n) == expected),
        "{:?}, not {expected:?}",
        health(net, n)
    );
}

/// A server that accepts and hangs is healthy for handshakes, and not for questions.
#[test]
fn a_server_that_hangs_is_found_by_a_question() {
    let net = Net::new();
    let hangs = net.serve("b1", 8080, Behaviour::Silent);
    let _good = nginx(&net, "b2");
    net.want(state([asked(8080, &json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);

    net.want(state([asked(
        8080,
        &json!({"http": {"path": "/healthz", "host": "a.example"}}),
    )]));
    becomes(&net, 0, "unhealthy", Some("no answer after the handshake"));
    becomes(&net, 1, "healthy", None);
    drop(hangs);
    becomes(&net, 0, "unhealthy", Some("refused"));
    let _good = nginx(&net, "b1");
    becomes(&net, 0, "healthy", None);
    // A redirection is an answer, and not followed; here it is not the expected one.
    net.want(state([asked(8080, &json!({"http": {"path": "/", "status": 200}}))]));
    becomes(&net, 0, "unhealthy", Some("status 302"));
    net.want(state([asked(8080, &json!({"http": {"path": "/"}}))]));
    becomes(&net, 0, "healthy", None);

    net.want(state([]));
    for host in ["b1", "b2"] {
        let at: SocketAddr = four(host, 8080).parse().expect("an endpoint");
        assert!(
            wait_until(PATIENCE, || net.flows_to(at).is_empty()),
            "conntrack keeps probes of {host}"
        );
    }
}

/// A broker is asked with the bytes of its own protocol; a deploy switches when the new one has answered them.
#[test]
fn a_deploy_waits_for_the_answer_to_a_question() {
    let net = Net::new();
    let old = net.serve("b1", 1883, Behaviour::Greet);
    let hangs = net.serve("b2", 1883, Behaviour::Silent);
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let mut spec = asked(1883, &json!({}));
    spec["backends"] = json!([four("b1", 1883)]);
    let file = net.file("a.json");
    fs::write(&file, spec.to_string()).expect("failed to write");
    net.cli(&["service", "add", "a", "--file", &file.to_string_lossy()])
        .ok();
    daemon.settles(1);
    let question = json!({"health": {"expect": {"send": CONNECT, "expect": CONNACK, "encoding": "hex"}}});
    let change = net.file("change.json");
    fs::write(&change, question.to_string()).expect("failed to write");
    net.cli(&["service", "set", "a", "--file", &change.to_string_lossy()])
        .ok();
    let target = four("b2", 1883);
    let refused = net.cli(&["deploy", "a", "--target", &target, "--timeout", "2s"]);
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("no answer after the handshake"),
        "{}",
        refused.stderr
    );
    drop(hangs);
    let config = net.file("mosquitto.conf");
    fs::write(&config, "listener 1883\nallow_anonymous true\nlog_dest none\n").expect("failed to write");
    let _broker = net.spawn("b2", &["mosquitto", "-c", &config.to_string_lossy()]);
    assert!(net.wait_for_listener("b2", 1883, PATIENCE), "mosquitto does not listen");
    net.cli(&["deploy", "a", "--target", &target, "--timeout", "20s"]).ok();
    daemon.settles(1);
    drop(old);
}
