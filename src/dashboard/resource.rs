//! The page of an app's resource of the add-on, as the operator sees it.

use maud::html;

use super::frame::{DashboardPage, NavigationPlace, service_url, tiles};
use super::service::ServicePage;
use crate::control::request::ResourceView;
use crate::date::utc_of;
use tcpgw_core::escape;
use tcpgw_core::model::Word as _;

/// The page of a resource.
#[derive(Debug, Clone, Copy)]
pub struct ResourcePage<'p> {
    /// The resource.
    pub resource: &'p ResourceView,
    /// Its service.
    pub service: &'p ServicePage<'p>,
}

impl ResourcePage<'_> {
    /// Returns the page of a resource of the add-on.
    pub fn page(&self) -> DashboardPage {
        let resource = self.resource;
        let values = [
            ("State", html! { (resource.state.word()) }),
            ("Plan", html! { (resource.plan) }),
            ("Port", html! { (resource.port) }),
            (
                "Service",
                html! { a href=(service_url(&resource.service)) { (resource.service) } },
            ),
            ("Provisioned through", html! { (resource.dialect.word()) }),
            ("Since", html! { (utc_of(resource.created)) " UTC" }),
            ("Bindings", html! { (resource.bindings.len()) }),
        ];
        DashboardPage {
            heading: format!("App {}", escape::text(resource.app.as_str())),
            place: NavigationPlace::Services,
            content: html! {
                section aria-labelledby="address-heading" {
                    h2 #address-heading { "Address" }
                    @match &resource.url {
                        Some(url) => p { code { "TCP_URL=" (url) } },
                        None => p { "The add-on is off: its address is not known." },
                    }
                    @if let Some(warning) = &resource.warning { p.notice { (escape::text(warning)) } }
                }
                section aria-labelledby="resource-heading" {
                    h2 #resource-heading { "Resource" }
                    (tiles(&values))
                }
                div.live #summary { (self.service.summary()) }
                div.live #backends { (self.service.backends()) }
                div.live #traffic { (self.service.traffic()) }
                div.live #drains { (self.service.drains()) }
                div.live #drops { (self.service.drops()) }
                div.live #deploys { (self.service.deploys()) }
            },
        }
    }
}
