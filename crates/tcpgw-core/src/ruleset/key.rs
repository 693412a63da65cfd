//! Keys of sets.

use std::borrow::Cow;
use std::net::IpAddr;

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

/// Returns an address as a key field.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `IPPROTO_TCP`, as the first field of a service key.
pub const TCP: [u8; 4] = [6, 0, 0, 0];
