//! The table of all services: filtered, sorted, and one page of it.

use maud::{Markup, html};

use super::frame::{DashboardPage, NavigationPlace, service_url};
use super::query::{QueryRefused, SIZES, ServiceColumn, ServicesQuery};
use super::rates::rates_note;
use crate::metrics::{Reading, ServiceSample};
use crate::view::condition::ServiceCondition;
use crate::view::status::OfLimit;
use crate::view::totals_rates::TrafficPace;
use crate::web::meter::meter;
use crate::web::units;
use tcpgw_core::words::count;

/// The page of all services.
#[derive(Debug, Clone, Copy)]
pub struct ServicesPage<'p> {
    /// Values of all services.
    pub reading: &'p Reading,
    /// The part that is shown, and its order.
    pub query: &'p ServicesQuery,
}

/// Services of one page, and the number of all that pass the filter.
struct PageOfServices<'p> {
    services: Vec<&'p ServiceSample>,
    all: usize,
    pages: usize,
}

impl ServicesPage<'_> {
    /// Returns the page of the table of services.
    ///
    /// # Errors
    /// Fails with [`QueryRefused::Beyond`] when the table has fewer pages.
    pub fn page(&self) -> Result<DashboardPage, QueryRefused> {
        let shown = self.select()?;
        Ok(DashboardPage {
            heading: "Services".into(),
            place: NavigationPlace::Services,
            content: html! {
                (self.form())
                (self.table_of(&shown))
            },
        })
    }

    /// Returns the table alone, with the links to its other pages.
    ///
    /// # Errors
    /// Fails with [`QueryRefused::Beyond`] when the table has fewer pages.
    pub fn table(&self) -> Result<Markup, QueryRefused> {
        Ok(self.table_of(&self.select()?))
    }

    fn select(&self) -> Result<PageOfServices<'_>, QueryRefused> {
        let query = self.query;
        let mut services = self.matching();
        let (all, pages) = (services.len(), services.len().div_ceil(query.size).max(1));
        if query.page > pages {
            let page = query.page;
            return Err(QueryRefused::Beyond { page, pages });
        }
        self.sort(&mut services);
        let begin = (query.page - 1) * query.size;
        let services = services.into_iter().skip(begin).take(query.size).collect();
        Ok(PageOfServices { services, all, pages })
    }

    fn matching(&self) -> Vec<&ServiceSample> {
        let filter = &*self.query.filter;
        // Only what may be a part of an address is looked for in addresses.
        let in_backends = !filter.is_empty() && filter.bytes().all(|c| c.is_ascii_hexdigit() || b".:[]".contains(&c));
        let has = |text: &str| text.to_lowercase().contains(filter);
        let matches = |service: &&ServiceSample| {
            let is_meant = self.query.condition.is_none_or(|wanted| wanted == service.condition);
            let is_found = || {
                filter.is_empty()
                    || has(&service.name)
                    || has(&service.plan)
                    || has(&service.provider)
                    || format!(":{}", service.port).contains(filter)
                    || (in_backends
                        && service
                            .backends
                            .iter()
                            .any(|of| of.backend.to_string().contains(filter)))
            };
            is_meant && is_found()
        };
        self.reading.services.iter().filter(matches).collect()
    }

    /// Sorts services; those of the same value by name.
    fn sort(&self, services: &mut Vec<&ServiceSample>) {
        let is_descending = self.query.is_descending;
        let direct = |order: std::cmp::Ordering| if is_descending { order.reverse() } else { order };
        match self.query.sort {
            ServiceColumn::Name => services.sort_by(|a, b| direct(a.name.cmp(&b.name))),
            ServiceColumn::Provider => {
                services.sort_by(|a, b| {
                    direct((&a.provider, &a.plan).cmp(&(&b.provider, &b.plan))).then_with(|| a.name.cmp(&b.name))
                });
            }
            column => {
                let mut keyed: Vec<_> = services.drain(..).map(|of| (self.number(column, of), of)).collect();
                keyed.sort_by(|(a, of_a), (b, of_b)| direct(a.total_cmp(b)).then_with(|| of_a.name.cmp(&of_b.name)));
                services.extend(keyed.into_iter().map(|(_, of)| of));
            }
        }
    }

    /// Returns the value of a service in a column of numbers; what is not known comes before zero.
    #[expect(clippy::cast_precision_loss, reason = "it only orders")]
    fn number(&self, column: ServiceColumn, of: &ServiceSample) -> f64 {
        let pace = |value: fn(TrafficPace) -> f64| self.pace(of).map_or(-1.0, value);
        match column {
            ServiceColumn::State => f64::from(of.condition as u8),
            ServiceColumn::Port => f64::from(of.port),
            ServiceColumn::Backends => healthy(of) as f64,
            ServiceColumn::Flows => of.flows.established as f64,
            ServiceColumn::Pace => pace(|pace| pace.connections),
            ServiceColumn::Connections => self.connections(of).map_or(-1.0, |number| number as f64),
            ServiceColumn::ToBackends => pace(|pace| pace.rates.to.bytes_per_second),
            ServiceColumn::FromBackends => pace(|pace| pace.rates.from.bytes_per_second),
            ServiceColumn::Limit => self.used(of).unwrap_or(-1.0),
            ServiceColumn::Drops => pace(|pace| pace.drops),
            ServiceColumn::Name | ServiceColumn::Provider => 0.0,
        }
    }

    fn pace(&self, of: &ServiceSample) -> Option<TrafficPace> {
        let change = self.reading.totals.as_ref()?.change.as_ref()?;
        Some(change.of_service(&of.name))
    }

    fn connections(&self, of: &ServiceSample) -> Option<u64> {
        let totals = self.reading.totals.as_ref()?;
        let service = totals.totals.service(&of.name);
        Some(service.map_or(0, |service| service.sum().connections))
    }

    /// Returns the largest part of a limit that a backend uses in this service; `None`: there is no limit, or traffic is not known.
    fn used(&self, of: &ServiceSample) -> Option<f64> {
        let totals = self.reading.totals.as_ref().filter(|totals| totals.counts_bytes)?;
        let (change, limit) = totals.change.as_ref().zip(of.limit)?;
        let parts = of.backends.iter().map(|backend| {
            let pace = change.of_backend(&of.name, backend.backend);
            OfLimit::new(pace.rates, limit).most()
        });
        parts.reduce(f64::max)
    }

    fn form(&self) -> Markup {
        let query = self.query;
        html! {
            form.filter method="get" action="/services" role="search" aria-label="Services" {
                div {
                    label for="q" { "Filter" }
                    input #q name="q" type="search" maxlength="200" value=(query.filter) placeholder="name, plan, :port, address" autocomplete="off" spellcheck="false";
                }
                div {
                    label for="state" { "State" }
                    select #state name="state" {
                        option value="" { "all" }
                        @for condition in ServiceCondition::ALL {
                            option value=(condition.word()) selected[query.condition == Some(condition)] { (condition.word()) }
                        }
                    }
                }
                div {
                    label for="sort" { "Sorted by" }
                    select #sort name="sort" {
                        @for (column, word, heading) in ServiceColumn::ALL {
                            option value=(word) selected[query.sort == column] { (heading) }
                        }
                    }
                }
                div {
                    label for="order" { "Order" }
                    select #order name="order" {
                        option value="asc" selected[!query.is_descending] { "smallest first" }
                        option value="desc" selected[query.is_descending] { "largest first" }
                    }
                }
                div {
                    label for="size" { "On a page" }
                    select #size name="size" {
                        @for size in SIZES { option value=(size) selected[query.size == size] { (size) } }
                    }
                }
                div { button type="submit" { "Show" } }
            }
        }
    }

    fn table_of(&self, shown: &PageOfServices<'_>) -> Markup {
        let query = self.query;
        let begin = (query.page - 1) * query.size;
        html! {
            div.live #services data-measuring[self.reading.is_measuring()] {
                @if shown.all == 0 {
                    p {
                        @if self.reading.services.is_empty() { "There are no services yet." } @else { "No service passes the filter. " a href="/services" { "Show all" } }
                    }
                } @else {
                    table.dense {
                        caption {
                            (count(shown.all, "service"))
                            @if shown.all < self.reading.services.len() { " of " (units::count(self.reading.services.len() as u64)) }
                            @if shown.pages > 1 { ", " (begin + 1) " to " (begin + shown.services.len()) }
                        }
                        thead { tr { @for (column, _, heading) in ServiceColumn::ALL { (self.heading(column, heading)) } } }
                        tbody { @for service in &shown.services { (self.row(service)) } }
                    }
                }
                (self.pages(shown.pages))
                (rates_note(self.reading))
            }
        }
    }

    fn heading(&self, column: ServiceColumn, text: &str) -> Markup {
        let query = self.query;
        let order = (query.sort == column).then_some(if query.is_descending { "descending" } else { "ascending" });
        html! {
            th scope="col" aria-sort=[order] class=[is_number(column).then_some("n")] {
                a href=(query.sorted_by(column).url()) {
                    (text)
                    @match order {
                        Some("ascending") => span aria-hidden="true" { " ▲" },
                        Some(_) => span aria-hidden="true" { " ▼" },
                        None => "",
                    }
                }
            }
        }
    }

    fn row(&self, of: &ServiceSample) -> Markup {
        let pace = self.pace(of);
        let counts_bytes = self.reading.totals.as_ref().is_some_and(|totals| totals.counts_bytes);
        let bytes = pace.filter(|_| counts_bytes);
        html! {
            tr {
                th scope="row" data-label="Service" { a href=(service_url(&of.name)) { (of.name) } }
                @for (column, _, heading) in ServiceColumn::ALL.into_iter().skip(1) {
                    td data-label=(heading) class=[is_number(column).then_some("n")] {
                        div.cell {
                            @match column {
                                ServiceColumn::Name => "",
                                ServiceColumn::State => (condition(of.condition)),
                                ServiceColumn::Port => (of.port),
                                ServiceColumn::Backends => { (healthy(of)) " of " (of.backends.len()) },
                                ServiceColumn::Flows => (known(self.reading.kernel.map(|_| units::count(of.flows.established)))),
                                ServiceColumn::Pace => (known(pace.map(|pace| units::event_rate(pace.connections)))),
                                ServiceColumn::Connections => (known(self.connections(of).map(units::count))),
                                ServiceColumn::ToBackends => (known(bytes.map(|pace| units::byte_rate(pace.rates.to.bytes_per_second)))),
                                ServiceColumn::FromBackends => (known(bytes.map(|pace| units::byte_rate(pace.rates.from.bytes_per_second)))),
                                ServiceColumn::Limit => @match (self.used(of), of.limit) {
                                    (Some(part), _) => (meter(part)),
                                    (None, Some(limit)) => { (units::count(limit.packets_per_second.into())) " packets/s" },
                                    (None, None) => "none",
                                },
                                ServiceColumn::Drops => (known(pace.map(|pace| units::event_rate(pace.drops)))),
                                ServiceColumn::Provider => {
                                    @if of.provider.is_empty() { "none" } @else { (of.provider) }
                                    @if !of.plan.is_empty() { ", plan " (of.plan) }
                                },
                            }
                        }
                    }
                }
            }
        }
    }

    fn pages(&self, pages: usize) -> Markup {
        let page = self.query.page;
        let link = |text: &str, to: usize, is_there: bool| {
            html! {
                @if is_there { a href=(self.query.at(to).url()) { (text) } } @else { span.quiet aria-hidden="true" { (text) } }
            }
        };
        html! {
            @if pages > 1 {
                nav.pages aria-label="Pages of the table" {
                    (link("First", 1, page > 1))
                    (link("Previous", page.saturating_sub(1), page > 1))
                    span { "Page " (page) " of " (pages) }
                    (link("Next", page + 1, page < pages))
                    (link("Last", pages, page < pages))
                }
            }
        }
    }
}

/// Returns the condition of a service as a word with its colour.
pub(super) fn condition(condition: ServiceCondition) -> Markup {
    html! { span class={ "state " (condition.word()) } title=(condition.meaning()) { (condition.word()) } }
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".into())
}

fn healthy(of: &ServiceSample) -> usize {
    of.backends.iter().filter(|backend| backend.state == "healthy").count()
}

fn is_number(column: ServiceColumn) -> bool {
    !matches!(
        column,
        ServiceColumn::Name | ServiceColumn::State | ServiceColumn::Limit | ServiceColumn::Provider
    )
}
