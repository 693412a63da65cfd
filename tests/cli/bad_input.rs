//! Input that is wrong, unreadable or far too large.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::{GOOD, command, command_with_config, err, out, run, run_with, through, unprivileged, write};

/// Input with one error, and parts of the expected message: a place, and the accepted values.
const BAD: &[(&str, &str, &[&str])] = &[
    ("empty", "", &["document: is empty"]),
    ("blank", " \n\t ", &["document: is empty"]),
    (
        "truncated",
        r#"{"version":1,"services":[{"name":"a","po"#,
        &["line 1 column"],
    ),
    ("two-documents", r#"{"version":1,"services":[]} {}"#, &["line 1 column"]),
    ("nul-bytes", "\0\0\0\0", &["line 1 column 1"]),
    (
        "nul-in-a-name",
        r#"{"version":1,"services":[{"name":"a\u0000b","port":20003,"backends":[]}]}"#,
        &["services[0].name"],
    ),
    ("raw-nul", "{\"version\":1,\"services\":[]\0}", &["line 1 column"]),
    (
        "byte-order-mark",
        "\u{feff}{\"version\":1,\"services\":[]}",
        &["byte order mark"],
    ),
    ("list", "[]", &["document: must be an object"]),
    ("null", "null", &["document: must be an object"]),
    ("no-version", r#"{"services":[]}"#, &["version"]),
    ("next-version", r#"{"version":2,"services":[]}"#, &["version"]),
    ("no-services", r#"{"version":1}"#, &["services"]),
    (
        "unknown-field",
        r#"{"version":1,"services":[],"servces":[]}"#,
        &["servces"],
    ),
    (
        "duplicate-key",
        r#"{"version":1,"services":[],"services":[]}"#,
        &["services"],
    ),
];

/// Value of one member of a service, and parts of the expected message.
const BAD_MEMBERS: &[(&str, &str, &[&str])] = &[
    ("port", "\"20003\"", &["services[0].port"]),
    ("port", "0", &["services[0].port", "65535"]),
    ("port", "65536", &["services[0].port", "65535"]),
    ("port", "-1", &["services[0].port", "65535"]),
    ("port", "1e3", &["services[0].port"]),
    ("port", "99999999999999999999999999999999", &["services[0].port"]),
    ("port", "null", &["services[0].port"]),
    ("name", "\"\"", &["services[0].name"]),
    ("name", "\"A\"", &["services[0].name"]),
    ("name", "\"\\u001b[31m\"", &["services[0].name"]),
    ("backends", "[\"10.2.0.11\"]", &["services[0].backends[0]"]),
    ("backends", "[\"10.2.0.11:0\"]", &["services[0].backends[0]"]),
    ("backends", "[\"10.2.0.11:65536\"]", &["services[0].backends[0]"]),
    (
        "backends",
        "[\"[::ffff:10.2.0.11]:3000\"]",
        &["services[0].backends[0]", "IPv4"],
    ),
    ("backends", "[\"[fe80::1%eth0]:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"[fd00::1%eth0]:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"localhost:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"db.example.org:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"010.2.0.11:3000\"]", &["services[0].backends[0]"]),
    (
        "backends",
        "[\"127.0.0.1:3000\"]",
        &["services[0].backends[0]", "loopback"],
    ),
    ("backends", "[\"[::1]:3000\"]", &["services[0].backends[0]", "loopback"]),
    (
        "backends",
        "[\"169.254.169.254:80\"]",
        &["services[0].backends[0]", "link-local"],
    ),
    (
        "backends",
        "[\"224.0.0.1:80\"]",
        &["services[0].backends[0]", "multicast"],
    ),
    (
        "backends",
        "[\"0.0.0.0:80\"]",
        &["services[0].backends[0]", "unspecified"],
    ),
    (
        "backends",
        "[\"255.255.255.255:80\"]",
        &["services[0].backends[0]", "broadcast"],
    ),
    (
        "backends",
        "[\"10.2.0.11:1\",\"10.2.0.11:1\"]",
        &["services[0].backends[1]"],
    ),
    ("backends", "{}", &["services[0].backends"]),
    (
        "backends",
        "[{\"address\":\"10.2.0.11\",\"port\":1,\"weight\":0}]",
        &["services[0].backends[0].weight", "256"],
    ),
    (
        "backends",
        "[{\"address\":\"10.2.0.11\",\"port\":1,\"weight\":257}]",
        &["services[0].backends[0].weight", "256"],
    ),
    (
        "backends",
        "[{\"address\":\"10.2.0.11\",\"port\":1,\"state\":\"up\"}]",
        &["services[0].backends[0].state", "draining"],
    ),
    ("limit", "{\"pps\":\"1000\"}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":0}", &["services[0].limit.pps", "1000000"]),
    ("limit", "{\"pps\":1000001}", &["services[0].limit.pps", "1000000"]),
    ("limit", "{\"pps\":-1}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1e99}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1,\"pps\":2}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1,\"burst\":0}", &["services[0].limit.burst"]),
    ("limit", "1000", &["services[0].limit"]),
    ("addresses", "[\"gateway\"]", &["services[0].addresses[0]"]),
    ("addresses", "[\"::ffff:203.0.113.1\"]", &["services[0].addresses[0]"]),
    ("addresses", "[\"fe80::1%eth0\"]", &["services[0].addresses[0]"]),
    ("allow", "[\"10.0.0.0/33\"]", &["services[0].allow[0]"]),
    ("deny", "[\"everyone\"]", &["services[0].deny[0]"]),
    ("balance", "\"fair\"", &["services[0].balance", "source-hash"]),
    (
        "source_addresses",
        "[]",
        &["services[0].source_addresses", "masquerade"],
    ),
    (
        "source_addresses",
        "[\"10.2.0.1\",\"10.2.0.1\"]",
        &["services[0].source_addresses[1]", "twice"],
    ),
    (
        "source_addresses",
        "[\"127.0.0.1\"]",
        &["services[0].source_addresses[0]", "loopback"],
    ),
    (
        "source_addresses",
        "[\"10.2.0.1\"],\"source\":\"preserve\"",
        &["services[0].source_addresses", "preserve"],
    ),
    ("drain_timeout", "30", &["services[0].drain_timeout"]),
    ("drain_timeout", "\"-1s\"", &["services[0].drain_timeout"]),
];

#[test]
fn bad_input_is_named_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text, said) in bad() {
        let file = write(dir.path(), "state.json", text.as_bytes());
        for command in ["check", "render"] {
            assert_refused(&run(&[command, &file]), &file, said, &name);
            assert_refused(&run_with(&[command, "-"], text.as_bytes()), "<stdin>", said, &name);
        }
    }
}

#[test]
fn every_error_is_listed_not_the_first() {
    let text = r#"{"version":1,"extra":1,"services":[
        {"name":"A","port":0,"backends":["x"],"limit":{"pps":0,"mtu":"1"},"frobnicate":1},
        {"name":"b","port":20003,"backends":["10.2.0.11:1"]},
        {"name":"b","port":20003,"backends":["10.2.0.11:1"],"limit":{"pps":5}}]}"#;
    let output = run_with(&["check"], text.as_bytes());
    assert_eq!(output.status.code(), Some(2));
    let printed = err(&output);
    for place in [
        "extra:",
        "services[0].name:",
        "services[0].port:",
        "services[0].backends[0]:",
        "services[0].limit.pps:",
        "services[0].limit.mtu:",
        "services[0].frobnicate:",
        "services[2].name:",
        "services[2].port:",
        "services[2].backends[0]:",
    ] {
        assert_eq!(
            printed.matches(&format!("error: <stdin>: {place} ")).count(),
            1,
            "{place}\n{printed}"
        );
    }
    assert_eq!(printed.lines().count(), 10, "{printed}");

    let many = format!(r#"{{"version":1,"services":[{}{{}}]}}"#, "{},".repeat(999));
    let stderr = err(&run_with(&["check"], many.as_bytes()));
    assert!(
        stderr.ends_with("error: <stdin>: and 2900 more\n") && stderr.lines().count() == 101,
        "{stderr}"
    );
}

/// Largest address space, in KiB: input has at most 64 MiB, and a tree of it would take many times that.
const ADDRESS_SPACE: u32 = 200 << 10;

#[test]
fn garbage_of_any_size_takes_bounded_memory() {
    const LARGE: usize = 100 << 20;
    // A tree of as much would be more than there is room for.
    const READ: usize = 12 << 20;
    const SOME: usize = 1 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.json");
    let file = path.to_str().expect("temporary paths are text");
    let of = |unit: &str, size: usize| unit.repeat(size / unit.len());
    let service = |member: &str| format!(r#"{{"version":1,"services":[{{{member}"#);
    for (start, unit, size, said) in [
        (String::new(), "\0", LARGE, "is larger than 64 MiB"),
        (String::new(), "garbage ", LARGE, "is larger than 64 MiB"),
        (String::new(), "[", READ, "line 1 column"),
        (String::new(), "{\"a\":", SOME, "line 1 column"),
        (String::new(), " ", SOME, "is empty"),
        (String::new(), "1", SOME, "line 1 column"),
        (String::new(), "\"\\u0041", SOME, "line 1 column"),
        (service(r#""labels":{"a":"#), "[", READ, "line 1 column"),
        (service(r#""backends":["#), "0,", READ, "values in one service"),
        (service(r#""name":""#), "a", SOME, "EOF"),
        (r#"{"version":1,"services":["#.into(), "{},", SOME, "line 1 column"),
        (r#"{"version":1,"services":["#.into(), "[[],{}],", SOME, "line 1 column"),
        (r#"{"version":1"#.into(), r#","a":0"#, SOME, "line 1 column"),
    ] {
        fs::write(&path, start.clone() + &of(unit, size)).expect("a file can be written");
        let what = format!("{start}{unit}...");
        for (name, from) in [(file, None), ("-", Some(File::open(&path).expect("the file")))] {
            let mut command = bounded(&["check", name]);
            if let Some(from) = from {
                command.stdin(from);
            }
            let output = command.output().expect("the program runs");
            let printed = err(&output);
            assert_eq!(output.status.code(), Some(2), "{what}: {printed}");
            assert!(printed.contains(said), "{what}: {printed}");
            assert!(printed.len() < 30_000, "{what}: {} bytes of errors", printed.len());
        }
    }
    let zero = File::open("/dev/zero").expect("a device");
    let endless = bounded(&["check", "-"]).stdin(zero).output().expect("the program runs");
    assert_eq!(endless.status.code(), Some(2));
    assert!(err(&endless).contains("-: is larger than 64 MiB"), "{}", err(&endless));
}

#[test]
fn what_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.json");
    let missing = missing.to_str().expect("text");
    let directory = dir.path().to_str().expect("text");
    let secret = write(dir.path(), "secret.json", GOOD.as_bytes());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("the file is ours");
    for command in ["check", "render", "diff", "apply"] {
        for (file, said) in [
            (missing, "no such file"),
            (directory, "is a directory"),
            (&secret, "Permission denied"),
        ] {
            let output = unprivileged(&[command, file]).output().expect("the program runs");
            assert_eq!(output.status.code(), Some(2), "{command} {file}: {}", err(&output));
            let printed = err(&output);
            assert!(
                printed.starts_with(&format!("error: {file}: ")) && printed.contains(said),
                "{printed}"
            );
            assert_eq!(printed.lines().count(), 1, "{printed}");
        }
        let output = command_with_config(missing, &[command, &secret])
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(2));
        assert!(
            err(&output).contains(&format!("configuration: {missing}: no such file")),
            "{}",
            err(&output)
        );
    }
    let config = write(dir.path(), "config.toml", b"[fences]\nport = 1\n");
    let output = command_with_config(&config, &["check"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("line 2, column 1") && err(&output).contains("unknown field `port`"),
        "{}",
        err(&output)
    );
}

#[track_caller]
fn assert_refused(output: &Output, file: &str, said: &[&str], name: &str) {
    let printed = err(output);
    assert_eq!(output.status.code(), Some(2), "{name}: {printed}");
    assert_eq!(out(output), "", "{name}");
    assert!(printed.starts_with(&format!("error: {file}: ")), "{name}: {printed}");
    assert_eq!(printed.lines().count(), 1, "{name}: {printed}");
    assert!(
        printed.trim_end().chars().all(|c| !c.is_control()),
        "{name}: {printed:?}"
    );
    for part in said {
        assert!(printed.contains(part), "{name}: {part} is not in {printed}");
    }
}

fn bad() -> Vec<(String, String, &'static [&'static str])> {
    let documents = BAD
        .iter()
        .map(|(name, text, said)| ((*name).to_owned(), (*text).to_owned(), *said));
    let members = BAD_MEMBERS.iter().map(|(member, value, said)| {
        let others = [("name", "\"a\""), ("port", "20003"), ("backends", "[]")];
        let others = others
            .iter()
            .filter(|(other, _)| other != member)
            .map(|(other, value)| format!(",\"{other}\":{value}"));
        let text = format!(
            "{{\"version\":1,\"services\":[{{\"{member}\":{value}{}}}]}}",
            others.collect::<String>()
        );
        (format!("{member} {value}"), text, *said)
    });
    documents.chain(members).collect()
}

/// Returns a command that runs with at most `ADDRESS_SPACE` of address space.
fn bounded(args: &[&str]) -> Command {
    through(
        &["sh", "-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\""), "sh"],
        args,
    )
}

/// Runs it with a bound, as what waits for a pipe would not end.
fn ends(command: &mut std::process::Command) -> std::process::Output {
    let mut bounded = std::process::Command::new("timeout");
    bounded.args(["10"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program runs")
}

#[test]
fn a_configuration_that_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = write(dir.path(), "good.json", GOOD.as_bytes());
    let pipe = dir.path().join("config.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let pipe = pipe.to_str().expect("text");
    for command in ["check", "render", "diff", "apply"] {
        let output = ends(&mut command_with_config(pipe, &[command, &good]));
        assert_eq!(output.status.code(), Some(2), "{command}: {}", err(&output));
        assert!(err(&output).contains("config.toml: is a pipe"), "{}", err(&output));
    }
}

/// Name with a line break and the text of a forged error message.
const FORGED: &str = "x\u{1b}[2J\nerror: forged";

#[test]
fn what_was_given_forges_no_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = write(dir.path(), "config.toml", b"\"a\\nerror: forged\" = 1\n[fences]\n");
    let good = write(dir.path(), "good.json", GOOD.as_bytes());
    let with = |name: &str, args: &[&str]| {
        let mut command = command(args);
        command.env(name, FORGED);
        command
    };
    let cases = [
        command(&[FORGED]),
        command(&["who", FORGED]),
        command(&["deploy", "web", "--target", FORGED]),
        command(&["status", "--interval", FORGED]),
        command(&["status", &format!("--{FORGED}")]),
        command(&["status", &format!("--interval={FORGED}")]),
        command(&["check", &good, FORGED]),
        command(&["apply", &format!("--drain={FORGED}")]),
        with("TCPGW_MAX_PROBES", &["daemon"]),
        command_with_config(&config, &["check", &good]),
    ];
    for mut command in cases {
        let output = command.output().expect("the program runs");
        let printed = err(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {printed}");
        let errors = printed.lines().filter(|line| line.contains("error: forged")).count();
        assert_eq!(
            errors,
            printed.matches(r"\nerror: forged").count(),
            "{command:?}: {printed}"
        );
        assert!(errors > 0 && printed.starts_with("error: "), "{command:?}: {printed}");
        assert!(
            !printed.lines().any(|line| line.starts_with("error: forged")),
            "{printed}"
        );
        assert!(
            !printed.contains("error: error:") && !printed.contains('\u{1b}'),
            "{printed:?}"
        );
    }
    let help = with("TCPGW_STATE", &["daemon", "--help"])
        .output()
        .expect("the program runs");
    assert_eq!(help.status.code(), Some(0));
    assert!(
        !out(&help).lines().any(|line| line.starts_with("error:")),
        "{}",
        out(&help)
    );
    assert!(!out(&help).contains('\u{1b}'), "{:?}", out(&help));
}

#[test]
fn a_fifo_is_no_state_and_a_pipe_of_the_shell_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    let path = fifo.to_str().expect("temporary paths are text");
    for verb in ["check", "render", "diff", "apply"] {
        let output = ends(&mut command(&[verb, path]));
        assert_refused(&output, path, &["is a FIFO", "standard input"], verb);
    }
    let good = write(dir.path(), "good.json", GOOD.as_bytes());
    let script = format!("cat {good} | \"$0\" check /dev/stdin");
    let output = ends(&mut through(&["sh", "-c", &script], &[]));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn a_port_that_the_fences_do_not_allow_is_told_by_its_option() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.toml");
    fs::write(&config, "[fences]\nports = [\"2000-3000\"]\n").expect("a file");
    let config = config.to_str().expect("UTF-8");
    let none = directory.path().join("none");
    let none = none.to_str().expect("UTF-8");
    for (config, port, is_refused) in [
        ("/dev/null", "80", true),
        ("/dev/null", "1883", false),
        (config, "1883", true),
        (config, "2500", false),
    ] {
        // Nothing is begun: there is no Procfile.
        let output = command_with_config(config, &["up", "--port", port, "--procfile", none]).output();
        let output = output.expect("it runs");
        let printed = err(&output);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert_eq!(printed.contains(&format!("--port {port}: ")), is_refused, "{printed}");
        assert_eq!(printed.contains("fences.ports"), is_refused, "{printed}");
    }
}

/// A daemon that cannot begin ends although the program that collects its log hangs.
#[test]
fn a_daemon_that_cannot_begin_ends_though_nobody_reads_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let bad = write(dir.path(), "config.toml", b"[daemon]\nmax_probe = 1\n");
    let missing = dir.path().join("none").to_str().expect("text").to_owned();
    let (reader, mut writer) = io::pipe().expect("a pipe");
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    writer.write_all(&[b'x'; 4096]).expect("room for this");
    for args in [
        &["--config", &bad, "daemon"][..],
        &["--config", &missing, "daemon"],
        &["--config", &bad, "-o", "json", "daemon"],
        &["daemon", "--max-probes", "many"],
        &["daemon", "--no-such-option"],
    ] {
        let mut command = command_with_config("", args);
        let to = |writer: &io::PipeWriter| writer.try_clone().expect("one more");
        let mut child = command
            .stdout(to(&writer))
            .stderr(to(&writer))
            .spawn()
            .expect("it runs");
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if begin.elapsed() > Duration::from_secs(30) {
                child.kill().expect("it is ours");
                child.wait().expect("it ends");
                panic!("{args:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
    drop(reader);
}
