//! The add-on's provider APIs and its pages, over TCP: for platforms and for the browsers of apps' owners.
//!
//! The dialects themselves are [`crate::addon::dialect`]'s; here are connections, credentials, bodies and time-outs. Everything
//! that a client can make grow is bounded.

mod handler;
mod messages;
mod page;
mod places;
mod server;
mod session;
mod traffic;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, rustls};

pub use self::server::serve;
use crate::addon::credentials::{Credentials, CredentialsError, ProviderCredentials};
use crate::addon::settings::{Settings, Transport};

/// The largest credentials file, certificate chain or key.
const MAX_FILE: u64 = 256 << 10;

/// What is served, and to whom.
pub struct Provider {
    settings: Settings,
    credentials: Credentials,
    tls: Option<TlsAcceptor>,
}

/// Why the provider API cannot be served.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file cannot be read.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    File {
        /// The key that names it.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "{key} {}: others than its owner may read or write it (mode {mode:04o}): chmod 600 it",
        tcpgw_core::escape::path(path)
    )]
    Readable {
        /// The key that names it.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "{key} {}: belongs to user {uid}, who is neither root nor the user that reads it",
        tcpgw_core::escape::path(path)
    )]
    Foreign {
        /// The key that names it.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The credentials cannot be used.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    Credentials {
        /// The key that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Why.
        source: CredentialsError,
    },
    /// Certificate or key cannot be used.
    #[error("{key} {}: {why}", tcpgw_core::escape::path(path))]
    Tls {
        /// The key that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Provider {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub fn load(settings: &Settings) -> Result<Self, ProviderError> {
        let credentials = read_credentials(settings)?;
        let tls = match &settings.transport {
            Transport::Plain { .. } => None,
            Transport::Tls { certificate, key } => Some(acceptor(certificate, key)?),
        };
        Ok(Self {
            settings: settings.clone(),
            credentials,
            tls,
        })
    }

    /// Whether a proxy tells the client's address.
    fn is_behind_proxy(&self) -> bool {
        self.settings.transport == Transport::Plain { behind_proxy: true }
    }

    /// Whether browsers come by HTTPS.
    fn is_secure(&self) -> bool {
        self.settings.transport != Transport::Plain { behind_proxy: false }
    }
}

/// Reads the credentials file that the settings name.
///
/// # Errors
/// [`ProviderError`].
pub fn read_credentials(settings: &Settings) -> Result<Credentials, ProviderError> {
    let path = &settings.credentials;
    let text = read_secret("addon.credentials", path)?;
    let text = String::from_utf8(text).map_err(|_| CredentialsError::Format);
    let credentials = text.and_then(|text| Credentials::parse(&text));
    credentials.map_err(|source| ProviderError::Credentials {
        key: "addon.credentials",
        path: path.clone(),
        source,
    })
}

/// Reads a file of the credentials for another provider. `key` is how errors call the file. It must be this user's or root's, and
/// nobody else may read it.
///
/// # Errors
/// [`ProviderError`].
pub fn read_provider_credentials(key: &'static str, path: &Path) -> Result<ProviderCredentials, ProviderError> {
    let text = read_secret(key, path)?;
    let text = String::from_utf8(text).map_err(|_| CredentialsError::ProviderFormat);
    let credentials = text.and_then(|text| ProviderCredentials::parse(&text));
    credentials.map_err(|source| ProviderError::Credentials {
        key,
        path: path.to_owned(),
        source,
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ProviderError> {
    let wrong = |key: &'static str, path: &Path, why: &dyn std::fmt::Display| ProviderError::Tls {
        key,
        path: path.to_owned(),
        why: why.to_string(),
    };
    let chain = read("addon.tls_cert", certificate)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|why| wrong("addon.tls_cert", certificate, &why))?;
    let secret = read_secret("addon.tls_key", key)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|why| wrong("addon.tls_key", key, &why))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|why| wrong("addon.tls_cert", certificate, &why))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ProviderError> {
    let unreadable = |source| ProviderError::File {
        key,
        path: path.to_owned(),
        source,
    };
    let file = open(path).map_err(unreadable)?;
    contents(file).map_err(unreadable)
}

/// Reads a file that nobody but its owner may.
fn read_secret(key: &'static str, path: &Path) -> Result<Vec<u8>, ProviderError> {
    let unreadable = |source| ProviderError::File {
        key,
        path: path.to_owned(),
        source,
    };
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ProviderError::Readable {
            key,
            path: path.to_owned(),
            mode,
        });
    }
    let uid = metadata.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(ProviderError::Foreign {
            key,
            path: path.to_owned(),
            uid,
        });
    }
    contents(file).map_err(unreadable)
}

/// Opens a regular file; a pipe in its place does not make anybody wait.
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok(file)
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("is larger than 256 KiB"));
    }
    Ok(bytes)
}
