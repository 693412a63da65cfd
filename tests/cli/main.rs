//! The program as a user without privilege sees it.

mod addon_check;
mod bad_input;
mod files_of_others;
mod installed;
mod links;
mod output;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TCPGW: &str = env!("CARGO_BIN_EXE_tcpgw");
const GOOD: &str = r#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("a file can be written");
    path.to_str().expect("temporary paths are text").to_owned()
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(TCPGW);
    command
        .args(args)
        .env("TCPGW_CONFIG", "/dev/null")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

pub(crate) fn command_with_config(config: &str, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("TCPGW_CONFIG", config);
    command
}

/// Returns a command without the privilege to read files whose mode forbids it.
pub(crate) fn unprivileged(args: &[&str]) -> Command {
    if nix::unistd::geteuid().is_root() {
        through(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"], args)
    } else {
        command(args)
    }
}

pub(crate) fn through(program: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(TCPGW)
        .args(args)
        .env("TCPGW_CONFIG", "/dev/null")
        .stdin(Stdio::null());
    command
}

pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

pub(crate) fn run(args: &[&str]) -> Output {
    command(args).output().expect("the program runs")
}

pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Output {
    let mut command = command(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A program that does not read all of its input is not at fault.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("it ends")
    })
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|e| panic!("{e}: {}", out(output)))
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
