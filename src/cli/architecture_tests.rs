//! The picture of the architecture is that of the source: no folder uses one that is drawn above it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the files of a folder that are part of the program.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let is_source = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let is_test = name.contains("test") || name == "timelines.rs";
        !is_test && Path::new(&name).extension().is_some_and(|of| of == "rs")
    };
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let below = folders.iter().filter(|path| !path.ends_with("tests"));
    let below: Vec<PathBuf> = below.flat_map(|path| self::files(path)).collect();
    files.into_iter().filter(is_source).chain(below).collect()
}

/// Returns the code of a file, without comments and the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a text");
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text.get(..end).unwrap_or(&text).lines();
    let code: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n")
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
    for path in files(&src()) {
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
    let files = files(&src().join("control"));
    let mut wrong = Vec::new();
    for path in &files {
        let code = code(path);
        let found = FORBIDDEN.iter().filter(|name| code.contains(**name));
        wrong.extend(found.map(|name| format!("{name} in {}", path.to_string_lossy())));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(files.len() > 30, "{files:?}");
}
