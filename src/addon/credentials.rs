//! The user name and password by which platforms authenticate themselves, and the salt of their single sign-on.

use serde::Deserialize;
use thiserror::Error;

use crate::secrets::Secret;

/// Minimum length of the password and of the salt, in bytes.
pub const MIN_SECRET: usize = 16;

/// Contents of a credentials file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user name.
    pub username: Secret,
    /// The password.
    pub password: Secret,
    /// The salt of single sign-on tokens.
    pub sso_salt: Secret,
}

/// The credentials by which this program acts as a platform towards another provider. Their minimum lengths are the provider's
/// matter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderCredentials {
    /// The user name.
    pub username: Secret,
    /// The password.
    pub password: Secret,
    /// The salt of single sign-on tokens, if the provider has single sign-on.
    pub sso_salt: Option<Secret>,
}

impl ProviderCredentials {
    /// Reads the text of the file with the credentials of the add-on.
    ///
    /// # Errors
    /// Fails with [`CredentialsError`] when the text is not TOML with the three keys, or a value is not usable.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let credentials: Self = toml::from_str(text).map_err(|_| CredentialsError::ProviderFormat)?;
        check_username(&credentials.username)?;
        Ok(credentials)
    }
}

/// Reason why a credentials file cannot be used. Shows nothing of its contents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// The file is not TOML with these three keys.
    #[error("must be TOML with the keys username, password and sso_salt, each a string, and no other")]
    Format,
    /// The file of the credentials for another provider is not TOML with these keys.
    #[error(
        "must be TOML with the keys username and password, and sso_salt for single sign-on, each a string, and no other"
    )]
    ProviderFormat,
    /// The user name cannot be sent.
    #[error("username must be 1 to 255 printable ASCII characters without a colon")]
    Username,
    /// A secret is too short to be one.
    #[error("{0} must be at least {MIN_SECRET} bytes long")]
    Short(&'static str),
}

impl Credentials {
    /// Reads the text of the file with the credentials for another provider.
    ///
    /// # Errors
    /// Fails with [`CredentialsError`] when the text is not TOML with these keys, or a value is not usable.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let credentials: Self = toml::from_str(text).map_err(|_| CredentialsError::Format)?;
        check_username(&credentials.username)?;
        for (name, secret) in [("password", &credentials.password), ("sso_salt", &credentials.sso_salt)] {
            if secret.expose().len() < MIN_SECRET {
                return Err(CredentialsError::Short(name));
            }
        }
        Ok(credentials)
    }

    /// Returns whether this user name and password are the right ones. Takes the same time whichever of them is wrong.
    pub fn admit(&self, username: &[u8], password: &[u8]) -> bool {
        let (name, word) = (self.username.is(username), self.password.is(password));
        name & word
    }
}

fn check_username(username: &Secret) -> Result<(), CredentialsError> {
    let username = username.expose();
    let is_sendable = username.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if username.is_empty() || username.len() > 255 || !is_sendable {
        return Err(CredentialsError::Username);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "username = 'tcpgw'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'";

    #[test]
    fn the_right_ones_are_admitted() {
        let credentials = Credentials::parse(GOOD).unwrap();
        assert!(credentials.admit(b"tcpgw", b"0123456789abcdef"));
        for (username, password) in [("tcpgw", "0123456789abcdee"), ("tcpg", "0123456789abcdef"), ("", "")] {
            assert!(!credentials.admit(username.as_bytes(), password.as_bytes()));
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let text = format!("{:?}", Credentials::parse(GOOD).unwrap());
        assert!(!text.contains("0123") && !text.contains("fedc"), "{text}");
        let error = Credentials::parse(&GOOD.replace("sso_salt", "salt"))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("fedc"), "{error}");
    }

    #[test]
    fn credentials_for_another_provider_may_be_short_and_without_a_salt() {
        let read = ProviderCredentials::parse("username = 'a'\npassword = 'b'").unwrap();
        assert_eq!((read.password.expose(), read.sso_salt), ("b", None));
        assert!(ProviderCredentials::parse(GOOD).unwrap().sso_salt.is_some());
        for (text, error) in [
            ("username = 'a'", CredentialsError::ProviderFormat),
            (
                "username = 'a'\npassword = 'b'\nother = 'c'",
                CredentialsError::ProviderFormat,
            ),
            ("username = 'a:b'\npassword = 'b'", CredentialsError::Username),
        ] {
            assert_eq!(ProviderCredentials::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let cases = [
            ("", CredentialsError::Format),
            ("username = 1", CredentialsError::Format),
            (&GOOD.replace("'tcpgw'", "'tcp:gw'"), CredentialsError::Username),
            (&GOOD.replace("'tcpgw'", "''"), CredentialsError::Username),
            (
                &GOOD.replace("0123456789abcdef", "0123456789abcde"),
                CredentialsError::Short("password"),
            ),
            (
                &GOOD.replace("fedcba9876543210", "x"),
                CredentialsError::Short("sso_salt"),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(Credentials::parse(text), Err(error), "{text}");
        }
    }
}
