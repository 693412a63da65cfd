//! The digest of a text.

use std::fmt::Write as _;

use sha2::Digest;

pub(super) fn hex<D: Digest>(text: &str) -> String {
    let mut hex = String::new();
    for byte in D::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
