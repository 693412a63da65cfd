//! Condition of a service as a whole, in one word.

use super::status::ServiceStatus;

/// Condition of a service, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceCondition {
    /// No backend answers: clients are not served.
    Down,
    /// Some backends do not answer, others do.
    Degraded,
    /// New connections are held back by order.
    Paused,
    /// Some backends have not answered a probe yet.
    Unproven,
    /// All active backends answer, and others drain.
    Draining,
    /// Removed: the service stays until its backends have drained.
    Leaving,
    /// Without backends on purpose: its app is suspended, or was not deployed yet.
    Idle,
    /// All backends answer, or are not probed.
    Healthy,
}

impl ServiceCondition {
    /// All conditions, the worst first.
    pub const ALL: [Self; 8] = [
        Self::Down,
        Self::Degraded,
        Self::Paused,
        Self::Unproven,
        Self::Draining,
        Self::Leaving,
        Self::Idle,
        Self::Healthy,
    ];

    /// Returns the condition of a service. `states`: the states of its backends, as metrics
    /// name them.
    pub fn of(service: &ServiceStatus<'_>, states: &[&str], is_paused: bool) -> Self {
        let any = |state| states.contains(&state);
        if service.leaving {
            Self::Leaving
        } else if service.is_idle() {
            Self::Idle
        } else if is_paused {
            Self::Paused
        } else if !service.healthy {
            // Before the first probes nothing is known to be wrong.
            if any("unknown") && !any("unhealthy") {
                Self::Unproven
            } else {
                Self::Down
            }
        } else if any("unhealthy") {
            Self::Degraded
        } else if any("unknown") {
            Self::Unproven
        } else if any("draining") || any("waiting") {
            Self::Draining
        } else {
            Self::Healthy
        }
    }

    /// Returns the word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Unproven => "unproven",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Idle => "idle",
            Self::Healthy => "healthy",
        }
    }

    /// Returns what it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Down => "no backend answers: clients are not served",
            Self::Degraded => "some backends do not answer, others do",
            Self::Paused => "new connections are held back by order",
            Self::Unproven => "some backends have not answered a probe yet",
            Self::Draining => "all active backends answer, and others drain",
            Self::Leaving => "removed: it stays until its backends have drained",
            Self::Idle => "no backends on purpose: the app is suspended, or was not deployed yet",
            Self::Healthy => "all backends answer, or are not probed",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;

    use super::*;
    use crate::addon::ServiceState;

    fn service() -> ServiceStatus<'static> {
        ServiceStatus {
            name: Some("a".into()),
            port: 2001,
            addresses: Cow::Owned(BTreeSet::new()),
            provider: None,
            healthy: true,
            leaving: false,
            addon: None,
            balance: "".into(),
            limit: None,
            flows: crate::view::tally::FlowCounts::default(),
            unanswered: None,
            totals: crate::view::totals::TotalsView::default(),
            drops: crate::view::drops::ServiceDrops::default(),
            backends: Vec::new(),
            resets_when_empty: None,
            reachable: true,
        }
    }

    #[test]
    fn the_worst_of_a_service_is_its_condition() {
        let of = |states: &[&str], healthy| {
            let service = ServiceStatus { healthy, ..service() };
            ServiceCondition::of(&service, states, false).word()
        };
        for (states, healthy, expected) in [
            (&["healthy"][..], true, "healthy"),
            (&[], false, "down"),
            (&["unhealthy"], false, "down"),
            (&["unhealthy", "unknown"], false, "down"),
            (&["unknown"], false, "unproven"),
            (&["unknown", "healthy"], true, "unproven"),
            (&["unhealthy", "healthy", "draining"], true, "degraded"),
            (&["healthy", "draining"], true, "draining"),
            (&["healthy", "waiting"], true, "draining"),
            (&["draining"], false, "down"),
        ] {
            assert_eq!(of(states, healthy), expected, "{states:?}");
        }
        assert_eq!(
            ServiceCondition::of(&service(), &["healthy"], true),
            ServiceCondition::Paused
        );
        let leaving = ServiceStatus {
            leaving: true,
            ..service()
        };
        assert_eq!(
            ServiceCondition::of(&leaving, &["draining"], false),
            ServiceCondition::Leaving
        );
        let idle = ServiceStatus {
            addon: Some(ServiceState::Suspended),
            healthy: false,
            ..service()
        };
        assert_eq!(ServiceCondition::of(&idle, &[], false), ServiceCondition::Idle);
    }

    #[test]
    fn all_conditions_are_listed_in_order_and_have_a_word_each() {
        let mut words: Vec<&str> = ServiceCondition::ALL.iter().map(|of| of.word()).collect();
        assert!(ServiceCondition::ALL.is_sorted());
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ServiceCondition::ALL.len());
    }
}
