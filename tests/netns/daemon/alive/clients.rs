//! Clients and readers that would keep others waiting, and what a change expects.

use std::fs::{self};
use std::io::{self, PipeReader, PipeWriter, Write as _};

use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::{request_with, timed};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// The daemon stays up while many clients read a history that takes long to read, and one client writes.
#[test]
fn readers_of_the_store_do_not_end_the_daemon() {
    const READERS: usize = 120;
    const TIME: Duration = Duration::from_secs(5);
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let put = |nth: usize| {
        let backends: Vec<String> = (1..=200).map(|at| format!("10.66.{}.{at}:80", nth % 2)).collect();
        let body = json!({"port": 7000, "backends": backends});
        daemon.ask("PUT", "/v1/services/much", &body.to_string())
    };
    // A history that takes time to read.
    for nth in 0..150 {
        let answer = put(nth).expect("an answer");
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }
    let begin = Instant::now();
    thread::scope(|scope| {
        let read = || {
            let (mut good, mut busy) = (0, 0);
            while begin.elapsed() < TIME {
                let answer = daemon.ask("GET", "/v1/history?limit=1000", "").expect("an answer");
                match answer.status {
                    200 => good += 1,
                    // On a slow machine a request may wait for longer than its timeout.
                    503 | 504 => busy += 1,
                    _ => panic!("{answer:?}"),
                }
            }
            (good, busy)
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let mut puts = 0;
        while begin.elapsed() < TIME {
            let asked = Instant::now();
            let answer = put(puts).expect("an answer");
            // There may be no connection left for it.
            assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
            assert!(asked.elapsed() < PATIENCE * 2);
            puts += usize::from(answer.status != 503);
        }
        let read = readers.into_iter().map(|reader| reader.join().expect("a reader"));
        let (good, busy) = read.fold((0, 0), |(good, busy), (a, b)| (good + a, busy + b));
        eprintln!("{good} histories read, {busy} refused, {puts} services put");
        assert!(good > 0 && puts > 0);
    });
    daemon.get("/v1/daemon");
    daemon.stop();
}

/// Script of another user's clients that connect, send hardly anything, and connect again when they are cut off.
const SLOW: &str = "
import os, select, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held, end = [], time.time() + float(sys.argv[3])
while time.time() < end:
    while len(held) < int(sys.argv[2]):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try:
            s.connect(sys.argv[1])
            s.send(b'GET /v1/daemon HTTP/1.1\\r\\nhost:')
        except OSError:
            pass
        held.append(s)
    gone = select.select(held, [], [], 0.05)[0]
    for s in gone:
        held.remove(s)
        s.close()
";

#[test]
fn slow_clients_of_one_user_keep_nobody_else_waiting() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&["--socket-group", "nogroup"]);
    let socket = net.socket().to_string_lossy().into_owned();
    // The directory of the tests is root's alone.
    net.sh("gateway", &format!("chmod o+x $(dirname {socket})")).ok();
    let flood = ["python3", "-c", SLOW, &socket, "300", "8"];
    let slow = net.spawn("gateway", &flood);
    // Each end of a connection is a line, and those that wait to be accepted, too.
    let connected = || {
        let sockets = fs::read_to_string(format!("/proc/{}/net/unix", daemon.id())).unwrap_or_default();
        sockets.lines().filter(|line| line.contains("tcpgw.sock")).count() > 64
    };
    assert!(wait_until(PATIENCE, connected), "it does not begin");
    for _ in 0..10 {
        let (told, took) = timed(|| daemon.ask("GET", "/v1/healthz", "").expect("an answer"));
        assert!(told.body.contains("\"in_sync\": true"), "{told:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let (status, took) = timed(|| net.cli(&["status", "--interval", "0s"]));
        assert!(!status.stderr.contains("hangs"), "{status}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    drop(slow);
    daemon.stop();
}

#[test]
fn what_a_change_expects_is_judged_as_http_has_it() {
    let net = Net::new();
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let send = |method: &str, name: &str, header: &str| {
        let bytes = request_with(
            method,
            &format!("/v1/services/{name}"),
            header,
            r#"{"port":7000,"backends":[]}"#,
        );
        net.ask_by("relay.sock", &bytes).expect("an answer").status
    };
    assert_eq!(send("PUT", "a", "if-match: *\r\n"), 412, "it is not there");
    assert_eq!(send("PUT", "a", "if-match: \"1\"\r\n"), 412);
    for header in ["if-match: *\r\n", "if-match: \"1\"\r\n", ""] {
        assert_eq!(send("PATCH", "a", header), 404, "what is not there cannot be changed");
        assert_eq!(send("DELETE", "a", header), 404);
    }
    assert_eq!(send("PUT", "a", "if-none-match: *\r\n"), 201);
    assert_eq!(send("PUT", "a", "if-none-match: *\r\n"), 412);
    assert_eq!(send("PATCH", "a", "if-match: \"99\"\r\n"), 412);
    assert_eq!(send("PATCH", "a", "if-match: \"1\"\r\n"), 200);
    assert_eq!(send("DELETE", "a", "if-match: *\r\n"), 200);
    assert_eq!(daemon.get("/v1/services")["services"], json!([]));
}

#[test]
fn those_who_have_gone_keep_nobody_from_looking() {
    let net = Net::new();
    net.want(state([json!({"name": "a", "port": 2001, "backends": []})]));
    let mut daemon = net.daemon(&[]);
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    let looking: Vec<_> = (0..6).map(|_| net.begin(&["status", "--interval", "60s"])).collect();
    let is_full = || {
        net.cli(&["status", "--interval", "0s"])
            .stderr
            .contains("are reading the kernel")
    };
    assert!(wait_until(2 * PATIENCE, is_full), "all places are taken");
    drop(looking);
    std::thread::sleep(Duration::from_millis(200));
    let (status, took) = timed(|| net.cli(&["status", "--interval", "0s"]));
    assert!(status.stdout.contains("a :2001"), "{status}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    daemon.stop();
}

/// Returns a full pipe.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let set = |writer: &PipeWriter, flags| fcntl(writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    set(&writer, OFlag::O_NONBLOCK);
    while writer.write(b"x").is_ok() {}
    set(&writer, OFlag::empty());
    (reader, writer)
}

/// A log that is not read, by a hanging collector or a stopped terminal, does not stop the daemon.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(&["--log-level", "trace"]);
    daemon.settles(2);
    daemon.stop();
    let (reader, writer) = full_pipe();
    daemon.launch_logging(writer);
    assert!(wait_until(PATIENCE, || daemon.ask("GET", "/v1/healthz", "").is_ok()));
    net.want(state([service("a", 2001, &["b2"], 3000, json!({}))]));
    assert!(wait_until(PATIENCE, || {
        net.spread("client", at(PUBLIC[0], 2001), 1).contains_key("b2")
    }));
    let ((), took) = timed(|| daemon.stop());
    assert!(took < PATIENCE, "{took:?}");
    drop(reader);
}
