//! The frame of a page: navigation, heading, and the security headers.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets;
use crate::web;
use crate::web::table::{PageColumn, captioned};
use tcpgw_core::escape;

/// Content security policy: a page may use files of its own server, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";
/// Characters of a name that are encoded in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');
/// Longest text of a request that a page repeats, in characters.
const REPEATED: usize = 80;

/// Place of a page in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NavigationPlace {
    /// Page of problems, rates and services by state.
    Overview,
    /// The services, and what belongs to one.
    Services,
    /// The findings of the doctor.
    Doctor,
    /// Any other page.
    Elsewhere,
}

impl NavigationPlace {
    const LINKS: [(Self, &'static str, &'static str); 3] = [
        (Self::Overview, "/", "Overview"),
        (Self::Services, "/services", "Services"),
        (Self::Doctor, "/doctor", "Doctor"),
    ];
}

/// A page.
#[derive(Debug, Clone)]
pub struct DashboardPage {
    /// Heading, and beginning of the title.
    pub heading: String,
    /// Place in the navigation.
    pub place: NavigationPlace,
    /// Content under the heading.
    pub content: Markup,
}

impl DashboardPage {
    /// Returns the page as a response with this status code.
    pub fn response(&self, status: StatusCode) -> Response<Body> {
        web::document_response(status, POLICY, self.document())
    }

    pub(super) fn document(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                (web::head(
                    &html! { (self.heading) " – tcpgw" },
                    &html! {
                        link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
                        link rel="stylesheet" href=(assets::url("page.css"));
                        link rel="stylesheet" href=(assets::url("dashboard.css"));
                        script src=(assets::url("page.js")) defer {}
                    },
                ))
                body.dashboard data-live="/live" {
                    a.skip href="#content" { "Skip to the content" }
                    header {
                        span.product { "tcpgw" }
                        nav aria-label="Pages" {
                            ul {
                                @for (place, url, text) in NavigationPlace::LINKS {
                                    li { a href=(url) aria-current=[(place == self.place).then_some("page")] { (text) } }
                                }
                            }
                        }
                        button #updates type="button" hidden { "Pause updates" }
                    }
                    main #content tabindex="-1" {
                        h1 { (self.heading) }
                        (self.content)
                        p.hidden #said role="status" {}
                        p.quiet role="status" { span #stale hidden { "The gateway did not answer the last time: this may be out of date." } }
                    }
                }
            }
        }
    }
}

/// Returns a page that says why there is no other one, with a link that leads on: text and URL.
pub fn refusal(status: StatusCode, heading: &str, message: &str, (text, url): (&str, &str)) -> Response<Body> {
    let page = DashboardPage {
        heading: heading.into(),
        place: NavigationPlace::Elsewhere,
        content: html! {
            p { (message) }
            p { a href=(url) { (text) } }
        },
    };
    page.response(status)
}

/// Returns the page for the name of no service, with a link that leads on: text and URL.
pub fn no_service(name: &str, link: (&str, &str)) -> Response<Body> {
    let message = format!("There is no service named \"{}\" here.", repeated(name));
    refusal(StatusCode::NOT_FOUND, "No such service", &message, link)
}

/// Returns the URL of a service's page.
pub(super) fn service_url(name: &str) -> String {
    format!("/services/{}", utf8_percent_encode(name, IN_PATH))
}

/// Returns text of a request as a page repeats it: without control characters, and cut if it is long.
pub(super) fn repeated(text: &str) -> String {
    let mut cut: String = text.chars().take(REPEATED).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    escape::text(&cut)
}

/// Returns the values of a page as a list of terms.
pub(super) fn tiles(tiles: &[(&str, Markup)]) -> Markup {
    html! {
        dl.tiles {
            @for (name, value) in tiles {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// Returns a narrow table with a caption that is not seen, since a heading stands above.
pub(super) fn short_table(caption: &str, columns: &[PageColumn<'_>], rows: &[Vec<Markup>]) -> Markup {
    captioned("short", &html! { caption.hidden { (caption) } }, columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    #[test]
    fn a_page_is_closed_and_says_where_it_is() {
        let page = DashboardPage {
            heading: "</title><script>alert(1)</script>".into(),
            place: NavigationPlace::Services,
            content: html! { p { "<i>" } },
        };
        let text = page.document().into_string();
        assert!(!text.contains("<script>") && !text.contains("<i>"), "{text}");
        assert!(text.contains("<a href=\"/services\" aria-current=\"page\">"), "{text}");
        assert_eq!(text.matches("aria-current").count(), 1);
        for wanted in [
            "<nav aria-label",
            "<main id=\"content\"",
            "class=\"skip\" href=\"#content\"",
            "lang=\"en\"",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let answer = page.response(StatusCode::OK);
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for wanted in [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.split("; ").any(|part| part == wanted), "{wanted}: {policy}");
        }
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_name_in_a_path_stays_one_segment() {
        assert_eq!(service_url("web-1.a_b"), "/services/web-1.a_b");
        assert_eq!(service_url(":2001"), "/services/:2001");
        assert_eq!(service_url("a/b?c\"<"), "/services/a%2Fb%3Fc%22%3C");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(repeated("short\u{1b}[0m"), "short\\u{1b}[0m");
        let long = repeated(&"é".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (REPEATED + 1, true));
    }
}
