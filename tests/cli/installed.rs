//! What `scripts/install` puts into a tree, as a package would.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::links::{has_section, links};

#[test]
fn documents_that_are_installed_link_to_what_is_installed() {
    let tree = tempfile::tempdir().expect("a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = Command::new(root.join("scripts/install"))
        .env("DESTDIR", tree.path())
        .env("PREFIX", "/usr")
        .env("BINARY", env!("CARGO_BIN_EXE_tcpgw"))
        .output()
        .expect("it runs");
    assert!(installed.status.success(), "{installed:?}");
    let documents = tree.path().join("usr/share/doc/tcpgw");
    let (mut seen, mut broken) = (0, Vec::new());
    for entry in fs::read_dir(&documents).expect("a directory").flatten() {
        let text = fs::read_to_string(entry.path()).expect("text");
        let local = links(&text).filter(|link| !link.starts_with('#') && !link.contains("://"));
        for link in local {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let Ok(there) = fs::read_to_string(documents.join(file)) else {
                broken.push(format!("{}: {link}", entry.file_name().display()));
                continue;
            };
            if !anchor.is_empty() && !has_section(&there, anchor) {
                broken.push(format!("{}: {link}: no such section", entry.file_name().display()));
            }
        }
    }
    assert!(seen > 10, "only {seen} links");
    assert_eq!(broken, Vec::<String>::new());
}
