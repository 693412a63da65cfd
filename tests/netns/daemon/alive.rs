//! The daemon keeps running and answers, under many requests and with nothing to do.

use std::fs::{self, Permissions};
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::{request_with, timed};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// The watchdog is fed while no work is due in the loop: without services, after a teardown, and without checks.
#[test]
fn an_idle_daemon_keeps_its_watchdog_fed() {
    const WATCHDOG: Duration = Duration::from_secs(4);
    let net = Net::new();
    net.want(state([]));
    let path = net.file("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let variables = [
        ("NOTIFY_SOCKET", path.to_string_lossy().into_owned()),
        ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ("TCPGW_CHECK_INTERVAL", "0s".to_owned()),
    ];
    let mut daemon = net.daemon_within(&variables);
    let is_fed = |time: Duration, what: &str| {
        let begin = Instant::now();
        let mut last = begin;
        while begin.elapsed() < time {
            let mut told = [0; 1024];
            let length = manager
                .recv(&mut told)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            if String::from_utf8_lossy(&told[..length])
                .lines()
                .any(|line| line == "WATCHDOG=1")
            {
                let gap = last.elapsed();
                assert!(gap < WATCHDOG / 2, "{what}: {gap:?}");
                last = Instant::now();
            }
        }
        assert!(last > begin, "{what}: the watchdog was told nothing");
    };
    is_fed(WATCHDOG * 2, "no services");
    daemon.post("/v1/teardown", "").ok();
    is_fed(WATCHDOG * 2, "torn down");
    daemon.stop();
}

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
    for nth in 0..300 {
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
            assert!(asked.elapsed() < PATIENCE);
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

/// A stopped daemon, which accepts connections without answering, is named soon.
#[test]
fn a_daemon_that_hangs_is_named_soon() {
    let net = Net::new();
    net.want(state([]));
    let daemon = net.daemon(&[]);
    daemon.signal(Signal::SIGSTOP);
    let (hung, took) = timed(|| net.cli(&["status"]));
    daemon.signal(Signal::SIGCONT);
    assert_eq!(hung.status, 1, "{hung}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(hung.stderr.contains(&format!("process {}", daemon.id())), "{hung}");
    assert!(hung.stderr.contains("tcpgw --socket none status"), "{hung}");
    // A command that already has `--socket none` gets other advice: the daemon holds the lock.
    daemon.signal(Signal::SIGSTOP);
    let held = net
        .tcpgw(&["--socket", "none", "teardown", "--lock-timeout", "0s"])
        .exits(1);
    daemon.signal(Signal::SIGCONT);
    assert!(held.stderr.contains("systemctl stop tcpgw"), "{held}");
    assert!(net.cli(&["events"]).status == 0);
}

/// The last change of a daemon that then hangs is in its journal and not in its record, so the change is not reported as another
/// program's.
#[test]
fn a_daemon_that_hangs_after_a_change_is_what_the_doctor_says_first() {
    for options in [&["--no-owner"][..], &[]] {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
        let daemon = net.daemon(options);
        daemon.settles(2);
        let ask = |words: &[&str]| -> Value {
            let ran = net.tcpgw(&[words, &["-o", "json"]].concat());
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
        };
        let socket = net.socket().to_string_lossy().into_owned();
        let doctor = |socket: &str| ask(&["--socket", socket, "doctor"])["findings"].clone();
        let ids = |findings: &Value| -> Vec<String> {
            let findings = findings.as_array().expect("a list").iter();
            findings.map(|finding| finding["id"].to_string()).collect()
        };
        let of_table = |findings: &Value| ids(findings).iter().any(|id| id.contains("table-"));
        let journal = || {
            let files = fs::read_dir(net.file("run")).into_iter().flatten().flatten();
            let mut paths = files.map(|file| file.path());
            paths.any(|path| path.extension().is_some_and(|ending| ending == "journal"))
        };
        assert!(wait_until(PATIENCE, || !journal()), "no record is written");
        // Within a second, after which the record is written.
        let add = ["service", "add", "api", "--port", "2002", "--backend", "10.2.0.12:3000"];
        net.cli(&add).ok();
        daemon.signal(Signal::SIGSTOP);
        assert!(journal(), "the record has been written already");
        let found = doctor(&socket);
        assert_eq!(found[0]["id"], "daemon-not-answering", "{found:#}");
        let accuses = |findings: &Value| ids(findings).iter().any(|id| id.contains("table-changed"));
        assert!(!accuses(&found), "{found:#}");
        assert!(!accuses(&doctor("none")));
        let status = ask(&["--socket", "none", "status", "--interval", "0s"]);
        assert!(!status["problems"].to_string().contains("table_changed"), "{status:#}");
        assert_eq!(status["services"][1]["name"], "api", "{status:#}");
        if options.is_empty() {
            // A note, where the kernel can do that.
            assert!(!found.to_string().contains("a running program owns"), "{found:#}");
        } else {
            assert!(!of_table(&found), "{found:#}");
            // A change that the journal does not explain is another program's.
            net.nft("gateway", "flush map inet tcpgw slots_v4");
            let found = doctor(&socket);
            assert_eq!(found[0]["id"], "daemon-not-answering", "{found:#}");
            assert!(accuses(&found), "{found:#}");
        }
        daemon.signal(Signal::SIGCONT);
        assert!(wait_until(PATIENCE * 2, || !accuses(&doctor(&socket))));
        net.cli(&["service", "rm", "api"]).ok();
        assert!(wait_until(PATIENCE, || daemon
            .get("/v1/services")
            .to_string()
            .matches("\"provider\"")
            .count()
            == 1));
    }
}

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
    let told = || {
        let problems = daemon.get("/v1/daemon")["problems"].clone();
        let mut problems = problems.as_array().expect("a list").clone();
        problems.retain(|problem| problem["kind"] == "rejected_configuration");
        problems
    };
    assert_eq!(told(), Vec::<Value>::new());
    for (text, word) in [
        ("[fences]\nmax_servces = 10\n", "line 2"),
        ("[daemon]\nsocket_group = \"no-such-group\"\n", "socket_group"),
    ] {
        fs::write(&file, text).expect("a configuration");
        assert!(wait_until(PATIENCE, || told().iter().any(|problem| {
            problem["severity"] == "warning" && problem["message"].to_string().contains(word)
        })));
        // The daemon runs with the configuration that it has read.
        assert_eq!(daemon.ask("GET", "/v1/healthz", "").expect("an answer").status, 200);
        fs::write(&file, good).expect("a configuration");
        assert!(wait_until(PATIENCE, || told().is_empty()), "{:?}", told());
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
        let told = format!("{}{}", looked.stdout, looked.stderr);
        assert!(told.contains("warning") && told.contains("max_servces"), "{looked}");
    }
    // Commands that are needed in an emergency work, too.
    net.cli(&["--config", &path, "teardown"]).exits(0);
    net.cli(&["--config", &path, "resume"]).exits(0);
    fs::write(&file, "[fences]\nmax_services = 11\n").expect("a configuration");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || problems() == json!([])), "{}", problems());
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

#[test]
fn a_socket_that_is_removed_comes_again() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    fs::remove_file(net.socket()).expect("it is there");
    assert!(wait_until(PATIENCE, || net.socket().exists()), "{}", daemon.logged());
    let mode = fs::metadata(net.socket()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["problems"] == json!([])));
    // Something else has its name: that is left alone, and told in the log.
    fs::remove_file(net.socket()).expect("it is there");
    fs::write(net.socket(), "x").expect("a file");
    assert!(
        wait_until(PATIENCE, || daemon.logged().contains("it cannot be created again")),
        "{}",
        daemon.logged()
    );
    fs::remove_file(net.socket()).expect("it is there");
    assert!(wait_until(PATIENCE, || daemon.ask("GET", "/v1/healthz", "").is_ok()));
    daemon.stop();
    assert!(!net.socket().exists(), "it goes with the daemon");
}

#[test]
fn a_run_directory_that_is_removed_comes_again() {
    let net = Net::new();
    net.want(state([json!({"name": "a", "port": 2001, "backends": []})]));
    let mut daemon = net.daemon(&[]);
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    let run = net.file("run");
    let files = || -> Vec<String> {
        let files = fs::read_dir(&run).into_iter().flatten().flatten();
        let mut names: Vec<String> = files
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| {
            [".lock", ".daemon", ".state"]
                .iter()
                .any(|ending| name.ends_with(ending))
        });
        names.sort();
        names
    };
    assert!(wait_until(PATIENCE, || files().len() == 3), "{:?}", files());
    let before = files();
    fs::remove_dir_all(&run).expect("it is there");
    fs::remove_file(net.socket().with_extension("sock.lock")).expect("it is there");
    assert!(
        wait_until(PATIENCE, || files() == before),
        "{:?}: {}",
        files(),
        daemon.logged()
    );
    assert!(net.socket().with_extension("sock.lock").exists());
    let held = net
        .tcpgw(&["--socket", "none", "teardown", "--lock-timeout", "0s"])
        .exits(1);
    assert!(held.stderr.contains(&format!("process {}", daemon.id())), "{held}");
    daemon.kill();
    let gone = net.tcpgw(&["--socket", "none", "status", "--interval", "0s"]).exits(1);
    assert!(gone.stdout.contains("was killed or has crashed"), "{gone}");
    assert!(!gone.stdout.contains("unnamed"), "{gone}");
    daemon.start();
    net.cli(&["teardown"]).ok();
    fs::remove_dir_all(&run).expect("it is there");
    let has_note = || {
        let mut files = fs::read_dir(&run).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|ending| ending == "torn-down"))
    };
    assert!(wait_until(PATIENCE, has_note), "{}", daemon.logged());
    daemon.kill();
    daemon.start();
    let status = net.cli(&["status", "--interval", "0s"]);
    assert!(status.stdout.contains("torn down"), "{status}");
}

#[test]
fn a_daemon_that_was_killed_is_told_by_status() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let without = |args: &[&str]| net.tcpgw(&[&["--socket", "none"], args].concat());
    let running = without(&["status", "-o", "json", "--interval", "0s"]);
    assert!(running.stdout.contains("daemon_unreachable"), "{running}");
    let needs = without(&["service", "ls"]).exits(1);
    assert!(needs.stderr.contains(&format!("process {}", daemon.id())), "{needs}");
    let pid = daemon.id();
    daemon.kill();
    let gone = without(&["status", "--interval", "0s"]).exits(1);
    let told = format!("(process {pid}) was killed or has crashed");
    assert!(gone.stdout.contains(&told), "{gone}");
    let needs = without(&["service", "ls"]).exits(1);
    assert!(needs.stderr.contains(&told), "{needs}");
    daemon.start();
    daemon.stop();
    let ended = without(&["status", "-o", "json", "--interval", "0s"]);
    assert!(!ended.stdout.contains("daemon_"), "{ended}");
}
