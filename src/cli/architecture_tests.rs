//! The picture of the architecture is that of the source: no folder uses one that is drawn above it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::source_tests::{code, program, root};

const PAGE: &str = include_str!("../../docs/internals/architecture.md");

/// Returns the folders and files of `src/`, line by line, as they are drawn: names, a bar, and their purpose.
fn lines() -> Vec<Vec<&'static str>> {
    let (_, rest) = PAGE.split_once("```layers\n").expect("a picture");
    let (picture, _) = rest.split_once("```").expect("its end");
    picture
        .lines()
        .map(|line| {
            let (names, _) = line.split_once('│').expect("a bar");
            names.split_whitespace().collect()
        })
        .collect()
}

fn src() -> PathBuf {
    root().join("src")
}

/// Returns the folder or file of `src/` that a file belongs to: `src/cli/table/cell.rs` to `cli`.
fn owner(path: &Path) -> String {
    let inside = path.strip_prefix(src()).expect("below src");
    let first = inside
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the modules of the crate that a text uses: `crate::view::status` is `view`.
fn used(code: &str) -> BTreeSet<&str> {
    let paths = code.split("crate::").skip(1);
    paths
        .filter_map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn nothing_uses_what_is_drawn_above_it() {
    let lines = lines();
    let line_of = |name: &str| lines.iter().position(|names| names.contains(&name));
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for path in program(&src()) {
        let owner = owner(&path);
        if ["lib", "main"].contains(&owner.as_str()) {
            continue;
        }
        let Some(own) = line_of(&owner) else {
            wrong.push(format!("{owner} is not drawn"));
            continue;
        };
        for name in used(&code(&path)) {
            match line_of(name) {
                Some(line) if line < own => wrong.push(format!("{owner} uses {name}: {}", path.to_string_lossy())),
                // Macros and what `lib.rs` says itself.
                Some(_) | None => {}
            }
        }
        seen.insert(owner);
    }
    let gone = lines.iter().flatten().filter(|name| !seen.contains(**name));
    wrong.extend(gone.map(|name| format!("{name} is drawn, and is not there")));
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen.len() > 20, "{seen:?}");
}

/// Answers carry data; the API and the command line render them.
#[test]
fn what_the_daemon_decides_is_no_text_of_reports() {
    let renders = |path: &PathBuf| {
        ["ReportText", "view::changes"]
            .iter()
            .any(|name| code(path).contains(name))
    };
    let wrong: Vec<PathBuf> = program(&src().join("control")).into_iter().filter(renders).collect();
    assert_eq!(wrong, Vec::<PathBuf>::new());
}

#[test]
fn what_the_daemon_decides_needs_no_machine() {
    const FORBIDDEN: [&str; 10] = [
        "std::thread",
        "std::fs",
        "std::env",
        "::now()",
        "TcpStream",
        "UnixStream",
        "tokio::net",
        "tokio::time",
        "tokio::spawn",
        "nix::",
    ];
    let files = program(&src().join("control"));
    let mut wrong = Vec::new();
    for path in &files {
        let code = code(path);
        let found = FORBIDDEN.iter().filter(|name| code.contains(**name));
        wrong.extend(found.map(|name| format!("{name} in {}", path.to_string_lossy())));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(files.len() > 30, "{files:?}");
}
