//! What tcpgw does to real packets, in network namespaces. Needs root.
//!
//! `harness` owns the topology and the tools; every other module is one topic's cases.

#[path = "../cases/mod.rs"]
mod cases;
mod harness;

mod balance;
mod foreign;
mod guard;
mod hairpin;
mod icmp;
mod instant;
mod killed;
mod limits;
mod local;
mod retire;
mod routed;
mod smoke;
mod survive;
mod table;
mod words;
mod writers;
