//! Dropped packets and connections, with reasons, and advice for the owner.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use maud::{Markup, html};

use crate::view::app::AppReading;
use crate::view::drops::Dropped;
use crate::web::table::table;
use crate::web::units;
use tcpgw_core::words::count;

/// Returns the table of drops. The kernel counts packets to and from containers by address: those of `shared` backends may be of
/// another app, and are left out.
pub(super) fn drops(reading: Option<&AppReading>, shared: &BTreeSet<SocketAddr>, is_suspended: bool) -> Markup {
    let Some(reading) = reading else {
        return html! { p { "Not known at the moment." } };
    };
    let reasons = reasons(reading, shared, is_suspended);
    let rows = reasons.iter().filter(|(dropped, ..)| dropped.packets > 0);
    let rows: Vec<Vec<Markup>> = rows
        .map(|(dropped, reason, advice)| {
            let now = dropped.packets_per_second;
            vec![
                html! { (reason) },
                html! { (units::count(dropped.packets)) },
                html! { @if let Some(rate) = now { (units::packet_rate(rate)) } @else { "–" } },
                html! { (advice) },
            ]
        })
        .collect();
    let left_out = reading.backends.keys().filter(|at| shared.contains(at)).count();
    html! {
        @if rows.is_empty() { p { "Nothing." } } @else {
            (table(&["Why", "Packets", "Now", "What helps"], &rows))
            p.quiet { "Counted since the app's service is on this gateway; for a container, since its address is used here." }
        }
        @if left_out > 0 {
            p.quiet {
                "Without packets to and from " (count(left_out, "container")) ": the address is used by something else as well, \
                 such as a container that had it before and is just being removed."
            }
        }
    }
}

fn reasons(
    reading: &AppReading,
    shared: &BTreeSet<SocketAddr>,
    is_suspended: bool,
) -> [(Dropped, &'static str, &'static str); 12] {
    let (service, backends) = (reading.drops, reading.backend_drops(shared));
    [
        (
            backends.over_limit_to,
            "Over the limit, to containers",
            "A larger plan or more containers. Senders of many small packets: larger ones.",
        ),
        (
            backends.over_limit_from,
            "Over the limit, from containers",
            "A larger plan or more containers. Write in larger pieces.",
        ),
        (
            service.no_backend,
            "New connections without a container to take them",
            if is_suspended {
                "They are refused until the add-on is resumed."
            } else {
                "Containers that answer: see above."
            },
        ),
        (
            service.refused,
            "New connections of clients that an access list keeps out",
            "Intended. Ask your platform's support if it is not.",
        ),
        (
            service.over_client,
            "New connections of clients with too many",
            "Clients that keep their connections, and wait longer before they try again.",
        ),
        (
            service.over_flows,
            "New connections while the app had as many as it may",
            "Close connections that are not used.",
        ),
        (
            service.stale,
            "Packets of connections that are over",
            "Usual after a deploy: close connections at SIGTERM, so that clients notice at once.",
        ),
        (
            service.invalid,
            "Packets that fit no connection",
            "Few are usual: they come late, damaged or forged.",
        ),
        (
            backends.invalid_from,
            "Packets from containers that fit no connection",
            "Few are usual after restarts.",
        ),
        (
            backends.stale_from,
            "Packets from containers of connections that are over",
            "Usual after a deploy.",
        ),
        (
            backends.port_reused,
            "New connections from a port that the container still held",
            "Nothing: the client repeats them.",
        ),
        (
            backends.direct,
            "Packets past the gateway's public port",
            "Connect to the address above only.",
        ),
    ]
}
