//! Dropped packets of a service, by reason.

use maud::{Markup, html};

use super::frame::short_table;
use crate::metrics::Reading;
use crate::traffic::ServiceTotals;
use crate::view::drops::{BackendDrops, ServiceDrops};
use crate::web::table::PageColumn;
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
    let rows: Vec<_> = rows
        .map(|(at, (word, count))| {
            let pace = paces.map(|paces| paces[at]);
            vec![
                html! { (word) },
                html! { (units::count(count)) },
                html! { @match pace { Some(pace) => (units::packet_rate(pace)), None => "–" } },
            ]
        })
        .collect();
    if rows.is_empty() {
        return html! { p { "None." } };
    }
    let columns = [
        PageColumn::Text("Reason"),
        PageColumn::Numbers("Packets"),
        PageColumn::Numbers("Now"),
    ];
    short_table("Dropped packets by reason", &columns, &rows)
}
