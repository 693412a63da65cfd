//! What each set is made of: its key, its data, and what its elements carry.

use super::cap::Cap;
use super::name::SetName;
use super::scope::{Family, ListenScope, Scope};

/// One part of a packet, or of what is picked for it, in a key or in data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The layer 4 protocol; it widens a port to a key that is hashed (a key of 2 bytes would become a bitmap).
    L4Proto,
    /// The TCP source port.
    SourcePort,
    /// The TCP destination port.
    DestPort,
    /// The source address.
    SourceAddress(Family),
    /// The destination address.
    DestAddress(Family),
    /// The address of the client whose flow it is.
    ClientAddress(Family),
    /// The port of that client.
    ClientPort,
    /// The address that this client wanted.
    PublicAddress(Family),
    /// The port that it wanted.
    PublicPort,
    /// The address of the backend that its flow leads to.
    BackendAddress(Family),
    /// The port of that backend.
    BackendPort,
    /// The interface that the packet came in on.
    InInterface,
    /// The interface that it leaves by.
    OutInterface,
    /// A slot number.
    Slot,
    /// The source address without the half that names a host in its network (IPv6).
    SourceNetwork,
    /// The number of the packet's flow.
    FlowId,
}

impl Field {
    /// Bytes that mean something.
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

    /// Bytes that it takes in a register.
    pub fn padded(self) -> usize {
        self.width().next_multiple_of(4)
    }
}

/// What the elements of a set carry besides their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    Nothing,
    /// A backend: address and port.
    Endpoint(Family),
    /// An address.
    Address(Family),
    /// Where to go on: a round-robin service's own chain.
    Chain,
    /// Two limits, in packets and in bytes.
    Limits,
    /// A counter; packets add the elements.
    Counter,
    /// A limit of packets per second; packets add the elements, and they are forgotten.
    Rate(u32),
    /// How many flows there may be; packets add the elements, and they go with the last of their flows.
    Flows(u32),
    /// That its flow is there; packets add as many elements as the number says, and they go with their flows.
    OneFlow(u32),
    /// Nothing, and not for long: packets add the elements.
    Moment,
    /// A limit that is the same for all, for as long as it is asked for; packets add the elements.
    Reserve,
}

/// How a set is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// The parts of the key.
    pub key: Vec<Field>,
    /// What elements carry.
    pub payload: Payload,
    /// Whether elements are ranges.
    pub interval: bool,
}

/// The most elements that packets may add to one counter set. A million services and backends would fit; past it,
/// packets are still dropped, and no longer counted.
pub const COUNTER_SET_SIZE: u32 = 1 << 20;

/// The most elements of a set that forgets. Whoever does not fit is not remembered.
pub const MOMENT_SET_SIZE: u32 = 1 << 16;

/// Milliseconds until an element of such a set is forgotten: a client repeats its SYN within a few milliseconds, or after
/// 1 s and 3 s (RFC 6298).
pub const MOMENT_MILLISECONDS: u64 = 5000;

/// Packets per second of a reserve.
pub const RESERVE_RATE: u64 = 1;

/// Packets of a reserve that may come at once after a pause.
pub const RESERVE_BURST: u32 = 10;

/// Milliseconds after which a reserve that nobody used is forgotten; it is full again before.
pub const RESERVE_MILLISECONDS: u64 = 60_000;

/// Bytes of a row's limits: packets/s, packet burst, bytes/s, byte burst.
pub const LIMITS_LEN: usize = 8 + 4 + 8 + 4;

impl SetSpec {
    /// How that set is made.
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
            SetName::Challenged(family) => with(attempt_key(family), Payload::Moment),
            SetName::Reserve(family) => with(vec![DestAddress(family), DestPort], Payload::Reserve),
        }
    }

    /// Bytes of a key.
    pub fn key_len(&self) -> usize {
        self.key.iter().map(|field| field.padded()).sum()
    }

    /// Bytes of the data of a map, 0 for a set and for a verdict.
    pub fn data_len(&self) -> usize {
        match self.payload {
            Payload::Endpoint(family) => family.address_len() + 4,
            Payload::Address(family) => family.address_len(),
            _ => 0,
        }
    }

    /// Bytes that tell one element from another: the key, and the end of its range.
    pub fn identity_len(&self) -> usize {
        self.key_len() * if self.interval { 2 } else { 1 }
    }

    /// Bytes of a row: identity, data and limits.
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

/// A client of a service. One of IPv6 is a whole network of 64 bits, since anybody has as many addresses in it as they like.
pub fn client_key(listen_scope: ListenScope) -> Vec<Field> {
    let mut key = vec![Field::SourceAddress(listen_scope.family())];
    key.extend(listening_key(listen_scope.scope()));
    key
}

/// Who wants to connect to what, of a first packet.
pub fn attempt_key(family: Family) -> Vec<Field> {
    vec![
        Field::SourceAddress(family),
        Field::SourcePort,
        Field::DestAddress(family),
        Field::DestPort,
    ]
}

/// The key under which a packet finds its service.
pub fn service_key(scope: Scope) -> Vec<Field> {
    match scope {
        Scope::Any => vec![Field::L4Proto, Field::DestPort],
        Scope::At(family) => vec![Field::DestAddress(family), Field::DestPort],
    }
}

/// The same without the protocol: where more follows, the key is wide enough.
pub fn listening_key(scope: Scope) -> Vec<Field> {
    match scope {
        Scope::Any => vec![Field::DestPort],
        Scope::At(family) => vec![Field::DestAddress(family), Field::DestPort],
    }
}
