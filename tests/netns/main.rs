//! What tcpgw does to real packets, in network namespaces. Needs root.
//!
//! `harness` owns the topology and the tools; every other module is one topic's cases.

mod harness;

mod balance;
mod hairpin;
mod icmp;
mod local;
mod routed;
mod smoke;
mod survive;
