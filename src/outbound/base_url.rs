//! Base URLs: scheme, host, port and path prefix of the URLs of requests.

use axum::http::Uri;
use axum::http::uri::Scheme;
use thiserror::Error;

/// The scheme, host, port and path with which the URLs of requests begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    pub(super) is_encrypted: bool,
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as the header `Host` has them.
    pub(super) authority: String,
    /// Path, without a slash at its end.
    pub(super) path: String,
}

/// Reason why a text is not such a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// The text is not an absolute URL of HTTP.
    #[error("must be a URL that begins with https:// or http:// and has a host")]
    Form,
    /// The port is no number from 1 to 65535.
    #[error("must have a port from 1 to 65535, or none")]
    Port,
    /// The URL contains a user name or password.
    #[error("must not have a user name or password: other users of this machine could read them")]
    User,
    /// The URL contains a query or a fragment.
    #[error("must not have a query (?) or a fragment (#)")]
    Query,
}

impl BaseUrl {
    /// Reads the text of a URL.
    ///
    /// # Errors
    /// Fails with [`UrlError`] when the text is not an absolute URL of HTTP or HTTPS, or has a user, a query or a
    /// fragment.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.contains('#') {
            return Err(UrlError::Query);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Form)?;
        let is_encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(UrlError::Form),
        };
        let authority = uri.authority().ok_or(UrlError::Form)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        if uri.query().is_some() {
            return Err(UrlError::Query);
        }
        let host = authority.host();
        // The text after the host is not a port, or is port 0.
        if authority.as_str().len() > host.len() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::Port);
        }
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(UrlError::Form);
        }
        Ok(Self {
            is_encrypted,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether requests can be read on the way: without encryption, to another machine.
    pub fn is_readable_by_others(&self) -> bool {
        let is_loopback = match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        };
        !self.is_encrypted && !is_loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = BaseUrl::parse("https://gw.example.com/scalingo/resources/").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("gw.example.com", 443, "/scalingo/resources")
        );
        let url = BaseUrl::parse("http://[2001:db8::1]:8080").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("2001:db8::1", 8080, "")
        );
        assert_eq!(url.authority, "[2001:db8::1]:8080");
        assert!(url.is_readable_by_others());
        for loopback in [
            "http://127.0.0.1:1",
            "http://[::1]",
            "http://localhost/x",
            "https://example.com",
        ] {
            assert!(!BaseUrl::parse(loopback).unwrap().is_readable_by_others(), "{loopback}");
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for (text, error) in [
            ("", UrlError::Form),
            ("example.com", UrlError::Form),
            ("/path", UrlError::Form),
            ("ftp://example.com", UrlError::Form),
            ("https://", UrlError::Form),
            ("https://a b/", UrlError::Form),
            ("http://[::1", UrlError::Form),
            ("https://example.com:99999", UrlError::Port),
            ("https://example.com:0", UrlError::Port),
            ("https://example.com:/x", UrlError::Port),
            ("https://user:secret@example.com/", UrlError::User),
            ("https://example.com/?a=b", UrlError::Query),
            ("https://example.com/#a", UrlError::Query),
        ] {
            assert_eq!(BaseUrl::parse(text), Err(error), "{text}");
        }
    }
}
