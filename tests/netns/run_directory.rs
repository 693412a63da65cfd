//! Commands of root in a run directory of another user: no file there makes them write elsewhere, hang, or believe false records.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::json;
use tcpgw::record::RecordFile;
use tcpgw_kernel::Kernel;
use tcpgw_kernel::linux::Linux;

use super::harness::brief::service;
use super::harness::client::PATIENCE;
use super::harness::server::Behaviour;
use super::harness::state::state;
use super::harness::{Net, wait_until};
use super::store::{tmpfs, with_own_mounts};

/// Id of a user that does not exist on this machine.
const DAEMON: u32 = 59_123;
const BOUND: Duration = Duration::from_secs(20);

/// A run directory where nothing can be written is reported before a change needs it.
#[test]
fn a_run_directory_without_room_is_told_before_it_is_needed() {
    with_own_mounts(|| {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        let run = net.file("run");
        fs::create_dir_all(&run).expect("a run directory");
        tmpfs(&run, "1m");
        net.want(crate::harness::brief::state([service(
            "a",
            2001,
            &["b1"],
            3000,
            json!({}),
        )]));
        let daemon = net.daemon(&[]);
        daemon.settles(2);
        // By now all writes of the change are done.
        std::thread::sleep(Duration::from_secs(3));
        let reported = || {
            let healthz = daemon.ask("GET", "/v1/healthz", "").expect("an answer");
            assert_eq!(healthz.status, 200);
            let healthz = healthz.json();
            let problems = healthz["problems"].as_array().expect("a list");
            let record = problems.iter().find(|problem| problem["kind"] == "record");
            record.map(|problem| problem["message"].as_str().expect("words").to_owned())
        };
        assert_eq!(reported(), None);
        let generation = net.sh("gateway", "nft list ruleset | md5sum").ok();
        let ballast = run.join("ballast");
        drop(fs::write(&ballast, vec![1; 1 << 20]));
        assert!(wait_until(PATIENCE, || reported().is_some()));
        let words = reported().expect("it stays");
        assert!(words.contains("No space left"), "{words}");
        assert_eq!(net.sh("gateway", "nft list ruleset | md5sum").ok(), generation);
        fs::remove_file(&ballast).expect("it is there");
        assert!(wait_until(PATIENCE, || reported().is_none()));
    });
}

/// A gateway whose run directory belongs to the daemon's user.
struct Place {
    net: Net,
    namespace: u64,
    file: String,
}

impl Place {
    fn new() -> Self {
        let net = Net::new();
        let namespace = net.within("gateway", || {
            Linux::open().expect("a socket").netns_cookie().expect("a cookie")
        });
        fs::create_dir_all(net.file("run")).expect("a run directory");
        chown(net.file("run"), Some(DAEMON), Some(DAEMON)).expect("a new owner");
        let file = net.state_file(
            "state.json",
            state(&[json!({"name": "a", "port": 20003, "backends": ["10.2.0.11:3000"]})]),
        );
        Self { net, namespace, file }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.net.file("run").join(format!("netns-{}.{ending}", self.namespace))
    }

    /// Runs every command that uses the directory; each ends in time.
    fn run_all(&self, what: &str) {
        let commands: [&[&str]; 5] = [
            &["apply", &self.file],
            &["status", "--socket", "none"],
            &["diff", &self.file],
            &["doctor", "--socket", "none"],
            &["teardown"],
        ];
        for command in commands {
            let ran = self.net.tcpgw(command);
            assert!(ran.took < BOUND, "{what}: {ran}");
            assert!(ran.status < 128, "{what}: {ran}");
        }
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        Ok(there) if there.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
    }
}

#[test]
fn what_is_planted_there_is_neither_followed_nor_waited_for() {
    let place = Place::new();
    let victims = ["lock", "new", "state"].map(|ending| {
        let victim = place.net.file(&format!("victim-{ending}"));
        fs::write(&victim, "precious").expect("a victim");
        (place.path(ending), victim)
    });
    let remove_and_compare = || {
        for (path, victim) in &victims {
            let content = fs::read(victim).expect("still there");
            assert_eq!(content, b"precious", "{}", path.to_string_lossy());
            remove(path);
        }
    };
    for (path, victim) in &victims {
        symlink(victim, path).expect("a link");
    }
    place.run_all("links");
    remove_and_compare();
    for (path, _) in &victims {
        nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("a pipe");
        chown(path, Some(DAEMON), Some(DAEMON)).expect("a new owner");
    }
    place.run_all("pipes");
    for (path, _) in &victims {
        remove(path);
        fs::create_dir(path).expect("a directory");
    }
    place.run_all("directories");
    for (path, victim) in &victims {
        remove(path);
        fs::hard_link(victim, path).expect("a hard link");
    }
    place.run_all("hard links");
    remove_and_compare();
    let refused = {
        symlink("/dev/null", place.path("lock")).expect("a link");
        place.net.tcpgw(&["apply", &place.file]).exits(1)
    };
    assert!(
        refused.stderr.contains("netns-") && refused.stderr.contains("is a symbolic link: remove it"),
        "{refused}"
    );
}

#[test]
fn another_users_record_is_not_believed() {
    let place = Place::new();
    let net = &place.net;
    net.tcpgw(&["apply", &place.file]).exits(0);
    // As the daemon's user could: a record of this state, for the kernel as it is without it.
    let store = RecordFile::new(&net.file("run"), place.namespace);
    let mut record = store.load().expect("a record");
    net.run("gateway", &["nft", "delete", "table", "inet", "tcpgw"]).ok();
    net.nft("gateway", "table inet tcpgw { }");
    let identity = net.within("gateway", || Linux::open().expect("a socket").identity().expect("one"));
    record.head.generation = identity.generation;
    record.head.table = identity.table.expect("a table");
    store.save(&record.head, &record.ruleset).expect("saved");
    chown(place.path("state"), Some(DAEMON), Some(DAEMON)).expect("a new owner");
    net.tcpgw(&["diff", &place.file]).exits(1);
    net.tcpgw(&["apply", &place.file]).exits(0);
    net.tcpgw(&["diff", &place.file]).exits(0);
    let rules = net.run("gateway", &["nft", "list", "table", "inet", "tcpgw"]).ok();
    assert!(rules.contains("10.2.0.11"), "{rules}");
}

#[test]
fn root_and_the_daemons_user_share_the_files() {
    let place = Place::new();
    place.net.tcpgw(&["apply", &place.file]).exits(0);
    let lock = fs::metadata(place.path("lock")).expect("a lock");
    assert_eq!(
        (lock.uid(), lock.mode() & 0o777),
        (DAEMON, 0o600),
        "the daemon can hold it"
    );
    let record = fs::metadata(place.path("state")).expect("a record");
    assert_eq!((record.uid(), record.gid(), record.mode() & 0o777), (0, DAEMON, 0o640));
    // A mask of nothing changes nothing.
    let line = format!("umask 0; exec {} apply {}", super::harness::shell::TCPGW, place.file);
    place.net.sh("gateway", &line).exits(0);
    let record = fs::metadata(place.path("state")).expect("a record").permissions();
    assert_eq!(record.mode() & 0o777, 0o640);
}

/// Script that listens as another user and answers without end: a byte from time to time, or as much as is read.
const IMPOSTOR: &str = r#"
import os, socket, sys, time
path, kind = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
os.setgroups([])
os.setresgid(59123, 59123, 59123)
os.setresuid(59123, 59123, 59123)
server.listen(8)
print("listens", flush=True)
while True:
    peer, _ = server.accept()
    try:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            if kind == "slow":
                time.sleep(0.1)
                peer.sendall(b"1\r\n \r\n")
            else:
                peer.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
    except OSError:
        pass
    peer.close()
"#;

#[test]
fn whoever_has_the_socket_neither_hangs_nor_fills_the_commands_of_root() {
    let place = Place::new();
    let net = &place.net;
    let serves = |directory: &str, kind: &str| {
        let path = net.file(directory).join(format!("{kind}.sock"));
        let text = path.to_string_lossy().into_owned();
        let running = net.spawn("gateway", &["python3", "-c", IMPOSTOR, &text, kind]);
        let has_begun =
            || fs::symlink_metadata(&path).is_ok() && std::os::unix::net::UnixStream::connect(&path).is_ok();
        assert!(super::harness::wait_until(BOUND, has_begun), "{kind}");
        (running, text)
    };
    let ask_all = |socket: &str, words: &str| {
        let commands: [&[&str]; 5] = [
            &["status"],
            &["doctor"],
            &["diff", &place.file],
            &["apply", &place.file],
            &["teardown"],
        ];
        for command in commands {
            let ran = net.tcpgw(&[&["--socket", socket], command].concat());
            assert!(ran.took < Duration::from_secs(10), "{ran}");
            assert!(ran.status != 0 && ran.status < 128, "{ran}");
            assert!(ran.stderr.contains(words) || ran.stdout.contains(words), "{ran}");
        }
    };
    // In a directory of its own it may be a daemon.
    let (slow, path) = serves("run", "slow");
    ask_all(&path, "has not answered for 2.5s");
    drop(slow);
    let (large, path) = serves("run", "large");
    ask_all(&path, "its answer is larger than 4 MiB");
    drop(large);
    // In one of root's it is not.
    fs::create_dir(net.file("open")).expect("a directory");
    let (stranger, path) = serves("open", "slow");
    ask_all(&path, "uid 59123 listens there");
    drop(stranger);
}
