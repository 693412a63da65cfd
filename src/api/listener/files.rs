//! Files of a listener: secrets, and the certificate and key of TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, rustls};

use super::tls_keys::TlsKeys;
use super::tls_words;
use crate::secrets::{self, Owners, SecretError};
use crate::transport::Transport;

/// Expected contents of the file of the certificate.
const CERTIFICATES: &str = "the server's certificate first, then those of the authorities between it and the root";

/// Reason why a file of a listener is not used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    Unreadable {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file of secrets is not used.
    #[error("{key} {}: {source}", tcpgw_core::escape::path(path))]
    Secret {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason why it is not used.
        source: Box<SecretError>,
    },
    /// The contents of the file cannot be used.
    #[error("{key} {}: {why}", tcpgw_core::escape::path(path))]
    Unusable {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Description of the error.
        why: String,
    },
}

impl FileError {
    /// Returns whether the cause is that this user may not read the file.
    pub fn is_denied(&self) -> bool {
        let is_denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Unreadable { source, .. } => is_denied(source),
            Self::Secret { source, .. } => {
                matches!(&**source, SecretError::Unreadable(source) if is_denied(source))
            }
            Self::Unusable { .. } => false,
        }
    }
}

/// Reads a file of secrets, if its owner is among these and no other user may read it. `key` names the file in errors.
///
/// # Errors
/// Fails with [`FileError::Secret`] when the file cannot be read, or has another owner or mode than it should.
pub(in crate::api) fn read_secret(key: &'static str, path: &Path, owners: &Owners) -> Result<Vec<u8>, FileError> {
    secrets::read(path, owners).map_err(|source| FileError::Secret {
        key,
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Reads the files of a transport. `None`: it has no TLS.
///
/// # Errors
/// Fails when the certificate or the key is unreadable, has another owner or mode than it should, or has unusable contents.
pub(in crate::api) fn acceptor(
    transport: &Transport,
    keys: TlsKeys,
    owners: &Owners,
) -> Result<Option<TlsAcceptor>, FileError> {
    let Transport::Tls { certificate, key } = transport else {
        return Ok(None);
    };
    let wrong = |key: &'static str, path: &Path, why: &dyn std::fmt::Display| FileError::Unusable {
        key,
        path: path.to_owned(),
        why: why.to_string(),
    };
    let wrong_certificate = |why: &dyn std::fmt::Display| wrong(keys.certificate, certificate, why);
    let chain = secrets::read_public(certificate, owners).map_err(|source| FileError::Unreadable {
        key: keys.certificate,
        path: certificate.clone(),
        source,
    })?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| wrong_certificate(&tls_words::no_pem(&error, CERTIFICATES)))?;
    if chain.is_empty() {
        return Err(wrong_certificate(&tls_words::nothing_in_it(
            "certificate",
            CERTIFICATES,
        )));
    }
    let secret = read_secret(keys.key, key, owners)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| {
        let is_encrypted = String::from_utf8_lossy(&secret).contains("ENCRYPTED");
        wrong(keys.key, key, &tls_words::no_key(&error, is_encrypted, keys))
    })?;
    rustls::crypto::ring::sign::any_supported_type(&secret)
        .map_err(|error| wrong(keys.key, key, &tls_words::other_key(&error)))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|error| wrong_certificate(&tls_words::no_pair(&error, key, keys)))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
