//! Selection of the daemon that an app uses, and apps that share one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PATIENCE, TCP};
use crate::harness::{Net, wait_until};

#[test]
fn a_daemon_that_is_there_is_used_and_goes_on() {
    let net = Net::new();
    let config = net.file("config.toml");
    fs::write(&config, "").expect("a file");
    let config_text = config.to_str().expect("UTF-8").to_owned();
    let mut daemon = net.daemon_without_state(&["--config", &config_text]);
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    let refused = app.cli(&[]).exits(1);
    assert!(refused.stderr.contains("add a section [addon]"), "{refused}");

    let credentials = net.file("addon.toml");
    let secrets = "username = \"u\"\npassword = \"0123456789abcdef\"\nsso_salt = \"0123456789abcdef\"\n";
    fs::write(&credentials, secrets).expect("a file");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).expect("a mode");
    let plans = "[[addon.plans]]\nname = \"free\"\nid = \"5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11\"\npps = 512\n";
    let addon = format!(
        "[addon]\nlisten = \"127.0.0.1:9443\"\nhost = \"203.0.113.1\"\nports = \"20000-20009\"\ncredentials = {credentials:?}\n{plans}"
    );
    fs::write(&config, addon).expect("a file");
    daemon.stop();
    daemon.start();
    let refused = app.cli(&[]).exits(1);
    assert!(
        refused.stderr.contains("name one of the daemon's plans by --plan"),
        "{refused}"
    );
    let refused = app.cli(&["--plan", "nope"]).exits(2);
    assert!(refused.stderr.contains("nope"), "{refused}");
    app.start(&["--plan", "free"], 1);
    app.prints("TCP_URL=tcp://203.0.113.1:20000, plan free");
    let hairpin = "bash -c 'read -r name <>/dev/tcp/203.0.113.1/20000; echo heard $name'";
    assert_eq!(app.cli(&["run", hairpin]).ok(), "heard tcp.1\n");
    app.stop(Signal::SIGTERM);
    let resources: Value = net.told(&["addon", "ls"]);
    assert_eq!(resources["resources"], Value::Array(Vec::new()), "{resources}");
    let left: Vec<String> = net.left_by_up();
    assert_eq!(
        left,
        ["table inet tcpgw", "the store", "the lock of the socket"],
        "they are the daemon's"
    );
}

/// A process that is scaled away while the daemon is dead keeps serving, because the kernel still sends clients to it; the
/// command reports this.
#[test]
fn who_is_scaled_away_beside_a_dead_daemon_serves_on_until_there_is_another() {
    let net = Net::new();
    let config = crate::addon::platform::configure(&net, "20000-20009", "");
    let mut daemon = net.daemon_without_state(&["--config", &config]);
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&["--plan", "large", "-m", "tcp=2"], 2);
    daemon.kill();
    let mut scale = app.command(&["scale", "tcp=1"]);
    let scale = std::thread::spawn(move || scale.output().expect("failed to run tcpgw up scale"));
    let begin = Instant::now();
    let connects = app.ask_until(|| scale.is_finished() && begin.elapsed() > Duration::from_secs(7));
    let text = scale.join().expect("it does not panic");
    let words = String::from_utf8_lossy(&text.stderr).into_owned();
    assert_eq!(text.status.code(), Some(1), "{words}");
    assert!(
        words.contains("tcp.2 still get some") && words.contains("no daemon answers"),
        "{words}"
    );
    assert_eq!(connects.failed, Vec::<String>::new(), "{}", app.printed());
    assert!(connects.names.contains("tcp.2"), "{connects:?}");
    assert_eq!(app.ps()[1]["state"], "draining");

    daemon.start();
    let mut left = 0;
    let connects = app.ask_until(|| {
        left += usize::from(app.ps().len() == 1);
        left > 20
    });
    assert_eq!(connects.failed, Vec::<String>::new(), "{}", app.printed());
    assert_eq!(app.serving(), 1);
    app.cli(&["scale", "tcp=2"]).ok();
    assert_eq!(app.serving(), 2, "{}", app.printed());
    app.cli(&["scale", "tcp=1"]).ok();
    assert_eq!(app.serving(), 1, "who is answered by 0 is served as ordered");
    app.stop(Signal::SIGINT);
}

#[test]
fn apps_share_a_daemon_and_the_last_one_takes_all_with_it() {
    let net = Net::new();
    let mut first = net.app("first", &format!("tcp: {TCP}\n"));
    let mut second = net.app("second", &format!("tcp: {TCP}\n"));
    first.start(&[], 1);
    second.start(&[], 1);
    assert_ne!(first.port(), second.port());
    let [one, other] = [first.address("tcp.1"), second.address("tcp.1")];
    let bypass = format!(
        "timeout 1 bash -c 'exec 3<>/dev/tcp/{}/{}' || echo no way",
        other.ip(),
        other.port()
    );
    assert_eq!(
        first.cli(&["run", &bypass]).ok(),
        "no way\n",
        "{one} must not reach {other}"
    );

    // The daemon is the first one's, and goes with it; the kernel serves on meanwhile.
    let mut ending = {
        first.signal(Signal::SIGINT);
        0
    };
    let connects = second.ask_until(|| {
        ending += 1;
        ending > 300
    });
    assert_eq!(first.ended(), Some(0), "{}", first.printed());
    assert_eq!(connects.failed, Vec::<String>::new());
    second.prints("the daemon has ended: starting another");
    assert!(wait_until(PATIENCE, || second.serving() == 1), "{}", second.printed());
    second.cli(&["restart"]).ok();
    assert_eq!(second.ask().expect("an answer"), "tcp.1");
    second.stop(Signal::SIGINT);
    assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", second.printed());
}

#[test]
fn a_daemon_of_its_own_that_is_killed_is_started_again() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&[], 1);
    let pid = net.daemon_of_up().expect("it is noted");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    app.prints("the daemon has ended: starting another");
    assert!(wait_until(PATIENCE, || app.serving() == 1), "{}", app.printed());
    app.stop(Signal::SIGINT);
    assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", app.printed());
}

/// Server that answers for a while, and goes on without listening.
const DEAF: &str = r#"
import os, socket, time
server = socket.socket()
server.bind(("0.0.0.0", int(os.environ["PORT"])))
server.listen(1024)
server.settimeout(0.1)
end = time.monotonic() + 3
while time.monotonic() < end:
    try:
        server.accept()[0].close()
    except OSError:
        pass
server.close()
print("deaf", flush=True)
time.sleep(1000)
"#;

/// Each app is told of its own problems only, whichever app has started the daemon.
#[test]
fn each_app_is_told_of_its_own_problems_only() {
    let net = Net::new();
    let mut first = net.app("first", &format!("tcp: {TCP}\n"));
    let mut second = net.app("second", "tcp: exec /usr/bin/python3 deaf.py\n");
    second.write("deaf.py", DEAF);
    first.start(&[], 1);
    second.start(&[], 1);
    second.prints("tcp.1  | deaf");
    second.prints("has no healthy backend");
    let output = second.printed();
    let line = output
        .lines()
        .find(|line| line.contains("no healthy backend"))
        .expect("a line");
    assert!(
        line.contains("system | problem: addon-") && line.contains("(app up-second-"),
        "{line}"
    );
    second.signal(Signal::SIGKILL);
    assert_eq!(second.ended(), None);
    assert!(wait_until(PATIENCE, || second.processes().is_empty()));
    // The next one cleans up after it, beside a daemon that lives and after one that was killed, too.
    let mut third = net.app("third", &format!("tcp: {TCP}\n"));
    third.start(&[], 1);
    third.signal(Signal::SIGKILL);
    first.signal(Signal::SIGKILL);
    assert_eq!((first.ended(), third.ended()), (None, None));
    let mut fourth = net.app("fourth", &format!("tcp: {TCP}\n"));
    fourth.start(&[], 1);
    fourth.stop(Signal::SIGINT);
    for app in [&first, &third, &fourth] {
        let printed = app.printed();
        let is_quiet = ["problem", "WARN", "ERROR", "second", "addon-"]
            .iter()
            .all(|word| !printed.contains(word));
        assert!(is_quiet, "{}: {printed}", app.name);
    }
    assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", fourth.printed());
}
