//! Output of commands for terminals and for scripts, and exit codes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{GOOD, TCPGW, command, err, is_installed, json, out, run, run_with, write};

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
    let printed = json(&output);
    assert_eq!(printed["file"], *file);
    assert_eq!(printed["errors"]["more"], 0);
    let problem = &printed["errors"]["problems"][0];
    assert_eq!(problem["place"], "services[0].port");
    assert_eq!(problem["message"], "must be a number from 1 to 65535, not 0");

    let output = run_with(&["check", "-o", "json"], GOOD.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let printed = json(&output);
    let wanted = serde_json::json!({
        "services": 1, "backends": 1, "warnings": [], "errors": {"problems": [], "more": 0}
    });
    assert_eq!(printed, wanted);
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
        &["flows", "--backend", "10.2.0.11"],
        &["flows", "--backend", "10.2.0.11:0"],
        &["flows", "--client", "10.2.0.11/24"],
        &["flows", "--client", "somebody"],
        &["flows", "--service", "a b"],
        &["flows", "--service", ":0"],
        &["flows", "web"],
        &["who"],
        &["who", "10.2.0.1"],
        &["who", "10.2.0.1:4000", "--backend", "b1"],
        &["who", "10.2.0.1:4000", "--backend", "[fd00::1]:1"],
        &["who", "10.2.0.1:70000"],
        &["status", "--interval", "1"],
        &["status", "--timeout", "1s"],
        &["status", "--wait", "--timeout", "soon"],
        &["status", "--service", ""],
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
        &["flows", "--help"],
        &["who", "--help"],
        &["status", "-h"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(err(&output).is_empty() && !out(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn completions_are_shell_programs() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
        let script = out(&output);
        assert!(script.contains("TCPGW_COMPLETE"), "{shell}: {script}");
        if !["bash", "fish", "zsh"].contains(&shell) || !is_installed(shell) {
            eprintln!("{shell}: its completions were not run");
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = write(dir.path(), "completions", script.as_bytes());
        let checked = Command::new(shell).args(["-n", &file]).output().expect("a shell");
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{shell}: {}",
            err(&checked)
        );
    }
}

/// Returns the words that bash offers with the completion script after these ones, the last of which is incomplete.
fn completed(directory: &Path, words: &[&str]) -> Vec<String> {
    const COMPLETE: &str = "source <(tcpgw completions bash)
        COMP_WORDS=(tcpgw \"$@\") COMP_CWORD=$# COMP_TYPE=9
        _clap_complete_tcpgw tcpgw \"${!#}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let programs = Path::new(TCPGW).parent().expect("a directory");
    let path = format!(
        "{}:{}",
        programs.to_string_lossy(),
        std::env::var("PATH").expect("a path")
    );
    let output = Command::new("bash")
        .args(["-c", COMPLETE, "bash"])
        .args(words)
        .current_dir(directory)
        .env("PATH", path)
        .output()
        .expect("bash runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", err(&output));
    out(&output).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_values_and_files() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "state one.json", b"");
    write(dir.path(), "other.json", b"");
    let completed = |words: &[&str]| completed(dir.path(), words);
    assert_eq!(completed(&["tear"]), ["teardown"]);
    assert_eq!(completed(&["apply", "--allow"]), ["--allow-empty"]);
    assert_eq!(completed(&["status", "-o", "js"]), ["json"]);
    assert_eq!(completed(&["apply", "oth"]), ["other.json"]);
    assert_eq!(completed(&["check", "sta"]), ["state one.json"]);
    assert_eq!(completed(&["service", "se"]), ["set"]);
}

#[test]
fn who_only_has_the_variable_of_completions_is_served_as_usual() {
    for value in ["", "0", "tcsh", "\u{1b}[2J"] {
        let mut command = command(&["check", "-"]);
        let output = command.env("TCPGW_COMPLETE", value).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{value}");
        assert!(
            !err(&output).contains('\u{1b}') && err(&output).contains("error:"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn manual_pages_are_formatted_without_a_warning() {
    let dir = tempfile::tempdir().expect("a directory");
    let written = run(&["man", "--to", dir.path().to_str().expect("text")]);
    assert_eq!((written.status.code(), out(&written)), (Some(0), String::new()));
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a page");
    for word in [".TH", "EXIT STATUS", "FILES", "--config", "tcpgw-apply(8)"] {
        assert!(plain(&page("tcpgw.8")).contains(word), "{word}");
    }
    let apply = plain(&page("tcpgw-apply.8"));
    assert!(
        apply.contains("--allow-empty") && !apply.contains("--no-color"),
        "{apply}"
    );
    assert!(plain(&page("tcpgw-service.8")).contains("tcpgw service add"));
    assert_eq!(out(&run(&["man"])), page("tcpgw.8"));
    assert_eq!(out(&run(&["man", "apply"])), page("tcpgw-apply.8"));
    let by_hand = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/man");
    let pages = [dir.path(), &by_hand].map(|place| fs::read_dir(place).expect("a directory"));
    let pages: Vec<_> = pages
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("a page").path())
        .collect();
    assert!(pages.len() > 25, "{pages:?}");
    if !is_installed("man") {
        eprintln!("no man here: the pages were not formatted");
        return;
    }
    for path in pages {
        let formatted = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(&path)
            .env("MANPAGER", "cat")
            .output()
            .expect("man runs");
        assert!(
            formatted.status.success() && formatted.stderr.is_empty(),
            "{}: {}",
            path.to_string_lossy(),
            err(&formatted)
        );
    }
}

/// Returns the words of a page, without roff's fonts and hyphens.
fn plain(page: &str) -> String {
    let page = page.replace("\\-", "-");
    ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(page, |page, font| page.replace(font, ""))
}

#[test]
fn a_manual_page_that_is_not_there_is_named() {
    let output = run(&["man", "frobnicate\u{1b}"]);
    assert_eq!(output.status.code(), Some(2));
    let printed = err(&output);
    assert!(
        printed.contains("has no command frobnicate\\u{1b}; it has check, "),
        "{printed}"
    );
    let output = run(&["man", "--to", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("/nonexistent/tcpgw.8: "), "{}", err(&output));
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
