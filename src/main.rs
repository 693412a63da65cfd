//! The `tcpgw` command.

fn main() {}
