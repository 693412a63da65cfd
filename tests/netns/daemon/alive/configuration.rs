//! A configuration with which no daemon starts, or that cannot be read again.

use std::fs::{self, Permissions};

use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::state;
use crate::harness::client::PATIENCE;
use crate::harness::{Net, wait_until};

/// A configuration with which no daemon could start is a problem before the daemon is restarted: in the daemon's own list while
/// it runs, and in that of commands when none runs.
#[test]
fn a_configuration_that_no_daemon_starts_with_is_a_problem() {
    let net = Net::new();
    net.want(state([]));
    let file = net.file("config.toml");
    let path = file.to_string_lossy().into_owned();
    let good = "[fences]\nmax_services = 10\n";
    fs::write(&file, good).expect("a configuration");
    let mut daemon = net.daemon_within(&[("TCPGW_CONFIG", path.clone())]);
    let reported = || {
        let problems = daemon.get("/v1/daemon")["problems"].clone();
        let mut problems = problems.as_array().expect("a list").clone();
        problems.retain(|problem| problem["kind"] == "rejected_configuration");
        problems
    };
    assert_eq!(reported(), Vec::<Value>::new());
    for (text, word) in [
        ("[fences]\nmax_servces = 10\n", "line 2"),
        ("[daemon]\nsocket_group = \"no-such-group\"\n", "socket_group"),
    ] {
        fs::write(&file, text).expect("a configuration");
        assert!(wait_until(PATIENCE, || reported().iter().any(|problem| {
            problem["severity"] == "warning" && problem["message"].to_string().contains(word)
        })));
        // The daemon runs with the configuration that it has read.
        assert_eq!(daemon.ask("GET", "/v1/healthz", "").expect("an answer").status, 200);
        fs::write(&file, good).expect("a configuration");
        assert!(wait_until(PATIENCE, || reported().is_empty()), "{:?}", reported());
    }
    daemon.stop();
    let ask = |words: &[&str]| {
        let ran = net.tcpgw(&[&["--socket", "none", "--config", &path, "-o", "json"], words].concat());
        let json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        (ran.status, json)
    };
    let status = || ask(&["status", "--interval", "0s"]);
    let well = status();
    assert!(!well.1.to_string().contains("rejected_configuration"), "{:#}", well.1);
    let credentials = net.file("credentials.toml");
    let secrets = "username = 'u'\npassword = '0123456789abcdef'\nsso_salt = '0123456789abcdef'\n";
    fs::write(&credentials, secrets).expect("credentials");
    fs::set_permissions(&credentials, Permissions::from_mode(0o644)).expect("a mode");
    let addon = format!(
        "[addon]\nlisten = \"127.0.0.1:9443\"\nhost = \"gateway.example.com\"\nports = \"20000\"\ncredentials = \"{}\"\n\
         plans = [{{name = \"small\", id = \"5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11\", pps = 512}}]\n",
        credentials.to_string_lossy()
    );
    let bad_addon = addon.replace("20000", "80");
    for (text, id, severity, word) in [
        (
            "[fences]\nmax_servces = 10\n",
            "rejected-configuration",
            "error",
            "line 2",
        ),
        (&bad_addon, "rejected-configuration", "error", "does not allow 80"),
        (&addon, "provider-api", "warning", "mode 0644"),
    ] {
        fs::write(&file, text).expect("a configuration");
        let (code, status) = status();
        let kind = id.replace('-', "_");
        let problems = status["problems"].as_array().expect("a list").iter();
        let problem = problems.into_iter().find(|problem| problem["kind"] == kind);
        let problem = problem.unwrap_or_else(|| panic!("{kind}: {status:#}"));
        assert_eq!(
            (code, &problem["severity"]),
            (if severity == "error" { 1 } else { well.0 }, &json!(severity))
        );
        assert_eq!(status["ok"], code == 0);
        let message = problem["message"].as_str().expect("words");
        assert!(message.contains(word) && !message.contains("0123456789"), "{message}");
        let (_, doctor) = ask(&["doctor"]);
        let findings = doctor["findings"].as_array().expect("a list").iter();
        let found = findings.into_iter().find(|finding| finding["id"] == id);
        let found = found.unwrap_or_else(|| panic!("{id}: {doctor:#}"));
        let as_bad = if severity == "error" { "broken" } else { "warning" };
        assert_eq!(found["severity"], as_bad, "{found:#}");
        assert!(found["fix"].is_object(), "{found:#}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_again_is_a_problem_until_it_can() {
    let net = Net::new();
    net.want(state([]));
    let file = net.file("config.toml");
    let path = file.to_string_lossy().into_owned();
    fs::write(&file, "[fences]\nmax_services = 10\n").expect("a configuration");
    let daemon = net.daemon_within(&[("TCPGW_CONFIG", path.clone())]);
    let problems = || daemon.get("/v1/daemon")["problems"].clone();
    assert!(wait_until(PATIENCE, || problems() == json!([])), "{}", problems());
    fs::write(&file, "[fences]\nmax_servces = 10\n").expect("a configuration");
    daemon.signal(Signal::SIGHUP);
    let is_told = || problems()[0]["kind"] == "rejected_configuration";
    assert!(wait_until(PATIENCE, is_told), "{}", problems());
    let message = problems()[0]["message"].to_string();
    assert!(
        message.contains("max_servces") && message.contains("line 2"),
        "{message}"
    );
    // Commands that only read work, with the daemon and without it.
    let status = net.cli(&["--config", &path, "status", "--interval", "0s"]);
    assert!(status.stdout.contains("the configuration was rejected"), "{status}");
    for looks in [
        &["status", "--interval", "0s"][..],
        &["flows"],
        &["doctor"],
        &["who", "10.0.0.1:1"],
    ] {
        let args = [&["--config", &path, "--socket", "none"], looks].concat();
        let looked = net.tcpgw(&args);
        assert!(looked.status < 2, "{looked}");
        let stderr = format!("{}{}", looked.stdout, looked.stderr);
        assert!(stderr.contains("warning") && stderr.contains("max_servces"), "{looked}");
    }
    // Commands that are needed in an emergency work, too.
    net.cli(&["--config", &path, "teardown"]).exits(0);
    net.cli(&["--config", &path, "resume"]).exits(0);
    fs::write(&file, "[fences]\nmax_services = 11\n").expect("a configuration");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || problems() == json!([])), "{}", problems());
}
