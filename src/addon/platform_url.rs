//! `addon.platform_url`: where an app's page leads back to, its platform's dashboard.

use std::str::FromStr;

use axum::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use super::host::host;
use super::id::PlatformId;
use crate::transport::unreachable;

/// Maximum length of a template, in bytes.
const MAX_LEN: usize = 2048;
/// Placeholder of the app.
const APP: &str = "{app}";
/// Characters that are percent-encoded: all but the unreserved ones (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An HTTP or HTTPS URL in which `{app}` stands for the app, as the platform calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformUrl(String);

/// Reason why a text cannot be used as `addon.platform_url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "addon.platform_url must be a URL with http or https and a host, of {MAX_LEN} bytes at most, such as \
     https://dashboard.example.com/apps/{{app}}: {0}"
)]
pub struct PlatformUrlError(&'static str);

impl FromStr for PlatformUrl {
    type Err = PlatformUrlError;

    fn from_str(text: &str) -> Result<Self, PlatformUrlError> {
        if text.len() > MAX_LEN {
            return Err(PlatformUrlError("it is longer"));
        }
        let filled = text.replace(APP, "app");
        if filled.contains(['{', '}']) {
            return Err(PlatformUrlError("{app} is the only part that can be filled in"));
        }
        // `Uri` takes neither blanks nor control characters, and drops what follows `#`.
        let (before, fragment) = filled.split_once('#').unwrap_or((&filled, ""));
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`#".contains(&byte);
        if !fragment.bytes().all(is_plain) || before.contains(['"', '<', '>', '\\', '^', '`']) {
            return Err(PlatformUrlError("it has characters that must be percent-encoded"));
        }
        let url: Uri = before
            .parse()
            .map_err(|_| PlatformUrlError("it cannot be read as a URL"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(PlatformUrlError("its scheme is another one"));
        }
        let authority = url.authority().filter(|authority| !authority.host().is_empty());
        let Some(authority) = authority else {
            return Err(PlatformUrlError("it has no host"));
        };
        if host(authority.host()).is_none() {
            return Err(PlatformUrlError("its host is neither a name nor an address"));
        }
        let bare = authority.host().trim_matches(['[', ']']);
        if bare.parse().is_ok_and(|address| unreachable(address).is_some()) {
            return Err(PlatformUrlError("no browser can connect to its address"));
        }
        if authority.as_str().contains('@') {
            return Err(PlatformUrlError("it names a user"));
        }
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(PlatformUrlError("its port is not from 1 to 65535"));
        }
        let end = text.find("://").map_or(0, |at| at + 3);
        let host_of_template = text[end..].split(['/', '?', '#']).next().unwrap_or_default();
        if host_of_template.contains(APP) {
            return Err(PlatformUrlError("{app} cannot stand in the host"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl PlatformUrl {
    /// Returns the URL for an app.
    pub fn of(&self, app: &PlatformId) -> String {
        let app = utf8_percent_encode(app.as_str(), ESCAPED).to_string();
        self.0.replace(APP, &app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_filled_in() {
        for (template, expected) in [
            (
                "https://dashboard.example.com/apps/{app}",
                "https://dashboard.example.com/apps/my-app%3A1",
            ),
            ("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080/"),
            (
                "https://example.com/?app={app}&x=1#/{app}",
                "https://example.com/?app=my-app%3A1&x=1#/my-app%3A1",
            ),
        ] {
            let url: PlatformUrl = template.parse().unwrap();
            assert_eq!(url.of(&"my-app:1".parse().unwrap()), expected);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (text, why) in [
            ("", "cannot be read"),
            ("javascript:alert(1)", "scheme"),
            ("ftp://example.com/", "scheme"),
            ("dashboard.example.com", "scheme"),
            ("/apps/{app}", "scheme"),
            ("https://", "cannot be read"),
            ("https:///apps", "cannot be read"),
            ("https://{app}.example.com/", "in the host"),
            ("https://user:word@example.com/", "a user"),
            ("https://example.com:99999/", "its port"),
            ("https://256.1.1.1/", "neither a name nor an address"),
            ("https://a..b/", "neither a name nor an address"),
            ("https://0.0.0.0/", "no browser can connect"),
            ("https://example.com/{id}", "the only part"),
            ("https://example.com/ x", "cannot be read"),
            ("https://example.com/\"onclick=x", "percent-encoded"),
            ("https://example.com/#<b>", "percent-encoded"),
            (&format!("https://example.com/{}", "x".repeat(2048)), "longer"),
        ] {
            let error = text.parse::<PlatformUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
