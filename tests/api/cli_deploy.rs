//! `tcpgw deploy`, `deploys` and `rollback`, through the API's socket.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tcpgw::api::Times;
use tcpgw::control::request::Refused;
use tcpgw::store::DeployPhase;

use crate::cli::{command, err, json as told, out, run};
use crate::deploys::script;
use crate::harness::{Loop, Server, serves, serves_with, times};

pub(crate) const DEPLOY: &[&str] = &["deploy", "web", "--target", "10.2.0.3:80", "--target", "10.2.0.4:80=2"];

pub(crate) fn deploy(server: &Server, more: &[&str]) -> std::process::Output {
    run(server, &[DEPLOY, more].concat())
}

pub(crate) fn succeeds(server: &Server) {
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
    let stderr = err(&done);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[0], "deploy 41: probing 10.2.0.3:80 10.2.0.4:80");
    assert!(
        lines[1].contains("10.2.0.1:80") && lines[1].contains("may be told to end"),
        "{stderr}"
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
    let stderr = interrupted(&server, nix::sys::signal::Signal::SIGINT, 130);
    assert!(stderr.contains("deploy 41 of web: undone: asked"), "{stderr}");
    let stderr = interrupted(&server, nix::sys::signal::Signal::SIGTERM, 143);
    assert!(stderr.contains("undone"), "{stderr}");
    assert_eq!(server.shared.lock().expect("whole").single.undos.len(), 2);
    let switched = (DeployPhase::Switched, None);
    script(&server, &[switched, switched]);
    let stderr = interrupted(&server, nix::sys::signal::Signal::SIGINT, 130);
    assert!(
        stderr.contains("deploy 43 goes on without this command; `tcpgw deploys 43` shows it"),
        "{stderr}"
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
    let stderr = err(&done);
    assert!(
        stderr.contains("--on-switched was not run") && stderr.contains(why),
        "{stderr}"
    );
    assert!(
        !stderr.contains("removed") && !stderr.contains("told to end"),
        "{stderr}"
    );
}
