//! Pages that ask, and that say why nothing was done.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use maud::{Markup, html};

use super::orders::{ActionQuestion, PAUSES};
use super::wanted::WantedAction;
use crate::dashboard::{DashboardPage, NavigationPlace};
use tcpgw_core::escape;

/// Returns the page that asks whether to carry out an action.
pub(super) fn confirmation(action: &WantedAction, question: &ActionQuestion, token: &str) -> Response<Body> {
    let content = html! {
        p { (question.text) }
        form method="post" action=(action.url()) {
            input type="hidden" name="token" value=(token);
            @if question.asks_time {
                fieldset {
                    legend { "For how long?" }
                    @for (at, time) in PAUSES.iter().enumerate() {
                        label.choice { input type="radio" name="for" value=(time) checked[at == 0]; (time) }
                    }
                }
            }
            p.line {
                button type="submit" { (question.button) }
                a href=(action.page()) { "Do nothing" }
            }
        }
    };
    own(page(question.heading.clone(), content).response(StatusCode::OK))
}

/// Returns the page that says why an action was not carried out.
pub(super) fn refusal(status: StatusCode, text: &str, action: &WantedAction) -> Response<Body> {
    let content = html! {
        p { (escape::text(text)) }
        p { a href=(action.page()) { "Back" } }
    };
    own(page("Not done".into(), content).response(status))
}

fn page(heading: String, content: Markup) -> DashboardPage {
    DashboardPage {
        heading,
        place: NavigationPlace::Elsewhere,
        content,
    }
}

/// Leads to the page of what was changed.
pub(super) fn done(action: &WantedAction) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    if let Ok(page) = HeaderValue::from_str(&action.page()) {
        headers.insert(header::LOCATION, page);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets the browser say where the page's form comes from: without any referrer it would not.
fn own(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
