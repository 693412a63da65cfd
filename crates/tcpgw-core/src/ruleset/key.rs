//! Keys of sets.

use std::borrow::Cow;

use super::scope::ListenScope;

/// Returns the service key and the backend key of a counter of connections.
pub fn split_pair(listen_scope: ListenScope, key: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let listening_len = match listen_scope {
        ListenScope::Any(_) => 4,
        ListenScope::At(family) => family.address_len() + 4,
    };
    let (listening, backend) = key.split_at_checked(listening_len).unwrap_or_default();
    match listen_scope {
        ListenScope::Any(_) => (Cow::Owned([&TCP, listening].concat()), backend),
        ListenScope::At(_) => (Cow::Borrowed(listening), backend),
    }
}

/// `IPPROTO_TCP`, as the first field of a service key.
pub const TCP: [u8; 4] = [6, 0, 0, 0];
