//! Completions of commands that ask the daemon, and the manual pages of these.

use crate::cli::{command, err, out, run};
use crate::cli_deploy::{deploy, succeeds};
use crate::harness::{Server, serves};

#[test]
fn the_manual_knows_them() {
    let server = serves();
    for (command, line) in [
        ("deploy", ".TH tcpgw-deploy 8"),
        ("wait", ".TH tcpgw-wait 8"),
        ("service", ".SH \"tcpgw service add\""),
        ("history", ".TH tcpgw-history 8"),
        ("export", ".TH tcpgw-export 8"),
    ] {
        let page = out(&run(&server, &["man", command]));
        assert!(page.lines().any(|of| of.starts_with(line)), "{line}: {page}");
    }
}

/// Returns the words that a shell offers after these ones, the last of which is incomplete.
fn completed(server: &Server, words: &[&str]) -> Vec<String> {
    let output = command(server, &[&["--", "tcpgw"], words].concat())
        .env("TCPGW_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .output()
        .expect("it runs");
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
    out(&output).lines().map(str::to_owned).collect()
}

#[test]
fn completions_know_services_and_deploys() {
    let server = serves();
    succeeds(&server);
    assert_eq!(deploy(&server, &[]).status.code(), Some(0));
    for words in [
        &["deploy", "we"][..],
        &["pause", "we"],
        &["service", "rm", "we"],
        &["service", "set", "we"],
        &["deploys", "--service", "we"],
        &["-o", "json", "status", "--service", "we"],
    ] {
        assert_eq!(completed(&server, words), ["web"], "{words:?}");
    }
    assert_eq!(completed(&server, &["deploys", "4"]), ["41"]);
    let both = ["10.2.0.1:80", "10.2.0.2:80"];
    assert_eq!(completed(&server, &["drain", "web", "10"]), both);
    assert_eq!(
        completed(&server, &["drain", "-q", "web", "10.2.0.1:80", "10.2.0.2"]),
        ["10.2.0.2:80"]
    );
    // Only a backend that drains can be undrained.
    assert_eq!(completed(&server, &["undrain", "web", "10"]), [""; 0]);
    assert_eq!(completed(&server, &["undr"]), ["undrain"]);
    assert_eq!(completed(&server, &["man", "rollb"]), ["rollback"]);
    // A name that is not there yet, and a daemon that is not asked or not there.
    for words in [
        &["service", "add", "we"][..],
        &["--socket", "none", "deploy", "we"],
        &["deploy", "--socket=/nonexistent", "we"],
        &["--config", "/nonexistent", "--socket", "", "deploy", "we"],
    ] {
        assert_eq!(completed(&server, words), [""; 0], "{words:?}");
    }
}
