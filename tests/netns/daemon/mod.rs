//! The daemon, with real processes as containers.

mod adopt;
mod api;
mod basics;
mod file;
mod foreign;
mod rolling;
mod traffic;
