//! Names of the chains of round-robin services, which count their connections to choose the next slot.

use std::fmt;

use crate::ruleset::scope::ListenScope;

/// The chain of one round-robin service, whose counter chooses the slot of each new connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundRobinChain {
    /// Scope whose slots the chain picks from.
    pub listen_scope: ListenScope,
    /// Number of slots, 1 to 256.
    pub width: u16,
    /// Name of the service.
    pub service: Box<str>,
}

impl RoundRobinChain {
    /// Returns the chain with this name; `None` if it is not the name of such a chain.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("turn")?;
        // The order does not matter: neither "_at_v4" nor "_v4" is a prefix of the other.
        let listen_scope = ListenScope::ALL
            .into_iter()
            .find(|listen_scope| rest.starts_with(&listen_scope.to_string()))?;
        let rest = rest.strip_prefix(&listen_scope.to_string())?.strip_prefix('_')?;
        let (digits, service) = rest.split_once('_')?;
        let width = digits.parse().ok().filter(|w| (1..=256).contains(w))?;
        let parsed = Self {
            listen_scope,
            width,
            service: service.into(),
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for RoundRobinChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn{}_{}_{}", self.listen_scope, self.width, self.service)
    }
}
