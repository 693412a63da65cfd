//! Values in forms, which no other site can know: each is of one credential, one action and some minutes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secrets::Secret;

/// Time for which a form can be sent.
const LASTS: Duration = Duration::from_secs(600);

/// Key of the values. A daemon that is started anew has another one.
pub(super) struct FormKey([u8; 32]);

impl FormKey {
    /// Returns a key of random bits.
    ///
    /// # Errors
    /// Fails when the system returns no random bits.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Returns the value for a form that orders `action`, shown to a client with this credential.
    pub(super) fn token(&self, credential: &Secret, action: &str, now: Duration) -> String {
        let ends = now.saturating_add(LASTS).as_secs();
        let mac = self.keyed(credential, action, ends).finalize().into_bytes();
        format!("{ends}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// Returns whether a value was given for that credential and action, not too long ago.
    pub(super) fn is_valid(&self, credential: &Secret, action: &str, given: &str, now: Duration) -> bool {
        let Some((ends, mac)) = given.split_once('.') else {
            return false;
        };
        let (Ok(ends), Ok(mac)) = (ends.parse::<u64>(), URL_SAFE_NO_PAD.decode(mac)) else {
            return false;
        };
        let now = now.as_secs();
        let lasts = ends > now && ends <= now.saturating_add(LASTS.as_secs());
        lasts & self.keyed(credential, action, ends).verify_slice(&mac).is_ok()
    }

    fn keyed(&self, credential: &Secret, action: &str, ends: u64) -> Hmac<Sha256> {
        // Any length of key will do (RFC 2104).
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        let credential = credential.expose();
        mac.update(format!("tcpgw form {ends} {} {credential} {action}", credential.len()).as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn a_value_is_of_one_action_credential_and_time() {
        let (key, other_key) = (FormKey::new().unwrap(), FormKey::new().unwrap());
        let (credential, other) = (Secret::from("0123456789abcdef"), Secret::from("0123456789abcdeg"));
        let value = key.token(&credential, "pause web", NOW);
        let at = |seconds| NOW + Duration::from_secs(seconds);
        assert!(key.is_valid(&credential, "pause web", &value, NOW));
        assert!(key.is_valid(&credential, "pause web", &value, at(599)));
        assert!(!key.is_valid(&credential, "pause web", &value, at(600)));
        assert!(!key.is_valid(
            &credential,
            "pause web",
            &value,
            NOW.saturating_sub(Duration::from_secs(1))
        ));
        assert!(!key.is_valid(&credential, "pause web2", &value, NOW));
        assert!(!key.is_valid(&other, "pause web", &value, NOW));
        assert!(!other_key.is_valid(&credential, "pause web", &value, NOW));
        let later = value.replacen("1700000600", "1700000601", 1);
        assert_ne!(later, value);
        for bad in [
            "",
            ".",
            "1700000600",
            "1700000600.",
            &later,
            &value[..value.len() - 1],
            &format!("{value}A"),
            "x.y",
        ] {
            assert!(!key.is_valid(&credential, "pause web", bad, NOW), "{bad}");
        }
    }
}
