//! Names and addresses of hosts, as operators write them.

use std::net::IpAddr;

/// Returns a host name in its usual form (RFC 1123, 2.1), or an address.
pub(super) fn host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && is_plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    // A name whose last label is a number is read as an address by resolvers.
    let is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (is_name && !is_number).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for (text, expected) in [
            ("GW.example.com", "gw.example.com"),
            ("203.0.113.1", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host(text).as_deref(), Some(expected));
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a_b", "203.0.113", "a/b", "a:1"] {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }
}
