//! Files of an installed tcpgw: commands of these tests leave them alone, so that a test never sees, and never changes, what
//! serves the machine or another run of the tests.

use std::fs;

use serde_json::json;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::shell::TCPGW;

/// Directories of an installed tcpgw.
const DEFAULTS: [&str; 3] = ["/var/lib/tcpgw", "/run/tcpgw", "/etc/tcpgw"];
/// Calls that only ask whether a file exists and what it is. `status` and `doctor` ask that of files that the next daemon would use.
const QUESTIONS: [&str; 5] = ["statx(", "stat(", "newfstatat(", "readlink(", "readlinkat("];

/// Runs these lines of shell in the gateway, and returns the paths below [`DEFAULTS`] that the commands behind `$TRACE` open, make,
/// change or remove.
#[track_caller]
fn touched(net: &Net, lines: &str) -> Vec<String> {
    let log = net.file("paths");
    let log = log.to_str().expect("temporary paths are text");
    let trace = format!("strace -f --seccomp-bpf -qq -s 400 -A -o {log} -e trace=%file");
    net.sh("gateway", &format!("set -e\nTRACE='{trace}'\n{lines}")).ok();
    let calls = fs::read_to_string(log).expect("strace wrote it");
    let _ = fs::remove_file(log);
    let is_question = |call: &&str| QUESTIONS.iter().any(|question| call.contains(question));
    let calls = calls.lines().filter(|call| !is_question(call));
    let paths = calls.flat_map(|call| call.split('"').skip(1).step_by(2));
    let is_default = |path: &&str| DEFAULTS.iter().any(|default| path.starts_with(default));
    paths.filter(is_default).map(str::to_owned).collect()
}

#[test]
fn commands_touch_no_file_of_an_installed_tcpgw() {
    let net = Net::new();
    let file = net.state_file("state.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let (socket, pid) = (net.socket(), net.file("pid"));
    let (socket, pid) = (socket.to_string_lossy(), pid.to_string_lossy());
    let found = touched(
        &net,
        &format!(
            r#"
for words in "check {file}" "apply {file}" "diff {file}" "status --interval 0s" flows teardown; do
    $TRACE {TCPGW} $words >/dev/null
done
$TRACE {TCPGW} doctor >/dev/null || [ $? -eq 1 ]
trap 'kill "$(cat {pid})"; wait' EXIT
$TRACE sh -c 'echo $$ >{pid}; exec {TCPGW} daemon --state {file} --socket {socket}' >/dev/null 2>&1 &
add="{TCPGW} --socket {socket} service add api --port 2002 --backend 10.2.0.11:3000"
for _ in $(seq 100); do $TRACE $add >/dev/null 2>&1 && break; sleep 0.1; done
$TRACE {TCPGW} --socket {socket} export >/dev/null
"#
        ),
    );
    assert!(found.is_empty(), "{found:?}");

    // Without these variables the same way of looking finds them.
    let unset = format!("env -u TCPGW_STORE -u TCPGW_CONFIG {TCPGW} status --interval 0s");
    let found = touched(&net, &format!("$TRACE {unset} >/dev/null || [ $? -eq 1 ]"));
    for default in ["/var/lib/tcpgw", "/etc/tcpgw"] {
        assert!(
            found.iter().any(|path| path.starts_with(default)),
            "{default}: {found:?}"
        );
    }
}
