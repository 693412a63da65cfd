//! Packets by which hosts of a link learn each other's link-layer address.

use std::net::IpAddr;

/// Packet by which hosts of a link learn each other's link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doctor) struct NeighbourPacket {
    pub(in crate::doctor) message: NeighbourMessage,
    /// Address of its sender; `None`: that of any host.
    pub(in crate::doctor) source: Option<IpAddr>,
    /// Address that it goes to, or that an ARP packet asks for.
    pub(in crate::doctor) dest: Option<IpAddr>,
}

/// Message by which hosts of a link learn each other's link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doctor) enum NeighbourMessage {
    /// A neighbour solicitation, or an ARP request.
    Request,
    /// A neighbour advertisement, or an answer of ARP.
    Answer,
}
