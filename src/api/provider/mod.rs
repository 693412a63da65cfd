//! The add-on's provider APIs and its pages, over TCP: for platforms and for the browsers of apps' owners.
//!
//! The dialects themselves are [`crate::addon::dialect`]'s; here are credentials, bodies and pages. Everything that a client can
//! make grow is bounded.

mod handler;
mod messages;
mod page;
mod server;
mod session;
mod traffic;

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;

pub use self::server::serve;
use super::listener::files::{acceptor, read_secret};
use super::listener::tls_keys::TlsKeys;
use super::listener::{FileError, Site};
use crate::addon::credentials::{Credentials, CredentialsError, ProviderCredentials};
use crate::addon::settings::AddonSettings;
use crate::secrets::Owners;

/// Keys of the configuration that name the files of TLS.
const TLS_KEYS: TlsKeys = TlsKeys {
    certificate: "addon.tls_cert",
    key: "addon.tls_key",
};

/// Settings and credentials of the provider API.
pub struct ProviderApi {
    settings: AddonSettings,
    credentials: Credentials,
    tls: Option<TlsAcceptor>,
}

/// Reason why the provider API cannot be served.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file is not used.
    #[error(transparent)]
    File(#[from] FileError),
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
}

impl ProviderApi {
    /// Reads the files that the settings name, if their owners are among these.
    ///
    /// # Errors
    /// Fails with [`ProviderError`] when one of the files cannot be read, has contents that cannot be used, or
    /// belongs to another owner or has another mode than it should.
    pub fn load(settings: &AddonSettings, owners: &Owners) -> Result<Self, ProviderError> {
        let credentials = read_credentials(settings, owners)?;
        let tls = acceptor(&settings.transport, TLS_KEYS, owners)?;
        Ok(Self {
            settings: settings.clone(),
            credentials,
            tls,
        })
    }
}

impl Site for ProviderApi {
    fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    fn is_behind_proxy(&self) -> bool {
        self.settings.transport.is_behind_proxy()
    }
}

/// Reads the credentials file that the settings name, if its owner is among these.
///
/// # Errors
/// Fails with [`ProviderError`] when the file cannot be read, has contents that cannot be used, or belongs to
/// another owner or has another mode than it should.
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
/// Fails with [`ProviderError`] when the file cannot be read, has contents that cannot be used, or belongs to
/// another owner or has another mode than it should.
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
