//! The libraries of other languages that some tests need.

use std::path::{Path, PathBuf};

use super::shell::TCPGW;

/// Returns the directory below `target/` where `scripts/test-libraries` has installed these libraries. `library` is one of them.
/// `tests` is the name of the tests that need them: the error message tells those without a network to skip these tests.
///
/// # Panics
///
/// If they are not there.
#[track_caller]
pub(crate) fn libraries(directory: &str, library: &str, tests: &str) -> PathBuf {
    let target = Path::new(TCPGW)
        .parent()
        .and_then(Path::parent)
        .expect("a target directory");
    let libraries = target.join(directory);
    assert!(
        libraries.join(library).is_dir(),
        "{} is not there: run scripts/test-libraries, which needs the network; without one, `vagrant/test --skip {tests}`",
        libraries.to_string_lossy()
    );
    libraries
}
