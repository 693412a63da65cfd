//! A limit, and how much of it is used.

use serde::{Deserialize, Serialize};

use crate::view::rates::{Rate, Rates};
use tcpgw_core::model::{Limit, LimitDirection};

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Packets per second.
    pub packets_per_second: u32,
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Packets at once after a pause.
    pub burst: u32,
    /// Whether both directions share it.
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

/// How much of a limit is used; 1 is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OfLimit {
    /// To the backend.
    pub to: Option<f64>,
    /// From it.
    pub from: Option<f64>,
    /// Both, of a shared limit.
    pub shared: Option<f64>,
}

impl OfLimit {
    /// Returns how much of a limit that traffic is: of its packets or its bytes, whichever is more.
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

    /// The larger of what there is.
    pub fn most(&self) -> f64 {
        [self.to, self.from, self.shared]
            .into_iter()
            .flatten()
            .fold(0.0, f64::max)
    }
}
