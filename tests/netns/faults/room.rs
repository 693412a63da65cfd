//! Too little room: buffers that may not grow, memory, the run directory.

use std::fs;
use std::process::Command;

use serde_json::json;
use tcpgw::record::{RecordFile, RecordHead};
use tcpgw_kernel::linux::Linux;

use super::{assert_holds, filler, held, is, leftovers};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::{Ran, TCPGW};
use crate::retire::open;

/// Returns the largest number of bytes that root of a user namespace can send at once.
fn most_bytes() -> usize {
    let limit = fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a sysctl");
    limit.trim().parse::<usize>().expect("a number") * 2
}

/// Root of a user namespace, to which the system's limits apply, can load what its buffer holds, and is told which setting to
/// raise.
#[test]
fn root_of_a_user_namespace_loads_what_its_buffer_holds_and_is_told_what_to_raise() {
    let net = Net::new();
    let few = net.state_file("few.json", state(filler(2000, 50)));
    // About 300 bytes an element with its share of everything.
    let services = u16::try_from((most_bytes() / 1000).min(60_000)).expect("16 bits");
    let many = net.state_file("many.json", state(filler(2000, services)));
    let script = format!(
        "{TCPGW} apply -q {few} && nft list table inet tcpgw | cksum && {TCPGW} apply -q {many}; echo exit $? && \
         nft list table inet tcpgw | cksum && {TCPGW} diff -q {few} && echo equal"
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["-Urn", "sh", "-c", &script]).envs(net.environment());
    let output = unshare.output().expect("unshare runs");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let lines: Vec<&str> = stdout.lines().collect();
    let &[before, code, after, equal] = &lines[..] else {
        panic!("{stdout}{stderr}")
    };
    assert_eq!((before, code, equal), (after, "exit 1", "equal"), "{stderr}");
    let error = stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .expect("an error");
    eprintln!("{services} services: {error}");
    assert!(
        error.contains("raise net.core.wmem_max to ") && error.contains("CAP_NET_ADMIN"),
        "{error}"
    );
    let least: usize = error
        .split("wmem_max to ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("a number")
        .parse()
        .expect("a number");
    assert!(least * 2 > most_bytes(), "{error}");
}

/// Buffers that stay small are no problem until a transaction does not fit: strace makes the calls that set them do nothing.
#[test]
fn buffers_that_stay_small_are_no_harm_until_a_transaction_does_not_fit() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let web = |host: &str| service("web", 8000, &[host], 3000, json!({"on_retire": "reset"}));
    net.apply(state([web("b1")]));
    // Without a record the providers of the services are unknown, and the services stay unless they are pruned.
    let tiny = |file: &str| -> Ran {
        net.forget();
        let before = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            "trace=setsockopt",
        ];
        let argv = [
            &before[..],
            &["-e", "inject=setsockopt:retval=0", TCPGW, "apply", "--prune", file],
        ]
        .concat();
        net.run("gateway", &argv)
    };
    let mut old: Vec<_> = (0..200).map(|_| open(&net, at(PUBLIC[0], 8000), "b1")).collect();
    // Some services: their table is read back by a socket whose buffer is the system's default.
    let some = [filler(10_000, 25), vec![web("b1")]].concat();
    let fits = state(some.iter().cloned());
    tiny(&net.state_file("fits.json", &fits)).exits(0);
    assert_holds(&net, &fits, "it fits");
    for conn in &mut old {
        conn.echo(b"on").expect("it goes on");
    }
    let big = state([filler(10_000, 1500), vec![web("b2")]].concat());
    let too_big = tiny(&net.state_file("big.json", &big)).exits(1);
    assert!(too_big.stderr.contains("raise net.core.wmem_max to "), "{too_big}");
    assert!(is(&held(&net), &fits), "{too_big}");
    for conn in &mut old {
        conn.echo(b"on").expect("it goes on");
    }
    let moved = state([web("b2")]);
    let output = tiny(&net.state_file("moved.json", &moved)).exits(0);
    assert!(output.stdout.contains("200 flows flushed"), "{output}");
    assert_holds(&net, &moved, "buffers stay small");
    net.apply(&big);
    assert_holds(&net, &big, "with buffers that grow");
}

/// A run with too little memory reports this or is ended, and leaves the kernel either as before or as wanted.
#[test]
fn too_little_memory_changes_nothing_or_all() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let before = state([service("web", 8000, &["b1"], 3000, json!({}))]);
    let after = state(
        [
            filler(10_000, 1500),
            vec![service("web", 8000, &["b1"], 3000, json!({}))],
        ]
        .concat(),
    );
    net.apply(&before);
    let mut conn = open(&net, at(PUBLIC[0], 8000), "b1");
    let file = net.state_file("after.json", &after);
    let (mut done, mut failed) = (0, 0);
    for megabytes in (8..48).step_by(2) {
        let limit = format!("--as={}", megabytes << 20);
        let ran = net.run("gateway", &["prlimit", &limit, TCPGW, "apply", &file]);
        conn.echo(b"on").expect("it goes on");
        let held = held(&net);
        if ran.status == 0 {
            assert!(is(&held, &after), "{megabytes} MiB: {ran}");
            done += 1;
            net.apply(&before);
        } else {
            assert!(is(&held, &before), "{megabytes} MiB: {ran}");
            // The run reports the lack, or the kernel ends it.
            assert!(ran.status > 128 || !ran.stderr.is_empty(), "{megabytes} MiB: {ran}");
            assert!(!ran.stderr.contains("panicked"), "{megabytes} MiB: {ran}");
            failed += 1;
        }
    }
    eprintln!("{done} with enough memory, {failed} with too little");
    assert!(failed >= 3, "{failed}");
    net.apply(&after);
    assert_holds(&net, &after, "without a limit");
}

/// Runs a command with the run directory on a file system of its own, which only the command sees.
fn with_run_dir(net: &Net, options: &str, prepare: &str, args: &str) -> Ran {
    let run = net.file("run");
    let run = run.to_string_lossy();
    let line = format!(
        "mount -t tmpfs -o {options} tmpfs {run} && {{ {prepare}; }} && TCPGW_RUN_DIR={run} {TCPGW} {args}; code=$?; \
         ls -s {run} >&2; exit $code"
    );
    net.run("gateway", &["unshare", "-m", "sh", "-c", &line])
}

#[test]
fn a_full_or_read_only_run_directory_is_said_and_harms_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let [before, after] = ["b1", "b2"].map(|host| {
        state(
            [
                filler(10_000, 200),
                vec![service("web", 8000, &[host], 3000, json!({}))],
            ]
            .concat(),
        )
    });
    net.apply(&before);
    let _old = open(&net, at(PUBLIC[0], 8000), "b1");
    let file = net.state_file("after.json", &after);
    let apply = format!("apply {file}");

    // There is no inode for the lock, and without the lock writing is refused.
    let refused = with_run_dir(&net, "size=16k,nr_inodes=1", "true", &apply).exits(1);
    assert!(
        refused.stderr.contains("error: failed to lock ") && refused.stderr.contains("No space left"),
        "{refused}"
    );
    assert!(is(&held(&net), &before));
    let refused = with_run_dir(&net, "ro", "true", &apply).exits(1);
    assert!(
        refused.stderr.contains("error: failed to lock ") && refused.stderr.contains("Read-only"),
        "{refused}"
    );
    assert!(is(&held(&net), &before));

    // Room for neither the record nor the holder's number.
    let stuff = format!(
        "dd if=/dev/zero of={}/stuff bs=4k status=none || true",
        net.file("run").to_string_lossy()
    );
    for prepare in ["true", &stuff] {
        net.apply(&before);
        let warned = with_run_dir(&net, "size=16k", prepare, &apply).exits(0);
        assert!(warned.stderr.contains("WARN failed to write the record"), "{warned}");
        assert!(
            !warned.stderr.contains(".new"),
            "what it could not finish is in the way: {warned}"
        );
        assert_holds(&net, &after, "without a record");
        let left = leftovers(&net, &after);
        assert!(left.is_empty(), "{left:?}");
        net.tcpgw(&["diff", &file]).exits(0);
    }
    net.apply(&after);
    net.tcpgw(&["diff", &file]).exits(0);
}

/// Change of a record's head.
type Change = fn(&mut RecordHead);

/// A record of another boot, namespace, generation, table, version or ruleset is not believed, and neither is a damaged one.
#[test]
fn a_record_of_something_else_is_not_believed() {
    let net = Net::new();
    let [here, there] = ["b1", "b2"].map(|host| state([service("web", 8000, &[host], 3000, json!({}))]));
    let file = net.state_file("here.json", &here);
    net.apply(&here);
    let cookie = net.within("gateway", || {
        Linux::open().expect("a socket").netns_cookie().expect("a cookie")
    });
    let store = RecordFile::new(&net.file("run"), cookie);
    let sound = store.load().expect("a record");
    let path = net.file("run").join(format!("netns-{cookie}.state"));
    // This ruleset is not in the kernel, and the record will say that it is.
    let lies = super::wanted(&there);
    let changed: [(&str, Change); 7] = [
        ("of another boot", |head| head.boot = "b00t".into()),
        ("of another boot that is not known", |head| head.boot = String::new()),
        ("of another namespace", |head| head.namespace += 1),
        ("of another generation", |head| head.generation += 1),
        ("of another table", |head| head.table += 1),
        ("of another version", |head| {
            head.program = head.program.replacen(env!("CARGO_PKG_VERSION"), "0.0.0", 1);
        }),
        ("of other rules", |head| {
            head.program = head
                .program
                .replace(&tcpgw_core::ruleset::skeleton::name(), "tcpgw skeleton 0");
        }),
    ];
    for (what, change) in changed {
        let mut head = sound.head.clone();
        change(&mut head);
        assert_ne!(head, sound.head, "{what}");
        store.save(&head, &lies).expect("a record can be written");
        assert_eq!(net.tcpgw(&["diff", &file]).exits(0).stdout, "", "{what}");
        net.apply(&there);
        assert_holds(&net, &there, what);
        net.apply(&here);
    }
    let bytes = fs::read(&path).expect("a record");
    let garbage: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("torn", bytes[..bytes.len() / 2].to_vec()),
        ("of zeros", vec![0; bytes.len()]),
        ("of something else", b"{\"version\": 1, \"services\": []}".repeat(1000)),
        ("with more behind it", [&bytes[..], b"x"].concat()),
    ];
    for (what, bytes) in garbage {
        fs::write(&path, bytes).expect("a record can be written");
        assert_eq!(net.tcpgw(&["diff", &file]).exits(0).stdout, "", "{what}");
        net.apply(&there);
        assert_holds(&net, &there, what);
        net.apply(&here);
    }
    fs::remove_file(&path).expect("a record");
    fs::create_dir(&path).expect("a directory can be made");
    let ran = net.apply(&there);
    assert!(ran.stderr.contains("failed to write the record"), "{ran}");
    assert_holds(&net, &there, "a directory in the way");
}
