//! The clocks that the daemon reads.

use std::time::{Instant, SystemTime};

use crate::control::core::Now;
use crate::record::since_boot;

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            unix: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            boot: since_boot(),
        }
    }
}
