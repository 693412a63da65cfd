//! The command of `--on-switched`.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

/// Values in the command's environment.
pub(super) struct Switch<'a> {
    pub(super) service: &'a str,
    pub(super) deploy: u64,
    /// Backends, with spaces between them.
    pub(super) old: &'a str,
    pub(super) new: &'a str,
}

/// Runs the command and waits for its end. Returns an error in words if it failed.
pub(super) fn run(command: &str, of: &Switch<'_>) -> Result<(), String> {
    // Standard output is for the result of the deploy.
    let out = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map_or_else(|_| Stdio::null(), Stdio::from);
    let status = Command::new("sh")
        .args(["-c", command])
        .env("TCPGW_SERVICE", of.service)
        .env("TCPGW_DEPLOY", of.deploy.to_string())
        .env("TCPGW_OLD", of.old)
        .env("TCPGW_NEW", of.new)
        .stdin(Stdio::null())
        .stdout(out)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("has failed ({status})")),
        Err(error) => Err(format!("could not be run: {error}")),
    }
}
