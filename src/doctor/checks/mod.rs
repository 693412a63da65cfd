//! The checks, by subject.

mod answers;
pub(super) mod apps;
mod arp;
mod bridge;
mod chain;
mod client_groups;
mod conntrack;
mod ct_mark;
mod direct;
mod docker;
mod firewall;
pub(super) mod forwarding;
mod ipsec;
mod kernel;
mod let_pass;
mod marked;
mod marks;
mod nat;
mod neighbours;
pub(super) mod no_address;
mod offload;
mod other_links;
mod ports;
mod probe_routes;
mod reuse;
mod reverse_path;
mod rewrites;
mod routes;
mod samples;
pub(super) mod served;
mod table;
mod text;

use super::facts::{CheapFacts, Facts};
use super::finding::Diagnosis;

/// Checks that need no more than [`CheapFacts`], so that a daemon can repeat them; they find what keeps clients from
/// being served. To add a check, add it here or to [`COSTLY`], and its findings to [`super::FINDINGS`] and to the
/// table in the manual. A finding of this list that is more than a note needs a kind of problem, too (see
/// [`super::KINDS`]).
pub(super) const CHEAP: &[fn(&CheapFacts, &mut Diagnosis)] = &[
    forwarding::check,
    firewall::check,
    served::check,
    neighbours::check,
    apps::check,
    nat::check,
    ct_mark::check,
    marks::check,
    rewrites::check,
    ipsec::check,
    conntrack::unmarked,
    routes::to_backends,
    answers::check,
    routes::elsewhere,
    probe_routes::check,
    reverse_path::check,
    conntrack::fill,
    ports::addresses,
    ports::lost_addresses,
    no_address::check,
    no_address::lost_families,
    no_address::carrier,
    no_address::unrouted,
    arp::off,
    arp::ignored,
    reuse::source_addresses,
    direct::check,
];

/// Checks that need more than [`CheapFacts`], in their order.
pub(super) const COSTLY: &[fn(&Facts, &mut Diagnosis)] = &[
    table::check,
    kernel::check,
    routes::check,
    bridge::check,
    conntrack::check,
    ports::check,
    reuse::check,
    offload::check,
];
