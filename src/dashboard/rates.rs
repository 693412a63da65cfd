//! Rates and limits, as all pages tell them.

use maud::{Markup, html};

use crate::metrics::Reading;
use crate::view::status::{LimitView, OfLimit};
use crate::view::totals_rates::TrafficPace;
use crate::web::meter::meter;
use crate::web::units;

/// Returns what has to be known to read rates.
pub(super) fn rates_note(reading: &Reading) -> Markup {
    let change = reading.totals.as_ref().and_then(|totals| totals.change.as_ref());
    html! {
        p.quiet {
            @match reading.kernel.map(|kernel| kernel.age) {
                None => "The kernel could not be read: flows are not known. ",
                Some(Some(age)) => { "The kernel could not be read: flows are those of " (age.as_secs()) " s ago. " },
                Some(None) => {}
            }
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

/// Returns the used part of a limit, each direction with its name.
pub(super) fn used(pace: TrafficPace, limit: LimitView) -> Markup {
    let of = OfLimit::new(pace.rates, limit);
    html! {
        @for (name, part) in [("to it", of.to), ("from it", of.from), ("both ways", of.shared)] {
            @if let Some(part) = part { span.quiet { (name) } (meter(part)) }
        }
    }
}

/// Returns a limit in words.
pub(super) fn limit(limit: LimitView) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
    let bytes = units::bytes(limit.bytes_per_second as f64);
    let pps = units::count(limit.packets_per_second.into());
    html! {
        p {
            "Each backend may receive and send " (pps) " packets and " (bytes) " per second"
            @if limit.shared { ", both directions together" } @else { ", each way" }
            ". After a pause a burst of " (units::count(limit.burst.into())) " packets passes."
        }
    }
}
