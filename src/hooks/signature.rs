//! The signature of what is sent to a URL, in the form of Standard Webhooks 1.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): HMAC-SHA256 over the id, the
//! time and the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use crate::secrets::Secret;

/// Prefix of a secret whose key is written in Base64.
const PREFIX: &str = "whsec_";
/// Minimum and maximum length of a key, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// Error of a file whose contents are no secret of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "must be one line: {PREFIX} and a key of {} to {} bytes in Base64, or the key itself as printable ASCII characters without \
     spaces, such as the output of `openssl rand -hex 32`",
    LENGTHS.start(),
    LENGTHS.end()
)]
pub struct NotASecret;

/// Key by which a receiver knows the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookKey(KeyForm);

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyForm {
    /// The text is the key.
    Text(Secret),
    /// The text is the key in Base64.
    Base64(Secret),
}

impl HookKey {
    /// Reads the contents of a file that holds the secret of a hook.
    ///
    /// # Errors
    /// Fails with [`NotASecret`] when the contents are no text of a permitted length, or no Base64 after the prefix.
    pub fn parse(text: &[u8]) -> Result<Self, NotASecret> {
        let text = std::str::from_utf8(text).map_err(|_| NotASecret)?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotASecret);
        }
        let key = Self(match line.strip_prefix(PREFIX) {
            Some(encoded) => KeyForm::Base64(Secret::from(encoded)),
            None => KeyForm::Text(Secret::from(line)),
        });
        let length = key.bytes().ok_or(NotASecret)?.len();
        if LENGTHS.contains(&length) {
            Ok(key)
        } else {
            Err(NotASecret)
        }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        match &self.0 {
            KeyForm::Text(text) => Some(text.expose().as_bytes().to_vec()),
            KeyForm::Base64(text) => STANDARD.decode(text.expose()).ok(),
        }
    }

    fn mac(&self) -> Hmac<Sha256> {
        let key = self.bytes().unwrap_or_default();
        // Any length of key will do (RFC 2104).
        Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length")
    }

    /// Returns the value of the header `webhook-signature` for an event with this id and body, sent at `time` (seconds since the
    /// Unix epoch).
    pub fn sign(&self, id: &str, time: u64, body: &[u8]) -> String {
        let mut mac = self.mac();
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value was made by openssl: `printf %s 'ID.TIME.BODY' | openssl dgst -sha256 -hmac KEY -binary | base64`.
    #[test]
    fn the_signature_is_that_of_other_programs() {
        let key = HookKey::parse(b"0123456789abcdef0123456789abcdef\n").unwrap();
        let encoded = HookKey::parse(b"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let signed = key.sign("epoch-7", 1_700_000_000, br#"{"event":"started"}"#);
        assert_eq!(signed, "v1,ywQS64ggU8DIX+pzNA7F3ZNSLWl2wwQKU2Hy3pBy2hc=");
        assert_eq!(
            encoded.sign("epoch-7", 1_700_000_000, br#"{"event":"started"}"#),
            signed
        );
        for other in [
            key.sign("epoch-8", 1_700_000_000, br#"{"event":"started"}"#),
            key.sign("epoch-7", 1_700_000_001, br#"{"event":"started"}"#),
            key.sign("epoch-7", 1_700_000_000, br#"{"event":"drift"}"#),
        ] {
            assert_ne!(other, signed);
        }
        assert!(!format!("{key:?}").contains("0123"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(257);
        for bad in [
            "",
            "short",
            "two lines of a key\nand more",
            "with a space in the key",
            "whsec_%%%%",
            "whsec_c2hvcnQ=",
            &long,
        ] {
            assert_eq!(HookKey::parse(bad.as_bytes()), Err(NotASecret), "{bad}");
        }
        assert_eq!(HookKey::parse(b"\xff0123456789abcdef"), Err(NotASecret));
    }
}
