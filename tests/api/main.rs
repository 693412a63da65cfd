//! The API over a real socket, before a loop that answers from a script and a kernel in memory. Needs no privilege.

mod cli;
mod cli_completions;
mod cli_deploy;
mod cli_ending;
mod cli_services;
mod deploys;
mod ending;
mod harness;
mod hostile;
#[path = "../json_schema/mod.rs"]
mod json_schema;
mod openapi;
mod readonly;
mod routes;
mod schema;
mod services;
mod single;
mod socket;
