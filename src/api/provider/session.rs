//! Sessions of signed-on users: a cookie that only this gateway can make allows to read one resource's page for a limited time.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::addon::id::ResourceId;
use crate::secrets::Secret;
use tcpgw_core::hex;

/// Duration of a session.
const LASTS: Duration = Duration::from_secs(3600);
const NAME: &str = "tcpgw_app";

/// Returns the header `set-cookie` that begins a session of a resource.
pub(super) fn begin(salt: &Secret, id: ResourceId, is_secure: bool, now: Duration) -> String {
    let ends = now.saturating_add(LASTS).as_secs();
    let secure = if is_secure { "; Secure" } else { "" };
    let (seconds, mac) = (LASTS.as_secs(), hex::digits(&mac(salt, id, ends)));
    format!("{NAME}={ends}.{mac}; Path=/apps/{id}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// Returns whether the header `cookie` has a session of that resource.
pub(super) fn is_open(salt: &Secret, id: ResourceId, cookies: &str, now: Duration) -> bool {
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut own = pairs.filter(|(name, _)| *name == NAME);
    own.any(|(_, value)| is_valid(salt, id, value, now))
}

fn is_valid(salt: &Secret, id: ResourceId, value: &str, now: Duration) -> bool {
    let Some((ends, given)) = value.split_once('.') else {
        return false;
    };
    let (Ok(ends), Some(given)) = (ends.parse::<u64>(), hex::bytes(given)) else {
        return false;
    };
    let now = now.as_secs();
    let lasts = ends > now && ends <= now.saturating_add(LASTS.as_secs());
    lasts & keyed(salt, id, ends).verify_slice(&given).is_ok()
}

fn keyed(salt: &Secret, id: ResourceId, ends: u64) -> Hmac<Sha256> {
    // Any length of key will do (RFC 2104).
    let mut mac = Hmac::<Sha256>::new_from_slice(salt.expose().as_bytes()).expect("a key of any length");
    mac.update(format!("tcpgw session {id} {ends}").as_bytes());
    mac
}

fn mac(salt: &Secret, id: ResourceId, ends: u64) -> Vec<u8> {
    keyed(salt, id, ends).finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::credentials::Credentials;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn salt(text: &str) -> Secret {
        let file = format!("username = 'u'\npassword = '0123456789abcdef'\nsso_salt = '{text}'");
        Credentials::parse(&file).unwrap().sso_salt
    }

    fn cookie(header: &str) -> &str {
        header.split(';').next().unwrap()
    }

    #[test]
    fn a_session_is_of_one_resource_for_an_hour() {
        let salt = salt("fedcba9876543210");
        let (id, other) = (ResourceId::from_random(1), ResourceId::from_random(2));
        let header = begin(&salt, id, true, NOW);
        assert!(header.ends_with(&format!(
            "; Path=/apps/{id}; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"
        )));
        let cookies = format!("x=1; {}; y", cookie(&header));
        assert!(is_open(&salt, id, &cookies, NOW));
        assert!(is_open(&salt, id, &cookies, NOW + Duration::from_secs(3599)));
        assert!(!is_open(&salt, id, &cookies, NOW + LASTS));
        assert!(
            !is_open(&salt, id, &cookies, NOW.saturating_sub(Duration::from_secs(1))),
            "none was made then"
        );
        assert!(!is_open(&salt, other, &cookies, NOW));
        assert!(!is_open(&self::salt("fedcba9876543211"), id, &cookies, NOW));
    }

    #[test]
    fn what_was_not_made_here_opens_nothing() {
        let (salt, id) = (salt("fedcba9876543210"), ResourceId::from_random(1));
        let header = begin(&salt, id, false, NOW);
        let good = cookie(&header);
        for bad in [
            "",
            "tcpgw_app",
            "tcpgw_app=",
            "tcpgw_app=.",
            "tcpgw_app=1700000001.",
            &good.replace('=', "=1"),
            &good[..good.len() - 1],
            &format!("{good}0"),
            &good.replace("tcpgw_app", "tcpgw_apq"),
            &format!("tcpgw_app=1700000001.{}", "é".repeat(32)),
        ] {
            assert!(!is_open(&salt, id, bad, NOW), "{bad}");
        }
    }
}
