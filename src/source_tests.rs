//! The program's own sources, for tests that examine their text.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files below a folder in the order of their paths, or the file itself where `place` is one.
///
/// # Panics
///
/// Panics when a folder cannot be read.
pub(crate) fn files(place: &Path) -> Vec<PathBuf> {
    if !place.is_dir() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.to_string_lossy()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| files(path)).collect()
}

/// Returns the Rust files below a folder.
pub(crate) fn rust(folder: &Path) -> Vec<PathBuf> {
    let mut files = files(folder);
    files.retain(|path| path.extension().is_some_and(|of| of == "rs"));
    files
}

/// Returns the Rust files below a folder that are part of the program.
pub(crate) fn program(folder: &Path) -> Vec<PathBuf> {
    let mut files = rust(folder);
    files.retain(|path| !is_test(path));
    files
}

/// Returns true for a file that is compiled for tests only, by its name or that of a folder above it.
fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap_or(path).with_extension("");
    let names = inside.iter().map(|name| name.to_string_lossy());
    let is_of_tests = |name: &str| name == "tests" || name.ends_with("_tests") || name == "timelines";
    names.into_iter().any(|name| is_of_tests(&name))
}

/// Returns the code of a file, without comments and the tests at its end.
///
/// # Panics
///
/// Panics when the file cannot be read.
pub(crate) fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.to_string_lossy()));
    let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn files_of_tests_are_no_part_of_the_program() {
    let program = program(root());
    for (path, is_there) in [
        ("src/lib.rs", true),
        ("src/api/hints.rs", true),
        ("crates/tcpgw-core/src/health.rs", true),
        ("src/source_tests.rs", false),
        ("src/doctor/tests.rs", false),
        ("src/doctor/tests/places.rs", false),
        ("src/control/handshakes/timelines.rs", false),
        ("tests/laws/main.rs", false),
    ] {
        let path = root().join(path);
        assert!(path.is_file(), "{}", path.to_string_lossy());
        assert_eq!(program.contains(&path), is_there, "{}", path.to_string_lossy());
    }
}

#[test]
fn code_has_neither_comments_nor_the_tests_at_its_end() {
    let code = code(&root().join("src/api/hints.rs"));
    assert!(code.contains("const TABLE"));
    assert!(!code.contains("//!") && !code.contains("#[test]"));
}
