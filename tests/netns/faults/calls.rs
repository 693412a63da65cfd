//! System calls that fail: interrupted, short of memory or room, answers lost.
//!
//! strace makes them fail, one call of a run after the other.

use std::fs;

use serde_json::{Value, json};

use super::{assert_holds, held, is, leftovers};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::Conn;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::{Ran, TCPGW};
use crate::retire::open;

/// A gateway that goes from one state to another, run after run, with a flow that each run must flush.
struct Scene {
    net: Net,
    before: Value,
    after: Value,
    still: Conn,
    _servers: [crate::harness::server::Server; 4],
}

impl Scene {
    fn new() -> Self {
        let net = Net::new();
        let servers = net.serve_all(3000, Behaviour::Greet);
        let still = || service("still", 2002, &["b4"], 3000, json!({}));
        let limit = json!({"limit": {"pps": 100_000}});
        // One slot becomes two, which takes three transactions.
        let before = state([service("a", 2001, &["b1"], 3000, limit), still()]);
        let after = state([service("a", 2001, &["b2", "b3"], 3000, json!({})), still()]);
        net.apply(&before);
        let still = open(&net, at(PUBLIC[0], 2002), "b4");
        Self {
            net,
            before,
            after,
            still,
            _servers: servers,
        }
    }

    /// Returns how often a run without injected faults makes this system call.
    fn calls(&mut self, name: &str, forget: bool) -> usize {
        let log = self.net.file("calls");
        let log = log.to_str().expect("temporary paths are text").to_owned();
        self.prepare(forget);
        self.strace(&["-o", &log, "-e", &format!("trace={name}")]).exits(0);
        let calls = fs::read_to_string(log).expect("strace wrote it");
        calls.lines().filter(|line| line.contains(&format!("{name}("))).count()
    }

    /// Runs once with this fault injected.
    fn run(&mut self, injection: &str, forget: bool) -> Ran {
        self.prepare(forget);
        let name = injection.split(':').next().unwrap_or_default();
        self.strace(&[
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={name}"),
            "-e",
            &format!("inject={injection}"),
        ])
    }

    fn prepare(&mut self, forget: bool) {
        self.net.apply(&self.before);
        let mut old = self.net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
        assert_eq!(old.greeting().expect("a greeting").backend, "b1");
        if forget {
            self.net.forget();
        }
    }

    fn strace(&self, options: &[&str]) -> Ran {
        let file = self.net.state_file("after.json", &self.after);
        let before = ["strace", "-f", "--seccomp-bpf"];
        self.net
            .run("gateway", &[&before, options, &[TCPGW, "apply", &file]].concat())
    }

    /// Asserts that the kernel and the record agree with the file.
    #[track_caller]
    fn assert_done(&mut self, when: &str) {
        assert_holds(&self.net, &self.after, when);
        let left = leftovers(&self.net, &self.after);
        assert!(left.is_empty(), "{when}: {left:?}");
        let file = self.net.state_file("after.json", &self.after);
        assert_eq!(self.net.tcpgw(&["diff", &file]).exits(0).stdout, "", "{when}");
        self.still.echo(b"on").expect("others go on");
    }

    /// Asserts that the kernel is as the run reports, whether it failed or not, and that the next run finishes the work.
    #[track_caller]
    fn assert_true(&mut self, ran: &Ran, when: &str) {
        self.still.echo(b"on").expect("others go on");
        if ran.status == 0 {
            assert_holds(&self.net, &self.after, when);
        } else {
            assert!(ran.stderr.contains("error"), "{when}: {ran}");
            assert_eq!(ran.stdout, "", "{when}: {ran}");
            let (held, says) = (held(&self.net), |words| ran.stderr.contains(words));
            assert_eq!(is(&held, &self.after), says("applied"), "{when}: {ran}");
            let untouched = !says("applied") && !says("between two transactions");
            assert!(!untouched || is(&held, &self.before), "{when}: {ran}");
        }
        self.net.apply(&self.after);
        self.assert_done(when);
    }

    /// Asserts that a run succeeds when one of these calls fails once, for some of the calls.
    fn must_not_matter(&mut self, call: &str, fault: &str, forget: bool, every: usize) {
        let calls = self.calls(call, forget);
        assert!(calls > 20, "{calls}");
        for nth in (1..=calls).filter(|nth| nth % every == 0 || nth + 12 > calls) {
            let when = format!("{call} {nth} of {calls}: {fault}");
            let ran = self.run(&format!("{call}:{fault}:when={nth}"), forget);
            assert_eq!(ran.status, 0, "{when}: {ran}");
            self.assert_done(&when);
        }
    }
}

#[test]
fn interrupted_calls_do_not_matter() {
    let mut scene = Scene::new();
    for call in ["sendmsg", "recvmsg"] {
        for times in ["1+2", "2+2", "2+3", "7+1000"] {
            let injection = format!("{call}:error=EINTR:when={times}");
            let ran = scene.run(&injection, true);
            assert_eq!(ran.status, 0, "{injection}: {ran}");
            scene.assert_done(&injection);
        }
    }
}

#[test]
fn lost_answers_are_asked_for_again() {
    let mut scene = Scene::new();
    scene.must_not_matter("recvmsg", "error=ENOBUFS", false, 3);
    scene.must_not_matter("recvmsg", "error=ENOBUFS", true, 10);
}

#[test]
fn answers_that_are_late_are_waited_for() {
    let mut scene = Scene::new();
    scene.must_not_matter("recvmsg", "error=EAGAIN", false, 3);
    let ran = scene.run("recvmsg:error=EAGAIN:when=2+2", true);
    assert_eq!(ran.status, 0, "{ran}");
    scene.assert_done("every second one");
}

/// A run either does without a refused system call or reports the error, and its report is true.
#[test]
fn a_run_that_gets_an_error_says_so_and_the_next_one_finishes() {
    let mut scene = Scene::new();
    // The first calls of some are the dynamic loader's, or like those that follow.
    for (call, error, last) in [
        ("sendmsg", "ENOMEM", 12),
        ("socket", "ENFILE", 2),
        ("setsockopt", "EPERM", 5),
        ("getsockopt", "ENOPROTOOPT", 5),
        ("bind", "ENOMEM", 1),
        ("openat", "EMFILE", 9),
        ("flock", "ENOLCK", 2),
        ("ftruncate", "EIO", 1),
        ("write", "ENOSPC", 3),
        ("rename", "EIO", 1),
        ("clone3", "EAGAIN", 1),
        ("mmap", "ENOMEM", 4),
    ] {
        let calls = scene.calls(call, false);
        assert!(calls > 0, "{call}");
        for nth in calls.saturating_sub(last) + 1..=calls {
            let when = format!("{call} {nth} of {calls}: {error}");
            let ran = scene.run(&format!("{call}:error={error}:when={nth}"), false);
            scene.assert_true(&ran, &when);
        }
    }
}
