//! Traffic per second, from two looks at conntrack's counters.
//!
//! A sum over a backend's flows would jump by all that a flow ever carried when it begins or is forgotten, so each flow is
//! compared with itself: 32 bytes of memory for each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tcpgw_kernel::conntrack::{Counters, Flow, Traffic};

/// The first look.
#[derive(Debug, Default)]
pub struct First {
    samples: Vec<Sample>,
}

/// The second look, beside the first.
#[derive(Debug)]
pub struct Second {
    /// In order of key, each once.
    samples: Vec<Sample>,
    moved: Vec<Moved>,
    /// Flows without counters: they began before conntrack was told to count.
    pub uncounted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    key: u64,
    bytes_to: u64,
    bytes_from: u64,
    /// Modulo 2^32: a second has fewer.
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
    /// Merged packets count once.
    pub packets_per_second: f64,
    /// IP headers included.
    pub bytes_per_second: f64,
}

/// Traffic of a backend. Before its limit took its share: conntrack counts a packet when it comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// To it.
    pub to: Rate,
    /// From it.
    pub from: Rate,
}

impl Rates {
    /// These and others.
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

impl First {
    /// Notes a flow.
    pub fn note(&mut self, flow: &Flow) {
        if let Some(counters) = flow.counters {
            self.samples.push(Sample::of(flow, &counters));
        }
    }

    /// Ends the look. `places` is how many backends there are.
    pub fn end(mut self, places: usize) -> Second {
        // One that was shown twice stands twice: the later look has the larger counters.
        self.samples
            .sort_unstable_by_key(|sample| (sample.key, sample.bytes_to));
        self.samples.dedup_by(|later, kept| {
            let same = later.key == kept.key;
            if same {
                *kept = *later;
            }
            same
        });
        Second {
            samples: self.samples,
            moved: vec![Moved::default(); places],
            uncounted: 0,
        }
    }
}

impl Second {
    /// Adds what a flow has moved since the first look to the backend at that place: all it ever moved, if it is new. What
    /// one moved that was forgotten since is lost.
    pub fn note(&mut self, place: usize, flow: &Flow) {
        let Some(counters) = flow.counters else {
            self.uncounted += 1;
            return;
        };
        let now = Sample::of(flow, &counters);
        let moved = &mut self.moved[place];
        let then = self
            .samples
            .binary_search_by_key(&now.key, |sample| sample.key)
            .ok()
            .map(|at| &mut self.samples[at])
            // Else a client has used its port again, and the kernel its memory.
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
        // Should it be shown twice.
        *then = now;
    }

    /// The rates of the backend at that place, over the time between the begins of both looks.
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

/// So many in that time, to a tenth.
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

impl Sample {
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
