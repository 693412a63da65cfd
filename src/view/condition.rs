//! State of a service as a whole, in one word: the same in `tcpgw status`, `tcpgw top`, the API and the dashboard.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of a service, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceCondition {
    /// No active backend answers: clients are not served.
    Down,
    /// There is no active backend: clients are not served.
    Empty,
    /// Clients of one address family are served, and clients of the other are not.
    Partly,
    /// New connections are held back by order.
    Paused,
    /// Clients are served, and some active backends do not answer.
    Degraded,
    /// No active backend has answered its first probe yet.
    Probing,
    /// The app of the add-on is suspended.
    Suspended,
    /// The app of the add-on has no backend yet.
    Waiting,
    /// Removed: the service stays until its backends have drained.
    Leaving,
    /// Clients are served.
    Up,
}

impl ServiceCondition {
    /// All states, the worst first.
    pub const ALL: [Self; 10] = [
        Self::Down,
        Self::Empty,
        Self::Partly,
        Self::Paused,
        Self::Degraded,
        Self::Probing,
        Self::Suspended,
        Self::Waiting,
        Self::Leaving,
        Self::Up,
    ];

    /// Returns the word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Empty => "empty",
            Self::Partly => "partly",
            Self::Paused => "paused",
            Self::Degraded => "degraded",
            Self::Probing => "probing",
            Self::Suspended => "suspended",
            Self::Waiting => "waiting",
            Self::Leaving => "leaving",
            Self::Up => "up",
        }
    }

    /// Returns what it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Down => "no active backend answers probes: clients are not served",
            Self::Empty => "there is no active backend: clients are not served",
            Self::Partly => "clients of one address family are served, and clients of the other are not",
            Self::Paused => "new connections are held back by order",
            Self::Degraded => "clients are served, and some active backends do not answer probes",
            Self::Probing => "no active backend has answered its first probe yet",
            Self::Suspended => "the app of the add-on is suspended",
            Self::Waiting => "the app of the add-on has no backend yet",
            Self::Leaving => "the service was removed, and its backends drain",
            Self::Up => "clients are served",
        }
    }
}

impl fmt::Display for ServiceCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const STATUS: &str = include_str!("../../docs/reference/status.md");
    const DASHBOARD: &str = include_str!("../../docs/operating/dashboard.md");
    const STYLE: &str = include_str!("../dashboard/dashboard.css");

    /// Each state has a word of its own, which all that show it have.
    #[test]
    fn each_state_has_one_word_everywhere() {
        let all = ServiceCondition::ALL;
        assert!(all.is_sorted());
        let words: BTreeSet<&str> = all.iter().map(|of| of.word()).collect();
        assert_eq!(words.len(), all.len());
        for state in all {
            let (word, meaning) = (state.word(), state.meaning());
            assert_eq!(serde_json::to_value(state).unwrap(), word);
            let row = format!("| `{word}` | {meaning} |");
            for (page, text) in [("status.md", STATUS), ("dashboard.md", DASHBOARD)] {
                assert!(text.contains(&row), "{page} lacks {row}");
            }
            assert!(STYLE.contains(&format!(".state.{word}")), "no colour for {word}");
        }
        let listed: Vec<String> = all.iter().map(|of| format!("`{of}`")).collect();
        let listed = listed.join(", ");
        assert!(DASHBOARD.contains(&listed), "dashboard.md lacks {listed}");
    }
}
