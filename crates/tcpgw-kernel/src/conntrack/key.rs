//! Keys of flows.

use std::net::SocketAddr;

/// Identity of one flow: its original addresses, its zone and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    pub(super) client: SocketAddr,
    pub(super) public: SocketAddr,
    pub(super) zone: u16,
    pub(super) id: u32,
}

impl std::fmt::Display for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.client, self.public)
    }
}
