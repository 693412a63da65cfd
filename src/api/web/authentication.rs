//! Checks of requests: the token, and the name under which a browser asks.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answers::plain;
use super::site::Web;
use crate::api::server::closing;
use crate::transport::Transport;

/// Reason why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessDenied {
    /// The name in `Host` is none of this machine's: a page of another site may have led the browser here (DNS rebinding).
    Host,
    /// There are several `Host` headers, of which another program on the way may have taken the other.
    SeveralHosts,
    /// The token is missing or wrong.
    Token,
}

impl Web {
    /// Checks that a request may be answered.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), AccessDenied> {
        if headers.get_all(header::HOST).iter().nth(1).is_some() {
            return Err(AccessDenied::SeveralHosts);
        }
        // Behind a proxy, and with TLS, the name is another's matter: a proxy passes its own on, and a certificate names its host.
        let is_plain = self.settings.transport == Transport::Plain { behind_proxy: false };
        if is_plain && !headers.get(header::HOST).is_some_and(is_loopback) {
            return Err(AccessDenied::Host);
        }
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(given);
        let is_right = token.is(given.as_deref().unwrap_or_default());
        if is_right && given.is_some() {
            Ok(())
        } else {
            Err(AccessDenied::Token)
        }
    }
}

/// Returns whether a `Host` header names this machine by a loopback address.
fn is_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    if let Ok(at) = host.parse::<SocketAddr>() {
        return at.ip().is_loopback();
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, Some(port)),
        _ => (host, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = name.eq_ignore_ascii_case("localhost");
    let address = bare.unwrap_or(name).parse::<IpAddr>();
    is_port && (is_name || address.is_ok_and(|address| address.is_loopback()))
}

/// Returns the token in `Authorization`: that of `Bearer`, or the password of `Basic`, which browsers send.
fn given(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Returns the answer to a request without the right token. `wait`: seconds, if there were too many of them.
pub(super) fn refusal(wait: Option<u64>) -> Response<Body> {
    let (status, text) = match wait {
        None => (
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong: send the contents of web.token_file as `Authorization: Bearer TOKEN`, or as a password\n",
        ),
        Some(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            "wrong tokens were sent from there too often: wait, or send a valid token\n",
        ),
    };
    let mut response = plain(status, text);
    let headers = response.headers_mut();
    headers.insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"tcpgw\", charset=\"UTF-8\""),
    );
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
    }
    closing(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let is_loopback = |host| super::is_loopback(&HeaderValue::from_static(host));
        for good in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1",
            "127.0.0.1:9464",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:9464",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "example.com:9464",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "192.0.2.1",
            "192.0.2.1:9464",
            "[2001:db8::1]:9464",
            "localhost:x",
            "127.0.0.1:9464:9464",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_is_a_bearer_or_a_password() {
        let basic = format!("Basic {}", STANDARD.encode("any:to:ken"));
        for (value, expected) in [
            ("Bearer token", Some("token")),
            ("bearer  token", Some("token")),
            (&*basic, Some("to:ken")),
            ("Basic dG9rZW4=", None),
            ("Basic %", None),
            ("Digest token", None),
            ("token", None),
        ] {
            let found = given(&HeaderValue::from_str(value).unwrap());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }
}
