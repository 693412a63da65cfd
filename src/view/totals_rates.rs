//! Connections, traffic and drops per second, from two samples of the totals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::flow_rates::{Rate, Rates};
use crate::traffic::drop_sets::REASONS;
use crate::traffic::{BackendTotals, ServiceTotals, Totals};
use tcpgw_kernel::conntrack::Traffic;

/// Longest time between two samples whose difference is shown as the present rate.
const MOST: Duration = Duration::from_secs(60);

/// Change of the totals between two samples.
#[derive(Debug, Clone)]
pub struct TotalsChange {
    before: Arc<Totals>,
    now: Arc<Totals>,
    time: Duration,
}

/// Connections, traffic and drops per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrafficPace {
    /// Connections that are sent to a backend.
    pub connections: f64,
    /// Traffic before the limit; 0 where it is not counted.
    pub rates: Rates,
    /// Packets that are dropped or reset, for all reasons.
    pub drops: f64,
}

impl TotalsChange {
    /// Creates the change. `None`: the samples have no times, the second is not later, or they are more than a minute apart.
    pub fn new(before: Arc<Totals>, now: Arc<Totals>) -> Option<Self> {
        let (first, second) = before.at.zip(now.at)?;
        let time = second.checked_duration_since(first)?;
        (!time.is_zero() && time <= MOST).then_some(Self { before, now, time })
    }

    /// Returns the time between both samples.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Returns the pace of a service, including former backends.
    pub fn of_service(&self, name: &str) -> TrafficPace {
        let none = ServiceTotals::default();
        let of = |totals: &Totals| {
            let service = totals.service(name).unwrap_or(&none);
            (service.sum(), service.drops.iter().sum::<u64>())
        };
        let ((before, drops_before), (now, drops)) = (of(&self.before), of(&self.now));
        let pace = self.pace(before, now);
        TrafficPace {
            drops: pace.drops + self.per_second(drops_before, drops),
            ..pace
        }
    }

    /// Returns the pace of a backend in a service.
    pub fn of_backend(&self, name: &str, backend: SocketAddr) -> TrafficPace {
        let of = |totals: &Totals| totals.backend(name, backend).copied().unwrap_or_default();
        self.pace(of(&self.before), of(&self.now))
    }

    /// Returns the packets per second over the limit of a backend that are dropped: to it, and from it.
    pub fn over_limit(&self, name: &str, backend: SocketAddr) -> [f64; 2] {
        let of = |totals: &Totals| totals.backend(name, backend).copied().unwrap_or_default();
        let (before, now) = (of(&self.before).drops, of(&self.now).drops);
        [0, 1].map(|at| (self.per_second(before[at], now[at]) * 10.0).round() / 10.0)
    }

    /// Returns the dropped packets per second of a service by reason: its own in the order of
    /// [`ServiceDrops::reasons`](super::drops::ServiceDrops::reasons), then those of its backends in the order of
    /// [`BackendDrops::reasons`](super::drops::BackendDrops::reasons).
    pub fn drops_of_service(&self, name: &str) -> [f64; 2 * REASONS] {
        let none = ServiceTotals::default();
        let of = |totals: &Totals| {
            let service = totals.service(name).unwrap_or(&none);
            (service.drops, service.sum().drops)
        };
        let (before, now) = (of(&self.before), of(&self.now));
        std::array::from_fn(|at| match at.checked_sub(REASONS) {
            None => self.per_second(before.0[at], now.0[at]),
            Some(at) => self.per_second(before.1[at], now.1[at]),
        })
    }

    fn pace(&self, before: BackendTotals, now: BackendTotals) -> TrafficPace {
        let flows = now.flows.beyond(before.flows);
        let dropped = |of: BackendTotals| of.drops.iter().sum();
        TrafficPace {
            connections: self.per_second(before.connections, now.connections),
            rates: Rates {
                to: self.rate(flows.to_backend()),
                from: self.rate(flows.from_backend()),
            },
            drops: self.per_second(dropped(before), dropped(now)),
        }
    }

    fn rate(&self, traffic: Traffic) -> Rate {
        Rate {
            packets_per_second: self.per_second(0, traffic.packets),
            bytes_per_second: self.per_second(0, traffic.bytes),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
    fn per_second(&self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.time.as_secs_f64()
    }
}

impl TrafficPace {
    /// Returns the sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            rates: self.rates.and(other.rates),
            drops: self.drops + other.drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;

    const BACKEND: &str = "10.0.0.1:3000";

    fn totals(at: Option<Instant>, connections: u64, drops: u64) -> Arc<Totals> {
        let backend = BackendTotals {
            connections,
            drops: [drops, 0, 0, 0, 0, 1],
            ..BackendTotals::default()
        };
        let service = ServiceTotals {
            drops: [0, drops, 0, 0, 0, 0],
            backends: BTreeMap::from([(BACKEND.parse().unwrap(), backend)]),
            others: backend,
        };
        Arc::new(Totals {
            services: BTreeMap::from([("a".into(), Arc::new(service))]),
            at,
            ..Totals::default()
        })
    }

    #[test]
    fn a_pace_is_what_has_grown_over_the_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let change = TotalsChange::new(totals(Some(now), 10, 5), totals(Some(later), 30, 9)).unwrap();
        let service = change.of_service("a");
        assert!((service.connections - 20.0).abs() < 1e-9, "{service:?}");
        assert!((service.drops - 6.0).abs() < 1e-9, "{service:?}");
        let drops = change.drops_of_service("a");
        assert!(
            (drops[1] - 2.0).abs() < 1e-9 && (drops[REASONS] - 4.0).abs() < 1e-9,
            "{drops:?}"
        );
        let backend = change.of_backend("a", BACKEND.parse().unwrap());
        assert!((backend.connections - 10.0).abs() < 1e-9 && (backend.drops - 2.0).abs() < 1e-9);
        assert_eq!(change.of_service("unknown"), TrafficPace::default());
        assert_eq!(change.time(), Duration::from_secs(2));
        // A total that fell is of another boot or a damaged file: it is no pace below zero.
        let change = TotalsChange::new(totals(Some(now), 10, 5), totals(Some(later), 3, 0)).unwrap();
        assert_eq!(change.of_service("a"), TrafficPace::default());
    }

    #[test]
    fn samples_that_cannot_be_compared_have_no_pace() {
        let now = Instant::now();
        for (first, second) in [
            (None, Some(now)),
            (Some(now), None),
            (Some(now), Some(now)),
            (Some(now + Duration::from_secs(1)), Some(now)),
            (Some(now), Some(now + Duration::from_secs(61))),
        ] {
            assert!(TotalsChange::new(totals(first, 1, 0), totals(second, 2, 0)).is_none());
        }
    }
}
