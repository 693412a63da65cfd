//! `tcpgw addon check` with hostile or silent providers, and when it is interrupted.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{command, err, json, out, run, write};

/// Longest time to wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server that answers each request on a connection of its own by `answer`, which gets its first line. Returns the URL,
/// and the first lines.
fn provider(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, requests) = channel();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (answer, sender) = (std::sync::Arc::clone(&answer), sender.clone());
            thread::spawn(move || {
                let line = read_request(&stream).unwrap_or_default();
                let _ = sender.send(line.clone());
                answer(&line, &mut stream);
            });
        }
    });
    (url, requests)
}

/// Reads a whole request, and returns its first line.
fn read_request(stream: &TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    Ok(first.trim_end().to_owned())
}

fn reply(stream: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    drop(stream.write_all(text.as_bytes()));
}

fn login(dir: &Path) -> String {
    let path = write(
        dir,
        "login.toml",
        b"username = 'u'\npassword = 'secret-of-the-tests'\nsso_salt = 'salt-of-the-tests'",
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

fn scalingo<'w>(url: &'w str, login: &'w str, timeout: &'w str) -> Vec<&'w str> {
    let mut words = vec!["addon", "check", url, "--dialect", "scalingo", "--credentials", login];
    words.extend(["--plan", "small", "--other-plan", "large", "--timeout", timeout]);
    words
}

#[test]
fn a_provider_that_never_answers_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let login = login(dir.path());
    let (url, requests) = provider(|_, _| thread::sleep(PATIENCE));
    let output = run(&scalingo(&url, &login, "200ms"));
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        out(&output).contains("no complete answer within 0.2 s"),
        "{}",
        out(&output)
    );
    assert_eq!(requests.try_iter().count(), 3, "it gives up");
    assert!(
        out(&output).contains("did not answer 3 times in a row"),
        "{}",
        out(&output)
    );
}

/// A hostile provider cannot fill the memory, hold the command or write to the terminal: it answers slowly, without end, with a
/// head or a body that is too large, with nonsense, or with control characters.
#[test]
fn a_provider_that_means_harm_neither_fills_nor_holds_nor_commands() {
    let dir = tempfile::tempdir().expect("a directory");
    let login = login(dir.path());
    let endless = |head: &'static str, piece: &'static [u8], pause: u64| {
        move |_: &str, stream: &mut TcpStream| {
            drop(stream.write_all(head.as_bytes()));
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE && stream.write_all(piece).is_ok() {
                thread::sleep(Duration::from_millis(pause));
            }
        }
    };
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let providers: [(String, &str); 5] = [
        (provider(endless(ok, &[b' '; 8192], 0)).0, "more than 4 MiB"),
        (
            provider(endless("HTTP/1.1 200 OK\r\nx: ", &[b'a'; 4096], 0)).0,
            "the server ended the connection before its answer was complete",
        ),
        (provider(endless(ok, b" ", 20)).0, "no complete answer within"),
        (
            provider(endless("SSH-2.0-x\r\n", b"\0", 20)).0,
            "the server ended the connection before its answer was complete",
        ),
        (
            provider(|_, stream| drop(stream.shutdown(std::net::Shutdown::Both))).0,
            "the server ended the connection before its answer was complete",
        ),
    ];
    for (url, why) in providers {
        let begin = Instant::now();
        let output = run(&scalingo(&url, &login, "500ms"));
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(out(&output).contains(why), "{why}: {}", out(&output));
        assert!(begin.elapsed() < PATIENCE, "{why}");
    }
    let evil = r#"{"id": "../\u001b[2J", "message": "\u001b]0;title\u0007\u202e", "config": {"A_URL\u001b[2J": "tcp://h", "B": "password-of-an-app"}}"#;
    let (url, requests) = provider(move |line, stream| {
        let status = if line.starts_with("POST") { 201 } else { 500 };
        reply(stream, status, evil);
    });
    for output in [
        run(&scalingo(&url, &login, "5s")),
        run(&[&["-v"], scalingo(&url, &login, "5s").as_slice()].concat()),
        run(&[&["-o", "json"], scalingo(&url, &login, "5s").as_slice()].concat()),
    ] {
        let printed = out(&output) + &err(&output);
        assert!(
            !printed.contains('\u{1b}') && !printed.contains('\u{7}') && !printed.contains('\u{202e}'),
            "{printed}"
        );
        for secret in ["password-of-an-app", "secret-of-the-tests", "salt-of-the-tests"] {
            assert!(!printed.contains(secret), "{secret}: {printed}");
        }
        assert!(err(&output).contains("may be left at the provider"), "{}", err(&output));
    }
    // An id is a segment of a path, and no path.
    let lines: Vec<String> = requests.try_iter().collect();
    assert!(
        lines.iter().any(|line| line.starts_with("DELETE /..%2F%1B%5B2J HTTP")),
        "{lines:?}"
    );
}

fn interrupted(url: &str, login: &str) -> Child {
    let mut command = command(&scalingo(url, login, "30s"));
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id fits");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

#[track_caller]
fn wait_for(requests: &Receiver<String>, beginning: &str) {
    loop {
        let line = requests.recv_timeout(PATIENCE).expect("a request");
        if line.starts_with(beginning) {
            return;
        }
    }
}

#[test]
fn an_interrupted_check_removes_what_it_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let login = login(dir.path());
    for (signal, code) in [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (url, requests) = provider(|line, stream| match line.split(' ').next() {
            Some("POST") if line.starts_with("POST / ") => reply(stream, 201, r#"{"id": "made"}"#),
            Some("DELETE") => reply(stream, 204, ""),
            _ => thread::sleep(PATIENCE),
        });
        let child = interrupted(&url, &login);
        wait_for(&requests, "PUT /made");
        send(&child, signal);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
        assert!(err(&output).contains("interrupted"), "{}", err(&output));
        assert!(!err(&output).contains("may be left"), "{}", err(&output));
        assert!(out(&output).contains("SKIP  deprovision "), "{}", out(&output));
        let removed = requests
            .try_iter()
            .filter(|line| line.starts_with("DELETE /made "))
            .count();
        assert!(removed >= 1, "{}", out(&output));
    }
}

#[test]
fn whoever_interrupts_twice_is_told_what_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let login = login(dir.path());
    let (url, requests) = provider(|line, stream| match line.split(' ').next() {
        Some("POST") => reply(stream, 201, r#"{"id": "made"}"#),
        _ => thread::sleep(PATIENCE),
    });
    let child = interrupted(&url, &login);
    wait_for(&requests, "PUT /made");
    send(&child, Signal::SIGINT);
    wait_for(&requests, "DELETE /made");
    send(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(
        err(&output).contains("may be left at the provider: resource made of app"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("DELETE BASE/made"), "{}", err(&output));
}

#[test]
fn what_cannot_be_used_is_told_before_anything_is_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let login = login(dir.path());
    let (url, requests) = provider(|_, stream| reply(stream, 500, "{}"));
    let open = write(dir.path(), "open.toml", b"username = 'u'\npassword = 'p'");
    let text = write(dir.path(), "text", b"no JSON");
    let list = write(dir.path(), "list.json", b"[]");
    let more: [(&[&str], &str); 8] = [
        (&["--credentials", &open], "chmod 600"),
        (&["--credentials", "/nowhere"], "--credentials /nowhere"),
        (&["--manifest", &text], "is not JSON"),
        (&["--parameters", &list], "a JSON object"),
        (&["--cacert", &text], "PEM"),
        (&["--sso-url", "https://u:p@example.com"], "must not have a user name"),
        (&["--plan", "a", "--other-plan", "a"], "the same plan"),
        (&[], "no plan is known"),
    ];
    for (options, why) in more {
        let mut words = vec!["addon", "check", &url, "--dialect", "heroku"];
        if options.first() != Some(&"--credentials") {
            words.extend(["--credentials", &login]);
        }
        if !why.contains("plan") {
            words.extend(["--plan", "small"]);
        }
        words.extend(options);
        let output = run(&words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", err(&output));
        assert!(err(&output).contains(why), "{why}: {}", err(&output));
    }
    for url in ["example.com", "https://u:p@example.com/", "http://127.0.0.1/?a=b"] {
        let output = run(&["addon", "check", url, "--dialect", "osb", "--credentials", &login]);
        assert_eq!(output.status.code(), Some(2), "{url}: {}", err(&output));
        assert!(err(&output).contains("error: URL: must"), "{}", err(&output));
    }
    assert_eq!(requests.try_iter().count(), 0);
    // A plan that the catalog does not have: nothing is provisioned, and that is no success.
    let catalog = r#"{"services": [{"id": "a", "name": "b", "description": "c", "bindable": false, "plans": [{"id": "d", "name": "e", "description": "f"}]}]}"#;
    let (url, _requests) = provider(move |_, stream| reply(stream, 200, catalog));
    let words = [
        "addon",
        "check",
        &url,
        "--dialect",
        "osb",
        "--credentials",
        &login,
        "--plan",
        "huge",
    ];
    let output = run(&[&["-o", "json"], &words[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("nothing was provisioned"), "{}", err(&output));
    assert_eq!(json(&output)["left"], serde_json::json!([]));
}
