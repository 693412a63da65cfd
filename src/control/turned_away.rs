//! Services that have their `max_flows` and turn new clients away, by the SYNs that the rules count as dropped for it.
//!
//! It is pure: each observation passes the counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::view::problems::full;
use tcpgw_core::model::Service;
use tcpgw_core::problem::Problem;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;

/// Time for which a service is reported after its last dropped SYN. A client sends its SYN again after 1 s, 3 s and 7 s.
const RECENT: Duration = Duration::from_secs(10);

/// Number of SYNs that were dropped since a service is in the table because it had its `max_flows`, by the service's
/// name. Services with `max_flows` that dropped none are contained with 0.
pub type TurnedAwayCounts = BTreeMap<Box<str>, u64>;

/// Memory of the counts from observation to observation.
#[derive(Debug, Default)]
pub struct TurnedAway {
    services: BTreeMap<Box<str>, CountedDrops>,
}

#[derive(Debug)]
struct CountedDrops {
    /// Number at the last observation.
    packets: u64,
    recent: Option<Recent>,
}

/// SYNs that were dropped one after the other, without a pause of [`RECENT`].
#[derive(Debug)]
struct Recent {
    packets: u64,
    last: Instant,
}

impl TurnedAway {
    /// Takes the counts of an observation. Those of the first one are no news: they may be days old.
    pub fn observe(&mut self, counts: &TurnedAwayCounts, now: Instant) {
        self.services.retain(|name, _| counts.contains_key(name));
        for (name, packets) in counts {
            let known = self.services.entry(name.clone()).or_insert(CountedDrops {
                packets: *packets,
                recent: None,
            });
            // A new table begins with new counters.
            let new = packets.checked_sub(known.packets).unwrap_or(*packets);
            known.packets = *packets;
            known.recent = known
                .recent
                .take()
                .filter(|recent| now.saturating_duration_since(recent.last) < RECENT);
            if new > 0 {
                let before = known.recent.as_ref().map_or(0, |recent| recent.packets);
                known.recent = Some(Recent {
                    packets: before + new,
                    last: now,
                });
            }
        }
    }

    /// Returns the problems of the last observation. `service`: returns the definition of a service, if it exists.
    pub fn problems<'a>(&self, service: impl Fn(&str) -> Option<&'a Service>) -> Vec<Problem> {
        let recent = self
            .services
            .iter()
            .filter_map(|(name, of)| Some((name, of.recent.as_ref()?)));
        let problems = recent.filter_map(|(name, recent)| {
            let service = service(name)?;
            let problem = full(
                &ServiceSummary::from(service).to_string(),
                &format!("{} of new clients were dropped", count(recent.packets, "SYN")),
            );
            Some(problem.of_service(&**name, service.port.get()))
        });
        problems.collect()
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        self.services.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tcpgw_core::model::parse;
    use tcpgw_core::problem::{ProblemKind, Severity};

    fn services() -> Vec<Arc<Service>> {
        let text = br#"{"version": 1, "services": [
            {"name": "full", "port": 2001, "backends": ["10.2.0.11:3000"], "max_flows": 3},
            {"name": "free", "port": 2002, "backends": ["10.2.0.12:3000"], "max_flows": 3}]}"#;
        parse(text).unwrap().services
    }

    /// Returns the messages after an observation of these counts.
    fn told(turned_away: &mut TurnedAway, full: u64, now: Instant) -> Vec<String> {
        let services = services();
        turned_away.observe(&[("full".into(), full), ("free".into(), 0)].into(), now);
        let service = |name: &str| services.iter().find(|of| &*of.name == name).map(|of| &**of);
        let problems = turned_away.problems(service);
        for problem in &problems {
            assert_eq!(
                (problem.kind, problem.severity),
                (ProblemKind::OverLimit, Severity::Error)
            );
            assert_eq!(problem.service.as_deref(), Some("full"));
        }
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_service_that_turns_clients_away_is_an_error_until_none_was_for_some_time() {
        let mut turned_away = TurnedAway::default();
        let at = |seconds| Duration::from_secs(seconds);
        let begin = Instant::now();
        assert_eq!(
            told(&mut turned_away, 100, begin),
            [""; 0],
            "what was dropped before is no news"
        );
        let message = "full :2001: 3 SYNs of new clients were dropped, since the service has its max_flows: raise it, \
                       or end idle connections";
        assert_eq!(told(&mut turned_away, 103, begin + at(1)), [message]);
        assert!(told(&mut turned_away, 104, begin + at(4))[0].contains(": 4 SYNs "));
        assert_eq!(told(&mut turned_away, 104, begin + at(13)).len(), 1);
        assert_eq!(told(&mut turned_away, 104, begin + at(14)), [""; 0]);
        assert!(told(&mut turned_away, 105, begin + at(20))[0].contains(": 1 SYN "));
        // A new table counts anew, and so does a service that came later.
        assert!(told(&mut turned_away, 2, begin + at(21))[0].contains(": 3 SYNs "));
        turned_away.clear();
        assert_eq!(told(&mut turned_away, 5, begin + at(22)), [""; 0]);
    }

    #[test]
    fn the_first_drop_of_a_service_without_any_is_told() {
        let mut turned_away = TurnedAway::default();
        let now = Instant::now();
        told(&mut turned_away, 0, now);
        assert_eq!(told(&mut turned_away, 1, now + Duration::from_secs(1)).len(), 1);
    }
}
