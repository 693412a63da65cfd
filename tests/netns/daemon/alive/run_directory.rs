//! Files of the run directory that another process removes.

use std::fs::{self};

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::harness::brief::state;
use crate::harness::client::PATIENCE;
use crate::harness::{Net, wait_until};

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
