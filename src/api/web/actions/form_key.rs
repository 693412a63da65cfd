//! Values in forms, which no other site can know: each is of one credential, one action and some minutes, and orders once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::locked::locked;
use crate::secrets::Secret;

/// Time for which a form can be sent.
const LASTS: Duration = Duration::from_secs(600);

/// Forms that are remembered to have ordered: no more are carried out in [`LASTS`].
const MOST_USED: usize = 10_000;

/// Key of the values. A daemon that is started anew has another one.
pub(super) struct FormKey {
    key: [u8; 32],
    /// Number of the next value.
    next: AtomicU64,
    used: Mutex<BTreeSet<FormValue>>,
}

/// A value that was given: the time in seconds since 1970 until which it orders, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FormValue {
    ends: u64,
    number: u64,
}

impl FormKey {
    /// Returns a key of random bits.
    ///
    /// # Errors
    /// Fails when the system returns no random bits.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            key,
            next: AtomicU64::new(0),
            used: Mutex::default(),
        })
    }

    /// Returns the value for a form that orders `action`, shown to a client with this credential.
    pub(super) fn token(&self, credential: &Secret, action: &str, now: Duration) -> String {
        let value = FormValue {
            ends: now.saturating_add(LASTS).as_secs(),
            number: self.next.fetch_add(1, Ordering::Relaxed),
        };
        let mac = self.keyed(credential, action, value).finalize().into_bytes();
        format!("{}.{}.{}", value.ends, value.number, URL_SAFE_NO_PAD.encode(mac))
    }

    /// Returns a value, if it was given for that credential and action, not too long ago.
    pub(super) fn read(&self, credential: &Secret, action: &str, given: &str, now: Duration) -> Option<FormValue> {
        let mut parts = given.splitn(3, '.');
        let value = FormValue {
            ends: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        let mac = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let now = now.as_secs();
        let lasts = value.ends > now && value.ends <= now.saturating_add(LASTS.as_secs());
        let is_own = self.keyed(credential, action, value).verify_slice(&mac).is_ok();
        (lasts & is_own).then_some(value)
    }

    /// Notes that a value orders now. Returns false if it has ordered before, or if too many have.
    pub(super) fn spend(&self, value: FormValue, now: Duration) -> bool {
        let mut used = self.used();
        *used = used.split_off(&FormValue {
            ends: now.as_secs(),
            number: 0,
        });
        used.len() < MOST_USED && used.insert(value)
    }

    /// Notes that nothing was done for a value.
    pub(super) fn give_back(&self, value: FormValue) {
        self.used().remove(&value);
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<FormValue>> {
        locked(&self.used)
    }

    fn keyed(&self, credential: &Secret, action: &str, value: FormValue) -> Hmac<Sha256> {
        // Any length of key will do (RFC 2104).
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        let (FormValue { ends, number }, credential) = (value, credential.expose());
        mac.update(format!("tcpgw form {ends} {number} {} {credential} {action}", credential.len()).as_bytes());
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
        let is_valid =
            |key: &FormKey, credential, action, value: &str, now| key.read(credential, action, value, now).is_some();
        assert!(is_valid(&key, &credential, "pause web", &value, NOW));
        assert!(is_valid(&key, &credential, "pause web", &value, at(599)));
        assert!(!is_valid(&key, &credential, "pause web", &value, at(600)));
        let earlier = NOW.saturating_sub(Duration::from_secs(1));
        assert!(!is_valid(&key, &credential, "pause web", &value, earlier));
        assert!(!is_valid(&key, &credential, "pause web2", &value, NOW));
        assert!(!is_valid(&key, &other, "pause web", &value, NOW));
        assert!(!is_valid(&other_key, &credential, "pause web", &value, NOW));
        let later = value.replacen("1700000600", "1700000601", 1);
        assert_ne!(later, value);
        let another = value.replacen(".0.", ".1.", 1);
        assert_ne!(another, value);
        for bad in [
            "",
            ".",
            "1700000600",
            "1700000600.",
            "1700000600.0",
            "1700000600.0.",
            &later,
            &another,
            &value[..value.len() - 1],
            &format!("{value}A"),
            "x.y",
            "x.y.z",
        ] {
            assert!(!is_valid(&key, &credential, "pause web", bad, NOW), "{bad}");
        }
    }

    #[test]
    fn a_value_orders_once_while_it_lasts() {
        let (key, credential) = (FormKey::new().unwrap(), Secret::from("0123456789abcdef"));
        let given = |now| {
            let value = key.token(&credential, "pause web", now);
            key.read(&credential, "pause web", &value, now).expect("it is valid")
        };
        let (one, other) = (given(NOW), given(NOW));
        assert!(key.spend(one, NOW) && !key.spend(one, NOW));
        assert!(key.spend(other, NOW), "each form is one of its own");
        key.give_back(other);
        assert!(key.spend(other, NOW));
        // Values that do not last any more are forgotten.
        assert!(key.spend(given(NOW + LASTS * 2), NOW + LASTS * 2));
        assert_eq!(key.used().len(), 1);
        for _ in 1..MOST_USED {
            assert!(key.spend(given(NOW + LASTS * 2), NOW + LASTS * 2));
        }
        assert!(
            !key.spend(given(NOW + LASTS * 2), NOW + LASTS * 2),
            "their number is bounded"
        );
    }
}
