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
mod tls_words;
mod traffic;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, rustls};

pub(crate) use self::places::seats_within;
pub use self::server::{BACKLOG, serve};
use crate::addon::credentials::{Credentials, CredentialsError, ProviderCredentials};
use crate::addon::settings::{AddonSettings, Transport};
use crate::secrets::{self, Owners, SecretError};

/// Settings and credentials of the provider API.
pub struct Provider {
    settings: AddonSettings,
    credentials: Credentials,
    tls: Option<TlsAcceptor>,
}

/// Reason why the provider API cannot be served.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file cannot be read.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    File {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file of secrets is not used.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    Secret {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason why it is not used.
        source: Box<SecretError>,
    },
    /// The credentials cannot be used.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    Credentials {
        /// The key that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason why they cannot be used.
        source: CredentialsError,
    },
    /// Certificate or key cannot be used.
    #[error("{key} {}: {why}", tcpgw_core::escape::path(path))]
    Tls {
        /// The key that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Description of the error.
        why: String,
    },
}

impl Provider {
    /// Reads the files that the settings name, if their owners are among these.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub fn load(settings: &AddonSettings, owners: &Owners) -> Result<Self, ProviderError> {
        let credentials = read_credentials(settings, owners)?;
        let tls = match &settings.transport {
            Transport::Plain { .. } => None,
            Transport::Tls { certificate, key } => Some(acceptor(certificate, key, owners)?),
        };
        Ok(Self {
            settings: settings.clone(),
            credentials,
            tls,
        })
    }

    /// Returns whether a proxy tells the client's address.
    fn is_behind_proxy(&self) -> bool {
        self.settings.transport == Transport::Plain { behind_proxy: true }
    }

    /// Returns whether browsers use HTTPS.
    fn is_secure(&self) -> bool {
        self.settings.transport != Transport::Plain { behind_proxy: false }
    }
}

/// Reads the credentials file that the settings name, if its owner is among these.
///
/// # Errors
/// [`ProviderError`].
pub fn read_credentials(settings: &AddonSettings, owners: &Owners) -> Result<Credentials, ProviderError> {
    let path = &settings.credentials;
    let text = read_secret("addon.credentials", path, owners)?;
    let text = String::from_utf8(text).map_err(|_| CredentialsError::Format);
    let credentials = text.and_then(|text| Credentials::parse(&text));
    credentials.map_err(|source| ProviderError::Credentials {
        key: "addon.credentials",
        path: path.clone(),
        source,
    })
}

/// Reads a file of the credentials for another provider. `key` is the name of the file in errors. Its owner must be among
/// these, and no other user may read it.
///
/// # Errors
/// [`ProviderError`].
pub fn read_provider_credentials(
    key: &'static str,
    path: &Path,
    owners: &Owners,
) -> Result<ProviderCredentials, ProviderError> {
    let text = read_secret(key, path, owners)?;
    let text = String::from_utf8(text).map_err(|_| CredentialsError::ProviderFormat);
    let credentials = text.and_then(|text| ProviderCredentials::parse(&text));
    credentials.map_err(|source| ProviderError::Credentials {
        key,
        path: path.to_owned(),
        source,
    })
}

/// Expected contents of `addon.tls_cert`.
const CERTIFICATES: &str = "the server's certificate first, then those of the authorities between it and the root";

fn acceptor(certificate: &Path, key: &Path, owners: &Owners) -> Result<TlsAcceptor, ProviderError> {
    let wrong = |key: &'static str, path: &Path, why: &dyn std::fmt::Display| ProviderError::Tls {
        key,
        path: path.to_owned(),
        why: why.to_string(),
    };
    let chain = secrets::read_public(certificate, owners).map_err(|source| ProviderError::File {
        key: "addon.tls_cert",
        path: certificate.to_owned(),
        source,
    })?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain =
        chain.map_err(|error| wrong("addon.tls_cert", certificate, &tls_words::no_pem(&error, CERTIFICATES)))?;
    if chain.is_empty() {
        return Err(wrong(
            "addon.tls_cert",
            certificate,
            &tls_words::nothing_in_it("certificate", CERTIFICATES),
        ));
    }
    let secret = read_secret("addon.tls_key", key, owners)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| {
        let is_encrypted = String::from_utf8_lossy(&secret).contains("ENCRYPTED");
        wrong("addon.tls_key", key, &tls_words::no_key(&error, is_encrypted))
    })?;
    rustls::crypto::ring::sign::any_supported_type(&secret)
        .map_err(|error| wrong("addon.tls_key", key, &tls_words::other_key(&error)))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|error| wrong("addon.tls_cert", certificate, &tls_words::no_pair(&error, key)))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read_secret(key: &'static str, path: &Path, owners: &Owners) -> Result<Vec<u8>, ProviderError> {
    secrets::read(path, owners).map_err(|source| ProviderError::Secret {
        key,
        path: path.to_owned(),
        source: Box::new(source),
    })
}
