//! The `tcpgw` command.

fn main() -> std::process::ExitCode {
    tcpgw::cli::run()
}
