//! Address families, and the two ways in which keys name a service.

use std::fmt;
use std::net::IpAddr;

/// An address family. Its text, `v4` or `v6`, is part of the names of sets and chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
}

impl Family {
    /// Both families, in the order of the ruleset.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the number of bytes in an address.
    pub fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Returns the name of the protocol for people.
    pub fn protocol_name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

/// Form of the key of a service: by port alone, or by address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Services on every local address; one set serves both families.
    Any,
    /// Services on chosen addresses.
    At(Family),
}

impl Scope {
    /// All three scopes, in the order of the ruleset.
    pub const ALL: [Self; 3] = [Self::Any, Self::At(Family::V4), Self::At(Family::V6)];

    /// Returns the scopes within an address family that lead to the backends of a service of this scope.
    pub fn reaches(self) -> Vec<ListenScope> {
        match self {
            Self::Any => Family::BOTH.map(ListenScope::Any).to_vec(),
            Self::At(family) => vec![ListenScope::At(family)],
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::At(family) => write!(f, "_at_{family}"),
        }
    }
}

/// A scope within one address family. Each has its own chains and sets that lead to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenScope {
    /// Any local address of the family.
    Any(Family),
    /// Chosen addresses of the family.
    At(Family),
}

impl ListenScope {
    /// All four scopes, in the order of the ruleset.
    pub const ALL: [Self; 4] = [
        Self::Any(Family::V4),
        Self::At(Family::V4),
        Self::Any(Family::V6),
        Self::At(Family::V6),
    ];

    /// Returns the family of the scope.
    pub fn family(self) -> Family {
        match self {
            Self::Any(family) | Self::At(family) => family,
        }
    }

    /// Returns how packets of this scope name a service.
    pub fn scope(self) -> Scope {
        match self {
            Self::Any(_) => Scope::Any,
            Self::At(family) => Scope::At(family),
        }
    }
}

impl fmt::Display for ListenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(family) => write!(f, "_{family}"),
            Self::At(family) => write!(f, "_at_{family}"),
        }
    }
}
