//! Networks (CIDRs) as text.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::address::{self, AddressError};
use super::problem::Quoted;

/// Reason why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// The part before the slash is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The part after the slash is not a prefix length.
    #[error("{} has no prefix length; after the slash goes a number from 0 to {}", Quoted(.0), .1)]
    Prefix(String, u8),
    /// The address has bits set that the prefix does not cover.
    #[error("{} is an address inside a network; the network is {}, the address alone is {}", Quoted(.0), .1, .2)]
    HostBits(String, IpNet, IpAddr),
}

/// Reads a network such as `10.0.0.0/8` or `2001:db8::/32`; an address alone is a network of one address.
pub fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let Some((head, prefix)) = text.split_once('/') else {
        return Ok(IpNet::from(address::parse(text)?));
    };
    let address = address::parse(head)?;
    let longest = IpNet::from(address).max_prefix_len();
    let net = parse_prefix(prefix)
        .and_then(|prefix| IpNet::new(address, prefix).ok())
        .ok_or_else(|| NetworkError::Prefix(text.to_owned(), longest))?;
    if net.trunc() != net {
        return Err(NetworkError::HostBits(text.to_owned(), net.trunc(), address));
    }
    Ok(net)
}

/// Returns the fewest networks that cover the same addresses, sorted: IPv4 first, none inside another, neighbours
/// merged.
pub fn aggregate(networks: &Vec<IpNet>) -> Vec<IpNet> {
    let mut fewest = IpNet::aggregate(networks);
    fewest.sort_unstable();
    fewest.shrink_to_fit();
    fewest
}

fn parse_prefix(text: &str) -> Option<u8> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "1.2.3.4/32", "2001:db8::/32", "::/0"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("1.2.3.4").unwrap().to_string(), "1.2.3.4/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
    }

    #[test]
    fn wrong_networks_say_what_was_probably_meant() {
        let cases = [
            (
                "10.0.0.5/24",
                "the network is 10.0.0.0/24, the address alone is 10.0.0.5",
            ),
            ("2001:db8::1/64", "the network is 2001:db8::/64"),
            ("10.0.0.0/33", "a number from 0 to 32"),
            ("2001:db8::/129", "a number from 0 to 128"),
            ("10.0.0.0/", "a number from 0 to 32"),
            ("10.0.0.0/08", "a number from 0 to 32"),
            ("10.0.0.0/+8", "a number from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "a number from 0 to 32"),
            ("10.0.0.0/8/8", "a number from 0 to 32"),
            ("::ffff:10.0.0.0/104", "IPv4-mapped IPv6 address; write 10.0.0.0"),
            ("example.org", "is a host name"),
            ("010.0.0.0/8", "has leading zeros"),
            ("fe80::1%eth0/64", "has a zone id"),
            ("", "is not an IP address"),
            ("*", "is not an IP address"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn aggregation_merges_and_swallows() {
        let networks = [
            "10.1.0.0/16",
            "2001:db8::/32",
            "10.0.0.0/16",
            "10.1.2.3",
            "2001:db8:1::/48",
            "9.0.0.0/8",
        ];
        let networks: Vec<IpNet> = networks.iter().map(|text| parse(text).unwrap()).collect();
        let found: Vec<String> = aggregate(&networks).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["9.0.0.0/8", "10.0.0.0/15", "2001:db8::/32"]);
    }
}
