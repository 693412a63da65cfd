//! Values of earlier samples: what the sparklines show, and connections per second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::sample::{TopLoad, TopSample};

/// Number of values that are kept for each service.
pub(super) const POINTS: usize = 120;
/// Time over which connections are counted for their rate. The daemon's totals may be a second old, so that a rate over less
/// would jump.
const WINDOW: Duration = Duration::from_secs(5);
/// Largest number of counts that are kept for a rate.
const MOST_COUNTS: usize = 16;

/// History of all services of the last sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TopHistory {
    services: BTreeMap<Box<str>, ServiceHistory>,
}

/// History of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ServiceHistory {
    /// Used fractions of the limit, or bytes per second where there is none; the oldest first. NaN: not known.
    points: VecDeque<f32>,
    /// Times, and numbers of connections so far.
    connections: VecDeque<(Duration, u64)>,
    has_limit: bool,
}

impl TopHistory {
    /// Adds a sample of this time. Services that it lacks are forgotten.
    pub(super) fn add(&mut self, now: Duration, sample: &TopSample) {
        let mut before = std::mem::take(&mut self.services);
        self.services = sample
            .services
            .iter()
            .map(|service| {
                let mut history = before.remove(&service.title).unwrap_or_default();
                history.add(now, &service.load, service.limit.is_some());
                (service.title.clone(), history)
            })
            .collect();
    }

    /// Notes that samples are missing: sparklines have a gap, and rates begin anew.
    pub(super) fn interrupt(&mut self) {
        for history in self.services.values_mut() {
            history.connections.clear();
            history.push(f32::NAN);
        }
    }

    /// Returns the history of the service with this title.
    pub(super) fn service(&self, title: &str) -> Option<&ServiceHistory> {
        self.services.get(title)
    }

    /// Returns the connections per second of the service with this title; `None`: it is not known yet.
    pub(super) fn connection_rate(&self, title: &str) -> Option<f64> {
        self.service(title)?.connection_rate()
    }
}

impl ServiceHistory {
    fn add(&mut self, now: Duration, load: &TopLoad, has_limit: bool) {
        if self.has_limit != has_limit {
            // Fractions and bytes do not go together.
            self.points.clear();
            self.has_limit = has_limit;
        }
        let value = if has_limit { load.of_limit } else { load.bytes() };
        // The first sample has no rates.
        if value.is_some() || !self.points.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "it is drawn in eighths of a line")]
            self.push(value.map_or(f32::NAN, |value| value as f32));
        }
        // A counter that has fallen began anew.
        if self
            .connections
            .back()
            .is_some_and(|(_, last)| *last > load.connections)
        {
            self.connections.clear();
        }
        self.connections.push_back((now, load.connections));
        let is_too_old = |at: Duration| now.saturating_sub(at) > WINDOW;
        while self.connections.len() > 2 && (self.connections.len() > MOST_COUNTS || is_too_old(self.connections[1].0))
        {
            self.connections.pop_front();
        }
    }

    fn push(&mut self, value: f32) {
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(value);
    }

    fn connection_rate(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.connections.front()?, self.connections.back()?);
        let seconds = last.saturating_sub(*first).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
        let connections = to.saturating_sub(*from) as f64;
        (seconds > 0.0).then(|| connections / seconds)
    }

    /// Returns the last values as fractions: of the limit, or of the largest value that is kept where there is no limit.
    /// NaN: not known.
    pub(super) fn fractions(&self, most: usize) -> Vec<f32> {
        let largest = self.points.iter().copied().filter(|value| value.is_finite());
        let scale = if self.has_limit {
            1.0
        } else {
            largest.fold(0.0, f32::max).max(f32::MIN_POSITIVE)
        };
        let skipped = self.points.len().saturating_sub(most);
        self.points.iter().skip(skipped).map(|value| value / scale).collect()
    }

    /// Returns the largest value that is kept.
    pub(super) fn largest(&self) -> f32 {
        let known = self.points.iter().copied().filter(|value| value.is_finite());
        known.fold(0.0, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: u64, of_limit: Option<f64>) -> TopLoad {
        TopLoad {
            connections,
            of_limit,
            ..TopLoad::default()
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn connections_are_counted_over_the_last_seconds() {
        let mut history = ServiceHistory::default();
        for at in 0..20 {
            history.add(seconds(at), &load(at * at, None), false);
        }
        // From 13 to 19: (361 - 169) / 6.
        assert_eq!(history.connection_rate(), Some(32.0));
        assert!(history.connections.len() <= MOST_COUNTS);
    }

    #[test]
    fn a_rate_begins_anew_with_its_counter_and_after_a_gap() {
        let mut history = ServiceHistory::default();
        history.add(seconds(0), &load(100, None), false);
        assert_eq!(history.connection_rate(), None);
        history.add(seconds(2), &load(120, None), false);
        assert_eq!(history.connection_rate(), Some(10.0));
        // Another daemon, whose totals begin at zero.
        history.add(seconds(4), &load(6, None), false);
        assert_eq!(history.connection_rate(), None);
        history.add(seconds(6), &load(10, None), false);
        assert_eq!(history.connection_rate(), Some(2.0));
        // Another daemon that kept the totals, after a minute.
        let mut all = TopHistory::default();
        all.services.insert("web :1".into(), history);
        all.interrupt();
        assert_eq!(all.connection_rate("web :1"), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = ServiceHistory::default();
        for at in 0..10_000 {
            history.add(Duration::from_millis(at), &load(at, Some(0.5)), true);
        }
        assert_eq!(history.points.len(), POINTS);
        assert!(history.connections.len() <= MOST_COUNTS);
        assert_eq!(history.fractions(10), vec![0.5; 10]);
    }

    #[test]
    fn a_service_without_limit_is_drawn_against_its_largest_value() {
        let history = ServiceHistory {
            points: [1000.0, f32::NAN, 500.0].into(),
            ..ServiceHistory::default()
        };
        let fractions = history.fractions(10);
        assert_eq!((fractions[0], fractions[2]), (1.0, 0.5));
        assert!(fractions[1].is_nan());
    }
}
