//! The read-only socket of a daemon: an unprivileged user of its group sees everything by it, and orders nothing.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::{Ran, TCPGW};
use crate::harness::{Net, wait_until};

/// User and group without privileges.
const NOBODY: &str = "65534";

/// Runs a command as that user, with this socket.
fn as_nobody(net: &Net, socket: &Path, words: &[&str]) -> Ran {
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let program = net.file("tcpgw");
    let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
    let prefix = [
        "setpriv",
        &user,
        &group,
        "--clear-groups",
        &program,
        "--socket",
        &socket,
    ];
    net.run("gateway", &[&prefix, words].concat())
}

fn configure(net: &Net, socket: &Path, mode: &str) -> String {
    let file = net.file("config.toml");
    let socket = socket.to_string_lossy();
    let text = format!(
        "[daemon]\nsocket_readonly = \"{socket}\"\nsocket_readonly_group = \"nogroup\"\nsocket_readonly_mode = \"{mode}\"\n"
    );
    fs::write(&file, text).expect("a configuration");
    file.to_string_lossy().into_owned()
}

#[test]
fn a_user_of_its_group_sees_everything_and_orders_nothing() {
    let net = Net::new();
    fs::set_permissions(net.file("."), Permissions::from_mode(0o755)).expect("a mode");
    fs::copy(TCPGW, net.file("tcpgw")).expect("a copy of the program");
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    let socket = net.file("readonly.sock");
    let config = configure(&net, &socket, "0660");
    let daemon = net.daemon(&["--config", &config]);
    daemon.settles(2);
    assert!(wait_until(PATIENCE, || socket.exists()));
    let held = net.hold("client", at(PUBLIC[0], 2001));

    for words in [
        &["status"][..],
        &["flows"],
        &["events"],
        &["service", "ls"],
        &["service", "show", "web"],
        &["export"],
        &["history"],
        &["deploys"],
        &["wait", "web", "--for", "healthy"],
    ] {
        let ran = as_nobody(&net, &socket, words);
        assert_eq!(ran.status, 0, "{words:?}: {ran}");
    }
    let status = as_nobody(&net, &socket, &["status", "-o", "json"]).ok();
    assert!(status.contains("\"pid\"") && status.contains("\"web\""), "{status}");
    let client = held.client.to_string();
    assert!(as_nobody(&net, &socket, &["flows"]).ok().contains(&client));
    // It may find something about this machine, and it has the daemon's list.
    let doctor = as_nobody(&net, &socket, &["doctor", "-o", "json"]);
    assert!(
        doctor.status < 2 && !doctor.stdout.contains("daemon-unreachable"),
        "{doctor}"
    );

    let before = daemon.last();
    let file = net.state_file("other.json", state([]));
    for words in [
        &["pause", "web", "--for", "1s"][..],
        &["drain", "web"],
        &["service", "rm", "web"],
        &["deploy", "web", "--target", "10.2.0.12:3000"],
        &["teardown"],
        &["apply", &file],
        &["apply", "--dry-run", &file],
    ] {
        let ran = as_nobody(&net, &socket, words).exits(1);
        assert!(ran.stderr.contains("for monitoring only"), "{words:?}: {ran}");
    }
    assert_eq!(daemon.last(), before, "nothing happened");
    // The whole API is closed to that user.
    let denied = as_nobody(&net, &net.socket(), &["status"]);
    assert_ne!(denied.status, 0, "{denied}");
}

#[test]
fn a_reload_moves_it_and_its_crowd_keeps_nobody_from_the_other_socket() {
    let net = Net::new();
    net.want(state([]));
    let [first, second] = ["first.sock", "second.sock"].map(|name| net.file(name));
    let config = configure(&net, &first, "0660");
    let mut daemon = net.daemon(&["--config", &config]);
    assert!(wait_until(PATIENCE, || first.exists()));
    let mode = |path: &Path| fs::metadata(path).map(|of| (of.mode() & 0o777, of.gid())).ok();
    assert_eq!(mode(&first), Some((0o660, 65534)));

    let held: Vec<UnixStream> = net.within("gateway", || {
        let connect = || UnixStream::connect(&first).expect("a connection");
        (0..60).map(|_| connect()).collect()
    });
    assert!(daemon.get("/v1/daemon")["pid"].is_number());
    let refused = net.within("gateway", || {
        let mut stream = UnixStream::connect(&first).expect("a connection");
        let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    });
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    drop(held);

    // Another mode, then another path, then a group that does not exist, then none.
    configure(&net, &first, "0600");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || mode(&first) == Some((0o600, 65534))));
    configure(&net, &second, "0660");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || second.exists() && !first.exists()));
    fs::remove_file(&second).expect("removed");
    assert!(wait_until(PATIENCE, || second.exists()), "it is made again");
    let problems = || daemon.get("/v1/daemon")["problems"].to_string();
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("nogroup", "no-such-group")).expect("a configuration");
    daemon.signal(Signal::SIGHUP);
    assert!(
        wait_until(PATIENCE, || problems().contains("socket_readonly_group")),
        "{}",
        problems()
    );
    assert!(second.exists(), "it is served as before");
    fs::write(&config, "").expect("a configuration");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || !second.exists()));
    assert!(!problems().contains("socket_readonly"), "{}", problems());
    daemon.stop();
}
