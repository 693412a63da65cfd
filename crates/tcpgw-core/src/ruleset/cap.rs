//! Caps on flows and handshakes, and the names of their sets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A cap. Services with the same client cap share a rule and the set that counts; a cap of flows belongs to one
/// service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cap {
    /// Largest number of handshakes per second that each client may begin.
    ClientHandshakes(u32),
    /// Largest number of concurrent flows of each client.
    ClientFlows(u32),
    /// Largest number of concurrent flows of one service.
    Flows(FlowCap),
}

/// Cap of the flows of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowCap {
    /// Largest number of flows.
    pub flows: u32,
    /// Port of the service.
    pub port: u16,
    /// First of its addresses; `None` if it listens on all.
    pub address: Option<IpAddr>,
}

/// Largest number of clients that one set counts. Clients that do not fit are not capped: spoofed addresses must not
/// lock everyone out.
pub const CLIENT_SET_SIZE: u32 = 1 << 16;

/// Time in milliseconds after which the rate of a silent client is forgotten; its bucket is full by then.
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
    /// Returns the cap with this name; `None` if the name is not that of a cap.
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
