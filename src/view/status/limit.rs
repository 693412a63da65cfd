//! A limit, and the used fraction of it.

use serde::{Deserialize, Serialize};

use crate::view::flow_rates::{Rate, Rates};
use tcpgw_core::model::{Limit, LimitDirection};

/// View of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Packets per second.
    pub packets_per_second: u32,
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Number of packets that may pass at once after a pause.
    pub burst: u32,
    /// Whether both directions share the limit.
    pub shared: bool,
}

impl From<Limit> for LimitView {
    fn from(limit: Limit) -> Self {
        Self {
            packets_per_second: limit.pps,
            bytes_per_second: limit.bytes_per_second(),
            burst: limit.burst,
            shared: limit.direction == LimitDirection::Shared,
        }
    }
}

/// Used fraction of a limit; 1 is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OfLimit {
    /// Fraction of traffic to the backend.
    pub to: Option<f64>,
    /// Fraction of traffic from the backend.
    pub from: Option<f64>,
    /// Fraction of traffic of both directions, for a shared limit.
    pub shared: Option<f64>,
}

impl OfLimit {
    /// Returns the fraction of a limit that traffic uses: of its packets or its bytes, whichever is larger.
    pub fn new(rates: Rates, limit: LimitView) -> Self {
        let part = |rate: Rate| {
            #[expect(clippy::cast_precision_loss, reason = "a part is rounded anyway")]
            let bytes = rate.bytes_per_second / limit.bytes_per_second.max(1) as f64;
            let packets = rate.packets_per_second / f64::from(limit.packets_per_second.max(1));
            (bytes.max(packets) * 1000.0).round() / 1000.0
        };
        if limit.shared {
            let both = Rate {
                packets_per_second: rates.to.packets_per_second + rates.from.packets_per_second,
                bytes_per_second: rates.to.bytes_per_second + rates.from.bytes_per_second,
            };
            return Self {
                shared: Some(part(both)),
                ..Self::default()
            };
        }
        Self {
            to: Some(part(rates.to)),
            from: Some(part(rates.from)),
            shared: None,
        }
    }

    /// Returns the largest fraction.
    pub fn most(&self) -> f64 {
        [self.to, self.from, self.shared]
            .into_iter()
            .flatten()
            .fold(0.0, f64::max)
    }
}
