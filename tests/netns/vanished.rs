//! Files of removed network namespaces are deleted from the run directory, if it is certain that the namespaces are gone.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tcpgw::vanished::{Processes, remove_files_of};
use tcpgw_kernel::linux::Linux;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::shell::TCPGW;

/// Environment variable that tells the process in its own PID namespace the place of the files, and the namespace to hold.
const HOLDER: &str = "TCPGW_TEST_HOLDER";

fn cookie(net: &Net, host: &str) -> u64 {
    net.within(host, || {
        Linux::open().expect("a socket").netns_cookie().expect("a cookie")
    })
}

/// Leaves the files of an `apply` in a host's namespace, and says their names' beginning.
fn applied(net: &Net, host: &str) -> String {
    let file = net.state_file("state.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    net.run(host, &[TCPGW, "--socket", "none", "apply", &file]).ok();
    let begin = format!("netns-{}.", cookie(net, host));
    assert!(left(&net.file("run"), &begin) >= 2, "{host}");
    begin
}

fn left(run_dir: &Path, begin: &str) -> usize {
    let files = fs::read_dir(run_dir).expect("a run directory").flatten();
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with(begin))
        .count()
}

fn delete(net: &Net, host: &str) {
    let deleted = Command::new("ip")
        .args(["netns", "delete", &net.namespace(host)])
        .status();
    assert!(deleted.expect("ip").success(), "{host}");
}

/// Files of namespaces that no process holds any more are removed. The test runs in a PID namespace of its own, so that no other
/// process of the machine matters.
#[test]
fn files_of_namespaces_that_nothing_names_are_removed() {
    let net = Net::new();
    let [own, lives, gone, held] = ["gateway", "b2", "b3", "b4"].map(|host| applied(&net, host));
    let this = env::current_exe().expect("the tests have a file");
    let held_by = Path::new("/run/netns").join(net.namespace("b4"));
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let files = [net.file("run"), net.file("state.json"), held_by].map(path);
    let words = [&files[..], &[own, lives, gone, held]].concat().join("\n");
    let unshare = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "slave",
    ];
    let mut command = net.command("gateway", &unshare);
    command
        .arg(this)
        .args(["--exact", "vanished::a_process_holds_a_namespace", "--nocapture"]);
    let mut child = command
        .env(HOLDER, words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut output = child.stdout.take().expect("a pipe was asked for");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"HELD") && output.read(&mut byte).expect("what it says") == 1 {
        seen.extend(byte);
    }
    for host in ["b3", "b4"] {
        delete(&net, host);
    }
    // The process ends, whatever it finds.
    drop(child.stdin.take().expect("a pipe was asked for").write_all(b"x"));
    output.read_to_end(&mut seen).expect("what it says");
    let ended = child.wait().expect("its end");
    assert!(ended.success(), "{}", String::from_utf8_lossy(&seen));
}

/// Process that [`files_of_namespaces_that_nothing_names_are_removed`] starts; run as a test it does nothing.
#[test]
fn a_process_holds_a_namespace() {
    let Ok(words) = env::var(HOLDER) else { return };
    let words: Vec<&str> = words.lines().collect();
    let [run_dir, file, held_by, begins @ ..] = &words[..] else {
        panic!("{words:?}")
    };
    let run_dir = PathBuf::from(run_dir);
    let holder = File::open(held_by).expect("a namespace");
    print!("HELD");
    io::stdout().flush().expect("it is heard");
    io::stdin().read_exact(&mut [0]).expect("a word of the test");

    let left = || begins.iter().map(|begin| left(&run_dir, begin) > 0).collect::<Vec<_>>();
    let apply = Command::new(TCPGW)
        .args(["--socket", "none", "apply", file])
        .output()
        .expect("tcpgw");
    assert!(apply.status.success(), "{}", String::from_utf8_lossy(&apply.stderr));
    assert_eq!(left(), [true; 4], "this is as in a container: others may be elsewhere");
    let own = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    let own = own
        .to_str()
        .and_then(|link| link.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok());
    let processes = Processes {
        pid_namespace: own.expect("an inode"),
        ..Processes::default()
    };
    assert_eq!(remove_files_of(&run_dir, &processes), 1);
    assert_eq!(left(), [true, true, false, true], "the last one is held");
    drop(holder);
    assert_eq!(remove_files_of(&run_dir, &processes), 1);
    assert_eq!(left(), [true, true, false, false]);
    assert_eq!(remove_files_of(&run_dir, &processes), 0);
}

/// Returns true when root sees all processes and all mounts here, which is not so in a container.
fn sees_everything() -> bool {
    let line = r#"[ "$(readlink /proc/self/ns/pid)" = "pid:[4026531836]" ] && readlink /proc/1/ns/net && ! grep -q hidepid /proc/self/mountinfo &&
        ! cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -q ' mnt:\[' && ! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' mnt:\['"#;
    Command::new("sh")
        .args(["-c", line])
        .output()
        .expect("sh")
        .status
        .success()
}

#[test]
fn apply_and_a_daemon_remove_them_where_all_processes_are_seen() {
    let net = Net::new();
    let [first, second, lives] = ["b3", "b4", "b2"].map(|host| applied(&net, host));
    let run_dir = net.file("run");
    let removes = sees_everything();
    delete(&net, "b3");
    // Processes that begin and end meanwhile may leave it uncertain whether one holds them: the next sweep decides.
    let is_left = |begin: &str, again: &mut dyn FnMut()| {
        for _ in 0..if removes { 20 } else { 2 } {
            again();
            if left(&run_dir, begin) == 0 {
                return false;
            }
        }
        true
    };
    let again = &mut || drop(applied(&net, "gateway"));
    assert_eq!(is_left(&first, again), !removes);
    delete(&net, "b4");
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(&[]);
    let again = &mut || {
        daemon.stop();
        daemon.start();
        std::thread::sleep(std::time::Duration::from_secs(1));
    };
    assert_eq!(is_left(&second, again), !removes);
    assert!(left(&run_dir, &lives) >= 2);
}
