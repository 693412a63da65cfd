//! Structure of each set: its key, its data, and what its elements carry.

use super::cap::Cap;
use super::name::SetName;
use super::scope::{Family, ListenScope, Scope};

/// A part of a packet or of its flow, in a key or in data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Layer 4 protocol; it widens a port to a key that is hashed (a key of 2 bytes would become a bitmap).
    L4Proto,
    /// TCP source port of the packet.
    SourcePort,
    /// TCP destination port of the packet.
    DestPort,
    /// Source address of the packet.
    SourceAddress(Family),
    /// Destination address of the packet.
    DestAddress(Family),
    /// Address of the flow's client.
    ClientAddress(Family),
    /// Port of the flow's client.
    ClientPort,
    /// Address that the flow's client connected to.
    PublicAddress(Family),
    /// Port that the flow's client connected to.
    PublicPort,
    /// Address of the flow's backend.
    BackendAddress(Family),
    /// Port of the flow's backend.
    BackendPort,
    /// Interface on which the packet came in.
    InInterface,
    /// Interface by which the packet leaves.
    OutInterface,
    /// Slot number.
    Slot,
    /// Upper 64 bits of the source address (IPv6): the network without the host part.
    SourceNetwork,
    /// Number of the packet's flow.
    FlowId,
}

impl Field {
    /// Returns the number of bytes that carry the value.
    pub fn width(self) -> usize {
        match self {
            Self::L4Proto => 1,
            Self::SourcePort | Self::DestPort | Self::ClientPort | Self::PublicPort | Self::BackendPort => 2,
            Self::SourceAddress(family)
            | Self::DestAddress(family)
            | Self::ClientAddress(family)
            | Self::PublicAddress(family)
            | Self::BackendAddress(family) => family.address_len(),
            Self::InInterface | Self::OutInterface => 16,
            Self::SourceNetwork => Family::V6.address_len(),
            Self::Slot | Self::FlowId => 4,
        }
    }

    /// Returns the number of bytes that the field occupies in a register.
    pub fn padded(self) -> usize {
        self.width().next_multiple_of(4)
    }
}

/// Payload that the elements of a set carry in addition to their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// No payload.
    Nothing,
    /// Address and port of a backend.
    Endpoint(Family),
    /// An address, as map data.
    Address(Family),
    /// Chain of a round-robin service, as a verdict.
    Chain,
    /// Two limits, in packets and in bytes.
    Limits,
    /// A counter; packets add the elements.
    Counter,
    /// A limit in packets per second; packets add the elements, and these expire.
    Rate(u32),
    /// A largest number of flows; packets add the elements, and an element is removed with the last of its flows.
    Flows(u32),
    /// A flow itself; packets add at most this number of elements, and an element is removed with its flow.
    OneFlow(u32),
    /// No payload, for a short time; packets add the elements.
    Moment,
    /// A limit that is the same for all elements; packets add the elements, and unused ones expire.
    Reserve,
}

/// Structure of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Parts of the key.
    pub key: Vec<Field>,
    /// Payload of the elements.
    pub payload: Payload,
    /// Whether the elements are ranges.
    pub interval: bool,
}

/// Largest number of elements that packets may add to one counter set. A million services and backends fit; further
/// packets are dropped as usual, but not counted.
pub const COUNTER_SET_SIZE: u32 = 1 << 20;

/// Largest number of elements of a set whose elements expire. Further keys are not remembered.
pub const MOMENT_SET_SIZE: u32 = 1 << 16;

/// Time in milliseconds until an element of such a set expires: a client repeats its SYN within a few milliseconds, or
/// after 1 s and 3 s (RFC 6298).
pub const MOMENT_MILLISECONDS: u64 = 5000;

/// Rate of a reserve, in packets per second.
pub const RESERVE_RATE: u64 = 1;

/// Burst of a reserve, in packets.
pub const RESERVE_BURST: u32 = 10;

/// Time in milliseconds after which an unused reserve expires; it is full again before.
pub const RESERVE_MILLISECONDS: u64 = 60_000;

/// Number of bytes of a row's limits: packets/s, packet burst, bytes/s, byte burst.
pub const LIMITS_LEN: usize = 8 + 4 + 8 + 4;

impl SetSpec {
    /// Returns the structure of a set.
    pub fn of(name: SetName) -> Self {
        use Field::{DestAddress, DestPort, InInterface, OutInterface, Slot, SourceAddress};
        let plain = |key: Vec<Field>| Self {
            key,
            payload: Payload::Nothing,
            interval: false,
        };
        let with = |key: Vec<Field>, payload| Self {
            key,
            payload,
            interval: false,
        };
        match name {
            SetName::Services(scope)
            | SetName::Restricted(scope)
            | SetName::AllowOnly(scope)
            | SetName::RetireReset(scope) => plain(service_key(scope)),
            SetName::Capped(listen_scope, cap) => counted(listen_scope, cap),
            SetName::Spread(listen_scope, _) | SetName::Hashed(listen_scope) | SetName::EmptyReset(listen_scope) => {
                plain(service_key(listen_scope.scope()))
            }
            SetName::RoundRobin(listen_scope) => with(service_key(listen_scope.scope()), Payload::Chain),
            SetName::Allowed(listen_scope) | SetName::Denied(listen_scope) => {
                let mut key = listening_key(listen_scope.scope());
                key.push(SourceAddress(listen_scope.family()));
                Self {
                    key,
                    payload: Payload::Nothing,
                    interval: true,
                }
            }
            SetName::Slots(listen_scope) => {
                let mut key = listening_key(listen_scope.scope());
                key.push(Slot);
                with(key, Payload::Endpoint(listen_scope.family()))
            }
            SetName::Limited(family)
            | SetName::Unlimited(family)
            | SetName::Preserved(family)
            | SetName::Protected(family) => plain(vec![DestAddress(family), DestPort]),
            SetName::LimitTo(family)
            | SetName::LimitFrom(family)
            | SetName::LimitBoth(family)
            | SetName::HandshakesTo(family)
            | SetName::HandshakesFrom(family)
            | SetName::HandshakesBoth(family) => with(vec![DestAddress(family), DestPort], Payload::Limits),
            SetName::Sources(family) => with(vec![DestAddress(family), DestPort, Slot], Payload::Address(family)),
            SetName::LinkSources(family) => with(vec![OutInterface], Payload::Address(family)),
            SetName::SameLink => plain(vec![InInterface, OutInterface]),
            SetName::Refused(scope)
            | SetName::OverClient(scope)
            | SetName::OverFlows(scope)
            | SetName::NoBackend(scope)
            | SetName::Stale(scope)
            | SetName::Invalid(scope) => with(service_key(scope), Payload::Counter),
            SetName::OverTo(family)
            | SetName::OverFrom(family)
            | SetName::InvalidFrom(family)
            | SetName::StaleFrom(family)
            | SetName::Reused(family)
            | SetName::Direct(family)
            | SetName::Acquainted(family) => with(vec![DestAddress(family), DestPort], Payload::Counter),
            SetName::Connections(listen_scope) => {
                let mut key = listening_key(listen_scope.scope());
                key.extend([DestAddress(listen_scope.family()), DestPort]);
                with(key, Payload::Counter)
            }
            SetName::Challenged(family) => with(attempt_key(family), Payload::Moment),
            SetName::Reserve(family) => with(vec![DestAddress(family), DestPort], Payload::Reserve),
        }
    }

    /// Returns the number of bytes of a key.
    pub fn key_len(&self) -> usize {
        self.key.iter().map(|field| field.padded()).sum()
    }

    /// Returns the number of bytes of the data of a map; 0 for a set and for a verdict.
    pub fn data_len(&self) -> usize {
        match self.payload {
            Payload::Endpoint(family) => family.address_len() + 4,
            Payload::Address(family) => family.address_len(),
            _ => 0,
        }
    }

    /// Returns the number of bytes that identify an element: the key, and the end of its range.
    pub fn identity_len(&self) -> usize {
        self.key_len() * if self.interval { 2 } else { 1 }
    }

    /// Returns the number of bytes of a row: identity, data and limits.
    pub fn row_len(&self) -> usize {
        self.identity_len() + self.data_len() + if self.payload == Payload::Limits { LIMITS_LEN } else { 0 }
    }
}

fn counted(listen_scope: ListenScope, cap: Cap) -> SetSpec {
    let (key, payload) = match cap {
        Cap::ClientHandshakes(rate) => (client_key(listen_scope), Payload::Rate(rate)),
        Cap::ClientFlows(flows) => (client_key(listen_scope), Payload::Flows(flows)),
        Cap::Flows(cap) => (vec![Field::FlowId], Payload::OneFlow(cap.flows)),
    };
    SetSpec {
        key,
        payload,
        interval: false,
    }
}

/// Returns the key of a client of a service. An IPv6 client is a network of 64 bits, since a host can use any address
/// in it.
pub fn client_key(listen_scope: ListenScope) -> Vec<Field> {
    let mut key = vec![Field::SourceAddress(listen_scope.family())];
    key.extend(listening_key(listen_scope.scope()));
    key
}

/// Returns the key of a connection attempt: source and destination of a first packet.
pub fn attempt_key(family: Family) -> Vec<Field> {
    vec![
        Field::SourceAddress(family),
        Field::SourcePort,
        Field::DestAddress(family),
        Field::DestPort,
    ]
}

/// Returns the key under which a packet finds its service.
pub fn service_key(scope: Scope) -> Vec<Field> {
    match scope {
        Scope::Any => vec![Field::L4Proto, Field::DestPort],
        Scope::At(family) => vec![Field::DestAddress(family), Field::DestPort],
    }
}

/// Returns the service key without the protocol, for keys that are wide enough because of further fields.
pub fn listening_key(scope: Scope) -> Vec<Field> {
    match scope {
        Scope::Any => vec![Field::DestPort],
        Scope::At(family) => vec![Field::DestAddress(family), Field::DestPort],
    }
}
