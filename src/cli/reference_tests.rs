//! Pages of the reference that are made from what the program has, and are in the book as they are made.
//!
//! `TCPGW_BLESS=1 cargo test --lib reference_tests` writes them.

mod api;
mod commands;

use std::fs;
use std::path::Path;

/// Asserts that a document is as it is made; writes it where `TCPGW_BLESS` is set.
fn assert_made(document: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    if std::env::var_os("TCPGW_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, made).expect("a page that can be written");
    }
    let there = fs::read_to_string(&path).expect("a page");
    let differing = there
        .lines()
        .zip(made.lines())
        .position(|(there, made)| there != made)
        .unwrap_or_else(|| there.lines().count().min(made.lines().count()))
        + 1;
    assert!(
        there == made,
        "{document} differs from what the program says, from line {differing} on; \
         TCPGW_BLESS=1 cargo test --lib reference_tests writes it"
    );
}

/// Returns a text for a cell of a table, on one line.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
