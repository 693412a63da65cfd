//! The files in `examples/` are accepted by the program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

fn tcpgw(command: &str, state: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpgw"))
        .args([command, "--config", "examples/config.toml"])
        .arg(state)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("failed to run tcpgw")
}

fn assert_success(output: &Output, what: &Path) {
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {trouble}", what.to_string_lossy());
    assert!(trouble.is_empty(), "{}: {trouble}", what.to_string_lossy());
}

#[test]
fn every_state_is_accepted_and_rendered() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = directory.read_dir().expect("failed to list the examples");
    let states: Vec<_> = entries
        .map(|entry| entry.expect("failed to list the examples").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    assert!(states.len() >= 2, "{states:?}");
    for state in states {
        assert_success(&tcpgw("check", &state), &state);
        let rendered = tcpgw("render", &state);
        assert_success(&rendered, &state);
        assert!(String::from_utf8_lossy(&rendered.stdout).starts_with("table inet tcpgw\n"));
    }
}

#[test]
fn the_smallest_one_is_that_of_the_readme_and_of_the_tutorial() {
    for text in [include_str!("../README.md"), include_str!("../docs/tutorial.md")] {
        assert!(text.contains(include_str!("../examples/minimal.json").trim_end()));
    }
}

/// Returns the blocks of code in that language of the guide for developers of apps.
fn code(language: &str) -> Vec<String> {
    let guide = include_str!("../docs/guides/app-developer.md");
    let blocks = guide.split("```").skip(1).step_by(2);
    let of_language = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    of_language.map(String::from).collect()
}

/// A program that is killed when the value is dropped.
struct Program(Child);

impl Program {
    fn python(text: &str, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", text]).envs(variables.iter().cloned());
        Self(command.spawn().expect("failed to run python3"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_server_of_the_guide_serves_and_ends_at_sigterm() {
    let [server, _] = code("python").try_into().expect("a server and a client");
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("one")
        .port();
    let mut program = Program::python(&server, &[("PORT", port.to_string())]);
    let mut client = None;
    for _ in 0..500 {
        client = TcpStream::connect(("127.0.0.1", port)).ok();
        if client.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut client = client.expect("it listens");
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    client.write_all(b"ping\n").expect("it reads");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"ping\n");
    let pid = nix::unistd::Pid::from_raw(program.0.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    for _ in 0..500 {
        if program.0.try_wait().expect("a status").is_some() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("it does not end");
}

/// The guide's client connects again after connections that end or are refused, with growing pauses.
#[test]
fn the_client_of_the_guide_connects_again() {
    let [_, client] = code("python").try_into().expect("a server and a client");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let text = format!(
        "{client}\nFIRST = 0.1\nstay_connected('tcp://127.0.0.1:{port}', lambda connection: connection.sendall(b'hello'))\n"
    );
    let _program = Program::python(&text, &[]);
    for _ in 0..4 {
        let (mut stream, _) = listener.accept().expect("it comes");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it ends");
        assert_eq!(text, "hello");
    }
}
