//! Links to the pages that ask whether something is to be ordered.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::frame::service_url;
use crate::control::request::{BackendView, ServiceView};

/// Number of backends with a link.
const MOST: usize = 50;

/// Returns the orders that a service can get.
pub(super) fn orders(name: &str, view: &ServiceView) -> Markup {
    let url = service_url(name);
    let backends = view.backends.iter().filter_map(|backend| order(&url, backend));
    html! {
        section aria-labelledby="orders-heading" {
            h2 #orders-heading { "Orders" }
            ul.orders {
                @if view.paused_for.is_some() {
                    li { a href={ (url) "/resume" } { "Resume new connections…" } }
                } @else {
                    li { a href={ (url) "/pause" } { "Pause new connections…" } }
                }
                @for (text, url) in backends.take(MOST) { li { a href=(url) { (text) } } }
            }
            p.quiet { "Each is asked once more before it is carried out." }
        }
    }
}

/// Returns the order that a backend can get: text and URL.
fn order(service: &str, backend: &BackendView) -> Option<(String, String)> {
    let address = backend.backend.to_string();
    let encoded = utf8_percent_encode(&address, NON_ALPHANUMERIC);
    match &*backend.desired {
        "active" => Some((
            format!("Drain {address}…"),
            format!("{service}/drain?backend={encoded}"),
        )),
        "draining" => Some((
            format!("Use {address} again…"),
            format!("{service}/undrain?backend={encoded}"),
        )),
        _ => None,
    }
}
