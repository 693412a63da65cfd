//! The daemon, with real processes as containers.

mod absence;
mod adopt;
mod alive;
mod api;
mod basics;
mod beside;
mod changes;
mod containers;
mod deploy;
mod file;
mod flow_log;
mod foreign;
mod full;
mod generated;
mod handshakes;
mod links;
mod locked_store;
mod orders;
mod probe_routes;
mod readonly;
mod rolling;
mod shared;
mod surroundings;
mod totals;
mod traffic;
mod truth;
