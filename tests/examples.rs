//! What `examples/` shows is what the program accepts.

use std::path::Path;
use std::process::{Command, Output};

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
fn the_smallest_one_is_that_of_the_readme() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(include_str!("../examples/minimal.json").trim_end()));
}
