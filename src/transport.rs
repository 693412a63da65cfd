//! Transport of a listener of the daemon: TLS, or plain HTTP where that is safe.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Transport of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// TLS, with the certificate chain and the key of these files (PEM).
    Tls {
        /// File of the certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// No TLS: a proxy in front encrypts, or the address is loopback.
    Plain {
        /// Whether a proxy tells the client's address.
        behind_proxy: bool,
    },
}

/// Reason why the keys of a listener do not make a transport. Each message names the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The listener would be open to the network without encryption.
    #[error(
        "{section}.listen is {listen}, which is not a loopback address: set {section}.tls_cert and {section}.tls_key, or \
         {section}.behind_proxy = true where a proxy encrypts"
    )]
    Open {
        /// Section of the configuration.
        section: &'static str,
        /// Address of the listener.
        listen: SocketAddr,
    },
    /// The kernel would choose another port at each start.
    #[error("{section}.listen is {listen}: name a port from 1 to 65535, by which clients find it")]
    NoPort {
        /// Section of the configuration.
        section: &'static str,
        /// Address of the listener.
        listen: SocketAddr,
    },
    /// No client can connect to the address.
    #[error(
        "{section}.listen is {listen}, {what}: name an address of this machine, or 0.0.0.0 or [::] for all of them"
    )]
    Nowhere {
        /// Section of the configuration.
        section: &'static str,
        /// Address of the listener.
        listen: SocketAddr,
        /// Kind of the address.
        what: &'static str,
    },
    /// One of the two files is missing.
    #[error("{0}.tls_cert and {0}.tls_key go together: set both or none")]
    HalfTls(&'static str),
    /// Both `tls_cert` and `behind_proxy` are set.
    #[error("{0}.behind_proxy and {0}.tls_cert exclude each other")]
    Both(&'static str),
}

impl Transport {
    /// Returns the transport that a section of the configuration describes: `tls_cert` and `tls_key` in `files`, and
    /// `behind_proxy`.
    ///
    /// # Errors
    /// Fails with [`TransportError`] when the keys contradict each other, leave an address that is not loopback without
    /// encryption, or name a port or an address to which no client can connect.
    pub fn new(
        section: &'static str,
        listen: SocketAddr,
        files: (Option<&Path>, Option<&Path>),
        behind_proxy: bool,
    ) -> Result<Self, TransportError> {
        if listen.port() == 0 {
            return Err(TransportError::NoPort { section, listen });
        }
        if let Some(what) = is_no_place(listen) {
            return Err(TransportError::Nowhere { section, listen, what });
        }
        match (files, behind_proxy) {
            ((Some(_), Some(_)), true) => Err(TransportError::Both(section)),
            ((Some(certificate), Some(key)), false) => Ok(Self::Tls {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            }),
            ((None, None), false) if !listen.ip().is_loopback() => Err(TransportError::Open { section, listen }),
            ((None, None), behind_proxy) => Ok(Self::Plain { behind_proxy }),
            ((Some(_), None) | (None, Some(_)), _) => Err(TransportError::HalfTls(section)),
        }
    }

    /// Returns whether a proxy tells the client's address.
    pub fn is_behind_proxy(&self) -> bool {
        *self == Self::Plain { behind_proxy: true }
    }

    /// Returns whether browsers use HTTPS.
    pub fn is_secure(&self) -> bool {
        *self != Self::Plain { behind_proxy: false }
    }

    /// Returns the files that it needs.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Tls { certificate, key } => vec![certificate.clone(), key.clone()],
            Self::Plain { .. } => Vec::new(),
        }
    }
}

/// Returns the kind of an address to which no client can connect; `None` for all others.
pub fn unreachable(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        address if address.is_unspecified() => Some("the address of no machine"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(address) if address.octets()[0] == 0 => Some("an address of no machine (0.0.0.0/8)"),
        IpAddr::V4(address) if address.octets()[0] >= 240 => Some("a reserved address (240.0.0.0/4)"),
        IpAddr::V4(address) if address.is_link_local() => Some("a link-local address, which is not routed"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("a link-local address, which needs a zone that a URL of TCP_URL does not have")
        }
        _ => None,
    }
}

/// Returns the kind of an address at which no client can reach a listener; `None` for all others.
fn is_no_place(listen: SocketAddr) -> Option<&'static str> {
    match listen {
        any if any.ip().is_unspecified() => None,
        SocketAddr::V4(four) if four.ip().is_link_local() => None,
        SocketAddr::V6(six) if six.ip().is_unicast_link_local() => {
            (six.scope_id() == 0).then_some("a link-local address without its zone, such as [fe80::1%2]")
        }
        other => unreachable(other.ip()),
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls { .. } => "TLS",
            Self::Plain { behind_proxy: true } => "behind a proxy",
            Self::Plain { behind_proxy: false } => "plain, on loopback",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_where_clients_can_reach_it() {
        let listens = |text: &str| Transport::new("web", text.parse().unwrap(), (None, None), true);
        for good in [
            "0.0.0.0:1",
            "[::]:1",
            "127.0.0.1:1",
            "203.0.113.1:1",
            "169.254.1.1:1",
            "[fe80::1%2]:1",
            "[2001:db8::1]:1",
        ] {
            assert!(listens(good).is_ok(), "{good}");
        }
        for bad in [
            "224.0.0.1:1",
            "255.255.255.255:1",
            "0.0.0.1:1",
            "240.0.0.1:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:224.0.0.1]:1",
        ] {
            let error = listens(bad).unwrap_err();
            assert!(matches!(error, TransportError::Nowhere { .. }), "{bad}: {error}");
        }
    }
}
