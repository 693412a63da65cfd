//! Dropped packets of a service, by reason.

use maud::{Markup, html};

use crate::metrics::Reading;
use crate::traffic::ServiceTotals;
use crate::view::drops::{BackendDrops, ServiceDrops};
use crate::web::units;

/// Returns the table of drops: reasons without a packet are left out.
pub(super) fn drops(name: &str, reading: &Reading) -> Markup {
    let Some(totals) = &reading.totals else {
        return html! { p { "They are not known now." } };
    };
    let none = ServiceTotals::default();
    let of = totals.totals.service(name).unwrap_or(&none);
    let paces = totals.change.as_ref().map(|change| change.drops_of_service(name));
    let words = ServiceDrops::default().reasons().map(|(word, _)| word);
    let of_backends = BackendDrops::default().reasons().map(|(word, _)| word);
    let counts = of.drops.into_iter().chain(of.sum().drops);
    let rows: Vec<_> = words.into_iter().chain(of_backends).zip(counts).enumerate().collect();
    let rows = rows.into_iter().filter(|(_, (_, count))| *count > 0);
    let rows: Vec<(&str, u64, Option<f64>)> = rows
        .map(|(at, (word, count))| (word, count, paces.map(|paces| paces[at])))
        .collect();
    html! {
        @if rows.is_empty() {
            p { "None." }
        } @else {
            table.short {
                caption.hidden { "Dropped packets by reason" }
                thead { tr { th scope="col" { "Reason" } th.n scope="col" { "Packets" } th.n scope="col" { "Now" } } }
                tbody {
                    @for (word, count, pace) in rows {
                        tr {
                            th scope="row" data-label="Reason" { (word) }
                            td.n data-label="Packets" { div.cell { (units::count(count)) } }
                            td.n data-label="Now" { div.cell { @match pace { Some(pace) => (units::packet_rate(pace)), None => "–" } } }
                        }
                    }
                }
            }
        }
    }
}
