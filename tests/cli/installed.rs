//! Files that `scripts/install` puts into a tree, as a package would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TCPGW;
use crate::links::{has_section, links};

/// Runs `scripts/install` for a tree.
fn install(tree: &Path, options: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
    let run = Command::new(script)
        .args(options)
        .env("DESTDIR", tree)
        .env("PREFIX", "/usr")
        .env("BINARY", TCPGW)
        .output()
        .expect("it runs");
    assert!(run.status.success(), "{run:?}");
}

/// Returns all files of a tree.
fn files(tree: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree).expect("a directory").flatten();
    let found = entries.flat_map(|entry| match entry.file_type().expect("a type") {
        of if of.is_dir() => files(&entry.path()),
        _ => vec![entry.path()],
    });
    found.collect()
}

#[test]
fn uninstalling_removes_what_was_installed_and_nothing_else() {
    let tree = tempfile::tempdir().expect("a directory");
    let own = tree.path().join("usr/share/doc/tcpgw/notes");
    fs::create_dir_all(own.parent().expect("a directory")).expect("a directory");
    fs::write(&own, "the operator's").expect("a file");
    install(tree.path(), &[]);
    let all = files(tree.path());
    for name in [
        "bin/tcpgw",
        "tcpgw-boot.service",
        "man8/tcpgw-apply.8",
        "man5/tcpgw.json.5",
        "completions/tcpgw",
    ] {
        assert!(all.iter().any(|file| file.ends_with(name)), "{name}: {all:?}");
    }
    // A file that an earlier version has installed goes with the next one.
    let list = tree.path().join("usr/lib/tcpgw/installed-files");
    let gone = tree.path().join("usr/share/man/man1/tcpgw.1");
    fs::create_dir_all(gone.parent().expect("a directory")).expect("a directory");
    fs::write(&gone, "").expect("a file");
    let mut listed: Vec<String> = fs::read_to_string(&list)
        .expect("a list")
        .lines()
        .map(str::to_owned)
        .collect();
    listed.push("share/man/man1/tcpgw.1".to_owned());
    listed.sort();
    fs::write(&list, listed.join("\n") + "\n").expect("a list");
    install(tree.path(), &[]);
    assert_eq!(files(tree.path()), all);
    install(tree.path(), &["--uninstall"]);
    assert_eq!(files(tree.path()), [own]);
}

#[test]
fn documents_that_are_installed_link_to_what_is_installed() {
    let tree = tempfile::tempdir().expect("a directory");
    install(tree.path(), &[]);
    let documents = tree.path().join("usr/share/doc/tcpgw");
    let (mut seen, mut broken) = (0, Vec::new());
    for path in files(&documents) {
        let name = path.strip_prefix(&documents).expect("a document").to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "png") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        for link in links(&text).filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => path.clone(),
                file => path.parent().expect("a directory").join(file),
            };
            let is_inside = fs::canonicalize(&to).is_ok_and(|to| to.starts_with(&documents));
            let there = fs::read(&to).ok().filter(|_| is_inside);
            let Some(there) = there.map(|there| String::from_utf8_lossy(&there).into_owned()) else {
                broken.push(format!("{name}: {link}"));
                continue;
            };
            if !anchor.is_empty() && !has_section(&there, anchor) {
                broken.push(format!("{name}: {link}: no such section"));
            }
        }
    }
    assert!(seen > 100, "only {seen} links");
    assert_eq!(broken, Vec::<String>::new());
}
