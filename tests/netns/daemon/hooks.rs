//! Hooks: a real program and a real receiver of requests are told what happens.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tcpgw::hooks::signature::HookKey;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn configure(net: &Net, text: &str) -> String {
    let file = net.file("config.toml");
    fs::write(&file, text).expect("a configuration");
    file.to_string_lossy().into_owned()
}

fn script(net: &Net, name: &str, text: &str) -> String {
    let path = net.file(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    path.to_string_lossy().into_owned()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn a_program_is_told_of_backends_that_fail_and_recover_and_no_child_of_it_stays() {
    let net = Net::new();
    let server = net.serve("b1", 3000, Behaviour::Greet);
    let _other = net.serve("b2", 3000, Behaviour::Greet);
    net.want(state([service(
        "web",
        2001,
        &["b1", "b2"],
        3000,
        json!({"health": {"interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 1}}),
    )]));
    let (told, about) = (net.file("told"), net.file("about"));
    let (told_at, about_at) = (told.to_string_lossy(), about.to_string_lossy());
    let notify = script(
        &net,
        "notify",
        &format!(
            "cat >> '{told_at}'; env | sort > '{about_at}'; echo \"$1\"; ls /proc/self/fd | wc -l >> '{about_at}'"
        ),
    );
    let config = configure(
        &net,
        &format!(
            "[[hooks]]\non = ['started', 'backend_unhealthy', 'backend_unhealthy_ended']\nrun = ['{notify}', \"a\\u001b b\"]\n"
        ),
    );
    let daemon = net.daemon(&["--config", &config]);
    daemon.settles(4);
    let kinds = || -> Vec<Value> { lines(&told).iter().map(|event| event["event"].clone()).collect() };
    assert!(wait_until(PATIENCE, || kinds() == ["started"]), "{:?}", kinds());
    assert!(
        wait_until(PATIENCE, || {
            let about = fs::read_to_string(&about).unwrap_or_default();
            about.lines().any(|line| line == "4")
        }),
        "other files than standard ones and the directory are open"
    );
    let variables = fs::read_to_string(&about).expect("variables");
    for variable in ["TCPGW_HOOK=notify", "TCPGW_EVENT=started", "TCPGW_ATTEMPT=1"] {
        assert!(
            variables.lines().any(|line| line == variable),
            "{variable}: {variables}"
        );
    }
    for secret in ["TCPGW_STORE", "TCPGW_RUN_DIR", "NO_COLOR"] {
        assert!(!variables.contains(secret), "{variables}");
    }

    drop(server);
    // One address of each family.
    assert!(wait_until(PATIENCE, || kinds().len() == 3), "{:?}", kinds());
    let begun = lines(&told);
    assert!(
        begun[1..]
            .iter()
            .all(|event| event["event"] == "health" && event["state"] == "unhealthy" && event["service"] == "web")
    );
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    assert!(wait_until(PATIENCE, || kinds().len() == 5), "{:?}", kinds());
    let ended = lines(&told);
    assert!(ended[3..].iter().all(|event| event["state"] == "healthy"));
    // They come in the order of the daemon's events.
    let events: Vec<Value> = daemon.events().iter().map(|event| event["id"].clone()).collect();
    let places: Vec<usize> = ended
        .iter()
        .map(|event| events.iter().position(|id| *id == event["id"]).expect("an event"))
        .collect();
    assert!(places.is_sorted(), "{places:?}");

    let logged = daemon.logged();
    assert!(
        logged.contains("output of a hook") && !logged.contains('\u{1b}'),
        "{logged}"
    );
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children_and_one_that_is_missing_is_a_problem() {
    let net = Net::new();
    net.want(state([]));
    let pids = net.file("pids");
    let hangs = script(
        &net,
        "hangs",
        &format!("sleep 1234 & echo $! >> '{}'; sleep 1234", pids.to_string_lossy()),
    );
    let config = configure(
        &net,
        &format!(
            "[[hooks]]\non = ['started']\nrun = ['{hangs}']\ntimeout = '1s'\n\
             [[hooks]]\nname = 'missing'\non = ['drift']\nrun = ['/no/such/program']\n"
        ),
    );
    let mut daemon = net.daemon(&["--config", &config]);
    let problems = || daemon.get("/v1/daemon")["problems"].to_string();
    assert!(
        wait_until(PATIENCE, || problems().contains("/no/such/program")),
        "{}",
        problems()
    );
    assert!(
        wait_until(PATIENCE, || daemon.logged().contains("was killed")),
        "{}",
        daemon.logged()
    );
    let first = fs::read_to_string(&pids).expect("a number");
    let first = first.lines().next().expect("a number");
    let is_there = || fs::read_to_string(format!("/proc/{first}/cmdline")).is_ok_and(|line| line.contains("1234"));
    assert!(wait_until(PATIENCE, || !is_there()), "its child lives on");
    daemon.stop();
    let without = net.tcpgw(&[
        "--socket",
        "none",
        "--config",
        &config,
        "-o",
        "json",
        "status",
        "--interval",
        "0s",
    ]);
    assert!(without.stdout.contains("missing"), "{without}");
}

/// The program of a hook that is removed is killed. One that gets its name again begins after that.
#[test]
fn a_removed_hook_ends_its_program() {
    let net = Net::new();
    net.want(state([]));
    let pids = net.file("pids");
    let hangs = script(
        &net,
        "hangs",
        &format!("echo $$ >> '{}'; exec sleep 1235", pids.to_string_lossy()),
    );
    let hook =
        format!("[[hooks]]\nname = 'hangs'\non = ['started', 'committed']\nrun = ['{hangs}']\ntimeout = '60s'\n");
    let config = configure(&net, &hook);
    let mut daemon = net.daemon(&["--config", &config]);
    let running = || {
        let pids = fs::read_to_string(&pids).unwrap_or_default();
        let is_there =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("1235"));
        pids.lines().filter(is_there).count()
    };
    assert!(wait_until(PATIENCE, || running() == 1));
    let reloads = || daemon.logged().matches("configuration read again").count();
    configure(&net, "");
    daemon.signal(Signal::SIGHUP);
    assert!(
        wait_until(PATIENCE, || reloads() == 1 && running() == 0),
        "{}",
        daemon.logged()
    );
    configure(&net, &hook);
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || reloads() == 2));
    net.want(state([service("web", 2001, &[], 3000, json!({}))]));
    assert!(wait_until(PATIENCE, || running() == 1), "{}", daemon.logged());
    // Removed and put back while it runs: there is one at a time.
    configure(&net, "");
    daemon.signal(Signal::SIGHUP);
    configure(&net, &hook);
    daemon.signal(Signal::SIGHUP);
    net.want(state([]));
    for _ in 0..20 {
        assert!(running() <= 1);
        thread::sleep(std::time::Duration::from_millis(20));
    }
    daemon.stop();
    assert!(wait_until(PATIENCE, || running() == 0));
}

/// A request that the receiver has got.
struct Delivery {
    head: String,
    body: Vec<u8>,
    stream: TcpStream,
}

impl Delivery {
    fn header(&self, name: &str) -> String {
        let prefix = format!("{name}: ");
        let line = self.head.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.head)).to_owned()
    }

    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn answer(mut self, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: http://127.0.0.1/\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).expect("an answer");
    }
}

/// Receives requests at an address of the gateway until the test has ended.
fn receiver(net: &Net) -> (u16, Receiver<Delivery>) {
    let listener = net
        .within("gateway", || TcpListener::bind("127.0.0.1:0"))
        .expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let (sender, received) = channel();
    thread::spawn(move || receive(&listener, &sender));
    (port, received)
}

fn receive(listener: &TcpListener, deliveries: &Sender<Delivery>) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).is_ok_and(|length| length == 0) {
                return;
            }
        }
        let head = head.replace("\r\n", "\n");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut body).expect("a body");
        if deliveries.send(Delivery { head, body, stream }).is_err() {
            return;
        }
    }
}

#[test]
fn a_url_is_called_in_order_signed_and_again_and_a_reload_loses_nothing() {
    let net = Net::new();
    net.want(state([]));
    let (port, deliveries) = receiver(&net);
    let delivery = || deliveries.recv_timeout(PATIENCE).expect("a delivery");
    let secret = net.file("secret");
    fs::write(&secret, format!("{KEY}\n")).expect("a secret");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("a mode");
    let hooks = |timeout: &str| {
        format!(
            "[[hooks]]\nname = 'platform'\non = ['started', 'committed']\nurl = 'http://127.0.0.1:{port}/hook/?token=hidden'\n\
             secret_file = '{}'\ntimeout = '{timeout}'\n",
            secret.to_string_lossy()
        )
    };
    let config = configure(&net, &hooks("5s"));
    let mut daemon = net.daemon(&["--config", &config]);

    let first = delivery();
    assert!(
        first.head.starts_with("POST /hook/?token=hidden HTTP/1.1\n"),
        "{}",
        first.head
    );
    assert_eq!(first.event()["event"], "started");
    let (id, time) = (first.header("webhook-id"), first.header("webhook-timestamp"));
    assert_eq!(first.event()["id"], *id);
    let key = HookKey::parse(KEY.as_bytes()).expect("a key");
    let signature = key.sign(&id, time.parse().expect("seconds"), &first.body);
    assert_eq!(first.header("webhook-signature"), signature);
    // A redirection is a failure, and is tried again with the same id.
    first.answer("307 Temporary Redirect");
    let again = delivery();
    assert_eq!(again.header("webhook-id"), id);
    again.answer("204 No Content");

    // One delivery is under way, and others wait, while the configuration is read again.
    let held = delivery();
    assert_eq!(held.event()["event"], "committed");
    net.want(state([service("web", 2001, &[], 3000, json!({}))]));
    assert!(wait_until(PATIENCE, || daemon.events_of("committed").len() >= 2));
    configure(&net, &hooks("6s"));
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || daemon
        .logged()
        .contains("configuration read again")));
    held.answer("200 OK");
    let second = delivery();
    let committed = daemon.events_of("committed");
    assert_eq!(second.event()["id"], committed[1]["id"]);

    // What is not delivered when the daemon ends is counted, and no log shows the URL.
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    let logged = daemon.logged();
    assert!(logged.contains("events for a hook are not delivered"), "{logged}");
    assert!(logged.contains("a redirection, which is not followed"), "{logged}");
    assert!(!logged.contains("hidden"), "{logged}");
    drop(second);
}
