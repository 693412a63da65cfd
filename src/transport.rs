//! Transport of a listener of the daemon: TLS, or plain HTTP where that is safe.

use std::fmt;
use std::net::SocketAddr;
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
    /// Fails with [`TransportError`] when the keys contradict each other, or leave an address that is not loopback without
    /// encryption.
    pub fn new(
        section: &'static str,
        listen: SocketAddr,
        files: (Option<&Path>, Option<&Path>),
        behind_proxy: bool,
    ) -> Result<Self, TransportError> {
        if listen.port() == 0 {
            return Err(TransportError::NoPort { section, listen });
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

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls { .. } => "TLS",
            Self::Plain { behind_proxy: true } => "behind a proxy",
            Self::Plain { behind_proxy: false } => "plain, on loopback",
        })
    }
}
