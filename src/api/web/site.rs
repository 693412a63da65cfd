//! Settings of the listener, with the contents of its files.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::api::listener::files::{acceptor, read_secret};
use crate::api::listener::tls_keys::TlsKeys;
use crate::api::listener::{FileError, Site};
use crate::config::web::WebSettings;
use crate::doctor::{Diagnosis, RunningDaemon};
use crate::secrets::{Owners, Secret};

/// Keys of the configuration that name the files of TLS.
const TLS_KEYS: TlsKeys = TlsKeys {
    certificate: "web.tls_cert",
    key: "web.tls_key",
};
/// Key of the configuration that names the file of the token.
const TOKEN_KEY: &str = "web.token_file";
/// Minimum and maximum length of a token, in bytes.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;

/// Examines the machine beside the daemon that runs; blocks for long.
pub type DiagnosisSource = Arc<dyn Fn(&RunningDaemon<'_>) -> Diagnosis + Send + Sync>;

/// Settings of the listener, with the contents of its files.
pub struct Web {
    pub(super) settings: WebSettings,
    pub(super) token: Option<Secret>,
    tls: Option<TlsAcceptor>,
    /// Doctor of this machine; `None`: nobody examines it.
    pub(super) diagnosis: Option<DiagnosisSource>,
}

impl Web {
    /// Reads the files that the settings name, if their owners are among these.
    ///
    /// # Errors
    /// Fails when one of the files is unreadable, has another owner or mode than it should, or has unusable contents.
    pub fn load(settings: &WebSettings, owners: &Owners) -> Result<Self, FileError> {
        let token = settings.token.as_deref().map(|path| {
            let text = read_secret(TOKEN_KEY, path, owners)?;
            token(&text).ok_or_else(|| FileError::Unusable {
                key: TOKEN_KEY,
                path: path.to_owned(),
                why: format!(
                    "must be one line of {} to {} printable ASCII characters without spaces, such as the output of `openssl rand -hex 32`",
                    TOKEN_LENGTHS.start(),
                    TOKEN_LENGTHS.end()
                ),
            })
        });
        Ok(Self {
            token: token.transpose()?,
            tls: acceptor(&settings.transport, TLS_KEYS, owners)?,
            settings: settings.clone(),
            diagnosis: None,
        })
    }

    /// Returns the settings with a doctor of this machine.
    #[must_use]
    pub fn diagnosed_by(self, source: DiagnosisSource) -> Self {
        Self {
            diagnosis: Some(source),
            ..self
        }
    }
}

impl Site for Web {
    fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    fn is_behind_proxy(&self) -> bool {
        self.settings.transport.is_behind_proxy()
    }
}

/// Returns the token in a file: its only line.
pub(super) fn token(text: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let is_plain = line.bytes().all(|byte| byte.is_ascii_graphic());
    (is_plain && TOKEN_LENGTHS.contains(&line.len())).then(|| Secret::from(line))
}
