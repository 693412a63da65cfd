//! `tcpgw deploy` and other orders to single services, through the API's socket.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tcpgw::api::Times;
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw::store::{DeployPhase, Expect};

use crate::cli::{command, err, json as told, out, run, state};
use crate::deploys::script;
use crate::harness::{Loop, Server, serves, serves_with, times};

const DEPLOY: &[&str] = &["deploy", "web", "--target", "10.2.0.3:80", "--target", "10.2.0.4:80=2"];

fn deploy(server: &Server, more: &[&str]) -> std::process::Output {
    run(server, &[DEPLOY, more].concat())
}

fn succeeds(server: &Server) {
    let switched = (DeployPhase::Switched, None);
    script(
        server,
        &[
            (DeployPhase::Probing, None),
            switched,
            switched,
            switched,
            (DeployPhase::Drained, None),
        ],
    );
}

#[test]
fn a_deploy_is_followed_to_its_end() {
    let server = serves();
    succeeds(&server);
    let done = deploy(&server, &["--timeout", "9s", "--drain-timeout", "8s", "--min", "1"]);
    assert_eq!(
        (done.status.code(), &*out(&done)),
        (Some(0), "deploy 41 of web: drained\n"),
        "{}",
        err(&done)
    );
    let said = err(&done);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "deploy 41: probing 10.2.0.3:80 10.2.0.4:80");
    assert!(
        lines[1].contains("10.2.0.1:80") && lines[1].contains("may be told to end"),
        "{said}"
    );
    assert_eq!(lines[2..], ["drained: the old backends may be removed"]);
    let shared = server.shared.lock().expect("whole");
    let order = &shared.single.orders[0];
    assert_eq!(
        order.targets,
        [
            json!("10.2.0.3:80"),
            json!({"address": "10.2.0.4", "port": 80, "weight": 2})
        ]
    );
    assert_eq!(
        (order.min, order.timeout, order.drain),
        (Some(1), Duration::from_secs(9), Some(Duration::from_secs(8)))
    );
}

#[test]
fn a_deploy_returns_at_the_switch_if_asked() {
    let server = serves();
    succeeds(&server);
    let done = deploy(&server, &["--until", "switched", "-o", "json", "-q"]);
    assert_eq!((done.status.code(), err(&done)), (Some(0), String::new()));
    assert_eq!(told(&done)["phase"], "switched");
    succeeds(&server);
    let quiet = deploy(&server, &["--until", "switched", "-q"]);
    assert_eq!(
        (quiet.status.code(), out(&quiet), err(&quiet)),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn a_deploy_that_fails_says_why() {
    let server = serves();
    script(
        &server,
        &[(DeployPhase::Failed, Some("10.2.0.3:80 did not answer: refused"))],
    );
    let failed = deploy(&server, &["-q"]);
    assert_eq!(
        (failed.status.code(), &*err(&failed)),
        (
            Some(1),
            "error: deploy 41 of web: failed: 10.2.0.3:80 did not answer: refused\n"
        )
    );
    script(&server, &[(DeployPhase::Undone, None)]);
    let undone = deploy(&server, &["-o", "json"]);
    assert_eq!(
        (undone.status.code(), &told(&undone)["phase"]),
        (Some(1), &json!("undone"))
    );
    server.shared.lock().expect("whole").answer = Some(Refused::Refused("web is the file's".into()));
    let refused = deploy(&server, &[]);
    assert_eq!(
        (refused.status.code(), &*err(&refused)),
        (Some(1), "error: web is the file's\n")
    );
    for wrong in [
        &["deploy", "web"][..],
        &["deploy", "web", "--target", "x"],
        &["deploy", "web", "--target", "10.2.0.3:80=0"],
    ] {
        assert_eq!(run(&server, wrong).status.code(), Some(2), "{wrong:?}");
    }
    let many = deploy(&server, &["--min", "3"]);
    assert_eq!(
        (many.status.code(), err(&many).contains("web: min: must be 1 to 2")),
        (Some(2), true),
        "{}",
        err(&many)
    );
}

#[test]
fn the_command_runs_once_at_the_switch() {
    let server = serves();
    succeeds(&server);
    let file = server.directory.path().join("told");
    let hook = format!(
        "echo loud; echo $TCPGW_SERVICE $TCPGW_DEPLOY $TCPGW_OLD to $TCPGW_NEW >> {}",
        file.to_string_lossy()
    );
    let done = deploy(&server, &["--on-switched", &hook]);
    assert_eq!(
        (done.status.code(), &*out(&done)),
        (Some(0), "deploy 41 of web: drained\n"),
        "{}",
        err(&done)
    );
    let wrote = fs::read_to_string(&file).expect("it ran");
    assert_eq!(wrote, "web 41 10.2.0.1:80 to 10.2.0.3:80 10.2.0.4:80\n");
    // The old backends left at once: the deploy was over before the command's next request.
    fs::remove_file(&file).expect("it is there");
    script(&server, &[(DeployPhase::Drained, None)]);
    assert_eq!(deploy(&server, &["--on-switched", &hook]).status.code(), Some(0));
    let wrote = fs::read_to_string(&file).expect("it ran");
    assert_eq!(wrote, "web 42 10.2.0.1:80 to 10.2.0.3:80 10.2.0.4:80\n");
    succeeds(&server);
    let done = deploy(&server, &["--on-switched", "exit 3"]);
    assert_eq!(
        (done.status.code(), &*out(&done)),
        (Some(1), "deploy 43 of web: drained\n")
    );
    assert!(
        err(&done).contains("warning: --on-switched has failed (exit status: 3); the switch is kept"),
        "{}",
        err(&done)
    );
}

fn interrupted(server: &Server, signal: nix::sys::signal::Signal, code: i32) -> String {
    let begun = |server: &Server| server.shared.lock().expect("whole").single.orders.len();
    let before = begun(server);
    let child = command(server, DEPLOY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    while begun(server) == before {
        std::thread::sleep(Duration::from_millis(5));
    }
    // A client that has just ordered it already listens.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process"));
    nix::sys::signal::kill(pid, signal).expect("it is there");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(code), "{}", err(&ended));
    err(&ended)
}

#[test]
fn whoever_ends_it_while_it_probes_undoes_it() {
    let server = serves();
    let said = interrupted(&server, nix::sys::signal::Signal::SIGINT, 130);
    assert!(said.contains("deploy 41 of web: undone: asked"), "{said}");
    let said = interrupted(&server, nix::sys::signal::Signal::SIGTERM, 143);
    assert!(said.contains("undone"), "{said}");
    assert_eq!(server.shared.lock().expect("whole").single.undos.len(), 2);
    let switched = (DeployPhase::Switched, None);
    script(&server, &[switched, switched]);
    let said = interrupted(&server, nix::sys::signal::Signal::SIGINT, 130);
    assert!(
        said.contains("deploy 43 goes on without this command; `tcpgw deploys 43` shows it"),
        "{said}"
    );
    assert_eq!(server.shared.lock().expect("whole").single.undos.len(), 2);
}

#[test]
fn whoever_ends_it_before_the_daemon_has_answered_is_not_kept() {
    let order = Duration::from_secs(60);
    let server = serves_with(Loop::Slow, Times { order, ..times() });
    let child = command(&server, DEPLOY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // The command handles signals before it orders, and prints nothing about that.
    std::thread::sleep(Duration::from_secs(1));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process"));
    let begin = Instant::now();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is there");
    let ended = child.wait_with_output().expect("it ends");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(ended.status.code(), Some(130), "{}", err(&ended));
    assert!(err(&ended).contains("`tcpgw deploys --service web`"), "{}", err(&ended));
}

#[test]
fn a_daemon_that_is_gone_is_waited_for_and_then_told() {
    let server = serves();
    let child = command(&server, DEPLOY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    while server.shared.lock().expect("whole").single.orders.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    drop(server);
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(1));
    assert!(err(&ended).contains("`tcpgw deploys 41`"), "{}", err(&ended));
}

#[test]
fn deploys_are_shown_and_rolled_back() {
    let server = serves();
    succeeds(&server);
    deploy(&server, &["--until", "switched", "-q"]);
    script(&server, &[]);
    let table = out(&run(&server, &["deploys", "--service", "web", "--limit", "5"]));
    assert!(
        table.starts_with("ID  SERVICE  PHASE") && table.contains("41  web "),
        "{table}"
    );
    let one = out(&run(&server, &["deploys", "41"]));
    assert!(
        one.contains("10.2.0.3:80") && one.contains("1970-01-01 00:16:40"),
        "{one}"
    );
    assert_eq!(told(&run(&server, &["deploys", "41", "-o", "json"]))["id"], 41);
    let missing = run(&server, &["deploys", "7"]);
    assert_eq!(
        (missing.status.code(), err(&missing).contains("there is no deploy 7")),
        (Some(1), true)
    );
    let rolled = run(&server, &["rollback", "web"]);
    assert_eq!(
        (rolled.status.code(), &*out(&rolled)),
        (Some(0), "deploy 41 of web: undone: asked\n")
    );
    assert_eq!(run(&server, &["rollback", "web"]).status.code(), Some(1));
}

#[test]
fn services_are_added_set_and_removed() {
    let server = serves();
    let added = run(
        &server,
        &[
            "service",
            "add",
            "new",
            "--port",
            "20010",
            "--backend",
            "10.2.0.8:80",
            "--backend",
            "10.2.0.9:81=5",
            "--pps",
            "7",
            "--burst",
            "9",
            "--balance",
            "source-hash",
            "--on-retire",
            "reset",
            "--on-empty",
            "drop",
            "--source",
            "preserve",
            "--allow",
            "192.0.2.0/24",
            "--deny",
            "192.0.2.1/32",
            "--drain-timeout",
            "5s",
            "--label",
            "a=b",
            "--label",
            "c=d=e",
            "--address",
            "198.51.100.9",
            "--take-over",
        ],
    );
    assert_eq!(
        (added.status.code(), &*out(&added)),
        (Some(0), "new: added (revision 10)\n"),
        "{}",
        err(&added)
    );
    assert_eq!(err(&added), "warning: it is odd\n");
    let file = state(&server, r#"{"limit":{"pps":5},"labels":{"a":"b"}}"#);
    let set = run(
        &server,
        &[
            "service",
            "set",
            "web",
            "--file",
            &file,
            "--reset",
            "limit.burst",
            "--port",
            "5",
            "--if-revision",
            "7",
        ],
    );
    assert_eq!(
        (set.status.code(), &*out(&set)),
        (Some(0), "web: changed (revision 10)\n"),
        "{}",
        err(&set)
    );
    let removed = run(&server, &["service", "rm", "web", "--drain", "3s"]);
    assert_eq!(
        (removed.status.code(), &*out(&removed)),
        (Some(0), "web: removed (revision 10)\n")
    );
    let shared = server.shared.lock().expect("whole");
    let [add, set, remove] = &shared.single.edits[..] else {
        panic!("{:?}", shared.single.edits)
    };
    assert_eq!(
        (add.expect, set.expect, remove.expect),
        (Expect::Absent, Expect::Revision(7), Expect::Present)
    );
    assert!(add.take_over && !set.take_over);
    assert_eq!(remove.drain, Some(Duration::from_secs(3)));
    let ServiceEdit::Patch(patch) = &set.edit else {
        panic!("{set:?}")
    };
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(patch).expect("JSON"),
        json!({"limit": {"pps": 5, "burst": null}, "labels": {"a": "b"}, "port": 5})
    );
    let ServiceEdit::Put(put) = &add.edit else {
        panic!("{add:?}")
    };
    let service = tcpgw_core::model::parse_service_named(&add.name, put).expect("a service");
    assert_eq!(
        (&*service.name, service.backends[1].weight.get(), service.labels.len()),
        ("new", 5, 2)
    );
}

#[test]
fn what_is_wrong_with_a_service_is_wrong_input() {
    let server = serves();
    let wrong = run(&server, &["service", "add", "new", "--port", "20010"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("error: new: backends:"), "{}", err(&wrong));
    let wrong = run(&server, &["service", "set", "web", "--pps", "0", "-o", "json"]);
    assert_eq!((wrong.status.code(), &told(&wrong)["file"]), (Some(2), &json!("web")));
    for wrong in [
        &["set", "web"][..],
        &["add", "A"],
        &["set", "web", "--balance", "fair"],
        &["add", "x", "--file", "/nowhere"],
    ] {
        let output = run(&server, &[&["service"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", err(&output));
    }
    let there = run(
        &server,
        &[
            "service",
            "add",
            "web",
            "--port",
            "5",
            "--file",
            &state(&server, r#"{"backends":[]}"#),
        ],
    );
    assert_eq!(
        (there.status.code(), err(&there).contains("not as expected")),
        (Some(1), true),
        "{}",
        err(&there)
    );
    assert_eq!(run(&server, &["service", "rm", "gone"]).status.code(), Some(1));
}

#[test]
fn services_are_shown() {
    let server = serves();
    let table = out(&run(&server, &["service", "ls"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "NAME   PORT  PROVIDER  REVISION  PPS  BACKENDS");
    assert_eq!(
        lines[2],
        "web   20003  api              7  100  10.2.0.1:80 10.2.0.2:80"
    );
    let shown = out(&run(&server, &["service", "show", "web"]));
    assert!(shown.starts_with("web :20003 of api, revision 7\n"), "{shown}");
    assert!(shown.contains("  limit          pps 100\n"), "{shown}");
    assert!(
        shown.contains("10.2.0.9:80 gone, leaving: 3 flows, 12 s left"),
        "{shown}"
    );
    let document = run(&server, &["service", "show", "sick", "-o", "json"]);
    assert_eq!(told(&document), server.get("/v1/services/sick").json());
    assert_eq!(
        told(&run(&server, &["service", "ls", "-o", "json"])),
        server.get("/v1/services").json()
    );
    assert_eq!(run(&server, &["service", "show", "gone"]).status.code(), Some(1));
}

#[test]
fn backends_are_held_back_and_waited_for() {
    let server = serves();
    let drained = run(&server, &["drain", "web", "10.2.0.1:80", "--drain-timeout", "9s"]);
    assert_eq!(
        (drained.status.code(), &*out(&drained)),
        (Some(0), "web: 1 backend draining (revision 10)\n"),
        "{}",
        err(&drained)
    );
    let back = run(&server, &["undrain", "web", "-q"]);
    assert_eq!((back.status.code(), out(&back)), (Some(0), String::new()));
    let late = run(&server, &["drain", "web", "--wait", "--timeout", "50ms"]);
    assert_eq!(
        (late.status.code(), &*err(&late)),
        (
            Some(1),
            "error: web is not drained after 50ms: 10.2.0.9:80 has 3 flows\n"
        )
    );
    let well = run(&server, &["wait", "web", "--for", "healthy"]);
    assert_eq!((well.status.code(), &*out(&well)), (Some(0), "web: healthy\n"));
    let ill = run(
        &server,
        &["wait", "sick", "--for", "healthy", "--timeout", "50ms", "-o", "json"],
    );
    assert_eq!((ill.status.code(), &told(&ill)["healthy"]), (Some(1), &json!(false)));
    assert!(
        err(&ill).contains("10.2.0.3:80 is unhealthy (refused)"),
        "{}",
        err(&ill)
    );
    assert_eq!(
        run(&server, &["wait", "gone", "--for", "drained"]).status.code(),
        Some(1)
    );
    let paused = run(&server, &["pause", "web", "--for", "5s"]);
    assert!(
        out(&paused).starts_with("web: new connections are dropped for 5s"),
        "{}",
        out(&paused)
    );
    assert_eq!(run(&server, &["pause", "web", "--for", "2h"]).status.code(), Some(2));
    assert_eq!(
        told(&run(&server, &["resume", "web", "-o", "json"]))["paused_for"],
        json!(null)
    );
}

#[test]
fn the_command_is_not_run_where_no_old_backend_leaves() {
    let server = serves();
    let why = "nothing changed: these backends serve already";
    server.shared.lock().expect("whole").single.old.clear();
    script(
        &server,
        &[
            (DeployPhase::Switched, None),
            (DeployPhase::Switched, None),
            (DeployPhase::Drained, Some(why)),
        ],
    );
    let file = server.directory.path().join("told");
    let hook = format!("touch {}", file.to_string_lossy());
    let done = deploy(&server, &["--on-switched", &hook]);
    assert_eq!(
        (done.status.code(), out(&done)),
        (Some(0), format!("deploy 41 of web: drained: {why}\n")),
        "{}",
        err(&done)
    );
    assert!(!file.exists());
    let said = err(&done);
    assert!(
        said.contains("--on-switched was not run") && said.contains(why),
        "{said}"
    );
    assert!(!said.contains("removed") && !said.contains("told to end"), "{said}");
}

#[test]
fn history_and_export() {
    let server = serves();
    let table = out(&run(&server, &["history", "web", "--since", "1h", "--limit", "7"]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("1970-01-01 00:16:40  root  service set 41  web      port "),
        "{table}"
    );
    assert!(lines[2].ends_with("added"), "{table}");
    assert_eq!(
        told(&run(&server, &["history", "-o", "json"])),
        server.get("/v1/history").json()
    );
    let shared = server.shared.lock().expect("whole");
    assert!(
        shared.single.filters[0]
            .since
            .is_some_and(|since| since > Duration::from_secs(1 << 30))
    );
    assert_eq!(shared.single.filters[0].limit, 7);
    drop(shared);
    assert_eq!(
        out(&run(&server, &["export"])).into_bytes(),
        server.get("/v1/export").body
    );
    assert_eq!(told(&run(&server, &["export", "--all"]))["services"][0]["name"], "sick");
    let of = |provider: &str| told(&run(&server, &["export", "--provider", provider]));
    assert_eq!(of("file"), server.get("/v1/export?provider=file").json());
    assert_eq!(of("api"), server.get("/v1/export").json());
    assert_eq!(run(&server, &["export", "--provider", "docker"]).status.code(), Some(2));
    assert_eq!(
        run(&server, &["export", "--all", "--provider", "api"]).status.code(),
        Some(2)
    );
}

#[test]
fn without_a_daemon_they_say_so() {
    for args in [
        &["deploy", "web", "--target", "10.2.0.3:80"][..],
        &["rollback", "web"],
        &["deploys"],
        &["drain", "web"],
        &["undrain", "web"],
        &["pause", "web"],
        &["resume", "web"],
        &["wait", "web", "--for", "healthy"],
        &["service", "ls"],
        &["service", "rm", "web"],
        &["history"],
        &["export"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcpgw"))
            .args(args)
            .args(["--socket", "none"])
            .env("TCPGW_CONFIG", "/dev/null")
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            err(&output).contains("no daemon runs in this network namespace") && err(&output).contains("start one"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn the_manual_knows_them() {
    let server = serves();
    for (command, line) in [
        ("deploy", ".TH tcpgw-deploy 8"),
        ("wait", ".TH tcpgw-wait 8"),
        ("service", ".SH \"tcpgw service add\""),
        ("history", ".TH tcpgw-history 8"),
        ("export", ".TH tcpgw-export 8"),
    ] {
        let page = out(&run(&server, &["man", command]));
        assert!(page.lines().any(|of| of.starts_with(line)), "{line}: {page}");
    }
}

/// Returns the words that a shell offers after these ones, the last of which is incomplete.
fn completed(server: &Server, words: &[&str]) -> Vec<String> {
    let output = command(server, &[&["--", "tcpgw"], words].concat())
        .env("TCPGW_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .output()
        .expect("it runs");
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
    out(&output).lines().map(str::to_owned).collect()
}

#[test]
fn completions_know_services_and_deploys() {
    let server = serves();
    succeeds(&server);
    assert_eq!(deploy(&server, &[]).status.code(), Some(0));
    for words in [
        &["deploy", "we"][..],
        &["pause", "we"],
        &["service", "rm", "we"],
        &["service", "set", "we"],
        &["deploys", "--service", "we"],
        &["-o", "json", "status", "--service", "we"],
    ] {
        assert_eq!(completed(&server, words), ["web"], "{words:?}");
    }
    assert_eq!(completed(&server, &["deploys", "4"]), ["41"]);
    let both = ["10.2.0.1:80", "10.2.0.2:80"];
    assert_eq!(completed(&server, &["drain", "web", "10"]), both);
    assert_eq!(
        completed(&server, &["drain", "-q", "web", "10.2.0.1:80", "10.2.0.2"]),
        ["10.2.0.2:80"]
    );
    // Only a backend that drains can be undrained.
    assert_eq!(completed(&server, &["undrain", "web", "10"]), [""; 0]);
    assert_eq!(completed(&server, &["undr"]), ["undrain"]);
    assert_eq!(completed(&server, &["man", "rollb"]), ["rollback"]);
    // A name that is not there yet, and a daemon that is not asked or not there.
    for words in [
        &["service", "add", "we"][..],
        &["--socket", "none", "deploy", "we"],
        &["deploy", "--socket=/nonexistent", "we"],
        &["--config", "/nonexistent", "--socket", "", "deploy", "we"],
    ] {
        assert_eq!(completed(&server, words), [""; 0], "{words:?}");
    }
}

/// A command that waits ends at its deadline and on a signal, even when its standard error is a full pipe that is never read.
#[test]
fn commands_end_whose_standard_error_nobody_reads() {
    use std::io::{ErrorKind, Write as _};
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    const LONG: Duration = Duration::from_secs(20);
    let server = serves();
    let start = |args: &[&str]| {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it does not wait");
        while match writer.write(&[b'a'; 4096]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        } {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("it waits");
        let mut command = super::cli::command(&server, args);
        let child = command.stdout(Stdio::null()).stderr(writer).spawn();
        (child.expect("the program runs"), reader)
    };
    let end = |(mut child, _reader): (std::process::Child, std::io::PipeReader)| {
        let begun = Instant::now();
        loop {
            match child.try_wait().expect("a child") {
                Some(status) => return Some(status),
                None if begun.elapsed() > LONG => {
                    child.kill().expect("it runs");
                    child.wait().expect("it ended");
                    return None;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    let waiting: [&[&str]; 3] = [
        &["wait", "sick", "--for", "healthy", "--timeout", "50ms"],
        &["drain", "web", "--wait", "--timeout", "50ms"],
        &["wait", "gone", "--for", "drained"],
    ];
    for (args, child) in waiting.map(|args| (args, start(args))) {
        assert_eq!(end(child).map(|status| status.code()), Some(Some(1)), "{args:?}");
    }
    script(
        &server,
        &[(DeployPhase::Failed, Some("10.2.0.3:80 did not answer: refused"))],
    );
    let deploy = start(DEPLOY);
    assert_eq!(end(deploy).map(|status| status.code()), Some(Some(1)), "deploy");
    let follower = start(&["events", "-v", "--follow"]);
    std::thread::sleep(Duration::from_millis(300));
    let pid = i32::try_from(follower.0.id()).expect("a process");
    // Tests that are run in the background may ignore SIGINT, which commands inherit.
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    assert!(end(follower).is_some(), "events");
}
