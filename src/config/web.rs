//! `[web]` in the configuration: the listener for metrics and the operator's pages.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;

use crate::transport::{Transport, TransportError};

/// The section `[web]` as it is written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSection {
    listen: SocketAddr,
    token_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    behind_proxy: bool,
}

/// The checked settings of the section `[web]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    /// Address that it listens on.
    pub listen: SocketAddr,
    /// Transport: TLS or plain.
    pub transport: Transport,
    /// File of the token that clients have to send; `None`: whoever can connect may read.
    pub token: Option<PathBuf>,
}

/// Reason why a section cannot be used. Each message names the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WebSettingsError {
    /// The listener would be open to the network without encryption, or its keys contradict each other.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Everybody who can reach the address could read.
    #[error(
        "web.listen is {0}, which is not a loopback address: set web.token_file, the file of a token that clients must send"
    )]
    Open(SocketAddr),
    /// Everybody who can reach the proxy could read.
    #[error(
        "web.behind_proxy needs web.token_file, the file of a token that clients must send: the proxy may be reached from anywhere"
    )]
    OpenProxy,
}

impl WebSection {
    /// Returns the checked settings.
    ///
    /// # Errors
    /// Fails with [`WebSettingsError`] when the listener would be open to the network without encryption or a token, or
    /// its keys contradict each other.
    pub fn check(self) -> Result<WebSettings, WebSettingsError> {
        let files = (self.tls_cert.as_deref(), self.tls_key.as_deref());
        let transport = Transport::new("web", self.listen, files, self.behind_proxy)?;
        if self.token_file.is_none() {
            if !self.listen.ip().is_loopback() {
                return Err(WebSettingsError::Open(self.listen));
            }
            if self.behind_proxy {
                return Err(WebSettingsError::OpenProxy);
            }
        }
        Ok(WebSettings {
            listen: self.listen,
            transport,
            token: self.token_file,
        })
    }
}

impl WebSettings {
    /// Returns the files that it needs.
    pub fn files(&self) -> Vec<PathBuf> {
        self.token.iter().cloned().chain(self.transport.files()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<WebSettings, String> {
        let section: WebSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.check().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_open_to_the_network_without_token_and_encryption() {
        let (loopback, open) = ("listen = '127.0.0.1:9464'", "listen = '0.0.0.0:9464'");
        let (token, tls) = ("token_file = 't'", "tls_cert = 'c'\ntls_key = 'k'");
        for good in [
            loopback.to_owned(),
            "listen = '[::1]:9464'".to_owned(),
            format!("{loopback}\n{token}"),
            format!("{loopback}\n{tls}"),
            format!("{open}\n{token}\n{tls}"),
            format!("{open}\n{token}\nbehind_proxy = true"),
            format!("{loopback}\n{token}\nbehind_proxy = true"),
        ] {
            check(&good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for (bad, expected) in [
            (open.to_owned(), "web.tls_cert and web.tls_key, or web.behind_proxy"),
            (format!("{open}\n{token}"), "not a loopback address"),
            (format!("{open}\n{tls}"), "set web.token_file"),
            (format!("{open}\nbehind_proxy = true"), "set web.token_file"),
            (format!("{loopback}\nbehind_proxy = true"), "needs web.token_file"),
            (format!("{loopback}\ntls_key = 'k'"), "go together"),
            (
                format!("{loopback}\n{token}\n{tls}\nbehind_proxy = true"),
                "exclude each other",
            ),
            (format!("{loopback}\nunknown = 1"), "unknown field"),
            ("listen = 9464".to_owned(), "invalid"),
            ("listen = '127.0.0.1:0'".to_owned(), "web.listen is 127.0.0.1:0"),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
