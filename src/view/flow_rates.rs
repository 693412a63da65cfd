//! Traffic per second, from two samples of conntrack's counters.
//!
//! The sum over a backend's flows would jump by the whole traffic of a flow when it begins or is removed, so each flow
//! is compared with itself, for which 32 bytes are kept.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tcpgw_kernel::conntrack::{Counters, Flow, Traffic};

/// The first sample of the counters.
#[derive(Debug, Default)]
pub struct FirstSample {
    samples: Vec<FlowSample>,
}

/// The second sample of the counters, compared with the first.
#[derive(Debug)]
pub struct SecondSample {
    /// Flows of the first sample in order of key, each once.
    samples: Vec<FlowSample>,
    moved: Vec<Moved>,
    /// Number of flows without counters: they began before conntrack counted.
    pub uncounted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FlowSample {
    key: u64,
    bytes_to: u64,
    bytes_from: u64,
    /// Packets modulo 2^32, which is enough for the difference.
    packets_to: u32,
    packets_from: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Moved {
    to: Traffic,
    from: Traffic,
}

/// Traffic of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets per second; merged ones (GRO) count once.
    pub packets_per_second: f64,
    /// Bytes per second, including IP headers.
    pub bytes_per_second: f64,
}

/// Traffic of a backend before its limit: conntrack counts a packet when it arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Traffic to the backend.
    pub to: Rate,
    /// Traffic from the backend.
    pub from: Rate,
}

impl Rates {
    /// Returns the sum of two rates.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |a: Rate, b: Rate| Rate {
            packets_per_second: a.packets_per_second + b.packets_per_second,
            bytes_per_second: a.bytes_per_second + b.bytes_per_second,
        };
        Self {
            to: sum(self.to, other.to),
            from: sum(self.from, other.from),
        }
    }
}

impl FirstSample {
    /// Adds a flow.
    pub fn note(&mut self, flow: &Flow) {
        if let Some(counters) = flow.counters {
            self.samples.push(FlowSample::of(flow, &counters));
        }
    }

    /// Ends the sample. `places`: number of backends.
    pub fn end(mut self, places: usize) -> SecondSample {
        // A flow may be listed twice: the later entry has the larger counters.
        self.samples
            .sort_unstable_by_key(|sample| (sample.key, sample.bytes_to));
        self.samples.dedup_by(|later, kept| {
            let same = later.key == kept.key;
            if same {
                *kept = *later;
            }
            same
        });
        SecondSample {
            samples: self.samples,
            moved: vec![Moved::default(); places],
            uncounted: 0,
        }
    }
}

impl SecondSample {
    /// Adds the traffic of a flow since the first sample to the backend at this place; a new flow counts with all of
    /// its traffic. Traffic of flows that were removed since is lost.
    pub fn note(&mut self, place: usize, flow: &Flow) {
        let Some(counters) = flow.counters else {
            self.uncounted += 1;
            return;
        };
        let now = FlowSample::of(flow, &counters);
        let moved = &mut self.moved[place];
        let then = self
            .samples
            .binary_search_by_key(&now.key, |sample| sample.key)
            .ok()
            .map(|at| &mut self.samples[at])
            // Otherwise the flow is a new one with the same key.
            .filter(|then| now.bytes_to >= then.bytes_to && now.bytes_from >= then.bytes_from);
        let Some(then) = then else {
            moved.add(counters);
            return;
        };
        let traffic = |packets, bytes| Traffic {
            packets: u64::from(packets),
            bytes,
        };
        moved.add(Counters {
            to: traffic(
                now.packets_to.wrapping_sub(then.packets_to),
                now.bytes_to - then.bytes_to,
            ),
            from: traffic(
                now.packets_from.wrapping_sub(then.packets_from),
                now.bytes_from - then.bytes_from,
            ),
        });
        // The flow may be listed twice.
        *then = now;
    }

    /// Returns the rates of the backend at this place; `time`: time between the begins of both samples.
    pub fn rates(&self, place: usize, time: Duration) -> Rates {
        let rate = |traffic: Traffic| Rate {
            packets_per_second: per_second(traffic.packets, time),
            bytes_per_second: per_second(traffic.bytes, time),
        };
        let moved = self.moved[place];
        Rates {
            to: rate(moved.to),
            from: rate(moved.from),
        }
    }
}

/// Returns `count` per second, to a tenth.
pub fn per_second(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
    let count = count as f64;
    let seconds = time.as_secs_f64().max(1e-3);
    (count / seconds * 10.0).round() / 10.0
}

impl Moved {
    fn add(&mut self, counters: Counters) {
        for (sum, traffic) in [(&mut self.to, counters.to), (&mut self.from, counters.from)] {
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
        }
    }
}

impl FlowSample {
    fn of(flow: &Flow, counters: &Counters) -> Self {
        let mut hasher = DefaultHasher::new();
        (flow.client, flow.public, flow.zone, flow.id).hash(&mut hasher);
        let low = |packets: u64| u32::try_from(packets & u64::from(u32::MAX)).unwrap_or_default();
        Self {
            key: hasher.finish(),
            bytes_to: counters.to.bytes,
            bytes_from: counters.from.bytes,
            packets_to: low(counters.to.packets),
            packets_from: low(counters.from.packets),
        }
    }
}
