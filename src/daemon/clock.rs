//! The clocks that the daemon reads.

use std::time::Instant;

use crate::control::core::Now;
use crate::date::since_1970;
use crate::record::since_boot;

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            unix: since_1970(),
            boot: since_boot(),
        }
    }
}
