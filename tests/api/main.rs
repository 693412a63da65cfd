//! The API over a real socket, before a loop that answers from a script and a kernel in memory. Needs no privilege.

mod cli;
mod harness;
mod hostile;
mod openapi;
mod routes;
mod socket;
