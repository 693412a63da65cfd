//! Random numbers that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::number;

/// Numbers that a seed repeats: Steele, Lea and Flood's `SplitMix64`.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Makes a generator with the seed in `TCPGW_SEED`, or from the clock, and prints the seed.
    pub(crate) fn seeded() -> Self {
        let seed = number("TCPGW_SEED").map_or_else(|| u64::from(now().subsec_nanos()), |seed| seed as u64);
        eprintln!("TCPGW_SEED={seed}");
        Self(seed)
    }

    /// Makes a generator with this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    pub(crate) fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits")) / f64::from(u32::MAX)
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
}
