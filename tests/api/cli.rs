//! Commands that use the API's socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tcpgw::control::events::EventContent;
use tcpgw::control::request::Refused;
use tcpgw::view::snapshot_parts::WantedService;
use tcpgw_core::model::InputProblems;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_kernel::fake::{Fail, KernelCall};

use crate::harness::{Server, flow, serves};

const GOOD: &str = r#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

pub(crate) fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcpgw"));
    command
        .args(args)
        .env("TCPGW_CONFIG", "/dev/null")
        .env("TCPGW_SOCKET", &server.path)
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(server: &Server, args: &[&str]) -> Output {
    command(server, args).output().expect("the program runs")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", out(output), err(output)))
}

pub(crate) fn state(server: &Server, text: &str) -> String {
    let path = server.directory.path().join("state.json");
    fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

#[test]
fn status_healthz_and_doctor_agree_about_every_kind_of_problem() {
    let server = serves();
    let is_well = |of: &WantedService| &*of.service.name == "web";
    server.shared.lock().expect("whole").snapshot.wanted.retain(is_well);
    let tell = |problems: Vec<Problem>| {
        server.shared.lock().expect("whole").snapshot.daemon.problems = problems;
        let healthz = server.get("/v1/healthz");
        let status = run(&server, &["status", "-o", "json", "--interval", "0s"]);
        assert_eq!(json(&status)["problems"], healthz.json()["problems"]);
        assert_eq!(json(&status)["ok"], healthz.json()["ok"]);
        (healthz.status, status.status.code())
    };
    assert_eq!(tell(Vec::new()), (200, Some(0)));
    for kind in ProblemKind::ALL {
        for severity in [Severity::Error, Severity::Warning] {
            let problem = Problem::new(*kind, "words").with_severity(severity);
            let expected = match severity {
                Severity::Error => (503, Some(1)),
                Severity::Warning => (200, Some(0)),
            };
            assert_eq!(tell(vec![problem]), expected, "{kind:?}");
        }
        let problem = Problem::new(*kind, "words").of_service("web", 20003);
        let is_error = kind.severity() == Severity::Error;
        let expected = if is_error { (503, Some(1)) } else { (200, Some(0)) };
        assert_eq!(tell(vec![problem]), expected, "{kind:?}");
    }
    // The doctor looks at this machine, too: what the daemon tells is compared.
    for kinds in ProblemKind::ALL.chunks(40) {
        for severity in [Severity::Error, Severity::Warning] {
            let of = |kind: &ProblemKind| Problem::new(*kind, "words").with_severity(severity);
            tell(kinds.iter().map(of).collect());
            let ran = run(&server, &["doctor", "-o", "json"]);
            let findings = json(&ran)["findings"].as_array().expect("a list").clone();
            let expected = if severity == Severity::Error {
                "broken"
            } else {
                "warning"
            };
            for kind in kinds {
                let of_kind = findings.iter().filter(|finding| finding["id"] == kind.id());
                let all: Vec<&Value> = of_kind.map(|finding| &finding["severity"]).collect();
                assert!(all.contains(&&json!(expected)), "{kind:?}: {all:?}");
                assert!(
                    expected == "broken" || !all.contains(&&json!("broken")),
                    "{kind:?}: {all:?}"
                );
            }
            let is_broken = findings.iter().any(|finding| finding["severity"] == "broken");
            assert_eq!(ran.status.code(), Some(i32::from(is_broken)));
        }
    }
}

#[test]
fn teardown_needs_no_configuration() {
    let server = serves();
    let file = server.directory.path().join("config.toml");
    fs::write(&file, "[fences]\nmax_servces = 1\n").expect("written");
    let torn = command(&server, &["teardown"]).env("TCPGW_CONFIG", &file).output();
    let torn = torn.expect("the program runs");
    assert_eq!(torn.status.code(), Some(0), "{}", err(&torn));
    assert_eq!(server.shared.lock().expect("whole").teardowns, 1);
}

#[test]
fn what_the_daemon_says_makes_no_lines_of_its_own() {
    let server = serves();
    let lines = "a\nerror: forged\nwarning: forged";
    server.shared.lock().expect("whole").answer = Some(Refused::Refused(lines.into()));
    let refused = run(&server, &["apply", &state(&server, GOOD)]);
    assert_eq!(err(&refused).lines().count(), 1, "{}", err(&refused));
    server.shared.lock().expect("whole").snapshot.daemon.problems =
        vec![Problem::new(ProblemKind::RejectedConfiguration, lines)];
    for shows in [&["status", "--interval", "0s"][..], &["doctor"]] {
        let ran = run(&server, shows);
        assert!(out(&ran).contains("forged"), "{}", out(&ran));
        let is_forged = |line: &str| line.ends_with(": forged") && !line.contains("\\n");
        assert!(!out(&ran).lines().any(is_forged), "{}", out(&ran));
    }
}

#[test]
fn status_through_the_daemon_is_the_same_document_and_table() {
    let server = serves();
    let ran = run(&server, &["status", "-o", "json", "--interval", "0s"]);
    assert_eq!((ran.status.code(), err(&ran)), (Some(1), String::new()));
    assert_eq!(json(&ran), server.get("/v1/status").json());
    assert_eq!(out(&ran).as_bytes(), server.get("/v1/status").body);

    let table = run(&server, &["status", "--interval", "10ms", "-o", "wide"]);
    assert_eq!(table.status.code(), Some(1));
    let text = out(&table);
    for word in [
        "unhealthy: 3 services (1 without an active backend, 1 without a healthy backend)",
        "error: void :20005 has no active backend",
        "error: sick :20004 has no healthy backend",
        "warning: sick :20004: 10.2.0.3:80 does not answer probes (refused)",
        "warning: the configuration was rejected: line 3: no",
        "  timed out  ",
        "draining: web :20003, 10.2.0.9:80: 3 flows, 12 s left",
        "flags owner, persist",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let well = run(&server, &["status", "--service", "web", "--interval", "0s", "--wait"]);
    assert_eq!(well.status.code(), Some(0), "{}", out(&well));
    let nobody = run(&server, &["status", "--service", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        err(&nobody).contains("there is no service named \"nobody\""),
        "{}",
        err(&nobody)
    );
    let waited = run(
        &server,
        &["status", "--service", "nobody", "--wait", "--timeout", "300ms"],
    );
    assert_eq!(waited.status.code(), Some(1));
}

#[test]
fn flows_and_who_through_the_daemon() {
    let server = serves();
    let document = run(&server, &["flows", "-o", "json"]);
    assert_eq!(
        (document.status.code(), out(&document).into_bytes()),
        (Some(0), server.get("/v1/flows").body)
    );
    let table = run(
        &server,
        &[
            "flows",
            "--backend",
            "10.2.0.1:80",
            "--client",
            "198.51.100.0/24",
            "--service",
            "web",
        ],
    );
    let text = out(&table);
    assert!(text.starts_with("CLIENT ") && text.lines().count() == 2, "{text}");
    assert!(
        text.contains("198.51.100.1:1") && text.contains("ESTABLISHED"),
        "{text}"
    );

    let who = run(&server, &["who", "10.2.0.254:1", "--backend", "10.2.0.1:80"]);
    assert!(
        who.status.success() && out(&who).contains("198.51.100.1:1"),
        "{}",
        out(&who)
    );
    let who = run(&server, &["who", "10.2.0.254:1", "-o", "json"]);
    assert_eq!(out(&who).into_bytes(), server.get("/v1/who?seen_as=10.2.0.254:1").body);
    let nobody = run(&server, &["who", "10.2.0.254:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        err(&nobody).contains("no backend sees a connection"),
        "{}",
        err(&nobody)
    );

    let mut recorded = server.shared.lock().expect("whole");
    recorded.fail = Some((KernelCall::Flows, Fail::UnknownAfter));
    recorded.flows = (1..20_000).map(flow).collect();
    drop(recorded);
    for args in [&["flows"][..], &["flows", "-o", "json"]] {
        let cut = run(&server, args);
        assert_eq!(cut.status.code(), Some(1));
        assert!(err(&cut).contains("ends in the middle"), "{}", err(&cut));
    }
}

#[test]
fn apply_and_diff_through_the_daemon() {
    let server = serves();
    let file = state(&server, GOOD);
    let applied = run(&server, &["apply", &file, "--drain", "5s", "--take-over"]);
    assert_eq!(
        (applied.status.code(), &*out(&applied)),
        (
            Some(0),
            "services +1 ~0 -0; backends +1 ~0 -0; 0 flows flushed; 1 element changed in 1.5 ms\n"
        )
    );
    assert_eq!(err(&applied), "warning: net.ipv4.ip_forward: is 0\n");
    let applied = run(&server, &["apply", &file, "-o", "json", "-q"]);
    assert_eq!(json(&applied)["elements"], 1);
    assert!(err(&applied).is_empty());
    let dry = run(&server, &["apply", "--dry-run", &file]);
    assert_eq!(dry.status.code(), Some(0));
    let differs = run(&server, &["diff", &file, "-o", "json"]);
    assert_eq!(
        (differs.status.code(), &json(&differs)["changed"]),
        (Some(1), &json!(true))
    );
    let none = state(&server, r#"{"version":1,"services":[]}"#);
    assert_eq!(run(&server, &["diff", &none]).status.code(), Some(0));
    let refused = run(&server, &["apply", &none]);
    assert_eq!(
        (refused.status.code(), &*err(&refused)),
        (Some(1), "error: the state has no services\n")
    );

    let recorded = server.shared.lock().expect("whole");
    let first = &recorded.applies[0];
    assert_eq!((&*first.state, &first.origin), (GOOD.as_bytes(), &file));
    assert_eq!(first.options.drain, Some(std::time::Duration::from_secs(5)));
    assert!(first.options.take_over && !first.options.dry_run);
    assert_eq!(recorded.applies[1].options.drain, None, "that of each service");
}

#[test]
fn a_bad_state_reads_as_it_does_without_a_daemon() {
    let server = serves();
    let file = state(
        &server,
        r#"{"version":1,"services":[{"name":"A","port":0,"backends":[]}]}"#,
    );
    for (command, args) in [("apply", &["apply", &file][..]), ("diff", &["diff", &file])] {
        let through = run(&server, args);
        let checked = run(&server, &["check", &file]);
        assert_eq!(through.status.code(), Some(2), "{command}");
        assert_eq!(err(&through), err(&checked), "{command}");
        let through = run(&server, &[args, &["-o", "json"]].concat());
        assert_eq!(
            json(&through),
            json(&run(&server, &["check", &file, "-o", "json"])),
            "{command}"
        );
    }
    let missing = run(&server, &["apply", "/nowhere/state.json"]);
    assert_eq!(missing.status.code(), Some(2));
    let many: InputProblems = (0..150)
        .map(|n| tcpgw_core::model::InputProblem {
            place: n.to_string(),
            message: "is odd".into(),
        })
        .collect();
    server.shared.lock().expect("whole").answer = Some(Refused::Invalid(many));
    let through = run(&server, &["apply", &state(&server, GOOD)]);
    assert!(err(&through).ends_with("and 50 more\n"), "{}", err(&through));
    server.shared.lock().expect("whole").answer = Some(Refused::Failed("the kernel\nsaid no".into()));
    let through = run(&server, &["apply", &state(&server, GOOD)]);
    assert_eq!(
        (through.status.code(), &*err(&through)),
        (Some(1), "error: the kernel\\nsaid no\n")
    );
    assert_eq!(run(&server, &["diff", &state(&server, GOOD)]).status.code(), Some(2));
}

#[test]
fn teardown_through_the_daemon() {
    let server = serves();
    let torn = run(&server, &["teardown"]);
    assert_eq!(
        (torn.status.code(), &*out(&torn)),
        (Some(0), "table removed; 2 flows flushed\n")
    );
    assert_eq!(server.shared.lock().expect("whole").teardowns, 1);
}

#[test]
fn events_are_lines() {
    let server = serves();
    server.note(EventContent::Failed {
        error: "no room".into(),
    });
    server.note(EventContent::TornDown { flushed: 7, uid: 0 });
    let ran = run(&server, &["events"]);
    assert_eq!(
        (ran.status.code(), &*out(&ran)),
        (
            Some(0),
            "1970-01-01 00:16:40 failed error=\"no room\" id=test-1\n1970-01-01 00:16:40 torn_down flushed=7 uid=0 id=test-2\n"
        )
    );
    let ran = run(&server, &["events", "-o", "json", "--after", "test-1"]);
    assert_eq!(
        json(&ran),
        json!({"id": "test-2", "at": 1000.0, "event": "torn_down", "flushed": 7, "uid": 0})
    );

    let mut following = command(&server, &["events", "-o", "json", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!((&next()["id"], &next()["id"]), (&json!("test-1"), &json!("test-2")));
    server.note(EventContent::Failed { error: "again".into() });
    assert_eq!(next()["error"], "again");
    drop(server);
    let ended = following.wait_with_output().expect("it ends");
    assert_eq!(
        (ended.status.code(), &*err(&ended)),
        (
            Some(1),
            "error: the daemon has ended, and with it the events; `tcpgw status` says whether another one runs\n"
        )
    );
}

#[test]
fn a_daemon_of_another_namespace_is_not_ours() {
    let server = serves();
    server.shared.lock().expect("whole").snapshot.daemon.namespace += 1;
    for args in [&["status"][..], &["teardown"], &["events"], &["who", "10.2.0.1:1"]] {
        let output = run(&server, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            err(&output).contains("serves another network namespace"),
            "{}",
            err(&output)
        );
    }
    assert_eq!(server.shared.lock().expect("whole").teardowns, 0);
}

#[test]
fn a_socket_that_is_named_must_answer() {
    let server = serves();
    let nowhere = server.directory.path().join("nowhere.sock");
    let output = run(&server, &["status", "--socket", nowhere.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no daemon answers on"), "{}", err(&output));
    let without = run(&server, &["events", "--socket", "none"]);
    assert!(
        err(&without).contains("no daemon runs in this network namespace"),
        "{}",
        err(&without)
    );

    fs::set_permissions(&server.path, fs::Permissions::from_mode(0o000)).expect("changed");
    let forbidden = |name: &str| {
        let mut forbidden = if nix::unistd::geteuid().is_root() {
            let mut other = Command::new("setpriv");
            other.args(["--bounding-set", "-dac_override,-dac_read_search"]);
            other.args([env!("CARGO_BIN_EXE_tcpgw"), name]);
            other
        } else {
            command(&server, &[name])
        };
        forbidden
            .env("TCPGW_CONFIG", "/dev/null")
            .env("TCPGW_SOCKET", &server.path);
        forbidden.output().expect("it runs")
    };
    let output = forbidden("status");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("this user may not connect to it"),
        "{}",
        err(&output)
    );
    // That says nothing about the daemon.
    let output = out(&forbidden("doctor"));
    assert!(!output.contains("daemon-not-answering"), "{output}");
    let unchecked = output
        .lines()
        .find(|line| line.starts_with("unchecked: the daemon's own checks: "));
    assert!(
        unchecked.is_some_and(|line| line.contains("become root, or a member of the socket's group")),
        "{output}"
    );
}
