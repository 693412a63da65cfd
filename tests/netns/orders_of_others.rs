//! Files that other users may write, and special files, in place of a state file or a configuration.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::json;

use super::harness::brief::{service, state};
use super::harness::client::PATIENCE;
use super::harness::plan::{PUBLIC, at};
use super::harness::server::Behaviour;
use super::harness::shell::TCPGW;
use super::harness::{Net, wait_until};

/// Id of a user that does not exist on this machine.
const OTHER: u32 = 59_123;
const BOUND: Duration = Duration::from_secs(20);

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Root applies its own file from a directory like `/tmp`, and no file that another user has placed there.
#[test]
fn root_applies_its_own_file_from_a_shared_directory_and_no_planted_one() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let shared = net.file("shared");
    fs::create_dir(&shared).expect("a directory");
    mode(&shared, 0o1777);
    let own = net.state_file("shared/own.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let applied = net.tcpgw(&["apply", &own]).exits(0);
    assert!(!applied.stderr.contains("uid"), "{applied}");
    let ruleset = || net.run("gateway", &["nft", "list", "table", "inet", "tcpgw"]).ok();
    let before = ruleset();
    let planted = net.state_file(
        "shared/planted.json",
        state([service("b", 2002, &["b1"], 3000, json!({}))]),
    );
    chown(&planted, Some(OTHER), Some(OTHER)).expect("an owner");
    let link = shared.join("link.json");
    symlink(&own, &link).expect("a link");
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER)).expect("an owner");
    // With `fs.protected_symlinks=1` the kernel does not follow such a link, either.
    let is_followed = fs::metadata(&link).is_ok();
    for (file, is_read) in [(planted.as_str(), true), (link.to_str().expect("text"), is_followed)] {
        let refused = net.tcpgw(&["apply", file]).exits(2);
        let why = if is_read {
            "in a directory that everybody may write"
        } else {
            "Permission denied"
        };
        assert!(refused.stderr.contains(why), "{refused}");
        assert_eq!(ruleset(), before, "nothing changes");
    }
    let given = fs::read_to_string(&planted).expect("it is there");
    net.run_with("gateway", &[TCPGW, "apply", "-"], &given).exits(0);
}

/// A followed file that becomes writable by everybody is not followed any more; the services go on.
#[test]
fn a_followed_file_that_everybody_may_write_is_not_followed() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    let answers = |port| net.connect("client", at(PUBLIC[0], port)).is_ok();
    assert!(wait_until(PATIENCE, || answers(2001)), "{}", daemon.logged());
    let file = net.wanted();
    mode(&file, 0o666);
    let others = state([service("b", 2002, &["b1"], 3000, json!({}))]);
    fs::write(&file, others.to_string()).expect("written");
    let is_told = || {
        daemon
            .get("/v1/status")
            .to_string()
            .contains("may be written by everybody")
    };
    assert!(wait_until(PATIENCE, is_told), "{}", daemon.logged());
    assert!(answers(2001) && !answers(2002), "{}", daemon.logged());
    mode(&file, 0o644);
    assert!(wait_until(PATIENCE, || answers(2002)), "{}", daemon.logged());
}

#[test]
fn a_pipe_in_place_of_a_configuration_keeps_no_command() {
    let net = Net::new();
    let file = net.state_file("s.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let pipe = net.file("pipe.toml");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let pipe = pipe.to_str().expect("text");
    let commands: [&[&str]; 6] = [
        &["apply", &file],
        &["diff", &file],
        &["status", "--socket", "none"],
        &["doctor", "--socket", "none"],
        &["daemon"],
        &["teardown"],
    ];
    for command in commands {
        let ran = net.tcpgw(&[&["--config", pipe], command].concat());
        assert!(ran.took < BOUND, "{ran}");
        // `status` and `doctor` tell of it as a problem.
        let stderr = format!("{}{}", ran.stdout, ran.stderr);
        assert!(stderr.contains("is a pipe") || command == ["teardown"], "{ran}");
    }
}
