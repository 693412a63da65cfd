//! iperf3 between two hosts.

use std::net::SocketAddr;

use super::Net;
use super::client::PATIENCE;
use super::shell::Running;

/// Amount of data that a run moved, as iperf reports it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moved {
    /// Bytes that the receiver got.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Net {
    /// Starts an iperf3 server for one run, and waits until it listens.
    #[track_caller]
    pub(crate) fn iperf_server(&self, host: &str, port: u16) -> Running {
        let server = self.spawn(host, &["iperf3", "-s", "-1", "-p", &port.to_string()]);
        // Not by connecting: that would be its one run.
        assert!(
            self.wait_for_listener(host, port, PATIENCE),
            "iperf3 does not listen on {host} port {port}"
        );
        server
    }

    /// Runs an iperf3 client for some whole seconds. `args` may be `-R`, so that the server sends.
    #[track_caller]
    pub(crate) fn iperf(&self, host: &str, to: SocketAddr, seconds: u32, args: &[&str]) -> Moved {
        let (address, port, time) = (to.ip().to_string(), to.port().to_string(), seconds.to_string());
        let give_up = (u64::from(seconds) + PATIENCE.as_secs()).to_string();
        let client = [
            "timeout", &give_up, "iperf3", "-c", &address, "-p", &port, "-t", &time, "-J",
        ];
        let report = self.run(host, &[&client, args].concat()).ok();
        let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 reports JSON");
        let sum = &report["end"]["sum_received"];
        let bytes = sum["bytes"].as_u64().unwrap_or_else(|| panic!("no sum in {report}"));
        Moved {
            bytes,
            seconds: sum["seconds"].as_f64().unwrap_or_default(),
        }
    }
}
