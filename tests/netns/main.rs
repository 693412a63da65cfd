//! What tcpgw does to real packets, in network namespaces. Needs root.
//!
//! `harness` owns the topology and the tools; every other module is one topic's cases.

#[path = "../cases/mod.rs"]
mod cases;
mod harness;

mod guard;
mod limits;
mod retire;
mod smoke;
mod table;
mod words;
mod writers;
