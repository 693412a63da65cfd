//! Files that pages use. Their URLs contain a hash of their contents, so that browsers may keep them forever.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use sha2::{Digest as _, Sha256};

use crate::web;

/// Number of bytes of the hash in a URL.
const HASH: usize = 8;

/// A file by its name.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset {
        name: "page.css",
        media_type: "text/css; charset=utf-8",
        text: web::STYLE,
    },
    Asset {
        name: "dashboard.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("dashboard.css"),
    },
    Asset {
        name: "page.js",
        media_type: "text/javascript; charset=utf-8",
        text: web::SCRIPT,
    },
    Asset {
        name: "icon.svg",
        media_type: "image/svg+xml",
        text: include_str!("icon.svg"),
    },
];

static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| ASSETS.iter().map(|asset| hash(asset.text)).collect());

/// Returns the URL of a file by its name, which must be one of [`ASSETS`].
pub(super) fn url(name: &str) -> String {
    let place = ASSETS.iter().position(|asset| asset.name == name);
    let hash = place.map(|place| &*HASHES[place]).unwrap_or_default();
    format!("/assets/{hash}/{name}")
}

/// Returns a file by the two parts of its URL after `/assets/`; `None`: there is none, or it has other contents in this version.
pub fn asset(hash: &str, name: &str) -> Option<Response<Body>> {
    let place = ASSETS.iter().position(|asset| asset.name == name)?;
    if HASHES[place] != hash {
        return None;
    }
    let asset = &ASSETS[place];
    let mut response = Response::new(Body::from(asset.text));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // An image that is opened as a page of its own runs nothing either.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

fn hash(text: &str) -> String {
    let mut hash = tcpgw_core::hex::digits(&Sha256::digest(text.as_bytes()));
    hash.truncate(2 * HASH);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_url_and_by_no_other() {
        for wanted in &ASSETS {
            let url = url(wanted.name);
            let (hash, name) = url.strip_prefix("/assets/").unwrap().split_once('/').unwrap();
            assert_eq!((hash.len(), name), (2 * HASH, wanted.name));
            let answer = asset(hash, name).unwrap();
            assert_eq!(answer.headers()[header::CONTENT_TYPE], wanted.media_type);
            assert!(asset("0000000000000000", name).is_none() && asset(hash, "mod.rs").is_none());
            assert!(asset("", name).is_none());
        }
        assert_ne!(hash("a"), hash("b"));
    }

    #[test]
    fn files_lead_to_no_other_host() {
        for asset in &ASSETS {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for bad in ["http:", "https:", "@import", "url("] {
                assert!(!text.contains(bad), "{}: {bad}", asset.name);
            }
        }
    }
}
