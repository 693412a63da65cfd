//! Bounds that an operator sets for states: ports, networks, numbers.

use std::fmt;
use std::num::{NonZeroU16, NonZeroUsize};

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::network;

/// Bounds that no state may exceed; `None` where none was set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fences {
    /// The public ports that services may have; never empty. Not set: 1024 to 65535.
    #[serde(default, deserialize_with = "deserialize_ports")]
    pub ports: Option<Vec<PortRange>>,
    /// The networks that backends may be in; never empty, aggregated. Not set: all.
    #[serde(default, deserialize_with = "deserialize_networks")]
    pub backends: Option<Vec<IpNet>>,
    /// Largest number of services.
    pub max_services: Option<NonZeroUsize>,
    /// Largest number of backends of all services together.
    pub max_backends: Option<NonZeroUsize>,
}

impl Fences {
    /// Returns whether services may have this port.
    pub fn allow_port(&self, port: NonZeroU16) -> bool {
        let ranges = self.ports.as_deref().unwrap_or(&[PortRange::DEFAULT]);
        ranges.iter().any(|range| range.contains(port))
    }
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// The range 1024 to 65535.
    pub const DEFAULT: Self = Self {
        first: NonZeroU16::new(1024).unwrap(),
        last: NonZeroU16::MAX,
    };

    /// Returns the range from the first port to the last; `None` if the last is below the first.
    pub fn new(first: NonZeroU16, last: NonZeroU16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Returns the ports, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = NonZeroU16> {
        (self.first.get()..=self.last.get()).filter_map(NonZeroU16::new)
    }

    /// Returns the first and the last port.
    pub fn bounds(self) -> (NonZeroU16, NonZeroU16) {
        (self.first, self.last)
    }

    /// Returns whether the port is in the range.
    pub fn contains(self, port: NonZeroU16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

const PORTS: &str = "a port from 1 to 65535, or a range like \"1024-65535\"";

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RangeVisitor;

        impl Visitor<'_> for RangeVisitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PORTS)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<PortRange, E> {
                let port = u16::try_from(value).ok().and_then(NonZeroU16::new);
                port.map(|port| PortRange {
                    first: port,
                    last: port,
                })
                .ok_or_else(|| E::custom(format_args!("must be {PORTS}, not {value}")))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<PortRange, E> {
                parse_range(value).ok_or_else(|| E::custom(format_args!("must be {PORTS}, not {value:?}")))
            }
        }

        deserializer.deserialize_any(RangeVisitor)
    }
}

/// Reads one range or a list of them.
fn deserialize_ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PortRange>>, D::Error> {
    one_or_many(deserializer).and_then(not_empty).map(Some)
}

/// Reads one network or a list of them.
fn deserialize_networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let networks = one_or_many::<ParsedNetwork, _>(deserializer).and_then(not_empty)?;
    Ok(Some(network::aggregate(
        &networks.into_iter().map(|network| network.0).collect(),
    )))
}

struct ParsedNetwork(IpNet);

impl<'de> Deserialize<'de> for ParsedNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        network::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

fn not_empty<T, E: Error>(items: Vec<T>) -> Result<Vec<T>, E> {
    if items.is_empty() {
        return Err(E::custom(
            "is empty, which would refuse everything; leave it out for the default",
        ));
    }
    Ok(items)
}

fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Items<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one value or a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|item| vec![item])
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<Vec<T>, E> {
            T::deserialize(serde::de::value::I64Deserializer::new(value)).map(|item| vec![item])
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<Vec<T>, E> {
            T::deserialize(serde::de::value::StrDeserializer::new(value)).map(|item| vec![item])
        }
    }

    deserializer.deserialize_any(Items(std::marker::PhantomData))
}

fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    (first <= last).then_some(PortRange { first, last })
}

fn parse_port(text: &str) -> Option<NonZeroU16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}
