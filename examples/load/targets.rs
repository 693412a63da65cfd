//! Ranges of addresses and ports, and a random choice from them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Consecutive addresses times consecutive ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    first: IpAddr,
    addresses: u32,
    port: u16,
    ports: u16,
}

/// A range of consecutive addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    first: IpAddr,
    count: u32,
}

/// Ranges, chosen from at random, each single target as likely as any other.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    ranges: Vec<Range>,
    total: u64,
    random: Random,
}

impl Targets {
    /// Returns a choice that `seed` and `thread` make repeatable.
    pub(crate) fn new(ranges: &[Range], seed: u64, thread: usize) -> Self {
        Self {
            ranges: ranges.to_vec(),
            total: ranges.iter().map(Range::len).sum(),
            random: Random::new(seed, thread),
        }
    }

    /// Returns one of the targets.
    pub(crate) fn pick(&mut self) -> SocketAddr {
        let mut number = self.random.below(self.total);
        for range in &self.ranges {
            if number < range.len() {
                return range.at(number);
            }
            number -= range.len();
        }
        self.ranges[0].at(0)
    }
}

impl Range {
    fn len(&self) -> u64 {
        u64::from(self.addresses) * u64::from(self.ports)
    }

    fn at(&self, number: u64) -> SocketAddr {
        let ports = u64::from(self.ports);
        let (address, port) = (number / ports, number % ports);
        let port = u16::try_from(u64::from(self.port) + port).unwrap_or(u16::MAX);
        SocketAddr::new(plus(self.first, address), port)
    }
}

impl Sources {
    /// Returns the address of that number, starting again after the last one.
    pub(crate) fn at(&self, number: usize) -> IpAddr {
        plus(self.first, number as u64 % u64::from(self.count))
    }
}

fn plus(address: IpAddr, number: u64) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let low = u32::try_from(number).unwrap_or(u32::MAX);
            IpAddr::V4(v4.to_bits().wrapping_add(low).into())
        }
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(number.into()).into()),
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ADDRESS[+COUNT]:PORT[+COUNT]");
        let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let Sources { first, count } = address.parse().map_err(|_| wrong())?;
        let (port, ports) = port.split_once('+').unwrap_or((port, "1"));
        let range = Self {
            first,
            addresses: count,
            port: port.parse().map_err(|_| wrong())?,
            ports: ports.parse().map_err(|_| wrong())?,
        };
        if range.ports == 0 || u32::from(range.port) + u32::from(range.ports) > 65536 {
            return Err(format!("{text:?} has no port, or ports above 65535"));
        }
        Ok(range)
    }
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ADDRESS[+COUNT]");
        let (address, count) = text.split_once('+').unwrap_or((text, "1"));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self {
            first: address.parse().map_err(|_| wrong())?,
            count,
        })
    }
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"): fast, and good enough
/// to spread connections.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64, thread: usize) -> Self {
        let mixed = (seed ^ (thread as u64) << 32)
            .wrapping_add(1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed.max(1))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * u128::from(end);
        (wide >> 64) as u64
    }
}
