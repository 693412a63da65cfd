//! Totals of services and backends that only grow: connections, packets, bytes, handshakes and drops.
//!
//! The kernel's own numbers fall: a flow that ends takes its counters with it, and a table that is replaced begins with
//! new ones. A [`Ledger`] adds up what was gained between samples. It takes samples, ends of flows and the bytes of an
//! earlier ledger, and knows neither a clock, nor a socket, nor a file. A [`PersistedLedger`] writes it to a file for the next daemon,
//! and shows only what it has written.

pub mod counter_keys;
pub mod drop_sets;
pub mod file;
pub mod flow_record;
pub mod flow_sums;
mod known_flows;
pub mod last_hour;
pub mod ledger;
mod ledger_bytes;
mod names;
#[cfg(test)]
mod names_tests;
mod persisted_ledger;
#[cfg(test)]
mod persisted_ledger_tests;
pub mod shared_hour;
#[cfg(test)]
mod tests;
pub mod totals;
mod traffic_view;

pub use self::flow_sums::{EndedFlow, FlowSums, LiveFlows};
pub use self::ledger::{LastCounts, Ledger};
pub use self::names::{NamedService, NamesChange};
pub use self::persisted_ledger::PersistedLedger;
pub use self::totals::{BackendTotals, ServiceTotals, Totals, TotalsAge};
pub use self::traffic_view::TrafficView;
