//! Rates and limits, as all pages tell them.

use maud::{Markup, html};

use crate::metrics::Reading;

/// Returns what has to be known to read rates.
pub(super) fn rates_note(reading: &Reading) -> Markup {
    let change = reading.totals.as_ref().and_then(|totals| totals.change.as_ref());
    html! {
        p.quiet {
            @if reading.kernel.is_none() { "The kernel could not be read: flows are not known. " }
            @match (change, &reading.totals) {
                (Some(change), _) => { "Rates are taken over " (format!("{:.1}", change.time().as_secs_f64())) " s. " },
                (None, Some(_)) => "Rates need a second reading: look again in a few seconds. ",
                (None, None) => "Totals could not be read: rates are not known. ",
            }
            @if reading.totals.as_ref().is_some_and(|totals| !totals.counts_bytes) {
                "Bytes are not counted: that needs " code { "daemon.count_traffic = true" } " in the configuration, and "
                code { "net.netfilter.nf_conntrack_acct=1" } ". "
            }
        }
    }
}
