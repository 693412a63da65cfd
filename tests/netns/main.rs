//! Effects of tcpgw on real packets, in network namespaces. Needs root.
//!
//! `harness` owns the topology and the tools; every other module is one topic's cases.

#[path = "../cases/mod.rs"]
mod cases;
mod harness;
#[path = "../laws/states.rs"]
mod states;

#[expect(dead_code, reason = "some of it makes namespaces for other tests")]
#[path = "../injector/mod.rs"]
mod injector;

mod addon;
mod api;
mod balance;
mod caps;
mod clocks;
mod connections;
mod constrained;
mod daemon;
mod dashboard;
mod default_paths;
mod denied;
mod doctor;
mod doctor_clients;
mod doctor_docker;
mod doctor_firewall;
mod doctor_ipsec;
mod doctor_links;
mod doctor_marks;
mod doctor_neighbours;
mod doctor_packets;
mod doctor_rewrites;
mod doctor_translations;
mod doctor_ways;
mod fast_open;
mod faults;
mod flood;
mod flows;
mod foreign;
mod guard;
mod hairpin;
mod hostile_text;
mod icmp;
mod instant;
mod killed;
mod limits;
mod local;
mod lost_before_reset;
mod metrics;
mod name_taken;
mod orders_of_others;
mod output;
mod ownership;
mod probes;
mod protected;
mod recorded;
mod retire;
mod reuse;
mod routed;
mod run_directory;
mod sequences;
mod smoke;
mod source_addresses;
mod status;
mod store;
mod survive;
mod table;
mod timeouts;
mod top;
mod tutorial;
mod unit;
mod up;
mod uplinks;
mod vanished;
mod who;
mod writers;
