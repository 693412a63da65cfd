//! The digest of a text.

use sha2::Digest;

pub(super) fn hex<D: Digest>(text: &str) -> String {
    tcpgw_core::hex::digits(&D::digest(text.as_bytes()))
}
