//! Pieces of web pages: layout, tables, meters, plots, numbers. For the add-on's pages and the operator's dashboard alike.
//!
//! Pure: values in, HTML out, escaped by `maud`. Owns the style sheet, the script and the content security policy. Knows nothing of
//! services, the kernel or who asks. Pages work without the script, and nothing in them leads a browser to another host by itself.

pub mod meter;
pub mod plot;
pub mod table;
pub mod units;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use maud::{DOCTYPE, Markup, html};

/// Style sheet of all pages.
pub const STYLE: &str = include_str!("style.css");
/// Script of all pages.
pub const SCRIPT: &str = include_str!("script.js");
/// Content security policy: a page may use the two files above, and request its own server.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Frame around the content of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLayout<'l> {
    /// The heading, and the beginning of the title.
    pub heading: &'l str,
    /// Subject of the page, under the heading and in the title.
    pub subject: Option<&'l str>,
    /// Link back: text and URL.
    pub back: Option<(&'l str, &'l str)>,
}

/// Returns a file that pages use, by its name under `/assets/`.
pub fn asset(name: &str) -> Option<Response<Body>> {
    let (media, text) = match name {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

/// Returns a page as an answer, with the security headers.
pub fn response(status: StatusCode, layout: &PageLayout<'_>, content: &Markup) -> Response<Body> {
    document_response(status, POLICY, document(layout, content))
}

/// Returns a whole document as an answer, with the security headers and this content security policy.
pub fn document_response(status: StatusCode, policy: &'static str, document: Markup) -> Response<Body> {
    let mut response = Response::new(Body::from(document.into_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns a page with one message.
pub fn message(status: StatusCode, heading: &str, text: &str) -> Response<Body> {
    let layout = PageLayout {
        heading,
        subject: None,
        back: None,
    };
    response(status, &layout, &html! { p { (text) } })
}

/// Returns the head of a document. `files`: its links and scripts.
pub fn head(title: &Markup, files: &Markup) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            (files)
        }
    }
}

fn document(layout: &PageLayout<'_>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(
                &html! { (layout.heading) @if let Some(subject) = layout.subject { ": " (subject) } },
                &html! {
                    link rel="stylesheet" href="/assets/page.css";
                    script src="/assets/page.js" defer {}
                },
            ))
            body {
                header {
                    div {
                        h1 { (layout.heading) }
                        @if let Some(subject) = layout.subject { p.subject { (subject) } }
                    }
                    @if let Some((text, url)) = layout.back {
                        nav { a href=(url) rel="noreferrer" { (text) } }
                    }
                }
                main { (content) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let layout = PageLayout {
            heading: "<h>",
            subject: Some("</title><script>alert(1)</script>"),
            back: Some(("<b>", "https://example.com/\"onclick=\"x")),
        };
        let page = document(&layout, &html! { p { "<i>" } }).into_string();
        for bad in ["<h>", "<script>alert", "<b>", "\"onclick", "<i>"] {
            assert!(!page.contains(bad), "{bad}: {page}");
        }
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
    }

    #[test]
    fn a_page_allows_nothing_of_others() {
        let answer = message(StatusCode::GONE, "Gone", "text");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        // The style sheet and the script lead nowhere either.
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !SCRIPT.contains("http"));
        assert!(asset("page.css").is_some() && asset("page.js").is_some() && asset("mod.rs").is_none());
    }
}
