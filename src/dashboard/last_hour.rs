//! Plots of a service's traffic in the last hour.

use maud::{Markup, html};

use crate::traffic::last_hour::{SLOT, SlotRates};
use crate::view::status::LimitView;
use crate::web::plot::{Plot, PlotLine};
use crate::web::units;
use tcpgw_core::words::count;

/// Rates of a service in the last hour, the oldest first; `None`: not known.
pub type HourRates = [Option<SlotRates>];

/// Writes a value with its unit.
type Unit = fn(f64) -> String;
/// Value of a slot.
type Value = fn(&SlotRates) -> f64;

/// Returns the plots. `limit`: the limit of each backend, and the number of backends. `counts_bytes`: whether packets and bytes are
/// counted.
pub fn last_hour(slots: &HourRates, limit: Option<(LimitView, usize)>, counts_bytes: bool) -> Markup {
    let of_all = |of_each: u64, backends: usize| {
        #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
        let limit = of_each as f64 * backends as f64;
        limit
    };
    let name = |limit: LimitView, backends: usize| {
        let ways = if limit.shared { ", both directions together" } else { "" };
        let together = if backends == 1 { "" } else { " together" };
        format!("limit of {}{together}{ways}", count(backends, "backend"))
    };
    let name = limit.map(|(limit, backends)| name(limit, backends)).unwrap_or_default();
    let of_limit = |each: fn(&LimitView) -> u64| {
        let (limit, backends) = limit.filter(|(_, backends)| *backends > 0)?;
        Some((&*name, of_all(each(&limit), backends)))
    };
    let directions = ["to the backends", "from the backends"];
    let two = |id: &str, title: &str, values: [Value; 2], limit: Option<(&str, f64)>, unit: Unit| {
        let [to, from] = [0, 1].map(|at| line(directions[at], slots, values[at]));
        plot(id, title, &[to, from], limit, unit)
    };
    let one = |id: &str, title: &str, name: &str, value: Value, unit: Unit| {
        plot(id, title, &[line(name, slots, value)], None, unit)
    };
    html! {
        @if counts_bytes {
            (two("hour-packets", "Packets", [|of| of.packets_to, |of| of.packets_from], of_limit(|limit| limit.packets_per_second.into()), units::packet_rate))
            (two("hour-bytes", "Bytes", [|of| of.bytes_to, |of| of.bytes_from], of_limit(|limit| limit.bytes_per_second), units::byte_rate))
            (one("hour-open", "Open connections", "open", |of| of.flows, whole))
        }
        (one("hour-connections", "New connections", "new", |of| of.connections, units::event_rate))
        (one("hour-dropped", "Dropped packets, for all reasons", "dropped", |of| of.dropped, units::event_rate))
        p.quiet {
            "Each step is " (SLOT.as_secs()) " s. Traffic is counted before the limit drops what is over it. It is kept in memory while the daemon runs."
        }
    }
}

fn line<'l>(name: &'l str, slots: &HourRates, value: Value) -> PlotLine<'l> {
    PlotLine {
        name,
        values: slots.iter().map(|of| of.as_ref().map(value)).collect(),
    }
}

fn plot(id: &str, title: &str, lines: &[PlotLine<'_>], limit: Option<(&str, f64)>, unit: Unit) -> Markup {
    let plot = Plot {
        id,
        title,
        lines,
        limit,
        unit,
        step: SLOT,
    };
    plot.markup()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
fn whole(value: f64) -> String {
    units::count(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_all_backends() {
        let slots = [
            None,
            Some(SlotRates {
                packets_to: 1500.0,
                ..SlotRates::default()
            }),
        ];
        let limit = LimitView {
            packets_per_second: 1000,
            bytes_per_second: 1_500_000,
            burst: 1000,
            shared: false,
        };
        let text = last_hour(&slots, Some((limit, 2)), true).into_string();
        assert!(text.contains("limit of 2 backends together: 2,000 packets/s"), "{text}");
        assert!(
            text.contains("limit of 2 backends together: 3 MB/s, above the plot"),
            "{text}"
        );
        assert_eq!(text.matches("<figure").count(), 5, "{text}");
        let alone = last_hour(&slots, Some((limit, 1)), true).into_string();
        assert!(alone.contains("limit of 1 backend: 1,000 packets/s"), "{alone}");
        let without = last_hour(&slots, Some((limit, 0)), false).into_string();
        assert!(
            !without.contains("limit of") && without.matches("<figure").count() == 2,
            "{without}"
        );
    }
}
