//! Connections, traffic and drops of one app's service, from consecutive samples of the kernel.
//!
//! It is pure and bounded: a sample keeps 32 bytes for each flow, up to a given number of flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use super::drops::{BackendDrops, ServiceDrops, backend_counters, service_counters};
use super::flow_rates::{FirstSample, Rates, SecondSample};
use super::tally::FlowCounts;
use tcpgw_core::model::Endpoint;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::Counted;
use tcpgw_kernel::conntrack::Flow;

/// Number of counters of a service, and of each backend.
const COUNTERS: usize = 6;

/// A service that listens on every address, and its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSubject {
    port: NonZeroU16,
    /// Backends in order.
    backends: Vec<Endpoint>,
}

/// A sample of a service under way.
#[derive(Debug)]
pub struct AppSample<'a> {
    subject: &'a AppSubject,
    began: Instant,
    /// Time since the last sample, if there is one to compare with.
    interval: Option<Duration>,
    earlier: Option<EarlierCounters>,
    traffic: Option<SecondSample>,
    samples: FirstSample,
    is_sampled: bool,
    flows: Vec<FlowCounts>,
    all: FlowCounts,
}

/// Counters of the last sample, for the backends of that time.
#[derive(Debug)]
struct EarlierCounters {
    subject: AppSubject,
    counters: Vec<Counted>,
}

/// Data of a sample that the next one needs.
#[derive(Debug)]
pub struct EarlierSample {
    began: Instant,
    counters: EarlierCounters,
    /// Traffic of flows; `None`: there were too many flows.
    samples: Option<FirstSample>,
}

/// Result of a sample of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AppReading {
    /// Time over which rates were measured; `None`: there are none yet.
    pub interval: Option<Duration>,
    /// Flows of the service, including those to removed backends.
    pub flows: FlowCounts,
    /// Drops before a backend was chosen.
    pub drops: ServiceDrops,
    /// Results by backend.
    pub backends: BTreeMap<SocketAddr, BackendReading>,
}

/// Result of a sample of a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendReading {
    /// Flows of the backend in this service.
    pub flows: FlowCounts,
    /// Traffic of these flows before the limit. `None`: conntrack does not count it, there was no sample before, or
    /// there are too many flows.
    pub rates: Option<Rates>,
    /// Drops of the backend.
    pub drops: BackendDrops,
}

impl AppSubject {
    /// Creates a service with this port and these backends.
    pub fn new(port: NonZeroU16, backends: impl IntoIterator<Item = SocketAddr>) -> Self {
        let backends = backends.into_iter().filter_map(|backend| backend.try_into().ok());
        let mut backends: Vec<Endpoint> = backends.collect();
        backends.sort_unstable();
        backends.dedup();
        Self { port, backends }
    }

    /// Returns the public port.
    pub fn port(&self) -> NonZeroU16 {
        self.port
    }

    /// Returns the counters that [`AppSample::end`] needs.
    pub fn counters(&self) -> Vec<(SetName, Box<[u8]>)> {
        let backends = self.backends.iter().flat_map(|backend| backend_counters(*backend));
        service_counters(self.port).into_iter().chain(backends).collect()
    }
}

impl<'a> AppSample<'a> {
    /// Begins a sample. `counts_traffic`: whether conntrack counts packets and bytes.
    pub fn begin(subject: &'a AppSubject, earlier: Option<EarlierSample>, counts_traffic: bool, now: Instant) -> Self {
        let earlier = earlier.filter(|earlier| earlier.counters.subject.port == subject.port);
        let interval = earlier
            .as_ref()
            .map(|earlier| now.saturating_duration_since(earlier.began));
        let (counters, samples) = earlier.map_or((None, None), |earlier| (Some(earlier.counters), earlier.samples));
        let samples = samples.filter(|_| counts_traffic);
        Self {
            subject,
            began: now,
            interval,
            earlier: counters,
            traffic: samples.map(|samples| samples.end(subject.backends.len())),
            samples: FirstSample::default(),
            is_sampled: counts_traffic,
            flows: vec![FlowCounts::default(); subject.backends.len()],
            all: FlowCounts::default(),
        }
    }

    /// Adds a flow of the service. `room`: number of further flows that can be kept for the next sample.
    pub fn note(&mut self, flow: &Flow, room: &mut usize) {
        self.all.count(flow.tcp_state);
        let backend = Endpoint::try_from(flow.backend);
        let place = backend
            .ok()
            .and_then(|backend| self.subject.backends.binary_search(&backend).ok());
        let Some(place) = place else { return };
        self.flows[place].count(flow.tcp_state);
        if let Some(traffic) = &mut self.traffic {
            traffic.note(place, flow);
        }
        if !self.is_sampled {
            return;
        }
        if let Some(left) = room.checked_sub(1) {
            *room = left;
            self.samples.note(flow);
        } else {
            self.is_sampled = false;
            self.samples = FirstSample::default();
        }
    }

    /// Ends the sample. `counters`: those of [`AppSubject::counters`], in their order.
    pub fn end(self, counters: Vec<Counted>) -> (AppReading, EarlierSample) {
        let earlier = self.earlier.as_ref().zip(self.interval);
        let traffic = self.traffic.as_ref().zip(self.interval);
        let backends = self.subject.backends.iter().enumerate().map(|(place, backend)| {
            let reading = BackendReading {
                flows: self.flows[place],
                rates: traffic.map(|(traffic, time)| traffic.rates(place, time)),
                drops: BackendDrops::counted(
                    of_place(&counters, place + 1),
                    earlier.and_then(|(earlier, time)| Some((earlier.of_backend(*backend)?, time))),
                ),
            };
            (SocketAddr::from(*backend), reading)
        });
        let reading = AppReading {
            interval: self.interval,
            flows: self.all,
            drops: ServiceDrops::counted(
                of_place(&counters, 0),
                earlier.map(|(earlier, time)| (of_place(&earlier.counters, 0), time)),
            ),
            backends: backends.collect(),
        };
        let earlier = EarlierSample {
            began: self.began,
            counters: EarlierCounters {
                subject: self.subject.clone(),
                counters,
            },
            samples: self.is_sampled.then_some(self.samples),
        };
        (reading, earlier)
    }
}

impl EarlierCounters {
    fn of_backend(&self, backend: Endpoint) -> Option<&[Counted]> {
        let place = self.subject.backends.binary_search(&backend).ok()?;
        Some(of_place(&self.counters, place + 1))
    }
}

/// Returns the counters of the service (place 0), or of a backend (its index plus 1).
fn of_place(counters: &[Counted], place: usize) -> &[Counted] {
    let begin = place * COUNTERS;
    counters.get(begin..begin + COUNTERS).unwrap_or_default()
}

impl AppReading {
    /// Returns the drops of all backends together, without those that `left_out` names.
    pub fn backend_drops(&self, left_out: &BTreeSet<SocketAddr>) -> BackendDrops {
        let backends = self.backends.iter().filter(|(at, _)| !left_out.contains(at));
        let drops = backends.map(|(_, backend)| backend.drops);
        drops.reduce(BackendDrops::and).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::flow_rates::Rate;
    use tcpgw_kernel::conntrack::{Counters, CtStatus, TcpState, Traffic};

    const BACKENDS: [&str; 2] = ["10.2.0.11:3000", "10.2.0.12:3000"];

    fn subject() -> AppSubject {
        AppSubject::new(
            NonZeroU16::new(20003).unwrap(),
            BACKENDS.map(|backend| backend.parse().unwrap()),
        )
    }

    fn flow(client: u16, backend: &str, packets: u64) -> Flow {
        let traffic = |factor| Traffic {
            packets: packets * factor,
            bytes: packets * factor * 1000,
        };
        Flow {
            client: ([198, 51, 100, 1], client).into(),
            public: ([203, 0, 113, 1], 20003).into(),
            backend: backend.parse().unwrap(),
            seen_as: ([10, 2, 0, 1], client).into(),
            id: client.into(),
            mark: 0,
            status: CtStatus::default(),
            tcp_state: Some(TcpState::Established),
            zone: 0,
            timeout: None,
            counters: Some(Counters {
                to: traffic(1),
                from: traffic(2),
            }),
            started: None,
        }
    }

    fn counted(subject: &AppSubject, packets: u64) -> Vec<Counted> {
        let keys = subject.counters().into_iter();
        keys.map(|(_, key)| Counted {
            key,
            packets,
            bytes: packets * 40,
        })
        .collect()
    }

    #[test]
    fn rates_are_taken_between_two_samples() {
        let (subject, now, mut room) = (subject(), Instant::now(), 100);
        let mut sample = AppSample::begin(&subject, None, true, now);
        sample.note(&flow(1, BACKENDS[0], 10), &mut room);
        let (reading, earlier) = sample.end(counted(&subject, 5));
        assert_eq!((reading.interval, reading.flows.established), (None, 1));
        assert!(reading.backends.values().all(|backend| backend.rates.is_none()));
        assert_eq!(reading.drops.stale.packets_per_second, None);

        let mut sample = AppSample::begin(&subject, Some(earlier), true, now + Duration::from_secs(2));
        sample.note(&flow(1, BACKENDS[0], 30), &mut room);
        sample.note(&flow(2, "10.2.0.99:3000", 30), &mut room);
        let (reading, _) = sample.end(counted(&subject, 9));
        assert_eq!(reading.flows.established, 2, "one of a backend that has left");
        let first = &reading.backends[&BACKENDS[0].parse().unwrap()];
        let rates = first.rates.unwrap();
        let rate = |packets_per_second, bytes_per_second| Rate {
            packets_per_second,
            bytes_per_second,
        };
        assert_eq!((rates.to, rates.from), (rate(10.0, 10_000.0), rate(20.0, 20_000.0)));
        assert_eq!(first.drops.over_limit_to.packets_per_second, Some(2.0));
        let dropped_without = |left_out: &[&str]| {
            let left_out = left_out.iter().map(|backend| backend.parse().unwrap()).collect();
            reading.backend_drops(&left_out).over_limit_to.packets
        };
        assert_eq!(dropped_without(&[]), 18, "of both backends");
        assert_eq!(dropped_without(&BACKENDS[..1]), 9);
        assert_eq!(reading.drops.stale.packets, 9);
    }

    #[test]
    fn what_cannot_be_compared_has_no_rates() {
        let (subject, now, mut room) = (subject(), Instant::now(), 100);
        let later = now + Duration::from_secs(1);
        let other = AppSubject::new(NonZeroU16::new(20004).unwrap(), []);
        let (_, earlier) = AppSample::begin(&other, None, true, now).end(counted(&other, 0));
        let (reading, _) = AppSample::begin(&subject, Some(earlier), true, later).end(counted(&subject, 1));
        assert_eq!(reading.interval, None, "of another service");
        // A backend that came since then.
        let fewer = AppSubject::new(subject.port(), [BACKENDS[1].parse().unwrap()]);
        let (_, earlier) = AppSample::begin(&fewer, None, true, now).end(counted(&fewer, 0));
        let (reading, _) = AppSample::begin(&subject, Some(earlier), true, later).end(counted(&subject, 1));
        let dropped = |at: usize| reading.backends[&BACKENDS[at].parse().unwrap()].drops.over_limit_to;
        assert_eq!((dropped(0).packets, dropped(0).packets_per_second), (1, None));
        assert_eq!((dropped(1).packets, dropped(1).packets_per_second), (1, Some(1.0)));
        // conntrack does not count: drops have rates all the same.
        let (_, earlier) = AppSample::begin(&subject, None, false, now).end(counted(&subject, 0));
        let mut sample = AppSample::begin(&subject, Some(earlier), false, later);
        sample.note(&flow(1, BACKENDS[0], 1), &mut room);
        let (reading, _) = sample.end(counted(&subject, 1));
        let first = &reading.backends[&BACKENDS[0].parse().unwrap()];
        assert_eq!((first.rates, first.flows.established), (None, 1));
        assert_eq!(first.drops.over_limit_from.packets_per_second, Some(1.0));
    }

    #[test]
    fn too_many_flows_are_counted_and_not_kept() {
        let (subject, now, mut room) = (subject(), Instant::now(), 1);
        let mut sample = AppSample::begin(&subject, None, true, now);
        sample.note(&flow(1, BACKENDS[0], 1), &mut room);
        sample.note(&flow(2, BACKENDS[0], 1), &mut room);
        let (reading, earlier) = sample.end(counted(&subject, 0));
        assert_eq!((reading.flows.established, earlier.samples.is_none()), (2, true));
        let later = now + Duration::from_secs(1);
        let (reading, _) = AppSample::begin(&subject, Some(earlier), true, later).end(counted(&subject, 0));
        assert!(reading.backends.values().all(|backend| backend.rates.is_none()));
    }

    #[test]
    fn a_look_needs_so_many_counters() {
        let subject = subject();
        assert_eq!(subject.counters().len(), 3 * COUNTERS);
        assert_eq!(&*subject.counters()[0].1, [6, 0, 0, 0, 0x4e, 0x23, 0, 0]);
    }
}
