//! Addresses and endpoints as text, and rules about which addresses are accepted for what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use thiserror::Error;

use super::Endpoint;
use super::problem::Quoted;

/// Reason why a text is not an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The text is not an address.
    #[error("{} is not an IP address", Quoted(.0))]
    Malformed(String),
    /// The text is a host name; tcpgw resolves none.
    #[error("{} is a host name, which is not resolved; write an IP address", Quoted(.0))]
    HostName(String),
    /// The address has a zone, as in `fe80::1%eth0`.
    #[error("{} has a zone id; write the address without it", Quoted(.0))]
    ZoneId(String),
    /// The address is an IPv4-mapped IPv6 address, as `::ffff:10.0.0.1`.
    #[error("{} is an IPv4-mapped IPv6 address; write {}", Quoted(.0), .1)]
    Mapped(String, Ipv4Addr),
    /// The address has leading zeros, as `010.0.0.1`, which some programs read as octal.
    #[error("{} has leading zeros, which could be octal; write the numbers without them", Quoted(.0))]
    LeadingZeros(String),
    /// The address has brackets although no port follows, as `[2001:db8::1]`.
    #[error("{} is in brackets; write the address alone", Quoted(.0))]
    Bracketed(String),
    /// The text is a network, as `10.0.0.0/24`, where one address is expected.
    #[error("{} is a network; write one address", Quoted(.0))]
    Network(String),
    /// The text has a port, as `10.0.0.1:80`, where only an address is expected.
    #[error("{} has a port in it; write the address alone", Quoted(.0))]
    WithPort(String),
}

/// Reason why a text is not `IP:port` or `[IP6]:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// The part before the port is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The text is an address without a port.
    #[error("{} has no port; write {}", Quoted(.0), .1)]
    MissingPort(String, String),
    /// The IPv6 address has no brackets, as `2001:db8::1:80`, so that its last part may or may not be a port.
    #[error("{} has an IPv6 address without brackets; write [IP6]:port", Quoted(.0))]
    Unbracketed(String),
    /// The IPv4 address has brackets, as `[10.0.0.1]:80`.
    #[error("{} has brackets, which are for IPv6; write IP:port", Quoted(.0))]
    NeedlessBrackets(String),
    /// The port is not a number from 1 to 65535.
    #[error("{} is not a port; must be a number from 1 to 65535", Quoted(.0))]
    Port(String),
    /// The text has neither of the two forms.
    #[error("{} is not an endpoint; write IP:port or [IP6]:port", Quoted(.0))]
    Malformed(String),
}

/// Reads one IPv4 or IPv6 address.
pub fn parse(text: &str) -> Result<IpAddr, AddressError> {
    let rendered = || text.to_owned();
    if let Ok(address) = text.parse::<IpAddr>() {
        return match address {
            IpAddr::V6(v6) => v6
                .to_ipv4_mapped()
                .map_or(Ok(address), |v4| Err(AddressError::Mapped(rendered(), v4))),
            IpAddr::V4(_) => Ok(address),
        };
    }
    if text.contains('%') {
        return Err(AddressError::ZoneId(rendered()));
    }
    if text.contains('/') {
        return Err(AddressError::Network(rendered()));
    }
    if text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|t| t.parse::<Ipv6Addr>().is_ok())
    {
        return Err(AddressError::Bracketed(rendered()));
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Err(AddressError::WithPort(rendered()));
    }
    if has_leading_zeros(text) {
        return Err(AddressError::LeadingZeros(rendered()));
    }
    if is_host_name(text) {
        return Err(AddressError::HostName(rendered()));
    }
    Err(AddressError::Malformed(rendered()))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `IP:port` or `[IP6]:port`. Does not check whether the address is accepted for a backend: see
    /// [`refusal_as_backend`].
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => bracketed(text, rest)?,
            None => plain(text)?,
        };
        Ok(Self {
            address,
            port: parse_port(port)?,
        })
    }
}

/// Returns the kind of the address, if addresses of this kind are not accepted for backends.
pub fn refusal_as_backend(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address, where clouds keep their metadata"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 && !v4.is_broadcast() => Some("a reserved address (240.0.0.0/4)"),
        _ => refusal_as_local(address),
    }
}

/// Returns the kind of the address, if a service cannot listen on addresses of this kind.
pub fn refusal_as_local(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an address of \"this network\" (0.0.0.0/8)"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address (fe80::/10)"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        _ => None,
    }
}

fn bracketed<'a>(text: &str, rest: &'a str) -> Result<(IpAddr, &'a str), EndpointError> {
    let (inside, after) = rest
        .split_once(']')
        .ok_or_else(|| EndpointError::Malformed(text.to_owned()))?;
    if inside.parse::<Ipv4Addr>().is_ok() {
        return Err(EndpointError::NeedlessBrackets(text.to_owned()));
    }
    let address = parse(inside)?;
    match after.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if after.is_empty() => Err(EndpointError::MissingPort(text.to_owned(), format!("[{address}]:port"))),
        None => Err(EndpointError::Malformed(text.to_owned())),
    }
}

fn plain(text: &str) -> Result<(IpAddr, &str), EndpointError> {
    let Some((head, port)) = text.rsplit_once(':') else {
        return Err(match parse(text) {
            Ok(address) => EndpointError::MissingPort(text.to_owned(), format!("{address}:port")),
            Err(AddressError::Malformed(text)) => EndpointError::Malformed(text),
            Err(error) => error.into(),
        });
    };
    if !head.contains(':') {
        return Ok((parse(head)?, port));
    }
    let without_zone = text.split('%').next().unwrap_or(text);
    if text.contains('%') && without_zone.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressError::ZoneId(text.to_owned()).into());
    }
    if head.parse::<Ipv6Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Err(EndpointError::Unbracketed(text.to_owned()));
    }
    Err(EndpointError::Malformed(text.to_owned()))
}

fn parse_port(text: &str) -> Result<NonZeroU16, EndpointError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| EndpointError::Port(text.to_owned()))
}

fn has_leading_zeros(text: &str) -> bool {
    let parts = || text.split('.');
    parts().count() == 4
        && parts().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        && parts().any(|part| part.len() > 1 && part.starts_with('0'))
}

fn is_host_name(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_as_they_are_shown() {
        for text in ["10.2.0.11:3000", "[2001:db8::1]:65535", "1.2.3.4:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_wrong_endpoint_has_its_own_message() {
        let cases = [
            ("", "is not an endpoint"),
            ("10.0.0.1", "has no port; write 10.0.0.1:port"),
            ("[2001:db8::1]", "has no port; write [2001:db8::1]:port"),
            ("10.0.0.1:", "\"\" is not a port"),
            ("10.0.0.1:0", "\"0\" is not a port; must be a number from 1 to 65535"),
            ("10.0.0.1:65536", "\"65536\" is not a port"),
            ("10.0.0.1:+80", "\"+80\" is not a port"),
            ("10.0.0.1:080", "\"080\" is not a port"),
            ("10.0.0.1: 80", "\" 80\" is not a port"),
            ("10.0.0.1:99999999999999999999", "is not a port"),
            ("web:80", "\"web\" is a host name"),
            ("web.example.org", "is a host name"),
            ("localhost:80", "is a host name"),
            (":80", "\"\" is not an IP address"),
            ("2001:db8::1:80", "without brackets; write [IP6]:port"),
            ("2001:db8::1", "without brackets"),
            ("fe80::1%eth0", "has a zone id"),
            ("[fe80::1%eth0]:80", "has a zone id"),
            ("[::ffff:10.0.0.1]:80", "is an IPv4-mapped IPv6 address; write 10.0.0.1"),
            ("[::ffff:a00:1]:80", "is an IPv4-mapped IPv6 address; write 10.0.0.1"),
            ("[10.0.0.1]:80", "has brackets, which are for IPv6"),
            ("[2001:db8::1", "is not an endpoint"),
            ("[2001:db8::1]80", "is not an endpoint"),
            ("010.0.0.1:80", "has leading zeros"),
            ("10.0.00.1:80", "has leading zeros"),
            ("10.0.0.256:80", "\"10.0.0.256\" is not an IP address"),
            ("10.0.0:80", "is not an IP address"),
            ("10.0.0.1/32:80", "is a network"),
            ("a:b:c", "is not an endpoint"),
            (" 10.0.0.1:80", "is not an IP address"),
        ];
        for (text, message) in cases {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn each_wrong_address_has_its_own_message() {
        let cases = [
            ("", "is not an IP address"),
            ("[2001:db8::1]", "is in brackets"),
            ("10.0.0.1:80", "has a port in it"),
            ("10.0.0.0/24", "is a network; write one address"),
            ("fe80::1%2", "has a zone id"),
            ("gateway", "is a host name"),
            ("::ffff:1.2.3.4", "IPv4-mapped"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn some_addresses_cannot_be_backends() {
        let refused = [
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("0.1.2.3", "0.0.0.0/8"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("ff02::1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.254", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:1.2.3.4", "mapped"),
        ];
        for (text, kind) in refused {
            let refusal = refusal_as_backend(text.parse().unwrap());
            assert!(refusal.is_some_and(|r| r.contains(kind)), "{text}: {refusal:?}");
        }
        for text in [
            "10.0.0.1",
            "1.0.0.0",
            "223.255.255.255",
            "169.253.0.1",
            "fd00::1",
            "fec0::1",
            "2001:db8::1",
        ] {
            assert_eq!(refusal_as_backend(text.parse().unwrap()), None, "{text}");
        }
        assert_eq!(refusal_as_local("169.254.1.1".parse().unwrap()), None);
    }
}
