//! Properties that must hold for any bytes: one function for each format that tcpgw reads. cargo-fuzz looks for bytes that break
//! them; `tests/corpus.rs` calls them with the bytes that fuzzing has found worth keeping.

#![expect(clippy::missing_panics_doc, reason = "to panic is how they say no")]

pub mod answers;
pub mod attributes;
pub mod config;
pub mod conntrack;
pub mod containers;
pub mod firewall;
pub mod journal;
pub mod messages;
pub mod parts;
pub mod record;
pub mod route;
pub mod sample;
pub mod state;
pub mod table;
pub mod words;

/// Check of any bytes, which panics when its property does not hold.
pub type Check = fn(&[u8]);

/// Fuzz targets with the names of their corpora.
pub const TARGETS: [(&str, Check); 11] = [
    ("answers", answers::check),
    ("config", config::check),
    ("conntrack", conntrack::check),
    ("containers", containers::check),
    ("firewall", firewall::check),
    ("journal", journal::check),
    ("record", record::check),
    ("route", route::check),
    ("state", state::check),
    ("table", table::check),
    ("words", words::check),
];
