//! The program as a user without privilege sees it: bad input, exit codes, streams.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TCPGW: &str = env!("CARGO_BIN_EXE_tcpgw");
const GOOD: &str = r#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

/// Input that is wrong in one way, and what must be said about it: a place and what is accepted.
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

/// A value of one member of a service, and what must be said about it.
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
        {"name":"b","port":20003,"backends":["10.2.0.11:1"]}]}"#;
    let output = run_with(&["check"], text.as_bytes());
    assert_eq!(output.status.code(), Some(2));
    let said = err(&output);
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
            said.matches(&format!("error: <stdin>: {place} ")).count(),
            1,
            "{place}\n{said}"
        );
    }
    assert_eq!(said.lines().count(), 10, "{said}");

    let many = format!(r#"{{"version":1,"services":[{}{{}}]}}"#, "{},".repeat(999));
    let said = err(&run_with(&["check"], many.as_bytes()));
    assert!(
        said.ends_with("error: <stdin>: and 2900 more\n") && said.lines().count() == 101,
        "{said}"
    );
}

#[test]
fn scripts_get_errors_as_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(
        dir.path(),
        "state.json",
        br#"{"version":1,"services":[{"name":"a","port":0,"backends":[]}]}"#,
    );
    let output = run(&["check", "-o", "json", &file]);
    assert_eq!(output.status.code(), Some(2));
    let told = json(&output);
    assert_eq!(told["file"], *file);
    assert_eq!(told["errors"]["more"], 0);
    let problem = &told["errors"]["problems"][0];
    assert_eq!(problem["place"], "services[0].port");
    assert_eq!(problem["message"], "must be a number from 1 to 65535, not 0");

    let output = run_with(&["check", "-o", "json"], GOOD.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let told = json(&output);
    let wanted = serde_json::json!({
        "services": 1, "backends": 1, "warnings": [], "errors": {"problems": [], "more": 0}
    });
    assert_eq!(told, wanted);
}

#[test]
fn a_good_state_is_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(dir.path(), "state.json", GOOD.as_bytes());
    for output in [
        run(&["check", &file]),
        run_with(&["check", "-"], GOOD.as_bytes()),
        run_with(&["check"], GOOD.as_bytes()),
    ] {
        assert_eq!(
            (output.status.code(), out(&output), err(&output)),
            (Some(0), "ok: 1 service, 1 backend\n".into(), String::new())
        );
    }
    let quiet = run(&["check", "-q", &file]);
    assert_eq!((quiet.status.code(), out(&quiet)), (Some(0), String::new()));
    assert_eq!(
        out(&run(&["render", &file])),
        out(&run_with(&["render"], GOOD.as_bytes()))
    );
    let warned = GOOD.replace("}]}", r#","limit":{"pps":1000000}}]}"#);
    let output = run_with(&["check", "-o", "json"], warned.as_bytes());
    assert_eq!(json(&output)["warnings"].as_array().map(Vec::len), Some(1));
    assert!(err(&output).starts_with("warning: "), "{}", err(&output));
}

/// Peak memory, in KiB of address space: what is read is at most 64 MiB, and a tree of it would be many times that.
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
            let told = err(&output);
            assert_eq!(output.status.code(), Some(2), "{what}: {told}");
            assert!(told.contains(said), "{what}: {told}");
            assert!(told.len() < 30_000, "{what}: {} bytes of errors", told.len());
        }
    }
    let endless = bounded(&["check", "/dev/zero"]).output().expect("the program runs");
    assert_eq!(endless.status.code(), Some(2));
    assert!(
        err(&endless).contains("/dev/zero: is larger than 64 MiB"),
        "{}",
        err(&endless)
    );
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
            let told = err(&output);
            assert!(
                told.starts_with(&format!("error: {file}: ")) && told.contains(said),
                "{told}"
            );
            assert_eq!(told.lines().count(), 1, "{told}");
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

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["check", "--frobnicate"],
        &["check", "a", "b"],
        &["check", "-o", "yaml"],
        &["check", "-q", "-v"],
        &["apply", "--drain", "soon"],
        &["apply", "--lock-timeout", "10"],
        &["apply", "--drain", "-1s"],
        &["completions"],
        &["completions", "tcsh"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!err(&output).is_empty() && out(&output).is_empty(), "{args:?}");
    }
    for args in [
        &["--version"][..],
        &["--help"],
        &["help"],
        &["apply", "--help"],
        &["help", "diff"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(err(&output).is_empty() && !out(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn completions_are_shell_programs() {
    for (shell, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish -n")] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = out(&output);
        for word in ["teardown", "allow-empty", "lock-timeout"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if !is_installed(shell) {
            eprintln!("no {shell} here: its completions were not run");
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = write(dir.path(), "completions", script.as_bytes());
        let checked = Command::new("sh")
            .args(["-c", &format!("{check} {file}")])
            .output()
            .expect("a shell");
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{shell}: {}",
            err(&checked)
        );
    }
}

#[test]
fn the_manual_page_is_one() {
    let output = run(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = out(&output);
    for word in [".TH", "EXIT STATUS", "TCPGW APPLY", "lock", "FILES"] {
        assert!(page.contains(word), "{word}");
    }
    if !is_installed("man") {
        eprintln!("no man here: the page was not formatted");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(dir.path(), "tcpgw.1", page.as_bytes());
    let formatted = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", &file])
        .env("MANPAGER", "cat")
        .output()
        .expect("man runs");
    assert!(
        formatted.status.success() && formatted.stderr.is_empty(),
        "{}",
        err(&formatted)
    );
    assert!(out(&formatted).contains("--allow-empty"), "{}", out(&formatted));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    if !is_installed("script") {
        eprintln!("no script(1) here: not tried on a terminal");
        return;
    }
    let on_terminal = |prefix: &str, args: &str| {
        let line = format!("{prefix} {TCPGW} {args} check /nonexistent");
        let output = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .output();
        let output = output.expect("script runs");
        assert_eq!(output.status.code(), Some(2));
        assert!(out(&output).contains("/nonexistent: no such file"), "{}", out(&output));
        out(&output).contains('\u{1b}')
    };
    assert!(on_terminal("", ""));
    assert!(on_terminal("NO_COLOR=", ""));
    assert!(!on_terminal("NO_COLOR=1", ""));
    assert!(!on_terminal("", "--no-color"));
    assert!(!err(&run(&["check", "/nonexistent"])).contains('\u{1b}'));
}

#[test]
fn who_reads_one_line_and_leaves_is_no_error() {
    let services: Vec<String> = (0..5000)
        .map(|i| {
            format!(
                r#"{{"name":"s{i}","port":{},"backends":["10.0.{}.{}:1"]}}"#,
                2000 + i,
                i / 250,
                i % 250 + 1
            )
        })
        .collect();
    let text = format!(r#"{{"version":1,"services":[{}]}}"#, services.join(","));
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(dir.path(), "state.json", text.as_bytes());
    for args in [&["render", file.as_str()][..], &["completions", "bash"], &["man"]] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        let mut stdout = BufReader::with_capacity(16, child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        let ended = child.wait_with_output().expect("it ends");
        assert!(matches!(ended.status.code(), Some(0 | 1)), "{args:?}: {}", ended.status);
        assert_eq!(err(&ended), "", "{args:?}");
    }
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let ended = command(&["render", &file])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output);
    let ended = ended.expect("the program runs");
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        err(&ended).contains("failed to write to standard output: No space left"),
        "{}",
        err(&ended)
    );
}

#[track_caller]
fn assert_refused(output: &Output, file: &str, said: &[&str], name: &str) {
    let told = err(output);
    assert_eq!(output.status.code(), Some(2), "{name}: {told}");
    assert_eq!(out(output), "", "{name}");
    assert!(told.starts_with(&format!("error: {file}: ")), "{name}: {told}");
    assert_eq!(told.lines().count(), 1, "{name}: {told}");
    assert!(told.trim_end().chars().all(|c| !c.is_control()), "{name}: {told:?}");
    for part in said {
        assert!(told.contains(part), "{name}: {part} is not in {told}");
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

fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("a file can be written");
    path.to_str().expect("temporary paths are text").to_owned()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(TCPGW);
    command
        .args(args)
        .env("TCPGW_CONFIG", "/dev/null")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn command_with_config(config: &str, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("TCPGW_CONFIG", config);
    command
}

/// With so much address space and no more.
fn bounded(args: &[&str]) -> Command {
    through(
        &["sh", "-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\""), "sh"],
        args,
    )
}

/// As one who may not read what the mode of a file forbids.
fn unprivileged(args: &[&str]) -> Command {
    if nix::unistd::geteuid().is_root() {
        through(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"], args)
    } else {
        command(args)
    }
}

fn through(program: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(TCPGW)
        .args(args)
        .env("TCPGW_CONFIG", "/dev/null")
        .stdin(Stdio::null());
    command
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the program runs")
}

fn run_with(args: &[&str], input: &[u8]) -> Output {
    let mut command = command(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // Who does not read all of its input is not at fault.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("it ends")
    })
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|e| panic!("{e}: {}", out(output)))
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
