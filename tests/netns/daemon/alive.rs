//! The daemon keeps running and answers, under many requests and with nothing to do.

mod clients;
mod configuration;
mod hanging;
mod run_directory;
