//! Names of the sets and maps of the table.

use std::fmt;
use std::num::NonZeroU32;

use super::cap::Cap;
use super::key;
pub use super::round_robin::RoundRobinChain;
pub use super::scope::{Family, ListenScope, Scope};
pub use super::spread::{SlotChoice, SpreadRule, Width};
use std::collections::BTreeSet;

/// A set or map of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Services of a scope.
    Services(Scope),
    /// Services with an `allow` or `deny` list.
    Restricted(Scope),
    /// Services with an `allow` list.
    AllowOnly(Scope),
    /// Services whose late packets are answered with a reset instead of being dropped.
    RetireReset(Scope),
    /// Services without a backend that answer a SYN with a reset.
    EmptyReset(ListenScope),
    /// Service and client network that an `allow` list admits.
    Allowed(ListenScope),
    /// Service and client network that a `deny` list excludes.
    Denied(ListenScope),
    /// Services to which one rule of the `spread` chain applies: those with this many slots, this cap, or this timeout.
    Spread(ListenScope, SpreadRule),
    /// Elements that a cap counts: clients with their rates or numbers of flows, or flows.
    Capped(ListenScope, Cap),
    /// Services whose slot is picked by a hash of the client's address.
    Hashed(ListenScope),
    /// Round-robin services, each with the chain that chooses its slots.
    RoundRobin(ListenScope),
    /// Backend of a service and slot number.
    Slots(ListenScope),
    /// Backends with a limit.
    Limited(Family),
    /// Backends without a limit.
    Unlimited(Family),
    /// Backends that see their clients' own addresses.
    Preserved(Family),
    /// Gateway address that the backend sees, by backend and slot number.
    Sources(Family),
    /// Gateway address that backends behind an interface see.
    LinkSources(Family),
    /// Bucket of packets to a limited backend.
    LimitTo(Family),
    /// Bucket of packets from a limited backend.
    LimitFrom(Family),
    /// Bucket of packets to and from a limited backend, shared by both directions.
    LimitBoth(Family),
    /// Bucket of handshakes to a limited backend.
    HandshakesTo(Family),
    /// Bucket of answers to handshakes from a limited backend.
    HandshakesFrom(Family),
    /// Bucket of handshake segments to and from a limited backend, shared by both directions.
    HandshakesBoth(Family),
    /// Protected backends: new connections from outside reach them only through services.
    Protected(Family),
    /// Pairs of an interface with itself, for clients on their backend's link.
    SameLink,
    /// Counters of SYNs that an access list refused.
    Refused(Scope),
    /// Counters of SYNs of clients that exceed one of their caps.
    OverClient(Scope),
    /// Counters of SYNs to services that have reached their `max_flows`.
    OverFlows(Scope),
    /// Counters of SYNs that found no backend.
    NoBackend(Scope),
    /// Counters of packets that belong to no tracked flow.
    Stale(Scope),
    /// Counters of INVALID packets to services.
    Invalid(Scope),
    /// Counters of packets over the limit, to a backend.
    OverTo(Family),
    /// Counters of packets over the limit, from a backend.
    OverFrom(Family),
    /// Counters of INVALID packets from a backend.
    InvalidFrom(Family),
    /// Counters of packets of flushed flows from a backend that sees its clients' addresses.
    StaleFrom(Family),
    /// Counters of packets from outside to a protected backend that did not come through a service.
    Direct(Family),
    /// Counters of SYNs that a backend answered with an acknowledgement of an earlier connection, because it still
    /// holds the port.
    Reused(Family),
    /// Addresses and ports of connection attempts that got such answers, kept until a client would have repeated its
    /// SYN.
    Challenged(Family),
    /// Backends whose bucket is empty, with a reserve for ICMP errors in both directions.
    Reserve(Family),
    /// Counters of flows to a backend that has seen its client's address, and may send to it even after it was removed.
    Acquainted(Family),
    /// Counters of connections, by service and backend.
    Connections(ListenScope),
}

impl SetName {
    /// Returns the sets that always exist: all except those of the rules of `spread` chains.
    pub fn fixed() -> Vec<Self> {
        let mut names = Vec::new();
        for scope in Scope::ALL {
            names.extend([
                Self::Services(scope),
                Self::Restricted(scope),
                Self::AllowOnly(scope),
                Self::RetireReset(scope),
                Self::Refused(scope),
                Self::OverClient(scope),
                Self::OverFlows(scope),
                Self::NoBackend(scope),
                Self::Stale(scope),
                Self::Invalid(scope),
            ]);
        }
        for listen_scope in ListenScope::ALL {
            names.extend([
                Self::Allowed(listen_scope),
                Self::Denied(listen_scope),
                Self::Hashed(listen_scope),
                Self::EmptyReset(listen_scope),
                Self::RoundRobin(listen_scope),
                Self::Slots(listen_scope),
                Self::Connections(listen_scope),
            ]);
        }
        for family in Family::BOTH {
            names.extend([
                Self::Limited(family),
                Self::Unlimited(family),
                Self::Preserved(family),
                Self::Sources(family),
                Self::LinkSources(family),
                Self::LimitTo(family),
                Self::LimitFrom(family),
                Self::LimitBoth(family),
                Self::HandshakesTo(family),
                Self::HandshakesFrom(family),
                Self::HandshakesBoth(family),
                Self::Protected(family),
                Self::Direct(family),
                Self::OverTo(family),
                Self::OverFrom(family),
                Self::InvalidFrom(family),
                Self::StaleFrom(family),
                Self::Reused(family),
                Self::Challenged(family),
                Self::Reserve(family),
                Self::Acquainted(family),
            ]);
        }
        names.push(Self::SameLink);
        names.sort_unstable();
        names
    }

    /// Returns whether packets add the elements, and not tcpgw.
    pub fn is_counter(self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::OverClient(_)
                | Self::OverFlows(_)
                | Self::Capped(..)
                | Self::NoBackend(_)
                | Self::Stale(_)
                | Self::Invalid(_)
                | Self::OverTo(_)
                | Self::OverFrom(_)
                | Self::InvalidFrom(_)
                | Self::StaleFrom(_)
                | Self::Reused(_)
                | Self::Direct(_)
                | Self::Challenged(_)
                | Self::Reserve(_)
                | Self::Acquainted(_)
                | Self::Connections(_)
        )
    }

    /// Returns whether rules look up the set only while it has elements: on most gateways it is empty, and a lookup
    /// would cost time for many packets.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Services(Scope::At(_))
                | Self::Restricted(_)
                | Self::Limited(_)
                | Self::LimitTo(_)
                | Self::LimitFrom(_)
                | Self::LimitBoth(_)
                | Self::HandshakesTo(_)
                | Self::HandshakesFrom(_)
                | Self::HandshakesBoth(_)
                | Self::Protected(_)
                | Self::Preserved(_)
                | Self::Sources(_)
                | Self::LinkSources(_)
        )
    }

    /// Returns the sets that hold the keys of a counter set: an element whose key is in none of them is outdated.
    /// Returns none for sets whose elements are kept.
    pub fn owners(self) -> Vec<Self> {
        match self {
            Self::Refused(scope)
            | Self::OverClient(scope)
            | Self::OverFlows(scope)
            | Self::NoBackend(scope)
            | Self::Stale(scope)
            | Self::Invalid(scope) => {
                vec![Self::Services(scope)]
            }
            Self::OverTo(family)
            | Self::OverFrom(family)
            | Self::InvalidFrom(family)
            | Self::StaleFrom(family)
            | Self::Reused(family)
            | Self::Direct(family) => {
                vec![Self::Limited(family), Self::Unlimited(family)]
            }
            _ => Vec::new(),
        }
    }

    /// Returns whether an element of a counter set belongs to a service or backend that exists, or is kept whatever
    /// exists. `contains` tells whether a set of services or backends has a key.
    pub fn is_current(self, key: &[u8], contains: impl Fn(Self, &[u8]) -> bool) -> bool {
        let Self::Connections(listen_scope) = self else {
            let owners = self.owners();
            return owners.is_empty() || owners.into_iter().any(|owner| contains(owner, key));
        };
        let family = listen_scope.family();
        let (service, backend) = key::split_pair(listen_scope, key);
        contains(Self::Services(listen_scope.scope()), &service)
            && [Self::Limited(family), Self::Unlimited(family)]
                .into_iter()
                .any(|backends| contains(backends, backend))
    }

    /// Returns how the elements name a service; `None` if they name none.
    pub fn scope(self) -> Option<Scope> {
        match self {
            Self::Services(scope)
            | Self::Restricted(scope)
            | Self::AllowOnly(scope)
            | Self::RetireReset(scope)
            | Self::Refused(scope)
            | Self::OverClient(scope)
            | Self::OverFlows(scope)
            | Self::NoBackend(scope)
            | Self::Stale(scope)
            | Self::Invalid(scope) => Some(scope),
            Self::Allowed(listen_scope)
            | Self::Denied(listen_scope)
            | Self::Spread(listen_scope, _)
            | Self::Hashed(listen_scope)
            | Self::EmptyReset(listen_scope)
            | Self::RoundRobin(listen_scope)
            | Self::Slots(listen_scope)
            | Self::Connections(listen_scope) => Some(listen_scope.scope()),
            _ => None,
        }
    }

    /// Returns the set of this name, if tcpgw has one.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("capped_") {
            let (listen_scope, cap) = parse_cap(rest)?;
            return Some(Self::Spread(listen_scope, SpreadRule::Cap(cap)));
        }
        if let Some(rest) = name.strip_prefix("counted_") {
            let (listen_scope, cap) = parse_cap(rest)?;
            return Some(Self::Capped(listen_scope, cap));
        }
        if let Some(rest) = name.strip_prefix("idle_") {
            let (seconds, listen_scope) = parse_number(rest)?;
            let parsed = Self::Spread(parse_reach(listen_scope)?, SpreadRule::Idle(seconds));
            return (parsed.to_string() == name).then_some(parsed);
        }
        for choice in SlotChoice::BOTH {
            let prefix = name.strip_prefix(choice.prefix());
            let Some(rest) = prefix.and_then(|rest| rest.strip_prefix('_')) else {
                continue;
            };
            let (slots, rest) = parse_number(rest)?;
            let slots = u16::try_from(slots.get()).ok().filter(|slots| *slots <= 256)?;
            let (idle, rest) = match rest.strip_prefix("_idle_") {
                None => (None, rest),
                Some(rest) => parse_number(rest).map(|(idle, rest)| (Some(idle), rest))?,
            };
            let width = Width { choice, slots, idle };
            let parsed = Self::Spread(parse_reach(rest)?, SpreadRule::Slots(width));
            return (parsed.to_string() == name).then_some(parsed);
        }
        Self::fixed().into_iter().find(|fixed| fixed.to_string() == name)
    }
}

/// Returns the number that a text begins with, and the rest of the text.
fn parse_number(text: &str) -> Option<(NonZeroU32, &str)> {
    let (digits, rest) = text.split_at(text.find('_')?);
    Some((digits.parse().ok()?, rest))
}

fn parse_reach(suffix: &str) -> Option<ListenScope> {
    ListenScope::ALL
        .into_iter()
        .find(|listen_scope| listen_scope.to_string() == suffix)
}

/// Reads a cap and a scope from the end of a set's name.
fn parse_cap(text: &str) -> Option<(ListenScope, Cap)> {
    let listen_scope = ListenScope::ALL
        .into_iter()
        .filter(|listen_scope| text.ends_with(&listen_scope.to_string()))
        .max_by_key(|listen_scope| listen_scope.to_string().len())?;
    Some((listen_scope, Cap::parse(text.strip_suffix(&listen_scope.to_string())?)?))
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services(scope) => write!(f, "services{scope}"),
            Self::Restricted(scope) => write!(f, "restricted{scope}"),
            Self::AllowOnly(scope) => write!(f, "allow_only{scope}"),
            Self::RetireReset(scope) => write!(f, "retire_reset{scope}"),
            Self::EmptyReset(listen_scope) => write!(f, "empty_reset{listen_scope}"),
            Self::Allowed(listen_scope) => write!(f, "allowed{listen_scope}"),
            Self::Denied(listen_scope) => write!(f, "denied{listen_scope}"),
            Self::Spread(listen_scope, rule) => write!(f, "{rule}{listen_scope}"),
            Self::Capped(listen_scope, cap) => write!(f, "counted_{cap}{listen_scope}"),
            Self::Hashed(listen_scope) => write!(f, "hashed{listen_scope}"),
            Self::RoundRobin(listen_scope) => write!(f, "turns{listen_scope}"),
            Self::Slots(listen_scope) => write!(f, "slots{listen_scope}"),
            Self::Limited(family) => write!(f, "limited_{family}"),
            Self::Unlimited(family) => write!(f, "unlimited_{family}"),
            Self::Preserved(family) => write!(f, "preserved_{family}"),
            Self::Sources(family) => write!(f, "sources_{family}"),
            Self::LinkSources(family) => write!(f, "link_sources_{family}"),
            Self::LimitTo(family) => write!(f, "limit_to_{family}"),
            Self::LimitFrom(family) => write!(f, "limit_from_{family}"),
            Self::LimitBoth(family) => write!(f, "limit_both_{family}"),
            Self::HandshakesTo(family) => write!(f, "handshakes_to_{family}"),
            Self::HandshakesFrom(family) => write!(f, "handshakes_from_{family}"),
            Self::HandshakesBoth(family) => write!(f, "handshakes_both_{family}"),
            Self::Protected(family) => write!(f, "protected_{family}"),
            Self::Direct(family) => write!(f, "direct_{family}"),
            Self::SameLink => write!(f, "same_link"),
            Self::Refused(scope) => write!(f, "refused{scope}"),
            Self::OverClient(scope) => write!(f, "over_client{scope}"),
            Self::OverFlows(scope) => write!(f, "over_flows{scope}"),
            Self::NoBackend(scope) => write!(f, "no_backend{scope}"),
            Self::Stale(scope) => write!(f, "stale{scope}"),
            Self::Invalid(scope) => write!(f, "invalid{scope}"),
            Self::OverTo(family) => write!(f, "over_to_{family}"),
            Self::OverFrom(family) => write!(f, "over_from_{family}"),
            Self::InvalidFrom(family) => write!(f, "invalid_from_{family}"),
            Self::StaleFrom(family) => write!(f, "stale_from_{family}"),
            Self::Reused(family) => write!(f, "reused_{family}"),
            Self::Challenged(family) => write!(f, "challenged_{family}"),
            Self::Reserve(family) => write!(f, "reserve_{family}"),
            Self::Acquainted(family) => write!(f, "acquainted_{family}"),
            Self::Connections(listen_scope) => write!(f, "connections{listen_scope}"),
        }
    }
}

/// Optional sets that have elements and are looked up. Most gateways have no limits, for example, and their packets
/// should not look for any.
pub type OptionalSets = BTreeSet<SetName>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse_back() {
        let mut names = SetName::fixed();
        for listen_scope in ListenScope::ALL {
            names.extend((1..=256).map(|slots| SetName::Spread(listen_scope, SpreadRule::client_hash(slots))));
            names.extend((1..=256).map(|slots| SetName::Spread(listen_scope, SpreadRule::random(slots))));
            let idle = NonZeroU32::new(7200);
            for choice in SlotChoice::BOTH {
                let width = Width {
                    choice,
                    slots: 12,
                    idle,
                };
                names.push(SetName::Spread(listen_scope, SpreadRule::Slots(width)));
            }
            names.extend(idle.map(|idle| SetName::Spread(listen_scope, SpreadRule::Idle(idle))));
            for cap in [
                "handshakes_20",
                "client_flows_7",
                "flows_1000_20003",
                "flows_1000_20003_cb007101",
            ] {
                let cap = Cap::parse(cap).unwrap();
                names.extend([
                    SetName::Spread(listen_scope, SpreadRule::Cap(cap)),
                    SetName::Capped(listen_scope, cap),
                ]);
            }
        }
        let texts: std::collections::BTreeSet<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), names.len());
        for name in names {
            assert_eq!(SetName::parse(&name.to_string()), Some(name));
        }
        for foreign in [
            "",
            "width_0_v4",
            "width_03_v4",
            "width_257_v4",
            "width_3",
            "width_3_v5",
            "width_3_idle_0_v4",
            "width_3_idle_060_v4",
            "width_3_idle_60",
            "width_3_idle_v4",
            "idle_0_v4",
            "idle_60",
            "idle_v4",
            "idle_4294967296_v4",
            "random_0_v4",
            "random_3",
            "capped_v4",
            "capped_handshakes_20",
            "counted_handshakes_020_v4",
            "services_v4",
        ] {
            assert_eq!(SetName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn turn_chains_parse_back() {
        for listen_scope in ListenScope::ALL {
            let chain = RoundRobinChain {
                listen_scope,
                width: 12,
                service: "a_b-c.d_3".into(),
            };
            assert_eq!(RoundRobinChain::parse(&chain.to_string()), Some(chain));
        }
        assert_eq!(RoundRobinChain::parse("turn_v4_03_a"), None);
        assert_eq!(RoundRobinChain::parse("turns_v4"), None);
    }
}
