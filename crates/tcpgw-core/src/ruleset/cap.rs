//! Caps on flows and handshakes: how they are told apart, and how their sets are called.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A cap. Services with the same cap of clients share a rule and the set that counts; a cap of flows is one service's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cap {
    /// How many handshakes per second each client may begin.
    ClientHandshakes(u32),
    /// How many flows each client may have.
    ClientFlows(u32),
    /// How many flows a service may have.
    Flows(FlowCap),
}

/// How many flows one service may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowCap {
    /// So many.
    pub flows: u32,
    /// The service's port.
    pub port: u16,
    /// The first of its addresses; `None` where it listens on every one.
    pub address: Option<IpAddr>,
}

/// The most clients that one set counts. Those that do not fit are not capped: whoever invents addresses must not shut everybody out.
pub const CLIENT_SET_SIZE: u32 = 1 << 16;

/// Milliseconds until the rate of a client that is silent is forgotten; its bucket is full by then.
pub const CLIENT_MILLISECONDS: u64 = 10_000;

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientHandshakes(rate) => write!(f, "handshakes_{rate}"),
            Self::ClientFlows(flows) => write!(f, "client_flows_{flows}"),
            Self::Flows(FlowCap { flows, port, address }) => {
                write!(f, "flows_{flows}_{port}")?;
                match address {
                    None => Ok(()),
                    Some(IpAddr::V4(address)) => write!(f, "_{:08x}", address.to_bits()),
                    Some(IpAddr::V6(address)) => write!(f, "_{:032x}", address.to_bits()),
                }
            }
        }
    }
}

impl Cap {
    /// The cap of that name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        let parsed = if let Some(rest) = name.strip_prefix("handshakes_") {
            Self::ClientHandshakes(number(rest)?)
        } else if let Some(rest) = name.strip_prefix("client_flows_") {
            Self::ClientFlows(number(rest)?)
        } else {
            let mut parts = name.strip_prefix("flows_")?.split('_');
            let (flows, port) = (number(parts.next()?)?, parts.next()?.parse().ok()?);
            let address = match parts.next() {
                None => None,
                Some(hex) if hex.len() == 8 => Some(Ipv4Addr::from_bits(u32::from_str_radix(hex, 16).ok()?).into()),
                Some(hex) => Some(Ipv6Addr::from_bits(u128::from_str_radix(hex, 16).ok()?).into()),
            };
            Self::Flows(FlowCap { flows, port, address })
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        let flows = |address: Option<&str>| {
            Cap::Flows(FlowCap {
                flows: 1000,
                port: 20_003,
                address: address.map(|text| text.parse().unwrap()),
            })
        };
        for (cap, name) in [
            (Cap::ClientHandshakes(20), "handshakes_20"),
            (Cap::ClientFlows(7), "client_flows_7"),
            (flows(None), "flows_1000_20003"),
            (flows(Some("203.0.113.1")), "flows_1000_20003_cb007101"),
            (
                flows(Some("2001:db8::1")),
                "flows_1000_20003_20010db8000000000000000000000001",
            ),
        ] {
            assert_eq!((cap.to_string().as_str(), Cap::parse(name)), (name, Some(cap)));
        }
        for foreign in [
            "handshakes_0",
            "handshakes_020",
            "flows_1",
            "flows_1_2_3",
            "flows_1_2_cb007101_",
            "to_v4",
        ] {
            assert_eq!(Cap::parse(foreign), None, "{foreign}");
        }
    }
}
