//! Environment of an app's processes, and its connections.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{PATIENCE, TCP};
use crate::harness::{Net, wait_until};

/// Longest permitted time of a connect during a restart.
const LONGEST: Duration = Duration::from_millis(900);

#[test]
fn where_the_only_one_crashes_clients_are_refused_until_it_is_back() {
    let net = Net::new();
    let mut app = net.app("app", "tcp: [ -e go ] && exec /usr/bin/python3 server.py; exit 3\n");
    app.write("go", "");
    app.start(&[], 1);
    std::fs::remove_file(app.directory().join("go")).expect("it is there");
    let pid = app.ps()[0]["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok())
        .expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    app.prints("tcp.1  | exited with code 3");
    app.prints("tcp.1 is started again in 2s");
    let begin = Instant::now();
    let refused = app.ask().expect_err("nobody is there");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(begin.elapsed() < LONGEST, "at once");
    app.write("go", "");
    assert!(wait_until(PATIENCE, || app.ask().is_ok()), "{}", app.printed());
    app.cli(&["scale", "tcp=0"]).ok();
    assert!(wait_until(PATIENCE, || app.ps().is_empty()), "{:?}", app.ps());
    assert!(app.ask().is_err());
    app.cli(&["scale", "tcp=1"]).ok();
    app.ask().expect("who is answered by 0 is served as ordered");
    app.stop(Signal::SIGINT);
}

/// Script that connects to the address in its argument and prints the answer.
const ASK: &str = r#"import socket, sys
host, port = sys.argv[1].removeprefix("tcp://").rsplit(":", 1)
try:
    print("heard", socket.create_connection((host, int(port)), 1).recv(99).decode().strip() or "nothing", flush=True)
except OSError as error:
    print("failed", error, flush=True)
"#;

#[test]
fn web_reaches_tcp_by_its_url_and_no_process_reaches_another_otherwise() {
    let net = Net::new();
    let web = "web: while ! /usr/bin/python3 ask.py $TCP_URL | grep heard; do sleep 0.05; done; exec sleep 1000";
    let mut app = net.app("app", &format!("{web}\ntcp: {TCP}\n"));
    app.write("ask.py", ASK);
    app.start(&["-m", "web=1,tcp=2"], 2);
    app.prints("web.1  | heard tcp.");
    let heard = app.ask().expect("the public port is served");
    assert!(heard.starts_with("tcp."), "{heard}");

    // Past the service: straight, by a route of its own, and by the gateway's hardware address for it.
    let tcp = app.address("tcp.1");
    let straight = app.cli(&["run", &format!("/usr/bin/python3 ask.py {tcp}")]);
    assert!(straight.stdout.contains("failed"), "{straight}");
    let ip = tcp.ip();
    for way in [
        format!("ip route add {ip} dev eth0"),
        format!("ip route add {ip} dev eth0; ip neigh add {ip} lladdr 02:74:0a:d5:00:02 dev eth0"),
        format!(
            "ip route add {ip} dev eth0; ip neigh add {ip} lladdr $(ip neigh show | sed 's/.*lladdr \\([0-9a-f:]*\\).*/\\1/') dev eth0"
        ),
    ] {
        let other = app.cli(&["run", &format!("{way}; /usr/bin/python3 ask.py {tcp}")]);
        assert!(other.stdout.contains("failed"), "{way}: {other}");
    }
    let own = app.cli(&[
        "run",
        "/usr/bin/python3 ask.py $TCP_URL; ip -br link | grep -c eth0; hostname >/dev/null",
    ]);
    assert!(own.stdout.contains("heard tcp."), "the check can succeed: {own}");
    app.stop(Signal::SIGTERM);
    assert_eq!(net.left_by_up(), Vec::<String>::new());
}

#[test]
fn a_process_reaches_itself_by_the_public_port() {
    let net = Net::new();
    let itself =
        "/usr/bin/python3 server.py & while ! /usr/bin/python3 ask.py $TCP_URL | grep heard; do sleep 0.05; done; wait";
    let mut app = net.app("app", &format!("tcp: {itself}\n"));
    app.write("ask.py", ASK);
    app.launch(&[]);
    app.prints("tcp.1  | heard tcp.1");
    app.stop(Signal::SIGINT);
}

#[test]
fn processes_have_their_environment_and_reach_the_outside_as_the_gateway() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.write("more.env", "QUOTED=\"a\\nb\"\nPORT=4567\n");
    app.start(
        &["-e", ".env", "-e", "more.env", "--port", "20123", "--plan", "free"],
        1,
    );
    assert_eq!(app.port(), Some(20123));
    assert_eq!(app.address("tcp.1").port(), 4567);
    let printed = app.cli(&["run", "echo \"$PORT,$PS,$TCP_URL,$QUOTED\""]).ok();
    let expected = format!("4567,run.1,tcp://{}:20123,a\nb\n", {
        let std::net::IpAddr::V4(address) = app.address("tcp.1").ip() else {
            panic!("IPv4")
        };
        let [a, b, c, _] = address.octets();
        format!("{a}.{b}.{c}.1")
    });
    assert_eq!(printed, expected);
    let status: Value = serde_json::from_str(&net.cli(&["status", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(status["services"][0]["limit"]["packets_per_second"], 512, "{status:#}");

    let listener = net.within("client", || {
        std::net::TcpListener::bind("203.0.113.10:7000").expect("a port")
    });
    let out = "exec 3<>/dev/tcp/203.0.113.10/7000";
    let ran = app.cli(&["run", "bash", "-c", out]);
    assert_eq!(ran.status, 0, "{ran}");
    let (_, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip().to_string(), "203.0.113.1", "the gateway's address");
    assert_eq!(app.cli(&["run", "exit 7"]).status, 7);
    assert_eq!(app.cli(&["run", "/nonexistent", "x"]).status, 1);
    app.stop(Signal::SIGINT);
}

#[test]
fn a_restart_makes_no_client_wait() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: RELEASE=$(cat release) {TCP}\n"));
    app.write("release", "1");
    app.start(&["-m", "tcp=2"], 2);
    app.write("release", "2");
    let mut restart = app.command(&["restart", "tcp"]).spawn().expect("a restart");
    let mut enough = 0;
    let connects = app.ask_until(|| {
        // Some time goes on after it, while the old ones end.
        enough += usize::from(restart.try_wait().expect("a child").is_some());
        enough > 300
    });
    assert!(restart.wait().expect("a child").success(), "{}", app.printed());
    let waited = usize::from(connects.longest > LONGEST);
    println!(
        "{} connects during a restart: {} failed, {waited} over 0.9 s, the longest {:?}",
        connects.all,
        connects.failed.len(),
        connects.longest
    );
    assert_eq!(connects.failed, Vec::<String>::new());
    assert_eq!(waited, 0, "{connects:?}");
    let names: Vec<&str> = connects.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["tcp.1 1", "tcp.1 2", "tcp.2 1", "tcp.2 2"]);
    let last = app.ask().expect("an answer");
    assert!(last.ends_with(" 2"), "{last}");
    assert!(wait_until(PATIENCE, || app.ps().len() == 2), "{:?}", app.ps());
    app.stop(Signal::SIGINT);
}

#[test]
fn a_restart_of_what_does_not_answer_leaves_the_old_ones_alone() {
    let net = Net::new();
    let mut app = net.app("app", "tcp: sh -c \"$(cat command)\"\n");
    app.write("command", TCP);
    app.start(&[], 1);
    // Probes are done before the kernel has what comes of them.
    assert!(wait_until(PATIENCE, || app.ask().is_ok()), "{}", app.printed());
    app.write("command", "exit 3");
    let refused = app.cli(&["restart"]).exits(1);
    assert!(refused.stderr.contains("the old ones go on"), "{refused}");
    assert_eq!(app.ask().expect("an answer"), "tcp.1");
    let unknown = app.cli(&["restart", "nothing"]).exits(2);
    assert!(unknown.stderr.contains("there is no process type"), "{unknown}");
    app.write("command", TCP);
    app.cli(&["restart"]).ok();
    app.stop(Signal::SIGINT);
}

/// With exit code 0, every new process serves. Otherwise the command says which one does not, and why.
#[test]
fn scale_ends_when_the_new_processes_serve_or_says_why_they_do_not() {
    let net = Net::new();
    let mut app = net.app("app", "tcp: sh -c \"$(cat command)\"\nweb: exec sleep 1000\n");
    app.write("command", TCP);
    app.start(&["-m", "tcp=1"], 1);
    app.write("command", &format!("sleep 1; {TCP}"));
    let begin = Instant::now();
    let starting = app.cli(&["scale", "tcp=2", "web=1"]).exits(0);
    assert!(starting.stderr.contains("tcp.2 starts, web.1 starts"), "{starting}");
    assert_eq!(app.serving(), 2, "{}", app.printed());
    assert!(begin.elapsed() > Duration::from_secs(1), "it begins to listen then");
    assert!(app.ps().iter().all(|one| one["pid"].is_i64()), "{:?}", app.ps());

    let begin = Instant::now();
    app.cli(&["scale", "tcp=3", "--no-wait"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(1), "{}", app.printed());
    assert_eq!(app.serving(), 2);
    assert!(wait_until(PATIENCE, || app.serving() == 3), "{}", app.printed());
    app.cli(&["scale", "udp=1", "--no-wait"]).exits(2);

    app.write("command", "exit 3");
    let crashed = app.cli(&["scale", "tcp=4"]).exits(1);
    assert!(
        crashed.stderr.contains("tcp.4 has ended, and is started again"),
        "{crashed}"
    );
    app.cli(&["scale", "tcp=3"]).ok();
    app.write("command", "exec sleep 1000");
    let silent = app.cli(&["scale", "tcp=4"]).exits(1);
    assert!(
        silent.stderr.contains("not every tcp process answers yet") && silent.stderr.contains("0.0.0.0:$PORT"),
        "{silent}"
    );
    assert_eq!(app.serving(), 3);
    app.stop(Signal::SIGINT);
}

#[test]
fn instances_come_and_go_without_a_failed_connect() {
    let net = Net::new();
    let mut app = net.app("app", &format!("web: exec sleep 1000\ntcp: {TCP}\n"));
    app.start(&["-m", "tcp=1,web=1"], 1);
    app.cli(&["scale", "tcp=3", "web=0"]).ok();
    assert_eq!(app.serving(), 3, "{}", app.printed());
    let mut scale = app.command(&["scale", "tcp=1"]).spawn().expect("a command");
    let mut enough = 0;
    let connects = app.ask_until(|| {
        enough += usize::from(scale.try_wait().expect("a child").is_some());
        enough > 100
    });
    assert_eq!(connects.failed, Vec::<String>::new());
    assert_eq!(app.serving(), 1);
    assert!(wait_until(PATIENCE, || app.ps().len() == 1), "{:?}", app.ps());
    for wrong in ["tcp=x", "tcp=99", "tcp"] {
        app.cli(&["scale", wrong]).exits(2);
    }
    let refused = app.cli(&["scale", "udp=1"]).exits(2);
    assert!(refused.stderr.contains("no process type \"udp\""), "{refused}");
    app.stop(Signal::SIGINT);
    assert_eq!(app.processes(), Vec::<i32>::new());
}

#[test]
fn one_that_crashes_is_out_at_once_and_comes_back() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&["-m", "tcp=2"], 2);
    let victim = app
        .ps()
        .into_iter()
        .find(|one| one["name"] == "tcp.1")
        .expect("it runs");
    let pid = victim["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok())
        .expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    app.prints("tcp.1  | terminated by SIGKILL");
    app.prints("tcp.1 is started again in 1s");
    assert!(wait_until(PATIENCE, || app.serving() == 1), "{}", app.printed());
    let mut left = 30;
    let connects = app.ask_until(|| {
        left -= 1;
        left == 0
    });
    assert_eq!(connects.failed, Vec::<String>::new());
    assert!(wait_until(PATIENCE, || app.serving() == 2), "{}", app.printed());
    let ps = app.ps();
    let again = ps.iter().find(|one| one["name"] == "tcp.1").expect("it runs");
    assert_eq!(
        (&again["ends"], &again["address"]),
        (&Value::from(1), &victim["address"])
    );
    app.stop(Signal::SIGINT);
}
