//! Check that a request comes from a page of this site, by what the browser says.

use axum::http::{HeaderMap, Uri, header};

/// Returns whether a browser sent the request from a page of this site. `is_behind_proxy`: the name in `Host` may be the proxy's own.
///
/// A browser says so in two ways: `Origin`, which each sends with a form, and `Sec-Fetch-Site`, which newer ones send to HTTPS and to
/// this machine. Both must agree; a request without `Origin` comes from no form.
pub(super) fn is_own(headers: &HeaderMap, is_behind_proxy: bool) -> bool {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value.to_str().ok()),
            (None, _) => Ok(None),
            _ => Err(()),
        }
    };
    let (Ok(origin), Ok(site), Ok(host), Ok(forwarded)) = (
        one("origin"),
        one("sec-fetch-site"),
        one(header::HOST.as_str()),
        one("x-forwarded-host"),
    ) else {
        return false;
    };
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    let Some(origin) = origin.and_then(authority) else {
        return false;
    };
    let is = |name: Option<&str>| name.is_some_and(|name| same(&origin, name));
    is(host) || is_behind_proxy && (is(forwarded) || site.is_some())
}

/// Returns scheme and authority of an origin; `None`: it is `null`, or none.
fn authority(origin: &str) -> Option<(String, String)> {
    let uri: Uri = origin.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let is_bare = origin == format!("{scheme}://{}", uri.authority()?);
    is_bare.then(|| (scheme, uri.authority().map(ToString::to_string).unwrap_or_default()))
}

/// Returns whether a name in `Host` is that of an origin, where it may have its scheme's port.
fn same((scheme, authority): &(String, String), host: &str) -> bool {
    let port = match &**scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    without(authority) == without(host)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn is_own(fields: &[(&'static str, &'static str)], is_behind_proxy: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        super::is_own(&headers, is_behind_proxy)
    }

    #[test]
    fn a_form_of_this_site_says_so() {
        let host = ("host", "gw.example.com:9464");
        for (fields, expected) in [
            (vec![host], false),
            (vec![host, ("origin", "http://gw.example.com:9464")], true),
            (vec![host, ("origin", "https://GW.example.com:9464")], true),
            (
                vec![
                    host,
                    ("origin", "http://gw.example.com:9464"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (
                vec![
                    host,
                    ("origin", "http://gw.example.com:9464"),
                    ("sec-fetch-site", "same-site"),
                ],
                false,
            ),
            (
                vec![
                    host,
                    ("origin", "http://gw.example.com:9464"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (
                vec![
                    host,
                    ("origin", "http://gw.example.com:9464"),
                    ("sec-fetch-site", "none"),
                ],
                false,
            ),
            (vec![host, ("sec-fetch-site", "same-origin")], false),
            (vec![host, ("origin", "null"), ("sec-fetch-site", "same-origin")], false),
            (vec![host, ("origin", "http://gw.example.com:9465")], false),
            (vec![host, ("origin", "http://gw.example.com")], false),
            (vec![host, ("origin", "http://evil.example.com")], false),
            (vec![host, ("origin", "http://gw.example.com:9464/")], false),
            (vec![host, ("origin", "http://me@gw.example.com:9464")], false),
            (vec![host, ("origin", "ftp://gw.example.com:9464")], false),
            (vec![host, ("origin", "gw.example.com:9464")], false),
            (
                vec![
                    host,
                    ("origin", "http://gw.example.com:9464"),
                    ("origin", "http://evil.example.com"),
                ],
                false,
            ),
            (vec![("origin", "http://gw.example.com:9464")], false),
            (
                vec![("host", "gw.example.com"), ("origin", "https://gw.example.com:443")],
                true,
            ),
            (vec![("host", "[::1]:80"), ("origin", "http://[::1]")], true),
            (
                vec![("host", "gw.example.com:443"), ("origin", "http://gw.example.com")],
                false,
            ),
        ] {
            assert_eq!(is_own(&fields, false), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_proxy_may_have_a_name_of_its_own() {
        let (host, origin) = (("host", "127.0.0.1:9464"), ("origin", "https://gw.example.com"));
        assert!(!is_own(&[host, origin], true), "nobody says that it is this site");
        assert!(is_own(&[host, origin, ("x-forwarded-host", "gw.example.com")], true));
        assert!(is_own(&[host, origin, ("sec-fetch-site", "same-origin")], true));
        assert!(!is_own(
            &[
                host,
                origin,
                ("sec-fetch-site", "cross-site"),
                ("x-forwarded-host", "gw.example.com")
            ],
            true
        ));
        // Without a proxy the header is anybody's.
        assert!(!is_own(&[host, origin, ("x-forwarded-host", "gw.example.com")], false));
    }
}
