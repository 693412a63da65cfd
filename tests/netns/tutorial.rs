//! The tutorial's command lines, typed one right after another, print the output that the tutorial shows.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::harness::shell::TCPGW;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
/// Word before the output of each command, with the command's number.
const MARK: &str = "tutorial-command";
/// Script that runs the tutorial as on a machine of its own: its processes and mounts end with its first process. `sudo` is
/// replaced by a script that only runs its arguments, `tee` by one that writes to the daemon's configuration, `systemctl reload`
/// by one that does what the unit does, and the daemon is started as the package does.
const MACHINE: &str = r#"
set -u
exec 2>&1
mount -t tmpfs none /run
mkdir -p /run/netns bin
[ ! -d /etc/tcpgw ] || mount -t tmpfs none /etc/tcpgw
printf '#!/bin/sh\nexec "$@"\n' >bin/sudo
printf '#!/bin/sh\n[ "$*" = "-a /etc/tcpgw/config.toml" ] && exec /usr/bin/tee -a "$TCPGW_CONFIG"\n' >bin/tee
printf '#!/bin/sh\n[ "$*" = "reload tcpgw" ] && kill -HUP "$(cat daemon.pid)"\n' >bin/systemctl
chmod 755 bin/sudo bin/tee bin/systemctl
PATH=$PWD/bin:$PATH:/usr/sbin:/sbin
export TCPGW_STORE=$PWD/tcpgw.db TCPGW_CONFIG=$PWD/config.toml
: >config.toml
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
start() {
    tcpgw daemon 2>daemon.log &
    daemon=$!
    echo "$daemon" >daemon.pid
    disown
    for _ in $(seq 100); do tcpgw status -q >/dev/null 2>&1; [ $? -le 1 ] && [ -S /run/tcpgw/tcpgw.sock ] && break; sleep 0.1; done
}
start
"#;
/// Script with the effects of a boot: it removes processes, the table, the containers and the files in `/run`, and then starts
/// the daemon as its unit does.
const BOOT: &str = r#"
kill "$daemon"
while kill -0 "$daemon" 2>/dev/null; do sleep 0.1; done
scripts/containers down
nft flush ruleset
rm -rf /run/tcpgw
start
"#;

/// Returns the command lines of the blocks that show a console, and the output of each.
fn shown() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for block in TUTORIAL.split("```").skip(1).step_by(2) {
        for line in block.strip_prefix("console\n").unwrap_or_default().lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, output))) if !line.is_empty() => output.push(line),
                (None, _) => {}
            }
        }
    }
    commands
}

/// Returns the commands of the block that is typed after a boot.
fn after_boot() -> &'static str {
    let (_, rest) = TUTORIAL
        .split_once("```sh\nsudo reboot\n```\n\n```sh\n")
        .expect("a boot");
    rest.split_once("```").expect("an end").0
}

/// Returns true when a line equals the shown one, apart from values that differ from run to run: times, and the spread of
/// connections (in the client's counts, and in counts of flows, because a client's port may be used twice).
fn is_like(line: &str, shown: &str) -> bool {
    let counts_flows =
        shown.trim_start().starts_with("10.2.0.") || shown.starts_with("my-app :") || shown.ends_with(" flows");
    let may_differ = |word: &str| {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(char::is_alphabetic);
        is_number && !word.contains("10.2.0.") && (counts_flows || word.contains(['.', ':', '-', ',', '}']))
    };
    let shape = |word: &str| {
        let mut shape: Vec<char> = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape.dedup_by(|one, other| *one == '0' && *other == '0');
        shape
    };
    let (line, shown): (Vec<&str>, Vec<&str>) = (line.split_whitespace().collect(), shown.split_whitespace().collect());
    line.len() == shown.len()
        && line
            .iter()
            .zip(shown)
            .all(|(word, shown)| *word == shown || may_differ(word) && may_differ(shown) && shape(word) == shape(shown))
}

/// Returns the shown lines that the output lacks in this order.
fn missing<'s>(output: &str, shown: &[&'s str]) -> Vec<&'s str> {
    let mut lines = output.lines();
    let missing = shown.iter().filter(|shown| !lines.any(|line| is_like(line, shown)));
    missing.copied().collect()
}

#[test]
fn each_command_line_prints_what_the_tutorial_shows() {
    let commands = shown();
    assert!(commands.len() >= 14, "{commands:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["scripts", "examples"] {
        symlink(root.join(name), directory.path().join(name)).expect("a link");
    }
    fs::create_dir(directory.path().join("bin")).expect("a directory");
    symlink(TCPGW, directory.path().join("bin/tcpgw")).expect("a link");
    let mut script = MACHINE.to_owned();
    for (number, (command, _)) in commands.iter().enumerate() {
        // What runs in the background has to start first.
        let pause = if command.ends_with('&') { "4" } else { "1.2" };
        let _ = writeln!(script, "echo {MARK} {number}\n{command}\nsleep {pause}");
    }
    let _ = writeln!(
        script,
        "{BOOT}echo {MARK} {}\n{}echo {MARK} end $?",
        commands.len(),
        after_boot()
    );
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "300",
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .args(["bash", "-m", "-c", &script])
        .current_dir(directory.path())
        .output()
        .expect("unshare runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut wrong = Vec::new();
    for (number, (command, shown)) in commands.iter().enumerate() {
        let (begin, end) = (format!("{MARK} {number}\n"), format!("{MARK} {}\n", number + 1));
        let part = printed.split_once(&begin).map_or("", |(_, rest)| rest);
        let part = part.split_once(&end).map_or(part, |(part, _)| part);
        let missing = missing(part, shown);
        if !missing.is_empty() {
            wrong.push(format!("$ {command}\n{part}does not have {missing:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{errors}", wrong.join("\n"));
    let (_, booted) = printed
        .split_once(&format!("{MARK} {}\n", commands.len()))
        .expect("a boot");
    assert!(booted.contains("\nok: 1 service, 1 backend, "), "{booted}");
    assert!(booted.contains("10.2.0.13:3000  healthy"), "{booted}");
    assert!(booted.ends_with(&format!("{MARK} end 0\n")), "{booted}");
}

#[test]
fn only_times_and_the_spread_may_differ_from_what_is_shown() {
    assert!(!is_like(
        "services +1 ~0 -0; 0 flows flushed",
        "services +1 ~0 -0; 3 flows flushed"
    ));
    assert!(is_like("ok: 1 service, 19 flows", "ok: 1 service, 20 flows"));
    assert!(is_like(
        "3 elements changed in 26.6 ms",
        "3 elements changed in 1.25 ms"
    ));
    assert!(is_like(
        r#"{"ok": 20, "answers": {"c3": 20}}"#,
        r#"{"ok": 20, "answers": {"c3": 7}}"#
    ));
    assert!(!is_like(r#"{"answers": {"c3": 20}}"#, r#"{"answers": {"c1": 20}}"#));
    assert!(!is_like("listens on 10.2.0.11:3000", "listens on 10.2.0.12:3000"));
    assert!(!is_like("deploy 1 of my-app: undone", "deploy 1 of my-app: switched"));
    assert_eq!(missing("a\nb 1.5\nc", &["b 2.25", "c", "d"]), ["d"]);
}
