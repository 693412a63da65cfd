//! How commands to single services end where no daemon answers, or where nobody reads what they say.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tcpgw::store::DeployPhase;

use crate::cli::{command, err};
use crate::cli_deploy::DEPLOY;
use crate::deploys::script;
use crate::harness::serves;

#[test]
fn without_a_daemon_they_say_so() {
    for args in [
        &["deploy", "web", "--target", "10.2.0.3:80"][..],
        &["rollback", "web"],
        &["deploys"],
        &["drain", "web"],
        &["undrain", "web"],
        &["pause", "web"],
        &["resume", "web"],
        &["wait", "web", "--for", "healthy"],
        &["service", "ls"],
        &["service", "rm", "web"],
        &["history"],
        &["export"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcpgw"))
            .args(args)
            .args(["--socket", "none"])
            .env("TCPGW_CONFIG", "/dev/null")
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            err(&output).contains("no daemon runs in this network namespace") && err(&output).contains("start one"),
            "{}",
            err(&output)
        );
    }
}

/// A command that waits ends at its deadline and on a signal, even when its standard error is a full pipe that is never read.
#[test]
fn commands_end_whose_standard_error_nobody_reads() {
    const LONG: Duration = Duration::from_secs(20);
    let server = serves();
    let start = |args: &[&str]| {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it does not wait");
        while match writer.write(&[b'a'; 4096]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        } {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("it waits");
        let mut command = command(&server, args);
        let child = command.stdout(Stdio::null()).stderr(writer).spawn();
        (child.expect("the program runs"), reader)
    };
    let end = |(mut child, _reader): (std::process::Child, std::io::PipeReader)| {
        let begun = Instant::now();
        loop {
            match child.try_wait().expect("a child") {
                Some(status) => return Some(status),
                None if begun.elapsed() > LONG => {
                    child.kill().expect("it runs");
                    child.wait().expect("it ended");
                    return None;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    let waiting: [&[&str]; 3] = [
        &["wait", "sick", "--for", "healthy", "--timeout", "50ms"],
        &["drain", "web", "--wait", "--timeout", "50ms"],
        &["wait", "gone", "--for", "drained"],
    ];
    for (args, child) in waiting.map(|args| (args, start(args))) {
        assert_eq!(end(child).map(|status| status.code()), Some(Some(1)), "{args:?}");
    }
    script(
        &server,
        &[(DeployPhase::Failed, Some("10.2.0.3:80 did not answer: refused"))],
    );
    let deploy = start(DEPLOY);
    assert_eq!(end(deploy).map(|status| status.code()), Some(Some(1)), "deploy");
    let follower = start(&["events", "-v", "--follow"]);
    std::thread::sleep(Duration::from_millis(300));
    let pid = i32::try_from(follower.0.id()).expect("a process");
    // Tests that are run in the background may ignore SIGINT, which commands inherit.
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    assert!(end(follower).is_some(), "events");
}
