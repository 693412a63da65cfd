//! Names that other users choose are shown as text: no terminal interprets them, and they cannot forge lines of the output.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;

use super::harness::shell::{Ran, TCPGW};
use super::harness::state::state;
use super::harness::{Net, wait_until};

/// Name of a process, of at most 15 bytes, which sets a terminal's title and begins a line.
const NAME: &str = "\u{1b}]0;x\u{7}\nerror: ";

fn assert_is_harmless(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let risky = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(risky, None, "{text:?}");
        let forged = text
            .lines()
            .find(|line| line.trim() == "error:" || line.starts_with("error: forged"));
        assert_eq!(forged, None, "{text:?}");
    }
}

#[test]
fn the_name_of_a_process_that_listens() {
    let net = Net::new();
    let program = net.file(NAME);
    // The kernel takes the name of the file for the name of the process.
    let listener = "import socket, sys, time\ns = socket.socket(socket.AF_INET6)\ns.bind(('::', 20003))\ns.listen()\ntime.sleep(60)";
    symlink(fs::canonicalize("/usr/bin/python3").expect("python3"), &program).expect("a link");
    let _running = net.spawn("gateway", &[program.as_os_str(), "-c".as_ref(), listener.as_ref()]);
    assert!(net.wait_for_listener("gateway", 20003, Duration::from_secs(10)));
    let service = json!({"name": "a", "port": 20003, "backends": ["10.2.0.11:3000"]});
    let file = net.state_file("state.json", state(&[service]));
    let refused = net.tcpgw(&["apply", &file]).exits(1);
    assert!(refused.stderr.contains(r"\u{1b}]0;x\u{7}\nerror:"), "{refused}");
    assert_is_harmless(&refused);
    net.tcpgw(&["apply", "--take-over", &file]).exits(0);
    for command in [
        &["doctor"][..],
        &["doctor", "-o", "json"],
        &["status"],
        &["status", "-o", "json"],
    ] {
        assert_is_harmless(&net.tcpgw(command));
    }
}

#[test]
fn the_command_line_of_whoever_holds_the_lock() {
    let net = Net::new();
    let file = net.state_file("a\u{1b}[2J\nerror: forged.json", state(&[]));
    let out = format!("exec {TCPGW} apply --allow-empty '{file}' 2>&1");
    let log = net.file("log");
    let daemon = format!(
        "exec {TCPGW} daemon --state '{file}' --store '{}' --socket '{}' 2>'{}'",
        net.file("store.db").to_string_lossy(),
        net.file("socket").to_string_lossy(),
        log.to_string_lossy()
    );
    let _daemon = net.spawn("gateway", &["sh", "-c", &daemon]);
    assert!(wait_until(Duration::from_secs(10), || net.file("socket").exists()));
    let refused = net.sh("gateway", &format!("{out} --socket none --lock-timeout 100ms"));
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stdout.contains(r"\u{1b}[2J\nerror: forged.json"), "{refused}");
    assert_is_harmless(&refused);
    let log = fs::read_to_string(log).expect("a log");
    assert!(
        !log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("error:")),
        "{log}"
    );
}

#[test]
fn the_comment_of_a_table() {
    let net = Net::new();
    net.nft(
        "gateway",
        "table inet tcpgw { comment \"tcpgw \u{1b}[2J other\"; }\ntable inet x { comment \"\u{1b}[2J\"; }",
    );
    for command in [&["status"][..], &["doctor"], &["diff", "-"]] {
        assert_is_harmless(&net.run_with(
            "gateway",
            &[&[TCPGW], command].concat(),
            r#"{"version":1,"services":[]}"#,
        ));
    }
}
