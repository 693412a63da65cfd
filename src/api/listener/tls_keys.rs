//! Names of the files of TLS in the configuration.

/// Keys of the configuration that name the files of TLS.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct TlsKeys {
    /// Key of the file of the certificate.
    pub(in crate::api) certificate: &'static str,
    /// Key of the file of the private key.
    pub(in crate::api) key: &'static str,
}
