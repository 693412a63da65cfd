//! Packets and bytes of one direction, as answers and the flow log show them.

use serde::{Deserialize, Serialize};

use tcpgw_kernel::conntrack::Traffic;

/// Traffic of one direction, before the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficView {
    /// Number of packets; merged ones (GRO) count once.
    pub packets: u64,
    /// Number of bytes, including IP headers.
    pub bytes: u64,
}

impl From<Traffic> for TrafficView {
    fn from(Traffic { packets, bytes }: Traffic) -> Self {
        Self { packets, bytes }
    }
}
